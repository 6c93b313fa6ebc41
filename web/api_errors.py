"""Every error of the API in one shape: {"code", "message", "fields"}."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from web import database, disk
from web.errors import NOTHING_HERE, DomainError
from web.throttles import TooManyRequests

ErrorBody = dict[str, Any]
# DRF asks who somebody is, and whether they may, before it counts.
_MAY_BE_UNCOUNTED = (
    exceptions.AuthenticationFailed,
    exceptions.NotAuthenticated,
    exceptions.PermissionDenied,
)


def body(code: str, message: str, fields: dict[str, list[str]] | None = None) -> ErrorBody:
    return {"code": code, "message": message, "fields": fields or {}}


def json_error(error: DomainError) -> JsonResponse:
    """The same shape from a view that is not DRF's."""
    content = body(error.code, error.message, error.fields)
    return JsonResponse(content, status=error.status, headers=headers_of(error))


def headers_of(error: DomainError) -> dict[str, str]:
    return {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}


def refusal_of(error: BaseException | None) -> DomainError | None:
    """What to tell about an exception that is the disk's or the database's fault; None for our own mistakes."""
    return (disk.refusal_of(error) if error else None) or database.refusal_of(error)


def handle(exception: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: refusals become answers, our own mistakes stay exceptions and are logged."""
    if isinstance(exception, Http404):
        exception = exceptions.NotFound()
    elif isinstance(exception, PermissionDenied):
        exception = exceptions.PermissionDenied()
    exception = refusal_of(exception) or exception
    if isinstance(exception, _MAY_BE_UNCOUNTED):
        exception = _too_many(context) or exception
    if isinstance(exception, DomainError):
        set_rollback()
        content = body(exception.code, exception.message, exception.fields)
        return Response(content, status=exception.status, headers=headers_of(exception))
    if isinstance(exception, exceptions.APIException):
        set_rollback()
        return Response(
            _of_drf(exception, context), status=exception.status_code, headers=_headers(exception)
        )
    return None


def _too_many(context: dict[str, Any]) -> TooManyRequests | None:
    """Counts what was refused before it was counted, so that whoever tries tokens without end is told to stop."""
    view = context["view"]
    if "RateLimit" in view.headers:
        return None
    try:
        for throttle in view.get_throttles():
            throttle.allow_request(context["request"], view)
    except TooManyRequests as refusal:
        return refusal
    return None


def _of_drf(exception: exceptions.APIException, context: dict[str, Any]) -> ErrorBody:
    if isinstance(exception, exceptions.ValidationError):
        fields = _flatten(exception.detail)
        first = next(iter(fields.items()), ("", ["The request is not valid."]))
        message = f"{first[0]}: {first[1][0]}" if first[0] else first[1][0]
        return body("invalid", message, fields)
    if isinstance(exception, exceptions.NotFound):
        return body("not_found", NOTHING_HERE)
    if isinstance(exception, exceptions.NotAuthenticated):
        return body(
            "not_authenticated",
            "Send a token to do this, in the header `Authorization: Bearer lr_...`. "
            "You make one under Settings, Tokens.",
        )
    if isinstance(exception, exceptions.NotAcceptable):
        return body("not_acceptable", "The API answers in JSON: let the request accept application/json.")
    if isinstance(exception, exceptions.MethodNotAllowed):
        taken = ", ".join(method for method in context["view"].allowed_methods if method != "OPTIONS")
        return body(
            "method_not_allowed", f"This address takes {taken}, not {context['request'].method[:20]}."
        )
    if isinstance(exception, exceptions.UnsupportedMediaType):
        expected = " or ".join(parser.media_type for parser in context["view"].get_parsers())
        given = context["request"].content_type[:100]
        return body("unsupported_media_type", f"Send the body as {expected}, not as {given!r}.")
    code = exception.get_codes()
    return body(code if isinstance(code, str) else "invalid", str(exception.detail))


def _headers(exception: exceptions.APIException) -> dict[str, str]:
    auth_header = getattr(exception, "auth_header", None)
    return {"WWW-Authenticate": auth_header} if auth_header else {}


def _flatten(detail: Any, prefix: str = "") -> dict[str, list[str]]:
    """DRF's nested details as one level: "examples.3.output" -> sentences."""
    if isinstance(detail, dict):
        flat: dict[str, list[str]] = {}
        for name, value in detail.items():
            own = "" if name == "non_field_errors" else str(name)
            flat |= _flatten(value, ".".join(part for part in (prefix, own) if part))
        return flat
    if isinstance(detail, list) and any(isinstance(item, dict | list) for item in detail):
        flat = {}
        for number, item in enumerate(detail):
            if item:
                flat |= _flatten(item, f"{prefix}.{number}" if prefix else str(number))
        return flat
    return {prefix: [str(item) for item in (detail if isinstance(detail, list) else [detail])]}
