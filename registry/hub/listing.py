"""The list of models. Parameters that mean nothing here are ignored, as the Hub does: its clients send what they know.

Those that would leave models out are refused instead: whoever asks for some should not get all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db.models import F, Q, QuerySet, TextField, Value
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast, Concat
from django.http import HttpRequest, JsonResponse

from registry.hub import answers, pages, repositories
from registry.hub.doors import Caller, door
from registry.models import Adapter, BaseModel, Namespace
from registry.search import Tagged, few_named, few_tagged
from registry.search.query import MAX_WORDS
from web.pagination import BadCursor, Page, begins_behind, paginate

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
MAX_CARDS = 100  # each is a file to be opened and read
OF_FILES = {"siblings", "cardData", "model-index"}  # what a row has only from its repository's files
MAX_TAGS = 50  # each is a condition of its own
SORTS = {
    "createdAt": ("-created_at", "-id"),
    "lastModified": ("-updated_at", "-id"),
    "downloads": ("-downloads", "-id"),
    "likes": ("-likes", "-id"),
    "trendingScore": ("-trending", "-row"),
}
_NAMING = {
    "base_model": "base",
    "license": "license",
    "dataset": "dataset",
}  # what such tags name, for `Tagged`
_ALWAYS = frozenset({"peft", "lora", "safetensors"})
_NO_FILTERS = (
    "apps", "inference", "inference_provider", "library", "language", "license", "dataset", "trained_dataset",
    "task", "tags", "other", "region",
)  # fmt: skip
_BOUND = re.compile(
    r"(?P<end>min|max):(?P<count>\d{1,15}(?:\.\d{1,6})?)(?P<unit>[KMBT]?)\Z", re.ASCII | re.IGNORECASE
)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_MOST_PARAMETERS = 2**63 - 1


class UnknownSort(pages.BadNumber):
    def __init__(self, given: str) -> None:
        super().__init__(f"'sort' is one of {', '.join(SORTS)}, not {given[:40]!r}.")


class NoSuchFilter(pages.BadNumber):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"The list of models has no filter {name!r}. "
            "There are: search, author, filter (any tag), pipeline_tag, num_parameters and gated."
        )


class TooManyTags(pages.BadNumber):
    def __init__(self, count: int) -> None:
        super().__init__(
            f"You ask for {count} tags at once; {MAX_TAGS} is the most. Ask for the rarest of them."
        )


class TooManyWords(pages.BadNumber):
    def __init__(self, count: int) -> None:
        super().__init__(f"'search' has {count} words; {MAX_WORDS} are allowed.")


class BadRange(pages.BadNumber):
    def __init__(self, given: str) -> None:
        super().__init__(f"'num_parameters' is such as 'min:100K,max:6B', not {given[:40]!r}.")


@door("GET")
def models(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Adapters that the caller may see, in pages of `limit`, and among them the base models that are hosted here."""
    rows = _matching(request, _listed(Adapter.objects.visible_to(caller.person)))
    sort = request.GET.get("sort") or "createdAt"
    if sort not in SORTS:
        raise UnknownSort(sort)
    wanted = _fields_wanted(request)
    most = MAX_CARDS if wanted & OF_FILES else MAX_LIMIT
    size = pages.whole_number(request, "limit", default=DEFAULT_LIMIT, most=most) or DEFAULT_LIMIT
    found = paginate(rows, order=SORTS[sort], cursor=request.GET.get("cursor"), size=size)
    bases = _bases_between(request, found, order=SORTS[sort])
    _say_facts(found.items)
    if wanted & OF_FILES:
        repositories.fetch_files([adapter.head for adapter in found.items if adapter.head is not None])
    mixed: list[Adapter | BaseModel] = [*found.items, *bases]
    mixed.sort(key=lambda item: _value(item, SORTS[sort]), reverse=True)
    shown = [_row(item, wanted) for item in mixed]
    if asked := pages.expanded(request):
        shown = [answers.narrowed(row, asked) for row in shown]
    return pages.json_page(request, list(shown), next_cursor=found.next_cursor)


def _fields_wanted(request: HttpRequest) -> set[str]:
    """By name, what the rows are to have beside what is always there."""
    wanted = pages.expanded(request)
    if pages.is_true(request, "full"):
        wanted |= {"siblings", "cardData"}
    return wanted | {name for name in ("cardData", "config") if pages.is_true(request, name)}


def _listed(rows: QuerySet[Adapter]) -> QuerySet[Adapter]:
    """With what a row says, and of the facts, which may be megabytes, only that: `_say_facts` puts it in their place."""
    return (
        rows.select_related("namespace", "base_model", "head__author")
        .defer("head__facts", "head__warnings", "base_model__matrices", "base_model__config")
        .filter(search_row__isnull=False)  # each has one; where one may be missing, no index would be used
        # The id once more, from the table that has the order: the two make one index.
        .annotate(trending=F("search_row__trending"), row=F("search_row__adapter_id"))
        .annotate(**{f"fact_{name}": KeyTransform(name, "head__facts") for name in answers.FACTS})
    )


def _say_facts(adapters: Iterable[Adapter]) -> None:
    for adapter in adapters:
        if adapter.head is not None:
            adapter.head.facts = {name: getattr(adapter, f"fact_{name}") for name in answers.FACTS}


def _row(item: Adapter | BaseModel, wanted: set[str]) -> answers.Json:
    of_files = wanted & OF_FILES
    if isinstance(item, BaseModel):
        if not (of_files or "usedStorage" in wanted):
            return answers.base_model_row(item)
        row = answers.model(repositories.Repository(item.name, base_model=item).snapshot())
    elif not of_files or item.head is None:
        more = answers.adapter_more(item, item.head)
        return answers.adapter_row(item) | {name: more[name] for name in wanted & more.keys()}
    else:
        repository = repositories.Repository(item.full_name, adapter=item)
        row = answers.model(repository.snapshot_of(item.head))
    if "siblings" not in wanted:
        del row["siblings"]
    return row


def _matching(request: HttpRequest, rows: QuerySet[Adapter]) -> QuerySet[Adapter]:
    for name in _NO_FILTERS:
        if request.GET.get(name):
            raise NoSuchFilter(name)
    if words := _words_wanted(request):
        rows = _among(rows, few_named(words))
        rows = rows.annotate(repository=Concat(F("namespace__name"), Value("/"), F("name")))
    for word in words:
        rows = rows.filter(Q(repository__icontains=word))
    if author := request.GET.get("author", "").strip():
        # Which one it is first: a database that knows how much it has also knows where to begin.
        owner = Namespace.objects.filter(name__iexact=author).values_list("pk", flat=True).first()
        rows = rows.filter(namespace_id=owner) if owner is not None else rows.none()
    tags = _tags_wanted(request)
    if narrowing := [known for tag in tags if (known := _tagged(tag)) is not None]:
        rows = _among(rows, few_tagged(narrowing))
    for tag in tags:
        rows = with_tag(rows, tag)
    if bounds := _parameter_bounds(request):
        rows = rows.filter(parameters__range=bounds)
    return rows.none() if request.GET.get("gated", "").lower() == "true" else rows


def _words_wanted(request: HttpRequest) -> list[str]:
    """Parts of names, all of which are wanted. Raises TooManyWords."""
    words = request.GET.get("search", "").lower().split()
    if len(words) > MAX_WORDS:
        raise TooManyWords(len(words))
    return words


def _among(rows: QuerySet[Adapter], few: list[int] | None) -> QuerySet[Adapter]:
    """What else is asked for is then asked of these alone."""
    return rows if few is None else rows.filter(pk__in=few)


def _tags_wanted(request: HttpRequest) -> list[str]:
    """Each once, in the order in which they came. Raises TooManyTags."""
    given = ",".join([*request.GET.getlist("filter"), *request.GET.getlist("pipeline_tag")])
    tags = list(dict.fromkeys(part for part in map(str.strip, given.split(",")) if part))
    if len(tags) > MAX_TAGS:
        raise TooManyTags(len(tags))
    return tags


def _parameter_bounds(request: HttpRequest) -> tuple[int, int] | None:
    """The least and the most numbers that the weights may hold; None for any. Raises BadRange."""
    given = request.GET.get("num_parameters", "")
    if not given:
        return None
    bounds = {"min": 0, "max": _MOST_PARAMETERS}
    for part in given.split(","):
        found = _BOUND.match(part.strip())
        if found is None:
            raise BadRange(given)
        count = int(float(found["count"]) * _UNITS[found["unit"].upper()])
        bounds[found["end"].lower()] = min(count, _MOST_PARAMETERS)
    return bounds["min"], bounds["max"]


def _bases_between(request: HttpRequest, found: Page[Adapter], *, order: tuple[str, ...]) -> list[BaseModel]:
    """The hosted base models that stand in `order` where this page of adapters does. There are few of them.

    Those level with the page's last row come with it, and so not with the next page.
    """
    upper = begins_behind(request.GET.get("cursor"), order)
    kind = datetime if order[0].endswith("_at") else int | float if order[0] == "-trending" else int
    if upper is not None and not isinstance(upper, kind):
        raise BadCursor
    lower = _value(found.items[-1], order) if found.next_cursor else None
    return [
        base
        for base in BaseModel.objects.filter(kind=BaseModel.Kind.HOSTED)
        if _is_wanted(request, base)
        and (upper is None or _value(base, order) < upper)
        and (lower is None or _value(base, order) >= lower)
    ]


def _value(item: Adapter | BaseModel, order: tuple[str, ...]) -> Any:
    """What an order goes by first. Of a base model nobody counts downloads or likes."""
    field = order[0].lstrip("-")
    if isinstance(item, Adapter):
        return getattr(item, field)
    return item.created_at if field.endswith("_at") else 0


def _is_wanted(request: HttpRequest, base: BaseModel) -> bool:
    """Whether a hosted base model is what `_matching` would let through."""
    row = answers.base_model_row(base)
    author = request.GET.get("author", "").strip().lower()
    if author not in ("", row["author"].lower()):
        return False
    if not all(word in row["id"].lower() for word in _words_wanted(request)):
        return False
    bounds = _parameter_bounds(request)
    if bounds and not (base.parameters is not None and bounds[0] <= base.parameters <= bounds[1]):
        return False
    its = {tag.lower() for tag in [*row["tags"], row["pipeline_tag"] or ""]}
    is_tagged = all(tag.lower() in its for tag in _tags_wanted(request))
    return is_tagged and request.GET.get("gated", "").lower() != "true"


def with_tag(rows: QuerySet[Adapter], tag: str) -> QuerySet[Adapter]:
    """Those that have this among what `answers.tags` says of them."""
    quoted = (json.dumps(tag), f'"{tag}"')  # the two databases write other letters than ASCII differently
    rows = rows.annotate(tag_text=Cast("tags", TextField()))
    found = Q(tag_text__icontains=quoted[0]) | Q(tag_text__icontains=quoted[1])
    kind, value = _kind_and_name(tag)
    if tag.lower() in _ALWAYS:
        found |= Q(rank__isnull=False)
    elif kind in _NAMING and not value:
        pass  # nobody has a tag that names nothing
    elif kind == "base_model":
        found |= _made_for(value)
    elif kind == "license":
        found |= Q(license__iexact=value)
    elif task_types := answers.task_types(tag):
        found |= Q(head__facts__task_type__in=task_types) | Q(base_model__task_type__in=task_types)
    elif kind == "dataset":
        found |= _has_part("dataset", value)
    else:
        found |= _has_part("language", tag)
    return rows.filter(found)


def _tagged(tag: str) -> Tagged | None:
    """Who may have it, as `with_tag` goes on to say exactly; None where that is nearly everybody."""
    kind, value = _kind_and_name(tag)
    if tag.lower() in _ALWAYS:
        return None
    if kind in _NAMING:
        return Tagged(tag, **{_NAMING[kind]: value})
    task_types = answers.task_types(tag)
    return Tagged(tag, task_types=task_types) if task_types else Tagged(tag, language=tag)


def _kind_and_name(tag: str) -> tuple[str, str]:
    """`base_model:adapter:org/name` -> ("base_model", "org/name"), as `base_model:org/name`."""
    kind, _, name = tag.partition(":")
    relation, has_base, base = name.partition(":")
    is_of_adapter = kind.lower() == "base_model" and relation.lower() == "adapter" and has_base
    return kind.lower(), base if is_of_adapter else name


def _has_part(field: str, part: str) -> Q:
    """Those whose `field`, a text with commas in it, has this between them (`answers.listed`)."""
    ends = Q(**{f"{field}__iexact": part}) | Q(**{f"{field}__istartswith": f"{part},"})
    return ends | Q(**{f"{field}__iendswith": f", {part}"}) | Q(**{f"{field}__icontains": f", {part},"})


def _made_for(name: str) -> Q:
    base_model = BaseModel.objects.named(name)
    if base_model is not None:
        return Q(base_model=base_model)
    return Q(base_model=None, base_model_label__iexact=name)
