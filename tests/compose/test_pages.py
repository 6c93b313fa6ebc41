"""The pages about composing: each works, refuses strangers, and refuses bad input with a sentence."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from compose import candidates as choosing
from compose import charts, job_page, jobs, predictions
from compose.engine import types
from compose.models import Composition, Score
from registry import storage
from registry.models import Adapter, BaseModel, BaseModelFile, IdempotentAnswer, TaskRow, User
from registry.search import modules_by_base
from tests.compose.factories import (
    finish,
    make_composition,
    make_examples,
    make_modules,
    make_result,
    make_trials,
    owner_of,
)
from tests.conftest import ROOT
from tests.factories import make_adapter, make_base_model, make_revision, make_task, make_user, namespace_of
from web.typed_by import MARK_LENGTH

pytestmark = pytest.mark.django_db
MOST_QUERIES = 15


class Frugal(Client):
    """A browser that holds every page it asks for to MOST_QUERIES queries; savepoints of the test itself are none."""

    def get(self, path: Any, *args: Any, **options: Any) -> Any:
        with CaptureQueriesContext(connection) as queries:
            response = super().get(path, *args, **options)
        count = sum("SAVEPOINT" not in query["sql"] for query in queries)
        assert count <= MOST_QUERIES, f"{path} took {count} queries"
        return response


@pytest.fixture
def client() -> Client:
    return Frugal()


@pytest.fixture
def base_model() -> BaseModel:
    model = make_base_model("demo/tiny-t5", kind="hosted")
    make_modules(model, 3)
    return model


@pytest.fixture
def owner() -> User:
    return make_user("ada")


@pytest.fixture
def as_owner(client: Client, owner: User) -> Client:
    client.force_login(owner)
    return client


@pytest.fixture
def as_stranger() -> Client:
    stranger = Frugal()
    stranger.force_login(make_user("mallory"))
    return stranger


def filled(**changes: Any) -> dict[str, Any]:
    """A form as a person fills it."""
    fields = {
        "example_input": [f"question {number}" for number in range(5)],
        "example_output": [f"answer {number}" for number in range(5)],
        "base_model": "demo/tiny-t5",
        "choice": "auto",
        "method": "lorahub",
        "budget": "40",
        "seed": "1",
        "action": "compose",
    }
    return {**fields, **changes}


def text_of(response: Any) -> str:
    return str(response.content.decode())


def says(response: Any, sentence: str) -> bool:
    return escape(sentence) in text_of(response)


def publish_row(composition: Composition, **fields: Any) -> Adapter:
    """The composition as a published adapter, as rows."""
    adapter = make_adapter(
        f"made-{composition.pk}",
        namespace=namespace_of(owner_of(composition)),
        base_model=composition.base_model,
        kind="composed",
        **fields,
    )
    composition.adapter = adapter
    composition.save(update_fields=["adapter"])
    return adapter


# --- The form ------------------------------------------------------------------------------------------------


def test_the_form_is_open_to_everybody(client: Client, base_model: BaseModel):
    page = client.get("/compose")
    assert page.status_code == 200
    assert says(page, "demo/tiny-t5 (3 modules)")
    assert text_of(page).count('name="example_input"') == 5


def test_the_form_works_when_nothing_can_be_composed(client: Client):
    assert says(client.get("/compose"), "No base model has a module yet that can be composed.")


def test_a_task_to_try_fills_the_form(client: Client, base_model: BaseModel):
    make_task("colour-twice", rows=5, test_rows=20, is_held_out=True, base_model=base_model)
    page = client.get("/compose?task=colour-twice")
    assert says(page, "few_shot question 4")
    assert says(page, "the task has hidden test rows")
    assert "test question" not in text_of(page)


def test_composing_with_a_module_pins_it_and_leaves_the_others_to_us(client: Client, base_model: BaseModel):
    wanted = Adapter.objects.select_related("namespace").get(name="part-2").full_name
    page = text_of(client.get("/compose", {"base_model": "demo/tiny-t5", "pick": wanted}))
    assert re.findall(r'name="pin" value="([^"]+)" checked', page) == [wanted]
    assert 'value="auto" checked' in page


def test_a_task_that_cannot_be_tried_is_not_found(client: Client):
    make_task("trained-on")
    assert client.get("/compose?task=trained-on").status_code == 404


def test_a_form_that_is_sent_twice_composes_once(as_owner: Client, base_model: BaseModel):
    token = re.search(r'name="form_token" value="(\w+)"', text_of(as_owner.get("/compose")))
    assert token
    answers = [as_owner.post("/compose", filled(form_token=token[1])) for _ in range(2)]
    [composition] = Composition.objects.all()
    assert [answer["Location"] for answer in answers] == [composition.get_absolute_url()] * 2
    as_owner.post("/compose", filled(form_token=token[1], seed="2"))
    as_owner.post("/compose", filled(form_token="another page"))
    assert Composition.objects.count() == 3, "another request, and the same on another page, are new"


@pytest.mark.django_db(transaction=True)
def test_others_can_write_while_the_candidates_of_a_form_are_chosen(
    as_owner: Client, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    choose, blocked = choosing.choose, []

    def look(*arguments: Any, **options: Any) -> Any:
        blocked.append(connection.in_atomic_block)
        return choose(*arguments, **options)

    monkeypatch.setattr(choosing, "choose", look)
    answers = [as_owner.post("/compose", filled(form_token="x")) for _ in range(2)]
    assert answers[0]["Location"] == answers[1]["Location"]
    assert blocked == [False], "for the second click nothing is chosen again"


def test_a_form_that_comes_again_a_minute_later_was_meant(as_owner: Client, base_model: BaseModel):
    as_owner.post("/compose", filled(form_token="x"))
    IdempotentAnswer.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    as_owner.post("/compose", filled(form_token="x"))
    assert Composition.objects.count() == 2


def test_what_a_form_was_refused_for_is_not_remembered(
    as_owner: Client, base_model: BaseModel, settings: Any
):
    settings.MAX_WAITING_JOBS_PER_USER = 0
    assert as_owner.post("/compose", filled(form_token="x")).status_code >= 400
    settings.MAX_WAITING_JOBS_PER_USER = 1
    assert as_owner.post("/compose", filled(form_token="x")).status_code == 302


def test_composing_queues_a_composition_and_shows_it(as_owner: Client, base_model: BaseModel, owner: User):
    answer = as_owner.post("/compose", filled(title="My task"))
    composition = Composition.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, composition.get_absolute_url())
    assert (composition.owner, composition.title, composition.status) == (owner, "My task", "queued")
    assert composition.examples[4] == {"input": "question 4", "output": "answer 4"}


def test_rows_text_and_file_are_added_together(as_owner: Client, base_model: BaseModel):
    file = SimpleUploadedFile("more.csv", b"input;output\nfrom file;one\n")
    as_owner.post("/compose", filled(examples_text="pasted\ttwo", examples_file=file))
    examples = Composition.objects.get().examples
    assert len(examples) == 7
    assert {"input": "pasted", "output": "two"} in examples
    assert {"input": "from file", "output": "one"} in examples


def test_picked_modules_are_the_candidates(as_owner: Client, base_model: BaseModel):
    picked = [adapter.full_name for adapter in Adapter.objects.select_related("namespace").order_by("pk")[:2]]
    as_owner.post("/compose", filled(choice="picked", pick=picked))
    candidates = Composition.objects.get().candidates.all()
    assert [candidate.revision.adapter.full_name for candidate in candidates] == picked


BAD_INPUT = [
    ({"example_input": [""], "example_output": [""]}, "There are no examples."),
    ({"example_input": ["only one"], "example_output": ["yes"]}, "needs at least 2 examples; you gave 1."),
    ({"example_output": ["a", "", "c", "d", "e"]}, "Row 2 has no output."),
    ({"example_input": ["a,b\nc,d"], "example_output": [""]}, "If row 1 is several rows, paste them under"),
    ({"examples_text": '{"in": "x"}'}, "The pasted text: Row 1 has “in” where"),
    ({"examples_text": "a\tb\n" * 120}, "at most 100 are used"),
    ({"test_text": '{"input": "x"}'}, "Row 1 has an input and no output."),
    ({"base_model": "nobody/knows"}, "We do not know this base model."),
    ({"base_model": ""}, "Choose the base model"),
    ({"choice": "picked"}, "Pick at least one LoRA module"),
    ({"choice": "picked", "pick": ["nobody/nothing"]}, "There is no LoRA module 'nobody/nothing' here"),
    ({"budget": "0"}, "The search needs at least 1 trial."),
    ({"budget": "many"}, "The budget is a whole number of trials."),
    ({"budget": "999999"}, "At most 2000 trials are run"),
    ({"seed": "-1"}, "The seed is 0 or more."),
    ({"export_rank": "5000"}, "The rank is at most 1024."),
    ({"export_dtype": "int8"}, "There is no float type of this name."),
    ({"seed": ""}, "Give a whole number; the same one repeats the same search."),
    ({"method": "magic"}, "There is no method of this name."),
    ({"task": "no such task"}, "There is no such task to compose for any more."),
    ({"title": "x" * 201}, "at most 200 characters"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD_INPUT, ids=[sentence[:40] for _, sentence in BAD_INPUT])
def test_bad_input_is_refused_in_a_sentence_and_nothing_typed_is_lost(
    as_owner: Client, base_model: BaseModel, changes: dict[str, Any], sentence: str
):
    answer = as_owner.post("/compose", filled(**{"title": "Keep me", **changes}))
    assert 400 <= answer.status_code < 500
    assert says(answer, sentence)
    assert not says(answer, f"['{sentence[:20]}"), "the list is printed, not what is in it"
    assert Composition.objects.count() == 0
    if "title" not in changes:
        assert says(answer, "Keep me")
    if "example_input" not in changes:
        assert says(answer, "question 4")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8 text"),
        (b"PK\x03\x04rest", "This is a spreadsheet or zip file"),
        (b"\xef\xbb\xbfinput;output\na;\n", "Row 1 has no output."),
        (b"a\tb\n" * 100_000, "at most 100 are used"),
        (json.dumps({"input": "x" * 1_000_000, "output": "y"}).encode(), "the input has 1,000,000 bytes"),
    ],
    ids=["binary", "spreadsheet", "bom and semicolons", "100 000 rows", "1 MB input"],
)
def test_a_bad_file_is_refused_in_a_sentence(
    as_owner: Client, base_model: BaseModel, content: bytes, sentence: str
):
    answer = as_owner.post("/compose", filled(examples_file=SimpleUploadedFile("rows.csv", content)))
    assert answer.status_code == 422
    assert says(answer, f"The file: {sentence}"[10:])
    assert says(answer, "question 4")
    assert Composition.objects.count() == 0


def test_a_form_too_large_to_read_says_what_to_do(as_owner: Client, base_model: BaseModel):
    answer = as_owner.post("/compose", filled(examples_text="x" * 5_000_000))
    assert answer.status_code == 413
    assert says(answer, "The text in this form is larger than 4 MB. Give it as a file instead.")


@pytest.mark.parametrize(
    "field", ["title", "base_model", "choice", "pick", "filter", "method", "examples_text", "task"]
)
@pytest.mark.parametrize("action", ["compose", "refresh", "check"])
def test_a_nul_is_refused_wherever_it_stands(
    as_owner: Client, base_model: BaseModel, field: str, action: str
):
    changes = {"choice": "picked", field: "a\x00b", "action": action}
    assert as_owner.post("/compose", filled(**changes)).status_code in {200, 422}
    assert as_owner.post("/compose/check", filled(**changes)).status_code == 200
    assert Composition.objects.count() == 0


def test_what_was_read_from_a_file_is_kept_as_rows_when_something_else_is_wrong(
    as_owner: Client, base_model: BaseModel
):
    file = SimpleUploadedFile("more.jsonl", b'{"input": "from file", "output": "one"}\n')
    answer = as_owner.post("/compose", filled(budget="0", examples_file=file))
    assert re.search(r'name="example_input"[^>]*>from file</textarea>', text_of(answer))


def test_test_rows_of_a_file_are_kept_as_text_when_something_else_is_wrong(
    as_owner: Client, base_model: BaseModel
):
    file = SimpleUploadedFile("test.csv", b"input,output\nunseen,seven\n")
    answer = as_owner.post("/compose", filled(budget="0", test_file=file))
    assert says(answer, "unseen\tseven")


def test_a_refusal_of_the_domain_stands_beside_what_it_is_about(
    as_owner: Client, base_model: BaseModel, settings: Any
):
    settings.MAX_WAITING_JOBS_PER_USER = 0
    answer = as_owner.post("/compose", filled())
    assert answer.status_code == 429
    assert says(answer, "is the most one person may have")
    assert says(answer, "question 4")


def test_a_refusal_says_the_whole_sentence_beside_the_input(
    as_owner: Client, owner: User, base_model: BaseModel, settings: Any
):
    settings.MAX_SCORED_PER_TASK_PER_DAY = 1
    task = make_task("count", rows=5, test_rows=20, base_model=base_model, is_held_out=True)
    make_composition(owner=owner, base_model=base_model, task=task)
    answer = as_owner.post("/compose", filled(task="count"))
    assert answer.status_code == 429
    assert says(answer, "or compose on the same examples without naming the task")


def test_signing_in_comes_last_and_keeps_what_was_typed(client: Client, base_model: BaseModel):
    answer = client.post("/compose", filled(title="Before the sign-in", seed="77"))
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/?next=/compose%3Fdraft%3D1")
    assert Composition.objects.count() == 0

    make_user("late", password="correct horse battery")
    signed_in = client.post(
        answer["Location"], {"login": "late", "password": "correct horse battery"}, follow=True
    )
    assert signed_in.redirect_chain[-1][0] == "/compose?draft=1"
    assert says(signed_in, "Before the sign-in")
    assert says(signed_in, "question 4")
    assert 'value="77"' in text_of(signed_in)


def test_what_somebody_sent_after_their_session_ended_is_nobody_elses(client: Client, base_model: BaseModel):
    make_user("late", password="correct horse battery")
    ada = make_user("ada")
    client.force_login(ada)
    page = text_of(client.get("/compose"))
    mark = re.search(r'name="typed_by" value="(\w+)"', page)
    assert mark is not None
    client.logout()
    answer = client.post("/compose", filled(title="Mine alone", typed_by=mark[1]))
    signed_in = client.post(
        answer["Location"], {"login": "late", "password": "correct horse battery"}, follow=True
    )
    assert signed_in.redirect_chain[-1][0] == "/compose?draft=1"
    assert not says(signed_in, "Mine alone")
    client.logout()
    client.post("/compose", filled(title="Mine alone", typed_by=mark[1]))
    client.force_login(ada)
    assert says(client.get("/compose?draft=1"), "Mine alone")


def test_no_more_of_a_mark_is_kept_than_a_mark_has(client: Client, base_model: BaseModel):
    client.post("/compose", filled(typed_by="x" * 100_000))
    assert client.session["compose_draft"]["typed_by"] == "x" * MARK_LENGTH


def test_bad_input_is_told_before_anybody_has_to_sign_in(client: Client, base_model: BaseModel):
    assert says(client.post("/compose", filled(budget="0")), "The search needs at least 1 trial.")


def test_a_draft_too_large_to_keep_is_not_lost_either(
    client: Client, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("compose.forms.MAX_DRAFT_BYTES", 10)
    answer = client.post("/compose", filled())
    assert answer.status_code == 403
    assert says(answer, "Sign in first")
    assert says(answer, "question 4")


def test_check_only_says_what_would_happen_and_starts_nothing(as_owner: Client, base_model: BaseModel):
    answer = as_owner.post("/compose", filled(action="check"))
    assert says(answer, "This can be composed. Nothing was started.")
    assert says(answer, "All 3 modules that fit demo/tiny-t5.")
    assert Composition.objects.count() == 0


def test_check_only_lists_what_is_wrong(as_owner: Client, base_model: BaseModel, settings: Any):
    settings.MAX_WAITING_JOBS_PER_USER = 0
    assert says(as_owner.post("/compose", filled(action="check")), "This cannot be composed yet.")


def test_another_base_model_can_be_chosen_without_scripts(client: Client, base_model: BaseModel):
    other = make_base_model("demo/other")
    make_adapter("elsewhere", base_model=other)
    answer = client.post("/compose", filled(action="refresh", base_model="demo/other", choice="picked"))
    assert answer.status_code == 200
    assert says(answer, "/elsewhere")
    assert says(answer, "question 4")


def test_run_again_fills_the_form_with_the_earlier_request(
    as_owner: Client, base_model: BaseModel, owner: User
):
    earlier = make_composition(owner=owner, base_model=base_model, budget=77, seed=5)
    page = as_owner.get(f"/compose?again={earlier.pk}")
    assert says(page, "question 4")
    assert 'value="77"' in text_of(page)


def test_run_again_is_scored_on_the_same_rows_of_their_own_and_stopped_no_earlier(
    as_owner: Client, base_model: BaseModel, owner: User
):
    task = make_task("count", rows=5, test_rows=20, base_model=base_model, is_held_out=True)
    tests = make_examples(4, start=50)
    earlier = make_composition(
        owner=owner, base_model=base_model, task=task, test_examples=tests, time_limit_s=90
    )
    page = text_of(as_owner.get(f"/compose?again={earlier.pk}"))
    assert "question 53\tanswer 53" in page
    assert 'name="task" value="count"' in page
    assert re.search(r'name="time_limit"[^>]* value="2"', page)


def test_run_again_never_shows_the_examples_of_somebody_else(as_stranger: Client, base_model: BaseModel):
    earlier = finish(make_composition(base_model=base_model))
    publish_row(earlier)
    answer = as_stranger.get(f"/compose?again={earlier.pk}")
    assert answer.status_code == 403
    assert not says(answer, "question 4")


def test_who_is_signed_out_and_runs_again_is_led_to_the_sign_in(client: Client, base_model: BaseModel):
    earlier = finish(make_composition(base_model=base_model))
    publish_row(earlier)
    answer = client.get(f"/compose?again={earlier.pk}")
    assert answer.status_code == 403
    assert f'href="/accounts/login/?next=/compose%3Fagain%3D{earlier.pk}"' in text_of(answer)


# --- Live parts of the form ----------------------------------------------------------------------------------


def test_what_was_picked_and_is_gone_is_counted_when_it_is_asked_for_again(
    as_owner: Client, base_model: BaseModel, owner: User
):
    picked = Adapter.objects.order_by("pk")[:3]
    heads = [adapter.head for adapter in picked]
    composition = make_composition(owner=owner, base_model=base_model, candidates=heads)
    assert "cannot be picked any more" not in text_of(as_owner.get(f"/compose?again={composition.pk}"))
    Adapter.objects.filter(pk=picked[0].pk).update(deleted_at=timezone.now())
    page = text_of(as_owner.get(f"/compose?again={composition.pk}"))
    assert "1 module that was picked then cannot be picked any more" in page
    Adapter.objects.filter(pk=picked[1].pk).update(visibility="private")
    page = text_of(as_owner.get(f"/compose?again={composition.pk}"))
    assert "2 modules that were picked then cannot be picked any more" in page


def test_run_again_brings_the_versions_that_were_picked_and_the_newest_beside_them(
    as_owner: Client, base_model: BaseModel, owner: User
):
    first, second, third = Adapter.objects.order_by("name")
    then = [adapter.head for adapter in (first, second)]
    earlier = make_composition(owner=owner, base_model=base_model, candidates=then)
    make_revision(first, base_fit="fits", facts=then[0].facts)
    page = text_of(as_owner.get(f"/compose?again={earlier.pk}"))
    picks = re.findall(r'name="pick" value="([^"]+)"( checked)?', page)
    old = f"{first.full_name}@{then[0].commit}"
    assert picks == [
        (old, " checked"), (first.full_name, ""), (second.full_name, " checked"), (third.full_name, "")
    ]  # fmt: skip
    as_owner.post("/compose", filled(choice="picked", pick=[name for name, checked in picks if checked]))
    again = Composition.objects.exclude(pk=earlier.pk).get()
    assert [candidate.revision for candidate in again.candidates.all()] == then


def test_a_version_that_was_pinned_comes_back_with_run_again_and_stays_when_the_list_is_filtered(
    as_owner: Client, base_model: BaseModel, owner: User
):
    first, second, _ = Adapter.objects.order_by("name")
    old = f"{first.full_name}@{first.head.commit[:9]}"
    make_revision(first, base_fit="fits", facts=first.head.facts)
    earlier = make_composition(
        owner=owner,
        base_model=base_model,
        pinned=[old],
        excluded=[f"{second.full_name}@{second.head.commit}"],
    )
    page = text_of(as_owner.get(f"/compose?again={earlier.pk}"))
    assert f'name="pin" value="{old}" checked' in page
    assert f'name="exclude" value="{second.full_name}" checked' in page
    filtered = as_owner.get(
        "/compose/candidates", {"base_model": base_model.name, "filter": "zzz", "pin": old}
    )
    assert f'name="pin" value="{old}" checked' in text_of(filtered)


def test_the_live_check_counts_and_names_mistakes(client: Client, base_model: BaseModel):
    rows = {"example_input": ["a", "a", "b"], "example_output": ["x", "x", ""]}
    answer = client.post("/compose/check", filled(**rows))
    assert says(answer, "2 examples")
    assert says(answer, "Row 3 has no output.")
    assert says(answer, "Rows 1, 2 are duplicates")


def test_what_is_said_of_rows_names_those_that_the_form_shows(
    as_owner: Client, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    """A row that was left empty is gone from the table, unless what is wrong with another is said by its number."""
    rows: dict[str, Any] = {
        "example_input": ["a", "", "b", "b", "c"], "example_output": ["x", "", "y", "y", "z"], "action": "check",
    }  # fmt: skip
    page = as_owner.post("/compose", filled(**rows))
    assert says(page, "Rows 2, 3 are duplicates")
    assert [row.source for row in page.context["form"].shown_rows] == ["a", "b", "b", "c", ""]
    rows["example_output"][-1] = ""
    page = as_owner.post("/compose", filled(**rows, examples_text="d\tw\nd\tw"))
    assert says(page, "Row 5 has no output.")
    assert says(page, "Rows 3, 4, 6, 7 are duplicates")
    assert [row.source for row in page.context["form"].shown_rows][:7] == [*rows["example_input"], "d", "d"]


def test_the_live_check_calls_rows_by_the_numbers_beside_them(client: Client, base_model: BaseModel):
    rows: dict[str, Any] = {
        "example_input": ["", "a", "", "b", "b", ""], "example_output": ["", "x", "", "y", "z", ""],
        "examples_text": "d\tw\nb\ty\n", "examples_file": SimpleUploadedFile("more.tsv", b"d\tw"),
    }  # fmt: skip
    answer = client.post("/compose/check", filled(**rows))
    assert says(answer, "Rows 4, 1 (pasted), 2 (pasted), 1 (file) are duplicates")
    assert says(answer, "Rows 4, 5, 2 (pasted) have the same input and different outputs.")


def test_the_live_check_says_which_test_rows_score_nothing(client: Client, base_model: BaseModel):
    tests = "question 4\tanswer 4\nquestion 5\tanswer 5\nquestion 6\tanswer 6"
    answer = client.post("/compose/check", filled(test_text=tests))
    assert says(answer, "3 test rows")
    assert says(answer, "1 of the test rows is also among the examples, so it counts for no score.")


def test_the_live_check_says_the_split(client: Client, base_model: BaseModel):
    rows = {"example_input": [f"q{n}" for n in range(20)], "example_output": ["yes", "no"] * 10}
    answer = client.post("/compose/check", filled(**rows))
    assert says(answer, "are held out for scoring")
    assert says(answer, "closed set of answers: no, yes")


def test_spellings_of_one_answer_are_one_of_the_closed_set(client: Client, base_model: BaseModel):
    outputs = ("yes", "no", "Yes", "No.")
    given = {
        "example_input": ["a", "b", "c", "d"],
        "example_output": list(outputs),
        "base_model": base_model.name,
    }
    answer = client.post("/compose/check", given)
    assert says(answer, "closed set of answers: no, yes")
    assert says(answer, "which no score tells apart: “yes” and “Yes”, “no” and “No.”")


def test_the_live_check_wants_a_token_against_forgery(base_model: BaseModel):
    assert Client(enforce_csrf_checks=True).post("/compose/check", filled()).status_code == 403


def test_the_modules_to_pick_from_are_those_that_fit_and_may_be_seen(client: Client, base_model: BaseModel):
    make_adapter("hidden", base_model=base_model, visibility="private")
    make_adapter("other-base", base_model=make_base_model("demo/other"))
    counted = text_of(
        client.get("/compose/candidates?base_model=demo/tiny-t5", headers={"HX-Request": "true"})
    )
    assert '<span id="pickable-count" hx-swap-oob="true">' in counted
    answer = client.get("/compose/candidates?base_model=demo/tiny-t5")
    assert says(answer, "part-1")
    assert "hidden" not in text_of(answer).replace("visually-hidden", "")
    assert not says(answer, "other-base")


def test_a_picked_module_stays_when_the_filter_hides_it(client: Client, base_model: BaseModel):
    adapter = Adapter.objects.select_related("namespace").get(name="part-2")
    answer = client.get(
        "/compose/candidates", {"base_model": "demo/tiny-t5", "filter": "part-1", "pick": adapter.full_name}
    )
    assert re.search(rf'value="{adapter.full_name}" checked', text_of(answer))
    assert says(answer, "part-1")
    assert not says(answer, "part-0")


def test_the_stages_stand_in_their_order_whatever_order_the_database_gives_them():
    seconds = {"load": 1.0, "export": 0.5, "search": 2.0, "evaluate": 3.0}  # as Postgres does
    done = finish(make_composition(), seconds=seconds)
    page = job_page.job_page(done, done.owner)
    assert [label for label, _ in page.seconds_by_stage] == ["Load", "Search", "Evaluate", "Export"]


def test_the_curve_ends_where_the_search_does(owner: User):
    composition = make_composition(owner=owner, budget=40)
    claimed = jobs.claim(composition.pk, "worker")
    assert claimed is not None
    jobs.record_trials(claimed, make_trials(10))
    ends = []
    for steps in (0, 20):
        jobs.set_stage(claimed, "search", steps=steps, counted="trials" if steps else "")
        composition.refresh_from_db()
        last = job_page.job_page(composition, owner).search.last
        assert last is not None
        ends.append(float(last.x.rstrip("%")))
    assert ends[0] < ends[1], "of a budget of 40; of the 20 that the method takes at most"
    page = job_page.job_page(finish(make_composition(owner=owner, budget=40)), owner)
    whole = charts.search_chart(page.trials, most=len(page.trials)).last
    assert page.search.last is not None
    assert whole is not None
    assert page.search.last.x == whole.x


def test_pinned_and_left_out_modules_reach_the_composition_and_come_back_with_run_again(
    as_owner: Client, base_model: BaseModel
):
    pinned, left, other = (adapter.full_name for adapter in Adapter.objects.order_by("name"))
    as_owner.post("/compose", filled(pin=[pinned], exclude=[left]))
    composition = Composition.objects.get()
    offered = [c.revision.adapter.full_name for c in composition.candidates.all()]
    assert offered == [pinned, other]
    assert (composition.pinned, composition.excluded) == ([pinned], [left])
    again = text_of(as_owner.get(f"/compose?again={composition.pk}"))
    assert re.search(rf'name="pin" value="{pinned}" checked', again)
    assert re.search(rf'name="exclude" value="{left}" checked', again)


def test_a_module_both_pinned_and_left_out_is_refused_beside_the_choice(
    as_owner: Client, base_model: BaseModel
):
    name = Adapter.objects.all()[0].full_name
    page = as_owner.post("/compose", filled(pin=[name], exclude=[name]))
    assert page.status_code == 400
    assert says(page, f"{name} is pinned and left out at once; choose one.")
    assert not Composition.objects.exists()


def test_the_modules_are_sorted_by_what_the_examples_speak_for_with_the_reasons(
    client: Client, base_model: BaseModel
):
    task = make_task("shade", rows=3, title="Shade of the flower")
    TaskRow.objects.filter(task=task).update(output="crimson")
    make_adapter("shade-teller", base_model=base_model, task=task, description="Says the shade of the flower")
    given = filled(example_input=["which shade is the flower"] * 5, example_output=["crimson"] * 5)
    page = text_of(client.post("/compose/candidates", given))
    names = re.findall(r'name="pin" value="([^"]+)"', page)
    assert names[0].endswith("/shade-teller")
    assert len(names) == 4
    assert 'class="why"' in page
    assert says(client.post("/compose", given | {"action": "refresh"}), "Sort again")


def test_a_module_says_what_earlier_compositions_made_of_it(as_owner: Client, succeeded: Composition):
    page = as_owner.get("/compose/candidates?base_model=demo/tiny-t5")
    assert says(page, "kept in 1 of 1 composition, mean weight +0.10")


def test_mail_is_offered_to_those_it_can_reach_and_asked_for(
    as_owner: Client, base_model: BaseModel, owner: User
):
    assert 'name="email"' not in text_of(as_owner.get("/compose"))
    User.objects.filter(pk=owner.pk).update(email="ada@lora.example")
    assert 'name="email"' in text_of(as_owner.get("/compose"))
    as_owner.post("/compose", filled(email="on"))
    assert Composition.objects.get().notice_origin == "http://testserver"


# --- One composition -----------------------------------------------------------------------------------------


@pytest.fixture
def queued(owner: User, base_model: BaseModel) -> Composition:
    return make_composition(owner=owner, base_model=base_model, title="Colours")


@pytest.fixture
def running(queued: Composition) -> Composition:
    claimed = jobs.claim(queued.pk, "worker-7")
    assert claimed is not None
    jobs.set_stage(claimed, "search", "lorahub", step=0, steps=40, counted="trials")
    jobs.record_trials(claimed, make_trials(17))
    return Composition.objects.get(pk=queued.pk)


@pytest.fixture
def succeeded(queued: Composition) -> Composition:
    return finish(queued)


def test_a_queued_composition_shows_its_place(as_owner: Client, queued: Composition):
    page = as_owner.get(queued.get_absolute_url())
    assert says(page, "Next in line")
    assert "<title>Queued, place 1: Colours" in text_of(page)
    assert says(page, "Cancel")


def test_the_trial_whose_weights_are_shown_is_named_where_another_has_the_lowest_loss(
    as_owner: Client, running: Composition
):
    page = as_owner.get(running.get_absolute_url())
    assert says(page, "Weights of trial 17, the best so far")
    assert not says(page, "a penalty on large weights")
    jobs.record_trials(running, [types.Trial(18, (9.0, 0.0, 0.0), loss=1 / 20, objective=2.0)])
    page = as_owner.get(running.get_absolute_url())
    assert says(page, "at trial 18")
    assert says(page, "Weights of trial 17, the best so far")
    assert says(page, "a penalty on large weights")


def test_only_in_an_exact_mix_a_negative_weight_is_said_to_take_away(as_owner: Client, owner: User):
    for method, said in (("auto", "Blue adds, amber takes away."), ("lorahub", "Blue is above zero")):
        done = finish(make_composition(owner=owner, method=method))
        page = text_of(as_owner.get(done.get_absolute_url()))
        assert said in page
        assert ("takes away" in page) == (method == "auto")
        assert ("Below zero it is taken away." in page) == (method == "auto")


def test_it_is_said_that_the_search_saw_no_row_that_is_scored(as_owner: Client, owner: User):
    """And not of the rows that the sentence before names last, which it did see."""
    examples = make_examples(5)
    done = finish(make_composition(owner=owner, examples=examples, test_examples=make_examples(4, start=3)))
    said = "the others are among the examples too. The search saw no row that is scored."
    assert says(as_owner.get(done.get_absolute_url()), said)


def test_a_result_says_why_another_trial_than_that_of_the_lowest_loss_was_taken(
    as_owner: Client, succeeded: Composition
):
    assert not says(as_owner.get(succeeded.get_absolute_url()), "a penalty on large weights")
    succeeded.trials.filter(number=2).update(loss=0.001, objective=9.0)
    page = as_owner.get(succeeded.get_absolute_url())
    assert says(page, "lowest 0.001 at trial 2 of 4")
    assert says(page, "What was taken is the best by the loss and a penalty on large weights")


def test_a_running_composition_shows_step_curve_worker_and_heartbeat(as_owner: Client, running: Composition):
    page = as_owner.get(running.get_absolute_url())
    assert "17/40 trials" in text_of(page)
    assert "<title>Search 17/40: Colours" in text_of(page)
    assert says(page, "worker-7")
    assert says(page, "Heartbeat")
    assert "search-best" in text_of(page)
    assert says(page, "Stop and keep best")


def test_asking_again_and_again_does_not_fetch_what_is_large(
    as_owner: Client, running: Composition, django_assert_num_queries: Any
):
    with CaptureQueriesContext(connection) as queries:
        as_owner.get(f"{running.get_absolute_url()}/progress")
    sql = " ".join(query["sql"] for query in queries)
    assert '"compose_composition"."predictions"' not in sql
    assert '"compose_composition"."test_examples"' not in sql
    assert sql.count('"compose_trial"."mixing_weights"') == 1


def test_only_an_unfinished_composition_asks_for_itself_again(as_owner: Client, queued: Composition):
    assert "hx-get" in text_of(as_owner.get(f"{queued.get_absolute_url()}/progress"))


def test_a_finished_composition_does_not_poll(as_owner: Client, succeeded: Composition):
    for address in (succeeded.get_absolute_url(), f"{succeeded.get_absolute_url()}/progress"):
        assert "hx-trigger" not in text_of(as_owner.get(address))


def test_the_fragment_brings_the_title_with_it(as_owner: Client, running: Composition):
    assert (
        text_of(as_owner.get(f"{running.get_absolute_url()}/progress"))
        .lstrip()
        .startswith("<title>Search 17/40")
    )


@pytest.mark.parametrize("path", ["", "/progress", "/recipe.json", "/trials.json", "/predictions.csv"])
def test_a_stranger_does_not_learn_that_a_composition_exists(
    as_stranger: Client, succeeded: Composition, path: str
):
    assert as_stranger.get(f"{succeeded.get_absolute_url()}{path}").status_code == 404
    assert Client().get(f"{succeeded.get_absolute_url()}{path}").status_code == 404


@pytest.mark.parametrize("action", ["stop", "cancel", "publish"])
def test_a_stranger_cannot_act_on_a_composition(as_stranger: Client, running: Composition, action: str):
    assert as_stranger.post(f"{running.get_absolute_url()}/{action}").status_code == 404
    assert Client().post(f"{running.get_absolute_url()}/{action}").status_code == 302
    running.refresh_from_db()
    assert (running.status, running.wish) == ("running", "")


def test_acting_needs_a_post(as_owner: Client, running: Composition):
    for action in ("stop", "cancel", "publish"):
        assert as_owner.get(f"{running.get_absolute_url()}/{action}").status_code == 405


def test_stop_keeps_the_best_and_cancel_ends_it(as_owner: Client, running: Composition):
    as_owner.post(f"{running.get_absolute_url()}/stop")
    running.refresh_from_db()
    assert running.wish == "stop"
    assert says(as_owner.get(running.get_absolute_url()), "stopping, the best so far is kept")
    as_owner.post(f"{running.get_absolute_url()}/cancel")
    running.refresh_from_db()
    assert running.wish == "cancel"


def test_what_cannot_be_done_any_more_is_said(as_owner: Client, succeeded: Composition):
    answer = as_owner.post(f"{succeeded.get_absolute_url()}/cancel")
    assert answer.status_code == 409
    assert says(answer, "This composition has already finished; there is nothing to cancel.")


def test_a_failed_composition_says_why_and_what_next(as_owner: Client, running: Composition):
    jobs.fail(running, "Example 3 has 612 tokens; at most 512 fit. Shorten it.")
    page = as_owner.get(running.get_absolute_url())
    assert says(page, "Example 3 has 612 tokens; at most 512 fit. Shorten it.")
    assert says(page, "The composition failed while looking for mixing weights")
    assert says(page, "Change something and run again")


def test_a_cancelled_composition_says_so(as_owner: Client, queued: Composition, owner: User):
    jobs.cancel(queued, owner)
    assert says(as_owner.get(queued.get_absolute_url()), "Cancelled before it began")


def test_the_numbers_beside_the_weights_are_explained_on_the_adapters_page_too(
    as_owner: Client, succeeded: Composition
):
    publish_row(succeeded)
    for address in (succeeded.get_absolute_url(), succeeded.adapter.get_absolute_url()):
        assert text_of(as_owner.get(address)).count("how much the loss on the examples rises") == 1


def test_the_result_opens_with_the_finding(as_owner: Client, succeeded: Composition):
    page = as_owner.get(succeeded.get_absolute_url())
    assert says(page, "The composed adapter is better than the base model.")
    assert says(page, "What it is made of")
    assert says(page, "+2.10")
    assert says(page, "Publish")
    assert says(page, "All parents have the licence mit.")


def test_the_page_of_a_composed_adapter_opens_with_the_finding_without_the_names_of_hidden_modules(
    client: Client, succeeded: Composition
):
    adapter = publish_row(succeeded)
    best = succeeded.candidates.all()[0].revision.adapter
    succeeded.result = {"verdict": f"Better than the best single module ({best.full_name})."}
    succeeded.save(update_fields=["result"])
    assert says(client.get(adapter.get_absolute_url()), f"single module ({best.full_name})")
    Adapter.objects.filter(pk=best.pk).update(visibility="private")
    assert says(client.get(adapter.get_absolute_url()), "single module (a module that is not public)")


def test_a_published_result_has_python_that_runs_as_it_stands(as_owner: Client, succeeded: Composition):
    assert not says(as_owner.get(succeeded.get_absolute_url()), "endpoint=here")
    publish_row(succeeded)
    page = as_owner.get(succeeded.get_absolute_url())
    assert says(page, "snapshot_download(")
    assert says(page, "endpoint=here")


def test_an_estimate_leads_to_the_same_request_with_test_rows(as_owner: Client, succeeded: Composition):
    again = f"/compose?again={succeeded.pk}#test-text"
    assert not says(as_owner.get(succeeded.get_absolute_url()), again)
    succeeded.scores.update(split="leave_one_out")
    assert says(as_owner.get(succeeded.get_absolute_url()), again)


def test_the_result_says_how_the_adapter_was_written_and_what_the_form_of_the_answer_gave(
    as_owner: Client, queued: Composition
):
    held = [types.Score("zero_shot", "option_likelihood", 0.55, 0.4, 0.7, 40, "held_out")]
    finish(
        queued,
        precision="bfloat16",
        exported=types.Exported("truncated", 8, "bfloat16", 0.0312),
        option_scores=types.OptionScores(2, "seen", 40, 90, held, "The gain is only the form of the answer."),
    )
    page = as_owner.get(queued.get_absolute_url())
    assert says(page, "rank 8, bfloat16; cut to that rank, 3.12% from the mix itself")
    assert says(page, "(search in bfloat16, result in float32)")
    assert says(page, "The gain is only the form of the answer.")
    assert says(page, "most likely of the 2 answers the examples give.")
    assert says(page, "Measured on the first 40 of 90 held-out rows.")


def test_the_owner_sees_twenty_predictions_and_all_when_asked(as_owner: Client, succeeded: Composition):
    page = text_of(as_owner.get(succeeded.get_absolute_url()))
    assert page.count('data-label="Expected"') == 20
    assert "Show all 30" in page
    assert (
        text_of(as_owner.get(f"{succeeded.get_absolute_url()}?show=all")).count('data-label="Expected"') == 30
    )


def test_an_estimate_is_called_one_and_why_there_is_no_score_is_said_beside_it(
    as_owner: Client, queued: Composition
):
    scores = [
        score.__class__(**{**score.__dict__, "split": "leave_one_out"}) for score in make_result().scores
    ]
    finish(queued, scores=scores, verdict="Not scored on held-out rows: 2 of 5 rows right.")
    page = text_of(as_owner.get(queued.get_absolute_url()))
    shown = re.sub('data-say="[^"]*"', "", page)  # which is for ears alone, and once
    assert shown.count("Not scored") == shown.count("leave-one-out estimate") == 1
    assert "not a score" not in page


def test_what_can_be_done_about_a_missing_score_is_said_to_who_asked_alone(
    as_owner: Client, as_stranger: Client, succeeded: Composition
):
    succeeded.scores.update(split="leave_one_out")
    verdict = "Not scored on held-out rows: 2 of 5 rows right. Give test rows to know more."
    succeeded.result = {**(succeeded.result or {}), "verdict": verdict}
    succeeded.save(update_fields=["result"])
    adapter = publish_row(succeeded)
    assert says(as_owner.get(succeeded.get_absolute_url()), "Give test rows to know more.")
    for address in (succeeded.get_absolute_url(), adapter.get_absolute_url()):
        page = as_stranger.get(address)
        assert says(page, "Not scored on held-out rows: 2 of 5 rows right."), address
        assert not says(page, "Give test rows"), address


def test_words_that_the_base_model_does_not_have_are_named_to_the_owner_where_rows_are_wrong(
    as_owner: Client, as_stranger: Client, succeeded: Composition
):
    blob = storage.store_stream([(ROOT / "demo/story-t5/tokenizer.json").read_bytes()])
    BaseModelFile.objects.create(base_model=succeeded.base_model, path="tokenizer.json", blob=blob)
    succeeded.examples = [{"input": "Anna saw a dog .", "output": "positive"}] * 5
    succeeded.save(update_fields=["examples"])
    publish_row(succeeded)
    named = "has no word for “positive” in the outputs"
    assert says(as_owner.get(succeeded.get_absolute_url()), named)
    assert not says(as_stranger.get(succeeded.get_absolute_url()), "positive")
    succeeded.scores.filter(method=succeeded.method).update(value=1)
    assert not says(as_owner.get(succeeded.get_absolute_url()), named)


def test_of_a_composition_that_was_taken_up_again_the_seconds_are_called_the_last_attempts(
    as_owner: Client, queued: Composition
):
    claimed = jobs.claim(queued.pk, "lost")
    assert claimed is not None
    jobs.release(claimed)
    again = jobs.claim(queued.pk, "next")
    assert again is not None
    assert says(as_owner.get(queued.get_absolute_url()), "Since it began first")
    jobs.release(again)
    finish(queued)
    assert says(as_owner.get(queued.get_absolute_url()), "in the last of 3 attempts")


def test_what_waits_for_its_owners_others_is_not_called_next_in_line(
    as_owner: Client, owner: User, queued: Composition, base_model: BaseModel, settings: Any
):
    settings.MAX_RUNNING_JOBS_PER_USER = 1
    assert says(as_owner.get(queued.get_absolute_url()), "Next in line")
    other = jobs.claim(make_composition(owner=owner, base_model=base_model).pk, "worker")
    assert other is not None
    page = as_owner.get(queued.get_absolute_url())
    assert says(page, "it begins when one of them ends")
    assert not says(page, "Next in line")
    jobs.fail(other, "No.")
    assert says(as_owner.get(queued.get_absolute_url()), "Next in line")


def test_a_result_without_scores_says_that_it_is_unscored(as_owner: Client, queued: Composition):
    finish(
        queued,
        scores=[],
        predictions=[],
        verdict="Not scored: one example cannot be both shown and held out.",
    )
    page = as_owner.get(queued.get_absolute_url())
    assert says(page, "Not scored: one example")
    assert says(page, "Unscored: 5 examples are too few to hold some out")
    assert not says(page, "Unscored. ")


def test_a_published_result_is_open_but_the_examples_are_not(as_stranger: Client, succeeded: Composition):
    publish_row(succeeded)
    page = as_stranger.get(succeeded.get_absolute_url())
    assert page.status_code == 200
    assert says(page, "The composed adapter is better than the base model.")
    for private in ("question 1", "answer 1", "Predictions", "Run again"):
        assert not says(page, private)
    assert as_stranger.get(f"{succeeded.get_absolute_url()}/predictions.csv").status_code == 403
    assert as_stranger.get(f"{succeeded.get_absolute_url()}/trials.json").status_code == 200


def test_a_private_module_is_not_linked_for_those_who_may_not_see_it(
    as_stranger: Client, succeeded: Composition
):
    publish_row(succeeded)
    hidden = succeeded.candidates.get(position=2).revision.adapter
    Adapter.objects.filter(pk=hidden.pk).update(visibility="private")
    assert f'href="{hidden.get_absolute_url()}"' not in text_of(as_stranger.get(succeeded.get_absolute_url()))


def test_predictions_as_csv_cannot_run_formulas(as_owner: Client, queued: Composition):
    from compose.engine.types import Prediction

    rows = [Prediction('=HYPERLINK("x")', "@SUM(1)", {"lorahub": "+1", "zero_shot": "plain"})]
    finish(queued, predictions=rows)
    answer = as_owner.get(f"{queued.get_absolute_url()}/predictions.csv")
    assert answer["Content-Disposition"] == f'attachment; filename="predictions-{queued.pk}.csv"'
    assert text_of(answer).splitlines() == [
        "input,expected,lorahub,zero_shot,lorahub exact_match,zero_shot exact_match",
        '"\'=HYPERLINK(""x"")",\'@SUM(1),\'+1,plain,0.0,0.0',
    ]


def test_the_recipe_and_the_trials_are_json(as_owner: Client, succeeded: Composition):
    recipe = as_owner.get(f"{succeeded.get_absolute_url()}/recipe.json")
    assert recipe.json()["composition"] == succeeded.pk
    trials = as_owner.get(f"{succeeded.get_absolute_url()}/trials.json").json()
    assert len(trials["trials"]) == 4
    assert len(trials["adapters"]) == 3


def test_an_unfinished_composition_has_no_recipe(as_owner: Client, queued: Composition):
    answer = as_owner.get(f"{queued.get_absolute_url()}/recipe.json")
    assert answer.status_code == 409
    assert says(answer, "This composition has no result, so there is no recipe of it.")


def test_an_answer_that_has_nothing_in_common_is_not_marked_all_over():
    answer = predictions.compare("lorahub", "two two", "the blue car")
    assert [(word.text, word.differs) for word in answer.words] == [("two two", False)]
    assert predictions.compare("lorahub", "", "x").words == []


def test_words_that_differ_from_the_expected_are_marked():
    answer = predictions.compare("lorahub", "the red car", "the blue car")
    assert [(word.text, word.differs) for word in answer.words] == [
        ("the ", False),
        ("red", True),
        (" car", False),
    ]


# --- Publishing ----------------------------------------------------------------------------------------------


def test_publishing_goes_to_the_adapter(
    as_owner: Client, succeeded: Composition, owner: User, monkeypatch: pytest.MonkeyPatch
):
    given: dict[str, Any] = {}

    def publish(composition: Composition, **options: Any) -> Adapter:
        given.update(options)
        return publish_row(composition)

    monkeypatch.setattr("compose.publishing.publish_composition", publish)
    form = {"namespace": "ada", "name": "colours", "visibility": "private", "description": "Mine."}
    answer = as_owner.post(f"{succeeded.get_absolute_url()}/publish", form)
    assert answer.status_code == 302
    assert given == {
        "actor": owner,
        "namespace": namespace_of(owner),
        "name": "colours",
        "visibility": "private",
        "description": "Mine.",
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": ""}, "Give it a name."),
        ({"name": "no spaces"}, "only letters A-Z"),
        ({"namespace": "somebody-else"}, "Select a valid choice."),
        ({"visibility": "secret"}, "Select a valid choice."),
    ],
)
def test_a_bad_publish_form_is_refused_and_keeps_what_was_typed(
    as_owner: Client, succeeded: Composition, changes: dict[str, str], sentence: str
):
    form = {"namespace": "ada", "name": "colours", "visibility": "private", "description": "Keep me."}
    answer = as_owner.post(f"{succeeded.get_absolute_url()}/publish", {**form, **changes})
    assert answer.status_code == 422
    assert says(answer, sentence)
    assert says(answer, "Keep me.")
    succeeded.refresh_from_db()
    assert succeeded.adapter is None


def test_a_published_composition_has_no_publish_form(as_owner: Client, succeeded: Composition):
    publish_row(succeeded)
    page = as_owner.get(succeeded.get_absolute_url())
    assert 'id="publish"' not in text_of(page)
    assert says(page, "See the adapter")


# --- Lists ---------------------------------------------------------------------------------------------------


def test_my_compositions_are_mine(as_owner: Client, succeeded: Composition, base_model: BaseModel):
    make_composition(base_model=base_model, title="Not mine")
    page = as_owner.get("/compositions")
    assert says(page, "Colours")
    assert not says(page, "Not mine")
    assert says(page, "exact match, +0.40 on best baseline")
    assert says(page, "LoraHub · at most 40 trials · seed 1")
    succeeded.scores.update(split="leave_one_out")
    assert "0.60<span>exact match, an estimate</span>" in text_of(as_owner.get("/compositions"))


def test_my_compositions_ask_strangers_to_sign_in(client: Client):
    assert client.get("/compositions")["Location"] == "/accounts/login/?next=/compositions"


def test_many_compositions_cost_no_more_queries(
    as_owner: Client, base_model: BaseModel, owner: User, settings: Any
):
    settings.MAX_WAITING_JOBS_PER_USER = 50
    for _ in range(35):
        make_composition(owner=owner, base_model=base_model)
    page = as_owner.get("/compositions")
    assert 'rel="next"' in text_of(page)


def test_a_bad_cursor_is_refused(as_owner: Client):
    assert as_owner.get("/compositions?cursor=nonsense").status_code == 400


# --- Home, tasks, status -------------------------------------------------------------------------------------


def test_home_works_empty(client: Client):
    page = client.get("/")
    assert page.status_code == 200
    assert says(page, "There are no tasks with examples here yet.")


def test_home_shows_modules_gains_and_tasks(client: Client, succeeded: Composition, base_model: BaseModel):
    publish_row(succeeded)
    make_task("held", rows=5, is_held_out=True, title="Colour, twice")
    page = client.get("/")
    assert says(page, "part-2")
    assert says(page, "+0.40")
    assert says(page, "0.600 against 0.200 for zero-shot, 20 rows, by exact match")
    assert says(page, "Colour, twice")
    first = succeeded.scores.get(method="zero_shot")
    Score.objects.create(
        composition=succeeded, position=9, method="uniform", metric="exact_match", split="held_out",
        value=first.value, low=first.low, high=first.high, n=first.n,
    )  # fmt: skip
    assert says(client.get("/"), "0.600 against 0.200 for each of 2 baselines, 20 rows, by exact match")


def test_examples_pasted_at_home_stand_on_the_form_for_a_stranger_and_nothing_runs(
    client: Client, base_model: BaseModel
):
    home = text_of(client.get("/"))
    fields = dict(re.findall(r'<input type="hidden" name="(action)" value="(\w+)">', home))
    assert 'name="examples_text"' in home
    page = client.post("/compose", {**fields, "examples_text": "a red cup\t[red]\ntwo blue keys\t[blue]"})
    assert page.status_code == 200
    assert ">two blue keys</textarea>" in text_of(page)
    assert ">[blue]</textarea>" in text_of(page)
    assert not Composition.objects.exists()


def test_a_text_from_home_that_cannot_be_read_is_kept_with_the_reason(client: Client, base_model: BaseModel):
    given = "1\tThey saw red hats.\t[red]\n2\tThey saw blue pens.\t[blue]"
    page = text_of(client.post("/compose", {"action": "refresh", "examples_text": given}))
    assert given in page
    assert "Row 1 has 3 tab-separated cells" in page
    unfinished = {"action": "refresh", "example_input": ["What is it?"], "example_output": [""]}
    assert "has no output" not in text_of(client.post("/compose", unfinished)), "the person is not done yet"


def test_the_base_models_of_the_demo_can_read_the_example_that_the_start_page_gives(client: Client):
    demo = make_base_model("demo/story-t5", kind="hosted")
    blob = storage.store_stream([(ROOT / "demo/story-t5/tokenizer.json").read_bytes()])
    BaseModelFile.objects.create(base_model=demo, path="tokenizer.json", blob=blob)
    [given] = re.findall(r'placeholder="([^"]*\t[^"]*)"', text_of(client.get("/")))
    page = text_of(
        client.post("/compose", {"action": "refresh", "base_model": demo.name, "examples_text": given})
    )
    assert "2 examples" in page
    assert "does not know" not in page
    assert "has no word" not in page


def test_the_counts_at_home_are_those_of_the_lists_they_lead_to(
    client: Client, succeeded: Composition, base_model: BaseModel
):
    publish_row(succeeded)
    make_adapter("empty", base_model=base_model, rank=None, is_composable=False)
    home = text_of(client.get("/"))
    for kind, words in (("module", "3 LoRA modules"), ("composed", "1 composed adapter")):
        address = f"/modules?kind={kind}"
        assert f'href="{address}">{words}</a>' in home
        assert len(client.get(f"/api/v1/adapters/?kind={kind}").json()["results"]) == int(words[0])
    assert "/empty" not in home
    assert says(client.get(base_model.get_absolute_url()), "4 modules · 4 can be composed")
    assert modules_by_base(person=None)[base_model.pk] == (4, 4)


def test_an_estimate_is_of_runs_by_the_same_method(
    as_owner: Client, succeeded: Composition, base_model: BaseModel
):
    asked = {"base_model": base_model.name, "budget": "40"}
    known = as_owner.post("/compose/check", filled(**asked, method="lorahub"))
    assert says(known, "from the only run by this method on this base model")
    other = as_owner.post("/compose/check", filled(**asked, method="auto"))
    assert says(other, "No run by this method on this base model yet")


def test_home_keeps_private_things_to_itself(client: Client, succeeded: Composition):
    adapter = publish_row(succeeded, visibility="private")
    assert not says(client.get("/"), adapter.name)


def held_out_task(base_model: BaseModel, slug: str = "colour-twice"):
    return make_task(slug, rows=5, test_rows=20, is_held_out=True, base_model=base_model)


def test_tasks_lists_those_to_compose_for_and_those_trained_on(client: Client, base_model: BaseModel):
    held_out_task(base_model)
    trained = make_task("trained", title="Trained on this")
    make_adapter("private", task=trained, rank=4, visibility="private")
    make_adapter("public", task=trained, rank=4)
    assert says(client.get("/tasks"), "Colour twice")
    assert not says(client.get("/tasks"), "Trained on this")
    assert says(client.get("/tasks?kind=trained"), "Trained on this")
    one_module = '<a class="stat" href="/modules?task=trained">1<span>module</span></a>'
    assert one_module in text_of(client.get("/tasks?kind=trained"))


def test_tasks_can_be_filtered_and_say_when_nothing_matches(client: Client, base_model: BaseModel):
    held_out_task(base_model)
    assert says(client.get("/tasks?q=twice"), "Colour twice")
    assert says(client.get("/tasks?q=nothing"), "No task matches “nothing”")


def test_tasks_come_by_name_or_the_newest_first(client: Client, monkeypatch: pytest.MonkeyPatch):
    for title in ("Bees", "Cats", "Ants"):
        make_task(title.lower(), title=title, is_held_out=True)
    monkeypatch.setattr("compose.task_views.PAGE", 2)
    for sort, expected in (("", ["Ants", "Bees", "Cats"]), ("new", ["Ants", "Cats", "Bees"])):
        first = client.get("/tasks", {"sort": sort}).context
        second = client.get(f"/tasks{first['next_url']}").context
        assert [task.title for task in (*first["tasks"], *second["tasks"])] == expected
        listed = client.get("/api/v1/tasks/", {"sort": sort}).json()["results"]
        assert [task["title"] for task in listed] == expected
    assert client.get("/tasks?sort=king").status_code == 400
    assert client.get("/api/v1/tasks/?sort=king").json()["fields"] == {
        "sort": ["'sort' is one of name, new, not 'king'."]
    }
    cursor = client.get("/tasks").context["next_url"].partition("cursor=")[2]
    assert client.get(f"/tasks?sort=new&cursor={cursor}").status_code == 400


def test_a_task_shows_examples_and_hides_its_test_rows(client: Client, base_model: BaseModel):
    held_out_task(base_model)
    page = client.get("/tasks/colour-twice")
    assert says(page, "few_shot question 3")
    assert not says(page, "test question")
    assert says(page, "20 hidden test rows")
    assert says(page, "Nobody has composed for this task yet.")


def test_an_unknown_task_is_not_found(client: Client):
    assert client.get("/tasks/nothing").status_code == 404


def board(client: Client) -> list[str]:
    """Rank and name of every line of the leaderboard, from its CSV."""
    lines = text_of(client.get("/tasks/colour-twice/leaderboard.csv")).splitlines()[1:]
    return [",".join(line.split(",")[:2]) for line in lines]


def score(value: float, method: str = "lorahub", n: int = 20):
    from compose.engine import types

    return types.Score(
        method, "exact_match", value, max(0.0, value - 0.1), min(1.0, value + 0.1), n, "held_out"
    )


def test_a_leaderboard_ranks_composed_adapters_and_places_baselines_between(
    client: Client, base_model: BaseModel
):
    task = held_out_task(base_model)
    for name, value in (("low", 0.3), ("high", 0.9), ("tie", 0.3)):
        made = finish(
            make_composition(owner=make_user(name), base_model=base_model, task=task, examples=()),
            scores=[score(0.5, "zero_shot"), score(value)],
        )
        adapter = publish_row(made)
        Adapter.objects.filter(pk=adapter.pk).update(name=name)
    assert board(client) == ["1,high/high", ",Zero-shot", "2,low/low", "2,tie/tie"]
    page = client.get("/tasks/colour-twice")
    assert says(page, "verified")
    assert says(page, "Beat this")


def test_a_leaderboard_counts_only_scores_on_all_hidden_rows(client: Client, base_model: BaseModel):
    task = held_out_task(base_model)
    own_rows = make_composition(
        owner=make_user("own"), base_model=base_model, task=task, test_examples=make_examples(20, start=100)
    )
    publish_row(finish(own_rows, scores=[score(1.0)]))
    few = make_composition(owner=make_user("few"), base_model=base_model, task=task)
    publish_row(finish(few, scores=[score(1.0, n=7)]))
    assert board(client) == []


def test_an_unpublished_score_is_on_its_owners_leaderboard_only(
    as_owner: Client, client: Client, base_model: BaseModel, owner: User
):
    task = held_out_task(base_model)
    finish(make_composition(owner=owner, base_model=base_model, task=task, examples=()), scores=[score(0.4)])
    assert len(board(as_owner)) == 1
    assert board(Client()) == []


def test_status_is_public_and_tells_no_secrets(client: Client, running: Composition, base_model: BaseModel):
    failing = make_composition(owner=make_user("eve"), base_model=base_model, title="Secret title")
    claimed = jobs.claim(failing.pk, "worker-8")
    assert claimed is not None
    jobs.fail(claimed, "Example 1, “secret text”, is too long.")
    page = client.get("/status")
    assert says(page, "worker-7")
    assert says(page, "Working: 1 running, 0 waiting.")
    assert says(page, "demo/tiny-t5")
    for private in ("Secret title", "secret text", "Colours", "ada", "eve"):
        assert not re.search(rf"\b{private}\b", text_of(page))


def test_status_works_empty(client: Client):
    page = client.get("/status")
    assert says(page, "Idle: nothing is running and nothing waits.")


def test_no_page_has_a_style_attribute_or_an_inline_script(
    as_owner: Client, succeeded: Composition, base_model: BaseModel
):
    held_out_task(base_model)
    for address in (
        "/",
        "/compose",
        "/compositions",
        succeeded.get_absolute_url(),
        "/tasks",
        "/tasks/colour-twice",
        "/status",
    ):
        html = text_of(as_owner.get(address))
        assert "style=" not in html, address
        assert not re.search(r"<script(?![^>]*\bsrc=)", html), address
        assert not re.search(r"\son\w+=", html), address


# --- What there is to compose with ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["/compose", "/modules/fit"])
def test_a_base_model_is_offered_to_those_who_see_a_module_for_it(
    as_owner: Client, as_stranger: Client, base_model: BaseModel, owner: User, page: str
):
    hidden = make_base_model("demo/hidden", kind="hosted")
    make_modules(hidden, 1, owner=owner, visibility="private")
    assert 'value="demo/hidden"' in text_of(as_owner.get(page))
    assert 'value="demo/hidden"' not in text_of(as_stranger.get(page))


def test_the_number_beside_a_base_model_is_of_modules_that_one_may_use(
    as_stranger: Client, base_model: BaseModel, owner: User
):
    make_adapter("mine", owner=owner, base_model=base_model, visibility="private")
    make_adapter("held", owner=owner, base_model=base_model, quarantined_at=timezone.now())
    page = text_of(as_stranger.get("/compose"))
    assert "demo/tiny-t5 (3 modules)" in page
    assert "3 modules fit demo/tiny-t5" in page


@pytest.mark.parametrize("address", ["/compose", "/modules/fit"])
def test_of_very_many_base_models_the_biggest_are_offered_and_the_one_that_was_asked_for(
    client: Client, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch, address: str
):
    monkeypatch.setattr("compose.forms.BASES_SHOWN", 2)
    for name, modules in (("maker/a", 1), ("maker/b", 2), ("maker/c", 1)):
        other = make_base_model(name)
        for number in range(modules):
            make_adapter(f"{name[-1]}-{number}", base_model=other)
    asked = {"/compose": "base_model", "/modules/fit": "base"}[address]

    def offered(**given: str) -> tuple[list[str], bool]:
        page = text_of(client.get(address, given))
        values = re.findall(r'<option value="([a-z0-9-]+/[a-z0-9-]+)"', page)
        return values, "The 2 with the most modules" in page or "The 3 with the most modules" in page

    assert offered() == (["demo/tiny-t5", "maker/b"], True)
    assert offered(**{asked: "maker/c"}) == (["demo/tiny-t5", "maker/b", "maker/c"], True)
    monkeypatch.setattr("compose.forms.BASES_SHOWN", 4)
    assert offered() == (["demo/tiny-t5", "maker/b", "maker/a", "maker/c"], False)


def test_of_very_many_modules_the_most_downloaded_are_offered(
    client: Client, base_model: BaseModel, monkeypatch: pytest.MonkeyPatch
):
    address = "/compose/candidates?base_model=demo/tiny-t5"
    assert re.findall(r'name="pick" value="[^"]*/(part-\d)"', text_of(client.get(address))) == [
        "part-0", "part-1", "part-2",
    ]  # fmt: skip
    monkeypatch.setattr("compose.picking.SHOWN", 2)
    for number in range(3):
        Adapter.objects.filter(name=f"part-{number}").update(downloads=number)
    page = text_of(client.get(address))
    assert re.findall(r'name="pick" value="[^"]*/(part-\d)"', page) == ["part-2", "part-1"]
    assert "Only the most downloaded 2 of 3 are shown" in page


def test_a_link_for_a_base_model_without_modules_takes_no_other_in_silence(
    as_owner: Client, base_model: BaseModel
):
    make_base_model("demo/bare")
    task = make_task("bare-task", rows=5, test_rows=10, is_held_out=True)
    task.base_model = BaseModel.objects.get(name="demo/bare")
    task.save()
    for address in ("/compose?base_model=demo/bare", "/compose?task=bare-task"):
        assert says(as_owner.get(address), "No module that you may use composes on demo/bare now."), address
    assert "No module that you may use" not in text_of(as_owner.get("/compose?base_model=demo/tiny-t5"))
    assert "No module that you may use" not in text_of(as_owner.get("/compose"))


def test_the_list_says_that_what_was_published_is_deleted(
    as_owner: Client, base_model: BaseModel, owner: User
):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    publish_row(composition)
    assert "deleted since" not in text_of(as_owner.get("/compositions"))
    Adapter.objects.filter(composition=composition).update(deleted_at=timezone.now())
    assert "and deleted since" in text_of(as_owner.get("/compositions"))
