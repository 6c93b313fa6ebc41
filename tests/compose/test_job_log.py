"""The log of a composition, and what its page can show before the end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from compose import jobs
from compose.errors import LeaseLost
from compose.jobs import log
from compose.models import Composition
from tests.compose.factories import finish, make_composition, make_trials, owner_of
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def lines(composition: Composition) -> list[str]:
    return list(composition.log.values_list("text", flat=True))


def running(**options) -> Composition:
    claimed = jobs.claim(make_composition(**options).pk, "worker-1")
    assert claimed is not None
    return claimed


def test_the_log_tells_the_story_of_a_composition(rung):
    composition = running()
    jobs.set_stage(composition, "audition")
    jobs.record_audition(composition, 2.5, [1.25, 0.5, 3.0])
    jobs.stop(composition, composition.owner)
    jobs.release(composition)
    finish(composition)
    told = lines(composition)
    assert told[:3] == [
        "Asked for, with 3 modules and at most 40 trials.",
        "Taken by worker-1.",
        "Trying every module alone.",
    ]
    best = composition.candidates.get(position=1).revision.adapter.full_name
    assert told[3] == (f"The base model alone has a loss of 2.500, the best single module 0.500 ({best}).")
    assert told[4:] == [
        "Asked to stop and keep the best so far.",
        "The worker is going and gave it back; another goes on from its trials.",
        "Taken by worker, attempt 2.",
        "Done after 4 trials.",
    ]


def test_a_change_that_did_not_win_is_not_told(rung):
    composition = running()
    jobs.cancel(composition, composition.owner)
    jobs.cancel(composition, composition.owner)
    assert jobs.confirm_cancelled(composition)
    assert not jobs.fail(composition, "Too late.")
    assert lines(composition)[-2:] == ["Asked to cancel.", "Cancelled."]


CHANGES: dict[str, Callable[[Composition], object]] = {
    "a stage": lambda held: jobs.set_stage(held, "search", steps=40),
    "a failure": lambda held: jobs.fail(held, "It does not fit."),
    "a cancel that was obeyed": jobs.confirm_cancelled,
    "a worker that goes": jobs.release,
    "a wish to cancel": lambda held: jobs.cancel(held, owner_of(held)),
    "a wish to stop": lambda held: jobs.stop(held, owner_of(held)),
    "an owner who is blocked": lambda held: jobs.end_all_of(owner_of(held), "Blocked."),
    "a worker that was lost": lambda held: jobs.sweep(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_change_is_without_its_line(change, rung, monkeypatch):
    composition = running()
    Composition.objects.filter(pk=composition.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    before = Composition.objects.values().get(pk=composition.pk)

    def die(*line: object) -> None:
        raise SystemExit

    monkeypatch.setattr(log, "write", die)
    with pytest.raises(SystemExit):
        CHANGES[change](composition)
    assert Composition.objects.values().get(pk=composition.pk) == before


def test_whoever_ends_what_its_owner_wants_cancelled_says_so(rung):
    for end in (jobs.release, lambda _: jobs.sweep()):
        composition = running()
        jobs.cancel(composition, owner_of(composition))
        Composition.objects.filter(pk=composition.pk).update(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
        end(composition)
        assert lines(composition)[-2:] == ["Asked to cancel.", "Cancelled."]


def test_the_audition_is_written_down_when_it_ends_and_the_curve_has_its_levels(rung):
    composition = running(owner=make_user("ada"))
    jobs.record_audition(composition, 2.5, [1.25, 0.75, 3.0])
    jobs.set_stage(composition, "search", steps=40)
    jobs.record_trials(composition, make_trials(3))
    assert list(composition.candidates.values_list("audition_loss", flat=True)) == [1.25, 0.75, 3.0]
    client = Client()
    client.force_login(owner_of(composition))
    page = client.get(composition.get_absolute_url()).content.decode()
    assert "base model 2.50" in page
    assert "best single module 0.75" in page


def test_an_attempt_that_was_given_up_writes_no_audition(rung):
    composition = running()
    Composition.objects.filter(pk=composition.pk).update(attempt=2)
    with pytest.raises(LeaseLost):
        jobs.record_audition(composition, 2.5, [1.0, 1.0, 1.0])
    assert not composition.candidates.exclude(audition_loss=None).exists()
