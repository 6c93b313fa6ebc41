"""How many requests a web process works on at a time.

Python runs one thread at a time. With more than a few that build pages at once, each gets a slice of every moment and all
of them come late; in a line, most come soon. Threads beyond these few are for what waits for others: large bodies that
arrive, and answers that are being sent, neither of which stands in the line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Any

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


class Line:
    """So many places, taken in the order in which threads came for them.

    With a semaphore of `threading` whoever leaves and comes again is in before the first that waits has woken, and that one
    goes to the end of the line.
    """

    def __init__(self, places: int) -> None:
        self._lock = Lock()
        self._free = places
        self._waiting: deque[Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)


def brings_a_large_body(environ: dict[str, Any]) -> bool:
    """Whether the body is read from the network while the application works, for as long as its sender takes."""
    length = environ.get("CONTENT_LENGTH") or "0"
    return "HTTP_TRANSFER_ENCODING" in environ or not length.isdigit() or int(length) > SMALL_BODY
