"""REST over where an adapter comes from and what was made with it: a door to `lineage`."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from compose import lineage, naming
from compose.models import Candidate
from registry.api import MOVED, OneAdapter
from registry.api_parts import only
from registry.models import Origin
from registry.rights import visible_adapter
from web.api_schema import refusals
from web.pagination import next_page, page_size, paginate


class ParentSerializer(serializers.ModelSerializer[Candidate]):
    adapter = serializers.SerializerMethodField(help_text="null for one that you may not be told of.")
    revision = serializers.SerializerMethodField(help_text="The commit that was taken.")
    deleted = serializers.SerializerMethodField()

    class Meta:
        model = Candidate
        fields = ["adapter", "revision", "mixing_weight", "attribution", "deleted"]
        read_only_fields = fields

    def get_adapter(self, use: Candidate) -> str | None:
        return use.revision.adapter.full_name if self._is_named(use) else None

    def get_revision(self, use: Candidate) -> str | None:
        return use.revision.commit if self._is_named(use) else None

    def get_deleted(self, use: Candidate) -> bool:
        return self._is_named(use) and use.revision.adapter.deleted_at is not None

    def _is_named(self, use: Candidate) -> bool:
        return use.revision.adapter_id in self.context["named"]


class OriginSerializer(serializers.ModelSerializer[Origin]):
    url = serializers.CharField(read_only=True)

    class Meta:
        model = Origin
        fields = ["endpoint", "source", "commit", "imported_at", "url"]
        read_only_fields = fields


class UseSerializer(serializers.ModelSerializer[Candidate]):
    adapter = serializers.CharField(source="composition.adapter.full_name", read_only=True)
    published_at = serializers.DateTimeField(source="composition.adapter.published_at", read_only=True)

    class Meta:
        model = Candidate
        fields = ["adapter", "mixing_weight", "attribution", "published_at"]
        read_only_fields = fields


class LineageSerializer(serializers.Serializer):
    composition = serializers.CharField(
        allow_null=True, help_text="Id of the one that made it; null where it was not composed here."
    )
    made_of = ParentSerializer(many=True, help_text="Modules with a weight in it, the heaviest first.")
    imported_from = OriginSerializer(allow_null=True, help_text="Where its newest revision came from.")
    next = serializers.URLField(allow_null=True, help_text="The next page of `results`.")
    results = UseSerializer(
        many=True, help_text="Published adapters that it has a weight in, the newest first."
    )


class LineageView(OneAdapter):
    @extend_schema(
        operation_id="adapters_lineage",
        parameters=[
            OpenApiParameter("cursor", str, description="Taken from `next` of the page before."),
            OpenApiParameter("limit", int, description="Rows on a page."),
        ],
        responses={200: LineageSerializer, **MOVED, **refusals(400, 401, 404)},
    )
    def get(self, request: Request, namespace: str, name: str) -> Response:
        """What an adapter is made of, where it was imported from, and what was made with it."""
        given = only(request, "cursor", "limit")
        adapter = visible_adapter(request.user, namespace, name)
        parents = lineage.made_of(adapter)
        page = paginate(
            lineage.made_with(adapter, request.user),
            order=("-published", "-pk"),
            cursor=given.get("cursor"),
            size=page_size(given.get("limit")),
        )
        composition = lineage.made(adapter).composition
        content: dict[str, Any] = {
            "composition": composition.pk if composition else None,
            "made_of": parents,
            "imported_from": adapter.head.origins.first() if adapter.head else None,
            "next": next_page(request, page.next_cursor),
            "results": page.items,
        }
        ids = [use.revision.adapter_id for use in parents]
        context = {"named": naming.may_be_named(ids, request.user)}
        return Response(LineageSerializer(content, context=context).data)
