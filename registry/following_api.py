"""REST over following: a door to `following`. Webhooks tell of new versions of what somebody follows."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import following
from registry.api import MOVED, OneAdapter
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.models import Adapter, Follow, Namespace
from registry.rights import require_whole_account, visible_adapter
from web.api_schema import refusals
from web.errors import NotFound

DONE = {204: OpenApiResponse(description="So it is now.")}


class FollowSerializer(serializers.ModelSerializer[Follow]):
    adapter = serializers.CharField(source="adapter.full_name", read_only=True, allow_null=True, default=None)
    namespace = serializers.CharField(
        source="namespace.name",
        read_only=True,
        allow_null=True,
        default=None,
        help_text="All that it publishes; null where one adapter is followed.",
    )

    class Meta:
        model = Follow
        fields = ["adapter", "namespace", "created_at"]


class FollowingList(generics.ListAPIView[Follow]):
    permission_classes = [SignedIn]
    serializer_class = FollowSerializer
    keyset_order = ("-created_at", "-id")
    queryset = Follow.objects.none()

    def get_queryset(self) -> QuerySet[Follow]:
        only(self.request, "cursor", "limit")
        return following.followed_by(person_of(self.request))

    @extend_schema(
        operation_id="following_list",
        responses={200: FollowSerializer(many=True), **refusals(400, 401, 403)},
    )
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """What you follow, the newest first."""
        return super().get(request, *args, **kwargs)


class FollowNamespace(APIView):
    @extend_schema(
        operation_id="following_namespace", request=None, responses={**DONE, **refusals(400, 401, 403, 404)}
    )
    def put(self, request: Request, namespace: str) -> Response:
        """Follow a person or an organisation."""
        following.follow(user=person_of(request), namespace=self._namespace(request, namespace))
        return Response(status=204)

    @extend_schema(operation_id="following_namespace_end", responses={**DONE, **refusals(400, 401, 403, 404)})
    def delete(self, request: Request, namespace: str) -> Response:
        """Follow a person or an organisation no longer."""
        following.unfollow(user=person_of(request), namespace=self._namespace(request, namespace))
        return Response(status=204)

    def _namespace(self, request: Request, name: str) -> Namespace:
        only(request)
        found = Namespace.objects.filter(name__iexact=name, deleted_at=None).first()
        if found is None:
            raise NotFound(f"There is nobody called {name[:100]!r} here.")
        return found


class FollowAdapter(OneAdapter):
    takes_limited_tokens = True  # to be told 404 for what they do not see; they follow nothing

    @extend_schema(
        operation_id="following_adapter",
        request=None,
        responses={**DONE, **MOVED, **refusals(400, 401, 403, 404)},
    )
    def put(self, request: Request, namespace: str, name: str) -> Response:
        """Follow an adapter."""
        following.follow(user=person_of(request), adapter=self._adapter(request, namespace, name))
        return Response(status=204)

    @extend_schema(
        operation_id="following_adapter_end", responses={**DONE, **MOVED, **refusals(400, 401, 403, 404)}
    )
    def delete(self, request: Request, namespace: str, name: str) -> Response:
        """Follow an adapter no longer."""
        following.unfollow(user=person_of(request), adapter=self._adapter(request, namespace, name))
        return Response(status=204)

    def _adapter(self, request: Request, namespace: str, name: str) -> Adapter:
        only(request)
        found = visible_adapter(request.user, namespace, name)
        require_whole_account(person_of(request))
        return found
