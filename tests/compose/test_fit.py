from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from compose import fit, usefulness
from compose.engine.types import Example
from registry import standing
from registry.models import Adapter, BaseModel, Download, SearchRow
from registry.search import AdapterQuery, find
from registry.standing import Usefulness
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import make_adapter, make_base_model, make_task, make_token, make_user

pytestmark = pytest.mark.django_db
COLOURS = [
    Example("Anna saw a red hen.", '"red"'),
    Example("Two green pens lay there.", '"green"'),
    Example("He bought a blue cup.", '"blue"'),
]
LINES = "\n".join(f"{row.input}\t{row.output}" for row in COLOURS)


def make_trained(name: str, base_model: BaseModel, rows: list[tuple[str, str]], **fields: Any) -> Adapter:
    """A module whose task shows these rows."""
    task = make_task(f"task-{name}")
    for position, (given, expected) in enumerate(rows):
        task.rows.create(split="few_shot", position=position, input=given, output=expected)
    return make_adapter(name, base_model=base_model, task=task, **fields)


@pytest.fixture
def base_model() -> BaseModel:
    base_model = make_base_model()
    make_trained("colour-plain", base_model, [("Bob saw a red cat.", "red"), ("A green door.", "green")])
    make_trained(
        "place-quoted", base_model, [("Eve went to the park.", '"park"'), ("In the mill.", '"mill"')]
    )
    make_trained("counting", base_model, [("7 plus 4", "11 1"), ("2 plus 2", "4 0")])
    make_adapter("hidden", base_model=base_model, visibility="private")
    return base_model


def ranked(base_model: BaseModel) -> list[fit.Fit]:
    return fit.rank_modules(examples=COLOURS, base_model=base_model, person=None).ranked


def test_modules_whose_answers_share_words_or_form_come_before_those_that_share_nothing(base_model):
    fits = ranked(base_model)
    assert [item.adapter.name for item in fits][2] == "counting"
    by_name = {item.adapter.name: item for item in fits}
    assert any("same words" in reason for reason in by_name["colour-plain"].reasons)
    assert any('the form of yours: " x "' in reason for reason in by_name["place-quoted"].reasons)
    assert by_name["counting"].value < 0.1


def test_what_one_may_not_see_is_not_ranked(base_model):
    assert "hidden" not in {item.adapter.name for item in ranked(base_model)}


def test_what_other_peoples_compositions_gained_is_evidence_and_ones_own_is_not(base_model):
    modules = make_modules(base_model, 3)
    finish(make_composition(base_model=base_model, modules=0, candidates=[m.head for m in modules]))
    usefulness.refresh_standing()
    used = {item.adapter.name: item for item in ranked(base_model)}["part-0"]
    assert used.parts["past"] == 1.0
    assert any(
        "1 composition by others than its author gave it a weight" in reason for reason in used.reasons
    )


def test_ones_own_compositions_make_no_module_useful():
    owner, base_model = make_user(), make_base_model()
    make_modules(base_model, 3, owner=owner)
    Adapter.objects.update(created_by=owner)
    finish(make_composition(owner=owner, base_model=base_model))
    usefulness.refresh_standing()
    assert not SearchRow.objects.filter(uses__gt=0).exists()


def test_the_search_sorts_by_usefulness_and_by_what_is_trending():
    base_model = make_base_model()
    finish(make_composition(base_model=base_model))
    loved, old = make_adapter("loved"), make_adapter("old")
    assert loved.head is not None
    assert old.head is not None
    today = timezone.now().date()
    for number in range(5):
        Download.objects.create(revision=loved.head, client_sha256=str(number), day=today)
    for number in range(9):
        long_ago = today - timedelta(days=12)
        Download.objects.create(revision=old.head, client_sha256=str(number), day=long_ago)
    assert usefulness.refresh_standing() == 5
    assert usefulness.refresh_standing() == 0
    found = find(AdapterQuery(sort="useful"), person=None).items
    # make_result gives the first part the largest attribution.
    assert found[0].name == "part-0"
    names = [item.name for item in find(AdapterQuery(sort="trending"), person=None).items]
    assert names.index("loved") < names.index("old")


def test_standing_is_written_for_more_adapters_than_a_query_takes_values():
    module = make_adapter("useful")
    useful = {pk: Usefulness(0.1, 1) for pk in range(module.pk, module.pk + 70_000)}
    assert standing.refresh(usefulness=useful) == 1


def test_a_useful_module_that_was_deleted_stays_out_of_the_list(base_model):
    Adapter.objects.filter(name="colour-plain").update(deleted_at=timezone.now())
    assert "colour-plain" not in {item.adapter.name for item in ranked(base_model)}


@pytest.mark.parametrize(
    ("answer", "form"),
    [("It is red.", "it is x ."), ('"red"', '" x "'), ("red red", "x ="), ("12 cats", "0 x"), ("", "")],
)
def test_the_form_of_an_answer_is_what_stays_without_its_words(answer, form):
    assert fit.form_of(answer) == form


def test_the_page_ranks_and_hands_the_examples_on_to_the_compose_form(base_model):
    client = Client()
    empty = client.get("/modules/fit")
    assert empty.status_code == 200
    assert f'<option value="{base_model.name}" selected>' in empty.content.decode(), (
        "nothing to choose, and asked for"
    )
    with CaptureQueriesContext(connection) as queries:
        page = client.post("/modules/fit", {"base_model": base_model.name, "examples_text": LINES})
    assert len(queries) <= 15
    read = [query["sql"].partition("FROM")[0] for query in queries]
    assert not any("matrices" in columns or "facts" in columns for columns in read), "of thousands of modules"
    text = page.content.decode()
    assert "colour-plain" in text
    assert "form of yours" in text
    given = {
        "action": "refresh",
        "base_model": base_model.name,
        "examples_text": LINES,
        "pin": [Adapter.objects.get(name="colour-plain").full_name],
        "method": "auto",
    }
    form = client.post("/compose", given)
    assert form.status_code == 200
    assert "Two green pens lay there." in form.content.decode()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"base_model": "nobody/knows", "examples_text": LINES}, "Choose a base model"),
        ({"base_model": "demo/tiny-t5", "examples_text": ""}, "There are no examples"),
        ({"base_model": "demo/tiny-t5", "examples_text": "one\ttwo\nalone"}, "Row 2"),
    ],
)
def test_the_page_says_what_is_wrong_and_keeps_what_was_typed(base_model, data, sentence):
    page = Client().post("/modules/fit", data)
    assert page.status_code == 422
    assert sentence in page.content.decode()
    assert escape(data["examples_text"].split("\n")[0]) in page.content.decode()


def test_the_endpoint_answers_strangers_and_tokens_and_refuses_bad_input(base_model):
    client = Client()
    rows = [{"input": row.input, "output": row.output} for row in COLOURS]
    given = {"base_model": base_model.name, "examples": rows, "limit": 2}
    answer = client.post("/api/v1/adapters/fit/", given, content_type="application/json")
    assert answer.status_code == 200, answer.content
    assert (answer.json()["fitting"], answer.json()["considered"], len(answer.json()["results"])) == (3, 3, 2)
    assert answer.json()["results"][0]["reasons"]
    token = {"Authorization": f"Bearer {make_token(make_user(), 'read')}"}
    assert client.post("/api/v1/adapters/fit/", given, "application/json", headers=token).status_code == 200
    changes: list[dict[str, Any]] = [
        {"base_model": "nobody/knows"},
        {"examples": []},
        {"limit": 0},
        {"extra": 1},
    ]
    for change in changes:
        bad = client.post("/api/v1/adapters/fit/", {**given, **change}, content_type="application/json")
        assert bad.status_code in {400, 404}
        assert set(bad.json()) >= {"code", "message", "fields"}
