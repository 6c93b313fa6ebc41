"""Slow clients and the web server: a real gunicorn with two threads on a small application."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port, wait_for
from web import server
from web.line import Line
from web.server import Metered, wanted_bytes

ROOT = Path(__file__).resolve().parents[2]
THREADS = 2
APPLICATION = """
def application(environ, start_response):
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(str(size))))])
    return [str(size).encode()]
"""
CONFIGURATION = """
from web import server
server.REQUEST_S = 2.0
server.SILENCE_S = {silence_s}
worker_class = "web.server.PatientWorker"
control_socket_disable = True
"""
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n"


@contextlib.contextmanager
def served(
    folder: Path, application: str, *flags: str, silence_s: int = 2
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port of a gunicorn with this application, and its first process."""
    (folder / "small_application.py").write_text(application)
    (folder / "gunicorn.py").write_text(CONFIGURATION.format(silence_s=silence_s))
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "small_application", "--pythonpath", f"{folder},{ROOT}"]
    command += ["-c", str(folder / "gunicorn.py"), "--bind", f"127.0.0.1:{port}", *flags]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield port, process
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("server")
    with served(folder, APPLICATION, "--threads", str(THREADS)) as (port, _):
        wait_for(lambda: answers(port), seconds=30, what="gunicorn")
        yield port


def answers(port: int, body: bytes = b"") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("POST" if body else "GET", "/", body=body or None)
        return connection.getresponse().read() == str(len(body)).encode()
    except OSError:
        return False
    finally:
        connection.close()


def certificate_in(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "key.pem", folder / "certificate.pem"


SLOW_APPLICATION = """
import os, time
def application(environ, start_response):
    time.sleep(0.03)
    said = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
    return [said]
"""


def test_connections_that_one_process_holds_are_shared_once_it_has_much_more_to_do(tmp_path: Path):
    with served(tmp_path, SLOW_APPLICATION, "--threads", "16", "--workers", "2") as (port, process):
        wait_for(
            lambda: len(children(process.pid)) == 2 and pid_that_answers(port), seconds=30, what="gunicorn"
        )
        with contextlib.ExitStack() as stack:
            clients = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(16)]
            for client in clients:
                stack.callback(client.close)
            idle = children(process.pid)[0]
            os.kill(idle, signal.SIGSTOP)
            assert idle not in {ask(client) for client in clients}
            os.kill(idle, signal.SIGCONT)
            end = time.monotonic() + 60
            # Each asks again over the connection it has, or over a new one where that was ended with the answer.
            with ThreadPoolExecutor(len(clients)) as threads:
                while (shares := Counter(threads.map(ask, clients)))[idle] < 4:
                    assert time.monotonic() < end, shares
            assert len(shares) == 2


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(client: http.client.HTTPConnection) -> int:
    """The process that answers."""
    client.request("GET", "/")
    return int(client.getresponse().read())


def pid_that_answers(port: int) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        return ask(client)
    except OSError:
        return 0
    finally:
        client.close()


@contextlib.contextmanager
def unfinished(port: int, start: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Clients that have sent the start of a request and are in no hurry."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]
        for client in clients:
            client.sendall(start)
        time.sleep(0.2)
        yield clients


@pytest.mark.parametrize(
    "start",
    [
        b"",
        HEAD,
        HEAD + b"Content-Length: 100\r\n\r\nabc",
        HEAD + b"Content-Length: 1000000\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
    ids=["silent", "in the head", "in a small body", "in a large body", "in a body without a length"],
)
def test_people_are_answered_beside_more_slow_clients_than_there_are_threads(port: int, start: bytes):
    with unfinished(port, start, 4 * THREADS):
        assert all(answers(port) for _ in range(5))
        assert answers(port, b"x" * 2000)


# --- Encrypted by the server itself -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encrypted:
    port: int
    context: ssl.SSLContext

    def connect(self, stack: contextlib.ExitStack) -> ssl.SSLSocket:
        plain = socket.create_connection(("localhost", self.port), timeout=10)
        return stack.enter_context(self.context.wrap_socket(plain, server_hostname="localhost"))

    def answers(self, body: bytes = b"") -> bool:
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=2, context=self.context)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            for _ in range(2):  # on one connection
                connection.request("POST" if body else "GET", "/", body=body or None)
                if connection.getresponse().read() != str(len(body)).encode():
                    return False
            return True
        return False


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    folder = tmp_path_factory.mktemp("encrypted")
    key, certificate = certificate_in(folder)
    flags = ["--threads", str(THREADS), "--keyfile", str(key), "--certfile", str(certificate)]
    with served(folder, APPLICATION, *flags) as (port, _):
        server = Encrypted(port, ssl.create_default_context(cafile=str(certificate)))
        wait_for(server.answers, seconds=30, what="gunicorn")
        yield server


@pytest.mark.parametrize("start", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "in the handshake"])
def test_people_are_answered_beside_those_who_never_come_to_encrypt(encrypted: Encrypted, start: bytes):
    with unfinished(encrypted.port, start, 4 * THREADS) as clients:
        assert all(encrypted.answers() for _ in range(5))
        assert encrypted.answers(b"x" * 300_000)
        clients[0].settimeout(6)
        with contextlib.suppress(ConnectionResetError):
            assert clients[0].recv(1000) == b"", "given up"


@pytest.mark.parametrize(
    "start",
    [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\nabc", HEAD + b"Content-Length: 1000000\r\n\r\nabc"],
    ids=["silent", "in the head", "in a small body", "in a large body"],
)
def test_people_are_answered_beside_slow_clients_of_encrypted_connections(encrypted: Encrypted, start: bytes):
    with contextlib.ExitStack() as stack:
        for _ in range(4 * THREADS):
            encrypted.connect(stack).sendall(start)
        time.sleep(0.2)
        assert all(encrypted.answers() for _ in range(5))
        assert encrypted.answers(b"x" * 2000)


def test_an_encrypted_request_that_comes_in_pieces_is_answered_when_it_is_whole(encrypted: Encrypted):
    with contextlib.ExitStack() as stack:
        client = encrypted.connect(stack)
        for piece in (HEAD, b"Content-Le", b"ngth: 6\r\n\r", b"\nabc", b"de"):
            client.sendall(piece)
            time.sleep(0.05)
        client.sendall(b"f" + HEAD + b"\r\n")
        got = b""
        while not (b"\r\n\r\n6" in got and got.endswith(b"\r\n\r\n0")):
            piece = client.recv(1000)
            assert piece, got
            got += piece


def test_who_has_read_a_large_body_that_was_encrypted_stands_in_no_line(tmp_path: Path):
    key, certificate = certificate_in(tmp_path)
    places = "from web.line import BULK\n" + APPLICATION.replace(".read())", ".read()) and BULK.free")
    flags = ["--threads", str(THREADS), "--keyfile", str(key), "--certfile", str(certificate)]
    with served(tmp_path, places, *flags) as (port, _):
        server = Encrypted(port, ssl.create_default_context(cafile=str(certificate)))
        wait_for(server.answers, seconds=30, what="gunicorn")
        for length in (20_000, 300_000, 3_000_000):
            connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=server.context)
            with contextlib.closing(connection):
                connection.request("POST", "/", body=b"x" * length)
                assert connection.getresponse().read() == b"2", length


def test_a_large_body_of_an_encrypted_connection_that_trickles_is_given_up(encrypted: Encrypted):
    with contextlib.ExitStack() as stack:
        for _ in range(2 * THREADS):
            encrypted.connect(stack).sendall(HEAD + b"Content-Length: 1000000\r\n\r\nabc")
        wait_for(
            lambda: encrypted.answers(b"x" * 500_000),
            seconds=20,
            what="the slow ones to be given up, one by one,",
        )


def test_a_request_that_comes_in_pieces_is_answered_when_it_is_whole(port: int):
    with unfinished(port, HEAD, 1) as [client]:
        for piece in (b"Content-Le", b"ngth: 6\r\n\r", b"\nabc", b"de"):
            client.sendall(piece)
            time.sleep(0.05)
        client.sendall(b"f")
        # One that was not noticed to be whole would be given up, and closed without an answer.
        got = b""
        while not got.endswith(b"\r\n\r\n6"):
            piece = client.recv(1000)
            assert piece, got
            got += piece


def test_two_requests_in_one_piece_get_two_answers(port: int):
    with unfinished(port, (HEAD + b"\r\n") * 2, 1) as [client]:
        client.settimeout(1)
        got = b""
        while got.count(b"\r\n\r\n0") < 2:
            got += client.recv(1000)


def test_large_bodies_are_read_though_others_are_slow_with_theirs(port: int):
    slow = HEAD + b"Content-Length: 1000000\r\n\r\nabc"
    with unfinished(port, slow, 2 * THREADS):
        wait_for(
            lambda: answers(port, b"x" * 500_000),
            seconds=20,
            what="the slow ones to be given up, one by one,",
        )


REFUSING_APPLICATION = """
def application(environ, start_response):
    start_response("403 Forbidden", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"no"]
"""


@pytest.fixture(scope="module")
def refusing_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of an application that reads no body."""
    with served(tmp_path_factory.mktemp("refusing"), REFUSING_APPLICATION, "--threads", "4") as (port, _):
        wait_for(lambda: refusal(port, b"")[0] == 403, seconds=30, what="gunicorn")
        yield port


def refusal(port: int, body: bytes | list[bytes]) -> tuple[int, str | None]:
    """Status and Connection of the answer to a body that nobody reads; asks again on the connection if it is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        for _ in range(2):
            connection.request("POST", "/", body=body, encode_chunked=isinstance(body, list))
            answer = connection.getresponse()
            assert answer.read() == b"no"
            said = answer.getheader("Connection")
            if said == "close":
                break
        return answer.status, said
    except ConnectionRefusedError:
        return 0, None
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"x" * 1000, "keep-alive"),
        (b"x" * 60_000, "keep-alive"),
        (b"x" * 64 * 1024, "close"),
        (b"x" * 152_000, "close"),
        (b"x" * 4_000_000, "close"),
        ([b"x" * 10], "close"),
    ],
    ids=["small", "not quite large", "large", "larger", "more than the kernel keeps", "without a length"],
)
def test_an_answer_says_whether_the_connection_is_kept_when_the_body_was_not_read(
    refusing_port: int, body: bytes | list[bytes], said: str
):
    for _ in range(5):
        assert refusal(refusing_port, body) == (403, said)


@pytest.mark.parametrize("start", [b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\nabc"])
def test_a_request_that_does_not_come_in_time_is_given_up(port: int, start: bytes):
    with unfinished(port, start, 1) as [client]:
        client.settimeout(6)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1000) == b""


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(port: int):
    for _ in range(3 * THREADS):
        with unfinished(port, HEAD, 1):
            pass
    assert answers(port)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (b"", 1),
        (b"GET / HTTP/1.1\r\n", 17),
        (HEAD + b"\r\n", len(HEAD) + 2),
        (HEAD + b"content-length: 5\r\n\r\nab", len(HEAD) + 26),
        (HEAD + b"Content-Length: 99999999\r\n\r\nab", len(HEAD) + 28),  # large: its head is enough
        (HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", len(HEAD) + 43),  # comes when asked for
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", len(HEAD) + 30),
    ],
)
def test_how_much_of_a_request_has_to_be_here(seen: bytes, wanted: int):
    assert wanted_bytes(seen) == wanted


def test_of_those_who_work_through_large_bodies_only_a_few_do_at_a_time_and_none_while_it_waits(
    monkeypatch: pytest.MonkeyPatch,
):
    line = Line(1)
    monkeypatch.setattr(server, "BULK", line)
    ours, theirs = socket.socketpair()
    with ours, theirs, Metered(ours, bulk=50) as metered:
        theirs.send(b"head and a piece, ")
        metered.recv(100)
        assert line.free == 1  # whose head it is may be asked of the database
        theirs.send(b"another piece")
        metered.recv(100)
        assert line.free == 0
        waiting = threading.Thread(target=metered.recv, args=[100])
        waiting.start()
        wait_for(lambda: line.free == 1, seconds=20, what="the place of who waits for bytes")
        with line:
            theirs.send(b"a third piece")
            wait_for(lambda: len(line) == 1, seconds=20, what="who has got them to stand in line")
        waiting.join(20)
        assert line.free == 0
        theirs.send(b"the last")
        metered.recv(100)
        assert line.free == 1  # what is done with the whole may wait for others


def test_a_large_body_that_ends_early_gives_its_place_back(monkeypatch: pytest.MonkeyPatch):
    line = Line(1)
    monkeypatch.setattr(server, "BULK", line)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with Metered(ours, bulk=50) as metered:
            for piece in (b"head, ", b"a piece"):
                theirs.send(piece)
                metered.recv(100)
            assert line.free == 0
        assert line.free == 1


def test_a_body_that_trickles_is_given_up_and_our_own_slowness_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(server, "SILENCE_S", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        metered = Metered(ours)
        for _ in range(3):
            theirs.send(b"a")
            time.sleep(0.2)
            assert metered.recv(10) == b"a"
        threading.Timer(0.3, theirs.send, [b"a"]).start()
        with pytest.raises(ConnectionResetError):
            metered.recv(10)
