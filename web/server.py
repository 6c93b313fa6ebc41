"""How the web server waits for requests: in the poller, where it costs no thread, until they are here.

gunicorn's threaded worker gives a connection a thread with its first byte, so that as many clients as there are threads
stop a site by sending a byte a second. Here a thread begins with a whole request: its head, and its body where that is
small. Larger bodies stream to their reader, in at most half of the threads, and end when they come too slowly. One that
nobody has read, as of an upload that was refused, ends its connection, and the answer says so.

An answer, too, has a thread only while its connection takes it (`web/sending.py`). Once that is full, the poller waits for
room, and a thread of a few that do nothing else goes on.

A connection stays with the process that accepted it, and whoever is quickest accepts: one process may come to hold all of
a proxy's connections, and work alone. A process that has much more to do than another ends connections with their next
answer; who asks again over a new one is met by the less busy.
"""

from __future__ import annotations

import errno
import math
import re
import resource
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from gunicorn.http import get_parser, wsgi
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import _DRAIN_MAX_BYTES
from gunicorn.sock import is_http2_negotiated, ssl_context
from gunicorn.workers.gthread import TConn, ThreadWorker

from web.busy import Busy
from web.line import BULK
from web.sending import Answer

REQUEST_S = 20.0  # for a head, and a small body, to arrive
SMALL_BODY = 16 * 1024  # bytes; with the head it has to fit what the kernel keeps for a connection at first
SEEN_AT_ONCE = 64 * 1024
SILENCE_S = 30  # after which a body, or somebody who reads an answer, is given up
SLOWEST = 1024  # bytes a second, once they have been waited for as long
DROPPED_BYTES = 8 * 1024 * 1024  # of a body that nobody read, so that its sender comes to read our answer
DROPPED_S = 5.0
BLOCKED_S = 1  # for the few bytes that a thread sends whatever happens, as "100 Continue"
TURN_S = 0.2  # of sending one answer, before others are looked at
KEEPS_UP_S = 0.05  # for which a thread that sends waits for room, if no other answer waits for a thread
OTHER_FILES = 300  # that a process has open, besides a connection and a file for each reader
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
    """Threads for requests that are here. Everything but `handle…`, `_send…` and `_end` runs in the thread of the poller."""

    alive: bool
    worker_connections: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most_large = max(1, self.cfg.threads // 2)
        self.large: set[TConn] = set()
        self.large_waiting: deque[TConn] = deque()
        self.at_work = 0  # requests that have a thread or wait for one
        self.readers: set[Answer] = set()  # whose connections the poller waits for to have room
        self.readers_seen = 0.0
        self.in_line: set[Answer] = set()  # those that have room and wait for a thread

    def init_process(self) -> None:
        BUSY.say(self.age, 0)
        self._allow_open_files()
        self.tls = ssl_context(self.cfg) if self.cfg.is_ssl else None
        self.sending = ThreadPoolExecutor(max(1, self.cfg.threads // 2), "sending")
        super().init_process()

    def _allow_open_files(self) -> None:
        """Two for each connection, as far as the system lets us; else fewer connections."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * self.cfg.worker_connections + OTHER_FILES
        if soft != resource.RLIM_INFINITY and soft < wanted:
            allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            self.worker_connections = max(1, (allowed - OTHER_FILES) // 2)

    def run(self) -> None:
        super().run()
        self.sending.shutdown(wait=False, cancel_futures=True)
        for answer in self.readers:
            self._end(answer)  # so that the log says how far it came

    def enqueue_req(self, conn: TConn) -> None:
        """A connection on which a request may begin: a new one, or one that was kept."""
        if conn.initialized and conn.parser.unreader.buf.getvalue():
            self._submit(conn)  # what was read with the request before cannot be looked at here
            return
        conn.timeout = time.monotonic() + REQUEST_S
        if self.tls is not None:
            self._decrypt(conn)
            return
        if not conn.initialized:
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", SILENCE_S, 0))
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", BLOCKED_S, 0))
        self._look(conn, before=0)

    def _decrypt(self, conn: TConn, seen: bytes = b"") -> None:
        """As `_look`, where the request is encrypted: it has to be taken to be seen, and handed on to the thread."""
        try:
            if not conn.initialized:
                self._shake_hands(conn)
            while len(seen) < SEEN_AT_ONCE and not conn.is_http2:
                piece = conn.sock.recv(SEEN_AT_ONCE)
                seen += piece
                if not piece:
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            if not seen or len(seen) < min(wanted_bytes(seen), SEEN_AT_ONCE):
                event = EVENT_READ if isinstance(error, ssl.SSLWantReadError) else EVENT_WRITE
                self.pending_conns.append(conn)
                self.poller.register(conn.sock, event, partial(self._decrypt_more, conn, seen))
                return
        except OSError as error:
            self.log.debug("No encrypted request: %s", error)
            seen = b""
        if seen:
            conn.parser.unreader.unread(seen)
        elif not conn.is_http2:  # the other side has closed
            self.nr_conns -= 1
            conn.close()
            return
        self._begin(conn, seen)

    def _decrypt_more(self, conn: TConn, seen: bytes, _: Any) -> None:
        self.poller.unregister(conn.sock)
        self.pending_conns.remove(conn)
        self._decrypt(conn, seen)

    def _shake_hands(self, conn: TConn) -> None:
        """What `conn.init` does, without waiting. Raises SSLWantReadError or SSLWantWriteError to be called again."""
        assert self.tls is not None
        if not isinstance(conn.sock, ssl.SSLSocket):
            conn.sock.setblocking(False)
            conn.sock = self.tls.wrap_socket(
                conn.sock,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
            )
        conn.sock.do_handshake()
        conn.is_http2 = is_http2_negotiated(conn.sock)
        conn.parser = get_parser(self.cfg, conn.sock, conn.client, http2_connection=conn.is_http2)
        conn.initialized = True

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
        head = seen[: seen.find(b"\r\n\r\n") + 4]
        if is_large(head):
            conn.bulk = len(head) + length if (length := _body_bytes(head)) else 0
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
        self._went(conn, fs)

    def _went(self, conn: TConn, fs: Future[Any]) -> None:
        """A thread has done what there was to do for a connection."""
        result = not fs.cancelled() and not fs.exception() and fs.result()
        if isinstance(result, Answer):
            self._wait_for_reader(result)
        elif result:
            super().finish_request(conn, fs)
        else:
            self._part(conn)

    def _wait_for_reader(self, answer: Answer) -> None:
        answer.deadline = time.monotonic() + answer.patience_s
        self.readers.add(answer)
        self.poller.register(answer.conn.sock, EVENT_WRITE, partial(self._has_room, answer))

    def _has_room(self, answer: Answer, _: Any) -> None:
        self.poller.unregister(answer.conn.sock)
        self.readers.discard(answer)
        answer.patience_s = answer.deadline - time.monotonic()  # what our own threads take does not count
        self.in_line.add(answer)
        sent = self.sending.submit(self._send_more, answer)
        sent.add_done_callback(lambda fs: self.method_queue.defer(self._went, answer.conn, fs))

    def _give_up_slow_readers(self, now: float) -> None:
        for answer in [answer for answer in self.readers if answer.deadline <= now]:
            taken = answer.outbox.taken()
            if taken - answer.taken >= SLOWEST * SILENCE_S:
                answer.taken, answer.deadline = taken, now + SILENCE_S
                continue
            self.log.debug("Giving up a reader that takes too little")
            self.poller.unregister(answer.conn.sock)
            self.readers.discard(answer)
            self.sending.submit(self._end, answer)
            # The kernel, too, is to let go of what it holds for the reader.
            answer.conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.nr_conns -= 1
            answer.conn.close()

    def _part(self, conn: TConn) -> None:
        """Close a connection when the other side does: the end of our answer is lost if bytes of theirs come after that."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is closed already
            self.nr_conns -= 1
            conn.close()
            return
        conn.timeout = time.monotonic() + DROPPED_S
        conn.may_drop = DROPPED_BYTES
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._drop, conn))

    def _drop(self, conn: TConn, _: Any) -> None:
        """Take what still comes on a connection that ends."""
        try:
            dropped = len(conn.sock.recv(SEEN_AT_ONCE))
        except OSError:
            dropped = 0
        conn.may_drop -= dropped
        if not dropped or conn.may_drop <= 0:
            self._close_pending(conn)

    def _close_pending(self, conn: TConn) -> None:
        self.pending_conns.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def murder_pending(self) -> None:
        """Close connections whose request, end or reader did not come in time."""
        now = time.monotonic()
        for conn in [conn for conn in self.pending_conns if conn.timeout <= now]:
            self._close_pending(conn)
        if now >= self.readers_seen + 1:
            self.readers_seen = now
            self._give_up_slow_readers(now)

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
        self.cfg.pre_request(self, req)
        began = datetime.now()
        response, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg)
        environ["wsgi.multithread"] = True
        self._count_to_last(response)
        returned = self.wsgi(environ, response.start_response)
        answer = Answer(conn, response, environ, returned, began)
        answer.patience_s = SILENCE_S
        is_over = self._send(answer, patience=lambda: 0)
        return not response.should_close() if is_over else answer

    def _count_to_last(self, response: Any) -> None:
        """Have the answer end its connection if that is not to be kept, as the last of `max_requests` does."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        if not self.alive or not self.cfg.keepalive or len(self.keepalived_conns) >= self.max_keepalived:
            response.force_close()

    def _send(self, answer: Answer, *, patience: Callable[[], float]) -> bool:
        """Send what goes now. Whether the answer is over: sent, or failed."""
        is_over = True
        try:
            is_over = answer.go_on(for_s=TURN_S, patience=patience)
        except OSError:
            raise
        except Exception:
            if not answer.response.headers_sent:
                raise
            self.log.exception("Error handling request")
            answer.response.force_close()
            answer.keeps_connection = False
        finally:
            if is_over:
                self._end(answer)
        return is_over

    def _send_more(self, answer: Answer) -> Any:
        """In a thread of those that send. The answer, if there is still more; else whether its connection is kept."""
        self.in_line.discard(answer)
        try:
            is_over = self._send(answer, patience=lambda: 0 if self.in_line else KEEPS_UP_S)
        except (ConnectionError, TimeoutError, ssl.SSLError) as error:
            self.log.debug("A reader has gone: %s", error)
            return False
        except Exception:
            self.log.exception("Error sending an answer")
            return False
        return answer.keeps_connection if is_over else answer

    def _end(self, answer: Answer) -> None:
        try:
            answer.end()
        finally:
            took = datetime.now() - answer.began
            self.log.access(answer.response, answer.response.req, answer.environ, took)
            self.cfg.post_request(self, answer.response.req, answer.environ, answer.response)

    def handle(self, conn: TConn) -> Any:
        conn.sock.setblocking(True)
        conn.init()
        if conn.is_http2:
            if self.tls is not None:
                conn.parser.initiate_connection()
            return super().handle(conn)
        conn.parser.mesg_class = PatientRequest
        here = len(conn.parser.unreader.buf.getvalue())  # what was decrypted to be looked at comes no more
        with Metered(conn.sock, bulk=conn.bulk - here if conn in self.large else 0) as metered:
            conn.parser.unreader.sock = metered
            return super().handle(conn)

    def _keepalive_after(self, conn: TConn, keepalive: bool | Answer) -> Any:
        if not isinstance(keepalive, Answer):
            return super()._keepalive_after(conn, keepalive)
        answer = keepalive
        try:
            answer.keeps_connection = super()._keepalive_after(conn, not answer.response.should_close())
        except BaseException:
            self._end(answer)
            raise
        return answer


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
    """A socket that gives up on somebody who sends too slowly; time in which nobody reads from it does not count.

    With `bulk`, the bytes of a large request, its reader has a place in the line for such while more of them are to come,
    but for the time in which it waits for them. What is done with the whole may wait for others, and stands in no line.
    """

    def __init__(self, sock: socket.socket, *, bulk: int = 0) -> None:
        self._sock = sock
        self._bulk = bulk
        self._has_place = False
        self._bytes = 0
        self._seconds = 0.0

    def __enter__(self) -> Metered:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._has_place:
            self._has_place = False
            BULK.leave()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        self._leave()
        began = time.monotonic()
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.gettimeout() is None:
            self._sock.settimeout(SILENCE_S)  # what the kernel was told ends no wait of OpenSSL's
        try:
            got = self._sock.recv(size)
        except (BlockingIOError, TimeoutError) as error:
            raise ConnectionResetError(errno.ECONNRESET, "nothing came for too long") from error
        self._bytes += len(got)
        self._seconds += time.monotonic() - began
        if self._seconds > SILENCE_S and self._bytes < SLOWEST * self._seconds:
            raise ConnectionResetError(errno.ECONNRESET, "it came too slowly")
        # The first piece brings the head: who sends it is asked of the database.
        if len(got) < self._bytes < self._bulk:
            BULK.take()
            self._has_place = True
        return got
