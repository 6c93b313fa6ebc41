"""JSON bodies, read so that no body can make the server stumble."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

from web.errors import DomainError

# Behind an even number of backslashes: after an odd one the text itself has a backslash there.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class BodyTooLarge(DomainError):
    code = "too_large"
    status = 413

    def __init__(self, most: int) -> None:
        super().__init__(f"The body is larger than {most:,} bytes, the most that is read here as JSON.")


class StrictJSONParser(JSONParser):
    """JSON of bounded length, without NaN, without NUL and lone surrogates, and not nested beyond reason.

    Postgres stores neither NUL nor half a surrogate pair, and deep nesting ends in RecursionError, which is no
    ValueError: each would be an answer 500.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        raw = stream.read(settings.MAX_JSON_BYTES + 1)
        if len(raw) > settings.MAX_JSON_BYTES:
            raise BodyTooLarge(settings.MAX_JSON_BYTES)
        try:
            text = raw.decode("utf-8")
            value = json.loads(text, parse_constant=_refuse_constant)
            require_characters(value)
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply.") from error
        except UnicodeDecodeError as error:
            raise ParseError("The body is not UTF-8 text.") from error
        except UnicodeEncodeError as error:
            raise ParseError("The JSON holds half of a surrogate pair.") from error
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {error}") from error
        if holds_nul(text):
            raise ParseError("The JSON holds a NUL character, which no text here may.")
        return value


def require_characters(value: Any) -> None:
    """Raises UnicodeEncodeError if a text in this JSON holds half of a surrogate pair, which no database keeps."""
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def holds_nul(text: str) -> bool:
    """Whether a text in this JSON holds a NUL character; one that spells it out, as code does, is no such text."""
    return _NUL.search(text) is not None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
