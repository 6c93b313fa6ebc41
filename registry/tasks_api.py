"""REST over tasks, and over who is asking."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, IntegerField, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import search
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.models import Membership, Task, TaskRow, Token
from registry.serializers import TaskSerializer, WhoAmISerializer
from web.api_schema import refusals
from web.errors import NotFound


def _tasks(person: Any) -> QuerySet[Task]:
    """Tasks with their few-shot rows and the number of their hidden ones."""
    shown = TaskRow.objects.filter(split=TaskRow.Split.FEW_SHOT)
    hidden = (
        TaskRow.objects.filter(task=OuterRef("pk"), split=TaskRow.Split.TEST)
        .order_by()
        .values("task")
        .annotate(rows=Count("pk"))
        .values("rows")
    )
    return (
        search.tasks_shown_to(person)
        .select_related("base_model")
        .prefetch_related(Prefetch("rows", queryset=shown, to_attr="shown_rows"))
        .annotate(hidden_rows=Coalesce(Subquery(hidden), 0, output_field=IntegerField()))
    )


class TaskList(generics.ListAPIView[Task]):
    serializer_class = TaskSerializer
    keyset_order = ("slug",)
    queryset = Task.objects.none()

    def get_queryset(self) -> QuerySet[Task]:
        asked = only(self.request, "q", "held_out", "base", "cursor", "limit")
        rows = _tasks(self.request.user)
        if asked.get("q"):
            rows = rows.filter(Q(title__icontains=asked["q"]) | Q(slug__icontains=asked["q"]))
        held_out = search.yes_or_no("held_out", asked.get("held_out", ""))
        if held_out is not None:
            rows = rows.filter(is_held_out=held_out)
        if asked.get("base"):
            rows = rows.filter(base_model__name__iexact=asked["base"])
        return rows

    @extend_schema(
        operation_id="tasks_list",
        parameters=[
            OpenApiParameter("q", str, description="Part of its title or slug."),
            OpenApiParameter("held_out", str, enum=["yes", "no"]),
            OpenApiParameter("base", str, description="Base model."),
        ],
        responses={200: TaskSerializer(many=True), **refusals(400, 401)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Tasks by slug. A held-out one has few-shot rows in `examples`, to compose for; its test rows stay hidden."""
        return super().get(request, *args, **kwargs)


class TaskDetail(APIView):
    @extend_schema(operation_id="tasks_read", responses={200: TaskSerializer, **refusals(400, 401, 404)})
    def get(self, request: Request, slug: str) -> Response:
        """One task."""
        only(request)
        task = _tasks(request.user).filter(slug=slug).first()
        if task is None:
            raise NotFound(f"There is no task {slug[:100]!r}.")
        return Response(TaskSerializer(task, context={"request": request}).data)


class WhoAmI(APIView):
    permission_classes = [SignedIn]
    takes_limited_tokens = True

    @extend_schema(operation_id="whoami", responses={200: WhoAmISerializer, **refusals(401)})
    def get(self, request: Request) -> Response:
        """Whose token this is, and where it may publish."""
        only(request)
        roles = Membership.objects.filter(user=person_of(request)).select_related("namespace").order_by("pk")
        content = {
            "username": request.user.get_username(),
            "namespaces": roles,
            "token": request.auth if isinstance(request.auth, Token) else None,
        }
        return Response(WhoAmISerializer(content).data)
