"""REST over the names of an adapter's revisions: a door to `refs`."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from registry import downloads, refs
from registry.api import MOVED, OneAdapter
from registry.api_parts import only, person_of
from registry.models import Ref
from registry.rights import visible_adapter, writable_adapter
from registry.serializers import StrictSerializer
from web.api_schema import refusals


class RefSerializer(serializers.ModelSerializer[Ref]):
    revision = serializers.CharField(source="revision.commit", read_only=True)

    class Meta:
        model = Ref
        fields = ["kind", "name", "revision"]
        read_only_fields = fields


class TaggedSerializer(StrictSerializer):
    revision = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        help_text="Branch, tag, or commit (7 or more digits); the newest unless given.",
    )


class RefList(OneAdapter, generics.ListAPIView[Ref]):
    serializer_class = RefSerializer
    keyset_order = ("kind", "name")
    queryset = Ref.objects.none()

    def get_queryset(self) -> QuerySet[Ref]:
        only(self.request, "cursor", "limit")
        adapter = visible_adapter(self.request.user, self.kwargs["namespace"], self.kwargs["name"])
        return Ref.objects.filter(adapter=adapter).select_related("revision").defer("revision__facts")

    @extend_schema(
        operation_id="adapters_refs",
        responses={200: RefSerializer(many=True), **MOVED, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """The branches and tags of an adapter, which are names of its revisions. A branch moves on, a tag stays."""
        return super().get(request, *args, **kwargs)


class AdapterTag(OneAdapter):
    takes_limited_tokens = True

    @extend_schema(
        operation_id="adapters_tag",
        request=TaggedSerializer,
        responses={
            200: OpenApiResponse(RefSerializer, description="It was there, for this revision."),
            201: RefSerializer,
            **MOVED,
            **refusals(400, 401, 403, 404, 409, 415),
        },
    )
    def put(self, request: Request, namespace: str, name: str, tag: str) -> Response:
        """Tag a revision, such as `v1`. A tag is never moved: delete it first."""
        only(request)
        adapter = writable_adapter(request.user, namespace, name)
        form = TaggedSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        revision = downloads.revision_called(adapter, form.validated_data["revision"])
        there = Ref.objects.filter(adapter=adapter, kind=Ref.Kind.TAG, name=tag, revision=revision).first()
        ref = there or refs.create(
            adapter, actor=person_of(request), kind=Ref.Kind.TAG, name=tag, revision=revision
        )
        return Response(RefSerializer(ref).data, status=200 if there else 201)

    @extend_schema(
        operation_id="adapters_untag",
        responses={
            204: OpenApiResponse(description="Gone; the revision stays."),
            **MOVED,
            **refusals(400, 401, 403, 404),
        },
    )
    def delete(self, request: Request, namespace: str, name: str, tag: str) -> Response:
        """Take a tag away."""
        only(request)
        adapter = writable_adapter(request.user, namespace, name)
        refs.delete(adapter, actor=person_of(request), kind=Ref.Kind.TAG, name=tag)
        return Response(status=204)
