"""What somebody is looking for, read from an address: parameters that are understood or refused, never ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import ClassVar
from urllib.parse import urlencode

from django.http import QueryDict

from registry.adapter_config import MAX_RANK
from registry.models import Adapter
from web.errors import DomainError
from web.pagination import page_size

MAX_TEXT = 200
MAX_WORDS = 10
MEGABYTE = 1_000_000
MAX_SIZE_MB = 100_000
EPOCH = date(1970, 1, 1)
DAY_US = 86_400_000_000

# What an order is called -> what it means, for people. All go from high to low.
SORTS: dict[str, str] = {
    "relevance": "names first, then downloads; needs q",
    "trending": "downloads, likes and compositions of the last two weeks, newer ones counting more",
    "new": "newest",
    "updated": "last updated",
    "downloads": "downloads",
    "likes": "likes",
    "score": "best held-out score, of whatever task and metric; with scored_on, the score on that task",
    "useful": "what compositions lost without it",
}
DEFAULT_SORT = "new"


class BadParameter(DomainError):
    """A parameter that is unknown or cannot be used: said, since a list that ignores it would be another list."""

    code = "bad_parameter"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message, fields={name[:100]: [message]})


@dataclass(frozen=True)
class Range:
    """Whole numbers from `low` to `high`, both included; None leaves a side open."""

    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        if self.low is None and self.high is None:
            return ""
        if self.low == self.high:
            return str(self.low)
        return f"{'' if self.low is None else self.low}-{'' if self.high is None else self.high}"

    def __bool__(self) -> bool:
        return bool(str(self))


@dataclass(frozen=True)
class Days(Range):
    """Whole days in UTC, counted from 1970, both ends included."""

    def __str__(self) -> str:
        if self.low is None and self.high is None:
            return ""
        low, high = (
            "" if day is None else (EPOCH + timedelta(days=day)).isoformat() for day in (self.low, self.high)
        )
        return low if low == high else f"{low}..{high}"


@dataclass(frozen=True)
class AdapterQuery:
    """What somebody is looking for; empty means any."""

    q: str = ""
    task: str = ""
    tag: str = ""
    base: str = ""
    composable: bool | None = None
    rank: Range = Range()
    targets: str = ""
    license: str = ""
    language: str = ""
    size: Range = Range()
    created: Days = Days()
    updated: Days = Days()
    kind: str = ""
    namespace: str = ""
    scored_on: str = ""
    sort: str = ""
    cursor: str = ""
    limit: int = 20

    PARAMETERS: ClassVar = (
        "q", "task", "tag", "base", "composable", "rank", "targets", "license", "language", "size", "created", "updated",
        "kind", "namespace", "scored_on", "sort", "cursor", "limit",
    )  # fmt: skip

    @classmethod
    def parse(cls, given: QueryDict) -> AdapterQuery:
        """The query that these parameters ask for. Raises BadParameter for one that is unknown or unusable."""
        params = each_once(given, cls.PARAMETERS)
        q = _words(_text(params, "q"))
        return cls(
            q=q,
            task=_text(params, "task"),
            tag=_text(params, "tag"),
            base=_text(params, "base"),
            composable=yes_or_no("composable", _text(params, "composable")),
            rank=_range("rank", _text(params, "rank"), MAX_RANK, first=1),
            targets=_targets(_text(params, "targets", limit=500)),
            license=_text(params, "license"),
            language=_text(params, "language"),
            size=_range("size", _text(params, "size"), MAX_SIZE_MB, first=0),
            created=_days("created", _text(params, "created")),
            updated=_days("updated", _text(params, "updated")),
            kind=one_of("kind", _text(params, "kind"), Adapter.Kind.values),
            namespace=_text(params, "namespace"),
            scored_on=_text(params, "scored_on"),
            sort=_sort(_text(params, "sort"), q),
            cursor=_text(params, "cursor", limit=2000),
            limit=page_size(params.get("limit") or None),
        )

    @property
    def words(self) -> list[str]:
        """What the text has to begin words with: the letters and digits of `q`, in lower case."""
        return split(self.q)

    @property
    def order(self) -> str:
        """The order that holds: the one asked for, else the best match where there are words, else the newest."""
        return self.sort or ("relevance" if self.q else DEFAULT_SORT)

    @property
    def is_narrowed(self) -> bool:
        """Whether anything but the order was asked for."""
        return any(name not in {"sort", "limit"} for name in self.as_url_params())

    def as_url_params(self) -> dict[str, str]:
        """The parameters that make this query again, without the place in the list."""
        composable = "" if self.composable is None else ("yes" if self.composable else "no")
        said = {
            "q": self.q,
            "task": self.task,
            "tag": self.tag,
            "base": self.base,
            "composable": composable,
            "rank": str(self.rank),
            "targets": self.targets,
            "license": self.license,
            "language": self.language,
            "size": str(self.size),
            "created": str(self.created),
            "updated": str(self.updated),
            "kind": self.kind,
            "namespace": self.namespace,
            "scored_on": self.scored_on,
            "sort": self.sort,
            "limit": "" if self.limit == page_size(None) else str(self.limit),
        }
        return {name: value for name, value in said.items() if value}

    def url_with(self, **changes: str) -> str:
        """The query string with some parameters changed, "" taking one away: `url_with(base="gpt2")`."""
        params = {**self.as_url_params(), **changes}
        if not params.get("q") and params.get("sort") == "relevance":
            del params["sort"]
        return urlencode({name: value for name, value in params.items() if value})

    def urls_with(self, parameter: str, values: Sequence[str]) -> list[str]:
        """The query string with each of these values for one parameter: a page of facets has a hundred."""
        if parameter in self.as_url_params():
            return [self.url_with(**{parameter: value}) for value in values]
        rest = self.url_with()
        return [f"{rest}&{urlencode({parameter: value})}".removeprefix("&") for value in values]


def split(text: str) -> list[str]:
    """Letters and digits that stand together, in lower case, as both databases split what they index."""
    return re.findall(r"[^\W_]+", text.lower())


def each_once(params: QueryDict, allowed: Sequence[str]) -> dict[str, str]:
    """These parameters. Raises BadParameter for one that is not among `allowed`, or that is given twice."""
    found: dict[str, str] = {}
    for name, values in params.lists():
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise BadParameter(name, f"{name[:60]!r} is no parameter here. There are: {known}.")
        if len(values) > 1:
            raise BadParameter(name, f"{name!r} is given {len(values)} times; give it once.")
        found[name] = values[0]
    return found


def _text(params: Mapping[str, str], name: str, *, limit: int = MAX_TEXT) -> str:
    value = params.get(name, "").strip()
    if len(value) > limit:
        raise BadParameter(name, f"{name!r} has {len(value)} characters; {limit} are allowed.")
    if "\x00" in value or not value.isprintable():
        raise BadParameter(name, f"{name!r} holds a character that no text here may.")
    return value


def words_of(text: str) -> list[str]:
    """The words of a search. Raises BadParameter for more than a database could take."""
    words = text.split()
    if len(words) > MAX_WORDS:
        raise BadParameter("q", f"The search has {len(words)} words; {MAX_WORDS} are allowed.")
    return words


def _words(text: str) -> str:
    words = words_of(text)
    if words and not split(text):
        raise BadParameter("q", "The search has neither a letter nor a digit to look for.")
    if len(split(text)) > 2 * MAX_WORDS:
        raise BadParameter("q", f"The search falls into more than {2 * MAX_WORDS} words.")
    return " ".join(words)


def yes_or_no(name: str, text: str) -> bool | None:
    """A yes/no parameter; None for "". Raises BadParameter."""
    answers = {"": None, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in answers:
        raise BadParameter(name, f"{name!r} is yes or no, not {text[:40]!r}.")
    return answers[text.lower()]


def one_of(name: str, text: str, allowed: list[str]) -> str:
    """`text`, which is empty or one of `allowed`. Raises BadParameter."""
    if text and text not in allowed:
        raise BadParameter(name, f"{name!r} is one of {', '.join(allowed)}, not {text[:40]!r}.")
    return text


def _sort(text: str, q: str) -> str:
    sort = one_of("sort", text, list(SORTS))
    if sort == "relevance" and not q:
        raise BadParameter("sort", "'sort=relevance' needs words to be relevant to; give 'q' as well.")
    # What holds anyway is not repeated in addresses.
    return "" if sort == ("relevance" if q else DEFAULT_SORT) else sort


def _targets(text: str) -> str:
    names = sorted({name.strip() for name in text.split(",")} - {""})
    return ",".join(names)


def _range(name: str, text: str, most: int, *, first: int) -> Range:
    """ "8" is 8 to 8, "4-16" both ends included, "4-" and "-16" open on one side. Raises BadParameter."""
    if not text:
        return Range()
    match = re.fullmatch(r"(\d{1,6})?(-)?(\d{1,6})?", text, re.ASCII)
    if match is None or (match[1] is None and match[3] is None):
        raise BadParameter(name, f"{name!r} is a number or a range such as 4-16, not {text[:40]!r}.")
    low = int(match[1]) if match[1] else None
    high = (int(match[3]) if match[3] else None) if match[2] else low
    if any(end is not None and not first <= end <= most for end in (low, high)):
        raise BadParameter(name, f"{name!r} goes from {first} to {most}.")
    if low is not None and high is not None and low > high:
        raise BadParameter(name, f"{name!r} goes from {low} down to {high}; turn the two around.")
    return Range(low, high)


def _days(name: str, text: str) -> Days:
    """ "2026-11-28" is that day, "2026-11-01..2026-11-28" both ends included, "2026-11-01.." since then. Raises
    BadParameter."""
    if not text:
        return Days()
    low, dots, high = text.partition("..")
    ends = [_day(name, part, text) for part in ((low, high) if dots else (low, low))]
    if ends == [None, None]:
        raise BadParameter(
            name, f"{name!r} is a day or days such as 2026-11-01..2026-11-28, not {text[:40]!r}."
        )
    if None not in ends and ends[0] > ends[1]:  # type: ignore[operator]
        raise BadParameter(name, f"{name!r} goes from {low} back to {high}; turn the two around.")
    return Days(*ends)


def _day(name: str, text: str, whole: str) -> int | None:
    if not text:
        return None
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            raise ValueError
        found = date.fromisoformat(text)
    except ValueError:
        message = f"{name!r} is a day or days such as 2026-11-01..2026-11-28, not {whole[:40]!r}."
        raise BadParameter(name, message) from None
    if found < EPOCH:
        raise BadParameter(name, f"{name!r} begins with 1970-01-01.")
    return (found - EPOCH).days
