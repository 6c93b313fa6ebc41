"""REST over adapters: doors that parse, call one domain function, and answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import downloads, moving, preparing, publishing, search, uploads
from registry.api_parts import BYTES, FILE, IDEMPOTENCY_KEY, AnyType, only, person_of
from registry.idempotency import idempotent
from registry.models import (
    Adapter,
    Revision,
    RevisionFile,
)
from registry.rights import visible_adapter, writable_adapter, writable_namespace
from registry.search import AdapterQuery
from registry.serializers import (
    AdapterChangesSerializer,
    AdapterDetailSerializer,
    AdapterSerializer,
    FacetsSerializer,
    FileListSerializer,
    HashMatchSerializer,
    MoveSerializer,
    PublishSerializer,
    ReportSerializer,
    RevisionDetailSerializer,
    RevisionSerializer,
    UploadSerializer,
)
from web import api_errors
from web.api_schema import ErrorSerializer, refusals
from web.errors import NotFound
from web.pagination import next_page

REVISION = OpenApiParameter(
    "revision", str, description="Branch, tag, or commit (7 or more digits); the newest unless given."
)
MOVED = {
    307: OpenApiResponse(
        ErrorSerializer, description="It has another name now; Location leads to the same under it."
    )
}
LIST_PARAMETERS = [
    OpenApiParameter(
        "q",
        str,
        description="Beginnings of words in name, namespace, description, task, base model, tags or card. Where "
        "nothing has them, names that are like them.",
    ),
    OpenApiParameter("task", str, description="Slug."),
    OpenApiParameter("tag", str, description="One of its tags, as it stands there."),
    OpenApiParameter("base", str, description="Base model, by any of its names."),
    OpenApiParameter("composable", str, enum=["yes", "no"]),
    OpenApiParameter("rank", str, description="A rank or a range, such as 8, 4-16, 4- or -16."),
    OpenApiParameter("targets", str, description="All names of its target matrices, such as k,q,v."),
    OpenApiParameter("license", str),
    OpenApiParameter("language", str, description="One of its languages, such as en."),
    OpenApiParameter(
        "size", str, description="Whole megabytes of its files, or a range such as 5-19 or 250-."
    ),
    OpenApiParameter(
        "created",
        str,
        description="When it was published (`published_at`): a day in UTC or days, both ends included, such as "
        "2026-11-01..2026-11-28 or 2026-11-01..",
    ),
    OpenApiParameter("updated", str, description="The same for the time of the newest version."),
    OpenApiParameter("kind", str, enum=Adapter.Kind.values),
    OpenApiParameter("namespace", str),
    OpenApiParameter(
        "scored_on",
        str,
        description="Slug of a task: only those with a score on its newest rows, by its metric.",
    ),
    OpenApiParameter(
        "sort",
        str,
        enum=list(search.SORTS),
        description="new unless given, relevance with q. "
        + " ".join(f"{name}: {meaning}." for name, meaning in search.SORTS.items()),
    ),
]


class OneAdapter(APIView):
    """A view of the adapter in its address. By a name that this had before, it answers 307 with its name now."""

    def handle_exception(self, exc: Exception) -> Response:
        if isinstance(exc, NotFound):
            old = (self.kwargs["namespace"], self.kwargs["name"])
            moved = moving.moved_from(*old)
            if (
                moved is not None
                and Adapter.objects.visible_to(self.request.user).filter(pk=moved.pk).exists()
            ):
                old_name = "/".join(old)
                message = f"{old_name} is called {moved.full_name} now."
                address = self.request.get_full_path().replace(f"/{old_name}/", f"/{moved.full_name}/", 1)
                return Response(api_errors.body("moved", message), status=307, headers={"Location": address})
        return super().handle_exception(exc)


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
                "next": next_page(request, found.next_cursor),
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
            author=person_of(request),
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


class AdapterFacets(APIView):
    @extend_schema(
        operation_id="adapters_facets",
        parameters=LIST_PARAMETERS[:-1],
        responses={200: FacetsSerializer, **refusals(400, 401)},
    )
    def get(self, request: Request) -> Response:
        """Ways to narrow the same list, with exact counts: each value under all other parameters that are given.

        A list's whole query may be sent: `sort`, `limit` and `cursor` change nothing here.
        """
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
        report = preparing.validate(
            author=person_of(request),
            files=uploads.collect(form.validated_data["files"]),
            base_model=form.validated_data["base_model"],
        )
        return Response(ReportSerializer(report).data)


class AdapterDetail(OneAdapter, AdapterContext):
    takes_limited_tokens = True

    @extend_schema(
        operation_id="adapters_read",
        responses={200: AdapterDetailSerializer, **MOVED, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        """One adapter with the facts and files of its newest revision."""
        only(request)
        return _detail(self, visible_adapter(request.user, namespace, name))

    @extend_schema(
        operation_id="adapters_change",
        request=AdapterChangesSerializer,
        responses={200: AdapterDetailSerializer, **MOVED, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def patch(self, request: Request, namespace: str, name: str) -> Response:
        """Change what is said about an adapter."""
        only(request)
        adapter = writable_adapter(request.user, namespace, name)
        form = AdapterChangesSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        publishing.update_adapter(adapter, actor=person_of(request), **form.validated_data)
        return _detail(self, visible_adapter(request.user, namespace, name))

    @extend_schema(
        operation_id="adapters_delete",
        responses={204: OpenApiResponse(description="Deleted."), **MOVED, **refusals(400, 401, 403, 404)},
    )
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        """Delete an adapter. What was composed from it keeps its lineage; the name is not handed out again."""
        only(request)
        publishing.withdraw(writable_adapter(request.user, namespace, name), actor=person_of(request))
        return Response(status=204)


class AdapterMove(OneAdapter, AdapterContext):
    takes_limited_tokens = True

    @extend_schema(
        operation_id="adapters_move",
        request=MoveSerializer,
        responses={200: AdapterDetailSerializer, **MOVED, **refusals(400, 401, 403, 404, 409, 415)},
    )
    def post(self, request: Request, namespace: str, name: str) -> Response:
        """Give an adapter another name, or to another namespace. Its old name leads to the new one and stays its own."""
        only(request)
        adapter = writable_adapter(request.user, namespace, name)
        form = MoveSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        target = writable_namespace(
            request.user, form.validated_data.get("namespace", adapter.namespace.name)
        )
        new_name = form.validated_data.get("name", adapter.name)
        moved = moving.move(adapter, actor=person_of(request), namespace=target, name=new_name)
        answer = _detail(self, visible_adapter(request.user, target.name, moved.name))
        answer["Location"] = reverse("api_adapter", args=[target.name, moved.name])
        return answer


class RevisionList(OneAdapter, generics.ListAPIView[Revision]):
    serializer_class = RevisionSerializer
    keyset_order = ("-created_at", "-id")
    queryset = Revision.objects.none()

    def get_queryset(self) -> QuerySet[Revision]:
        only(self.request, "cursor", "limit")
        adapter = visible_adapter(self.request.user, self.kwargs["namespace"], self.kwargs["name"])
        rows = Revision.objects.filter(adapter=adapter).select_related("parent", "author")
        return rows.defer("facts", "parent__facts", "parent__warnings", "parent__description")

    @extend_schema(
        operation_id="adapters_revisions",
        responses={200: RevisionSerializer(many=True), **MOVED, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """An adapter's revisions, newest first."""
        return super().get(request, *args, **kwargs)


class RevisionDetail(OneAdapter, AdapterContext):
    @extend_schema(
        operation_id="adapters_revision",
        responses={200: RevisionDetailSerializer, **MOVED, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, namespace: str, name: str, revision: str) -> Response:
        """One revision, by commit (7 or more digits), branch or tag, with its facts and files."""
        only(request)
        adapter = visible_adapter(request.user, namespace, name)
        found = downloads.revision_called(adapter, revision)
        return Response(RevisionDetailSerializer(found, context=self.get_serializer_context()).data)


class FileList(OneAdapter, AdapterContext):
    @extend_schema(
        operation_id="adapters_files",
        parameters=[REVISION],
        responses={200: FileListSerializer, **MOVED, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        """The files of a revision, with their hashes."""
        revision = _revision(request, namespace, name)
        files = revision.files_by_path()
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


class FileDownload(OneAdapter):
    content_negotiation_class = AnyType

    @extend_schema(
        operation_id="adapters_file",
        parameters=[REVISION, OpenApiParameter("Range", str, OpenApiParameter.HEADER)],
        responses={
            **FILE,
            302: OpenApiResponse(description="To the object store, where downloads go there."),
            304: OpenApiResponse(description="Unchanged (If-None-Match)."),
            **MOVED,
            **refusals(400, 401, 404, 416),
        },
    )
    def get(self, request: Request, namespace: str, name: str, path: str) -> HttpResponseBase:
        """One file, whole or a range of it."""
        revision = _revision(request, namespace, name)
        file = downloads.file_called(revision, path)
        response = downloads.file_response(request._request, file.blob, file.path)
        if file.is_lfs and downloads.brings_the_file(request._request, response, file.blob):
            downloads.count_download(request._request, revision, person=request.user)
        response["X-Revision"] = revision.commit
        return response


class Archive(OneAdapter):
    content_negotiation_class = AnyType

    @extend_schema(
        operation_id="adapters_archive",
        parameters=[REVISION],
        responses={
            (200, "application/zip"): BYTES,
            304: OpenApiResponse(description="Unchanged (If-None-Match)."),
            **MOVED,
            **refusals(400, 401, 404),
        },
    )
    def get(self, request: Request, namespace: str, name: str) -> HttpResponseBase:
        """All files of a revision as an uncompressed zip."""
        revision = _revision(request, namespace, name)
        response = downloads.archive_response(request._request, revision)
        if request.method == "GET" and response.status_code == 200:
            downloads.count_download(request._request, revision, person=request.user)
        return response


def _revision(request: Request, namespace: str, name: str) -> Revision:
    parameters = only(request, "revision")
    adapter = visible_adapter(request.user, namespace, name)
    return downloads.revision_called(adapter, parameters.get("revision", ""))


def _detail(view: AdapterContext, adapter: Adapter) -> Response:
    adapter.composes_with = search.family_size(adapter, person=view.request.user)
    search.show_tasks([adapter], person=view.request.user)
    return Response(AdapterDetailSerializer(adapter, context=view.get_serializer_context()).data)
