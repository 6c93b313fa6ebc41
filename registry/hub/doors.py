"""What every view of the Hub protocol has in common: who calls, by token alone, and JSON whatever happens."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation, TooManyFieldsSent
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from django.http.request import RawPostDataException
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from registry import rights
from registry.authentication import find_token, sent_secret
from registry.hub import errors
from registry.models import Token, User
from web.api_errors import refusal_of
from web.errors import DomainError
from web.middleware import refusing_by
from web.throttles import TooManyRequests, spend_of

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]


@dataclass(frozen=True)
class Caller:
    """Who a request comes from. Cookies do not count here, so no other site can act for a person."""

    person: User | AnonymousUser
    token: Token | None

    def signed_in(self) -> User:
        """The person. Raises TokenNeeded for a guest."""
        if not isinstance(self.person, User):
            raise errors.TokenNeeded
        return self.person

    def writer(self) -> User:
        """The person, if the token may write. Raises TokenNeeded or Forbidden."""
        person = self.signed_in()
        rights.require_writing_token(person)
        return person


class TooMuchText(DomainError):
    code = "too_large"
    status = 413


def door(*methods: str, bucket: str = "api") -> Callable[[View], View]:
    """For `view(request, caller, ...)`: these methods only, the caller known, every refusal as the clients read it.

    The body is left unread, so that a view can take it in pieces. Requests count against the caller's `bucket`, a key of
    REQUEST_RATES.
    """
    return _guarded(methods, find_caller, bucket)


def freely(*methods: str) -> Callable[[View], View]:
    """As `door`, uncounted: for what a signed address allows, which was counted when it was given."""
    return _guarded(methods, find_caller)


def by_ticket(*methods: str) -> Callable[[View], View]:
    """As `door`, for `view(request, ticket, ...)`: the bearer token is one that we signed, not a person's own."""
    return _guarded(methods, _bearer)


def _guarded(
    methods: tuple[str, ...], who: Callable[[HttpRequest], object], bucket: str = ""
) -> Callable[[View], View]:
    allowed = {*methods, "HEAD"} if "GET" in methods else set(methods)

    def wrap(view: View) -> View:
        @refusing_by(errors.answer)
        @csrf_exempt
        @functools.wraps(view)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            headers: dict[str, str] = {}
            try:
                if request.method not in allowed:
                    raise errors.NotAllowed(request.method, allowed)
                caller = _known(request, who, headers)
                if bucket:
                    assert isinstance(caller, Caller)
                    _count(request, caller.person, bucket, headers)
                response = view(request, caller, *args, **kwargs)
            except errors.Moved as move:
                response = errors.moved(request, move)
            except DomainError as error:
                response = errors.answer(error)
            except RequestDataTooBig:
                response = errors.answer(TooMuchText("The request is larger than such a request can be."))
            except TooManyFieldsSent:
                most = settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
                response = errors.answer(
                    TooMuchText(f"The request names more than {most:,} things. Ask in parts.")
                )
            except (SuspiciousOperation, RawPostDataException):
                response = errors.answer(DomainError("The request could not be read."))
            except (OSError, DatabaseError) as error:
                outage = refusal_of(error)
                if outage is None:
                    raise
                response = errors.answer(outage)
            for name, value in headers.items():
                response[name] = value
            return response

        return answer

    return wrap


def _known(request: HttpRequest, who: Callable[[HttpRequest], object], headers: dict[str, str]) -> object:
    """Who calls. One who is refused is counted as a guest: nobody tries tokens without end. Raises DomainError."""
    try:
        return who(request)
    except DomainError:
        _count(request, AnonymousUser(), "api", headers)
        raise


def _count(request: HttpRequest, person: User | AnonymousUser, bucket: str, headers: dict[str, str]) -> None:
    """Take a request from this person's budget and put what is left into `headers`. Raises TooManyRequests."""
    budget = spend_of(request, person, bucket, settings.REQUEST_RATES[bucket])
    headers |= budget.headers()
    if budget.is_over:
        raise TooManyRequests(budget)


def by_method(**views: View) -> View:
    """One address, one view for each method: `by_method(POST=create, DELETE=delete)`. The views are doors."""

    @refusing_by(errors.answer)
    @csrf_exempt
    def choose(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        view = views.get("GET" if request.method == "HEAD" else str(request.method))
        if view is None:
            return errors.answer(errors.NotAllowed(request.method, views))
        return view(request, *args, **kwargs)

    return choose


def find_caller(request: HttpRequest) -> Caller:
    """Raises BadToken for a token that is unknown, expired or revoked, BadAuthorization for one that is not sent as such.

    A request without one is a guest's.
    """
    secret = sent_secret(request.headers.get("Authorization", ""))
    if not secret:
        return Caller(AnonymousUser(), None)
    token = find_token(secret)
    if token is None:
        raise errors.BadToken
    return Caller(token.user, token)


def _bearer(request: HttpRequest) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def empty() -> HttpResponse:
    return HttpResponse(status=204)
