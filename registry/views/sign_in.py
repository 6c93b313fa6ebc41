"""Sign-in by another server: allauth's doors, for browsers that keep to our policy and servers that do not answer."""

from __future__ import annotations

import logging
from typing import Any

from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.providers.openid_connect import views as allauth_views
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from requests import RequestException

from web.errors import DomainError

logger = logging.getLogger(__name__)


class NoAnswer(DomainError):
    code = "no_answer"
    status = 503

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The server of {name} does not answer, so it cannot say who you are. Try again soon."
        )


@never_cache
def login_elsewhere(request: HttpRequest, provider_id: str) -> HttpResponse:
    """The way to the other server, once its button was pressed: a page that goes on there by itself.

    Not a redirect, which is what allauth answers: our policy lets forms be sent to this site alone (form-action), and
    Chromium holds every redirect behind a form to it.
    """
    try:
        answer: HttpResponse = allauth_views.login(request, provider_id)
    except RequestException as error:
        name = _provider(request, provider_id).name
        logger.warning("sign-in by %s: it does not answer: %s", name, error)
        raise NoAnswer(name) from error
    if answer.status_code != 302:
        return answer
    context = {"provider": _provider(request, provider_id), "address": answer["Location"]}
    return render(request, "socialaccount/going.html", context)


@never_cache
def back_from_elsewhere(request: HttpRequest, provider_id: str) -> HttpResponse:
    """Where the other server sends people back to. It may be away by now, or not say who they are."""
    try:
        answer: HttpResponse = allauth_views.callback(request, provider_id)
    except (RequestException, KeyError) as error:
        provider = _provider(request, provider_id)
        logger.warning("sign-in by %s: its answer cannot be used: %s", provider.name, error)
        answer = render_authentication_error(request, provider, exception=error)
    return answer


def _provider(request: HttpRequest, provider_id: str) -> Any:
    return get_adapter().get_provider(request, provider_id)
