"""Blocking an account: what is computed for it ends, and unblocking brings nothing back."""

from __future__ import annotations

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone

from compose import auditions, blocking, jobs, tryouts
from compose.models import Composition
from registry import accounts
from registry.models import User
from tests.compose.factories import finish, make_composition, make_examples, make_modules
from tests.factories import make_base_model, make_user
from web.errors import Forbidden

pytestmark = pytest.mark.django_db


@pytest.fixture
def bob() -> User:
    return make_user("bob", email="bob@lora.example")


def block(person: User) -> None:
    accounts.block(person, moderator=None)


def test_what_waits_is_cancelled_with_the_reason_and_no_worker_comes_to_it(bob):
    composition, others = make_composition(owner=bob), make_composition()
    block(bob)
    composition.refresh_from_db()
    assert (composition.status, composition.error) == ("cancelled", blocking.WHY)
    assert composition.finished_at is not None
    assert composition.log.last().text == blocking.WHY
    assert jobs.queue_order() == [others.pk]


def test_nothing_of_it_begins_again_once_they_are_unblocked_and_they_read_why(bob):
    composition = make_composition(owner=bob)
    block(bob)
    accounts.unblock(bob, moderator=None)
    jobs.sweep()
    composition.refresh_from_db()
    assert composition.status == "cancelled"
    client = Client()
    client.force_login(bob)
    assert blocking.WHY in client.get(composition.get_absolute_url()).content.decode()
    assert blocking.WHY in client.get("/compositions").content.decode()
    assert client.get(f"/api/v1/compositions/{composition.pk}/").json()["error"] == blocking.WHY
    assert make_composition(owner=bob).status == "queued"


def test_what_is_finished_stays_as_it_is(bob):
    composition = finish(make_composition(owner=bob))
    block(bob)
    composition.refresh_from_db()
    assert (composition.status, composition.error) == ("succeeded", "")


def test_small_requests_end_too(bob):
    composition = finish(make_composition())
    waiting = tryouts.ask(composition, bob, "a text")
    running = tryouts.ask(composition, bob, "another")
    assert tryouts.KIND.take_next("worker") == waiting
    base_model = make_base_model("demo/other")
    make_modules(base_model)
    measured = auditions.ask(person=bob, base_model=base_model, examples=make_examples())
    theirs = tryouts.ask(composition, make_user(), "a text")
    block(bob)
    for errand in (waiting, running, measured):
        errand.refresh_from_db()
        assert (errand.status, errand.error) == ("failed", blocking.WHY)
    assert not tryouts.KIND.finish(waiting, answers={})
    assert tryouts.KIND.take_next("worker") == theirs
    assert auditions.KIND.take_next("worker") is None


def test_a_request_that_was_on_its_way_is_refused(bob):
    base_model = make_base_model()
    make_modules(base_model)
    composition = finish(make_composition())
    block(bob)  # `bob` here is as the request found them, a moment before
    assert bob.is_active
    for ask in (
        lambda: make_composition(owner=bob, base_model=base_model),
        lambda: tryouts.ask(composition, bob, "a text"),
    ):
        with pytest.raises(Forbidden, match="blocked"):
            ask()
    assert not Composition.objects.filter(owner=bob).exists()


def test_no_mail_goes_to_who_is_blocked(bob, settings):
    composition = finish(make_composition(owner=bob))
    Composition.objects.filter(pk=composition.pk).update(wants_email=True, finished_at=timezone.now())
    block(bob)
    assert jobs.tell_owners() == 0
    assert mail.outbox == []


def test_the_reason_stays_when_the_texts_go(bob):
    composition = make_composition(owner=bob)
    block(bob)
    composition.refresh_from_db()
    jobs.forget_texts_of(composition)
    composition.refresh_from_db()
    assert composition.error == blocking.WHY
