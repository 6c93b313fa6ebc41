"""Who stands behind a request."""

from __future__ import annotations

from django.http import HttpRequest

from registry.models import User


def signed_in(request: HttpRequest) -> User:
    """The person behind a request that `login_required` let through."""
    assert isinstance(request.user, User)
    return request.user
