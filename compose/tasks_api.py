"""REST over tasks: finding, making, changing, new rows."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, IntegerField, OuterRef, Prefetch, QuerySet, Subquery
from django.db.models.functions import Coalesce
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from compose import examples as reading
from compose import jobs, making_tasks
from compose.engine.metrics import EXACT_MATCH, METRICS
from compose.errors import BadSetting
from compose.examples import FORMATS
from compose.making_tasks import Division
from compose.serializers import ExamplesField
from registry import search
from registry.api_parts import IDEMPOTENCY_KEY, only, person_of
from registry.idempotency import idempotent
from registry.models import Adapter, BaseModel, Task, TaskRevision, TaskRow
from registry.rights import require_change_task, writable_namespace
from registry.serializers import ExampleSerializer, StrictSerializer, TaskSerializer
from web.api_schema import refusals
from web.errors import NotFound

_METRIC_HELP = f"What results are scored and ranked by: {', '.join(f'`{name}`' for name in METRICS)}."
VISIBILITIES = Adapter.Visibility.choices
_TEXT: dict[str, Any] = {"required": False, "allow_blank": True, "default": ""}


class RowsSerializer(StrictSerializer):
    """Rows, and how they are divided into those that are shown and those that stay hidden."""

    rows = ExamplesField(help_text="As a list of {input, output}, or as text: JSON lines, CSV, TSV.")
    format = serializers.ChoiceField(
        choices=FORMATS, default="auto", help_text="Of rows that are given as text."
    )
    shown = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        help_text="How many rows are shown; a third, at most 20, unless given.",
    )
    seed = serializers.IntegerField(default=jobs.DEFAULT_SEED, help_text="Draws the rows that are shown.")
    dry_run = serializers.BooleanField(default=False, help_text="Only say what would come of it.")


class NewTaskSerializer(RowsSerializer):
    title = serializers.CharField(max_length=making_tasks.LIMITS["title"])
    namespace = serializers.CharField(**_TEXT, help_text="Yours unless given.")
    description = serializers.CharField(**_TEXT)
    base_model = serializers.CharField(
        **_TEXT, help_text="The one it is meant for; every row has to fit into it."
    )
    source = serializers.CharField(  # type: ignore[assignment]
        **_TEXT, help_text="Where the rows are from."
    )
    license = serializers.CharField(**_TEXT, help_text="Of the rows.")
    metric = serializers.CharField(default=EXACT_MATCH, help_text=_METRIC_HELP)
    visibility = serializers.ChoiceField(
        VISIBILITIES, default="public", help_text="private: only members of the namespace see it."
    )


class TaskChangesSerializer(StrictSerializer):
    title = serializers.CharField(required=False, max_length=making_tasks.LIMITS["title"])
    description = serializers.CharField(required=False, allow_blank=True)
    base_model = serializers.CharField(required=False, allow_blank=True, help_text="Empty for any.")
    source = serializers.CharField(required=False, allow_blank=True)  # type: ignore[assignment]
    license = serializers.CharField(required=False, allow_blank=True)
    metric = serializers.CharField(
        required=False, help_text=f"{_METRIC_HELP} Another one makes the next revision, of the same rows."
    )
    visibility = serializers.ChoiceField(
        VISIBILITIES,
        required=False,
        help_text="public: its name, its shown rows and its leaderboard become everybody's. private: while nobody but "
        "members has used it.",
    )


class DivisionSerializer(serializers.Serializer):
    """What rows come to."""

    examples = ExampleSerializer(many=True, source="shown", help_text="The rows that would be shown.")
    test_rows = serializers.SerializerMethodField(help_text="How many would stay hidden.")
    seed = serializers.IntegerField()
    note = serializers.CharField()
    warnings = serializers.ListField(child=serializers.CharField())

    def get_test_rows(self, division: Division) -> int:
        return len(division.hidden)


_DRY_RUN = OpenApiResponse(DivisionSerializer, description="With `dry_run`: what would come of it.")


def _whole(tasks: QuerySet[Task]) -> QuerySet[Task]:
    """These tasks with their few-shot rows, the number of their hidden ones, and their newest revision."""
    shown = TaskRow.objects.filter(split=TaskRow.Split.FEW_SHOT)
    hidden = (
        TaskRow.objects.filter(task=OuterRef("pk"), split=TaskRow.Split.TEST)
        .order_by()
        .values("task")
        .annotate(rows=Count("pk"))
        .values("rows")
    )
    newest = TaskRevision.objects.filter(task=OuterRef("pk")).order_by("-number")
    return (
        tasks.select_related("base_model", "owner")
        .prefetch_related(Prefetch("rows", queryset=shown, to_attr="shown_rows"))
        .annotate(
            hidden_rows=Coalesce(Subquery(hidden), 0, output_field=IntegerField()),
            revision=Subquery(newest.values("number")[:1]),
            seed=Subquery(newest.values("seed")[:1]),
        )
    )


class TaskList(generics.ListAPIView[Task]):
    serializer_class = TaskSerializer
    queryset = Task.objects.none()

    def get_keyset_order(self) -> tuple[str, ...]:
        sort = self.request.query_params.get("sort", "")
        return search.TASK_SORTS[search.one_of("sort", sort, list(search.TASK_SORTS)) or "name"]

    def get_queryset(self) -> QuerySet[Task]:
        asked = only(self.request, "q", "held_out", "base", "owner", "sort", "cursor", "limit")
        shown = search.tasks_shown_to(self.request.user)
        rows = _whole(search.tasks_matching(shown, asked.get("q", "")))
        held_out = search.yes_or_no("held_out", asked.get("held_out", ""))
        if held_out is not None:
            rows = rows.filter(is_held_out=held_out)
        if asked.get("base"):
            rows = rows.filter(base_model__name__iexact=asked["base"])
        if asked.get("owner"):
            rows = rows.filter(owner__name__iexact=asked["owner"])
        return rows

    @extend_schema(
        operation_id="tasks_list",
        parameters=[
            OpenApiParameter("q", str, description="Words of its title, slug or description."),
            OpenApiParameter("held_out", str, enum=["yes", "no"]),
            OpenApiParameter("base", str, description="Base model."),
            OpenApiParameter("owner", str, description="Person or organisation whose tasks they are."),
            OpenApiParameter("sort", str, enum=list(search.TASK_SORTS), description="By slug unless given."),
        ],
        responses={200: TaskSerializer(many=True), **refusals(400, 401)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Tasks by slug, or the newest first. A held-out one has few-shot rows in `examples`, to compose for; its test rows stay hidden."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="tasks_make",
        request=NewTaskSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: TaskSerializer, 200: _DRY_RUN, **refusals(400, 401, 403, 404, 409, 415, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Make a task of rows: some are shown as examples, the others stay hidden and score what is composed.

        The hidden rows are given back by no address, to nobody.
        """
        only(request)
        given = NewTaskSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        said = dict(given.validated_data)
        base_model = _base_model(said.pop("base_model"))
        is_private = said.pop("visibility") == "private"
        owner = said.pop("namespace") or request.user.get_username()
        namespace = writable_namespace(request.user, owner)
        jobs.check_metric(said["metric"])
        division, is_dry_run = _divide(said, base_model=base_model)
        if is_dry_run:
            return Response(DivisionSerializer(division).data)
        task = making_tasks.create_task(
            actor=person_of(request),
            namespace=namespace,
            rows=division,
            base_model=base_model,
            is_private=is_private,
            **said,
        )
        answer = _answer(request, task.slug, status=201)
        answer["Location"] = request.build_absolute_uri(f"{request.path}{task.slug}/")
        return answer


class TaskDetail(APIView):
    @extend_schema(operation_id="tasks_read", responses={200: TaskSerializer, **refusals(400, 401, 404)})
    def get(self, request: Request, slug: str) -> Response:
        """One task."""
        only(request)
        return _answer(request, slug)

    @extend_schema(
        operation_id="tasks_change",
        request=TaskChangesSerializer,
        responses={200: TaskSerializer, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def patch(self, request: Request, slug: str) -> Response:
        """Change what is said about a task, and who sees it. Its rows change by a new revision; its slug stays."""
        only(request)
        task = search.visible_task(request.user, slug)
        require_change_task(request.user, task)
        given = TaskChangesSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        said = dict(given.validated_data)
        if "base_model" in said:
            said["base_model"] = _base_model(said["base_model"])
        if "visibility" in said:
            said["is_private"] = said.pop("visibility") == "private"
        making_tasks.change_task(task, actor=person_of(request), **said)
        return _answer(request, slug)

    @extend_schema(
        operation_id="tasks_delete",
        responses={
            204: OpenApiResponse(description="It is gone."),
            **refusals(400, 401, 403, 404, 409),
        },
    )
    def delete(self, request: Request, slug: str) -> Response:
        """Delete a task that nobody has used."""
        only(request)
        making_tasks.delete_task(search.visible_task(request.user, slug), actor=person_of(request))
        return Response(status=204)


class TaskRevisions(APIView):
    @extend_schema(
        operation_id="tasks_new_rows",
        request=RowsSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: TaskSerializer, 200: _DRY_RUN, **refusals(400, 401, 403, 404, 409, 415, 422)},
    )
    @idempotent
    def post(self, request: Request, slug: str) -> Response:
        """Give a task other rows: its next revision, with a leaderboard that begins empty.

        Rows that an earlier revision showed are shown again, never hidden.
        """
        only(request)
        task = search.visible_task(request.user, slug)
        making_tasks.require_takes_rows(task, person_of(request))
        given = RowsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        division, is_dry_run = _divide(dict(given.validated_data), base_model=task.base_model, task=task)
        if is_dry_run:
            return Response(DivisionSerializer(division).data)
        making_tasks.new_rows(task, actor=person_of(request), rows=division)
        return _answer(request, slug, status=201)


def _divide(
    said: dict[str, Any], *, base_model: BaseModel | None, task: Task | None = None
) -> tuple[Division, bool]:
    """The division of the rows in `said`, and whether that is all that was asked; takes both out of it."""
    rows = reading.parse_examples(said.pop("rows"), said.pop("format"), field="rows")
    shown, seed, is_dry_run = said.pop("shown"), said.pop("seed"), said.pop("dry_run")
    return making_tasks.divide(rows, shown=shown, seed=seed, base_model=base_model, task=task), is_dry_run


def _base_model(name: str) -> BaseModel | None:
    if not name:
        return None
    base_model = BaseModel.objects.named(name)
    if base_model is None:
        raise BadSetting("base_model", f"The base model {name[:100]!r} is not known here.")
    return base_model


def _answer(request: Request, slug: str, *, status: int = 200) -> Response:
    task = _whole(search.tasks_open_to(request.user)).filter(slug=slug).first()
    if task is None:
        raise NotFound(f"There is no task {slug[:100]!r} here.")
    return Response(TaskSerializer(task, context={"request": request}).data, status=status)
