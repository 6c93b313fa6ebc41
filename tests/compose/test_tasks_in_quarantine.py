"""What was composed for a public task says nothing of it while it is in quarantine, to those who do not see it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from django.apps import apps
from django.core.cache import cache
from django.test import Client

from compose import making_tasks
from compose.models import Composition
from registry import moderation, storage
from registry.models import Adapter, BaseModel, Namespace, RevisionFile, Task, User
from tests.compose.factories import make_composition
from tests.compose.test_private_tasks import TITLE, made_by, published, scored
from tests.factories import make_user, namespace_of
from tests.visitors import client_of, text_of, token_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def task(ada: User, lab: Namespace) -> Task:
    return made_by(ada, lab, is_private=False)


def hold(task: Task) -> None:
    moderation.quarantine(task, moderator=None, reason="It is an advertisement.")


@pytest.fixture
def mix(task: Task, bob: User, base_model: BaseModel, tmp_path: Any) -> Adapter:
    job = scored(task, bob, base_model)
    made = published(job, bob, namespace_of(bob), tmp_path / "made")
    # The card is a file and stays as it was; what our own pages say is looked at here.
    RevisionFile.objects.filter(revision=made.head, path="README.md").delete()
    hold(task)
    return made


def test_what_was_published_for_it_names_it_to_nobody_who_does_not_see_it(mix: Adapter, task: Task):
    job = Composition.objects.get(adapter=mix)
    eve = make_user("eve")
    urls = [f"/compositions/{job.pk}", f"/api/v1/compositions/{job.pk}/", "/bob/mix", "/api/v1/adapters/bob/mix/",
            "/api/v1/adapters/bob/mix/lineage/", "/bob/mix/lineage", "/bob", "/", "/modules", "/modules/feed.atom",
            "/bob/feed.atom", "/bob/mix/feed.atom", "/api/models/bob/mix", "/api/models?full=true",
            "/api/v1/adapters/", "/api/v1/adapters/facets/", f"/api/v1/compositions/{job.pk}/recipe/",
            f"/compositions/{job.pk}/recipe.json", "/maker/part-0"]  # fmt: skip
    for name, client, headers in (
        ("guest", Client(), None),
        ("stranger", client_of(eve), None),
        ("token", Client(), token_of(eve)),
    ):
        cache.clear()
        for url in urls:
            text = text_of(client.get(url, headers=headers)).lower()
            assert "zanzibar" not in text, (url, name)
            assert "quokka" not in text, (url, name)


def test_its_owner_keeps_the_title_that_they_know(mix: Adapter, bob: User):
    job = Composition.objects.get(adapter=mix)
    assert job.title == TITLE
    assert TITLE in text_of(client_of(bob).get(f"/compositions/{job.pk}"))
    assert Client().get(f"/api/v1/compositions/{job.pk}/", headers=token_of(bob)).json()["title"] == TITLE
    assert Client().get(f"/api/v1/compositions/{job.pk}/").json()["title"] == f"Composition {job.pk}"
    moderation.release(Task.objects.get(), moderator=None)
    assert Client().get(f"/api/v1/compositions/{job.pk}/").json()["title"] == TITLE


def test_what_is_published_meanwhile_does_not_name_it(
    task: Task, bob: User, base_model: BaseModel, tmp_path: Any
):
    job = scored(task, bob, base_model)
    hold(task)
    made = published(job, bob, namespace_of(bob), tmp_path / "made")
    texts = [
        b"".join(storage.open_blob(file.blob)).decode(errors="replace") for file in made.head.files.all()
    ]
    assert not [text for text in [made.description, *texts] if "zanzibar" in text.lower()]


def test_sentences_of_before_forget_the_name_too(mix: Adapter, task: Task):
    job = Composition.objects.get(adapter=mix)
    said = (
        f"Scored on 20 of the 27 hidden test rows of the task {task.slug}: the others are among the examples."
    )
    Composition.objects.filter(pk=job.pk).update(split_note=said)
    Adapter.objects.filter(pk=mix.pk).update(description=f"Composed from 3 LoRA modules: {TITLE}")
    forwards = import_module("compose.migrations.0016_notes_name_no_task").forwards
    forwards(apps, None)
    job.refresh_from_db()
    assert job.split_note == said.replace(f"the task {task.slug}", "its task")
    assert Adapter.objects.get(pk=mix.pk).description == "Composed from 3 LoRA modules"
    for own in ("Composed from 3 LoRA modules: for my thesis", f"Mine: {TITLE}"):
        Adapter.objects.filter(pk=mix.pk).update(description=own)
        forwards(apps, None)
        assert Adapter.objects.get(pk=mix.pk).description == own


# --- Renamed --------------------------------------------------------------------------------------------------------


def test_what_is_named_after_a_task_follows_it_where_it_is_renamed(
    task: Task, ada: User, bob: User, base_model: BaseModel
):
    job = scored(task, bob, base_model)
    own = make_composition(owner=bob, base_model=base_model, task=task, examples=[], title="For my thesis")
    making_tasks.change_task(task, actor=ada, title="Numbat dossier")
    for composition in (job, own):
        composition.refresh_from_db()
    assert (job.title, own.title) == ("Numbat dossier", "For my thesis")
    hold(task)
    assert Client().get(f"/api/v1/compositions/{job.pk}/").status_code == 404
    Composition.objects.filter(pk=job.pk).update(share_key="key")
    shared = text_of(Client().get(f"/compositions/{job.pk}?key=key")).lower()
    assert "zanzibar" not in shared
    assert "numbat" not in shared


def test_a_task_that_was_renamed_and_becomes_private_leaves_no_name_behind(
    task: Task, ada: User, base_model: BaseModel
):
    job = scored(task, ada, base_model)
    stale = Task.objects.get()
    making_tasks.change_task(task, actor=ada, title="Numbat dossier")
    making_tasks.change_task(stale, actor=ada, title=TITLE)
    job.refresh_from_db()
    assert job.title == TITLE, "whoever renamed it last"
    making_tasks.change_task(stale, actor=ada, is_private=True)
    making_tasks.change_task(stale, actor=ada, title="Quoll dossier")
    job.refresh_from_db()
    assert job.title.endswith("examples on tiny-t5")
