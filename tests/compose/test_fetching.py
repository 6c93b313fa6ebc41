"""Fetching referenced base models from a hub; here a small server that speaks the two calls the client makes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from compose import fetching, jobs, worker
from compose.errors import BaseUnavailable
from tests.compose.factories import make_composition
from tests.factories import make_base_model

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"model_type": "t5"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"import os",
    "onnx/model.safetensors": b"another",
}


class Hub(BaseHTTPRequestHandler):
    """`good/model` at one commit, `pickled/model` without safetensors, `gated/model`; what it was asked is kept."""

    asked: list[str]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        name = next((n for n in ("good/model", "pickled/model") if n in path), None)
        if "gated/model" in path:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if name is None:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = {f: b for f, b in FILES.items() if name == "good/model" or not f.endswith(".safetensors")}
        if f"/api/models/{name}/tree/" in path:
            rows = [
                {"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                for f, b in files.items()
            ]
            return self.answer(200, json.dumps(rows).encode())
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": f, "size": len(b)} for f, b in files.items()]
            return self.answer(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode())
        file = path.partition(f"/resolve/{COMMIT}/")[2]
        if file not in files:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha1(files[file]).hexdigest()
        return self.answer(200, files[file], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(settings) -> Iterator[type[Hub]]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.HUB_ENDPOINT = f"http://127.0.0.1:{server.server_port}"
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_referenced_base_is_pinned_and_only_its_safe_files_come(hub):
    assert fetching.resolve("good/model") == COMMIT
    folder = fetching.fetch("good/model", COMMIT)
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert not any("evil" in line or ".bin" in line for line in hub.asked)


def test_a_commit_needs_no_question_and_a_second_fetch_no_bytes(hub):
    assert fetching.resolve("good/model", COMMIT) == COMMIT
    assert hub.asked == []
    first = fetching.fetch("good/model", COMMIT)
    hub.asked.clear()
    assert fetching.fetch("good/model", COMMIT) == first
    assert not any(line.startswith("GET /good/model/resolve") for line in hub.asked)


def test_a_model_without_safetensors_is_refused(hub):
    with pytest.raises(BaseUnavailable, match=r"has no config\.json with weights in safetensors"):
        fetching.fetch("pickled/model", COMMIT)


def test_what_the_hub_does_not_have_or_give_is_said(hub):
    with pytest.raises(BaseUnavailable, match="The hub has no model no/such"):
        fetching.resolve("no/such")
    with pytest.raises(BaseUnavailable, match="gated/model is gated on its hub"):
        fetching.resolve("gated/model")
    with pytest.raises(BaseUnavailable, match="The hub has no model"):
        fetching.resolve("three/part/name")


def test_a_hub_that_does_not_answer_is_said(settings):
    settings.HUB_ENDPOINT = "http://127.0.0.1:9"
    with pytest.raises(BaseUnavailable, match=r"could not be fetched from its hub\. Try again"):
        fetching.resolve("good/model")


@pytest.mark.django_db
def test_every_attempt_uses_the_commit_of_the_first(hub):
    base_model = make_base_model("good/model")
    composition = jobs.claim(make_composition(base_model=base_model).pk, "worker")
    assert composition
    assert (worker.lay_out_base(composition) / "config.json").exists()
    composition.refresh_from_db()
    assert composition.base_commit == COMMIT
    hub.asked.clear()
    worker.lay_out_base(composition)
    assert not any(line.startswith("GET /api/models/good/model?") for line in hub.asked)
