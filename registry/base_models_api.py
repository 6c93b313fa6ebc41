"""REST over base models: which are known here, with their matrices and the files of those that are hosted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import base_models, bases_on_hub, downloads, search
from registry.api_parts import FILE, IDEMPOTENCY_KEY, AnyType, only
from registry.idempotency import idempotent
from registry.models import BaseModel, BaseModelFile
from registry.rights import Person
from registry.search import BadParameter
from registry.serializers import BaseModelDetailSerializer, BaseModelSerializer, NewBaseModelSerializer
from web.api_schema import refusals
from web.errors import NotFound


def _count_adapters(rows: Iterable[BaseModel], person: Person) -> None:
    counts = search.modules_by_base(person=person)
    for row in rows:
        row.visible_adapters, _ = counts.get(row.pk, (0, 0))  # type: ignore[attr-defined]


class BaseModelList(generics.ListAPIView[BaseModel]):
    serializer_class = BaseModelSerializer
    keyset_order = ("name", "id")
    queryset = BaseModel.objects.none()

    def get_queryset(self) -> QuerySet[BaseModel]:
        asked = only(self.request, "q", "kind", "cursor", "limit")
        rows = BaseModel.objects.all()
        if asked.get("q"):
            rows = rows.filter(
                Q(name__icontains=asked["q"])
                | Q(pk__in=BaseModel.objects.filter(aliases__text__icontains=asked["q"]).values("pk"))
            )
        if asked.get("kind"):
            if asked["kind"] not in BaseModel.Kind.values:
                raise BadParameter("kind", f"'kind' is one of {', '.join(BaseModel.Kind.values)}.")
            rows = rows.filter(kind=asked["kind"])
        return rows.prefetch_related("aliases")

    def paginate_queryset(self, queryset: Any) -> list[Any]:
        rows = list(super().paginate_queryset(queryset) or ())
        _count_adapters(rows, self.request.user)
        return rows

    @extend_schema(
        operation_id="base_models_list",
        parameters=[
            OpenApiParameter("q", str, description="Part of its name or of another name."),
            OpenApiParameter("kind", str, enum=BaseModel.Kind.values),
        ],
        responses={200: BaseModelSerializer(many=True), **refusals(400, 401)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Base models that are known here, by name."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="base_models_add",
        request=NewBaseModelSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: BaseModelDetailSerializer, **refusals(400, 401, 403, 409, 415, 422, 502)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Make a base model known by its config.json, given or read on its hub, in some seconds. Adapters that waited for it are compared with it
        by a worker: `recheck_wanted_at` is null once that is done, and `adapters_by_fit` says what came of it."""
        only(request)
        form = NewBaseModelSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        add = base_models.add_base_model if "config" in form.validated_data else bases_on_hub.add_from_hub
        base_model = add(**form.validated_data)
        answer = _base_model_detail(request, base_model.name)
        answer.status_code = 201
        return answer


class BaseModelDetail(APIView):
    @extend_schema(
        operation_id="base_models_read",
        responses={200: BaseModelDetailSerializer, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, name: str) -> Response:
        """A base model by its id or another of its names, with the sizes of its matrices."""
        only(request)
        return _base_model_detail(request, name)


class BaseModelFileDownload(APIView):
    content_negotiation_class = AnyType

    @extend_schema(
        operation_id="base_models_file",
        parameters=[OpenApiParameter("Range", str, OpenApiParameter.HEADER)],
        responses={**FILE, **refusals(400, 401, 404, 416)},
    )
    def get(self, request: Request, name: str, path: str) -> HttpResponseBase:
        """A file of a base model that is hosted here."""
        only(request)
        base_model = base_models.base_model_called(name)
        file = base_model.files.select_related("blob").filter(path=path).first()
        if file is None:
            raise NotFound(f"{base_model.name} has no file of this name here.")
        return downloads.file_response(request._request, file.blob, file.path)


def _base_model_detail(request: Request, name: str) -> Response:
    known = base_models.base_model_called(name)
    base_model = BaseModel.objects.prefetch_related("aliases", "files__blob").get(pk=known.pk)
    _count_adapters([base_model], request.user)

    def file_url(file: BaseModelFile) -> str:
        return request.build_absolute_uri(reverse("api_base_model_file", args=[base_model.name, file.path]))

    context = {"request": request, "file_url": file_url}
    return Response(BaseModelDetailSerializer(base_model, context=context).data)
