"""Finding adapters: parameters that are understood or refused, never ignored; rows, order and exact counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, F, FloatField, OuterRef, Q, QuerySet, Subquery, TextField, Value
from django.db.models.functions import Cast, Coalesce
from django.http import QueryDict

from registry.adapter_config import MAX_RANK
from registry.models import Adapter, BaseModel, Revision, RevisionFile, Task
from registry.models.adapters import AdapterQuerySet
from registry.rights import Person
from web.errors import DomainError
from web.pagination import page_size

MAX_TEXT = 200
MAX_WORDS = 10
FACET_VALUES = 30

# What an order is called -> the fields it goes by; the last one makes it unambiguous.
SORTS: dict[str, tuple[str, ...]] = {
    "new": ("-created_at", "-id"),
    "updated": ("-updated_at", "-id"),
    "downloads": ("-downloads", "-id"),
    "score": ("-score", "-id"),
}
DEFAULT_SORT = "new"


class BadParameter(DomainError):
    """A parameter that is unknown or cannot be used: said, since a list that ignores it would be another list."""

    code = "bad_parameter"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message, fields={name[:100]: [message]})


@dataclass(frozen=True)
class AdapterQuery:
    """What somebody is looking for; empty means any."""

    q: str = ""
    task: str = ""
    base: str = ""
    composable: bool | None = None
    rank_min: int | None = None
    rank_max: int | None = None
    license: str = ""
    kind: str = ""
    namespace: str = ""
    sort: str = DEFAULT_SORT
    cursor: str = ""
    limit: int = 20

    PARAMETERS = (
        "q", "task", "base", "composable", "rank", "license", "kind", "namespace", "sort", "cursor", "limit",
    )  # fmt: skip

    @classmethod
    def parse(cls, params: QueryDict) -> AdapterQuery:
        """The query that these parameters ask for. Raises BadParameter for one that is unknown or unusable."""
        for name in params:
            if name not in cls.PARAMETERS:
                raise BadParameter(
                    name,
                    f"{name[:60]!r} is no parameter of this list. There are: {', '.join(cls.PARAMETERS)}.",
                )
            if len(params.getlist(name)) > 1:
                raise BadParameter(
                    name, f"{name!r} is given {len(params.getlist(name))} times; give it once."
                )
        rank_min, rank_max = _rank(_text(params, "rank"))
        return cls(
            q=_words(_text(params, "q")),
            task=_text(params, "task"),
            base=_text(params, "base"),
            composable=yes_or_no("composable", _text(params, "composable")),
            rank_min=rank_min,
            rank_max=rank_max,
            license=_text(params, "license"),
            kind=_one_of("kind", _text(params, "kind"), Adapter.Kind.values),
            namespace=_text(params, "namespace"),
            sort=_one_of("sort", _text(params, "sort"), list(SORTS)) or DEFAULT_SORT,
            cursor=_text(params, "cursor", limit=2000),
            limit=page_size(params.get("limit") or None),
        )

    @property
    def rank(self) -> str:
        """The rank as it stands in the address: "8", "4-16", "4-", "-16" or ""."""
        low, high = self.rank_min, self.rank_max
        if low is None and high is None:
            return ""
        if low == high:
            return str(low)
        return f"{'' if low is None else low}-{'' if high is None else high}"

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
            "base": self.base,
            "composable": composable,
            "rank": self.rank,
            "license": self.license,
            "kind": self.kind,
            "namespace": self.namespace,
            "sort": "" if self.sort == DEFAULT_SORT else self.sort,
            "limit": "" if self.limit == page_size(None) else str(self.limit),
        }
        return {name: value for name, value in said.items() if value}

    def url_with(self, **changes: str) -> str:
        """The query string with some parameters changed, "" taking one away: `url_with(base="gpt2")`."""
        params = {**self.as_url_params(), **changes}
        return urlencode({name: value for name, value in params.items() if value})

    def without(self, parameter: str) -> AdapterQuery:
        """This query with one parameter left open."""
        names = {"rank": ("rank_min", "rank_max")}.get(parameter, (parameter,))
        defaults: dict[str, Any] = {item.name: item.default for item in fields(self) if item.name in names}
        return replace(self, **defaults)


@dataclass(frozen=True)
class FacetValue:
    value: str
    label: str
    count: int
    is_chosen: bool


@dataclass(frozen=True)
class Facet:
    """One way to narrow the list. `more` counts values that are not shown, for being the rarest."""

    parameter: str
    label: str
    values: list[FacetValue]
    more: int = 0


def find(query: AdapterQuery, *, person: Person) -> tuple[AdapterQuerySet, tuple[str, ...]]:
    """Adapters that fit the query and this person may see, and the order for `web.pagination.paginate`.

    Those that have no weights yet are listed only where their namespace is asked for.

    Each has `composes_with`, the number of other adapters it can be composed with, and `score`, its best one or -1.
    """
    score = Coalesce("best_score", Value(-1.0), output_field=FloatField())
    rows = _filtered(query, person).select_related("namespace", "base_model", "task", "head")
    return rows.with_family_sizes(person).annotate(score=score), SORTS[query.sort]


def count(query: AdapterQuery, *, person: Person) -> int:
    """How many adapters fit the query."""
    return _filtered(query, person).count()


def facets(query: AdapterQuery, *, person: Person) -> list[Facet]:
    """Ways to narrow the query, each with exact counts under all its other parameters. One database query each."""
    return [
        _facet(query, person, "base", "Base model", "base_model__name"),
        _facet(query, person, "task", "Task", "task__slug", label_field="task__title"),
        _facet(query, person, "composable", "Composable", "is_composable", say=_say_composable),
        _facet(query, person, "rank", "Rank", "rank", order=("rank",)),
        _facet(query, person, "license", "Licence", "license"),
        _facet(query, person, "kind", "Kind", "kind", say=_say_kind),
    ]


def composes_with(adapter: Adapter, *, person: Person) -> QuerySet[Adapter]:
    """The other adapters that this person may see and this adapter can be composed with."""
    if not adapter.is_composable or adapter.base_model is None:
        return Adapter.objects.none()
    family = Adapter.objects.visible_to(person).composable_with(adapter.base_model)
    return family.exclude(pk=adapter.pk).select_related("namespace", "task")


def revisions_with(sha256: str, *, person: Person) -> QuerySet[Revision]:
    """Revisions that this person may see and that have a file with this hash, or weights with this tensor hash.

    The tensor hash is of names, shapes and values alone, so it finds the same weights in another file. Each has
    `path`, the file's, or None where only the tensors are meant. Raises BadParameter.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise BadParameter("sha256", "A sha256 is 64 hex digits.")
    sha256 = sha256.lower()
    files = RevisionFile.objects.filter(revision=OuterRef("pk"), blob__sha256=sha256).order_by("path")
    return (
        Revision.objects.filter(adapter__in=Adapter.objects.visible_to(person))
        .annotate(path=Subquery(files.values("path")[:1]))
        .filter(Q(path__isnull=False) | Q(tensor_sha256=sha256))
        .select_related("adapter__namespace")
    )


def with_words(rows: AdapterQuerySet, q: str) -> AdapterQuerySet:
    """Those whose name, namespace, description, task, base model or tags hold every word of `q`.

    The one place where text is searched: a full-text index of either database goes in here.
    """
    if not q:
        return rows
    rows = rows.annotate(tag_text=Cast("tags", TextField()))
    for word in q.split():
        rows = rows.filter(
            Q(name__icontains=word)
            | Q(namespace__name__icontains=word)
            | Q(description__icontains=word)
            | Q(task__title__icontains=word)
            | Q(base_model__name__icontains=word)
            | Q(base_model=None, base_model_label__icontains=word)
            | Q(tag_text__icontains=word)
        )
    return rows


def _filtered(query: AdapterQuery, person: Person) -> AdapterQuerySet:
    rows = with_words(Adapter.objects.visible_to(person), query.q)
    if query.task:
        rows = rows.filter(task__slug=query.task)
    if query.base:
        rows = rows.filter(_made_for(query.base))
    if query.composable is not None:
        rows = rows.filter(is_composable=query.composable)
    if query.rank_min is not None:
        rows = rows.filter(rank__gte=query.rank_min)
    if query.rank_max is not None:
        rows = rows.filter(rank__lte=query.rank_max)
    if query.license:
        rows = rows.filter(license__iexact=query.license)
    if query.kind:
        rows = rows.filter(kind=query.kind)
    if query.namespace:
        return rows.filter(namespace__name__iexact=query.namespace)
    return rows.filter(rank__isnull=False)


def _made_for(name: str) -> Q:
    base_model = BaseModel.objects.named(name)
    if base_model is not None:
        return Q(base_model=base_model)
    return Q(base_model=None, base_model_label__iexact=name)


def _facet(
    query: AdapterQuery,
    person: Person,
    parameter: str,
    label: str,
    field: str,
    *,
    label_field: str = "",
    say: Callable[[Any], tuple[str, str]] | None = None,
    order: tuple[str, ...] = ("-rows",),
) -> Facet:
    rows = _filtered(query.without(parameter), person)
    if parameter != "composable":
        rows = rows.exclude(**{f"{field}__isnull": True})
    if parameter == "license":
        rows = rows.exclude(license="")
    groups = list(
        rows.order_by()
        .values(key=F(field), title=F(label_field or field))
        .annotate(rows=Count("pk"))
        .order_by(*order, "key")
    )
    chosen = query.as_url_params().get(parameter, "").casefold()
    values = []
    for group in groups:
        value, title = say(group["key"]) if say else (str(group["key"]), str(group["title"]))
        values.append(FacetValue(value, title, group["rows"], value.casefold() == chosen))
    # What is chosen is always shown, be it ever so rare.
    shown = [item for place, item in enumerate(values) if place < FACET_VALUES or item.is_chosen]
    return Facet(parameter, label, shown, more=len(values) - len(shown))


def _say_composable(value: bool) -> tuple[str, str]:
    return ("yes", "Yes") if value else ("no", "No")


def _say_kind(value: str) -> tuple[str, str]:
    return value, Adapter.Kind(value).label


def _text(params: QueryDict, name: str, *, limit: int = MAX_TEXT) -> str:
    value = params.get(name, "").strip()
    if len(value) > limit:
        raise BadParameter(name, f"{name!r} has {len(value)} characters; {limit} are allowed.")
    if "\x00" in value or not value.isprintable():
        raise BadParameter(name, f"{name!r} holds a character that no text here may.")
    return value


def _words(text: str) -> str:
    words = text.split()
    if len(words) > MAX_WORDS:
        raise BadParameter("q", f"'q' has {len(words)} words; {MAX_WORDS} are allowed.")
    return " ".join(words)


def yes_or_no(name: str, text: str) -> bool | None:
    """A yes/no parameter; None for "". Raises BadParameter."""
    answers = {"": None, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if text.lower() not in answers:
        raise BadParameter(name, f"{name!r} is yes or no, not {text[:40]!r}.")
    return answers[text.lower()]


def _one_of(name: str, text: str, allowed: list[str]) -> str:
    if text and text not in allowed:
        raise BadParameter(name, f"{name!r} is one of {', '.join(allowed)}, not {text[:40]!r}.")
    return text


def _rank(text: str) -> tuple[int | None, int | None]:
    """ "8" is 8 to 8, "4-16" both ends included, "4-" and "-16" open on one side."""
    if not text:
        return None, None
    match = re.fullmatch(r"(\d{0,4})(-?)(\d{0,4})", text, re.ASCII)
    if match is None or match.group(1) == match.group(3) == "":
        raise BadParameter("rank", f"'rank' is a number or a range such as 4-16, not {text[:40]!r}.")
    first, dash, last = match.groups()
    low = int(first) if first else None
    high = (int(last) if last else None) if dash else low
    if not dash and last:
        low = high = int(text)
    if max(low or 1, high or 1) > MAX_RANK or 0 in (low, high):
        raise BadParameter("rank", f"Ranks go from 1 to {MAX_RANK}.")
    if low is not None and high is not None and low > high:
        raise BadParameter("rank", f"'rank' goes from {low} down to {high}; turn the two around.")
    return low, high


def tasks_shown_to(person: Person) -> QuerySet[Task]:
    """Tasks with rows, tasks of nobody in particular, and those of some adapter that this person may see."""
    visible = Adapter.objects.visible_to(person).filter(task__isnull=False).order_by().values("task_id")
    return Task.objects.filter(Q(is_held_out=True) | Q(owner=None) | Q(pk__in=visible))
