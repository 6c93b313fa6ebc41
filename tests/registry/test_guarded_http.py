"""Where requests on behalf of strangers may go: to the listed server, and from there to public addresses only."""

from __future__ import annotations

import socket
from typing import Any

import httpx2
import pytest

from registry import guarded_http
from registry.guarded_http import GuardedTransport, NotPublic

INWARDS = [
    "http://8.8.8.8/",  # public, but not https
    "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://017700000001/",
    "https://0/", "https://0.0.0.0/", "https://localhost/", "https://[::1]/", "https://[::]/", "https://10.0.0.1/",
    "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/", "https://198.18.0.1/", "https://192.0.2.1/", "https://203.0.113.9/", "https://224.0.0.1/",
    "https://255.255.255.255/", "https://[fe80::1]/", "https://[fc00::1]/", "https://[fec0::1]/", "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b::a9fe:a9fe]/", "https://[2002:7f00:1::]/",
    "https://[2001:db8::1]/", "https://[2001:0:1::1]/", "https://[ff02::1]/", "https://user@1.1.1.1/", "https://1.1.1.1:22/",
    "https://1.1.1.1:8443/", "http://hub.example/", "https://hub.example:444/", "gopher://1.1.1.1/", "file:///etc/passwd",
    "ftp://1.1.1.1/", "https://no-such-name.invalid/", "https://metadata/",
]  # fmt: skip


class Wire(httpx2.BaseTransport):
    """In place of the network: remembers what would have been sent."""

    def __init__(self) -> None:
        self.sent: list[httpx2.Request] = []
        self.answer = httpx2.Response(200, content=b"{}")

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.sent.append(request)
        return httpx2.Response(self.answer.status_code, headers=self.answer.headers, content=b"")


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def guard(wire: Wire) -> GuardedTransport:
    guard = GuardedTransport([("https", "hub.example", 443)])
    guard.inner = wire  # type: ignore[assignment]
    return guard


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    """Names lead to these addresses, another answer each time."""
    rest = list(answers)

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        found = rest.pop(0) if len(rest) > 1 else rest[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(guarded_http.socket, "getaddrinfo", lookup)


@pytest.mark.parametrize("url", INWARDS)
def test_nothing_is_sent_inwards(guard: GuardedTransport, wire: Wire, url: str):
    with pytest.raises(NotPublic):
        guard.handle_request(httpx2.Request("GET", url))
    assert wire.sent == []


def test_a_public_name_is_connected_to_at_the_address_that_was_checked(
    guard: GuardedTransport, wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    resolving(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])  # a name that changes its mind
    guard.handle_request(httpx2.Request("GET", "https://cdn.example/file?x=1"))
    (sent,) = wire.sent
    assert (sent.url.host, sent.url.path) == ("93.184.216.34", "/file")
    assert sent.headers["Host"] == "cdn.example"
    assert sent.extensions["sni_hostname"] == "cdn.example"
    with pytest.raises(NotPublic):
        guard.handle_request(httpx2.Request("GET", "https://cdn.example/file"))


def test_a_name_with_one_address_inside_is_refused_whole(
    guard: GuardedTransport, wire: Wire, monkeypatch: pytest.MonkeyPatch
):
    resolving(monkeypatch, ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(NotPublic):
        guard.handle_request(httpx2.Request("GET", "https://cdn.example/"))
    assert wire.sent == []


def test_the_listed_server_is_asked_wherever_it_is(guard: GuardedTransport, wire: Wire):
    guard.handle_request(httpx2.Request("GET", "https://hub.example/api/models"))
    assert wire.sent[0].url.host == "hub.example"


def test_a_token_stays_with_the_listed_server_and_redirects_end(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    resolving(monkeypatch, ["93.184.216.34"])
    client = guarded_http.GuardedClient("https://hub.example", {"Authorization": "Bearer secret"})
    wire.answer = httpx2.Response(302, headers={"Location": "https://cdn.example/again"})
    client.client._transport.inner = wire  # type: ignore[attr-defined]
    with pytest.raises(httpx2.TooManyRedirects), client.get("https://hub.example/file"):
        pass
    assert len(wire.sent) == guarded_http.MAX_REDIRECTS + 1
    assert [request.headers.get("Authorization") for request in wire.sent] == ["Bearer secret", *[None] * 5]


def test_behind_a_proxy_it_is_the_proxy_that_decides(wire: Wire, monkeypatch: pytest.MonkeyPatch):
    guard = GuardedTransport([("https", "hub.example", 443)], proxy="http://proxy.example:3128")
    guard.inner = wire  # type: ignore[assignment]
    guard.handle_request(httpx2.Request("GET", "https://cdn.example/"))
    assert wire.sent[0].url.host == "cdn.example"
    with pytest.raises(NotPublic):
        guard.handle_request(httpx2.Request("GET", "http://cdn.example/"))
