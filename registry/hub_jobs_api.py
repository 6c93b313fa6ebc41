"""REST over imports from and pushes to other Hubs."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import extend_schema, extend_schema_field, extend_schema_view
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import downloads, hub_jobs, import_jobs, importing, push_jobs
from registry.api_parts import IDEMPOTENCY_KEY, only, person_of
from registry.authentication import SignedIn
from registry.idempotency import idempotent
from registry.models import Adapter, HubJob, ImportItem, ImportJob, JobStatus, PushJob, User
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
    visibility = serializers.ChoiceField(
        Adapter.Visibility.choices,
        default=Adapter.Visibility.PUBLIC,
        help_text="Of what is new here; who sees an adapter that is here already stays as it is.",
    )
    overwrite = serializers.BooleanField(
        default=False,
        help_text="Newer commits may become the newest version on top of versions that were made here since; without it "
        "such an import is refused (409, `changed_here`).",
    )
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
    person = person_of(request)
    require_whole_account(person)
    return person


# --- What imports and pushes have in common ------------------------------------------------------------------------


class _Jobs(APIView):
    """Jobs of one kind, of the person who asks."""

    permission_classes = [SignedIn]
    kind: ClassVar[type[HubJob]]
    shape: ClassVar[type[serializers.ModelSerializer[Any]]]

    def own(self) -> HubJob:
        """Raises NotFound."""
        return hub_jobs.own_job(self.kind, _person(self.request), self.kwargs["id"])

    def answer(self, job: HubJob, status: int = 200) -> Response:
        return Response(self.shape(job, context={"request": self.request}).data, status=status)


class _JobList(_Jobs, generics.ListAPIView[Any]):
    keyset_order = ("-created_at", "-id")
    related: ClassVar[tuple[str, ...]]
    new: ClassVar[type[StrictSerializer]]
    address: ClassVar[str]

    def get_queryset(self) -> QuerySet[Any]:
        only(self.request, "cursor", "limit")
        rows = self.kind.objects.filter(owner=_person(self.request))  # type: ignore[attr-defined]
        return rows.select_related(*self.related)

    @idempotent
    def post(self, request: Request) -> Response:
        only(request)
        person = _person(request)
        form = self.new(data=request.data)
        form.is_valid(raise_exception=True)
        job = self.start(person, dict(form.validated_data))
        answer = self.answer(job, 201)
        answer["Location"] = reverse(self.address, args=[job.pk])
        return answer

    def start(self, person: User, wanted: dict[str, Any]) -> HubJob:
        raise NotImplementedError


class _JobDetail(_Jobs):
    def get(self, request: Request, id: str) -> Response:
        only(request)
        return self.answer(self.own())


class _JobCancel(_Jobs):
    def post(self, request: Request, id: str) -> Response:
        only(request)
        job = self.own()
        self.cancel(job)
        return self.answer(job)

    def cancel(self, job: HubJob) -> None:
        hub_jobs.cancel(job)


# --- Imports -----------------------------------------------------------------------------------------------------


@extend_schema_view(
    get=extend_schema(
        operation_id="imports_list",
        tags=TAG,
        description="Your imports from other Hubs, newest first.",
        responses={200: ImportSerializer(many=True), **refusals(400, 401, 403)},
    ),
    post=extend_schema(
        operation_id="imports_start",
        tags=TAG,
        description="Import adapters from another Hub: a job that a worker does, one repository after the other.\n\n"
        "Each is pinned to the commit that it has now. What is here already is passed over, so the same import may be "
        "asked for again at any time; of what has newer versions made here since, only with `overwrite`.",
        request=NewImportSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: ImportDetailSerializer, **refusals(400, 401, 403, 404, 409, 415, 422)},
    ),
)
class ImportList(_JobList):
    kind, shape, new, address = ImportJob, ImportDetailSerializer, NewImportSerializer, "api_import"
    related = ("namespace",)
    serializer_class = ImportSerializer
    queryset = ImportJob.objects.none()

    def start(self, person: User, wanted: dict[str, Any]) -> HubJob:
        namespace = writable_namespace(person, wanted.pop("namespace") or person.get_username())
        return import_jobs.request_import(owner=person, namespace=namespace, **wanted)


@extend_schema_view(
    get=extend_schema(
        operation_id="imports_read",
        tags=TAG,
        description="An import with how far each repository is.",
        responses={200: ImportDetailSerializer, **refusals(400, 401, 403, 404)},
    )
)
class ImportDetail(_JobDetail):
    kind, shape = ImportJob, ImportDetailSerializer


@extend_schema_view(
    get=extend_schema(
        operation_id="imports_items",
        tags=TAG,
        description="The repositories of an import, in order.",
        responses={200: ImportItemSerializer(many=True), **refusals(400, 401, 403, 404)},
    )
)
class ImportItemList(_Jobs, generics.ListAPIView[ImportItem]):
    kind, shape = ImportJob, ImportDetailSerializer
    serializer_class = ImportItemSerializer
    keyset_order = ("position",)
    queryset = ImportItem.objects.none()

    def get_queryset(self) -> QuerySet[ImportItem]:
        only(self.request, "cursor", "limit")
        return _items(cast(ImportJob, self.own()))


@extend_schema_view(
    post=extend_schema(
        operation_id="imports_cancel",
        tags=TAG,
        description="End an import. What it has imported stays.",
        request=None,
        responses={200: ImportDetailSerializer, **refusals(400, 401, 403, 404, 409)},
    )
)
class ImportCancel(_JobCancel):
    kind, shape = ImportJob, ImportDetailSerializer

    def cancel(self, job: HubJob) -> None:
        import_jobs.cancel(cast(ImportJob, job))


# --- Pushes ------------------------------------------------------------------------------------------------------


@extend_schema_view(
    get=extend_schema(
        operation_id="pushes_list",
        tags=TAG,
        description="Your pushes to other Hubs, newest first.",
        responses={200: PushSerializer(many=True), **refusals(400, 401, 403)},
    ),
    post=extend_schema(
        operation_id="pushes_start",
        tags=TAG,
        description="Publish an adapter of yours on another Hub, with your own token there: a job that a worker does.",
        request=NewPushSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: PushSerializer, **refusals(400, 401, 403, 404, 409, 415, 422)},
    ),
)
class PushList(_JobList):
    kind, shape, new, address = PushJob, PushSerializer, NewPushSerializer, "api_push"
    related = ("adapter__namespace", "revision")
    serializer_class = PushSerializer
    queryset = PushJob.objects.none()

    def start(self, person: User, wanted: dict[str, Any]) -> HubJob:
        namespace, _, name = wanted.pop("adapter").partition("/")
        adapter = visible_adapter(person, namespace, name)
        revision = downloads.revision_called(adapter, wanted.pop("revision"))
        return push_jobs.request_push(owner=person, adapter=adapter, revision=revision, **wanted)


@extend_schema_view(
    get=extend_schema(
        operation_id="pushes_read",
        tags=TAG,
        description="A push, how far it is, and where the adapter is then.",
        responses={200: PushSerializer, **refusals(400, 401, 403, 404)},
    )
)
class PushDetail(_JobDetail):
    kind, shape = PushJob, PushSerializer


@extend_schema_view(
    post=extend_schema(
        operation_id="pushes_cancel",
        tags=TAG,
        description="End a push before its commit. A repository that it made there stays, empty.",
        request=None,
        responses={200: PushSerializer, **refusals(400, 401, 403, 404, 409)},
    )
)
class PushCancel(_JobCancel):
    kind, shape = PushJob, PushSerializer
