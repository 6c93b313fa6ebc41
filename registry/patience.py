"""How long another server may take for one answer in all: a wait for each byte alone would let it drip for ever."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore2


@dataclass(frozen=True)
class Patience:
    """`head_s` from connecting to the end of the head. Then a body may keep us waiting `body_s`, and as long again as its
    bytes take at `slowest_bytes_s`; what we do with them between two reads does not count. `all_s` is for all answers of
    one client together, from its beginning, and with all that we do.
    """

    head_s: float = 60
    body_s: float = 60
    slowest_bytes_s: float = 1000
    all_s: float = math.inf


class Clock:
    """What is left for the answer that is being waited for; one at a time."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._all_until = time.monotonic() + patience.all_s
        self._head_until = 0.0
        self._body_left_s: float | None = None

    def start(self) -> None:
        """A request is about to be sent."""
        self._head_until = time.monotonic() + self.patience.head_s
        self._body_left_s = None

    def head_is_here(self) -> None:
        self._body_left_s = self.patience.body_s

    @property
    def left_s(self) -> float:
        now = time.monotonic()
        left = self._head_until - now if self._body_left_s is None else self._body_left_s
        return min(left, self._all_until - now)

    def count(self, waited_s: float, received: int) -> None:
        """A read of a body took so long and brought so many bytes."""
        if self._body_left_s is not None:
            self._body_left_s += received / self.patience.slowest_bytes_s - waited_s


class Backend(httpcore2.SyncBackend):
    """httpcore's connections, each of whose waits is cut to what the clock has left."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        wait = _cut(self.clock, timeout, httpcore2.ConnectTimeout)
        inner = super().connect_tcp(host, port, wait, local_address, socket_options)
        return Stream(inner, self.clock)


class Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, clock: Clock) -> None:
        self.inner = inner
        self.clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        wait = _cut(self.clock, timeout, httpcore2.ReadTimeout)
        began = time.monotonic()
        received = self.inner.read(max_bytes, wait)
        self.clock.count(time.monotonic() - began, len(received))
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, _cut(self.clock, timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Stream:
        wait = _cut(self.clock, timeout, httpcore2.ConnectTimeout)
        return Stream(self.inner.start_tls(ssl_context, server_hostname, wait), self.clock)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


def _cut(clock: Clock, timeout: float | None, refusal: type[Exception]) -> float:
    left = clock.left_s
    if left <= 0:
        raise refusal("it took too long in all")
    return left if timeout is None else min(left, timeout)
