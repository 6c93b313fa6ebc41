"""Pages about tasks and their leaderboards, and the leaderboards as files and in other people's pages."""

from __future__ import annotations

import csv
import io
from typing import Any
from urllib.parse import urlencode

from csp.decorators import csp_replace
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.clickjacking import xframe_options_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from compose import daily_limit, leaderboards
from compose.leaderboards import Board
from compose.predictions import plain_cell
from registry import search
from registry.api_parts import only
from registry.models import Adapter, Task, TaskRow
from registry.rights import may_change_task, may_moderate, namespaces_of
from registry.search import tasks_shown_to, visible_task
from web.api_schema import refusals
from web.pagination import paginate

PAGE = 30
EMBEDDED_ROWS = 10
KINDS = ("trained", "yours")
DEFAULT_SORT = "name"
SORT_WORDS = {"name": "name", "new": "newest"}


@require_safe
def tasks(request: HttpRequest) -> HttpResponse:
    """Tasks to compose for, those that modules were trained on, or those of the person who looks."""
    kind = request.GET.get("kind", "")
    if kind not in KINDS or (kind == "yours" and not request.user.is_authenticated):
        kind = ""
    text = request.GET.get("q", "").strip()[:100]
    by = request.GET.get("by", "")[:100]
    sort = search.one_of("sort", request.GET.get("sort", ""), list(search.TASK_SORTS)) or DEFAULT_SORT
    shown = tasks_shown_to(request.user).select_related("base_model", "owner")
    found: QuerySet[Task] = search.tasks_matching(shown, text)
    if by:
        found = found.filter(owner__name__iexact=by)
    if kind == "trained":
        found = found.filter(is_held_out=False, quarantined_at=None)
    elif kind == "yours":
        found = found.filter(is_held_out=True, owner__in=namespaces_of(request.user))
    else:
        found = found.filter(is_held_out=True, quarantined_at=None)
    page = paginate(found, order=search.TASK_SORTS[sort], cursor=request.GET.get("cursor"), size=PAGE)
    if kind == "trained":
        counts = search.modules_by_task(person=request.user)
        for task in page.items:
            task.modules = counts.get(task.pk, 0)  # type: ignore[attr-defined]
    else:
        leaderboards.show_best(page.items, request.user)
    narrowed = {name: value for name, value in (("kind", kind), ("by", by), ("q", text)) if value}
    kept = narrowed if sort == DEFAULT_SORT else narrowed | {"sort": sort}
    return render(
        request,
        "tasks/tasks.html",
        {
            "tasks": page.items,
            "next_url": f"?{urlencode(kept | {'cursor': page.next_cursor})}" if page.next_cursor else "",
            "sort": "" if sort == DEFAULT_SORT else sort,
            "sort_words": SORT_WORDS[sort],
            "sorts": [
                (words, urlencode(narrowed | {"sort": name}), name == sort)
                for name, words in SORT_WORDS.items()
            ],
            "kind": kind,
            "q": text,
            "by": by,
            "section": "tasks",
        },
    )


@require_safe
def task(request: HttpRequest, slug: str) -> HttpResponse:
    """A task: what it is, its leaderboard, examples to compose from, modules that were trained on it."""
    found = visible_task(request.user, slug)
    modules = Adapter.objects.visible_to(request.user).filter(task=found, kind=Adapter.Kind.MODULE)
    board = _board(request, found)
    rows = list(found.rows.filter(split=TaskRow.Split.FEW_SHOT))
    hidden = found.rows.filter(split=TaskRow.Split.TEST).count()
    return render(
        request,
        "tasks/task_detail.html",
        {
            "task": found,
            "rows": rows,
            "board": board,
            "limit": daily_limit.for_person(request.user, found) if board.hidden else None,
            "modules": modules.select_related("namespace", "base_model").order_by("-downloads", "-id")[:10],
            "module_count": search.modules_by_task(person=request.user).get(found.pk, 0),
            "newest": board.revisions[0] if board.revisions else None,
            "hidden_now": hidden,
            "all_rows": hidden + len(rows),
            "embed_code": _embed_code(request, found),
            "may_change": may_change_task(request.user, found),
            "may_moderate": may_moderate(request.user),
            "section": "tasks",
        },
    )


def _board(request: HttpRequest | Request, task: Task, *, whole: bool = False) -> Board:
    return leaderboards.board(
        task,
        request.user,
        revision=request.GET.get("revision", ""),
        source=request.GET.get("source", ""),
        whole=whole,
    )


def _embed_code(request: HttpRequest, task: Task) -> str:
    address = request.build_absolute_uri(f"{task.get_absolute_url()}/embed")
    return f'<iframe src="{address}" title="Leaderboard: {task.slug}" width="640" height="420"></iframe>'


@require_safe
def leaderboard_csv(request: HttpRequest, slug: str) -> HttpResponse:
    """Every row of the leaderboard as a file."""
    found = visible_task(request.user, slug)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["rank", "name", "kind", "verified", "score", "low", "high", "n", "metric", "base_model", "note"]
    )
    for entry in _board(request, found, whole=True).entries:
        writer.writerow(
            [
                entry.rank or "",
                plain_cell(entry.label),
                entry.kind,
                "yes" if entry.is_verified else "no",
                entry.value,
                _or_nothing(entry.low),
                _or_nothing(entry.high),
                _or_nothing(entry.n),
                entry.metric,
                plain_cell(entry.base_model),
                plain_cell(entry.note),
            ]
        )
    return HttpResponse(
        out.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="leaderboard-{found.slug}.csv"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _or_nothing(value: Any) -> Any:
    return "" if value is None else value


@require_safe
@xframe_options_exempt
@csp_replace({"frame-ancestors": ["*"]})  # type: ignore[arg-type]  # its stubs know no views with arguments
def leaderboard_embed(request: HttpRequest, slug: str) -> HttpResponse:
    """The first rows alone, for a frame in somebody else's page. It shows what everybody sees and takes no clicks in."""
    found = get_object_or_404(tasks_shown_to(None), slug=slug)
    board = leaderboards.board(found, None)
    context = {
        "task": found,
        "board": board,
        "entries": board.entries[:EMBEDDED_ROWS],
        "address": request.build_absolute_uri(found.get_absolute_url()),
    }
    return render(request, "tasks/embed.html", context)


class EntrySerializer(serializers.Serializer):
    rank = serializers.IntegerField(allow_null=True, help_text="null for baselines and reported scores.")
    name = serializers.CharField(source="label")
    kind = serializers.ChoiceField(["composed", "baseline", "reported"])
    verified = serializers.BooleanField(source="is_verified", help_text="Computed by this site.")
    score = serializers.FloatField(source="value")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(allow_null=True)
    metric = serializers.CharField()
    base_model = serializers.CharField()
    note = serializers.CharField()
    url = serializers.SerializerMethodField()

    def get_url(self, entry: leaderboards.Entry) -> str:
        return self.context["request"].build_absolute_uri(entry.url)


class LeaderboardSerializer(serializers.Serializer):
    task = serializers.CharField(source="task.slug")
    revision = serializers.IntegerField(source="revision.number", allow_null=True, default=None)
    metric = serializers.CharField()
    higher_is_better = serializers.BooleanField()
    hidden_rows = serializers.IntegerField(source="hidden")
    results = EntrySerializer(many=True, source="entries")


class LeaderboardView(APIView):
    @extend_schema(
        operation_id="tasks_leaderboard",
        parameters=[
            OpenApiParameter("revision", int, description="Of the task; the newest unless given."),
            OpenApiParameter("source", str, enum=list(leaderboards.SOURCES)),
        ],
        responses={200: LeaderboardSerializer, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, slug: str) -> Response:
        """The whole leaderboard of a task, best first."""
        only(request, "revision", "source")
        try:
            board = _board(request, visible_task(request.user, slug), whole=True)
        except leaderboards.NoSuchSource as error:
            raise search.BadParameter("source", error.message) from error
        return Response(LeaderboardSerializer(board, context={"request": request}).data)
