"""Servers that drip, on real sockets: each byte comes in time, and all of them together do not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import pytest

from registry import guarded_http
from registry.guarded_http import GuardedClient
from registry.patience import Patience

HEAD = b"HTTP/1.1 200 OK\r\nX-Long: " + b"z" * 80 + b"\r\nContent-Length: %d\r\n\r\n"
Piece = tuple[bytes, float]  # what is sent, and the seconds until the next


def dripped(sent: bytes) -> list[Piece]:
    return [(bytes([letter]), 0.02) for letter in sent]


class Dripper:
    """Answers every request with the same pieces."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=self.listener.accept()[:1], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            for sent, pause_s in self.pieces:
                connection.sendall(sent)
                time.sleep(pause_s)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[Piece]], bytes]]:
    """The body that a server with these pieces answers."""
    monkeypatch.setattr(guarded_http, "PATIENCE", Patience(head_s=0.3, body_s=0.3, slowest_bytes_s=1000))
    opened: list[Dripper] = []

    def ask(pieces: list[Piece]) -> bytes:
        opened.append(Dripper(pieces))
        client = GuardedClient(opened[-1].address, {})
        try:
            with client.get(opened[-1].address) as answer:
                return b"".join(answer.iter_raw())
        finally:
            client.close()

    yield ask
    for server in opened:
        server.listener.close()


def test_a_head_that_drips_is_given_up(ask):
    with pytest.raises(httpx2.TimeoutException):
        ask(dripped(HEAD % 0))


def test_a_body_that_drips_is_given_up(ask):
    with pytest.raises(httpx2.TimeoutException):
        ask([(HEAD % 100, 0.0), *dripped(b"z" * 100)])


def test_a_body_that_takes_long_because_it_is_large_is_read_to_its_end(ask):
    pieces = [(b"z" * 1000, 0.05)] * 10
    assert ask([(HEAD % 10_000, 0.0), *pieces]) == b"z" * 10_000


def test_interim_answers_without_end_are_given_up(ask):
    with pytest.raises(httpx2.TimeoutException):
        ask([(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.02)] * 100)


def test_what_all_answers_may_take_together_holds_for_one_that_is_large_too(ask, monkeypatch):
    monkeypatch.setattr(guarded_http, "PATIENCE", Patience(all_s=0.3))
    with pytest.raises(httpx2.TimeoutException):
        ask([(HEAD % 10_000, 0.0), *[(b"z" * 1000, 0.05)] * 10])


def test_what_we_do_ourselves_between_two_reads_does_not_count(monkeypatch):
    monkeypatch.setattr(guarded_http, "PATIENCE", Patience(head_s=5, body_s=0.3, slowest_bytes_s=1_000_000))
    server = Dripper([(HEAD % 200_000, 0.0), (b"z" * 100_000, 0.0), (b"z" * 100_000, 0.0)])
    client = GuardedClient(server.address, {})
    with client.get(server.address) as answer:
        size = 0
        for piece in answer.iter_raw(50_000):
            time.sleep(0.2)  # a disk
            size += len(piece)
    assert size == 200_000
    client.close()
    server.listener.close()
