"""What clients send: plain HTTP, so that a cut, a reset and a broken connection are what they say."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.stage import BUDGET, HOST


@dataclass(frozen=True)
class Answer:
    """Status 0: the connection broke before there was one."""

    status: int
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it is an error of the site's."""
        return self.status >= 500

    def json(self) -> Any:
        return json.loads(self.content)


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str = "",
    timeout_s: float = 300,
    **headers: str,
) -> Answer:
    """One request on a connection of its own. `body` is JSON, or bytes as they are; header names take _ for -."""
    sent = {"Host": "localhost", "Connection": "close"}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent["Content-Type"] = "application/json"
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        return Answer(
            answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        )
    except (OSError, http.client.HTTPException):
        return Answer(0)
    finally:
        connection.close()


def composition(base_model: str, seed: int, *, budget: int = BUDGET) -> dict[str, Any]:
    """A request for a composition whose result the fake engine's seed decides."""
    examples = [{"input": f"question {number}", "output": "answer"} for number in range(5)]
    return {
        "base_model": base_model,
        "examples": examples,
        "budget": budget,
        "seed": seed,
        "method": "lorahub",
        "title": f"chaos {seed}",
    }


def multipart(fields: dict[str, str], files: dict[str, Path]) -> bytes:
    """A form with files; its boundary is `chaos`."""
    parts = [
        f'--chaos\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, value in fields.items()
    ]
    for path, file in files.items():
        head = f'--chaos\r\nContent-Disposition: form-data; name="files"; filename="{path}"\r\n\r\n'
        parts.append(head.encode() + file.read_bytes())
    return b"\r\n".join(parts) + b"\r\n--chaos--\r\n"


def publish(port: int, name: str, files: dict[str, Path], token: str, *, timeout_s: float = 300) -> Answer:
    """A new adapter by the API."""
    return ask(
        port,
        "POST",
        "/api/v1/adapters/",
        multipart({"name": name}, files),
        token=token,
        timeout_s=timeout_s,
        Content_Type="multipart/form-data; boundary=chaos",
    )


def raw_publish(name: str, files: dict[str, Path], token: str) -> bytes:
    """The same as the bytes of a whole request, to be cut."""
    body = multipart({"name": name}, files)
    head = (
        "POST /api/v1/adapters/ HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=chaos\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def send_cut(port: int, data: bytes, how: str) -> None:
    """Send `data` and no more: `close`, `reset`, or `half` (our side closed, the answer awaited)."""
    with socket.socket() as connection:
        connection.connect((HOST, port))
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(data)
        if how == "half":
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            with suppress(OSError):
                connection.recv(1000)


def send_raw(port: int, data: bytes) -> int:
    """Send a whole request; the status of its answer, 0 without one."""
    with socket.socket() as connection:
        connection.settimeout(60)
        connection.connect((HOST, port))
        connection.sendall(data)
        answer = connection.recv(1000)
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
