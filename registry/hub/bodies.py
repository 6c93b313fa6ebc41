"""What a small request says: the JSON object in its body."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest

from web.errors import DomainError
from web.parsers import holds_nul, require_characters


class BadRequest(DomainError):
    code = "bad_request"


def body_of(request: HttpRequest) -> dict[str, Any]:
    """The JSON object in the body, {} for none. Raises BadRequest."""
    try:
        text = request.body.decode()
        found = json.loads(text) if text.strip() else {}
        require_characters(found)
    except UnicodeEncodeError as error:
        raise BadRequest("The body holds half of a surrogate pair, which is no character.") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest("The body is no JSON.") from error
    if not isinstance(found, dict):
        raise BadRequest("The body is no JSON object.")
    if holds_nul(text):
        raise BadRequest("The body holds a NUL character, which no text here may.")
    return found


def text_in(body: dict[str, Any], name: str, *, default: str | None = None) -> str:
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or "\x00" in value:
        raise BadRequest(f"{name!r} is missing or no text.")
    return value
