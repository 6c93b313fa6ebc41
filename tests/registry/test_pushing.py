"""A push to a Hub that does not answer: it ends by itself, by its owner's wish, and where its worker is to go."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import hub_jobs, hub_work, push_jobs
from registry.models import Adapter, PushJob
from tests.factories import make_base_model, make_user, publish_fake

# Not inside a transaction: a job's heartbeat, from a thread of its own, would wait there for the test's end.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def job(silent: str, tmp_path: Path, settings: Any, rung: object) -> PushJob:
    settings.PUSH_ENDPOINTS = [silent]
    make_base_model()
    adapter = publish_fake(tmp_path, "m", owner=make_user("ada"))
    assert adapter.head is not None
    assert adapter.created_by is not None
    return push_jobs.request_push(
        owner=adapter.created_by, adapter=adapter, revision=adapter.head, token="hf_secret", target="ada/m"
    )


def worked_on(job: PushJob) -> PushJob:
    began = time.monotonic()
    assert hub_work.run_step("w")
    assert time.monotonic() - began < 20
    job.refresh_from_db()
    return job


def test_it_is_given_up_after_a_while_in_words(job: PushJob, silent: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(push_jobs, "PATIENCE_S", 3.0)
    worked_on(job)
    assert (job.status, job.sealed_token, job.url) == ("failed", "", "")
    assert job.error == f"{silent} took longer than 3.0\u202fs for it, so it was stopped. Try again later."


def test_its_owner_need_not_wait_for_it(job: PushJob, monkeypatch: pytest.MonkeyPatch):
    seen = iter([False, False, False, True])
    monkeypatch.setattr(
        hub_jobs, "look", lambda job: (_ for _ in ()).throw(hub_jobs.CancelWanted) if next(seen) else None
    )
    assert worked_on(job).status == "cancelled"


def test_a_worker_that_is_to_go_leaves_it_to_another(job: PushJob, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub_jobs, "_draining", threading.Event())
    threading.Timer(4, hub_jobs.drain).start()
    worked_on(job)
    assert (job.status, job.lease_until, job.losses) == ("running", None, 0)


def test_what_was_deleted_meanwhile_is_not_sent(job: PushJob):
    from registry import publishing

    publishing.withdraw(Adapter.objects.get(), actor=job.owner)
    assert worked_on(job).error == "ada/m was deleted meanwhile, so there is nothing to send."
