"""What a result is scored by: chosen when one asks, told wherever a score stands, never mixed with another metric."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.test import Client
from huggingface_hub import ModelCard
from rest_framework.test import APIClient

from compose import jobs, leaderboards, making_tasks, own_data, publishing, recipes, worker
from compose.engine import types
from compose.engine.types import Example, Prediction
from compose.models import Composition
from registry import storage, task_sets
from registry.models import AdapterScore, BaseModelFile, Task, User
from registry.search import AdapterQuery, find
from tests.compose.factories import finish, make_composition, make_examples, owner_of
from tests.compose.test_api import ROWS, URL, client_of, post
from tests.compose.test_pages import filled, says, text_of
from tests.factories import make_adapter, make_base_model, make_task, make_user, namespace_of
from tests.fake_adapters import make_adapter as make_folder

pytestmark = pytest.mark.django_db
HIDDEN = [{"input": f"hidden {number}", "output": f"the answer {number}"} for number in range(20)]
UNKNOWN = "There is no metric 'bleu' here; choose one of: exact_match, token_f1, rouge_l."


@pytest.fixture
def ann() -> User:
    return make_user("ann")


@pytest.fixture
def browser(ann: User) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def summaries(metric: str = "token_f1", **fields: Any) -> Task:
    """A task with five examples and twenty hidden rows, scored by this metric."""
    given = {"slug": "summaries", "title": "Summaries", "description": "", "base_model": None, **fields}
    return task_sets.save_task(metric=metric, few_shot=ROWS, test=HIDDEN, **given)


def both(
    metric: str, ours: float, *, exact: float = 0.0, n: int = 20, split: str = "held_out"
) -> list[types.Score]:
    """The scores of a result by `metric`, with exact match beside it as the engine gives it."""
    by_metric = [
        types.Score("zero_shot", metric, 0.2, 0.1, 0.3, n, split),
        types.Score("lorahub", metric, ours, ours - 0.05, ours + 0.05, n, split),
    ]
    by_exact_match = [
        types.Score("zero_shot", "exact_match", 0.05, 0.0, 0.2, n, split),
        types.Score("lorahub", "exact_match", exact, 0.0, 0.3, n, split),
    ]
    return by_metric + by_exact_match


def scored(metric: str, ours: float, *, exact: float = 0.0, **options: Any) -> Composition:
    result = {"scores": both(metric, ours, exact=exact), **options.pop("result", {})}
    return finish(make_composition(metric=metric, **options), **result)


# --- Choosing ----------------------------------------------------------------------------------------------------


def test_it_is_exact_match_unless_somebody_or_the_task_says_otherwise(base_model, ann):
    assert make_composition(owner=ann).metric == "exact_match"
    assert make_composition(owner=ann, metric="rouge_l").metric == "rouge_l"
    task = summaries()
    assert make_composition(owner=ann, task=task).metric == "token_f1"
    assert make_composition(owner=ann, task=task, metric="exact_match").metric == "exact_match"
    perplexing = make_task("perplexing", metric="perplexity", rows=5, test_rows=10)
    assert make_composition(owner=ann, task=perplexing).metric == "exact_match"


def test_the_form_offers_three_and_keeps_what_was_chosen(browser, base_model):
    page = text_of(browser.get("/compose"))
    assert '<option value="exact_match" selected>' in page
    assert "ROUGE-L – words in common in their order, for summaries and translations" in page
    made = browser.post("/compose", filled(metric="rouge_l"))["Location"]
    composition = Composition.objects.get()
    assert composition.metric == "rouge_l"
    again = text_of(browser.get(f"/compose?again={made.rpartition('/')[2]}"))
    assert '<option value="rouge_l" selected>' in again
    refused = browser.post("/compose", filled(metric="bleu"))
    assert refused.status_code == 422
    assert says(refused, "There is no metric of this name. Choose one of the list.")
    checked = browser.post("/compose", filled(metric="token_f1", action="check", test_text="a\tb\nc\td"))
    assert says(checked, "2 rows for scoring by token F1.")


def test_what_was_chosen_waits_while_its_author_signs_in(base_model):
    client = Client()
    client.post("/compose", filled(metric="token_f1"))
    assert '<option value="token_f1" selected>' in text_of(client.get("/compose?draft=1"))


def test_a_task_presets_its_metric_on_the_form(browser, base_model):
    summaries("rouge_l")
    page = text_of(browser.get("/compose?task=summaries"))
    assert '<option value="rouge_l" selected>' in page
    assert "leaderboard is by ROUGE-L" in page


def test_a_script_chooses_it_and_a_wrong_one_is_named(base_model, ann):
    client = client_of(ann)
    body = post(client, metric="token_f1").json()
    assert body["metric"] == "token_f1"
    assert body["spec_sha256"] != post(client).json()["spec_sha256"]
    for wrong in ({"metric": "bleu"}, {"metric": "bleu", "dry_run": True}):
        answer = post(client, **wrong)
        said = answer.json()
        if "dry_run" in wrong:
            assert (said["ok"], said["problems"], said["metric"]) == (False, [UNKNOWN], None)
        else:
            assert (answer.status_code, said["fields"]["metric"]) == (400, [UNKNOWN])
    assert Composition.objects.count() == 2
    assert post(client, metric="rouge_l", dry_run=True).json()["metric"] == "rouge_l"


def test_the_same_key_with_another_metric_is_another_request(base_model, ann):
    send = partial(client_of(ann).post, URL, headers={"Idempotency-Key": "one"})
    given = {"base_model": "demo/tiny-t5", "examples": ROWS, "metric": "token_f1"}
    first = send(given).json()
    assert send(given).json()["id"] == first["id"]
    assert send({**given, "metric": "rouge_l"}).status_code in {409, 422}
    assert Composition.objects.count() == 1


def test_a_metric_that_the_leaderboard_does_not_take_is_warned_of(base_model, ann):
    summaries()
    given = {"base_model": "demo/tiny-t5", "task": "summaries", "dry_run": True}
    client = client_of(ann)
    assert client.post(URL, given).json()["warnings"] == []
    said = client.post(URL, {**given, "metric": "rouge_l"}).json()["warnings"]
    assert said == ["The leaderboard of the task is by token F1; a result scored by ROUGE-L is not on it."]


@pytest.mark.django_db(transaction=True)
def test_the_worker_asks_the_engine_for_it(fake_engine):
    base = make_base_model("demo/tiny-t5", kind="hosted", commit="a" * 40)
    blob = storage.store_stream([b'{"model_type": "t5"}'])
    BaseModelFile.objects.create(base_model=base, path="config.json", blob=blob)
    composition = make_composition(base_model=base, metric="rouge_l", budget=3, examples=make_examples(20))
    assert worker.run_next("worker")
    found = composition.scores.values_list("metric", "method")
    assert [method for metric, method in found if metric == "rouge_l"] == [
        "zero_shot",
        "best_single",
        "lorahub",
    ]
    assert [metric for metric, _ in found] == ["rouge_l"] * 3 + ["exact_match"] * 3


# --- What is told -------------------------------------------------------------------------------------------------


def test_the_result_names_the_metric_and_has_exact_match_beside_it(browser, base_model, ann):
    rows = [Prediction("q", "the red ball", {"lorahub": "a red box", "zero_shot": "no"})]
    composition = scored("token_f1", 0.612, exact=0.15, owner=ann, result={"predictions": rows})
    page = text_of(browser.get(composition.get_absolute_url()))
    assert "Token F1, 95 % interval. How many words an answer has in common" in page
    assert "By exact match the composed adapter gets 0.15, the best baseline 0.05." in page
    assert "Score of each method (token F1) with its 95 % interval: Zero-shot 0.20" in page
    assert '<th scope="col" class="num">Token F1</th>' in page
    assert '<td class="num">0.612</td>' in page
    assert '<td class="num">0.150</td>' in page
    assert '<span class="num worth">0.50</span>' in page  # "red", of two words each
    assert "Before each answer stands its token F1." in page
    assert page.count("Exact match") == 1, "the column of the table"
    address = composition.get_absolute_url()
    assert text_of(browser.get(f"{address}/predictions.csv")).splitlines() == [
        "input,expected,lorahub,zero_shot,lorahub token_f1,zero_shot token_f1",
        "q,the red ball,a red box,no,0.5,0.0",
    ]
    assert "token F1" in text_of(browser.get("/compositions"))


def test_the_columns_of_the_predictions_are_in_one_order_on_every_database(browser, ann):
    row = Prediction("q", "a", {"best_single": "b", "zero_shot": "c", "lorahub": "a"})
    composition = finish(make_composition(owner=ann), predictions=[row])
    text = text_of(browser.get(f"{composition.get_absolute_url()}/predictions.csv"))
    assert text.splitlines()[0].startswith(
        "input,expected,lorahub,zero_shot,best_single,lorahub exact_match,"
    )


def test_a_result_by_exact_match_says_it_once(browser, base_model, ann):
    composition = finish(make_composition(owner=ann))
    page = text_of(browser.get(composition.get_absolute_url()))
    assert "Exact match, 95 % interval." in page
    assert "By exact match" not in page
    assert '<th scope="col" class="num">Exact match</th>' in page
    assert "worth" not in page


def test_a_script_gets_both_and_what_each_answer_is_worth(base_model, ann):
    composition = scored("rouge_l", 0.5, owner=ann)
    client = client_of(ann)
    body = client.get(f"{URL}{composition.pk}/").json()
    assert body["metric"] == "rouge_l"
    assert [(score["metric"], score["method"]) for score in body["result"]["scores"]] == [
        ("rouge_l", "zero_shot"),
        ("rouge_l", "lorahub"),
        ("exact_match", "zero_shot"),
        ("exact_match", "lorahub"),
    ]
    [first, *_] = client.get(f"{URL}{composition.pk}/predictions/").json()["results"]
    assert first["values"] == {"lorahub": 1.0, "zero_shot": 0.0}
    assert recipes.recipe(composition)["metric"] == "rouge_l"
    [own] = json.loads("".join(own_data.as_json(ann)))["compositions"]
    assert own["metric"] == "rouge_l"


def test_gains_compare_scores_of_one_metric(base_model, ann):
    composition = scored("token_f1", 0.6, exact=0.9, owner=ann)
    gain = leaderboards.gain_of(composition)
    assert gain is not None
    assert (gain.ours.value, gain.baseline.value, len(gain.scores)) == (0.6, 0.2, 2)
    [best] = leaderboards.best_gains(Composition.objects.all(), limit=5)
    assert best.value == pytest.approx(0.4)


def published(composition: Composition, tmp_path: Path) -> Any:
    folder = make_folder(tmp_path / composition.pk)
    composition.weights_blob = storage.store_file(folder / "adapter_model.safetensors")
    composition.config_blob = storage.store_file(folder / "adapter_config.json")
    composition.save()
    owner = owner_of(composition)
    return publishing.publish_composition(
        composition, actor=owner, namespace=namespace_of(owner), name="short", visibility="public"
    )


def test_the_card_has_the_metric_and_the_hub_reads_its_model_index(base_model, ann, tmp_path):
    task = summaries(title="Über 😀: short")
    adapter = published(scored("token_f1", 0.6, exact=0.15, owner=ann, task=task, examples=[]), tmp_path)
    file = adapter.head.files.get(path="README.md")
    card = storage.open_blob(file.blob).read().decode()
    assert "| Method | Token F1 | 95 % interval | Rows | Exact match |" in card
    assert "| LoraHub | 0.600 | 0.550 to 0.650 | 20 | 0.150 |" in card
    assert "How many words an answer has in common with the expected text" in card
    data: Any = ModelCard(card).data
    results = data.eval_results
    assert [(found.metric_type, found.metric_value) for found in results] == [
        ("token_f1", 0.6),
        ("exact_match", 0.15),
    ]
    assert {(found.dataset_name, found.dataset_type) for found in results} == {
        ("Über 😀: short", "summaries")
    }
    assert (adapter.best_score, adapter.best_score_metric) == (0.6, "token_f1")
    assert "<span>token F1</span>" in Client().get("/modules").content.decode()
    kept = AdapterScore.objects.get()
    assert (kept.metric, kept.value) == ("token_f1", 0.6)
    page = text_of(Client().get(f"/{adapter.full_name}"))
    assert "Token F1, 95 % interval." in page
    assert '<td class="opt">token F1</td>' in page


def test_an_estimate_has_no_model_index(base_model, ann, tmp_path):
    result = {"scores": both("token_f1", 0.6, n=5, split="leave_one_out")}
    adapter = published(scored("token_f1", 0.6, owner=ann, result=result), tmp_path)
    file = adapter.head.files.get(path="README.md")
    assert "model-index" not in storage.open_blob(file.blob).read().decode()
    assert adapter.best_score is None


# --- Leaderboards -------------------------------------------------------------------------------------------------


def test_a_leaderboard_takes_scores_by_its_own_metric_alone(browser, base_model, ann):
    task = summaries()
    scored("token_f1", 0.6, owner=ann, task=task)
    scored("rouge_l", 0.9, exact=0.95, owner=ann, task=task)
    board = leaderboards.board(task, ann)
    assert [(entry.value, entry.metric) for entry in board.entries] == [(0.6, "token_f1"), (0.2, "token_f1")]
    listed = Task.objects.get(pk=task.pk)
    leaderboards.show_best([listed], ann)
    assert (vars(listed)["best_value"], vars(listed)["zero_shot_value"]) == (0.6, 0.2)
    client = client_of(ann)
    said = client.get("/api/v1/tasks/summaries/leaderboard/").json()
    assert (said["metric"], said["higher_is_better"]) == ("token_f1", True)
    page = text_of(Client().get("/tasks/summaries"))
    assert "token F1" in page
    assert "exact match" not in page
    assert '<span class="chip">token F1</span>' in text_of(browser.get("/tasks"))
    assert "best 0.60 (token F1)" in text_of(browser.get("/"))


def test_exact_match_beside_another_metric_counts_where_the_board_is_by_exact_match(base_model, ann):
    task = summaries("exact_match")
    scored("rouge_l", 0.9, exact=0.3, owner=ann, task=task)
    assert [entry.value for entry in leaderboards.board(task, ann).entries] == [0.3, 0.05]


def test_modules_found_by_their_score_on_a_task_are_compared_by_its_metric(base_model, ann):
    task = summaries()
    for name, metric, value in (
        ("low", "token_f1", 0.4),
        ("high", "token_f1", 0.5),
        ("other", "exact_match", 0.9),
    ):
        AdapterScore.objects.create(
            adapter=make_adapter(name), task=task, source="reported", metric=metric, value=value
        )
    found = find(AdapterQuery(scored_on="summaries", sort="score"), person=None)
    assert [adapter.name for adapter in found.items] == ["high", "low"]
    listed = Client().get("/modules?scored_on=summaries&sort=score").content.decode()
    assert '<div class="stat">0.50<span>self-reported token F1</span></div>' in listed


def test_modules_found_by_their_score_on_a_task_have_it_on_its_newest_rows(base_model, ann, tmp_path):
    task = summaries()
    published(scored("token_f1", 0.9, owner=ann, task=task, examples=[]), tmp_path)
    other = [{"input": f"another {number}", "output": f"the answer {number}"} for number in range(20)]
    task_sets.save_rows(task, few_shot=ROWS, test=other)
    published(scored("token_f1", 0.4, owner=make_user("bob"), task=task, examples=[]), tmp_path)
    AdapterScore.objects.create(
        adapter=make_adapter("claimed"), task=task, source="reported", metric="token_f1", value=0.3
    )
    found = find(AdapterQuery(scored_on="summaries", sort="score"), person=None)
    assert found.items[0].full_name == "bob/short"
    assert [adapter.name for adapter in found.items] == ["short", "claimed"]


def test_of_equal_scores_on_a_task_a_list_has_the_order_of_the_leaderboard(base_model, ann, tmp_path):
    task = summaries()

    def claim(name: str) -> None:
        AdapterScore.objects.create(
            adapter=make_adapter(name), task=task, source="reported", metric="token_f1", value=0.4
        )

    claim("before")
    for name in ("older", "newer"):
        published(scored("token_f1", 0.4, owner=make_user(name), task=task, examples=[]), tmp_path)
    claim("after")
    board = leaderboards.board(task, None)
    told = [entry.label for entry in board.entries if not entry.is_baseline]
    query = AdapterQuery(scored_on="summaries", sort="score", limit=1)
    listed: list[str] = []
    while query.cursor or not listed:
        found = find(query, person=None)
        listed += [adapter.full_name for adapter in found.items]
        query = replace(query, cursor=found.next_cursor)
    assert listed == told
    assert [name.partition("/")[2] for name in listed] == ["short", "short", "before", "after"]


def test_scores_of_before_get_the_revision_of_their_composition(base_model, ann, tmp_path):
    task = summaries()
    published(scored("token_f1", 0.9, owner=ann, task=task, examples=[]), tmp_path)
    AdapterScore.objects.update(task_revision=None)
    AdapterScore.objects.create(adapter=make_adapter(), task=task, source="reported", value=0.5)
    import_module("compose.migrations.0015_task_revisions_of_scores").forwards(apps, None)
    kept = dict(AdapterScore.objects.values_list("source", "task_revision"))
    assert kept == {"verified": task.revisions.get().pk, "reported": None}


def test_of_modules_with_a_loss_on_a_task_the_lowest_is_the_best(base_model):
    task = make_task("scale", metric="loss")
    for name, value in (("far", 40.0), ("near", 0.5), ("gain", -0.25)):
        module = make_adapter(name, best_score=0.8)
        AdapterScore.objects.create(adapter=module, task=task, source="verified", metric="loss", value=value)
    AdapterScore.objects.create(adapter=module, task=task, source="reported", metric="loss", value=7.0)
    query = AdapterQuery(scored_on="scale", sort="score", limit=2)
    first = find(query, person=None)
    assert [adapter.name for adapter in first.items] == ["gain", "near"]
    rest = find(replace(query, cursor=first.next_cursor), person=None)
    assert [adapter.name for adapter in rest.items] == ["far"]
    listed = Client().get("/modules?scored_on=scale&sort=score").content.decode()
    assert "−0.25<span>loss</span>" in listed
    assert "0.80<span>" not in listed
    assert "sort: best score on the task" in listed
    assert (
        "sort: best score on any task, by any metric" in Client().get("/modules?sort=score").content.decode()
    )


# --- Tasks --------------------------------------------------------------------------------------------------------


def rows_of(count: int) -> list[Example]:
    return [Example(f"question {number}", f"answer {number % 7}") for number in range(count)]


def made_by(person: User, **said: Any) -> Task:
    return making_tasks.create_task(
        actor=person,
        namespace=namespace_of(person),
        title="Short",
        rows=making_tasks.divide(rows_of(30)),
        **said,
    )


def test_a_task_is_made_with_its_metric_by_page_and_by_script(browser, base_model, ann):
    lines = "\n".join(f"{row.input}\t{row.output}" for row in rows_of(30))
    given = {"title": "Short", "namespace": "ann", "rows": lines, "seed": "3", "metric": "rouge_l"}
    preview = browser.post("/tasks/new", {**given, "action": "preview"})
    assert "<dd>ROUGE-L</dd>" in text_of(preview)
    seen = text_of(preview).partition('name="previewed" value="')[2][:64]
    browser.post("/tasks/new", {**given, "action": "store", "previewed": seen})
    assert Task.objects.get().metric == Task.objects.get().revisions.get().metric == "rouge_l"
    client = client_of(ann)
    body = {"title": "Other", "rows": lines, "metric": "token_f1"}
    assert client.post("/api/v1/tasks/", body).json()["metric"] == "token_f1"
    for dry_run in (False, True):
        refused = client.post("/api/v1/tasks/", {**body, "metric": "bleu", "dry_run": dry_run})
        assert (refused.status_code, refused.json()["fields"]["metric"]) == (400, [UNKNOWN])
    assert Task.objects.count() == 2


def test_another_metric_makes_the_next_revision_of_the_same_rows(base_model, ann):
    task = made_by(ann)
    client = client_of(ann)
    answer = client.patch(f"/api/v1/tasks/{task.slug}/", {"metric": "token_f1", "description": "Short ones."})
    assert (answer.status_code, answer.json()["metric"], answer.json()["revision"]) == (200, "token_f1", 2)
    first, second = task.revisions.order_by("number")
    assert (first.metric, second.metric) == ("exact_match", "token_f1")
    assert (first.few_shot, first.test, first.seed) == (second.few_shot, second.test, second.seed)
    client.patch(f"/api/v1/tasks/{task.slug}/", {"metric": "token_f1"})
    assert task.revisions.count() == 2
    refused = client.patch(f"/api/v1/tasks/{task.slug}/", {"metric": "bleu", "title": "Never"})
    assert (refused.status_code, refused.json()["fields"]["metric"]) == (400, [UNKNOWN])
    assert Task.objects.get().title == "Short"
    page = text_of(Client().get(f"/tasks/{task.slug}?revision=1"))
    assert "exact match ↑" in page
    assert "on, by token F1" in page


def test_the_metric_changes_on_the_edit_page_too_and_counts_as_new_rows(browser, base_model, ann, settings):
    task = made_by(ann)
    sent = {"title": "Short", "metric": "rouge_l"}
    assert browser.post(f"/tasks/{task.slug}/edit", sent).status_code == 302
    assert task.revisions.get(number=2).metric == "rouge_l"
    assert '<option value="rouge_l" selected>' in text_of(browser.get(f"/tasks/{task.slug}/edit"))
    settings.MAX_TASK_REVISIONS_PER_DAY = 2
    refused = browser.post(f"/tasks/{task.slug}/edit", {**sent, "metric": "token_f1"})
    assert says(refused, "Come back tomorrow.")
    assert Task.objects.get().metric == "rouge_l"


def test_a_metric_of_others_stays_when_the_rest_is_edited(browser, base_model, ann):
    task = made_by(ann)
    Task.objects.update(metric="word_error_rate")
    page = text_of(browser.get(f"/tasks/{task.slug}/edit"))
    assert '<option value="word_error_rate" selected>' in page
    browser.post(f"/tasks/{task.slug}/edit", {"title": "Shorter", "metric": "word_error_rate"})
    assert (Task.objects.get().title, Task.objects.get().metric) == ("Shorter", "word_error_rate")


def test_a_stranger_changes_no_metric(base_model, ann):
    task = made_by(ann)
    assert APIClient().patch(f"/api/v1/tasks/{task.slug}/", {"metric": "rouge_l"}).status_code == 401
    answer = client_of(make_user()).patch(f"/api/v1/tasks/{task.slug}/", {"metric": "rouge_l"})
    assert answer.status_code == 403
    assert task.revisions.count() == 1


def test_what_was_removed_of_a_result_leaves_its_metric(base_model, ann):
    composition = scored("token_f1", 0.6, owner=ann)
    jobs.forget_texts_of(composition)
    composition.refresh_from_db()
    assert composition.metric == "token_f1"
    assert composition.predictions == []
