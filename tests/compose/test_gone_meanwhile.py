"""What a composition is asked for goes at that very moment: a refusal in words or a deletion that waits, never half of both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from compose import jobs, leaving, making_tasks
from compose.engine.types import Example
from compose.errors import GoneMeanwhile, NoSuchComposition
from compose.jobs import asking, holding, queue
from compose.making_tasks import TaskInUse
from compose.models import Composition
from compose.publishing import publish_composition
from registry import import_jobs, likes, organisations, publishing, task_sets, tombstones
from registry.models import Adapter, ImportItem, ImportJob, Task, User
from tests.beside import Beside, after
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.visitors import token_of
from web.errors import Conflict, Forbidden, NotFound

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def modules(bob: User) -> list[Adapter]:
    return make_modules(make_base_model(), owner=bob)


@pytest.fixture
def task(bob: User, modules: list[Adapter]) -> Task:
    made: dict[str, Any] = {"is_held_out": True, "created_by": bob, "owner": namespace_of(bob)}
    return make_task("passing", rows=5, test_rows=20, base_model=modules[0].base_model, **made)


GOING: dict[str, Callable[[Task, User], object]] = {
    "deleted": lambda task, owner: making_tasks.delete_task(task, actor=owner),
    "private": lambda task, owner: making_tasks.change_task(task, actor=owner, is_private=True),
}


@pytest.mark.parametrize("how", GOING)
def test_a_task_that_goes_before_the_composition_is_saved_is_told(how, bob, task, monkeypatch):
    after(asking, "plan_for", lambda: GOING[how](Task.objects.get(), bob), monkeypatch)
    with pytest.raises(
        GoneMeanwhile, match=r"Passing was deleted or hidden at the moment you asked"
    ) as refusal:
        make_composition(task=task, examples=())
    assert (refusal.value.status, list(refusal.value.fields)) == (409, ["task"])
    assert not Composition.objects.exists()


def test_what_its_members_ask_for_does_not_name_a_task_that_becomes_private_meanwhile(bob, task, monkeypatch):
    after(asking, "plan_for", lambda: GOING["private"](Task.objects.get(), bob), monkeypatch)
    with pytest.raises(GoneMeanwhile):
        make_composition(task=task, examples=(), owner=bob)
    again = make_composition(task=Task.objects.get(), examples=(), owner=bob)
    assert "passing" not in f"{again.title} {again.split_note}".lower()


@pytest.mark.parametrize("how", ["deleted", "private"])
def test_a_module_that_goes_before_the_composition_is_saved_is_told(how, bob, modules, monkeypatch):
    if how == "deleted":
        after(asking, "plan_for", lambda: publishing.withdraw(modules[1], actor=bob), monkeypatch)
    else:
        hidden = Adapter.objects.filter(pk=modules[1].pk)
        after(asking, "plan_for", lambda: hidden.update(visibility="private"), monkeypatch)
    with pytest.raises(GoneMeanwhile, match=r"bob/part-1 .*Ask again") as refusal:
        make_composition()
    assert list(refusal.value.fields) == ["candidates"]
    assert not Composition.objects.exists()


def test_an_account_that_is_deleted_while_it_asks_is_told(modules, monkeypatch):
    ada = make_user("ada")
    after(asking, "plan_for", lambda: leaving.delete_account(ada, actor=ada), monkeypatch)
    with pytest.raises(Forbidden, match="account is deleted"):
        make_composition(owner=ada)
    assert not Composition.objects.exists()


def test_of_two_who_delete_a_task_at_once_the_second_is_told(bob, task):
    making_tasks.delete_task(Task.objects.get(), actor=bob)
    with pytest.raises(NotFound, match="deleted already"):
        making_tasks.delete_task(task, actor=bob)


@pytest.mark.parametrize("how", ["deleted", "private"])
def test_a_task_that_goes_while_a_module_names_it_is_told(how, bob, modules, task, monkeypatch):
    Task.objects.update(owner=namespace_of(make_user("carol")))
    act = {"deleted": lambda rows: rows.delete(), "private": lambda rows: rows.update(is_private=True)}[how]
    monkeypatch.setattr(task_sets, "keep_from_deletion", act)
    with pytest.raises(Conflict, match="Passing was deleted or hidden at this moment"):
        publishing.update_adapter(modules[0], actor=bob, task="passing")
    assert not Adapter.objects.exclude(task=None).exists()


# --- Two connections: one acts while the other has not committed ----------------------------------------------------


@pytest.fixture
def beside() -> Beside:
    return Beside()


@pytest.mark.postgres_only
def test_the_deletion_of_a_task_waits_for_a_composition_that_is_being_saved(bob, task, beside, monkeypatch):
    delete = lambda: making_tasks.delete_task(task, actor=bob)  # noqa: E731
    after(asking.log, "write", lambda: beside.start(delete), monkeypatch)
    composition = make_composition(task=task, examples=())
    assert isinstance(beside.error(), TaskInUse)
    composition.refresh_from_db()
    assert composition.task == task


@pytest.mark.postgres_only
def test_new_rows_and_another_metric_at_once_wait_for_each_other_and_both_come(
    bob, task, beside, monkeypatch
):
    rows = [Example(f"another question {number}", str(number)) for number in range(40)]
    divided = making_tasks.divide(rows, task=task)
    give = lambda: making_tasks.new_rows(Task.objects.get(), actor=bob, rows=divided)  # noqa: E731
    after(making_tasks, "_forget_name", lambda: beside.start(give), monkeypatch)
    making_tasks.change_task(task, actor=bob, is_private=True, metric="token_f1")
    assert beside.error() is None
    numbers = Task.objects.get().revisions.order_by("number").values_list("number", flat=True)
    assert list(numbers) == [1, 2, 3]


@pytest.mark.postgres_only
def test_a_composition_waits_for_the_deletion_of_its_task_and_is_refused(bob, task, beside, monkeypatch):
    ask = lambda: make_composition(task=task, examples=())  # noqa: E731
    after(making_tasks, "_record", lambda: beside.start(ask), monkeypatch)
    making_tasks.delete_task(task, actor=bob)
    assert isinstance(beside.error(), GoneMeanwhile)
    assert not Composition.objects.exists()
    assert not Task.objects.exists()


@pytest.mark.postgres_only
def test_the_deletion_of_an_account_waits_for_a_composition_for_its_task(bob, task, beside, monkeypatch):
    delete = lambda: leaving.delete_account(bob, actor=bob)  # noqa: E731
    after(asking.log, "write", lambda: beside.start(delete), monkeypatch)
    composition = make_composition(task=task, examples=())
    assert beside.error() is None
    composition.refresh_from_db()
    assert composition.task == task
    assert not User.objects.filter(username="bob").exists()


@pytest.mark.postgres_only
def test_a_composition_waits_for_the_deletion_of_a_module_and_is_refused(bob, modules, beside, monkeypatch):
    ask = lambda: make_composition(candidates=[module.head for module in modules])  # noqa: E731
    after(tombstones, "_clear", lambda: beside.start(ask), monkeypatch)
    publishing.withdraw(modules[1], actor=bob)
    assert isinstance(beside.error(), GoneMeanwhile)
    assert not Composition.objects.exists()


@pytest.mark.postgres_only
def test_who_asks_takes_modules_and_task_as_whoever_deletes_their_account_does(
    bob, task, beside, monkeypatch
):
    delete = lambda: leaving.delete_account(bob, actor=bob)  # noqa: E731
    after(task_sets, "kept", lambda: beside.start(delete), monkeypatch)
    composition = make_composition(task=task, examples=())
    assert beside.error() is None
    composition.refresh_from_db()
    assert composition.task == task


@pytest.mark.postgres_only
def test_two_who_like_each_others_modules_and_delete_their_accounts_at_once(
    bob, modules, beside, monkeypatch
):
    ada = make_user("ada")
    likes.like(make_adapter("m", owner=ada), actor=bob)
    likes.like(modules[0], actor=ada)
    delete = lambda: leaving.delete_account(bob, actor=bob)  # noqa: E731
    after(tombstones, "close_namespace", lambda: beside.start(delete), monkeypatch)
    leaving.delete_account(ada, actor=ada)
    assert beside.error() is None
    assert not User.objects.exists()
    assert set(Adapter.objects.values_list("likes", flat=True)) == {0}


@pytest.mark.postgres_only
def test_a_member_who_publishes_in_an_organisation_and_deletes_their_account(
    bob, tmp_path, beside, monkeypatch
):
    make_base_model()
    ada = make_user("ada")
    lab = make_organisation("lab", members={ada: "admin", bob: "write"})
    adapter = publish_fake(tmp_path, "m", owner=bob, namespace=lab)
    delete = lambda: leaving.delete_account(bob, actor=bob)  # noqa: E731
    after(publishing, "write_revision", lambda: beside.start(delete), monkeypatch)
    publish_fake(tmp_path, "m", owner=bob, namespace=lab, config={"rank": 3})
    assert beside.error() is None
    assert list(adapter.revisions.values_list("author", flat=True)) == [None, None]


@pytest.mark.postgres_only
def test_somebody_publishes_a_version_and_composes_with_it_at_once(bob, tmp_path, beside, monkeypatch):
    make_base_model()
    adapter = publish_fake(tmp_path, "m", owner=bob)
    ask = lambda: make_composition(owner=bob, candidates=[adapter.head])  # noqa: E731
    after(publishing, "write_revision", lambda: beside.start(ask), monkeypatch)
    publish_fake(tmp_path, "m", owner=bob, config={"rank": 3})
    assert beside.error() is None
    assert Composition.objects.get().candidates.get().revision == adapter.head


@pytest.mark.postgres_only
@pytest.mark.parametrize("how", ["private", "gone with its organisation"])
def test_a_task_is_hidden_or_deleted_when_what_came_of_a_composition_is_written(
    how, bob, modules, beside, monkeypatch
):
    lab = make_organisation("lab", members={bob: "admin"})
    made: dict[str, Any] = {
        "is_held_out": True,
        "created_by": bob,
        "owner": lab,
        "is_private": how != "private",
    }
    task = make_task("passing", rows=5, test_rows=20, base_model=modules[0].base_model, **made)
    composition = make_composition(owner=bob, task=task, examples=())
    act = {
        "private": lambda: making_tasks.change_task(task, actor=bob, is_private=True),
        "gone with its organisation": lambda: organisations.delete_organisation(lab, actor=bob),
    }[how]
    after(holding, "_keep_weights", lambda: beside.start(act), monkeypatch)
    finish(composition)
    assert beside.error() is None
    composition.refresh_from_db()
    assert composition.status == Composition.Status.SUCCEEDED
    assert composition.task_id == (task.pk if how == "private" else None)


@pytest.mark.postgres_only
def test_an_import_ends_while_its_owner_deletes_the_account(bob, modules, beside, monkeypatch):
    job = ImportJob.objects.create(owner=bob, namespace=namespace_of(bob), sources=["a/b"])
    item = ImportItem.objects.create(job=job, position=0, source="a/b")
    end = lambda: import_jobs._close(item, ImportItem.Status.IMPORTED, adapter=modules[0])  # noqa: E731
    after(tombstones, "close_namespace", lambda: beside.start(end), monkeypatch)
    leaving.delete_account(bob, actor=bob)
    assert beside.error() is None
    assert not ImportItem.objects.exists()


def test_a_worker_writes_of_what_it_takes_while_the_owner_cannot_delete_the_account(
    bob, modules, monkeypatch
):
    composition = make_composition(owner=bob)
    held: list[bool] = []
    after(queue.log, "write", lambda: held.append(connection.in_atomic_block), monkeypatch)
    assert jobs.claim(composition.pk, "worker") is not None
    assert held == [True]


def test_a_task_that_goes_before_it_is_changed_is_told(bob, task):
    rows = making_tasks.divide([Example(f"another {number}", str(number)) for number in range(40)], task=task)
    making_tasks.delete_task(Task.objects.get(), actor=bob)
    for change in (
        lambda: making_tasks.change_task(task, actor=bob, title="Another"),
        lambda: making_tasks.new_rows(task, actor=bob, rows=rows),
    ):
        with pytest.raises(NotFound, match="task passing was deleted meanwhile"):
            change()


def test_a_composition_that_goes_before_it_is_published_is_told(bob, modules):
    composition = finish(make_composition(owner=bob))
    Composition.objects.all().delete()
    with pytest.raises(NoSuchComposition):
        publish_composition(composition, actor=bob, namespace=namespace_of(bob), name="made")


@pytest.mark.parametrize("act", [jobs.cancel, jobs.stop, jobs.share, jobs.unshare])
def test_a_composition_that_goes_before_something_is_done_with_it_is_told(act, bob, modules):
    composition = make_composition(owner=bob)
    Composition.objects.all().delete()
    with pytest.raises(NoSuchComposition):
        act(composition, bob)


def test_a_composition_that_goes_while_a_script_reads_it_is_told(bob, modules, monkeypatch):
    composition = make_composition(owner=bob)
    after(jobs, "visible_composition", lambda: Composition.objects.all().delete(), monkeypatch)
    answer = Client().get(f"/api/v1/compositions/{composition.pk}/", headers=token_of(bob))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_what_was_just_asked_for_finds_its_modules_files_whatever_is_deleted(bob, modules):
    composition = make_composition()
    publishing.withdraw(modules[1], actor=bob)
    for candidate in composition.candidates.all():
        assert candidate.revision.files.count() == 2
    assert jobs.claim(composition.pk, "worker") is not None
