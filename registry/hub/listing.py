"""The list of models. Parameters that mean nothing here are ignored, as the Hub does: its clients send what they know."""

from __future__ import annotations

import json

from django.db.models import F, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Concat
from django.http import HttpRequest, JsonResponse

from registry.hub import answers, pages, repositories
from registry.hub.doors import Caller, door
from registry.models import Adapter, BaseModel
from web.pagination import paginate

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
SORTS = {
    "createdAt": ("-created_at", "-id"),
    "lastModified": ("-updated_at", "-id"),
    "downloads": ("-downloads", "-id"),
    "likes": ("-likes", "-id"),
    "trendingScore": ("-downloads", "-id"),
}
_ALWAYS = frozenset({"peft", "lora", "safetensors"})


class UnknownSort(pages.BadNumber):
    def __init__(self, given: str) -> None:
        super().__init__(f"'sort' is one of {', '.join(SORTS)}, not {given[:40]!r}.")


@door("GET")
def models(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Adapters that the caller may see, in pages of `limit`."""
    visible = Adapter.objects.visible_to(caller.person).select_related("namespace", "base_model", "head")
    rows = _matching(request, visible)
    sort = request.GET.get("sort") or "createdAt"
    if sort not in SORTS:
        raise UnknownSort(sort)
    size = pages.whole_number(request, "limit", default=DEFAULT_LIMIT, most=MAX_LIMIT) or DEFAULT_LIMIT
    found = paginate(rows, order=SORTS[sort], cursor=request.GET.get("cursor"), size=size)
    is_full = request.GET.get("full", "").lower() in {"1", "true"} or "siblings" in request.GET.getlist(
        "expand"
    )
    with_card = is_full or request.GET.get("cardData", "").lower() in {"1", "true"}
    return pages.json_page(
        request,
        [_row(adapter, is_full=is_full, with_card=with_card) for adapter in found.items],
        next_cursor=found.next_cursor,
    )


def _row(adapter: Adapter, *, is_full: bool, with_card: bool) -> answers.Json:
    if not (is_full or with_card) or adapter.head is None:
        return answers.adapter_row(adapter)
    repository = repositories.Repository(adapter.full_name, adapter=adapter)
    row = answers.model(repository.snapshot_of(adapter.head))
    if not is_full:
        del row["siblings"]
    return row


def _matching(request: HttpRequest, rows: QuerySet[Adapter]) -> QuerySet[Adapter]:
    search = request.GET.get("search", "").strip()
    if search:
        rows = rows.annotate(repository=Concat(F("namespace__name"), Value("/"), F("name")))
        rows = rows.filter(repository__icontains=search)
    if author := request.GET.get("author", "").strip():
        rows = rows.filter(namespace__name__iexact=author)
    wanted = [*request.GET.getlist("filter"), *request.GET.getlist("pipeline_tag")]
    for tag in [part.strip() for given in wanted for part in given.split(",")]:
        if tag:
            rows = with_tag(rows, tag)
    return rows.none() if request.GET.get("gated", "").lower() == "true" else rows


def with_tag(rows: QuerySet[Adapter], tag: str) -> QuerySet[Adapter]:
    """Those that have this among what `answers.tags` says of them."""
    quoted = (json.dumps(tag), f'"{tag}"')  # the two databases write other letters than ASCII differently
    rows = rows.annotate(tag_text=Cast("tags", TextField()))
    found = Q(tag_text__icontains=quoted[0]) | Q(tag_text__icontains=quoted[1])
    kind, _, value = tag.partition(":")
    if tag in _ALWAYS:
        found |= Q(rank__isnull=False)
    elif kind == "base_model":
        found |= _made_for(value.removeprefix("adapter:"))
    elif kind == "license":
        found |= Q(license__iexact=value)
    elif task_types := answers.task_types(tag):
        found |= Q(head__facts__task_type__in=task_types) | Q(base_model__task_type__in=task_types)
    else:
        found |= Q(language__iexact=tag) | Q(language__istartswith=f"{tag},")
        found |= Q(language__iendswith=f", {tag}") | Q(language__icontains=f", {tag},")
    return rows.filter(found)


def _made_for(name: str) -> Q:
    base_model = BaseModel.objects.named(name)
    if base_model is not None:
        return Q(base_model=base_model)
    return Q(base_model=None, base_model_label__iexact=name)
