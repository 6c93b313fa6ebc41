"""How many requests a web process works on at a time.

Python runs one thread at a time. With more than a few that build pages at once, each gets a slice of every moment and all
of them come late; in a line, most come soon. Threads beyond these few are for what waits for others: large bodies that
arrive, which have a line of their own (`web.line.BULK`), and answers that are being sent, which stand in none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from web.line import Line
from web.server import SMALL_BODY

Application = Callable[[dict[str, Any], Any], Any]


class FewAtOnce:
    """The WSGI application `application`, entered by at most `most` threads that bring no large body."""

    def __init__(self, application: Application, *, most: int) -> None:
        self._application = application
        self._places = Line(most)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if brings_a_large_body(environ):
            return self._application(environ, start_response)
        with self._places:
            return self._application(environ, start_response)


def brings_a_large_body(environ: dict[str, Any]) -> bool:
    """Whether the body is read from the network while the application works, for as long as its sender takes."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return "HTTP_TRANSFER_ENCODING" in environ or not length.isdigit() or int(length) > SMALL_BODY
