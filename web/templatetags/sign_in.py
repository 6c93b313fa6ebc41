"""What stands where somebody has to sign in: what for, and the way back to it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from django import template
from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import BadRequest
from django.template import Context
from django.urls import Resolver404, resolve

register = template.Library()

# Names of pages that need an account, and what people come for.
_PURPOSES = {
    "upload": "upload a module",
    "adapter_settings": "change this module",
    "adapter_card": "change this module",
    "adapter_move": "change this module",
    "push": "publish this module elsewhere",
    "import": "import modules of another Hub",
    "imports": "see your imports",
    "pushes": "see what you published elsewhere",
    "base_model_new": "add a base model",
    "compose": "compose for your task",
    "compositions": "see your compositions",
    "composition": "see this composition, if it is yours",
    "task_new": "make a task",
    "task_edit": "change this task",
    "task_rows": "change this task",
    "organisation_new": "found an organisation",
    "organisation_settings": "see who belongs to this organisation",
    "my_organisations": "see your organisations",
    "following": "see what is new in what you follow",
    "liked": "see what you like",
    "profile": "change your settings",
    "tokens": "make an access token",
    "webhooks": "see your webhooks",
    "own_data": "download your data",
    "account_delete": "delete your account",
    "moderation": "moderate",
}


@register.simple_tag(takes_context=True)
def signing_in_for(context: Context) -> str:
    """`upload a module`; empty where somebody came by themselves."""
    try:
        name = resolve(urlsplit(_next(context["request"])).path).url_name
    except (Resolver404, ValueError):
        return ""
    return _PURPOSES.get(name or "", "")


@register.simple_tag
def sign_up_takes() -> str:
    return (
        "a name, a password and an e-mail address"
        if settings.HIDES_WHOSE_ADDRESS
        else "a name and a password"
    )


@register.simple_tag(takes_context=True)
def next_query(context: Context) -> str:
    """`?next=…` for links to signing in and signing up: to this page, and on their own pages to where they lead already."""
    request = context.get("request")
    if request is None:
        return ""
    is_their_own = request.path.startswith("/accounts/")
    back = _next(request) if is_their_own else request.get_full_path() if request.method == "GET" else ""
    return f"?{urlencode({REDIRECT_FIELD_NAME: back}, safe='/')}" if back not in {"", "/"} else ""


def _next(request: Any) -> str:
    # The page that refuses a form in letters that are not read has these links too. What is too much Django gives up itself.
    with suppress(BadRequest):
        if typed := request.POST.get(REDIRECT_FIELD_NAME):
            return str(typed)
    return str(request.GET.get(REDIRECT_FIELD_NAME, ""))
