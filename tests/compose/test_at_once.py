"""The same thing asked by several at the same moment, in threads with connections of their own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from compose import jobs, leaving, publishing
from compose.engine.errors import Cancelled
from compose.errors import LeaseLost, TooManyWaiting, WrongState
from compose.models import Composition
from registry import storage
from registry.leaving import OnlyAdmin
from registry.models import Adapter, AuditEntry, Membership, User
from tests.compose.factories import make_composition, make_modules, make_result, owner_of
from tests.compose.test_publishing import finished
from tests.factories import make_base_model, make_organisation, make_user, namespace_of

pytestmark = pytest.mark.django_db(transaction=True)
AT_ONCE = 5


def all_at_once(act: Callable[[int], Any]) -> list[Any]:
    """What each of AT_ONCE threads got from `act`, or the error it met."""
    barrier = Barrier(AT_ONCE)

    def run(number: int) -> Any:
        try:
            barrier.wait()
            return act(number)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(run, range(AT_ONCE)))


def kinds(answers: list[Any]) -> list[str]:
    return sorted(type(answer).__name__ for answer in answers)


def test_one_composition_is_claimed_by_one_worker():
    composition = make_composition()
    answers = all_at_once(lambda number: jobs.claim(composition.pk, f"worker-{number}"))
    assert kinds(answers) == ["Composition", *["NoneType"] * (AT_ONCE - 1)]
    composition.refresh_from_db()
    assert composition.attempt == 1


def test_nobody_gets_more_running_than_allowed_by_asking_at_once(settings):
    settings.MAX_RUNNING_JOBS_PER_USER = 2
    owner = make_user()
    queued = [make_composition(owner=owner) for _ in range(AT_ONCE)]
    all_at_once(lambda number: jobs.claim(queued[number].pk, f"worker-{number}"))
    assert Composition.objects.filter(status="running").count() == 2


def test_the_last_place_in_line_is_given_once(settings):
    settings.MAX_WAITING_JOBS_PER_USER = 2
    owner = make_user()
    base_model = make_base_model()
    make_modules(base_model)
    answers = all_at_once(lambda number: make_composition(owner=owner, base_model=base_model, modules=0))
    assert kinds(answers) == ["Composition", "Composition", *[TooManyWaiting.__name__] * (AT_ONCE - 2)]
    assert Composition.objects.count() == 2


def test_sweeps_at_once_take_a_lost_composition_back_once():
    composition = make_composition()
    jobs.claim(composition.pk, "lost")
    Composition.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    answers = all_at_once(lambda number: jobs.sweep()["requeued"])
    assert sorted(answers) == [0, 0, 0, 0, 1]
    composition.refresh_from_db()
    assert (composition.status, composition.losses) == ("queued", 1)


def test_finishing_against_cancelling_and_sweeping_has_one_outcome():
    for _ in range(3):
        composition = make_composition()
        claimed = jobs.claim(composition.pk, "worker")
        assert claimed
        Composition.objects.filter(pk=composition.pk).update(
            lease_until=timezone.now() - timedelta(seconds=1)
        )
        files = {
            "weights": storage.store_stream([b"weights"]),
            "config": storage.store_stream([b"{}"]),
        }

        def act(number: int, claimed: Composition = claimed, files: dict[str, Any] = files) -> Any:
            if number == 0:
                try:
                    return jobs.finish(claimed, make_result(), **files)
                except Cancelled:  # as the worker does
                    jobs.confirm_cancelled(claimed)
                    raise
            if number == 1:
                return jobs.cancel(claimed, claimed.owner)
            return jobs.sweep()

        finishing, cancelling, *_ = all_at_once(act)
        done = Composition.objects.get(pk=composition.pk)
        if done.status == "succeeded":
            assert finishing is None
            assert done.scores.count() == 2
        else:
            assert isinstance(finishing, LeaseLost | Cancelled)
            assert (done.status, done.scores.count(), done.result) in {
                ("queued", 0, None),
                ("cancelled", 0, None),
            }
        assert cancelling is None or isinstance(cancelling, WrongState)


def test_publishing_twice_at_once_publishes_once(tmp_path):
    composition = finished(tmp_path)
    namespace = namespace_of(owner_of(composition))
    answers = all_at_once(
        lambda number: publishing.publish_composition(
            composition, actor=owner_of(composition), namespace=namespace, name=f"mixed-{number}"
        )
    )
    assert kinds(answers) == ["Adapter", *[WrongState.__name__] * (AT_ONCE - 1)]
    assert Adapter.objects.filter(kind="composed").count() == 1


def test_of_two_last_admins_who_delete_their_accounts_at_once_one_is_refused():
    people = [make_user(name) for name in ("ada", "bob")]
    make_organisation("lab", members=dict.fromkeys(people, "admin"))

    def leave(number: int) -> Any:
        return leaving.delete_account(people[number % 2], actor=people[number % 2]) if number < 2 else None

    answers = all_at_once(leave)
    assert len([answer for answer in answers if isinstance(answer, OnlyAdmin)]) == 1
    assert User.objects.count() == Membership.objects.filter(namespace__name="lab", role="admin").count() == 1


def test_an_account_that_is_deleted_several_times_at_once_is_deleted_once():
    ada = make_user("ada")
    make_composition(owner=ada)
    answers = all_at_once(lambda _: leaving.delete_account(ada, actor=ada))
    assert kinds(answers) == ["NoneType", *["NotFound"] * (AT_ONCE - 1)]
    assert AuditEntry.objects.filter(action="delete account").count() == 1
    assert not User.objects.filter(username="ada").exists()


def test_an_account_is_deleted_while_a_worker_writes_its_result():
    """Whoever is first, nothing is left and nothing breaks."""
    ada = make_user("ada")
    make_modules(make_base_model())
    claimed = []
    for _ in range(2):
        composition = jobs.claim(make_composition(owner=ada).pk, "worker")
        assert composition is not None
        claimed.append(composition)
    weights, config = (storage.store_stream([content]) for content in (b"weights", b"config"))

    def act(number: int) -> Any:
        if number == 0:
            return leaving.delete_account(ada, actor=ada)
        if number < 3:
            return jobs.finish(claimed[number - 1], make_result(), weights=weights, config=config)
        return jobs.beat(claimed[number - 3])

    answers = all_at_once(act)
    assert answers[0] is None
    assert all(answer is None or isinstance(answer, LeaseLost | str) for answer in answers), answers
    assert not Composition.objects.exists()
