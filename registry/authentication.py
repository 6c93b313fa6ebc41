"""Who a request of a script comes from, and what its token allows."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from registry import rights
from registry.models import Token, User
from registry.models.accounts import TOKEN_PREFIX
from web.errors import DomainError

HUB_PREFIX = (
    "hf_"  # may stand before a token: the Hub's client for JavaScript sends none that begins otherwise
)


class BadAuthorization(DomainError):
    code = "authentication_failed"
    status = 401


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer lr_…`. A token that is unknown, expired, revoked or sent otherwise is a 401, never a silent guest."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        try:
            secret = sent_secret(request.headers.get("Authorization", ""))
        except BadAuthorization as refusal:
            raise exceptions.AuthenticationFailed(refusal.message) from refusal
        if not secret:
            return None
        token = find_token(secret)
        if token is None:
            raise exceptions.AuthenticationFailed(
                "This token is unknown, expired or revoked. Make a new one under Settings, Tokens."
            )
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="LoRA Commons"'


class PageSessionAuthentication(SessionAuthentication):
    """The pages' own scripts, by cookie and with a CSRF token."""


class ReadOrSignedIn(BasePermission):
    """Reading is open; writing needs an account, and a token whose scope is write.

    A token that is limited to a namespace or an adapter is refused by every view that writes and does not say
    `takes_limited_tokens = True`: such a view asks `rights` about the very thing that it changes.
    """

    message = "Sign in or send a token to do this."
    reading_is_open = True

    def has_permission(self, request: Request, view: object) -> bool:
        if request.method in SAFE_METHODS:
            return True
        if not (request.user and request.user.is_authenticated):
            return False
        try:
            rights.require_writing_token(request.user)
            if not getattr(view, "takes_limited_tokens", False):
                rights.require_whole_account(request.user)
        except rights.TokenMayNot as refusal:
            self.message = refusal.message
            return False
        return True


class SignedIn(ReadOrSignedIn):
    """Also reading needs an account, and a token that is good for all of it."""

    reading_is_open = False

    def has_permission(self, request: Request, view: object) -> bool:
        if not (request.user and request.user.is_authenticated):
            return False
        if rights.is_limited(request.user) and not getattr(view, "takes_limited_tokens", False):
            self.message = (
                "This token is limited to one namespace or adapter, and this is about something else."
            )
            return False
        return super().has_permission(request, view)


def sent_secret(authorization: str) -> str:
    """What stands behind the word Bearer in this header; "" for a guest.

    Raises BadAuthorization for a token that is sent otherwise, or is none: whoever sends one is no guest.
    """
    scheme, _, secret = (part.strip() for part in authorization.partition(" "))
    if scheme.lower() == "bearer":
        if not secret:
            raise BadAuthorization("There is no token behind the word Bearer. Is the variable set?")
        return secret
    # Whatever else stands there may be for a proxy before us.
    if any(part.removeprefix(HUB_PREFIX).startswith(TOKEN_PREFIX) for part in (scheme, secret)):
        raise BadAuthorization(
            "Send the token as `Authorization: Bearer lr_...`, with the word Bearer before it."
        )
    return ""


def find_token(secret: str) -> Token | None:
    """The usable token with this secret, its person acting by it; remembers its use, to the minute. None if there is none."""
    rows = Token.objects.usable().select_related("user", "namespace", "adapter__namespace")
    try:
        token = rows.get(secret_sha256=Token.digest(secret.removeprefix(HUB_PREFIX)))
    except Token.DoesNotExist:
        return None
    token.user.acting_token = token
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > timedelta(minutes=1):
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token
