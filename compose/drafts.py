"""What somebody typed, kept in the session while they sign in."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from web.typed_by import MARK_LENGTH, may_have

TOO_LARGE = "Sign in first: these examples are too large to keep for you in the meantime."


def sign_in_first(request: HttpRequest, page: str, draft: dict[str, Any], *, to: str) -> HttpResponse:
    """To the sign-in and back to `page`, a route's name, which then asks for what is `kept`."""
    mark = request.POST.get("typed_by", "")[:MARK_LENGTH]  # anybody may send one, of any length
    request.session[f"{page}_draft"] = draft | {"typed_by": mark}
    messages.info(request, f"Sign in to {to}; what you typed is kept.")
    return redirect_to_login(f"{reverse(page)}?draft=1")


def kept(request: HttpRequest, page: str) -> dict[str, Any] | None:
    """The draft, once; None where there is none, or another person typed it, whose session had ended."""
    draft = request.session.pop(f"{page}_draft", None) if "draft" in request.GET else None
    return draft if draft and may_have(request.user, draft.get("typed_by", "")) else None
