"""REST over the registry: doors that parse, call one domain function, and answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Count, IntegerField, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import base_models, downloads, publishing, search, uploads
from registry.authentication import SignedIn
from registry.idempotency import HEADER, idempotent
from registry.models import (
    Adapter,
    BaseModel,
    BaseModelFile,
    Membership,
    Revision,
    RevisionFile,
    Task,
    TaskRow,
    Token,
    User,
)
from registry.rights import visible_adapter, writable_adapter, writable_namespace
from registry.search import AdapterQuery, BadParameter
from registry.serializers import (
    AdapterChangesSerializer,
    AdapterDetailSerializer,
    AdapterSerializer,
    BaseModelDetailSerializer,
    BaseModelSerializer,
    FacetsSerializer,
    FileListSerializer,
    HashMatchSerializer,
    NewBaseModelSerializer,
    PublishSerializer,
    ReportSerializer,
    RevisionSerializer,
    TaskSerializer,
    UploadSerializer,
    WhoAmISerializer,
)
from web.api_schema import refusals
from web.errors import NotFound

BYTES = OpenApiResponse(OpenApiTypes.BINARY, description="The bytes, as an attachment.")
IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER, str, OpenApiParameter.HEADER, description="The same key with the same request is done once a day."
)
REVISION = OpenApiParameter(
    "revision", str, description="Branch, tag, or commit (7 or more digits); the newest unless given."
)
LIST_PARAMETERS = [
    OpenApiParameter(
        "q",
        str,
        description="Beginnings of words in name, namespace, description, task, base model, tags or card. Where "
        "nothing has them, names that are like them.",
    ),
    OpenApiParameter("task", str, description="Slug."),
    OpenApiParameter("base", str, description="Base model, by any of its names."),
    OpenApiParameter("composable", str, enum=["yes", "no"]),
    OpenApiParameter("rank", str, description="A rank or a range, such as 8, 4-16, 4- or -16."),
    OpenApiParameter("targets", str, description="All names of its target matrices, such as k,q,v."),
    OpenApiParameter("license", str),
    OpenApiParameter("language", str),
    OpenApiParameter(
        "size", str, description="Whole megabytes of its files, or a range such as 5-19 or 250-."
    ),
    OpenApiParameter(
        "created",
        str,
        description="A day in UTC or days, both ends included, such as 2026-11-01..2026-11-28 or 2026-11-01..",
    ),
    OpenApiParameter("updated", str, description="The same for the time of the newest version."),
    OpenApiParameter("kind", str, enum=Adapter.Kind.values),
    OpenApiParameter("namespace", str),
    OpenApiParameter("scored_on", str, description="Slug of a task: only those with a score on it."),
    OpenApiParameter(
        "sort",
        str,
        enum=list(search.SORTS),
        description="new unless given, relevance with q. "
        + " ".join(f"{name}: {meaning}." for name, meaning in search.SORTS.items()),
    ),
]


def only(request: Request, *allowed: str) -> dict[str, str]:
    """The query parameters, each given once. Raises BadParameter for one that is not among `allowed`."""
    found: dict[str, str] = {}
    for name, values in request.query_params.lists():
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise BadParameter(name, f"{name[:60]!r} is no parameter here. There are: {known}.")
        if len(values) > 1:
            raise BadParameter(name, f"{name!r} is given {len(values)} times; give it once.")
        if "\x00" in values[0]:
            raise BadParameter(name, f"{name!r} holds a NUL character.")
        found[name] = values[0]
    return found


class AnyType(BaseContentNegotiation):
    """Files are sent as what they are, whatever the client says it accepts."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Any, renderers: Any, format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


# --- Adapters ----------------------------------------------------------------------------------------------


class AdapterContext(APIView):
    """A view whose serializers are told where the files of a revision are."""

    def get_serializer_context(self) -> dict[str, Any]:
        return {"request": self.request, "file_url": _file_url(self.request)}


def _file_url(request: Request) -> Callable[[RevisionFile], str]:
    def url(file: RevisionFile) -> str:
        adapter = file.revision.adapter
        path = reverse("api_file", args=[adapter.namespace.name, adapter.name, file.path])
        return request.build_absolute_uri(f"{path}?revision={file.revision.commit}")

    return url


class AdapterList(AdapterContext, generics.ListAPIView[Adapter]):
    """Adapters that you may see."""

    takes_limited_tokens = True
    serializer_class = AdapterSerializer
    queryset = Adapter.objects.none()
    keyset_order = ("id",)  # for the schema; the search has its own cursors

    def get_parsers(self) -> list[Any]:
        return [uploads.UploadParser()]

    @extend_schema(
        operation_id="adapters_list",
        parameters=LIST_PARAMETERS,
        responses={200: AdapterSerializer(many=True), **refusals(400, 401)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Find adapters. A parameter that is unknown or cannot be used is refused, never ignored.

        `X-Total-Count` says how many there are on all pages together. `X-Search-Matched: similar-names` says that
        nothing holds the words of `q` and these are names like them.
        """
        found = search.find(AdapterQuery.parse(request.query_params), person=request.user)
        answer = Response(
            {
                "next": _next_page(request, found.next_cursor),
                "results": AdapterSerializer(
                    found.items, many=True, context=self.get_serializer_context()
                ).data,
            }
        )
        answer["X-Total-Count"] = str(found.count)
        if found.is_similar:
            answer["X-Search-Matched"] = "similar-names"
        return answer

    @extend_schema(
        operation_id="adapters_publish",
        request={"multipart/form-data": PublishSerializer},
        parameters=[IDEMPOTENCY_KEY],
        responses={
            200: OpenApiResponse(AdapterDetailSerializer, description="It was there with the same files."),
            201: OpenApiResponse(AdapterDetailSerializer, description="Published, or a new revision."),
            **refusals(400, 401, 403, 404, 409, 413, 415, 422, 507),
        },
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Publish an adapter, or a new revision of one. Everything is checked first; a refusal keeps nothing."""
        only(request)
        form = PublishSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        fields = dict(form.validated_data)
        owner = fields.pop("namespace") or request.user.get_username()
        namespace = writable_namespace(request.user, owner, adapter=fields["name"])
        before = Adapter.objects.filter(namespace=namespace, name__iexact=fields["name"]).first()
        adapter = publishing.publish(
            author=_person(request),
            namespace=namespace,
            name=fields["name"],
            files=uploads.collect(fields["files"]),
            description=fields["description"],
            task_title=fields["task"],
            base_model=fields["base_model"],
            license=fields["license"],
            language=fields["language"],
            visibility=fields["visibility"],
            tags=[tag for given in fields["tags"] for tag in given.split(",")],
            message=fields["message"],
        )
        is_new = before is None or before.head_id != adapter.head_id
        answer = _detail(self, visible_adapter(request.user, namespace.name, adapter.name))
        answer.status_code = 201 if is_new else 200
        answer["Location"] = reverse("api_adapter", args=[namespace.name, adapter.name])
        return answer


def _next_page(request: Request, cursor: str | None) -> str | None:
    if not cursor:
        return None
    query = request.query_params.copy()
    query["cursor"] = cursor
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


class AdapterFacets(APIView):
    @extend_schema(
        operation_id="adapters_facets",
        parameters=LIST_PARAMETERS[:-1],
        responses={200: FacetsSerializer, **refusals(400, 401)},
    )
    def get(self, request: Request) -> Response:
        """Ways to narrow the same list, with exact counts: each value under all other parameters that are given."""
        query = AdapterQuery.parse(request.query_params)
        found = search.find(query, person=request.user, with_facets=True)
        return Response(FacetsSerializer({"count": found.count, "facets": found.facets}).data)


class AdapterValidate(APIView):
    takes_limited_tokens = True

    def get_parsers(self) -> list[Any]:
        return [uploads.UploadParser()]

    @extend_schema(
        operation_id="adapters_validate",
        request={"multipart/form-data": UploadSerializer},
        parameters=[IDEMPOTENCY_KEY],
        responses={200: ReportSerializer, **refusals(400, 401, 403, 409, 413, 415, 422, 507)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """What publishing these files would do: problems, warnings, facts. Nothing is kept."""
        only(request)
        form = UploadSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        report = publishing.validate(
            author=_person(request),
            files=uploads.collect(form.validated_data["files"]),
            base_model=form.validated_data["base_model"],
        )
        return Response(ReportSerializer(report).data)


class AdapterDetail(AdapterContext):
    takes_limited_tokens = True

    @extend_schema(
        operation_id="adapters_read", responses={200: AdapterDetailSerializer, **refusals(400, 401, 404)}
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        """One adapter with the facts and files of its newest revision."""
        only(request)
        return _detail(self, visible_adapter(request.user, namespace, name))

    @extend_schema(
        operation_id="adapters_change",
        request=AdapterChangesSerializer,
        responses={200: AdapterDetailSerializer, **refusals(400, 401, 403, 404, 415)},
    )
    def patch(self, request: Request, namespace: str, name: str) -> Response:
        """Change what is said about an adapter."""
        only(request)
        adapter = writable_adapter(request.user, namespace, name)
        form = AdapterChangesSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        publishing.update_adapter(adapter, actor=_person(request), **form.validated_data)
        return _detail(self, visible_adapter(request.user, namespace, name))

    @extend_schema(
        operation_id="adapters_delete",
        responses={204: OpenApiResponse(description="Deleted."), **refusals(401, 403, 404)},
    )
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        """Delete an adapter. What was composed from it keeps its lineage; the name is not handed out again."""
        only(request)
        publishing.withdraw(writable_adapter(request.user, namespace, name), actor=_person(request))
        return Response(status=204)


class RevisionList(generics.ListAPIView[Revision]):
    serializer_class = RevisionSerializer
    keyset_order = ("-created_at", "-id")
    queryset = Revision.objects.none()

    def get_queryset(self) -> QuerySet[Revision]:
        only(self.request, "cursor", "limit")
        adapter = visible_adapter(self.request.user, self.kwargs["namespace"], self.kwargs["name"])
        return Revision.objects.filter(adapter=adapter).select_related("parent", "author")

    @extend_schema(
        operation_id="adapters_revisions",
        responses={200: RevisionSerializer(many=True), **refusals(400, 401, 404)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """An adapter's revisions, newest first."""
        return super().get(request, *args, **kwargs)


class FileList(AdapterContext):
    @extend_schema(
        operation_id="adapters_files",
        parameters=[REVISION],
        responses={200: FileListSerializer, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        """The files of a revision, with their hashes."""
        revision = _revision(request, namespace, name)
        files = revision.files.select_related("blob", "revision__adapter__namespace")
        content = {"revision": revision.commit, "results": files}
        return Response(FileListSerializer(content, context=self.get_serializer_context()).data)


class HashMatches(generics.ListAPIView[Revision]):
    serializer_class = HashMatchSerializer
    keyset_order = ("-created_at", "-id")
    queryset = Revision.objects.none()

    def get_queryset(self) -> QuerySet[Revision]:
        only(self.request, "cursor", "limit")
        return search.revisions_with(self.kwargs["sha256"], person=self.request.user)

    @extend_schema(
        operation_id="hashes_read",
        responses={200: HashMatchSerializer(many=True), **refusals(400, 401)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Where a file is, by its sha256, or weights by the hash of their tensors (`tensor_sha256`), newest first."""
        return super().get(request, *args, **kwargs)


class FileDownload(APIView):
    content_negotiation_class = AnyType

    @extend_schema(
        operation_id="adapters_file",
        parameters=[REVISION, OpenApiParameter("Range", str, OpenApiParameter.HEADER)],
        responses={
            200: BYTES,
            206: BYTES,
            302: OpenApiResponse(description="To the object store, where downloads go there."),
            304: OpenApiResponse(description="Unchanged (If-None-Match)."),
            **refusals(400, 401, 404, 416),
        },
    )
    def get(self, request: Request, namespace: str, name: str, path: str) -> HttpResponseBase:
        """One file, whole or a range of it."""
        revision = _revision(request, namespace, name)
        file = downloads.file_called(revision, path)
        response = downloads.file_response(request._request, file.blob, file.path)
        if request.method == "GET" and file.is_lfs and response.status_code in {200, 206, 302}:
            downloads.count_download(request._request, revision, person=request.user)
        response["X-Revision"] = revision.commit
        return response


class Archive(APIView):
    content_negotiation_class = AnyType

    @extend_schema(
        operation_id="adapters_archive",
        parameters=[REVISION],
        responses={
            (200, "application/zip"): BYTES,
            **refusals(400, 401, 404),
        },
    )
    def get(self, request: Request, namespace: str, name: str) -> HttpResponseBase:
        """All files of a revision as an uncompressed zip."""
        revision = _revision(request, namespace, name)
        is_head = request.method == "HEAD"
        if not is_head:
            downloads.count_download(request._request, revision, person=request.user)
        return downloads.archive_response(revision, head=is_head)


def _person(request: Request) -> User:
    assert isinstance(request.user, User)
    return request.user


def _revision(request: Request, namespace: str, name: str) -> Revision:
    parameters = only(request, "revision")
    adapter = visible_adapter(request.user, namespace, name)
    return downloads.revision_called(adapter, parameters.get("revision", ""))


def _detail(view: AdapterContext, adapter: Adapter) -> Response:
    adapter.composes_with = search.family_size(adapter, person=view.request.user)
    return Response(AdapterDetailSerializer(adapter, context=view.get_serializer_context()).data)


# --- Base models -------------------------------------------------------------------------------------------


def _with_adapter_counts(rows: QuerySet[BaseModel], person: Any) -> QuerySet[BaseModel]:
    visible = (
        Adapter.objects.visible_to(person)
        .filter(base_model=OuterRef("pk"))
        .order_by()
        .values("base_model")
        .annotate(rows=Count("pk"))
        .values("rows")
    )
    counted = Coalesce(Subquery(visible), 0, output_field=IntegerField())
    return rows.annotate(visible_adapters=counted).prefetch_related("aliases")


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
        return _with_adapter_counts(rows, self.request.user)

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
        responses={201: BaseModelDetailSerializer, **refusals(400, 401, 403, 409, 415, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Make a base model known by its config.json; adapters that waited for it are checked. Takes some seconds."""
        only(request)
        form = NewBaseModelSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        base_model = base_models.add_base_model(**form.validated_data)
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
        responses={200: BYTES, 206: BYTES, **refusals(400, 401, 404, 416)},
    )
    def get(self, request: Request, name: str, path: str) -> HttpResponseBase:
        """A file of a base model that is hosted here."""
        only(request)
        base_model = base_models.base_model_called(name)
        found = (
            base_model.files.select_related("blob") if "\x00" not in path else BaseModelFile.objects.none()
        )
        file = found.filter(path=path).first()
        if file is None:
            raise NotFound(f"{base_model.name} has no file of this name here.")
        return downloads.file_response(request._request, file.blob, file.path)


def _base_model_detail(request: Request, name: str) -> Response:
    known = base_models.base_model_called(name)
    rows = _with_adapter_counts(BaseModel.objects.filter(pk=known.pk), request.user)
    base_model = rows.prefetch_related("files__blob").get()

    def file_url(file: BaseModelFile) -> str:
        return request.build_absolute_uri(reverse("api_base_model_file", args=[base_model.name, file.path]))

    context = {"request": request, "file_url": file_url}
    return Response(BaseModelDetailSerializer(base_model, context=context).data)


# --- Tasks and people --------------------------------------------------------------------------------------


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
        roles = Membership.objects.filter(user=_person(request)).select_related("namespace").order_by("pk")
        content = {
            "username": request.user.get_username(),
            "namespaces": roles,
            "token": request.auth if isinstance(request.auth, Token) else None,
        }
        return Response(WhoAmISerializer(content).data)
