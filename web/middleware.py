"""What every answer carries, and how a refusal looks as a page."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

from web import api_errors, logs, views
from web.errors import DomainError

COMPRESSED = frozenset({"text/html", "application/atom+xml", "image/svg+xml", "text/csv"})
Handler = Callable[[HttpRequest], HttpResponse]


class CompressPagesMiddleware(GZipMiddleware):
    """Compresses what people read. Files keep their length and their ranges; a stream stays a stream.

    Django's own adds a random number of bytes, so that the length says nothing about a secret on the page (BREACH).
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if response.streaming or kind not in COMPRESSED:
            return response
        return super().process_response(request, response)


class RequestIdMiddleware:
    """Names each request, so that a person's report and a line in the log find each other."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.id = secrets.token_hex(8)  # type: ignore[attr-defined]
        with logs.about(request=request.id):  # type: ignore[attr-defined]
            response = self.get_response(request)
        response["X-Request-Id"] = request.id  # type: ignore[attr-defined]
        return response


class NulMiddleware:
    """Refuses addresses that hold a NUL character: no text here may, and Postgres fails on it in any lookup."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\x00" in request.path:
            return views.page_not_found(request, Http404())
        for name, values in request.GET.lists():
            if "\x00" in name or any("\x00" in value for value in values):
                shown = name.replace("\x00", "")[:100]
                message = f"{shown!r} holds a NUL character, which no text here may."
                return views.answer_error(request, BadAddress(message, fields={shown: [message]}))
        return self.get_response(request)


class BadAddress(DomainError):
    code = "bad_parameter"


class DomainErrorMiddleware:
    """Turns a DomainError that a page lets pass into the error page with its sentence and status."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        error = exception if isinstance(exception, DomainError) else api_errors.refusal_of(exception)
        return None if error is None else views.answer_error(request, error)
