"""Answers and slow readers: a real gunicorn with files, streams and pages that are larger than a connection takes at once."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.web.test_server import certificate_in, children, served

SIZE = 8_000_000  # more than the kernel keeps for a connection
START, LENGTH = 1_000_003, 6_000_000
APPLICATION = """
import os
from pathlib import Path
LARGE = Path(__file__).with_name("large")
CLOSED = []

def stream(content):
    try:
        for start in range(0, len(content), 250_000):
            yield content[start : start + 250_000]
    finally:
        CLOSED.append(1)

def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    length, body = None, None
    if name in {"file", "part", "short", "deleted"}:
        file = LARGE.with_name("deleted").open("rb") if name == "deleted" else LARGE.open("rb")
        length = LARGE.stat().st_size + (1000 if name == "short" else 0)
        if name == "part":
            file.seek(1_000_003)
            length = 6_000_000
        body = environ["wsgi.file_wrapper"](file)
    elif name == "stream":
        body = stream(LARGE.read_bytes())
    elif name == "broken":
        body = (LARGE.read_bytes() if number < 2 else 1 / 0 for number in range(3))
    else:
        said = {
            "page": b"page",
            "large-page": b"x" * 8_000_000,
            "open": str(len(os.listdir("/proc/self/fd"))).encode(),
            "closed": str(len(CLOSED)).encode(),
        }[name]
        length, body = len(said), [said]
    headers = [("Content-Type", "application/octet-stream")]
    start_response("200 OK", headers + ([("Content-Length", str(length))] if length else []))
    return body
"""
BODIES = {
    "file": slice(None),
    "part": slice(START, START + LENGTH),
    "stream": slice(None),
}


class Server:
    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.port, self.pid = port, pid
        self.large = (folder / "large").read_bytes()
        self.log = folder / "access.log"

    def get(self, name: str, seconds: float = 60) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        with contextlib.closing(connection):
            connection.request("GET", f"/{name}")
            return connection.getresponse().read()

    def is_up(self) -> bool:
        try:
            return self.get("page", 1) == b"page"
        except OSError:
            return False

    def lines(self, name: str) -> list[tuple[int, int, float]]:
        """Status, bytes and seconds of the answers under this name, from the access log."""
        found = re.findall(rf"^/{name} (\d+) (\d+) ([\d.]+)$", self.log.read_text(), re.MULTILINE)
        return [(int(status), int(sent), float(seconds)) for status, sent, seconds in found]


@contextlib.contextmanager
def server(folder: Path, *flags: str, silence_s: int = 60) -> Iterator[Server]:
    (folder / "large").write_bytes(os.urandom(SIZE))
    log = ["--access-logfile", str(folder / "access.log"), "--access-logformat", "%(U)s %(s)s %(B)s %(L)s"]
    with served(folder, APPLICATION, *log, *flags, silence_s=silence_s) as (port, process):
        here = Server(folder, port, process.pid)
        wait_for(here.is_up, seconds=30, what="gunicorn")
        yield here


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A single process with two threads."""
    with server(tmp_path_factory.mktemp("sending"), "--threads", "2", "--keep-alive", "60") as here:
        yield here


class Reader:
    """A client that reads when the test says so. What it does not read stays with the server, but for some hundred kilobytes."""

    def __init__(self, port: int, *names: str, more: str = "") -> None:
        self.socket = socket.socket()
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        for name in names:
            self.socket.sendall(f"GET /{name} HTTP/1.1\r\nHost: here\r\n{more}\r\n".encode())
        self.got = b""

    def read(self, size: int) -> bytes:
        """The next bytes, no more than so many; none once the other side has ended."""
        piece = self.socket.recv(size)
        self.got += piece
        return piece

    def read_until(self, end: bytes) -> bytes:
        """All that has come, once it ends like this; the end may come in several pieces."""
        pieces, tail = [self.got], self.got
        while not tail.endswith(end):
            pieces.append(self.socket.recv(1 << 20))
            assert pieces[-1]
            tail = (tail + pieces[-1])[-len(end) :]
        return b"".join(pieces)

    def read_all(self) -> bytes:
        pieces = [self.got]
        while piece := self.socket.recv(1 << 20):
            pieces.append(piece)
        return b"".join(pieces)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextlib.contextmanager
def slow_readers(port: int, count: int, *names: str) -> Iterator[list[Reader]]:
    """They read 100 kB a second each, in turns."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(Reader(port, *names)) for _ in range(count)]

        def read() -> None:
            while not over.wait(0.1):
                for reader in readers:
                    reader.read(10_000)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield readers
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("name", ["file", "part", "stream", "large-page"])
def test_pages_are_answered_beside_forty_slow_readers_of_two_processes(tmp_path: Path, name: str):
    with (
        server(tmp_path, "--workers", "2", "--threads", "16") as here,
        slow_readers(here.port, 40, name) as readers,
    ):
        wait_for(
            lambda: sum(b" 200 OK" in reader.got for reader in readers) >= 32, seconds=30, what="reading"
        )
        assert all(here.get("page") == b"page" for _ in range(10))
        assert here.lines(name) == []  # all of them still read
        wait_for(lambda: all(b" 200 OK" in reader.got for reader in readers), seconds=30, what="all of them")


def test_who_reads_slowly_but_steadily_is_not_given_up(tmp_path: Path):
    with (
        server(tmp_path, silence_s=3) as here,
        slow_readers(here.port, 3, "file"),
        Reader(here.port, "file"),
    ):
        wait_for(lambda: len(here.lines("file")) == 1, seconds=40, what="the one who reads nothing")
        time.sleep(4)
        assert len(here.lines("file")) == 1


@pytest.mark.parametrize("name", BODIES)
def test_every_byte_comes_to_who_reads_fast_and_to_who_pauses(one: Server, name: str):
    body = one.large[BODIES[name]]
    with Reader(one.port, name, more="Connection: close\r\n") as slow:
        slow.read(100_000)
        time.sleep(0.5)
        assert one.get(name) == body
        slow.read(100_000)
        time.sleep(0.5)
        answer = slow.read_all()
    if name != "stream":  # of which the framing is gunicorn's
        assert answer.endswith(b"\r\n\r\n" + body)
    assert answer[-7:] == (b"\r\n0\r\n\r\n" if name == "stream" else body[-7:])


@pytest.mark.parametrize("name", BODIES)
def test_the_connection_is_kept_for_requests_that_are_there_already_and_for_later_ones(
    one: Server, name: str
):
    with Reader(one.port, name, name, "page") as reader:
        reader.read(1000)
        time.sleep(0.3)
        got = reader.read_until(b"\r\n\r\npage")
        assert got.count(b" 200 OK") == 3
        assert got.count(one.large[BODIES[name]][:1000]) == 2
        reader.got = b""
        reader.socket.sendall(b"GET /page HTTP/1.1\r\nHost: here\r\n\r\n")
        assert b"keep-alive" in reader.read_until(b"\r\n\r\npage")


def test_the_head_of_a_file_is_an_answer_without_a_body(one: Server):
    connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=10)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("HEAD", "/file")
            answer = connection.getresponse()
            assert (answer.getheader("Content-Length"), answer.read()) == (str(SIZE), b"")
        connection.request("GET", "/page")
        assert connection.getresponse().read() == b"page"


@pytest.mark.parametrize("name", ["file", "stream"])
def test_the_log_says_what_was_sent_and_how_long_it_took(one: Server, name: str):
    before = len(one.lines(name))
    with Reader(one.port, name, more="Connection: close\r\n") as reader:
        reader.read(1)  # from here on the answer is on its way
        time.sleep(0.5)
        reader.read_all()
    wait_for(lambda: len(one.lines(name)) > before, seconds=5, what="the line")
    status, sent, seconds = one.lines(name)[-1]
    assert (status, sent) == (200, SIZE)
    assert seconds >= 0.5


@pytest.mark.parametrize("name", ["file", "stream"])
def test_who_goes_away_frees_file_and_connection(one: Server, name: str):
    lines, closed, before = len(one.lines(name)), int(one.get("closed")), int(one.get("open"))
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(Reader(one.port, name)).read(1000)
        assert int(one.get("open")) > before
    wait_for(
        lambda: int(one.get("open")) <= before, seconds=20, what="letting go"
    )  # long before they are given up
    assert_cut(one.lines(name)[lines:], 5)
    assert int(one.get("closed")) == closed + (5 if name == "stream" else 0)


@pytest.mark.parametrize("name", ["file", "stream"])
def test_who_reads_nothing_is_given_up_and_so_are_file_and_connection(tmp_path: Path, name: str):
    with server(tmp_path, silence_s=2) as here, contextlib.ExitStack() as stack:
        before = int(here.get("open"))
        silent = [stack.enter_context(Reader(here.port, name)) for _ in range(5)]
        wait_for(lambda: len(here.lines(name)) == 5, seconds=60, what="giving up")
        assert_cut(here.lines(name), 5)
        wait_for(lambda: int(here.get("open")) <= before, seconds=20, what="letting go")
        assert int(here.get("closed")) == (5 if name == "stream" else 0)
        with pytest.raises(ConnectionResetError):
            silent[0].read_all()


def assert_cut(lines: list[tuple[int, int, float]], count: int) -> None:
    """Of so many answers a part was sent."""
    assert len(lines) == count
    assert all(status == 200 and 0 < sent < SIZE for status, sent, _ in lines)


@pytest.mark.parametrize("name", ["short", "broken"])
def test_a_body_that_ends_too_soon_ends_its_connection(one: Server, name: str):
    with Reader(one.port, name, "page") as reader:
        answer = reader.read_all()
    assert one.large in answer or len(answer) > SIZE
    assert b"page" not in answer[-10:]
    assert one.is_up()


def test_a_file_that_is_deleted_while_it_is_sent_is_sent_to_its_end(tmp_path: Path):
    with server(tmp_path) as here:
        os.link(tmp_path / "large", tmp_path / "deleted")
        with Reader(here.port, "deleted", more="Connection: close\r\n") as reader:
            reader.read(1000)
            (tmp_path / "deleted").unlink()
            assert reader.read_all().endswith(b"\r\n\r\n" + here.large)


def test_a_server_that_is_told_to_stop_sends_what_it_has_begun(tmp_path: Path):
    with server(tmp_path, "--graceful-timeout", "20") as here, Reader(here.port, "file") as reader:
        reader.read(1000)
        os.kill(here.pid, signal.SIGTERM)
        time.sleep(1)
        assert reader.read_all().endswith(b"\r\n\r\n" + here.large)


def test_a_process_that_is_told_to_stop_waits_for_readers_no_longer_than_it_may(tmp_path: Path):
    with server(tmp_path, "--graceful-timeout", "3") as here, slow_readers(here.port, 3, "file"):
        time.sleep(0.5)
        began = time.monotonic()
        os.kill(children(here.pid)[0], signal.SIGTERM)
        wait_for(
            lambda: len(here.lines("file")) == 3, seconds=20, what="the log"
        )  # long before they have read all
        assert time.monotonic() - began > 2
        assert_cut(here.lines("file"), 3)


def test_nobody_waits_for_clients_that_do_not_close_connections_that_ended(one: Server):
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(Reader(one.port, "page", more="Connection: close\r\n"))
            assert client.read_all().endswith(b"page")
        began = time.monotonic()
        assert one.get("page") == b"page"
        assert time.monotonic() - began < 10  # gunicorn's own poller waits 2 s for each of them


def test_nobody_waits_for_encrypted_clients_that_do_not_close_either(tmp_path: Path):
    key, certificate = certificate_in(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate))
    flags = ["--keyfile", str(key), "--certfile", str(certificate)]
    with served(tmp_path, APPLICATION, *flags) as (port, _), contextlib.ExitStack() as stack:

        def page() -> bytes:
            plain = socket.create_connection(("localhost", port), timeout=20)
            asker = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            asker.sendall(b"GET /page HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: asker.recv(1000), b""))  # and stays open

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                return page().endswith(b"page")
            return False

        wait_for(is_up, seconds=30, what="gunicorn")
        began = time.monotonic()
        assert all(page().endswith(b"page") for _ in range(10))
        assert time.monotonic() - began < 10  # gunicorn's own poller waits 2 s for each of them


def test_files_go_over_encrypted_connections_too(tmp_path: Path):
    key, certificate = certificate_in(tmp_path)
    (tmp_path / "large").write_bytes(os.urandom(SIZE))
    with served(tmp_path, APPLICATION, "--keyfile", str(key), "--certfile", str(certificate)) as (port, _):
        context = ssl.create_default_context(cafile=str(certificate))

        def get() -> bytes:
            connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
            with contextlib.closing(connection):
                connection.request("GET", "/file")
                return connection.getresponse().read()

        def is_whole() -> bool:
            try:
                return get() == (tmp_path / "large").read_bytes()
            except OSError:
                return False

        wait_for(is_whole, seconds=30, what="the file")


def test_slow_readers_of_encrypted_connections_have_no_thread_and_get_every_byte(tmp_path: Path):
    key, certificate = certificate_in(tmp_path)
    flags = ["--threads", "2", "--keyfile", str(key), "--certfile", str(certificate)]
    large = os.urandom(SIZE)
    (tmp_path / "large").write_bytes(large)
    context = ssl.create_default_context(cafile=str(certificate))
    with served(tmp_path, APPLICATION, *flags) as (port, _), contextlib.ExitStack() as stack:

        def ask(name: str) -> ssl.SSLSocket:
            plain = socket.create_connection(("localhost", port), timeout=20)
            asker = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            asker.sendall(f"GET /{name} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n".encode())
            return asker

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                return ask("page").recv(1000).startswith(b"HTTP/1.1 200 OK")
            return False

        wait_for(is_up, seconds=30, what="gunicorn")
        slow = [ask(name) for name in ("file", "stream", "large-page") * 4]
        got = [reader.recv(1000) for reader in slow]
        assert all(head.startswith(b"HTTP/1.1 200 OK") for head in got)
        assert is_up()
        whole = b"".join([got[0], *iter(lambda: slow[0].recv(1 << 20), b"")])
        assert whole.partition(b"\r\n\r\n")[2] == large
