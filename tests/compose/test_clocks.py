"""Workers whose clock is wrong: what is held by a lease is so by the database's clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from compose import auditions, errands, jobs, status_page
from compose.engine.types import Example
from compose.jobs import workers
from compose.models import Composition, Errand, Worker
from tests.compose.factories import make_composition, make_modules, make_trials
from tests.factories import make_base_model, make_user

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
EXAMPLES = [Example("Anna saw a red hen.", "red"), Example("Two green pens.", "green")]
right = timezone.now


@pytest.fixture(params=[-HOUR, HOUR], ids=["behind", "ahead"])
def on_wrong_clock(request, monkeypatch) -> Callable[[Callable[[], Any]], Any]:
    """Calls what a worker calls, with its clock an hour behind or ahead."""

    def call(act: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(timezone, "now", lambda: right() + request.param)
            return act()

    return call


def is_near_now(composition: Composition) -> bool:
    times = [composition.started_at, composition.heartbeat_at, *(line.at for line in composition.log.all())]
    return all(at is not None and abs(at - right()) < timedelta(minutes=1) for at in times)


def test_a_composition_is_kept_while_its_worker_beats_and_taken_back_soon_after_it_fell_silent(
    on_wrong_clock, settings, rung
):
    composition = make_composition()
    claimed = on_wrong_clock(lambda: jobs.claim(composition.pk, "worker"))
    for act in (lambda: jobs.beat(claimed), lambda: jobs.record_trials(claimed, make_trials(2))):
        on_wrong_clock(act)
        assert jobs.sweep()["requeued"] == 0
    composition.refresh_from_db()
    assert is_near_now(composition)
    assert composition.lease_until is not None
    left = composition.lease_until - right()
    assert timedelta(seconds=settings.JOB_LEASE_S - 30) < left <= timedelta(seconds=settings.JOB_LEASE_S)
    assert on_wrong_clock(jobs.sweep)["requeued"] == 0, "chores may have the wrong one as well"
    Composition.objects.update(lease_until=right() - timedelta(seconds=1))
    assert on_wrong_clock(jobs.sweep)["requeued"] == 1


def test_an_errand_is_kept_and_taken_back_alike(on_wrong_clock, settings, rung):
    base_model = make_base_model("demo/tiny-t5", kind="hosted")
    make_modules(base_model, 1)
    audition = auditions.ask(person=make_user("ada"), base_model=base_model, examples=EXAMPLES)
    taken = on_wrong_clock(lambda: auditions.KIND.take_next("worker"))
    on_wrong_clock(lambda: auditions.KIND.beat(taken))
    for sweep in (errands.sweep, lambda: on_wrong_clock(errands.sweep)):
        sweep()
        audition.refresh_from_db()
        assert audition.status == Errand.Status.RUNNING
    assert audition.lease_until is not None
    assert audition.lease_until - right() <= timedelta(seconds=settings.JOB_LEASE_S)


def test_such_a_worker_is_there_for_whoever_looks(on_wrong_clock):
    on_wrong_clock(lambda: workers.report("worker"))
    assert [worker.name for worker in workers.idle()] == ["worker"]
    assert on_wrong_clock(workers.present)
    assert [line.state for line in status_page.all_workers()] == ["idle"]


def test_the_status_page_calls_nobody_silent_by_the_clock_of_its_own_process(on_wrong_clock):
    for name in ("idle", "busy", "gone"):
        workers.report(name)
    jobs.claim(make_composition().pk, "busy")
    Worker.objects.filter(name="gone").update(heartbeat_at=right() - timedelta(minutes=5))
    lines = on_wrong_clock(status_page.all_workers)
    assert {line.name: line.state for line in lines} == {"idle": "idle", "busy": "busy", "gone": "silent"}
