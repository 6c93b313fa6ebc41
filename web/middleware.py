"""What every answer carries, and how a refusal looks as a page."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse, HttpResponseNotModified, QueryDict
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.shortcuts import resolve_url
from django.utils.http import parse_etags

from web import api_errors, logs, typed_by, views, way_back
from web.errors import NOTHING_HERE, DomainError, LengthNeeded, NotFound, SignedOut, WrongMethod

COMPRESSED = frozenset({"text/html", "application/atom+xml", "image/svg+xml", "text/csv"})
SAID_BESIDE = ("X-Total-Count", "X-Search-Matched")  # headers that belong to the answer as its body does
Handler = Callable[[HttpRequest], HttpResponse]
View = Callable[..., HttpResponseBase]
Refusal = Callable[[DomainError], HttpResponse]


class CompressPagesMiddleware(GZipMiddleware):
    """Compresses what people read. Files keep their length and their ranges; a stream stays a stream.

    Django's own adds a random number of bytes, so that the length says nothing about a secret on the page (BREACH).
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if response.streaming or kind not in COMPRESSED:
            return response
        return super().process_response(request, response)


class ConditionalApiMiddleware:
    """Names each state of what the REST API answers (ETag): who has it already gets a 304 without the body.

    Files bring their own, and are left alone.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_read = request.method in {"GET", "HEAD"} and request.path.startswith("/api/v1/")
        if not is_read or response.status_code != 200 or response.streaming or response.has_header("ETag"):
            return response
        counted = "".join(response.headers.get(name, "") for name in SAID_BESIDE).encode()
        response["ETag"] = f'"{hashlib.sha256(response.content + counted).hexdigest()[:32]}"'
        response["Cache-Control"] = "private, no-cache"  # what is public today may be private tomorrow
        known = parse_etags(request.headers.get("If-None-Match", ""))
        if not {"*", response["ETag"], f"W/{response['ETag']}"}.intersection(known):
            return response
        kept = ("ETag", "Cache-Control", "Vary", "RateLimit", "RateLimit-Policy", *SAID_BESIDE)
        return HttpResponseNotModified(headers={name: response[name] for name in kept if name in response})


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


class WayBackMiddleware:
    """Nobody ends on an address that only takes what a form sends.

    Whoever has to sign in before a form counts comes back to the page that it is on, a script of a page is told in its
    own shape, and a method that an address does not take is refused on a page that leads on.
    """

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code == 405 and not response.streaming and not response.content:
            return self._refuse(request, response)
        is_part = "HX-Request" in request.headers
        if (request.method == "POST" or is_part) and self._asks_to_sign_in(request, response):
            if request.headers.get("Accept", "").startswith("application/json"):
                return api_errors.json_error(SignedOut())
            if is_part:  # it would put the whole page of the sign-in into this one
                return views.answer_error(request, SignedOut())
            back = QueryDict(mutable=True)
            back[REDIRECT_FIELD_NAME] = way_back.page_before(request)
            response["Location"] = f"{resolve_url(settings.LOGIN_URL)}?{back.urlencode(safe='/')}"
        return response

    def _asks_to_sign_in(self, request: HttpRequest, response: HttpResponse) -> bool:
        """Whether it is the answer of `login_required`, which leads back to this very address."""
        address, _, query = response.headers.get("Location", "").partition("?")
        is_to_sign_in = response.status_code == 302 and address == resolve_url(settings.LOGIN_URL)
        return is_to_sign_in and QueryDict(query).get(REDIRECT_FIELD_NAME) == request.get_full_path()

    def _refuse(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        allowed = response.headers.get("Allow", "")
        words = (
            "This address only takes what a form on another page sends."
            if allowed == "POST"
            else f"This address does not take {request.method}."
        )
        refusal = views.answer_error(request, WrongMethod(words))
        refusal["Allow"] = allowed
        return refusal


class _BeforeTheView:
    """Refuses requests by what is known before their view is called, in the shape of the door they come to."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: View, args: Any, kwargs: Any) -> HttpResponse | None:
        try:
            self.check(request)
        except DomainError as error:
            refuse: Refusal | None = getattr(view, "refuse", None)
            return views.answer_error(request, error) if refuse is None else refuse(error)
        return None

    def check(self, request: HttpRequest) -> None:
        raise NotImplementedError


def refusing_by(refuse: Refusal) -> Callable[[View], View]:
    """For a view whose refusals have a shape of their own: the middleware here answers for it by `refuse`."""

    def mark(view: View) -> View:
        view.refuse = refuse  # type: ignore[attr-defined]
        return view

    return mark


class BodyLengthMiddleware(_BeforeTheView):
    """Refuses bodies that do not say how long they are: Django reads them as empty, and what they ask for is lost.

    It stands before the check of forms, which reads the body.
    """

    def check(self, request: HttpRequest) -> None:
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            raise LengthNeeded


class ConditionalWritesMiddleware(_BeforeTheView):
    """Refuses changes over REST on a condition that nobody here looks at: whoever sends one trusts it with others' changes."""

    def check(self, request: HttpRequest) -> None:
        is_change = request.method not in {"GET", "HEAD", "OPTIONS"} and request.path.startswith("/api/v1/")
        for name in ("If-Match", "If-Unmodified-Since"):
            if is_change and name in request.headers:
                raise NoCondition(name)


class OwnFormMiddleware(_BeforeTheView):
    """Refuses what one person opened and another sends, signed in to the same browser meanwhile: it would count for them."""

    def check(self, request: HttpRequest) -> None:
        # Only what Django took for a form: else the body is the view's to read, which may be long.
        if request.method == "POST" and getattr(request, "csrf_processing_done", False):
            typed_by.require_own(request)


class NulMiddleware(_BeforeTheView):
    """Refuses addresses that hold a NUL character: no text here may, and Postgres fails on it in any lookup."""

    def check(self, request: HttpRequest) -> None:
        if "\x00" in request.path:
            raise NotFound(NOTHING_HERE)
        for name, values in request.GET.lists():
            if "\x00" in name or any("\x00" in value for value in values):
                shown = name.replace("\x00", "")[:100]
                message = f"{shown!r} holds a NUL character, which no text here may."
                raise BadAddress(message, fields={shown: [message]})


class NoCondition(DomainError):
    code = "no_conditional_change"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Nothing is changed here on a condition. Send this without {name}: fields that you leave out stay as they are.",
            fields={name: ["No condition of a change."]},
        )


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
