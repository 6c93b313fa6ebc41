"""REST over imports from and pushes to other Hubs."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import downloads, hub_jobs, import_jobs, importing, push_jobs
from registry.api import IDEMPOTENCY_KEY, only
from registry.authentication import SignedIn
from registry.idempotency import idempotent
from registry.models import Adapter, ImportItem, ImportJob, JobStatus, PushJob, User
from registry.rights import require_whole_account, visible_adapter, writable_namespace
from registry.serializers import StrictSerializer
from web.api_schema import refusals

TAG = ["other hubs"]
_SHOWN_ITEMS = 100


# --- Shapes ------------------------------------------------------------------------------------------------------


class NewImportSerializer(StrictSerializer):
    sources = serializers.ListField(
        child=serializers.CharField(max_length=200),
        max_length=importing.MAX_REPOSITORIES,
        help_text="Ids such as lorahub/flan_t5_large-who, or patterns such as lorahub/flan_t5_large-*.",
    )
    namespace = serializers.CharField(
        default="", allow_blank=True, help_text="Where they go; your own unless given."
    )
    name = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=96,
        help_text="For a single repository; its own unless given.",
    )
    revision = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=255,
        help_text="Branch, tag or commit there; main unless given.",
    )
    endpoint = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=300,
        help_text="One of the Hubs that are listed here; the first unless given.",
    )
    visibility = serializers.ChoiceField(Adapter.Visibility.choices, default=Adapter.Visibility.PUBLIC)
    token = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=1000,
        write_only=True,
        style={"input_type": "password"},
        help_text="Your own for the other Hub, for what is private there. Kept sealed until the import ends.",
    )


class ImportItemSerializer(serializers.ModelSerializer[ImportItem]):
    adapter = serializers.SerializerMethodField(help_text="What it became, namespace/name.")

    class Meta:
        model = ImportItem
        fields = [
            "source", "status", "commit", "bytes_done", "bytes_total", "fetched_bytes", "adapter", "error",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_adapter(self, item: ImportItem) -> str | None:
        return item.adapter.full_name if item.adapter else None


class CountsSerializer(serializers.Serializer):
    """How many repositories are in each state."""

    total = serializers.IntegerField()
    waiting = serializers.IntegerField()
    fetching = serializers.IntegerField()
    imported = serializers.IntegerField()
    present = serializers.IntegerField(help_text="This very commit was here already.")
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()


class ImportSerializer(serializers.ModelSerializer[ImportJob]):
    """An import in a list."""

    namespace = serializers.CharField(source="namespace.name", read_only=True)
    revision = serializers.CharField(source="source_revision", read_only=True)
    status = serializers.ChoiceField(JobStatus.choices, read_only=True)
    sources = serializers.ListField(child=serializers.CharField(), read_only=True)
    url = serializers.SerializerMethodField(help_text="Its page.")

    class Meta:
        model = ImportJob
        fields = [
            "id", "status", "endpoint", "sources", "namespace", "name", "revision", "visibility", "error", "created_at",
            "started_at", "finished_at", "url",
        ]  # fmt: skip
        read_only_fields = fields

    def get_url(self, job: ImportJob) -> str:
        return str(self.context["request"].build_absolute_uri(job.get_absolute_url()))


class ImportDetailSerializer(ImportSerializer):
    counts = serializers.SerializerMethodField()
    items = serializers.SerializerMethodField(
        help_text=f"The first {_SHOWN_ITEMS}; all are at items/, in pages."
    )

    class Meta(ImportSerializer.Meta):
        fields = [*ImportSerializer.Meta.fields, "counts", "items"]
        read_only_fields = fields

    @extend_schema_field(CountsSerializer)
    def get_counts(self, job: ImportJob) -> dict[str, int]:
        return import_jobs.counts(job)

    @extend_schema_field(ImportItemSerializer(many=True))
    def get_items(self, job: ImportJob) -> Any:
        return ImportItemSerializer(_items(job)[:_SHOWN_ITEMS], many=True).data


class NewPushSerializer(StrictSerializer):
    adapter = serializers.CharField(max_length=200, help_text="namespace/name here.")
    revision = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=255,
        help_text="Branch, tag or commit; the newest unless given.",
    )
    target = serializers.CharField(
        default="",
        allow_blank=True,
        max_length=200,
        help_text="namespace/name there; the adapter's name, with the token's owner, unless given.",
    )
    endpoint = serializers.CharField(default="", allow_blank=True, max_length=300)
    visibility = serializers.ChoiceField(
        [*Adapter.Visibility.choices, ("", "as here")], default="", help_text="There; as here unless given."
    )
    token = serializers.CharField(
        max_length=1000,
        write_only=True,
        style={"input_type": "password"},
        help_text="Your own for the other Hub; it must be allowed to write. Kept sealed until the push ends.",
    )


class PushSerializer(serializers.ModelSerializer[PushJob]):
    adapter = serializers.CharField(source="adapter.full_name", read_only=True)
    revision = serializers.CharField(source="revision.commit", read_only=True)
    status = serializers.ChoiceField(JobStatus.choices, read_only=True)
    target_commit = serializers.CharField(source="commit", read_only=True)
    target_url = serializers.CharField(
        source="url", read_only=True, help_text="The repository there, when done."
    )
    url = serializers.SerializerMethodField(help_text="The page of this push.")

    class Meta:
        model = PushJob
        fields = [
            "id", "status", "stage", "adapter", "revision", "endpoint", "target", "visibility", "bytes_done",
            "bytes_total", "target_commit", "target_url", "error", "created_at", "started_at", "finished_at", "url",
        ]  # fmt: skip
        read_only_fields = fields

    def get_url(self, job: PushJob) -> str:
        return str(self.context["request"].build_absolute_uri(job.get_absolute_url()))


def _items(job: ImportJob) -> QuerySet[ImportItem]:
    return job.items.select_related("adapter__namespace").order_by("position")


def _person(request: Request) -> User:
    """Who asks. Raises TokenMayNot for a token that is limited to a part of what is theirs."""
    assert isinstance(request.user, User)
    require_whole_account(request.user)
    return request.user


# --- Imports -----------------------------------------------------------------------------------------------------


class ImportList(generics.ListAPIView[ImportJob]):
    permission_classes = [SignedIn]
    serializer_class = ImportSerializer
    keyset_order = ("-created_at", "-id")
    queryset = ImportJob.objects.none()

    def get_queryset(self) -> QuerySet[ImportJob]:
        only(self.request, "cursor", "limit")
        return ImportJob.objects.filter(owner=_person(self.request)).select_related("namespace")

    @extend_schema(
        operation_id="imports_list",
        tags=TAG,
        responses={200: ImportSerializer(many=True), **refusals(400, 401)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Your imports from other Hubs, newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="imports_start",
        tags=TAG,
        request=NewImportSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: ImportDetailSerializer, **refusals(400, 401, 403, 404, 409, 415, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Import adapters from another Hub: a job that a worker does, one repository after the other.

        Each is pinned to the commit that it has now. What is here already is passed over, so the same import may be
        asked for again at any time.
        """
        only(request)
        person = _person(request)
        form = NewImportSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wanted = dict(form.validated_data)
        namespace = writable_namespace(person, wanted.pop("namespace") or person.get_username())
        job = import_jobs.request_import(owner=person, namespace=namespace, **wanted)
        answer = _import(request, job, 201)
        answer["Location"] = reverse("api_import", args=[job.pk])
        return answer


class ImportDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="imports_read",
        tags=TAG,
        responses={200: ImportDetailSerializer, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, id: str) -> Response:
        """An import with how far each repository is."""
        only(request)
        return _import(request, hub_jobs.own_job(ImportJob, _person(request), id))


class ImportItemList(generics.ListAPIView[ImportItem]):
    permission_classes = [SignedIn]
    serializer_class = ImportItemSerializer
    keyset_order = ("position",)
    queryset = ImportItem.objects.none()

    def get_queryset(self) -> QuerySet[ImportItem]:
        only(self.request, "cursor", "limit")
        return _items(hub_jobs.own_job(ImportJob, _person(self.request), self.kwargs["id"]))

    @extend_schema(
        operation_id="imports_items",
        tags=TAG,
        responses={200: ImportItemSerializer(many=True), **refusals(400, 401, 404)},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """The repositories of an import, in order."""
        return super().get(request, *args, **kwargs)


class ImportCancel(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="imports_cancel",
        tags=TAG,
        request=None,
        responses={200: ImportDetailSerializer, **refusals(400, 401, 403, 404, 409)},
    )
    def post(self, request: Request, id: str) -> Response:
        """End an import. What it has imported stays."""
        only(request)
        job = hub_jobs.own_job(ImportJob, _person(request), id)
        import_jobs.cancel(job)
        return _import(request, job)


def _import(request: Request, job: ImportJob, status: int = 200) -> Response:
    return Response(ImportDetailSerializer(job, context={"request": request}).data, status=status)


# --- Pushes ------------------------------------------------------------------------------------------------------


class PushList(generics.ListAPIView[PushJob]):
    permission_classes = [SignedIn]
    serializer_class = PushSerializer
    keyset_order = ("-created_at", "-id")
    queryset = PushJob.objects.none()

    def get_queryset(self) -> QuerySet[PushJob]:
        only(self.request, "cursor", "limit")
        rows = PushJob.objects.filter(owner=_person(self.request))
        return rows.select_related("adapter__namespace", "revision")

    @extend_schema(
        operation_id="pushes_list", tags=TAG, responses={200: PushSerializer(many=True), **refusals(400, 401)}
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Your pushes to other Hubs, newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="pushes_start",
        tags=TAG,
        request=NewPushSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: PushSerializer, **refusals(400, 401, 403, 404, 409, 415, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Publish an adapter of yours on another Hub, with your own token there: a job that a worker does."""
        only(request)
        person = _person(request)
        form = NewPushSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        wanted = dict(form.validated_data)
        namespace, _, name = wanted.pop("adapter").partition("/")
        adapter = visible_adapter(person, namespace, name)
        revision = downloads.revision_called(adapter, wanted.pop("revision"))
        job = push_jobs.request_push(owner=person, adapter=adapter, revision=revision, **wanted)
        answer = _push(request, job, 201)
        answer["Location"] = reverse("api_push", args=[job.pk])
        return answer


class PushDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="pushes_read", tags=TAG, responses={200: PushSerializer, **refusals(400, 401, 404)}
    )
    def get(self, request: Request, id: str) -> Response:
        """A push, how far it is, and where the adapter is then."""
        only(request)
        return _push(request, hub_jobs.own_job(PushJob, _person(request), id))


class PushCancel(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="pushes_cancel",
        tags=TAG,
        request=None,
        responses={200: PushSerializer, **refusals(400, 401, 403, 404, 409)},
    )
    def post(self, request: Request, id: str) -> Response:
        """End a push before its commit. A repository that it made there stays, empty."""
        only(request)
        job = hub_jobs.own_job(PushJob, _person(request), id)
        hub_jobs.cancel(job)
        return _push(request, job)


def _push(request: Request, job: PushJob, status: int = 200) -> Response:
    return Response(PushSerializer(job, context={"request": request}).data, status=status)
