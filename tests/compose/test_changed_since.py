"""What a result is made of or scored on that is otherwise now: the page says it, and so does the API."""

from __future__ import annotations

from html import unescape

import pytest
from django.test import Client

from compose.models import Composition
from registry import publishing, task_sets
from registry.models import Adapter, BaseModel, User
from tests.compose.factories import finish, make_composition, make_modules
from tests.compose.test_api import URL, client_of
from tests.factories import make_adapter, make_base_model, make_revision, make_task, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def made(ann: User) -> Composition:
    """Of three modules of somebody else's, on a base that is hosted here, scored on a task's hidden rows."""
    base_model = make_base_model(kind=BaseModel.Kind.HOSTED, commit="a" * 40)
    make_modules(base_model, 3, owner=make_user("maker"), visibility="public")
    task = make_task("colours", rows=5, test_rows=20, base_model=base_model, is_held_out=True)
    composition = finish(make_composition(owner=ann, base_model=base_model, task=task, examples=[]))
    Composition.objects.update(base_commit="a" * 40)
    return composition


def said(composition: Composition, reader: User) -> list[str]:
    """By the API; the page says the same."""
    sentences: list[str] = client_of(reader).get(f"{URL}{composition.pk}/").json()["changed_since"]
    client = Client()
    client.force_login(reader)
    page = unescape(client.get(composition.get_absolute_url()).content.decode())
    assert all(f'<p class="live-warning">{sentence}</p>' in page for sentence in sentences)
    return sentences


def test_a_new_result_has_nothing_to_say(made: Composition, ann: User):
    assert said(made, ann) == []


def test_other_rows_and_other_files_of_the_base_are_said(made: Composition, ann: User):
    assert made.task is not None
    rows = [{"input": f"new {number}", "output": "x"} for number in range(30)]
    task_sets.save_rows(made.task, few_shot=rows[:5], test=rows[5:])
    BaseModel.objects.update(commit="b" * 40)
    of_task, of_base = said(made, ann)
    assert "this is scored on its revision 1, and the newest is 2" in of_task
    assert of_base.startswith("The files of demo/tiny-t5 changed since")


def test_newer_weights_of_a_module_are_said_and_a_newer_card_is_not(made: Composition, ann: User):
    first, second = Adapter.objects.filter(name__in=["part-0", "part-1"]).order_by("name")
    make_revision(first, tensor_sha256="f" * 64)
    make_revision(second)  # as in these tests no weights were read, they are the same
    assert said(made, ann) == ["maker/part-0 has newer weights since: this is made of those of then."]


def test_a_module_that_was_deleted_is_named(made: Composition, ann: User):
    module = Adapter.objects.get(name="part-1")
    publishing.withdraw(module, actor=User.objects.get(username="maker"))
    assert said(made, ann) == ["Deleted since: maker/part-1. What was made of it stays."]


def test_of_a_module_that_is_not_public_nothing_is_told(made: Composition, ann: User):
    first, second = Adapter.objects.filter(name__in=["part-0", "part-1"])
    make_revision(first, tensor_sha256="f" * 64)
    Adapter.objects.filter(pk__in=[first.pk, second.pk]).update(visibility="private")
    publishing.withdraw(second, actor=User.objects.get(username="maker"))
    Composition.objects.update(adapter=make_adapter("made", owner=ann, kind="composed"))
    assert said(made, make_user("eve")) == []
    assert said(made, ann) == ["Deleted since: maker/part-1. What was made of it stays."]


def test_a_composition_that_has_no_result_yet_says_nothing(ann: User):
    composition = make_composition(owner=ann)
    make_revision(Adapter.objects.get(name="part-1"), tensor_sha256="f" * 64)
    assert client_of(ann).get(f"{URL}{composition.pk}/").json()["changed_since"] == []
