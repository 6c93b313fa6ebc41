"""Fetching referenced base models from a hub; here a small server that speaks the two calls the client makes."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from compose import auditions, bases, fetching, jobs, running_errands, tryouts, worker, worker_cache
from compose.engine.errors import Cancelled
from compose.engine.types import Example
from compose.errors import BaseUnavailable
from registry import storage
from tests.compose.factories import make_composition, make_modules
from tests.conftest import ROOT, wait_for
from tests.factories import make_base_model

COMMIT = "c" * 40
EXAMPLES = [Example("Anna saw a red hen.", "red"), Example("Two green pens.", "green")]
FILES = {
    "config.json": b'{"model_type": "t5"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"import os",
    "onnx/model.safetensors": b"another",
}


class Hub(BaseHTTPRequestHandler):
    """`good/model` at one commit, `pickled/model` without safetensors, `gated/model`; what it was asked is kept.

    `fails` is how many questions are still answered with `status`, or, where that is 0, not at all. With `byte_s` weights
    come a byte at a time, each after so long; `sent` is how many of these went out.
    """

    asked: list[str]
    sent = 0
    fails = 0
    status = 503
    byte_s = 0.0
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.command} {self.path}")
        if type(self).fails:
            type(self).fails -= 1
            if not self.status:
                time.sleep(1)
                return None
            return self.answer(self.status, b"<html>Traceback: something of theirs</html>")
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
        if self.command != "GET":
            return
        if not self.byte_s or "model.safetensors" not in self.path:
            self.wfile.write(body)
            return
        with suppress(OSError):  # whoever asked is gone
            for byte in body:
                time.sleep(self.byte_s)
                self.wfile.write(bytes([byte]))
                type(self).sent += 1

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(settings) -> Iterator[type[Hub]]:
    Hub.asked, Hub.fails, Hub.sent = [], 0, 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.HUB_ENDPOINT = f"http://site:hunter2@127.0.0.1:{server.server_port}"
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


def test_of_every_architecture_that_composes_the_files_of_its_tokenizer_come():
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    said = (ROOT / "docs" / "base-models.md").read_text()
    [listed] = re.findall(r"\*\*Compose \(\d+\):\*\* (.*?)\.\n\n", said, re.DOTALL)
    names = [TOKENIZER_MAPPING_NAMES.get(model) for model in listed.replace("\n", " ").split(", ")]
    tokenizers = [getattr(transformers, name) for name in names if name]
    assert len(tokenizers) > 50
    files = {file for tokenizer in tokenizers for file in tokenizer.vocab_files_names.values()}
    assert files <= set(fetching.ALLOWED)


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
    for ask in (fetching.resolve, lambda name: fetching.fetch(name, COMMIT)):
        with pytest.raises(BaseUnavailable, match="gated/model is gated on its hub"):
            ask("gated/model")
        with pytest.raises(BaseUnavailable, match="The hub has no model no/such"):
            ask("no/such")
    with pytest.raises(BaseUnavailable, match="The hub has no model"):
        fetching.resolve("three/part/name")


@pytest.mark.parametrize(
    ("status", "cause"),
    [(503, "it answered with the status 503"), (500, "status 500"), (429, "status 429"), (0, "in time")],
)
def test_a_hub_that_does_not_answer_is_asked_three_times_and_then_told_with_its_reason(
    hub, monkeypatch, capfd, status, cause
):
    if not status:
        monkeypatch.setattr(fetching, "SILENT_S", 1.0)  # a busy machine answers within
    monkeypatch.setattr(hub, "status", status)
    pauses: list[float] = []
    hub.fails = 2
    assert fetching.resolve("good/model", pause=pauses.append) == COMMIT
    assert pauses == list(fetching.PAUSES_S)
    hub.fails = 3
    with pytest.raises(BaseUnavailable) as caught:
        fetching.resolve("good/model", pause=pauses.append)
    said = caught.value.message
    assert said.startswith("The files of good/model could not be fetched from its hub: it ")
    assert cause in said
    assert said.endswith(". Try again in some minutes.")
    assert "hunter2" not in said + "".join(capfd.readouterr())


def test_a_hub_that_cannot_be_reached_is_said(settings):
    settings.HUB_ENDPOINT = "http://127.0.0.1:9"
    with pytest.raises(BaseUnavailable, match=r"it cannot be reached, or it broke off\. Try again"):
        fetching.resolve("good/model", pause=lambda _: None)


def test_a_hub_that_is_silent_when_asked_for_the_list_of_files_is_not_waited_for_for_ever(hub, monkeypatch):
    monkeypatch.setattr(fetching, "SILENT_S", 0.2)
    monkeypatch.setattr(fetching, "PAUSES_S", ())
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(hub, "status", 0)
    hub.fails = 100
    with pytest.raises(BaseUnavailable, match="it did not answer in time"):
        fetching.fetch("good/model", COMMIT)


def test_a_disk_without_space_is_no_fault_of_the_hub(hub, monkeypatch):
    def full(*_: object, dry_run: bool = False, **__: object) -> list[object]:
        if dry_run:
            return []
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(
        BaseUnavailable, match=r"The worker's disk has no space left for the files of good/model"
    ):
        fetching.fetch("good/model", COMMIT)


def test_a_hub_that_refuses_is_not_asked_again(hub, monkeypatch):
    monkeypatch.setattr(hub, "status", 403)
    hub.fails = 1
    with pytest.raises(BaseUnavailable, match=r"refuses to give its files \(status 403\)"):
        fetching.resolve("good/model", pause=lambda _: pytest.fail("it waited"))


@pytest.mark.django_db(transaction=True)
def test_a_composition_says_that_its_hub_is_away_and_can_be_cancelled_while_it_waits(hub, settings, rung):
    worker._draining.clear()
    composition = make_composition(base_model=make_base_model("good/model"))
    hub.fails = 100
    settings.JOB_HEARTBEAT_S = 1
    told: list[str] = []

    def cancel_once_it_waits(*given: Any, **options: Any) -> None:
        set_stage(*given, **options)
        composition.refresh_from_db()
        told.append(composition.stage_note)
        if "asking again" in composition.stage_note:
            jobs.cancel(composition, composition.owner)

    set_stage = jobs.set_stage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "set_stage", cancel_once_it_waits)
        assert worker.run_next("worker")
    composition.refresh_from_db()
    assert composition.status == "cancelled"
    assert told[-1] == "the base model's hub did not give its files; asking again in 5 seconds"


@pytest.mark.django_db(transaction=True)
def test_a_composition_whose_hub_stays_away_fails_with_the_reason(hub, monkeypatch, rung):
    worker._draining.clear()
    monkeypatch.setattr(fetching, "PAUSES_S", (0.0, 0.0))
    composition = make_composition(base_model=make_base_model("good/model"))
    hub.fails = 100
    assert worker.run_next("worker")
    composition.refresh_from_db()
    assert (composition.status, composition.error) == (
        "failed",
        "The files of good/model could not be fetched from its hub: it answered with the status 503. Try again in some "
        "minutes.",
    )
    asked = [line.text for line in composition.log.order_by("pk") if line.text.startswith("Loading")]
    waits = "Loading: the base model's hub did not give its files; asking again in 0 seconds."
    fetches = "Loading: fetching the base model and the modules."
    assert asked == [fetches, waits, fetches, waits, fetches]


def test_a_fetch_ends_when_whoever_looks_at_it_says_so(hub):
    def not_wanted() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fetching.fetch("good/model", COMMIT, look=not_wanted)
    assert (fetching.fetch("good/model", COMMIT) / "model.safetensors").read_bytes() == b"weights"


def test_a_fetch_is_looked_at_as_bytes_come_and_leaves_nothing_half_written(hub, settings, monkeypatch):
    """Far below the 10 MiB at a time in which the hub's client hands them on."""
    monkeypatch.setattr(hub, "byte_s", 1.0)
    started = time.monotonic()

    def wanted_for_a_moment() -> None:
        if time.monotonic() > started + 1.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetching.fetch("good/model", COMMIT, look=wanted_for_a_moment)
    assert hub.sent < len(FILES["model.safetensors"]), "it waited for the end"
    assert not list(settings.WORKER_CACHE_DIR.rglob("*.incomplete"))
    assert not list(settings.WORKER_CACHE_DIR.rglob("*.safetensors"))


def test_what_is_not_wanted_any_more_is_not_asked_for(hub):
    def not_wanted() -> None:
        raise Cancelled

    for ask in (partial(fetching.resolve, "good/model"), partial(fetching.fetch, "good/model", COMMIT)):
        with pytest.raises(Cancelled):
            ask(look=not_wanted)
    assert hub.asked == []
    assert fetching.resolve("good/model") == COMMIT


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_told_to_go_leaves_an_errand_in_the_midst_of_its_fetch(
    hub, settings, ada, monkeypatch
):
    """Be it a measurement of modules or a try-out: both go back in line, and what came of the base model goes."""
    monkeypatch.setattr(hub, "byte_s", 2.0)
    settings.JOB_HEARTBEAT_S = 0.1
    base_model = make_base_model("good/model")
    make_modules(base_model, 1)
    blobs = {name: storage.store_stream([b"{}"]) for name in ("weights_blob", "config_blob")}
    composed = make_composition(owner=ada, base_model=base_model)
    type(composed).objects.filter(pk=composed.pk).update(status="succeeded", base_commit=COMMIT, **blobs)
    composed.refresh_from_db()
    asked = [
        auditions.ask(person=ada, base_model=base_model, examples=EXAMPLES),
        tryouts.ask(composed, ada, "text"),
    ]

    def go_once_bytes_come() -> None:
        wait_for(lambda: hub.sent > 0, seconds=60, what="The first byte")
        worker.drain("worker")

    for _ in asked:
        worker._draining.clear()
        hub.sent = 0
        gone = threading.Thread(target=go_once_bytes_come)
        gone.start()
        assert running_errands.run_waiting("worker") == 1
        assert hub.sent < len(FILES["model.safetensors"]), "it waited for the end of its fetch"
        gone.join()
        assert not list(settings.WORKER_CACHE_DIR.rglob("*.incomplete"))
    for errand in asked:
        errand.refresh_from_db()
        assert (errand.status, errand.losses, errand.error) == ("waiting", 0, "")


def test_room_is_made_for_what_a_fetch_brings_and_only_the_first_time(hub, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(worker_cache, "make_room", asked.append)
    for _ in range(2):
        fetching.fetch("good/model", COMMIT)
    assert asked == [sum(len(FILES[name]) for name in ("config.json", "model.safetensors", "tokenizer.json"))]


def test_room_is_made_for_what_a_fetch_that_broke_off_left_to_bring(hub, monkeypatch):
    folder = fetching.fetch("good/model", COMMIT)
    weights = folder / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    asked: list[int] = []
    monkeypatch.setattr(worker_cache, "make_room", asked.append)
    fetching.fetch("good/model", COMMIT)
    assert asked == [len(FILES["model.safetensors"])]


def test_a_base_that_is_there_needs_no_hub(hub):
    first = fetching.fetch("good/model", COMMIT)
    hub.asked.clear()
    hub.fails = 100
    assert fetching.fetch("good/model", COMMIT) == first
    assert hub.asked == []


@pytest.mark.django_db
def test_what_the_limit_of_the_cache_leaves_no_room_for_is_there_for_its_job_and_fetched_again(hub, settings):
    settings.WORKER_CACHE_BYTES = 1
    base_model = make_base_model("good/model")
    for _ in range(2):
        hub.asked.clear()
        with bases.at_hand(base_model) as (folder, commit):
            assert (folder / "model.safetensors").read_bytes() == b"weights"
        assert commit == COMMIT
        assert any(line.startswith("GET /good/model/resolve") for line in hub.asked)
        assert not list((settings.WORKER_CACHE_DIR / "hub").glob("models--*"))


@pytest.mark.django_db(transaction=True)
def test_a_composition_is_cancelled_in_the_midst_of_a_fetch(hub, settings, monkeypatch, rung):
    worker._draining.clear()
    settings.JOB_HEARTBEAT_S = 0.1
    composition = make_composition(base_model=make_base_model("good/model"))
    bars = fetching._bars

    def slow(look):
        def look_until_it_is_over() -> None:
            for _ in range(100):
                jobs.cancel(composition, composition.owner)
                look()
                time.sleep(0.1)

        return bars(look_until_it_is_over)

    monkeypatch.setattr(fetching, "_bars", slow)
    assert worker.run_next("worker")
    composition.refresh_from_db()
    assert composition.status == "cancelled"


@pytest.mark.django_db
def test_every_attempt_uses_the_commit_of_the_first(hub):
    base_model = make_base_model("good/model")
    composition = jobs.claim(make_composition(base_model=base_model).pk, "worker")
    assert composition
    with bases.of_composition(composition) as folder:
        assert (folder / "config.json").exists()
    composition.refresh_from_db()
    assert composition.base_commit == COMMIT
    hub.asked.clear()
    with bases.of_composition(composition):
        pass
    assert not any(line.startswith("GET /api/models/good/model?") for line in hub.asked)
