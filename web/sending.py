"""Answers on their way to people who may read slowly: a thread hands over what their connections take, and waits for nobody.

gunicorn writes an answer with calls that return when all of it has gone out, so that whoever reads a large one slowly has a
thread for as long. Here an answer that its connection does not take at once is put aside, with the open file or the
iterator that it comes from, until there is room again.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import socket
import ssl
import struct
import termios
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, BinaryIO

from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import TConn

AT_ONCE = 16 * 1024**2  # bytes of a file, so that also one that is read as fast as it is sent takes turns
RECORD = 16 * 1024  # bytes that TLS encrypts at once
_END = object()


class CutShort(Exception):
    """A file ended before the length that its answer gives."""


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    @property
    def left(self) -> int:
        return len(self._rest)

    def send(self, sock: socket.socket) -> int:
        if isinstance(sock, ssl.SSLSocket):
            sent = _send_encrypted(sock, self._rest[:RECORD])
        else:
            sent = sock.send(self._rest, socket.MSG_DONTWAIT)
        self._rest = self._rest[sent:]
        return sent

    def close(self) -> None:
        self._rest.release()


def _send_encrypted(sock: ssl.SSLSocket, data: memoryview) -> int:
    """OpenSSL wants a piece that found no room again as it was, which a part in line is until it has gone."""
    sock.setblocking(False)
    try:
        return sock.send(data)
    except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
        raise BlockingIOError from error
    finally:
        sock.setblocking(True)  # for the next request, which a thread reads


class _File:
    """So many bytes of a file, which may be closed and deleted meanwhile: the descriptor is our own."""

    def __init__(self, file: BinaryIO, offset: int, count: int) -> None:
        self._file = io.FileIO(os.dup(file.fileno()))  # closed with `close`, or with us
        self._offset, self.left = offset, count

    def send(self, sock: socket.socket) -> int:
        sock.setblocking(False)
        sent = os.sendfile(sock.fileno(), self._file.fileno(), self._offset, min(self.left, AT_ONCE))
        if not sent:
            raise CutShort(f"A file has {self.left:,} bytes less than it had.")
        self._offset += sent
        self.left -= sent
        return sent

    def close(self) -> None:
        self._file.close()


class Outbox:
    """What of an answer has not gone out yet. gunicorn's Response writes to it as to a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._parts: deque[_Bytes | _File] = deque()
        self._sent = 0

    def sendall(self, data: bytes) -> None:
        if data:
            self._parts.append(_Bytes(data))

    def sendfile(self, file: BinaryIO, offset: int, count: int) -> None:
        self._parts.append(_File(file, offset, count))

    @property
    def left(self) -> int:
        return sum(part.left for part in self._parts)

    @property
    def left_of_files(self) -> int:
        return sum(part.left for part in self._parts if isinstance(part, _File))

    def taken(self) -> int:
        """Bytes that have arrived on the other side, which says so (Linux)."""
        unsent = fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4))
        return self._sent - int(struct.unpack("i", unsent)[0])

    def flush(self, *, until: float, patience: Callable[[], float]) -> bool:
        """Whether everything has gone out, until then, and without waiting for room longer than `patience` at a time."""
        while self._parts:
            if time.monotonic() >= until:
                return False
            part = self._parts[0]
            try:
                self._sent += part.send(self._sock)
            except BlockingIOError:
                if not _has_room(self._sock, patience()):
                    return False
            if not part.left:
                self._parts.popleft().close()
        return True

    def close(self) -> None:
        while self._parts:
            self._parts.popleft().close()


def _has_room(sock: socket.socket, patience_s: float) -> bool:
    if not patience_s:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(1000 * patience_s))


class Answer:
    """What the application has returned for a request, with the head before it; made and sent in one thread at a time."""

    def __init__(
        self, conn: TConn, response: Response, environ: dict[str, Any], returned: Any, began: datetime
    ) -> None:
        self.conn, self.response, self.environ, self.began = conn, response, environ, began
        self.keeps_connection = False
        self.deadline = 0.0  # by which its reader has to have taken something
        self.patience_s = 0.0  # that are left until then while nobody waits for room
        self.taken = 0  # by the last deadline
        self.outbox = response.sock = Outbox(conn.sock)
        self._returned = returned
        self._items: Iterator[bytes] | None = None
        self._is_whole = False

    def go_on(self, *, for_s: float, patience: Callable[[], float]) -> bool:
        """Send what is taken in so much time. Whether that was the rest."""
        until = time.monotonic() + for_s
        if self._items is None:
            self._items = self._begin()
        while self.outbox.flush(until=until, patience=patience):
            if self._is_whole:
                return True
            item = next(self._items, _END)
            if item is _END:
                self._is_whole = True
                self.response.close()
            else:
                self.response.write(item)
        return False

    def _begin(self) -> Iterator[bytes]:
        is_file = isinstance(self._returned, self.environ["wsgi.file_wrapper"])
        if not is_file or not self.response.sendfile(self._returned):
            return iter(self._returned)
        self.response.sent = self.outbox.left_of_files  # gunicorn counts only what it writes itself
        self._close_returned()  # of the file there is a descriptor
        return iter(())

    def end(self) -> None:
        """Let go of everything but the connection. Afterwards `response.sent` says how much of the body went out."""
        self.response.sent -= min(self.response.sent, self.outbox.left)
        self.outbox.close()
        self._close_returned()

    def _close_returned(self) -> None:
        returned, self._returned = self._returned, None
        if hasattr(returned, "close"):
            returned.close()
