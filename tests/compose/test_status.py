"""The public status, as page, API and Prometheus metrics."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from compose import jobs, leaving, status_page, tryouts
from compose.jobs import workers
from compose.models import Audition, Composition, Worker
from tests.compose.factories import finish, make_composition
from tests.factories import make_base_model, make_user
from tests.plans import plans

pytestmark = pytest.mark.django_db


def states() -> dict[str, str]:
    return {worker.name: worker.state for worker in status_page.all_workers()}


def test_a_worker_is_busy_idle_leaving_or_silent():
    for name in ("busy", "idle", "leaving", "full", "silent"):
        workers.report(name)
    jobs.claim(make_composition().pk, "busy")
    workers.say_leaving("leaving")
    workers.report("full", is_full=True)
    Worker.objects.filter(name="silent").update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert states() == {name: name for name in ("busy", "idle", "leaving", "full", "silent")}


def test_workers_without_room_are_told_by_the_page_and_to_who_waits_for_them(client):
    workers.report("full", is_full=True)
    composition = make_composition()
    client.force_login(composition.owner)
    assert "disk full" in client.get("/status").content.decode()
    assert "no worker has room on its disk" in status_page.site_status().headline
    said = "No worker has room on its disk now"
    assert said in client.get(composition.get_absolute_url()).content.decode()
    workers.report("another")
    assert said not in client.get(composition.get_absolute_url()).content.decode()
    assert "one should begin within seconds" in status_page.site_status().headline


def test_a_clock_that_stands_still_is_told_of_what_waits_and_of_what_lost_its_worker(settings, rung):
    """Else the page would say for hours that one should begin within seconds, or goes back in line by itself."""
    composition = make_composition()
    assert not status_page.site_status().is_clock_still
    past = timezone.now() - timedelta(seconds=settings.JOB_RING_AGAIN_S + status_page.STILL_AFTER_S + 1)
    Composition.objects.update(rung_at=past)
    assert "stands still" in status_page.site_status().headline
    jobs.sweep()
    assert not status_page.site_status().is_clock_still
    jobs.claim(composition.pk, "worker")
    Composition.objects.update(lease_until=past)
    assert "stands still" in status_page.site_status().headline
    jobs.sweep()
    assert not status_page.site_status().is_clock_still


def test_a_clock_of_which_nothing_was_heard_between_two_sweeps_goes_on(settings):
    """However often what nobody came for is rung for again."""
    settings.JOB_RING_AGAIN_S = 1
    make_composition()
    Composition.objects.update(rung_at=timezone.now() - timedelta(seconds=10))
    assert not status_page.site_status().is_clock_still


def test_a_worker_that_holds_a_composition_and_stopped_beating_is_silent(settings):
    claimed = jobs.claim(make_composition().pk, "lost")
    assert claimed
    type(claimed).objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert states() == {"lost": "silent"}
    assert "fell silent" in status_page.site_status().headline


def test_one_that_fell_silent_is_no_news_for_longer_than_it_holds_something():
    workers.report("dead")
    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(hours=1))
    assert status_page.site_status().headline == "Idle: nothing is running and nothing waits."
    composition = make_composition()
    assert "no worker is there" in status_page.site_status().headline
    workers.report("alive")
    jobs.claim(composition.pk, "alive")
    assert status_page.site_status().headline == "Working: 1 running, 0 waiting."


def test_without_a_worker_the_page_says_that_none_is_there():
    make_composition()
    assert "no worker is there" in Client().get("/status").content.decode()


def test_the_api_tells_the_same_to_everybody_and_names_nobody():
    owner = make_user("ada")
    finish(make_composition(owner=owner, title="Secret title"))
    failed = jobs.claim(make_composition(owner=owner).pk, "w")
    assert failed
    jobs.fail(failed, "Example 1, “secret text”, is too long.")
    make_composition(owner=owner)
    workers.report("w1", warm=["demo/tiny-t5"])
    answer = Client().get("/api/v1/status/")
    told = answer.json()
    assert (told["waiting"], told["running"], told["succeeded"], told["failed"]) == (1, 0, 1, 1)
    assert told["queues"][0]["base_model"] == "demo/tiny-t5"
    assert told["workers"][0] | {"heartbeat_at": None} == {
        "name": "w1",
        "state": "idle",
        "heartbeat_at": None,
        "warm": ["demo/tiny-t5"],
        "busy_with": "",
        "stage": "",
        "done": 0,
    }
    assert told["failures"][0]["base_model"] == "demo/tiny-t5"
    assert told["yours"] is None
    for private in ("ada", "ecret"):
        assert private not in answer.content.decode()


def test_with_a_token_it_tells_what_is_yours_and_what_is_left(settings):
    settings.MAX_WAITING_JOBS_PER_USER = 3
    owner = make_user()
    make_composition(owner=owner)
    client = Client()
    client.force_login(owner)
    yours = client.get("/api/v1/status/").json()["yours"]
    assert yours == {"waiting": 1, "running": 0, "places_left": 2, "may_wait": 3, "may_run": 2}
    assert "room for 2 more of 3 in the queue" in client.get("/compose").content.decode()


def test_metrics_are_nobodys_without_a_token_and_the_token_holders_with_one(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    assert Client().get("/metrics").status_code == 404
    settings.METRICS_TOKEN = "for-prometheus"
    for wrong in ("", "Bearer ", "Bearer for-prometheu", "for-prometheus-x"):
        assert Client(headers={"Authorization": wrong}).get("/metrics").status_code == 404
    finish(make_composition())
    make_composition()
    workers.report("w1")
    text = Client(headers={"Authorization": "Bearer for-prometheus"}).get("/metrics").content.decode()
    assert 'lora_compositions{base_model="demo/tiny-t5",status="queued"} 1.0' in text
    assert 'lora_compositions_ended_total{status="succeeded"} 1.0' in text
    assert 'lora_workers{state="idle"} 1.0' in text


def test_the_numbers_are_those_of_the_rows(settings):
    settings.MAX_WAITING_JOBS_PER_USER = 50
    now, owner, base_model = timezone.now(), make_user("ada"), make_base_model()
    client = Client()
    assert client.get("/status").content.decode().count("no composition has succeeded yet") == 2
    waits, runs = (5, 60, 20), (40, 100, 500)
    for number, (wait_s, run_s) in enumerate(zip(waits, runs, strict=True)):
        done = finish(make_composition(owner=owner, base_model=base_model))
        ended = now - timedelta(hours=20 * number)  # the last of them is 40 hours ago
        began = ended - timedelta(seconds=run_s)
        Composition.objects.filter(pk=done.pk).update(
            finished_at=ended, started_at=began, created_at=began - timedelta(seconds=wait_s)
        )
    for number in range(3):
        jobs.cancel(make_composition(owner=owner, base_model=base_model), owner)
        claimed = jobs.claim(make_composition(owner=owner, base_model=base_model).pk, "w1")
        assert claimed is not None
        if number:
            jobs.fail(claimed, "No.")
    status = status_page.site_status()
    assert (status.median_wait_s, status.median_run_s, status.waits_counted) == (20.0, 100.0, 3)
    assert (status.succeeded, status.failed, status.cancelled) == (2, 2, 3)
    assert (status.running, status.waiting, len(status.failures)) == (1, 0, 2)
    assert {worker.name: worker.done for worker in status.workers} == {"w1": 0}


def test_the_wait_after_a_lost_worker_is_no_time_of_a_run():
    now, composition = timezone.now(), make_composition()
    began = now - timedelta(hours=2)
    claimed = jobs.claim(composition.pk, "lost")
    assert claimed
    Composition.objects.update(lease_until=began, created_at=began, started_at=began)
    jobs.sweep()
    finish(composition)
    status = status_page.site_status()
    assert (status.median_wait_s, status.median_run_s, status.waits_counted) == (0.0, None, 1)
    assert "none of them ran in one go" in Client().get("/status").content.decode()


def test_what_ended_stays_counted_when_an_account_is_deleted():
    for owner in (make_user("ada"), make_user("bob")):
        base_model = make_base_model(f"demo/of-{owner}")
        finish(make_composition(owner=owner, base_model=base_model))
        waiting = make_composition(owner=owner, base_model=base_model)
        jobs.cancel(waiting, owner)
        make_composition(owner=owner, base_model=base_model)
        before = jobs.ended()
        leaving.delete_account(owner, actor=owner)
        assert jobs.ended() == before
    assert not Composition.objects.exists()
    assert jobs.ended() == {"succeeded": 2, "failed": 0, "cancelled": 2}


def test_what_free_workers_do_beside_compositions_is_counted_too(settings, monkeypatch, tmp_path):
    base_model = make_base_model()
    ada = make_user("ada")
    Audition.objects.create(asked_by=ada, base_model=base_model, examples=[{"input": "my secret"}], fitting=1)
    done = finish(make_composition(owner=ada, base_model=base_model))
    tryouts.ask(done, ada, "my secret")
    assert "no worker is there" in status_page.site_status().headline
    assert tryouts.KIND.take_next("w1")
    workers.report("w1")
    told = Client().get("/api/v1/status/").json()
    assert [line | {"oldest": bool(line["oldest"])} for line in told["errands"]] == [
        {"kind": "try-outs", "waiting": 0, "running": 1, "oldest": False},
        {"kind": "auditions", "waiting": 1, "running": 0, "oldest": True},
    ]
    assert told["headline"] == "No composition runs; small requests: 1 running, 1 waiting."
    page = Client().get("/status").content.decode()
    assert "Auditions" in page
    assert "secret" not in page
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    settings.METRICS_TOKEN = "for-prometheus"
    text = Client(headers={"Authorization": "Bearer for-prometheus"}).get("/metrics").content.decode()
    assert 'lora_errands{kind="auditions",status="waiting"} 1.0' in text


@pytest.mark.postgres_only
def test_what_ended_lately_is_not_looked_for_among_all_that_ever_ended(client: Client):
    with plans() as lines:
        assert client.get("/status").status_code == 200
    assert sum("composition_ended" in line for line in lines) >= 2, lines
