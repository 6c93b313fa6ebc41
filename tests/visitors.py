"""Who asks in a test: a browser that is signed in, a script with a token; and what they read."""

from __future__ import annotations

from typing import Any

from django.test import Client

from registry.models import User
from tests.factories import make_token


def client_of(user: User, **options: Any) -> Client:
    """The browser of somebody who is signed in."""
    client = Client(**options)
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


def token_of(user: User, **fields: Any) -> dict[str, str]:
    """The headers of a script."""
    return {"Authorization": f"Bearer {make_token(user, **fields)}"}


def text_of(answer: Any) -> str:
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return str(body.decode(errors="replace"))
