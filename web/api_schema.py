"""What the OpenAPI description says about every operation: the one shape of errors, and how to sign in."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers
from rest_framework.permissions import SAFE_METHODS

from web.errors import NOTHING_HERE

_MEANING = {
    400: "The request is refused; the message says why and what to do.",
    401: "No account, or a token that is unknown, expired or revoked.",
    403: "You may see this and not do this.",
    404: NOTHING_HERE,
    409: "The state of things does not allow it now.",
    413: "Too large.",
    415: "The body is of another type than this address takes.",
    416: "The range lies outside of the file.",
    422: "This Idempotency-Key came with another request before.",
    429: "Too many requests.",
    502: "A server behind ours did not answer.",
    507: "No space is left to take this.",
}


class ErrorSerializer(serializers.Serializer):
    """Every refusal: a code for scripts, a sentence for people, and sentences by field."""

    code = serializers.CharField()
    message = serializers.CharField()
    fields = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField())
    )


def refusals(*statuses: int) -> dict[int, Any]:
    """For `extend_schema(responses={200: …, **refusals(400, 404)})`; 429 is always among them."""
    from drf_spectacular.utils import OpenApiResponse

    return {
        status: OpenApiResponse(ErrorSerializer, description=_MEANING[status])
        for status in sorted({*statuses, 429})
    }


class Schema(AutoSchema):
    """Says of every call by whom it may be made, which drf-spectacular knows of its own permissions only, that what is
    read is a 304 for who has it already (`web.middleware.ConditionalApiMiddleware`), that no body may be of any length, and
    that answers leave nothing out."""

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        found: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if found is None:
            return None
        answers = found["responses"]
        if self.method == "GET" and "200" in answers:
            answers.setdefault("304", {"description": "Unchanged (If-None-Match)."})
        if "requestBody" in found:
            answers.setdefault("413", {**answers["400"], "description": _MEANING[413]})
        return {**found, "responses": dict(sorted(answers.items()))}

    def _map_basic_serializer(self, serializer: Any, direction: str) -> dict[str, Any]:
        found: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        if direction == "response" and "properties" in found:
            # Else a field that a request might leave out would be one that an answer might not have.
            found["required"] = sorted(found["properties"])
        return found

    def get_auth(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = super().get_auth()
        is_open = all(getattr(rule, "reading_is_open", False) for rule in self.view.get_permissions())
        if self.method in SAFE_METHODS and is_open and {} not in found:
            found.append({})
        return found


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "registry.authentication.BearerAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "A token from Settings, Tokens."}


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "registry.authentication.PageSessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "sessionid",
            "description": "The cookie of the pages; writing needs the header X-CSRFToken as well.",
        }
