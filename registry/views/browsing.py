"""Finding modules: the whole list, and what one person or organisation has published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q, QuerySet, Sum, Value
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from registry import following, quotas, saved_searches, search, sent
from registry.models import Adapter, BaseModel, Namespace, SavedSearch, User
from registry.rights import Person, is_member, may_moderate, may_write
from registry.search import AdapterQuery, Facet
from registry.views.hashes import is_hash
from registry.views.people import signed_in
from web.errors import DomainError, NotFound

SORT_WORDS = {
    "relevance": "best match",
    "trending": "trending",
    "new": "newest",
    "updated": "last updated",
    "downloads": "downloads",
    "likes": "likes",
    "score": "best score on any task, by any metric",
    "useful": "usefulness",
}
FACET_ROWS = 8  # before "more"
OTHERS_FOUND = 4  # people, base models and tasks that a search finds beside modules


@dataclass(frozen=True)
class Filter:
    """One thing that narrows the list, and the address of the list without it."""

    label: str
    url: str


def modules(request: HttpRequest) -> HttpResponse:
    """The list of modules; everything that decides it is in the address."""
    query, refused = _read(request)
    if refused is not None:
        return _modules(request, query, asked=request.GET["q"], refused=refused)
    if is_hash(query.q):
        return redirect(f"{reverse('hashes')}?sha256={query.q.strip()}")
    return _modules(request, query)


def _read(request: HttpRequest) -> tuple[AdapterQuery, DomainError | None]:
    """What the address asks for; a search for what cannot be found is left out of it, and why is the second."""
    try:
        return AdapterQuery.parse(request.GET), None
    except search.BadParameter as error:
        if "q" not in error.fields:
            raise
        others = request.GET.copy()
        del others["q"]
        return AdapterQuery.parse(others), error


def _modules(
    request: HttpRequest,
    query: AdapterQuery,
    *,
    asked: str = "",
    refused: DomainError | None = None,
    not_saved: DomainError | None = None,
) -> HttpResponse:
    """The list page. `refused`: why nobody searched for `asked`; `not_saved`: why this search could not be kept."""
    context = _listing(request, query)
    context |= {"asked": asked or query.q, "refused": refused, "not_saved": not_saved}
    context["composable_count"] = (
        search.count(AdapterQuery(composable=True), person=request.user) if not query.is_narrowed else None
    )
    context["section"] = "modules"
    if query.q:
        context["people"], bases = _names_with(query.q)
        context["base_models"], context["has_more_bases"] = bases[:OTHERS_FOUND], len(bases) > OTHERS_FOUND
        shown = search.tasks_shown_to(request.user)
        context["tasks"] = search.tasks_matching(shown, query.q)[:OTHERS_FOUND]
    if request.user.is_authenticated:
        saved = list(SavedSearch.objects.filter(user=signed_in(request)))
        context["saved_searches"] = saved
        context["is_saved"] = any(item.parameters == query.url_with() for item in saved)
    problem = refused or not_saved
    return render(request, "registry/modules.html", context, status=problem.status if problem else 200)


def _names_with(words: str) -> tuple[list[str], list[str]]:
    """Names of people, and of base models one more than are shown, the nearest to what was asked for first."""
    people = _nearest(Namespace.objects.filter(deleted_at=None), words, most=OTHERS_FOUND, is_base=False)
    bases = _nearest(BaseModel.objects.all(), words, most=OTHERS_FOUND + 1, is_base=True)
    # The shortest of those that have the words is the nearest.
    names = sorted(people.union(bases, all=True), key=lambda row: (len(row[0]), row[0]))
    return [name for name, is_base in names if not is_base], [name for name, is_base in names if is_base]


def _nearest(named: QuerySet[Any], words: str, *, most: int, is_base: bool) -> QuerySet[Any]:
    """(name, is_base) of the `most` shortest names that have these words, in no order: a part of a union can have none."""
    found = named.filter(name__icontains=words).order_by(Length("name"), "name")[:most]
    rows = named.filter(pk__in=found.values("pk")).annotate(is_base=Value(is_base))
    return rows.order_by().values_list("name", "is_base")


@login_required
def save_search(request: HttpRequest) -> HttpResponse:
    """Keep the list that somebody is looking at under a name."""
    if request.method != "POST":
        # The links of a list that could not be saved: they change its parameters only.
        return redirect(f"{reverse('modules')}?{request.META.get('QUERY_STRING', '')}")
    parameters = request.POST.get("parameters", "")
    try:
        saved, _ = saved_searches.save(
            user=signed_in(request), name=request.POST.get("name", ""), parameters=parameters
        )
    except search.BadParameter:
        raise
    except DomainError as error:
        query = replace(AdapterQuery.parse(QueryDict(parameters)), cursor="")
        return _modules(request, query, not_saved=error)
    messages.success(request, f"Saved as “{saved.name}”.")
    return redirect(f"{reverse('modules')}?{saved.parameters}")


@login_required
@require_POST
def remove_saved_search(request: HttpRequest, search_id: int) -> HttpResponse:
    """Forget one; the list stays as it was."""
    saved = saved_searches.remove(user=signed_in(request), pk=search_id)
    messages.success(request, f"“{saved.name}” is forgotten.")
    if request.POST.get("back") == "following":
        return redirect("following")
    shown = AdapterQuery.parse(QueryDict(request.POST.get("list", ""))).url_with()
    return redirect(reverse("modules") + (f"?{shown}" if shown else ""))


def namespace(request: HttpRequest, namespace: str) -> HttpResponse:
    """What a person or an organisation has published."""
    to_compose_for = search.tasks_shown_to(request.user).held_out().order_by().values("pk")
    owner = (
        Namespace.objects.filter(name__iexact=namespace, deleted_at=None)
        .annotate(task_count=Count("tasks", filter=Q(tasks__in=to_compose_for)))
        .first()
    )
    if owner is None:
        raise NotFound(f"There is nobody called {namespace!r} here.")
    query, refused = _read(request)
    query = replace(query, namespace=owner.name)
    visible = Adapter.objects.visible_to(request.user).filter(namespace=owner)
    sums = visible.aggregate(downloads=Sum("downloads"), modules=Count("pk"))
    writes = may_write(request.user, owner)
    context = {
        "owner": owner,
        "sums": sums,
        "members": User.objects.filter(memberships__namespace=owner).order_by("username")[:50]
        if owner.is_organisation
        else [],
        "may_write": writes,
        "quota": quotas.use_of(owner) if writes else None,
        "sent": sent.use_by(signed_in(request)) if owner.name == request.user.get_username() else None,
        "is_followed": following.follows(request.user, namespace=owner),
        "may_moderate": may_moderate(request.user),
        "is_member": owner.is_organisation and (writes or is_member(request.user, owner)),
        "refused": refused,
        **_listing(request, query, with_facets=False),
    }
    return render(request, "registry/namespace.html", context, status=refused.status if refused else 200)


def _listing(request: HttpRequest, query: AdapterQuery, *, with_facets: bool = True) -> dict[str, Any]:
    page = search.find(query, person=request.user, with_facets=with_facets)
    facets = page.facets
    sort_words = {**SORT_WORDS, "score": "best score on the task"} if query.scored_on else SORT_WORDS
    return {
        "query": query,
        "page": page,
        "count": page.count,
        "facets": [_for_page(facet, query) for facet in facets if _narrows(facet, page.count)],
        "shared": [_for_page(facet, query) for facet in facets if _is_shared(facet, page.count)],
        "recently": _recently(query),
        "any_time_url": query.url_with(updated=""),
        "has_facets": any(facet.values for facet in facets),
        "filters": _filters(query, facets, request.user),
        "sorts": [
            (words, query.url_with(sort=name), name == query.order)
            for name, words in sort_words.items()
            if name != "relevance" or query.q
        ],
        "sort_words": sort_words[query.order],
        "next_url": query.url_with(cursor=page.next_cursor) if page.next_cursor else "",
        "first_url": query.url_with() if query.cursor else "",
        "has_cursor": bool(query.cursor),
        "api_call": _api_call(request, query),
    }


def _is_shared(facet: Facet, count: int) -> bool:
    """Whether everything found has the one value there is: it tells something, and narrows nothing."""
    only = facet.values[0] if len(facet.values) == 1 else None
    return only is not None and not only.is_chosen and only.count == count


def _narrows(facet: Facet, count: int) -> bool:
    """Whether any of its values leaves fewer than everything found, or is chosen and can be taken away."""
    return any(item.is_chosen or item.count < count for item in facet.values)


def _for_page(facet: Facet, query: AdapterQuery) -> dict[str, Any]:
    """A facet with the address that each of its values leads to; the chosen one leads back."""
    urls = query.urls_with(facet.parameter, [item.value for item in facet.values])
    rows = [
        {
            "label": item.label,
            "count": item.count,
            "is_chosen": item.is_chosen,
            "url": query.url_with(**{facet.parameter: ""}) if item.is_chosen else url,
        }
        for item, url in zip(facet.values, urls, strict=True)
    ]
    return {
        "label": facet.label,
        "any_url": query.url_with(**{facet.parameter: ""}),
        "is_any": not any(row["is_chosen"] for row in rows),
        "rows": rows[:FACET_ROWS],
        "folded": rows[FACET_ROWS:],
        "folded_open": any(row["is_chosen"] for row in rows[FACET_ROWS:]),
        "more": facet.more,
    }


def _filters(query: AdapterQuery, facets: list[Facet], person: Person) -> list[Filter]:
    labels = {
        (facet.parameter, item.value.casefold()): item.label for facet in facets for item in facet.values
    }
    filters = []
    for name, value in query.as_url_params().items():
        if name in {"sort", "limit", "namespace"} and not (name == "namespace" and facets):
            continue
        shown = labels.get((name, value.casefold())) or _title(name, value, person)
        words = {
            "q": f"“{shown}”",
            "composable": "composable" if value == "yes" else "not composable",
            "rank": f"rank {shown}",
            "size": shown if " " in shown else f"{shown} MB",
            "tag": f"tagged {shown}",
            "targets": f"on {shown.replace(',', ', ')}",
            "scored_on": f"scored on {shown}",
            "created": f"published {_in_words(shown)}",
            "updated": f"updated {_in_words(shown)}",
            "namespace": f"by {shown}",
        }.get(name, shown)
        filters.append(Filter(words, query.url_with(**{name: ""})))
    return filters


def _title(name: str, value: str, person: Person) -> str:
    """A task by its title, as people know it; anything else as it stands in the address."""
    if name not in {"task", "scored_on"}:
        return value
    task = search.task_named(value, person=person)
    return task.title if task is not None else value


def _in_words(days: str) -> str:
    """`2026-11-01..` -> `since 2026-11-01`."""
    low, dots, high = days.partition("..")
    if not dots:
        return f"on {low}"
    return f"since {low}" if not high else f"until {high}" if not low else f"from {low} to {high}"


def _recently(query: AdapterQuery) -> list[dict[str, Any]]:
    """Lists of what was updated of late, beside the facets."""
    today = timezone.now().date()
    rows = []
    for words, days in (("last week", 7), ("last month", 30), ("last year", 365)):
        since = f"{today - timedelta(days=days)}.."
        is_chosen = str(query.updated) == since
        rows.append(
            {
                "label": words,
                "is_chosen": is_chosen,
                "url": query.url_with(updated="" if is_chosen else since),
            }
        )
    return rows


def _api_call(request: HttpRequest, query: AdapterQuery) -> str:
    """The same list as a command for a terminal."""
    params = query.url_with()
    address = request.build_absolute_uri("/api/v1/adapters/") + (f"?{params}" if params else "")
    return f"curl '{address}'"
