"""Reading what was sent, before anything is kept: which files, of which base model, and what publishing them would do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings

from registry import adapter_config, cards, details, filenames, inspection
from registry.errors import InspectionRefused, Problem
from registry.models import Adapter, BaseModel, Revision, User

_MAX_LABEL = 500


@dataclass(frozen=True)
class Report:
    """What publishing these files would do. With `problems` it would be refused."""

    problems: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    is_composable: bool = False
    composable_reason: str = ""
    base_model: BaseModel | None = None
    base_model_label: str = ""
    base_fit: str = Revision.BaseFit.UNCHECKED
    composes_with: int = 0
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def is_publishable(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class Prepared:
    """Files that passed every rule, and what was read from them."""

    found: inspection.Inspection
    base_model: BaseModel | None
    base_model_label: str
    composable_reason: str


def validate(*, author: User, files: Mapping[str, Path], base_model: str = "") -> Report:
    """What `publish` would say to these files; nothing is kept, no right to publish anywhere is needed."""
    base_model = details.check_text("base_model", base_model)
    try:
        require_size(files)
        with prepare(files, base_model=base_model) as prepared:
            return _report(prepared, author)
    except InspectionRefused as error:
        return Report(problems=[problem.as_dict() for problem in error.problems])


def require_size(files: Mapping[str, Path]) -> None:
    """Raises InspectionRefused if the files are too many or too large."""
    problems = []
    if len(files) > settings.MAX_FILES_PER_ADAPTER:
        problems.append(
            Problem(
                file="",
                message=f"There are {len(files)} files; an adapter may have {settings.MAX_FILES_PER_ADAPTER}.",
                found=str(len(files)),
                expected=f"at most {settings.MAX_FILES_PER_ADAPTER}",
            )
        )
    total = 0
    for name, path in files.items():
        size = path.stat().st_size
        total += size
        if size > settings.MAX_FILE_BYTES:
            problems.append(_too_large(filenames.show(name)[:255], "file", size, settings.MAX_FILE_BYTES))
    if total > settings.MAX_ADAPTER_BYTES:
        problems.append(_too_large("", "adapter", total, settings.MAX_ADAPTER_BYTES))
    if problems:
        raise InspectionRefused(problems)


def _too_large(file: str, what: str, size: int, limit: int) -> Problem:
    subject = f"{file} has" if file else f"The {what}'s files have together"
    return Problem(
        file=file,
        message=f"{subject} {size:,} bytes; one {what} may have {limit:,}.",
        found=f"{size} bytes",
        expected=f"at most {limit} bytes",
    )


@contextmanager
def prepare(
    files: Mapping[str, Path], *, base_model: str = "", fallback: str = "", may_be_unfinished: bool = False
) -> Iterator[Prepared]:
    """The files that would be kept, inspected; a converted weight file exists for as long as this lasts.

    `base_model` counts before what config and card say, `fallback` after it. Raises InspectionRefused.
    """
    # What cannot be tidied up is the sweep's: by then the revision may be there, and an error would deny it.
    with TemporaryDirectory(
        dir=settings.UPLOAD_TMP_DIR, prefix="publish-", ignore_cleanup_errors=True
    ) as workspace:
        base, label = resolve_base(base_model, *labels_in(files), fallback)
        matrices = (base.sizes() or None) if base else None
        found = inspection.inspect_folder(
            files,
            matrices,
            base_name=base.name if base else "",
            workspace=Path(workspace),
            may_be_unfinished=may_be_unfinished,
        )
        reason = found.composable_reason or why_unchecked(base, found.base_fit)
        yield Prepared(found=found, base_model=base, base_model_label=label, composable_reason=reason)


def labels_in(files: Mapping[str, Path]) -> Iterator[str]:
    """What config and card call the base model. What is wrong with either is the inspection's to say."""
    with suppress(adapter_config.ConfigUnreadable, KeyError):
        yield adapter_config.read_config(files[filenames.CONFIG]).base_model_label
    with suppress(cards.CardRefused, KeyError):
        named = cards.split_card(cards.read_card(files[filenames.CARD]))[0].get("base_model")
        yield from [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]


def resolve_base(given: str, *labels: str) -> tuple[BaseModel | None, str]:
    """The base model and what it is called: by the uploader if they said, else by config or card, known ones first."""
    called = [given] if given else [label.strip() for label in labels if label.strip()]
    for label in called:
        base = BaseModel.objects.named(label)
        if base is not None:
            return base, label[:_MAX_LABEL]
    return None, called[0][:_MAX_LABEL] if called else ""


def why_unchecked(base: BaseModel | None, base_fit: str) -> str:
    """Why it is not known whether an adapter fits; "" where it does."""
    if base is None:
        return "Its base model is not known here yet, so its matrices could not be compared with it."
    if base_fit != Revision.BaseFit.FITS:
        return "Its matrices could not be compared with those of the base model."
    return ""


def _report(prepared: Prepared, person: User) -> Report:
    found = prepared.found
    is_composable = not prepared.composable_reason
    others = 0
    if is_composable and prepared.base_model:
        others = Adapter.objects.visible_to(person).composable_with(prepared.base_model).count()
    return Report(
        problems=[],
        warnings=found.warnings,
        left_out=found.left_out,
        files=[
            {"path": name, "size_bytes": path.stat().st_size} for name, path in sorted(found.files.items())
        ],
        facts=found.facts,
        is_composable=is_composable,
        composable_reason=prepared.composable_reason,
        base_model=prepared.base_model,
        base_model_label=prepared.base_model_label,
        base_fit=found.base_fit,
        composes_with=others,
        defaults=said_by_card(found.front_matter),
    )


def said_by_card(front_matter: Mapping[str, Any]) -> dict[str, Any]:
    """What a card's front matter gives, as far as it can be used; `datasets` is the Hub's word."""
    tags = front_matter.get("tags")
    return {
        "dataset": details.usable("dataset", front_matter.get("datasets")),
        "prompt_template": details.usable("prompt_template", front_matter.get("prompt_template")),
        "license": details.usable("license", front_matter.get("license")),
        "language": details.usable("language", front_matter.get("language")),
        "tags": details.usable_tags(tags if isinstance(tags, list) else []),
    }
