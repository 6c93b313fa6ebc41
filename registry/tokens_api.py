"""REST over one's own tokens, as far as a token may go: it sees them and revokes them, and makes none."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry import tokens
from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.models import Token
from registry.serializers import TokenSerializer
from web.api_schema import refusals


class TokenList(generics.ListAPIView[Token]):
    permission_classes = [SignedIn]
    serializer_class = TokenSerializer
    keyset_order = ("-created_at", "-id")
    queryset = Token.objects.none()

    def get_queryset(self) -> QuerySet[Token]:
        only(self.request, "cursor", "limit")
        return tokens.tokens_of(person_of(self.request))

    @extend_schema(
        operation_id="tokens_list",
        responses={200: TokenSerializer(many=True), **refusals(400, 401, 403)},
    )
    def get(self, request: Request, *args: object, **kwargs: object) -> Response:
        """Your tokens without their secrets, the newest first, revoked ones too. New ones are made on their page only."""
        return super().get(request, *args, **kwargs)


class TokenDetail(APIView):
    permission_classes = [SignedIn]

    @extend_schema(
        operation_id="tokens_revoke",
        responses={
            204: OpenApiResponse(description="It works no more."),
            **refusals(400, 401, 403, 404),
        },
    )
    def delete(self, request: Request, id: int) -> Response:
        """Revoke a token of yours, or the very one that asks. It stays in the list."""
        only(request)
        tokens.revoke_token(user=person_of(request), token_id=id)
        return Response(status=204)
