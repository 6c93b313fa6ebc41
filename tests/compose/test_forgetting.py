"""Few-shot texts are kept for FEW_SHOT_KEPT_DAYS after the end, and what was measured on them for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from compose import jobs, recipes
from compose.jobs import forgetting
from compose.models import Composition
from tests.compose.factories import finish, make_composition, make_examples

pytestmark = pytest.mark.django_db
SECRET = "question"


def ended(days_ago: int) -> Composition:
    composition = finish(make_composition(examples=make_examples(16)))
    Composition.objects.filter(pk=composition.pk).update(
        finished_at=timezone.now() - timedelta(days=days_ago)
    )
    return composition


def dump(composition: Composition) -> str:
    """Everything the database holds of it, as text."""
    tables = {
        "compose_composition": "id",
        "compose_logline": "composition_id",
        "compose_score": "composition_id",
    }
    with connection.cursor() as cursor:
        rows = []
        for table, column in tables.items():
            cursor.execute(f"SELECT * FROM {table} WHERE {column} = %s", [composition.pk])
            rows += cursor.fetchall()
    return str(rows)


def test_texts_go_after_their_time_and_the_figures_stay():
    old, recent = ended(days_ago=366), ended(days_ago=364)
    rows = (len(old.examples), len(old.test_examples))
    assert jobs.forget_texts() == 1
    after = Composition.objects.get(pk=old.pk)
    assert SECRET not in dump(old)
    assert (len(after.examples), len(after.test_examples)) == rows
    assert after.predictions == []
    assert after.examples_removed_at
    assert after.scores.count() == 2
    assert after.result == old.result
    assert SECRET in dump(recent)
    assert jobs.forget_texts() == 0, "once is enough"


def test_all_that_are_due_go_however_many(monkeypatch):
    monkeypatch.setattr(forgetting, "AT_ONCE", 1)
    for days in (366, 400, 800):
        ended(days_ago=days)
    assert jobs.forget_texts() == 3


def test_a_reason_that_may_quote_them_goes_too():
    claimed = jobs.claim(make_composition().pk, "w")
    assert claimed
    jobs.fail(claimed, "Example 1, “question 0”, is too long.")
    Composition.objects.update(finished_at=timezone.now() - timedelta(days=400))
    jobs.forget_texts()
    after = Composition.objects.get()
    assert "no longer kept" in after.error
    assert SECRET not in dump(after)


@pytest.mark.parametrize("status", ["queued", "running"])
def test_what_has_not_ended_keeps_its_texts_however_old_it_is(status, settings):
    composition = make_composition()
    if status == "running":
        jobs.claim(composition.pk, "w")
    Composition.objects.update(created_at=timezone.now() - timedelta(days=4000))
    assert jobs.forget_texts() == 0


def test_a_site_may_keep_them_for_ever(settings):
    settings.FEW_SHOT_KEPT_DAYS = 0
    ended(days_ago=4000)
    assert jobs.forget_texts() == 0


def test_to_compose_again_says_that_the_examples_are_gone(client):
    old = ended(days_ago=400)
    jobs.forget_texts()
    client.force_login(old.owner)
    page = client.get(f"/compose?again={old.pk}").content.decode()
    assert "The examples of this composition were removed" in page
    assert page.count('name="example_input"') == 5


def test_a_recipe_names_no_hash_of_what_is_gone():
    old = ended(days_ago=366)
    assert recipes.recipe(old)["examples"]["sha256"] == recipes.hash_of(old.examples)
    jobs.forget_texts()
    after = recipes.recipe(Composition.objects.get(pk=old.pk))
    assert after["examples"] == {"count": len(old.examples), "sha256": None}
    assert recipes.read(recipes.as_text(after)) == after
