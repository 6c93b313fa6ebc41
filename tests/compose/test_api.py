"""The compositions API as scripts use it: it works, it refuses strangers, it refuses bad input."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from compose import jobs
from compose.models import Composition
from registry.models import Adapter, User
from tests.compose.factories import finish, make_composition, make_trials
from tests.factories import make_adapter, make_task, make_token, make_user, namespace_of

pytestmark = pytest.mark.django_db
URL = "/api/v1/compositions/"
ROWS = [{"input": f"question {n}", "output": f"answer {n}"} for n in range(5)]


def client_of(user: User, scope: str = "write") -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {make_token(user, scope=scope)}")
    return client


@pytest.fixture
def owner() -> User:
    return make_user("ann")


@pytest.fixture
def client(owner) -> APIClient:
    return client_of(owner)


def post(client: APIClient, **body: Any):
    return client.post(URL, {"base_model": "demo/tiny-t5", "examples": ROWS, **body})


# --- asking


def test_a_request_answers_201_with_everything_that_was_decided(client, base_model):
    answer = post(client, budget=12, seed=5, title="Colours", export_rank=8, export_dtype="bfloat16")
    assert answer.status_code == 201, answer.data
    body = answer.json()
    assert answer["Location"] == f"http://testserver{URL}{body['id']}/"
    assert (body["status"], body["queue_place"], body["budget"], body["step"]) == ("queued", 1, 12, 0)
    assert (body["export_rank"], body["export_dtype"]) == (8, "bfloat16")
    assert [c["adapter"] for c in body["candidates"]] == ["maker/part-0", "maker/part-1", "maker/part-2"]
    assert all(len(c["revision"]) == 40 and c["mixing_weight"] is None for c in body["candidates"])
    assert (body["result"], body["adapter"], body["error"]) == (None, None, "")
    assert body["url"] == f"http://testserver/compositions/{body['id']}"
    assert "question 1" not in answer.content.decode()


def test_examples_may_be_text_and_candidates_may_be_picked(client, base_model):
    answer = post(
        client, examples="question;answer\na;b\nc;d\n", candidates=["maker/part-2", "maker/part-0@main"]
    )
    assert answer.status_code == 201, answer.data
    assert [c["adapter"] for c in answer.json()["candidates"]] == ["maker/part-2", "maker/part-0"]
    assert Composition.objects.get().examples == [
        {"input": "a", "output": "b"},
        {"input": "c", "output": "d"},
    ]


def test_a_task_is_enough(client, base_model):
    make_task("who-quoted", rows=5, test_rows=8, base_model=base_model)
    answer = client.post(URL, {"task": "who-quoted"})
    assert answer.status_code == 201, answer.data
    body = answer.json()
    assert (body["few_shot"], body["held_out"], body["base_model"]) == (5, 8, "demo/tiny-t5")
    assert body["split_note"] == (
        "Scored on those of the 8 hidden test rows of its task that are not among the examples."
    )


def test_no_check_and_nothing_that_waits_tells_whether_an_example_is_a_hidden_row(client, base_model):
    task = make_task("who-quoted", rows=5, test_rows=8, base_model=base_model)
    hidden = task.revisions.get().test
    wrong = [{"input": f"wrong {number}", "output": "x"} for number in range(8)]
    asked = {"base_model": "demo/tiny-t5", "task": "who-quoted"}

    def told(**given: Any) -> dict[str, Any]:
        body = client.post(URL, {**asked, **given}).json()
        of_each = ("id", "url", "created_at", "spec_sha256", "queue_place", "status")
        return {name: value for name, value in body.items() if name not in of_each}

    for guess in (hidden[:3] + wrong[3:], hidden):
        assert told(examples=guess, dry_run=True) == told(examples=wrong, dry_run=True)
        assert told(examples=guess) == told(examples=wrong)
        Composition.objects.update(status="cancelled")
        ids = Composition.objects.order_by("-created_at").values_list("pk", flat=True)[:2]
        [cancelled, other] = [client.get(f"{URL}{pk}/").json() for pk in ids]
        assert cancelled["split_note"] == other["split_note"]
        assert (cancelled["held_out"], other["held_out"]) == (8, 8)


def test_a_dry_run_answers_200_and_saves_nothing(client, base_model):
    answer = post(client, dry_run=True)
    assert answer.status_code == 200
    body = answer.json()
    assert body["ok"]
    assert body["queue_place"] == 1
    assert len(body["candidates"]) == 3
    assert body["estimate"] == {"seconds": None, "based_on": 0}
    assert not Composition.objects.exists()


def test_a_dry_run_lists_the_problems(client, base_model):
    answer = post(client, dry_run=True, examples=[{"input": "a", "output": "b"}, {"input": "c"}])
    assert answer.status_code == 200
    assert answer.json()["ok"] is False
    assert answer.json()["problems"] == ["Row 2 has an input and no output."]


def test_the_same_key_asks_once(client, base_model):
    answers = [
        client.post(URL, {"base_model": "demo/tiny-t5", "examples": ROWS}, headers={"Idempotency-Key": "one"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert Composition.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "status", "field", "sentence"),
    [
        ({"base_model": "no/such"}, 400, "base_model", "The base model 'no/such' is not known here."),
        ({"budget": 0}, 400, "budget", "The budget is the number of trials, from 1 to 2,000."),
        ({"budget": "many"}, 400, "budget", "A valid integer is required."),
        ({"seed": 2**70}, 400, "seed", "The seed is a whole number from 0"),
        ({"method": "magic"}, 400, "method", "There is no method 'magic' here"),
        ({"task": "no-such-task"}, 404, "task", "There is no task 'no-such-task' here."),
        ({"export_rank": -1}, 400, "export_rank", "The rank to export at is from 1 to 1,024, or 0"),
        ({"export_dtype": "int8"}, 400, "export_dtype", "There is no float type 'int8' to export"),
        ({"candidates": "all"}, 400, "candidates", 'Give "auto", or a list of names'),
        ({"candidates": [3]}, 400, "candidates", 'Give "auto", or a list of names'),
        ({"candidates": ["no/where"]}, 400, "candidates", "There is no LoRA module 'no/where' here"),
        ({"examples": 5}, 400, "examples", "Give a list of rows, or the rows as text."),
        ({"examples": []}, 400, "examples", "There are no examples."),
        ({"examples": {"input": "a"}}, 400, "examples", "Give a list of rows"),
        ({"bugdet": 12}, 400, "bugdet", "There is no such field; there are: base_model, examples"),
        ({"format": "xlsx"}, 400, "format", '"xlsx" is none of these: auto, '),
        ({"test_examples": [{"input": "a"}]}, 400, "test_examples", "Row 1 has an input and no output."),
    ],
)
def test_bad_input_names_the_field_and_leaves_nothing_behind(
    client, base_model, body, status, field, sentence
):
    answer = post(client, **body)
    assert answer.status_code == status
    error = answer.json()
    assert set(error) == {"code", "message", "fields"}
    assert sentence in error["message"]
    assert field in error["fields"]
    assert not Composition.objects.exists()


@pytest.mark.parametrize("path", ["publish/", "try/"])
def test_a_mistyped_field_is_refused_by_what_is_done_with_a_result_too(client, owner, base_model, path):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    answer = client.post(f"{URL}{composition.pk}/{path}", {"name": "x", "text": "x", "visibilty": "public"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert "visibilty" in answer.json()["fields"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", URL),
        ("post", URL),
        *(("get", f"{URL}ID/{part}") for part in ("", "trials/", "predictions/", "recipe/", "try/x/")),
        *(("post", f"{URL}ID/{part}/") for part in ("cancel", "stop", "publish", "try")),
        ("get", "/api/v1/status/"),
        ("post", "/api/v1/adapters/fit/"),
        ("post", "/api/v1/auditions/"),
        ("get", "/api/v1/auditions/x/"),
        ("delete", "/api/v1/auditions/x/"),
    ],
)
def test_a_mistyped_parameter_is_refused(client, owner, base_model, method, path):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    answer = client.generic(method.upper(), f"{path.replace('ID', composition.pk)}?limti=3")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_parameter")
    assert "limti" in answer.json()["fields"]


def test_a_base_model_is_needed(client):
    answer = client.post(URL, {"examples": ROWS})
    assert answer.status_code == 400
    assert answer.json()["message"] == "Say which base model the modules are to be composed for."


def test_asking_needs_an_account_and_a_token_that_may_write(owner, base_model):
    assert post(APIClient()).status_code == 401
    assert post(client_of(owner, scope="read")).status_code == 403
    assert APIClient().get(URL).status_code == 401
    assert not Composition.objects.exists()


# --- reading


def test_the_list_holds_my_own_newest_first_in_pages(client, owner, base_model):
    mine = [make_composition(owner=owner, base_model=base_model) for _ in range(3)]
    make_composition(base_model=base_model)
    first = client.get(URL, {"limit": 2}).json()
    assert [row["id"] for row in first["results"]] == [mine[2].pk, mine[1].pk]
    second = client.get(first["next"]).json()
    assert [row["id"] for row in second["results"]] == [mine[0].pk]
    assert second["next"] is None


def test_the_list_takes_few_queries(client, owner, base_model, django_assert_max_num_queries):
    for _ in range(5):
        make_composition(owner=owner, base_model=base_model)
    with django_assert_max_num_queries(6):
        assert len(client.get(URL).json()["results"]) == 5


def test_the_list_asks_once_for_all_private_tasks(client, owner, base_model, django_assert_max_num_queries):
    task = make_task("count", rows=5, is_held_out=True, is_private=True, owner=namespace_of(owner))
    for _ in range(5):
        make_composition(owner=owner, base_model=base_model, task=task)
    with django_assert_max_num_queries(7):
        assert [row["task"] for row in client.get(URL).json()["results"]] == ["count"] * 5


def test_a_finished_one_has_scores_and_weights(client, owner, base_model):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    body = client.get(f"{URL}{composition.pk}/").json()
    assert body["status"] == "succeeded"
    assert [c["mixing_weight"] for c in body["candidates"]] == [0.1, 1.1, 2.1]
    assert body["result"]["scores"][1] == {
        "method": "lorahub",
        "metric": "exact_match",
        "split": "held_out",
        "value": 0.6,
        "low": 0.4,
        "high": 0.8,
        "n": 20,
    }
    assert body["result"]["verdict"].startswith("The composed adapter is better")
    trials = client.get(f"{URL}{composition.pk}/trials/", {"limit": 3}).json()
    assert [trial["number"] for trial in trials["results"]] == [1, 2, 3]
    assert len(trials["results"][0]["mixing_weights"]) == 3
    assert [t["number"] for t in client.get(trials["next"]).json()["results"]] == [4]
    assert len(client.get(f"{URL}{composition.pk}/predictions/").json()["results"]) == 30
    assert client.get(f"{URL}{composition.pk}/recipe/").json()["format"] == "lora-commons/recipe"


def test_an_unfinished_one_has_no_recipe(client, owner, base_model):
    composition = make_composition(owner=owner, base_model=base_model)
    answer = client.get(f"{URL}{composition.pk}/recipe/")
    assert answer.status_code == 409
    assert answer.json()["message"] == "This composition has no result, so there is no recipe of it."


@pytest.mark.parametrize("path", ["", "trials/", "recipe/", "predictions/"])
def test_a_stranger_gets_404_as_if_it_were_not_there(base_model, path):
    composition = finish(make_composition(base_model=base_model))
    for stranger in (APIClient(), client_of(make_user())):
        answer = stranger.get(f"{URL}{composition.pk}/{path}")
        nowhere = stranger.get(f"{URL}nowhere234/{path}")
        assert (answer.status_code, answer.json()) == (404, nowhere.json())


@pytest.mark.parametrize("path", ["cancel/", "stop/", "publish/"])
def test_a_stranger_can_change_nothing(base_model, path):
    composition = make_composition(base_model=base_model)
    answer = client_of(make_user()).post(f"{URL}{composition.pk}/{path}", {"name": "mine"})
    assert answer.status_code == 404
    assert APIClient().post(f"{URL}{composition.pk}/{path}").status_code == 401
    composition.refresh_from_db()
    assert composition.status == "queued"


def test_what_was_published_shows_to_others_without_what_is_private(client, owner, base_model):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    published = make_adapter("result", owner=owner, base_model=base_model, kind="composed")
    Composition.objects.filter(pk=composition.pk).update(adapter=published)
    Adapter.objects.filter(name="part-1").update(visibility="private")
    body = client_of(make_user()).get(f"{URL}{composition.pk}/").json()
    assert body["adapter"] == "ann/result"
    assert [c["adapter"] for c in body["candidates"]] == ["maker/part-0", None, "maker/part-2"]
    predictions = client_of(make_user()).get(f"{URL}{composition.pk}/predictions/")
    assert predictions.status_code == 403


# --- cancel and stop


def test_cancel_and_stop(client, owner, base_model):
    composition = make_composition(owner=owner, base_model=base_model)
    answer = client.post(f"{URL}{composition.pk}/stop/")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    claimed = jobs.claim(composition.pk, "worker")
    assert claimed
    jobs.record_trials(claimed, make_trials(2))
    answer = client.post(f"{URL}{composition.pk}/stop/")
    assert (answer.status_code, answer.json()["wish"], answer.json()["step"]) == (200, "stop", 2)
    assert client.post(f"{URL}{composition.pk}/cancel/").json()["wish"] == "cancel"
    jobs.confirm_cancelled(claimed)
    answer = client.post(f"{URL}{composition.pk}/cancel/")
    assert answer.status_code == 409
    assert "already been cancelled" in answer.json()["message"]


def test_one_that_waits_for_its_owners_others_says_so(client, owner, base_model, settings):
    settings.MAX_RUNNING_JOBS_PER_USER = 1
    first, second = (make_composition(owner=owner, base_model=base_model) for _ in range(2))
    assert client.get(f"{URL}{second.pk}/").json()["held_back"] is False
    jobs.claim(first.pk, "worker")
    told = client.get(f"{URL}{second.pk}/").json()
    assert (told["queue_place"], told["held_back"]) == (1, True)
    assert client.get(f"{URL}{first.pk}/").json()["held_back"] is False


def test_what_happened_is_told_to_the_owner_alone(client, owner, base_model):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    published = make_adapter("result", owner=owner, base_model=base_model, kind="composed")
    Composition.objects.filter(pk=composition.pk).update(adapter=published)
    lines = client.get(f"{URL}{composition.pk}/log/").json()["results"]
    assert [line["text"] for line in lines] == list(
        composition.log.order_by("-pk").values_list("text", flat=True)
    )
    assert lines
    assert client_of(make_user()).get(f"{URL}{composition.pk}/log/").status_code == 403


def test_the_licence_that_the_modules_allow_is_told_before_it_is_published(client, owner, base_model):
    composition = make_composition(owner=owner, base_model=base_model)
    assert client.get(f"{URL}{composition.pk}/").json()["derived_license"] is None
    finish(composition)
    assert client.get(f"{URL}{composition.pk}/").json()["derived_license"] == {
        "license": "mit",
        "note": "All parents have the licence mit.",
        "is_doubtful": False,
    }
    Adapter.objects.filter(name="part-1").update(license="", visibility="private")
    told = client.get(f"{URL}{composition.pk}/").json()["derived_license"]
    assert (told["license"], told["is_doubtful"]) == ("other", True)
    assert told["note"].startswith("a module that is not public states no licence, so ask its author")


# --- a link to share


def test_a_link_opens_the_result_until_it_is_taken_back(client, owner, base_model):
    composition = finish(make_composition(owner=owner, base_model=base_model))
    share = f"{URL}{composition.pk}/share/"
    link = client.post(share).json()["url"]
    assert client.post(share).json()["url"] == link
    guest = Client()
    assert guest.get(link).status_code == 200
    assert client_of(make_user()).post(share).status_code == 404
    assert client.delete(share).status_code == 204
    assert guest.get(link).status_code == 404


def test_too_many_waiting_is_429(client, owner, base_model, settings):
    settings.MAX_WAITING_JOBS_PER_USER = 1
    post(client)
    answer = post(client)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_waiting")
