"""Another Hub that does what a test wants of it, also what no good one would: over real HTTP, in threads of this process."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from registry.hub.repositories import git_sha1

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class FakeHub:
    """`repositories` maps an id to its files. `before(path, headers)` may answer in its place; None lets it go on.

    `requests` has every (path, headers). A file in `holds` stops after so many bytes until `go_on` is set.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    before: Callable[[str, Any], Answer | None] = lambda path, headers: None
    holds: dict[str, int] = field(default_factory=dict)
    go_on: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    def commit(self, name: str) -> str:
        said = json.dumps([[path, git_sha1(raw)] for path, raw in sorted(self.repositories[name].items())])
        return hashlib.sha1(said.encode()).hexdigest()

    def tree(self, name: str) -> list[dict[str, Any]]:
        rows = []
        for path, raw in sorted(self.repositories[name].items()):
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(raw), "oid": git_sha1(raw)}
            if path.endswith((".safetensors", ".bin")):
                row["lfs"] = {"oid": hashlib.sha256(raw).hexdigest(), "size": len(raw), "pointerSize": 130}
            rows.append(row)
        return rows

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests for a file, "" for none."""
        return [
            headers.get("range", "")
            for asked, headers in self.requests
            if asked.endswith(f"/{path}") and "/resolve/" in asked
        ]

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        parts = urlsplit(path)
        steps = [unquote(step) for step in parts.path.strip("/").split("/")]
        if parts.path == "/api/models":
            author = parse_qs(parts.query).get("author", [""])[0]
            begin = f"{author}/" if author else ""
            return as_json([{"id": name} for name in self.repositories if name.startswith(begin)])
        if steps[:2] == ["api", "models"]:
            name = "/".join(steps[2:4])
            if name not in self.repositories:
                return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
            return as_json(
                {"id": name, "sha": self.commit(name)} if steps[4] == "revision" else self.tree(name)
            )
        raw = self.repositories.get("/".join(steps[:2]), {}).get("/".join(steps[4:]))
        if raw is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
        start = int(headers["range"].removeprefix("bytes=").rstrip("-")) if "range" in headers else 0
        said = {"Content-Range": f"bytes {start}-{len(raw) - 1}/{len(raw)}"} if start else {}
        return (206 if start else 200), said, raw[start:]


def as_json(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def fake_hub(**options: Any) -> Iterator[FakeHub]:
    hub = FakeHub(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append((self.path, headers))
            status, said, body = hub.before(self.path, headers) or hub.answer(self.path, headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **said}.items():
                self.send_header(name, value)
            self.end_headers()
            hold = hub.holds.pop(self.path.rpartition("/")[2], None)
            self.wfile.write(body[:hold])
            self.wfile.flush()
            if hold is not None:
                hub.go_on.wait(30)
                self.wfile.write(body[hold:])

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError, TimeoutError):  # the client went away
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
