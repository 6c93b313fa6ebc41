"""Where a request comes from."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The address of whoever asks; behind our own proxy (HTTPS) the one that it saw, which it appends."""
    address = str(request.META.get("REMOTE_ADDR", ""))
    if settings.HTTPS:
        address = last_forwarded(str(request.META.get("HTTP_X_FORWARDED_FOR", "")), otherwise=address)
    return address


def last_forwarded(forwarded: str, *, otherwise: str) -> str:
    """The last address of an X-Forwarded-For: the one before it is what anybody may have sent."""
    return forwarded.rsplit(",", 1)[-1].strip() or otherwise
