"""How the web server waits for requests: in the poller, where it costs no thread, until they are here.

gunicorn's threaded worker gives a connection a thread with its first byte, so that as many clients as there are threads
stop a site by sending a byte a second. Here a thread begins with a whole request: its head, and its body where that is
small. Larger bodies stream to their reader, in at most half of the threads, and end when they come too slowly. One that
nobody has read, as of an upload that was refused, ends its connection, and the answer says so.

A connection stays with the process that accepted it, and whoever is quickest accepts: one process may come to hold all of
a proxy's connections, and work alone. A process that has much more to do than another ends connections with their next
answer; who asks again over a new one is met by the less busy.
"""

from __future__ import annotations

import errno
import math
import re
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import _DRAIN_MAX_BYTES
from gunicorn.workers.gthread import TConn, ThreadWorker

from web.busy import Busy

REQUEST_S = 20.0  # for a head, and a small body, to arrive
SMALL_BODY = 16 * 1024  # bytes; with the head it has to fit what the kernel keeps for a connection at first
SEEN_AT_ONCE = 64 * 1024
SILENCE_S = 30  # after which a body, or somebody who reads an answer, is given up
SLOWEST_BODY = 1024  # bytes a second, once it has been waited for as long
DROPPED_BYTES = 8 * 1024 * 1024  # of a body that nobody read, so that its sender comes to read our answer
DROPPED_S = 5.0
MUCH_MORE = 4  # requests at work, than the least busy other process has

BUSY = Busy()

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
# Bodies of which nothing says where they end, or that come only when they are asked for.
_OPEN = re.compile(rb"\r\n(?:transfer-encoding|expect):", re.IGNORECASE)


def is_large(head: bytes) -> bool:
    """Whether a request with this head, up to its empty line, has a body that is not waited for."""
    return _OPEN.search(head) is not None or _body_bytes(head) > SMALL_BODY


def wanted_bytes(seen: bytes) -> int:
    """How many bytes have to be here before a request that begins with `seen` is worth a thread."""
    end = seen.find(b"\r\n\r\n")
    if end < 0:
        return len(seen) + 1
    head = seen[: end + 4]
    return len(head) + (0 if is_large(head) else _body_bytes(head))


def _body_bytes(head: bytes) -> int:
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0


class PatientWorker(ThreadWorker):
    """Threads for requests that are here. Everything but `handle…` runs in the thread of the poller."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most_large = max(1, self.cfg.threads // 2)
        self.large: set[TConn] = set()
        self.large_waiting: deque[TConn] = deque()
        self.at_work = 0  # requests that have a thread or wait for one

    def init_process(self) -> None:
        BUSY.say(self.age, 0)
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        """A connection on which a request may begin: a new one, or one that was kept."""
        if self.cfg.is_ssl or (conn.initialized and conn.parser.unreader.buf.getvalue()):
            # What is encrypted, or was read with the request before, cannot be looked at here.
            self._submit(conn)
            return
        if not conn.initialized:
            patience = struct.pack("ll", SILENCE_S, 0)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        conn.timeout = time.monotonic() + REQUEST_S
        self._look(conn, before=0)

    def _look(self, conn: TConn, *, before: int) -> None:
        """Begin with the request if it is here. `before`: so many bytes were here the last time."""
        try:
            seen = conn.sock.recv(SEEN_AT_ONCE, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._wait(conn, here=0, wanted=1)
            return
        except OSError:
            seen = b""  # for the thread to find out and to close
        wanted = wanted_bytes(seen)
        if (before and len(seen) <= before) or not seen or len(seen) >= min(wanted, SEEN_AT_ONCE):
            # Also where nothing more will come: the other side has closed.
            self._begin(conn, seen)
        else:
            self._wait(conn, here=len(seen), wanted=wanted)

    def _wait(self, conn: TConn, *, here: int, wanted: int) -> None:
        # The kernel wakes us when so many bytes are here, not with each of them.
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
        self.pending_conns.append(conn)  # in the order of their timeouts: see `_again`
        self.poller.register(conn.sock, EVENT_READ, partial(self._again, conn, here))

    def _again(self, conn: TConn, before: int, _: Any) -> None:
        self.poller.unregister(conn.sock)
        self.pending_conns.remove(conn)
        self._look(conn, before=before)

    def _begin(self, conn: TConn, seen: bytes) -> None:
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        conn.data_ready = True
        if is_large(seen[: seen.find(b"\r\n\r\n") + 4]):
            if len(self.large) >= self.most_large:
                self.large_waiting.append(conn)
                return
            self.large.add(conn)
        self._submit(conn)

    def _submit(self, conn: TConn) -> None:
        self._count(1)
        super().enqueue_req(conn)

    def _count(self, change: int) -> None:
        self.at_work += change
        if self.alive:
            BUSY.say(self.age, self.at_work)

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        self._count(-1)
        if conn in self.large:
            self.large.discard(conn)
            if self.large_waiting:
                following = self.large_waiting.popleft()
                self.large.add(following)
                self._submit(following)
        super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Close connections whose request did not come in time."""
        now = time.monotonic()
        for conn in [conn for conn in self.pending_conns if conn.timeout <= now]:
            self.pending_conns.remove(conn)
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()

    def _cap_keepalive(self, deadline: float) -> None:
        """The worker stops: requests that are only beginning are not waited for any longer than kept connections."""
        BUSY.leave(self.age)  # nobody is to come here instead of where they are
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        least = BUSY.least_of_others(self.age)
        if least is not None and self.at_work > least + MUCH_MORE:
            req.force_close()
        return super().handle_request(req, conn)

    def handle(self, conn: TConn) -> Any:
        if not self.cfg.is_ssl:
            conn.sock.setblocking(True)
            conn.init()
            conn.parser.unreader.sock = Metered(conn.sock)
            conn.parser.mesg_class = PatientRequest
        return super().handle(conn)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        if not keepalive:
            # In this thread: what is left when the poller closes, it has to read itself, while everybody waits.
            conn.parser.finish_body(deadline=time.monotonic() + DROPPED_S, max_bytes=DROPPED_BYTES)
        return bool(super()._keepalive_after(conn, keepalive))


class PatientRequest(Request):
    """A request that ends its connection if more of its body is unread than gunicorn drops before the next request.

    gunicorn asks as it writes the head of the answer. By itself it would say keep-alive there, then close, and the
    client's next request on the connection would fail.
    """

    def should_close(self) -> bool:
        if _unread_bytes(self) >= _DRAIN_MAX_BYTES:
            self.force_close()
        return bool(super().should_close())


def _unread_bytes(request: Request) -> float:
    """How much of the body is still to come; infinity where nothing says how much."""
    reader = request.body.reader if request.body else None
    if isinstance(reader, ChunkedReader):
        return math.inf if reader.parser else 0
    return reader.length if isinstance(reader, LengthReader) else 0


class Metered:
    """A socket that gives up on somebody who sends too slowly; time in which nobody reads from it does not count."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = 0
        self._seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        began = time.monotonic()
        try:
            got = self._sock.recv(size)
        except BlockingIOError as error:
            raise ConnectionResetError(errno.ECONNRESET, "nothing came for too long") from error
        self._bytes += len(got)
        self._seconds += time.monotonic() - began
        if self._seconds > SILENCE_S and self._bytes < SLOWEST_BODY * self._seconds:
            raise ConnectionResetError(errno.ECONNRESET, "it came too slowly")
        return got
