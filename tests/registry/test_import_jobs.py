"""Imports as jobs: by page and REST, many at once, with progress, resumed after a kill, and never with a token in clear."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client
from django.utils import timezone

from registry import hub_jobs, hub_work, import_jobs, importing, publishing
from registry.accounts import block
from registry.models import Adapter, Blob, ImportItem, ImportJob, Origin, SentBlob, User
from tests.compose.test_crashes import environment
from tests.conftest import ROOT, Ring, wait_for
from tests.factories import (
    make_base_model,
    make_organisation,
    make_token,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.fake_adapters import files_of, make_adapter
from tests.fake_hub import FakeHub, fake_hub

pytestmark = pytest.mark.django_db
in_real_transactions = pytest.mark.django_db(transaction=True)
SECRET = "hf_ThisIsTheSecretOfBob"


def adapter_files(folder: Path, seed: int = 0, **options: Any) -> dict[str, bytes]:
    made = make_adapter(folder / f"made-{seed}", seed=seed, card="---\nlicense: mit\n---\n# One\n", **options)
    return {path: file.read_bytes() for path, file in files_of(made).items()}


@pytest.fixture
def hub(settings: Any, tmp_path: Path) -> Iterator[FakeHub]:
    """Another Hub with three adapters of `lab` and something that is none."""
    make_base_model()
    with fake_hub() as hub:
        hub.repositories = {f"lab/module-{n}": adapter_files(tmp_path, n) for n in range(3)}
        hub.repositories["lab/thesis"] = {"README.md": b"# A thesis"}
        settings.IMPORT_ENDPOINTS = [hub.address]
        yield hub


@pytest.fixture
def bob(db: None) -> User:
    return make_user("bob")


def api(user: User, method: str, path: str, body: Any = None, scope: str = "write") -> Any:
    headers = {"Authorization": f"Bearer {make_token(user, scope)}"}
    options = {"data": body, "content_type": "application/json"} if method == "post" else {}
    return getattr(Client(), method)(f"/api/v1/{path}", headers=headers, **options)


def ask(user: User, *sources: str, **options: Any) -> Any:
    return api(user, "post", "imports/", {"sources": list(sources), **options})


@in_real_transactions
def test_many_are_imported_by_a_pattern_each_pinned_and_recorded(hub: FakeHub, bob: User, rung: list[Ring]):
    answer = ask(bob, "lab/module-*", visibility="private")
    assert answer.status_code == 201
    assert answer.json()["status"] == "queued"
    assert [ring.args for ring in rung] == [(answer.json()["id"],)]
    rung[0].answer()
    found = api(bob, "get", f"imports/{answer.json()['id']}/").json()
    assert found["status"] == "succeeded"
    assert found["counts"] == {
        "total": 3, "waiting": 0, "fetching": 0, "imported": 3, "present": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    row = found["items"][1]
    assert (row["source"], row["adapter"]) == ("lab/module-1", "bob/module-1")
    assert row["commit"] == hub.commit("lab/module-1")
    assert row["bytes_done"] == row["bytes_total"] == sum(map(len, hub.repositories["lab/module-1"].values()))
    adapter = Adapter.objects.get(name="module-1")
    assert (adapter.license, adapter.is_private, adapter.is_composable) == ("mit", True, True)
    origin = Origin.objects.get(revision=adapter.head)
    assert (origin.endpoint, origin.source, origin.commit) == (hub.address, "lab/module-1", row["commit"])
    assert not SentBlob.objects.exists()


def test_asked_for_again_nothing_is_fetched_and_a_new_commit_becomes_a_new_version(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    for _ in range(2):
        ask(bob, "lab/module-*")
        hub_work.run_all("w")
    jobs = list(ImportJob.objects.order_by("created_at"))
    assert import_jobs.counts(jobs[1])["present"] == 3
    files = len([path for path, _ in hub.requests if "/resolve/" in path])
    hub.repositories["lab/module-0"] = adapter_files(tmp_path, 7)
    ask(bob, "lab/module-*")
    hub_work.run_all("w")
    # Only the weights are new: config and card are here and bob's to read.
    assert len([path for path, _ in hub.requests if "/resolve/" in path]) == files + 1
    adapter = Adapter.objects.get(name="module-0")
    assert adapter.revisions.count() == 2
    assert Origin.objects.filter(revision__adapter=adapter).count() == 2


def test_what_was_renamed_there_goes_on_here_under_the_name_it_came_with(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    del hub.repositories["lab/module-0"]
    hub.repositories["lab/renamed"] = adapter_files(tmp_path, 8)

    def lead_on(path: str, headers: Any) -> Any:
        return hub.answer(path.replace("lab/module-0", "lab/renamed"), headers)

    hub.before = lead_on
    for _ in range(2):
        ask(bob, "lab/module-0")
        hub_work.run_all("w")
    assert [import_jobs.counts(job)["present"] for job in ImportJob.objects.order_by("created_at")] == [
        0,
        0,
        1,
    ]
    adapter = Adapter.objects.get()
    assert (adapter.name, adapter.revisions.count()) == ("module-0", 2)
    assert Origin.objects.get(revision=adapter.head).source == "lab/renamed"
    ask(bob, "lab/renamed")  # somebody who asks for it by its new name means that name
    hub_work.run_all("w")
    assert set(Adapter.objects.values_list("name", flat=True)) == {"module-0", "renamed"}


def change_here(adapter: Adapter, author: User, folder: Path, seed: int = 9) -> None:
    """A version of our own on top of an imported one."""
    files = files_of(make_adapter(folder / f"own-{seed}", seed=seed))
    publishing.publish(author=author, namespace=adapter.namespace, name=adapter.name, files=files)


def test_a_newer_commit_goes_on_top_of_changes_made_here_only_if_that_was_confirmed(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    ask(bob, "lab/module-*")
    hub_work.run_all("w")
    adapter = Adapter.objects.get(name="module-0")
    for seed in (9, 10):
        change_here(adapter, bob, tmp_path, seed)
    hub.repositories["lab/module-0"] = adapter_files(tmp_path, 7)
    for sources in (["lab/module-*"], ["LAB/module-0"]):
        refused = ask(bob, *sources)
        assert (refused.status_code, refused.json()["code"]) == (409, "changed_here")
        assert refused.json()["message"].startswith("bob/module-0: newer versions were made here")
        assert list(refused.json()["fields"]) == ["overwrite"]
    assert ImportJob.objects.count() == 1
    for sources, options in ((["lab/module-1"], {}), (["lab/module-0"], {"name": "twin"})):
        assert ask(bob, *sources, **options).status_code == 201
    assert ask(bob, "lab/module-0", overwrite=True).status_code == 201
    before = Adapter.objects.get(name="module-0").head
    hub_work.run_all("w")
    adapter.refresh_from_db()
    assert adapter.revisions.count() == 4
    assert adapter.head.message == (
        f"Import lab/module-0 at {hub.commit('lab/module-0')} from {hub.address}, on top of 2 versions made here "
        f"since ({before.short_commit})"
    )
    assert ask(bob, "lab/module-0").status_code == 201  # nothing of our own is newer now


def test_changes_made_here_while_an_import_waits_are_not_covered_by_it(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    hub.repositories["lab/module-0"] = adapter_files(tmp_path, 7)
    assert ask(bob, "lab/module-0").status_code == 201
    adapter = Adapter.objects.get()
    change_here(adapter, bob, tmp_path)
    hub_work.run_all("w")
    item = ImportItem.objects.get(job=ImportJob.objects.order_by("created_at").last())
    assert (item.status, "Confirm that (overwrite)" in item.error) == ("failed", True)
    assert adapter.revisions.count() == 2
    assert ask(bob, "lab/module-0", overwrite=True).status_code == 201
    change_here(adapter, bob, tmp_path, seed=10)
    hub_work.run_all("w")
    assert adapter.revisions.count() == 4


def test_who_sees_what_is_here_stays_as_it_is_when_a_newer_commit_comes(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    adapter = Adapter.objects.get()
    publishing.update_adapter(adapter, actor=bob, visibility="private")
    for seed, said in ((7, {}), (8, {"visibility": "public"})):
        hub.repositories["lab/module-0"] = adapter_files(tmp_path, seed)
        assert ask(bob, "lab/module-0", **said).status_code == 201
        hub_work.run_all("w")
        adapter.refresh_from_db()
        assert (adapter.is_private, adapter.revisions.count()) == (True, seed - 5)


def test_the_form_asks_before_a_newer_commit_covers_changes_made_here(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    change_here(Adapter.objects.get(), bob, tmp_path)
    client = Client()
    client.force_login(bob)
    assert "overwrite" not in client.get("/import").content.decode()
    form = {"sources": "lab/module-0", "endpoint": hub.address, "namespace": "bob", "visibility": "public"}
    refused = client.post("/import", form)
    assert refused.status_code == 409
    assert 'name="overwrite"' in refused.content.decode()
    assert "bob/module-0: newer versions were made here" in refused.content.decode()
    assert ImportJob.objects.count() == 1
    assert client.post("/import", {**form, "overwrite": "on"}).status_code == 302


def test_import_again_fills_the_form_as_it_was(hub: FakeHub, bob: User, rung: list[Ring]):
    ask(bob, "lab/module-0", name="mine", revision="main", visibility="private")
    hub_work.run_all("w")
    client = signed_in(bob)
    page = client.get(ImportJob.objects.get().get_absolute_url()).content.decode()
    [address] = re.findall(r'href="([^"]+)">Import again', page)
    form = client.get(unescape(address)).context["form"]
    said = {
        "sources": "lab/module-0",
        "name": "mine",
        "revision": "main",
        "visibility": "private",
        "namespace": "bob",
    }
    assert {name: form[name].value() for name in said} == said


def test_what_is_no_adapter_is_told_beside_the_others(hub: FakeHub, bob: User, rung: list[Ring]):
    ask(bob, "lab/*")
    hub_work.run_all("w")
    job = ImportJob.objects.get()
    assert (job.status, job.error) == ("succeeded", "1 of 4 could not be imported.")
    (failed,) = job.items.filter(status="failed")
    assert failed.error == "lab/thesis is no adapter: it has no adapter_config.json."
    page = signed_in(bob).get(job.get_absolute_url())
    assert b"lab/thesis is no adapter" in page.content
    assert b"hx-get" not in page.content


def test_a_single_one_that_fails_fails_the_import_with_its_reason(hub: FakeHub, bob: User, rung: list[Ring]):
    for source, why in (
        ("lab/none", "not there"),
        ("lab/thesis", "no adapter"),
        ("lab/no-*", "nothing called"),
    ):
        job = ImportJob.objects.get(pk=ask(bob, source).json()["id"])
        hub_work.run_all("w")
        job.refresh_from_db()
        assert job.status == "failed"
        assert why in job.error
    assert not Adapter.objects.exists()


def test_an_import_never_covers_what_is_something_else(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path
):
    publish_fake(tmp_path, "module-0", owner=bob, config={"seed": 9})
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    assert "was not imported from lab/module-0" in ImportJob.objects.get().error
    assert Adapter.objects.get().revisions.count() == 1
    ask(bob, "lab/module-0", name="theirs")
    hub_work.run_all("w")
    assert Adapter.objects.filter(name="theirs").exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"sources": []}, 400),
        ({"sources": ["no name at all"]}, 400),
        ({"sources": ["../../etc/passwd"]}, 400),
        ({"sources": ["*/colour"]}, 400),
        ({"sources": ["lab/a", "gpt2"]}, 400),
        ({"sources": ["lab/a"], "endpoint": "http://169.254.169.254"}, 400),
        ({"sources": ["lab/a", "lab/b"], "name": "one"}, 400),
        ({"sources": ["lab/a"], "name": "a--b"}, 400),
        ({"sources": ["lab/a"], "visibility": "secret"}, 400),
        ({"sources": ["lab/a"], "namespace": "eve"}, 403),
        ({"sources": ["lab/a"], "namespace": "nobody"}, 404),
        ({"sources": ["lab/a"], "mistyped": 1}, 400),
        ({}, 400),
    ],
)
def test_what_cannot_be_imported_is_refused_at_once(
    hub: FakeHub, bob: User, rung: list[Ring], body: dict[str, Any], status: int
):
    make_user("eve")
    answer = api(bob, "post", "imports/", body)
    assert answer.status_code == status
    assert answer.json()["message"]
    assert not ImportJob.objects.exists()
    assert rung == []


def test_only_who_may_write_imports_into_an_organisation(hub: FakeHub, bob: User, rung: list[Ring]):
    reader, guest = make_user("reader"), Client()
    make_organisation("team", members={bob: "write", reader: "read"})
    assert ask(reader, "lab/module-0", namespace="team").status_code == 403
    assert api(bob, "post", "imports/", {"sources": ["lab/a"]}, scope="read").status_code == 403
    assert guest.post("/api/v1/imports/", {"sources": ["lab/a"]}, "application/json").status_code == 401
    assert guest.get("/import").status_code == 302
    assert ask(bob, "lab/module-0", namespace="team").status_code == 201
    hub_work.run_all("w")
    assert Adapter.objects.get().full_name == "team/module-0"


def test_imports_are_seen_by_their_owner_only(hub: FakeHub, bob: User, rung: list[Ring]):
    job = ImportJob.objects.get(pk=ask(bob, "lab/module-0").json()["id"])
    eve = make_user("eve")
    assert api(eve, "get", "imports/").json()["results"] == []
    assert [row["id"] for row in api(bob, "get", "imports/").json()["results"]] == [job.pk]
    for path in (f"imports/{job.pk}/", f"imports/{job.pk}/items/"):
        assert api(eve, "get", path).status_code == 404
    assert api(eve, "post", f"imports/{job.pk}/cancel/").status_code == 404
    assert signed_in(eve).get(job.get_absolute_url()).status_code == 404
    assert signed_in(eve).post(f"{job.get_absolute_url()}/cancel").status_code == 404


def test_five_at_a_time_are_enough(hub: FakeHub, bob: User, rung: list[Ring]):
    answers = [ask(bob, "lab/module-0").status_code for _ in range(6)]
    assert answers == [201] * 5 + [409]


# --- Tokens ------------------------------------------------------------------------------------------------------


def test_a_token_is_never_kept_in_clear_logged_or_sent_to_the_broker_and_goes_with_the_job(
    hub: FakeHub, bob: User, rung: list[Ring], caplog: pytest.LogCaptureFixture
):
    hub.before = lambda path, headers: (
        None
        if headers.get("authorization") == f"Bearer {SECRET}"
        else (401, {"X-Error-Code": "RepoNotFound"}, b"{}")
    )
    answer = ask(bob, "lab/module-0", token=SECRET)
    job = ImportJob.objects.get()
    assert job.sealed_token
    assert SECRET not in str(answer.json()) + str(rung) + _whole_database()
    hub_work.run_all("w")
    job.refresh_from_db()
    assert (job.status, job.sealed_token) == ("succeeded", "")
    assert SECRET not in caplog.text
    assert {headers.get("authorization") for _, headers in hub.requests} == {f"Bearer {SECRET}"}
    ask(bob, "lab/module-1")
    hub_work.run_all("w")
    assert "not open to you" in ImportJob.objects.get(sources=["lab/module-1"]).error


def _whole_database() -> str:
    with connection.cursor() as cursor:
        said = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            said.append(str(cursor.fetchall()))
    return "\n".join(said)


def test_a_sealed_token_opens_nothing_elsewhere_and_not_for_ever(
    hub: FakeHub, bob: User, rung: list[Ring], settings: Any
):
    ask(bob, "lab/module-0", token=SECRET)
    ask(bob, "lab/module-1", token=SECRET)
    first, second = ImportJob.objects.order_by("created_at")
    assert hub_jobs.token_of(first) == SECRET
    first.sealed_token = second.sealed_token
    with pytest.raises(hub_jobs.TokenGone):
        hub_jobs.token_of(first)
    settings.SECRET_KEY = "another key " * 5
    with pytest.raises(hub_jobs.TokenGone):
        hub_jobs.token_of(second)
    ImportJob.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert hub_jobs.sweep()["tokens"] == 2
    hub_work.run_all("w")
    assert {job.status for job in ImportJob.objects.all()} == {"failed"}
    assert all("no longer kept" in job.error for job in ImportJob.objects.all())


def test_a_redirect_to_elsewhere_gets_no_token_and_leads_nowhere_inside(
    hub: FakeHub, bob: User, rung: list[Ring]
):
    with fake_hub(repositories=hub.repositories) as inside:
        for target in (
            inside.address,
            "https://127.0.0.1",
            "https://localhost",
            "file:///etc/passwd",
            "https://[::1]",
        ):
            hub.before = _leads_to(target)
            ask(bob, "lab/module-0", token=SECRET)
            hub_work.run_all("w")
            job = ImportJob.objects.first()
            assert job.status == "failed"
            assert "we do not go" in job.error
        assert inside.requests == []
    assert not Adapter.objects.exists()


def _leads_to(target: str) -> Callable[[str, Any], Any]:
    return lambda path, headers: (302, {"Location": f"{target}{path}"}, b"") if "/resolve/" in path else None


# --- What goes wrong ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    from registry.other_hubs import OtherHub

    plain = OtherHub.__init__
    monkeypatch.setattr(OtherHub, "__init__", lambda self, *given: plain(self, *given, sleep=waits.append))
    return waits


def test_a_hub_that_is_busy_is_asked_again_when_it_says(
    hub: FakeHub, bob: User, rung: list[Ring], no_waiting: list[float]
):
    refusals = iter([(429, {"Retry-After": "7"}, b"{}"), (503, {}, b"{}")])
    hub.before = lambda path, headers: next(refusals, None)
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    assert ImportJob.objects.get().status == "succeeded"
    assert no_waiting == [7.0, 1.0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, {}, b"{}"), "Try again later"),
        ((200, {}, b"<html>"), "cannot be read"),
        ((200, {}, b'{"sha": "../..", "id": 3}'), "cannot be read"),
        ((200, {}, b"[" * 100_000), "cannot be read"),
        ((418, {}, b""), "status 418"),
        ((429, {"Retry-After": "9000"}, b""), "wait 9000 seconds"),
    ],
)
def test_a_hub_that_talks_nonsense_ends_the_import_with_a_sentence(
    hub: FakeHub, bob: User, rung: list[Ring], no_waiting: list[float], answer: Any, why: str
):
    hub.before = lambda path, headers: answer
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    job = ImportJob.objects.get()
    assert job.status == "failed"
    assert why in job.error


@pytest.mark.parametrize("is_away", [True, False])
def test_when_the_hub_is_away_the_rest_is_not_waited_for_one_by_one(
    hub: FakeHub, bob: User, rung: list[Ring], monkeypatch: pytest.MonkeyPatch, is_away: bool
):
    monkeypatch.setattr("registry.other_hubs.ATTEMPTS", 1)
    ask(bob, "lab/module-*")
    hub_work.run_step("w")  # finds out what is meant
    hub_work.run_step("w")
    asked = len(hub.requests)
    hub.before = lambda path, headers: (503, {}, b"") if is_away or "module-1" in path else None
    hub_work.run_all("w")
    job = ImportJob.objects.get()
    errors = dict(job.items.values_list("source", "error"))
    assert (job.status, errors["lab/module-0"]) == ("succeeded", "")
    assert "could not be fetched" in errors["lab/module-1"]
    assert ("was not tried" in errors["lab/module-2"]) == is_away
    assert not is_away or len(hub.requests) == asked + 2  # for module-1, and whether it is there


def test_other_bytes_than_the_hub_said_are_not_taken(
    hub: FakeHub, bob: User, rung: list[Ring], data_dir: Path
):
    hub.before = lambda path, headers: (
        (200, {}, bytes(len(hub.repositories["lab/module-0"]["adapter_model.safetensors"])))
        if path.endswith(".safetensors")
        else None
    )
    ask(bob, "lab/module-0")
    hub_work.run_all("w")
    assert "other bytes" in ImportJob.objects.get().error
    assert list((data_dir / "tmp").iterdir()) == []
    hub.before = lambda path, headers: (200, {}, b"x" * 10**6) if path.endswith(".safetensors") else None
    ask(bob, "lab/module-1")
    hub_work.run_all("w")
    assert "more bytes than it said" in ImportJob.objects.first().error


@in_real_transactions
def test_cancel_ends_a_waiting_import_at_once_and_a_running_one_at_the_next_piece(
    hub: FakeHub, bob: User, rung: list[Ring], monkeypatch: pytest.MonkeyPatch
):
    waiting = ImportJob.objects.get(pk=ask(bob, "lab/module-0").json()["id"])
    assert api(bob, "post", f"imports/{waiting.pk}/cancel/").json()["status"] == "cancelled"
    assert api(bob, "post", f"imports/{waiting.pk}/cancel/").status_code == 409
    assert hub_work.run_all("w") == 0
    monkeypatch.setattr(import_jobs, "PROGRESS_EVERY_S", 0)
    running = ImportJob.objects.get(pk=ask(bob, "lab/module-*").json()["id"])
    for _ in range(2):  # what is meant, and the first of the three
        hub_work.run_step("w")

    def cancelled(path: str, headers: Any) -> None:
        if path.endswith(".safetensors"):
            assert api(bob, "post", f"imports/{running.pk}/cancel/").json()["status"] == "running"

    hub.before = cancelled
    hub_work.run_all("w")
    running.refresh_from_db()
    assert running.status == "cancelled"
    assert [item.status for item in running.items.all()] == ["imported", "cancelled", "cancelled"]


@in_real_transactions
def test_the_import_of_who_was_blocked_meanwhile_fetches_and_publishes_nothing_more(
    hub: FakeHub, bob: User, rung: list[Ring]
):
    ask(bob, "lab/module-*")
    for _ in range(2):  # which are meant, and the first of them
        hub_work.run_step("worker")
    asked = len(hub.requests)
    block(bob, moderator=None)
    while hub_work.run_step("worker"):
        pass
    assert [adapter.name for adapter in Adapter.objects.all()] == ["module-0"]
    assert len(hub.requests) == asked
    assert ImportJob.objects.get().error == "2 of 3 could not be imported."
    assert "You may not publish" in ImportItem.objects.get(source="lab/module-1").error


def test_people_take_turns(hub: FakeHub, bob: User, rung: list[Ring]):
    eve = make_user("eve")
    many, one = ask(bob, "lab/module-*").json()["id"], ask(eve, "lab/module-0").json()["id"]
    for _ in range(5):
        hub_work.run_step("w")
    assert ImportJob.objects.get(pk=one).items.get().status == "imported"
    assert import_jobs.counts(ImportJob.objects.get(pk=many))["imported"] < 3


def test_the_sweep_rings_for_what_nobody_came_for(hub: FakeHub, bob: User, rung: list[Ring]):
    ask(bob, "lab/module-0")
    rung.clear()
    assert hub_jobs.sweep()["rung"] == 0
    ImportJob.objects.update(rung_at=timezone.now() - timedelta(minutes=5))
    assert hub_jobs.sweep()["rung"] == 1
    assert rung[0].task == "registry.tasks.work_on_hub_jobs"


def test_jobs_are_forgotten_a_year_after_their_end_and_what_they_made_stays(
    hub: FakeHub, bob: User, rung: list[Ring], settings: Any
):
    ended, running = (
        ImportJob.objects.get(pk=ask(bob, name).json()["id"]) for name in ("lab/module-0", "lab/module-1")
    )
    hub_work.run_all("w")
    ImportJob.objects.filter(pk=running.pk).update(status="running", finished_at=None)
    ImportJob.objects.filter(pk=ended.pk).update(finished_at=timezone.now() - timedelta(days=364))
    assert hub_jobs.forget_old() == 0
    ImportJob.objects.filter(pk=ended.pk).update(finished_at=timezone.now() - timedelta(days=366))
    settings.HUB_JOBS_KEPT_DAYS = 0
    assert hub_jobs.forget_old() == 0
    settings.HUB_JOBS_KEPT_DAYS = 365
    assert hub_jobs.forget_old() == 1
    assert list(ImportJob.objects.all()) == [running]
    assert Adapter.objects.get(name="module-0").head.origins.exists()


# --- Workers that die --------------------------------------------------------------------------------------------


@in_real_transactions
def test_a_killed_worker_loses_nothing_the_next_goes_on_inside_of_the_file(
    hub: FakeHub, bob: User, rung: list[Ring], tmp_path: Path, settings: Any
):
    large = adapter_files(tmp_path, 11, base_matrices=_wide(), rank=64, base_model_name_or_path="some/wide")
    weights = large["adapter_model.safetensors"]
    hub.repositories["lab/module-1"] = large
    hub.holds = {"adapter_model.safetensors": 3 * 2**20}
    ask(bob, "lab/module-1", token=SECRET)
    process = _worker()
    part = _wait_for_part(2 * 2**20)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hub.go_on.set()
    job = ImportJob.objects.get()
    assert (job.status, job.items.get().status) == ("running", "fetching")
    assert hub_work.run_all("w") == 0  # its lease still holds
    ImportJob.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    arrived = part.stat().st_size
    hub_work.run_all("w")
    job.refresh_from_db()
    assert job.status == "succeeded"
    item = job.items.get()
    assert (item.attempts, item.status) == (2, "imported")
    assert hub.ranges("adapter_model.safetensors") == ["", f"bytes={arrived}-"]
    assert item.fetched_bytes == len(weights) - arrived
    assert Blob.objects.filter(size_bytes=len(weights)).exists()
    assert list(Path(django_settings.UPLOAD_TMP_DIR).glob("import-*")) == []


def _wide() -> dict[str, tuple[int, int]]:
    return {f"encoder.block.{n}.layer.0.SelfAttention.q": (8192, 8192) for n in range(2)}


def _worker() -> subprocess.Popen[bytes]:
    code = "import django; django.setup(); from registry import hub_work; hub_work.run_all('doomed')"
    variables = environment(
        DJANGO_SETTINGS_MODULE="config.settings",
        SECRET_KEY=django_settings.SECRET_KEY,
        IMPORT_ENDPOINTS=",".join(django_settings.IMPORT_ENDPOINTS),
        JOB_LEASE_S="60",
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=variables)


def _wait_for_part(size: int) -> Path:
    folder = Path(django_settings.UPLOAD_TMP_DIR)

    def grown() -> list[Path]:
        return [path for path in folder.glob("import-*.part") if path.stat().st_size >= size]

    wait_for(grown, seconds=30, what="The first bytes of the file")
    time.sleep(0.3)
    return grown()[0]


def test_what_kills_its_worker_three_times_is_left_out(hub: FakeHub, bob: User, rung: list[Ring]):
    ask(bob, "lab/module-*")
    hub_work.run_step("w")
    ImportItem.objects.filter(source="lab/module-0").update(status="fetching", attempts=3)
    hub_work.run_all("w")
    job = ImportJob.objects.get()
    assert [item.status for item in job.items.all()] == ["failed", "imported", "imported"]
    assert "lost 3 times" in job.items.first().error


def test_a_worker_that_is_told_to_go_gives_the_import_back(
    hub: FakeHub, bob: User, rung: list[Ring], monkeypatch: pytest.MonkeyPatch
):
    import threading

    monkeypatch.setattr(import_jobs, "PROGRESS_EVERY_S", 0)
    monkeypatch.setattr(hub_jobs, "_draining", threading.Event())
    ask(bob, "lab/module-0")
    hub_work.run_step("w")
    hub.before = lambda path, headers: hub_jobs.drain() if path.endswith(".safetensors") else None
    hub_work.run_all("w")
    job = ImportJob.objects.get()
    assert (job.status, job.lease_until, job.items.get().status) == ("running", None, "waiting")
    monkeypatch.setattr(hub_jobs, "_draining", threading.Event())
    hub.before = lambda path, headers: None
    hub_work.run_all("another")
    assert ImportJob.objects.get().status == "succeeded"
    assert ImportItem.objects.get().attempts == 1


# --- Pages -------------------------------------------------------------------------------------------------------


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_the_page_asks_shows_how_far_it_is_and_cancels(hub: FakeHub, bob: User, rung: list[Ring]):
    client = signed_in(bob)
    form = client.get("/import?sources=lab/module-*")
    assert b"lab/module-*" in form.content
    said = {
        "sources": "lab/module-*\nlab/thesis",
        "endpoint": hub.address,
        "namespace": "bob",
        "visibility": "public",
    }
    wrong = client.post("/import", {**said, "sources": "nonsense here/ and", "token": SECRET})
    assert wrong.status_code == 400
    assert SECRET.encode() not in wrong.content
    answer = client.post("/import", said)
    job = ImportJob.objects.get()
    assert answer["Location"] == job.get_absolute_url()
    page = client.get(answer["Location"])
    assert b"Waiting for a worker" in page.content
    assert b"hx-get" in page.content
    for _ in range(2):
        hub_work.run_step("w")
    part = client.get(f"{answer['Location']}/progress")
    assert b"1 of 4" in part.content
    assert b"<html" not in part.content
    client.post(f"{answer['Location']}/cancel")
    assert b"3 cancelled" in client.get(answer["Location"]).content
    assert b"lab/module-*" in client.get("/imports").content


def test_no_page_asks_the_database_more_for_more_rows(
    hub: FakeHub, bob: User, rung: list[Ring], django_assert_max_num_queries: Any
):
    for _ in range(5):
        import_jobs.request_import(owner=bob, namespace=namespace_of(bob), sources=["lab/*"])
    hub_work.run_all("w")
    client = signed_in(bob)
    job = ImportJob.objects.first()
    for path in ("/import", "/imports", job.get_absolute_url(), f"{job.get_absolute_url()}/progress"):
        with django_assert_max_num_queries(10):
            assert client.get(path).status_code == 200


@in_real_transactions
def test_what_is_left_out_for_its_size_is_not_fetched_and_stops_nothing(
    hub: FakeHub, bob: User, settings: Any, monkeypatch
):
    settings.MAX_ADAPTER_BYTES = settings.MAX_FILE_BYTES = 1_500_000
    hub.repositories["lab/module-0"]["train.jsonl"] = b"{}\n" * 1_000_000
    done = importing.import_adapter(actor=bob, namespace=namespace_of(bob), source="lab/module-0")
    assert set(done.adapter.head.files.values_list("path", flat=True)) == set(adapter_names(hub))
    assert hub.ranges("train.jsonl") == []


def adapter_names(hub: FakeHub) -> list[str]:
    return [path for path in hub.repositories["lab/module-0"] if path != "train.jsonl"]


@in_real_transactions
@pytest.mark.parametrize(
    ("file", "adapter", "sentence"),
    [
        (200, 10**9, r"adapter_\w+\.\w+ of lab/module-0 has [\d,]+ bytes; one file may have 200\."),
        (10**9, 200, r"lab/module-0 has [\d,]+ bytes; one adapter may have 200\."),
    ],
)
def test_what_is_too_large_is_said_of_what_is(
    hub: FakeHub, bob: User, settings: Any, file: int, adapter: int, sentence: str
):
    settings.MAX_FILE_BYTES, settings.MAX_ADAPTER_BYTES = file, adapter
    with pytest.raises(importing.ImportFailed, match=sentence):
        importing.import_adapter(actor=bob, namespace=namespace_of(bob), source="lab/module-0")
