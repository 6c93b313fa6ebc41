"""Who is next: turns between people, short before long, warm workers first, and nobody passed for ever."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from compose import jobs
from compose.jobs import queue, workers
from compose.models import Composition, Worker
from registry.models import BaseModel, User
from tests.compose.factories import make_composition, make_modules
from tests.factories import make_base_model, make_user

pytestmark = pytest.mark.django_db


def waiting(
    base_model: BaseModel | None = None,
    *,
    owner: User | None = None,
    expected_s: float | None = 10,
    ago_s: float = 0,
) -> Composition:
    """A queued composition that was asked for `ago_s` seconds ago."""
    composition = make_composition(owner=owner, base_model=base_model)
    asked = timezone.now() - timedelta(seconds=ago_s)
    Composition.objects.filter(pk=composition.pk).update(expected_s=expected_s, created_at=asked)
    composition.refresh_from_db()
    return composition


def other_base() -> BaseModel:
    base_model = make_base_model("demo/other-t5")
    make_modules(base_model, 2)
    return base_model


def test_people_take_turns_whoever_asked_first():
    greedy = make_user()
    many = [waiting(owner=greedy, ago_s=60 - n) for n in range(4)]
    late = waiting(ago_s=1)
    assert jobs.queue_order() == [many[0].pk, late.pk, *(one.pk for one in many[1:])]


def test_a_short_composition_passes_a_long_one_that_came_a_little_earlier():
    long = waiting(expected_s=300, ago_s=20)
    short = waiting(expected_s=5)
    assert jobs.queue_order() == [short.pk, long.pk]


def test_the_place_that_is_promised_is_the_one_it_gets():
    owner, base_model = make_user(), waiting(ago_s=30).base_model
    waiting(owner=owner, expected_s=600)  # what is asked for now passes its owner's own
    waiting(expected_s=300)
    promised = queue.place_of_next(owner, expected_s=5, budget=40)
    asked = waiting(owner=owner, base_model=base_model, expected_s=5)
    assert jobs.queue_place(asked) == promised == 2


def test_a_long_composition_is_passed_only_by_what_came_within_its_length():
    long = waiting(expected_s=300, ago_s=310)
    short = waiting(expected_s=5)
    assert jobs.queue_order() == [long.pk, short.pk]


def test_even_an_endless_composition_is_passed_for_ten_minutes_at_most():
    endless = waiting(expected_s=10**6, ago_s=queue.LONGEST_HEAD_START_S + 10)
    short = waiting(expected_s=5)
    assert jobs.queue_order() == [endless.pk, short.pk]


def test_a_second_composition_is_not_passed_for_ever_by_people_who_keep_coming():
    greedy = make_user()
    waiting(owner=greedy, ago_s=queue.TURN_S + 100)
    second = waiting(owner=greedy, ago_s=queue.TURN_S + 100)
    newcomers = [waiting(ago_s=50 - n) for n in range(5)]
    order = jobs.queue_order()
    assert order.index(second.pk) < order.index(newcomers[0].pk)


def test_without_experience_trials_stand_for_seconds():
    assert queue.head_start_s(None, 40) == pytest.approx(4)
    assert queue.head_start_s(None, 10**6) == queue.LONGEST_HEAD_START_S


def test_a_worker_takes_what_it_has_in_memory_first():
    cold = waiting(ago_s=30)
    warm = waiting(other_base(), ago_s=1)
    assert queue.order_for("w", warm=frozenset({"demo/other-t5"})) == [warm.pk, cold.pk]
    assert queue.order_for("w", warm=frozenset()) == [cold.pk, warm.pk]


def test_what_is_cold_waits_a_minute_at_most_for_what_is_warm():
    cold = waiting(ago_s=queue.COLD_S + 5)
    waiting(other_base(), ago_s=1)
    assert queue.order_for("w", warm=frozenset({"demo/other-t5"}))[0] == cold.pk


def test_a_cold_worker_leaves_it_for_seconds_to_an_idle_warm_one_and_takes_the_next():
    for_the_warm = waiting()
    for_anybody = waiting(other_base())
    workers.report("warm", warm=["demo/tiny-t5"])
    claimed = jobs.claim_next("cold")
    assert claimed == for_anybody
    assert jobs.claim_next("cold") is None
    Composition.objects.filter(pk=for_the_warm.pk).update(
        created_at=timezone.now() - queue.LEFT_TO_THE_WARM - timedelta(seconds=1)
    )
    assert jobs.claim_next("cold") == for_the_warm


@pytest.mark.parametrize("why", ["busy", "silent", "leaving", "full"])
def test_it_is_not_left_to_a_warm_worker_that_will_not_come(why):
    composition = waiting()
    workers.report("warm", warm=["demo/tiny-t5"])
    if why == "busy":
        busy = waiting(other_base())
        assert jobs.claim(busy.pk, "warm")
    elif why == "silent":
        Worker.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=1))
    elif why == "full":
        workers.report("warm", warm=["demo/tiny-t5"], is_full=True)
    else:
        workers.say_leaving("warm")
    assert jobs.claim_next("cold") == composition


def test_the_bell_of_an_idle_worker_that_is_warm_rings(monkeypatch):
    from celery.app.task import Task

    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(Task, "apply_async", lambda self, args=None, **options: sent.append(options))
    workers.report("warm", bell="compositions@warm", warm=["demo/tiny-t5"])
    composition = waiting()
    jobs.ring(composition.pk)
    jobs.ring(waiting(other_base()).pk)
    queue.ring(composition.pk, to_all=True)
    assert [options.get("routing_key") for options in sent] == ["compositions@warm", None, None]
    assert sent[0]["exchange"] == "bells"


def test_what_nobody_came_for_is_rung_for_everybody(rung, monkeypatch):
    composition = waiting()
    Composition.objects.update(rung_at=timezone.now() - timedelta(hours=1))
    asked = []
    monkeypatch.setattr(queue, "ring", lambda pk, *, to_all=False: asked.append((pk, to_all)))
    assert jobs.sweep()["rung"] == 1
    assert asked == [(composition.pk, True)]


def test_room_tells_what_a_person_has_and_what_is_left(settings):
    settings.MAX_WAITING_JOBS_PER_USER = 4
    owner = make_user()
    waiting(owner=owner)
    jobs.claim(waiting(owner=owner).pk, "w")
    assert jobs.room(owner) == jobs.Room(
        waiting=1, running=1, places_left=3, may_wait=4, may_run=settings.MAX_RUNNING_JOBS_PER_USER
    )


def test_a_worker_that_was_not_heard_of_for_a_day_is_forgotten():
    workers.report("gone")
    Worker.objects.update(heartbeat_at=timezone.now() - workers.KEPT - timedelta(minutes=1))
    workers.report("here")
    jobs.sweep()
    assert [worker.name for worker in Worker.objects.all()] == ["here"]


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_costs_who_asks_nothing(scheme, monkeypatch):
    from config.celery import app

    monkeypatch.setattr(app, "_pool", None)
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    monkeypatch.setattr(app.conf, "broker_write_url", f"{scheme}://127.0.0.1:1//")
    composition = waiting()
    began = time.monotonic()
    for _ in range(3):
        queue.ring(composition.pk)
    assert time.monotonic() - began < 2, "not once the time in which a broker that is there has to answer"
