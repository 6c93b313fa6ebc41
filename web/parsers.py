"""JSON bodies, read so that no body can make the server stumble."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class StrictJSONParser(JSONParser):
    """JSON without NaN, without NUL and lone surrogates, and not nested beyond reason.

    Postgres stores neither NUL nor half a surrogate pair, and deep nesting ends in RecursionError, which is no
    ValueError: each would be an answer 500.
    """

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        try:
            text = stream.read().decode("utf-8")
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
        if "\\u0000" in text or "\x00" in text:
            raise ParseError("The JSON holds a NUL character, which no text here may.")
        return value


def require_characters(value: Any) -> None:
    """Raises UnicodeEncodeError if a text in this JSON holds half of a surrogate pair, which no database keeps."""
    json.dumps(value, ensure_ascii=False).encode("utf-8")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
