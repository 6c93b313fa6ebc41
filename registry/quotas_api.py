"""REST over what a namespace keeps and how much it may: a door to `quotas`."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import quotas, rights
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from web.api_schema import refusals


class QuotaSerializer(serializers.Serializer):
    adapters = serializers.IntegerField(help_text="That it keeps, unfinished and private ones too.")
    most_adapters = serializers.IntegerField(source="may_keep", help_text="0: no limit.")
    size_bytes = serializers.IntegerField(help_text="Of all their versions; equal files count each time.")
    most_bytes = serializers.IntegerField(source="may_fill", help_text="0: no limit.")


class NamespaceQuota(APIView):
    permission_classes = [SignedIn]
    takes_limited_tokens = True

    @extend_schema(
        operation_id="namespaces_quota", responses={200: QuotaSerializer, **refusals(400, 401, 403, 404)}
    )
    def get(self, request: Request, name: str) -> Response:
        """What your namespace, or one that you are a member of, keeps, and how much it may."""
        only(request)
        namespace = rights.member_namespace(person_of(request), name)
        return Response(QuotaSerializer(quotas.use_of(namespace)).data)
