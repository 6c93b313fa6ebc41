"""How much each web process of one server has to do, known to all of them: a byte each, in memory they share."""

from __future__ import annotations

import mmap

SLOTS = 256
_MOST = 254


class Busy:
    """Made before processes are forked. A process's slot is its number, in gunicorn's count of those it has started."""

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, SLOTS)  # 0: nobody; else requests at work, plus one

    def say(self, number: int, requests: int) -> None:
        """Process `number` has so many requests at work."""
        self._bytes[number % SLOTS] = min(requests, _MOST) + 1

    def leave(self, number: int) -> None:
        self._bytes[number % SLOTS] = 0

    def least_of_others(self, number: int) -> int | None:
        """Requests at work in the least busy of the other processes; None if there is no other."""
        others = self._bytes[:]
        own = number % SLOTS
        return min((each - 1 for slot, each in enumerate(others) if each and slot != own), default=None)
