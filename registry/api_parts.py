"""What the doors of the REST API share: parameters that are refused when unknown, parts of the description, files as they are."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from registry.idempotency import HEADER
from registry.models import User
from registry.search import each_once

BYTES = OpenApiResponse(OpenApiTypes.BINARY, description="The bytes, as an attachment.")
# Of one file, whatever its own type is: clients made from the description would take it for JSON where none is named.
FILE: dict[Any, Any] = {(status, "application/octet-stream"): BYTES for status in (200, 206)}
IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER, str, OpenApiParameter.HEADER, description="The same key with the same request is done once a day."
)


def only(request: Request, *allowed: str) -> dict[str, str]:
    """The query parameters, each given once. Raises BadParameter for one that is not among `allowed`."""
    return each_once(request.query_params, allowed)


class AnyType(BaseContentNegotiation):
    """Files are sent as what they are, whatever the client says it accepts."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(
        self, request: Any, renderers: Any, format_suffix: Any = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


def person_of(request: Request) -> User:
    """Who asks; the permissions have turned everybody else away."""
    assert isinstance(request.user, User)
    return request.user
