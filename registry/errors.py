"""Why the registry refuses something, in sentences built from what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from web.errors import DomainError


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an upload: in which file, at which key or tensor, what was found and expected.

    `message` is the sentence for the uploader; the other parts let a page or a script point at the place. `times` is
    how often it is wrong: the one sentence about all that are not listed stands for many.
    """

    file: str
    message: str
    where: str = ""
    found: str = ""
    expected: str = ""
    times: int = 1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class InspectionRefused(DomainError):
    """The files are no adapter that we can keep; `problems` holds everything that was found, never empty."""

    code = "adapter_refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        fields: dict[str, list[str]] = {}
        for problem in self.problems:
            fields.setdefault(problem.file or "files", []).append(problem.message)
        more = sum(problem.times for problem in self.problems) - 1
        rest = "" if not more else f" (and {more:,} more problem{'s' if more > 1 else ''})"
        super().__init__(self.problems[0].message + rest, fields=fields)


class ConfigRefused(DomainError):
    """A base model's config.json from which no matrix sizes can be computed."""

    code = "base_model_config_refused"


class JailFailed(DomainError):
    """A throw-away process did not come to an end inside its limits."""

    code = "too_heavy"
