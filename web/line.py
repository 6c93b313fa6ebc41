"""Places for threads of one process, taken in the order in which they came for them."""

from __future__ import annotations

from collections import deque
from threading import Lock


class Line:
    """So many places, each for `with`, or from `take` to `leave`.

    With a semaphore of `threading` whoever leaves and comes again is in before the first that waits has woken, and that one
    goes to the end of the line.
    """

    def __init__(self, places: int) -> None:
        self._lock = Lock()
        self.free = places
        self._waiting: deque[Lock] = deque()

    def take(self) -> None:
        with self._lock:
            if self.free:
                self.free -= 1
                return
            turn = Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()

    def leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self.free += 1

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.leave()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)


# For the bytes of large files, as they are received and checked: twenty uploads that hash at once leave pages no processor.
# Nobody may wait in it for the database, nor for the network.
BULK = Line(2)
