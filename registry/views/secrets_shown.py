"""A new secret on its way from the form that made it to the page that shows it once: sealed, in the person's session."""

from __future__ import annotations

from django.http import HttpRequest

from registry import sealing

KEPT_S = 3600


def keep(request: HttpRequest, secret: str, *, purpose: str) -> None:
    """For the page that the form leads to; `purpose` is that page's."""
    request.session[purpose] = sealing.seal(secret, purpose=purpose)


def take(request: HttpRequest, *, purpose: str) -> str:
    """The secret, this once; "" if there is none, or it is too old."""
    sealed = request.session.pop(purpose, "")
    return sealing.unseal(sealed, purpose=purpose, kept_s=KEPT_S) or ""
