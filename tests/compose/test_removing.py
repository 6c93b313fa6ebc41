"""An owner removes a composition, or only its texts; what something stands on stays."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from compose import daily_limit, jobs, publishing, removing
from compose.errors import NoSuchComposition, WrongState
from compose.models import Candidate, Composition, Kept, LogLine, Trial
from registry import sweeping
from registry.models import Adapter, Blob, User
from registry.publishing import withdraw
from tests.beside import Beside, after
from tests.compose.factories import finish, make_composition, make_examples
from tests.compose.test_publishing import finished
from tests.factories import make_adapter, make_task, make_token, make_user, namespace_of
from tests.visitors import client_of
from web.errors import Forbidden

pytestmark = pytest.mark.django_db


def published(ada: User) -> Composition:
    composition = finish(make_composition(owner=ada))
    composition.adapter = make_adapter("mix", namespace=namespace_of(ada), kind="composed")
    composition.save(update_fields=["adapter"])
    return composition


def test_all_of_it_goes_and_stays_counted(ada):
    composition = finish(make_composition(owner=ada, examples=make_examples(4)))
    blob = composition.weights_blob
    assert blob
    before = jobs.ended()
    assert removing.why_kept(composition) == ""
    removing.remove(composition, ada)
    assert not Composition.objects.exists()
    assert not Trial.objects.exists()
    assert not LogLine.objects.exists()
    assert jobs.ended() == before
    Blob.objects.update(last_stored_at=timezone.now() - timedelta(days=2))
    sweeping.sweep_storage()
    assert not Blob.objects.filter(pk=blob.pk).exists(), "its adapter goes with it"


@pytest.mark.parametrize("status", ["queued", "running"])
def test_what_has_not_ended_is_cancelled_first(ada, status):
    composition = make_composition(owner=ada)
    if status == "running":
        jobs.claim(composition.pk, "w")
    for act in (removing.remove, removing.remove_texts):
        composition.refresh_from_db()
        with pytest.raises(WrongState, match="Cancel it first"):
            act(composition, ada)
    jobs.cancel(composition, ada)
    if status == "running":
        jobs.confirm_cancelled(composition)
    removing.remove(composition, ada)


def test_a_published_one_is_its_adapters_lineage_until_that_is_deleted(ada):
    composition = published(ada)
    with pytest.raises(WrongState, match="Delete the adapter first"):
        removing.remove(composition, ada)
    assert composition.adapter
    withdraw(composition.adapter, actor=ada)
    removing.remove(composition, ada)
    assert Adapter.objects.get(name="mix").deleted_at, "its name is not given to another"


def test_one_whose_adapter_others_are_made_of_stays_when_that_is_deleted(ada):
    composition = published(ada)
    bob = make_user("bob")
    assert composition.adapter
    assert composition.adapter.head
    child = make_composition(owner=bob)
    Candidate.objects.filter(composition=child, position=0).update(revision=composition.adapter.head)
    withdraw(composition.adapter, actor=ada)
    with pytest.raises(WrongState, match="were offered what it made"):
        removing.remove(composition, ada)
    jobs.cancel(child, bob)
    removing.remove(child, bob)
    composition.refresh_from_db()
    removing.remove(composition, ada)


def test_removing_gives_no_days_score_back(ada):
    task = make_task("colours", rows=5, test_rows=20)
    composition = finish(make_composition(owner=ada, task=task, examples=make_examples(5)))
    with pytest.raises(WrongState, match="counts for the day: it can be removed from"):
        removing.remove(composition, ada)
    assert len(daily_limit.used(ada, task)) == 1
    Composition.objects.update(created_at=timezone.now() - timedelta(hours=25))
    composition.refresh_from_db()
    removing.remove(composition, ada)


def test_texts_go_at_once_from_a_published_one_too(ada):
    composition = published(ada)
    page = client_of(ada).get(f"/compositions/{composition.pk}").content.decode()
    assert "Remove the texts" in page
    assert "Delete the adapter first" in page
    Kept.objects.create(composition=composition, key="answers", value='["yes"]')
    removing.remove_texts(composition, ada)
    composition.refresh_from_db()
    assert composition.examples_removed_at
    assert composition.predictions == []
    assert not composition.kept.exists(), "what was kept for another attempt quotes them"
    assert all(row == {"input": "", "output": ""} for row in composition.examples)
    page = client_of(ada).get(f"/compositions/{composition.pk}").content.decode()
    assert "Remove the texts" not in page
    assert "Its texts were removed" in page
    removing.remove_texts(composition, ada)  # twice is no error


def test_only_the_owner_may(ada):
    own, seen = finish(make_composition(owner=ada)), published(ada)
    bob = make_user("bob")
    for act in (removing.remove, removing.remove_texts):
        with pytest.raises(NoSuchComposition):
            act(own, bob)
        with pytest.raises(Forbidden):
            act(seen, bob)
    assert "Remove" not in client_of(bob).get(f"/compositions/{seen.pk}").content.decode()


def test_by_page_and_by_script(ada):
    first, second, third = (finish(make_composition(owner=ada, seed=seed)) for seed in range(3))
    client = client_of(ada)
    answer = client.post(f"/compositions/{first.pk}/remove", follow=True)
    assert answer.redirect_chain == [("/compositions", 302)]
    assert "is removed" in answer.content.decode()
    client.post(f"/compositions/{second.pk}/remove-texts")
    token = make_token(ada, scope="write")
    script = Client(headers={"authorization": f"Bearer {token}"})
    assert script.delete(f"/api/v1/compositions/{third.pk}/texts/").status_code == 204
    second.refresh_from_db()
    third.refresh_from_db()
    assert second.examples_removed_at
    assert third.examples_removed_at
    assert script.delete(f"/api/v1/compositions/{third.pk}/").status_code == 204
    assert script.get(f"/api/v1/compositions/{third.pk}/").status_code == 404
    waiting = make_composition(owner=ada)
    refused = script.delete(f"/api/v1/compositions/{waiting.pk}/")
    assert refused.status_code == 409
    assert "Cancel it first" in refused.json()["message"]
    assert set(Composition.objects.values_list("pk", flat=True)) == {second.pk, waiting.pk}


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_who_removes_while_it_is_published_waits_and_finds_the_adapter(ada, tmp_path, monkeypatch):
    composition = finished(tmp_path, owner=ada)
    beside = Beside()
    removes = lambda: removing.remove(composition, ada)  # noqa: E731
    after(publishing, "_keep_task_score", lambda: beside.start(removes), monkeypatch)
    publishing.publish_composition(composition, actor=ada, namespace=namespace_of(ada), name="mixed")
    assert "Delete the adapter first" in beside.error().message
    assert Composition.objects.exists()
