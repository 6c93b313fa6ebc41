"""REST over who is asking."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from registry.api_parts import only, person_of
from registry.authentication import SignedIn
from registry.models import Membership, Token
from registry.serializers import WhoAmISerializer
from web.api_schema import refusals


class WhoAmI(APIView):
    permission_classes = [SignedIn]
    takes_limited_tokens = True

    @extend_schema(operation_id="whoami", responses={200: WhoAmISerializer, **refusals(400, 401)})
    def get(self, request: Request) -> Response:
        """Whose token this is, and where it may publish."""
        only(request)
        roles = Membership.objects.filter(user=person_of(request)).select_related("namespace").order_by("pk")
        content = {
            "username": request.user.get_username(),
            "namespaces": roles,
            "token": request.auth if isinstance(request.auth, Token) else None,
        }
        return Response(WhoAmISerializer(content).data)
