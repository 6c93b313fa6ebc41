from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from compose import daily_limit, jobs, leaderboards
from compose.engine import types
from compose.models import Composition
from registry import moderation, publishing, reported_scores, storage, task_sets
from registry.models import Adapter, AdapterScore, Membership, Task, TaskRevision, User
from registry.search import AdapterQuery, find
from tests.compose.factories import finish, make_composition, make_modules, make_result, owner_of
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
)
from tests.plans import plans
from tests.visitors import client_of
from web.errors import NotFound

pytestmark = pytest.mark.django_db
ROWS = [{"input": f"question {number}", "output": str(number)} for number in range(20)]


def make_board_task(**changes: Any) -> Task:
    """A held-out task with five examples and twenty hidden rows."""
    fields = {"slug": "count", "title": "Count", "description": "", "base_model": None, "few_shot": ROWS[:5]}
    return task_sets.save_task(**{**fields, "test": ROWS, **changes})


def scored(task: Task, value: float, **options: Any) -> Composition:
    """A finished composition for the task with this score, and a zero-shot baseline of 0.2."""
    scores = [
        types.Score("zero_shot", "exact_match", 0.2, 0.1, 0.4, 20, "held_out"),
        types.Score("lorahub", "exact_match", value, value / 2, 1.0, 20, "held_out"),
    ]
    return finish(make_composition(task=task, **options), scores=scores)


def test_other_rows_make_another_revision_whose_board_begins_empty():
    task, owner = make_board_task(), make_user()
    first = scored(task, 0.6, owner=owner)
    Composition.objects.update(created_at=timezone.now() - timedelta(hours=1))
    make_board_task()
    assert task.revisions.count() == 1
    make_board_task(test=ROWS[::-1])
    assert task.revisions.count() == 2
    scored(task, 0.3, owner=owner)
    newest = leaderboards.board(task, owner)
    assert [entry.value for entry in newest.entries] == [0.3, 0.2]
    before = leaderboards.board(task, owner, revision="1")
    assert before.entries[0].url == first.get_absolute_url()
    assert before.entries[0].value == 0.6
    with pytest.raises(NotFound):
        leaderboards.board(task, owner, revision="7")


def test_of_a_long_board_the_first_and_ones_own_are_shown_and_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(leaderboards, "SHOWN", 2)
    task, ann, bob = make_board_task(), make_user("ann"), make_user("bob")
    for place, (value, owner) in enumerate(
        [(0.9, ann), (0.7, ann), (0.7, ann), (0.5, ann), (0.4, bob), (0.3, ann)]
    ):
        finished = scored(task, value, owner=owner)
        finished.adapter = make_adapter(f"mix-{place}", owner=owner, kind="composed")
        finished.save(update_fields=["adapter"])

    def told(person: User | None, **options: Any) -> tuple[list[tuple[int | None, float]], int, int]:
        board = leaderboards.board(task, person, **options)
        return [(entry.rank, entry.value) for entry in board.entries], board.total, board.verified

    assert told(None) == ([(1, 0.9), (2, 0.7)], 7, 6)
    assert told(bob) == ([(1, 0.9), (2, 0.7), (5, 0.4)], 7, 6)
    every = [(1, 0.9), (2, 0.7), (2, 0.7), (4, 0.5), (5, 0.4), (6, 0.3), (None, 0.2)]
    assert told(None, whole=True) == (every, 7, 6)
    assert told(None, source="reported") == ([], 0, 6)


def test_what_was_published_and_is_deleted_is_its_owners_unpublished_score_again():
    task, owner = make_board_task(), make_user()
    finished = scored(task, 0.6, owner=owner)
    finished.adapter = make_adapter("mix", owner=owner, kind="composed")
    finished.save(update_fields=["adapter"])
    assert leaderboards.board(task, None).entries[0].label == finished.adapter.full_name
    publishing.withdraw(finished.adapter, actor=owner)
    assert leaderboards.board(task, None).entries == []
    entry = leaderboards.board(task, owner).entries[0]
    assert (entry.label, entry.is_published, entry.is_mine) == (finished.title, False, True)


def test_the_files_beside_an_older_board_are_of_that_board(client: Client):
    task = make_board_task()
    finished = scored(task, 0.6)
    finished.adapter = make_adapter("mix", owner=owner_of(finished), kind="composed")
    finished.save(update_fields=["adapter"])
    make_board_task(test=ROWS[::-1])
    page = client.get("/tasks/count?revision=1").content.decode()
    for address in ("/tasks/count/leaderboard.csv?revision=1", "/api/v1/tasks/count/leaderboard/?revision=1"):
        assert f'href="{address}"' in page
        assert "0.6" in client.get(address).content.decode()


def test_a_moderator_reads_the_whole_board_of_a_task_in_quarantine():
    task = make_board_task()
    moderation.quarantine(task, moderator=None, reason="x")
    addresses = ("/tasks/count", "/tasks/count/leaderboard.csv", "/api/v1/tasks/count/leaderboard/")
    for address in addresses:
        assert client_of(make_user(is_staff=True)).get(address).status_code == 200, address
        assert client_of(make_user()).get(address).status_code == 404, address


def test_a_score_belongs_to_the_revision_it_is_on_and_not_to_the_one_of_that_moment():
    task, owner = make_board_task(), make_user()
    asked = make_composition(task=task, owner=owner)
    make_board_task(test=ROWS[::-1])
    scored_value = [types.Score("lorahub", "exact_match", 0.9, 0.5, 1.0, 20, "held_out")]
    finish(asked, scores=scored_value)
    assert asked.task_revision is not None
    assert asked.task_revision.number == 1
    assert leaderboards.board(task, owner).entries == []
    assert [entry.value for entry in leaderboards.board(task, owner, revision="1").entries] == [0.9]
    listed = Task.objects.get()
    leaderboards.show_best([listed], owner)
    assert vars(listed)["best_value"] is None


def test_compositions_of_before_belong_to_the_revision_of_their_time():
    task, owner = make_board_task(), make_user()
    composition = make_composition(task=task, owner=owner)
    make_board_task(test=ROWS[::-1])
    first, second = task.revisions.order_by("number")
    forwards = import_module("compose.migrations.0011_task_revision_by_time").forwards
    for moment, wanted in (
        (first.created_at - timedelta(days=1), first),
        (first.created_at, first),
        (second.created_at - timedelta(microseconds=1), first),
        (second.created_at + timedelta(days=1), second),
    ):
        Composition.objects.update(created_at=moment, task_revision=None)
        forwards(apps, None)
        assert Composition.objects.get(pk=composition.pk).task_revision == wanted


def test_who_made_a_task_is_named_on_its_board_as_the_one_who_knows_the_rows():
    owner = make_user()
    task = make_board_task(owner=namespace_of(owner))
    Task.objects.update(created_by=owner)
    scored(task, 0.6, owner=owner)
    entry = leaderboards.board(Task.objects.get(), owner).entries[0]
    assert entry.note.endswith("by the maker of the task, who knows its hidden rows")


def test_a_revision_is_written_once():
    make_board_task()
    revision = TaskRevision.objects.get()
    revision.metric = "other"
    with pytest.raises(TypeError):
        revision.save()


def test_reported_scores_stand_beside_verified_ones_without_a_rank():
    task, owner = make_board_task(), make_user()
    scored(task, 0.5, owner=owner)
    module = make_adapter("claimed")
    AdapterScore.objects.create(adapter=module, task=task, source="reported", value=0.9, note="their table")
    board = leaderboards.board(task, owner)
    assert [(entry.rank, entry.kind) for entry in board.entries] == [
        (None, "reported"),
        (1, "composed"),
        (None, "baseline"),
    ]
    assert [entry.kind for entry in leaderboards.board(task, owner, source="reported").entries] == [
        "reported"
    ]
    Adapter.objects.filter(pk=module.pk).update(visibility="private")
    assert leaderboards.board(task, owner).reported == 0


def test_a_board_has_no_column_in_which_nothing_stands(client: Client):
    task = make_task("told", metric="exact_match")
    score = AdapterScore.objects.create(
        adapter=make_adapter("claimed"), task=task, source="reported", metric="exact_match", value=0.9
    )
    page = client.get(task.get_absolute_url()).content.decode()
    assert "0.900" in page
    assert "interval" not in page
    assert ">Rows</th>" not in page
    AdapterScore.objects.filter(pk=score.pk).update(n=50, low=0.8, high=0.95)
    page = client.get(task.get_absolute_url()).content.decode()
    assert "0.80 to 0.95" in page
    assert ">Rows</th>" in page


def test_a_metric_of_which_less_is_better_is_sorted_the_other_way():
    task = make_task("perplexing", metric="perplexity", is_held_out=True)
    for name, value in (("worse", 0.9), ("better", 0.1)):
        AdapterScore.objects.create(
            adapter=make_adapter(name), task=task, source="reported", metric="perplexity", value=value
        )
    names = [entry.label.partition("/")[2] for entry in leaderboards.board(task, None).entries]
    assert names == ["better", "worse"]
    assert "↓" in Client().get("/tasks/perplexing").content.decode()


def test_only_the_first_hundred_rows_and_ones_own_are_on_the_page_and_all_in_the_files(client: Client):
    task, ada = make_board_task(), make_user("ada")
    for number in range(105):
        adapter = make_adapter(f"m{number:03}", created_by=ada if number == 104 else None)
        AdapterScore.objects.create(adapter=adapter, task=task, source="reported", value=1 - number / 200)
    client.force_login(ada)
    with CaptureQueriesContext(connection) as queries:
        page = client.get("/tasks/count").content.decode()
    assert len(queries) <= 15, "\n".join(query["sql"][:100] for query in queries)
    assert "m104" in page
    assert "m103" not in page
    assert "The first 101 of 105 rows" in page
    rows = list(csv.DictReader(io.StringIO(client.get("/tasks/count/leaderboard.csv").content.decode())))
    assert (len(rows), rows[0]["verified"], rows[0]["kind"]) == (105, "no", "reported")
    board = client.get("/api/v1/tasks/count/leaderboard/").json()
    assert (len(board["results"]), board["hidden_rows"], board["revision"]) == (105, 20, 1)


def test_the_endpoint_refuses_what_it_does_not_know(client: Client):
    make_board_task()
    assert client.get("/api/v1/tasks/count/leaderboard/?sort=x").status_code == 400
    assert client.get("/api/v1/tasks/nothing/leaderboard/").status_code == 404
    assert client.get("/tasks/count?revision=99").status_code == 404
    assert client.get("/tasks/count?source=nobody").status_code == 404
    refused = client.get("/api/v1/tasks/count/leaderboard/?source=nobody")
    sentence = "A leaderboard shows all, verified, reported, not 'nobody'."
    assert (refused.status_code, refused.json()["fields"]) == (400, {"source": [sentence]})


def test_the_embedded_board_may_stand_in_other_pages_and_shows_what_everybody_sees(client: Client):
    task, owner = make_board_task(), make_user()
    scored(task, 0.5, owner=owner)
    client.force_login(owner)
    answer = client.get("/tasks/count/embed")
    assert "X-Frame-Options" not in answer
    assert "frame-ancestors *" in answer["Content-Security-Policy"]
    assert "Nobody has composed" in answer.content.decode()
    assert "frame-ancestors 'none'" in client.get("/tasks/count")["Content-Security-Policy"]


def test_a_days_scored_compositions_run_out_and_what_ends_before_its_scoring_is_given_back(settings: Any):
    settings.MAX_SCORED_PER_TASK_PER_DAY = 2
    task, owner = make_board_task(), make_user()
    base_model = make_base_model()
    make_modules(base_model)
    ask = partial(make_composition, owner=owner, task=task, base_model=base_model)
    failed = jobs.claim(ask().pk, "worker")
    assert failed
    jobs.set_stage(failed, "search")
    jobs.fail(failed, "It does not fit.")
    jobs.cancel(ask(), owner)
    assert "2 more of 2" in daily_limit.for_person(owner, task)
    for _ in range(2):
        ask()
    with pytest.raises(daily_limit.DailyLimit) as refused:
        ask()
    assert "today's 2 scored compositions" in refused.value.message
    make_composition(task=task, base_model=base_model)
    assert "0 more of 2" in daily_limit.for_person(owner, task)
    assert "2 compositions a day" in daily_limit.for_person(None, task)
    Composition.objects.update(created_at=timezone.now() - timedelta(hours=25))
    ask()


def lose(claimed: Composition) -> None:
    Composition.objects.filter(pk=claimed.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    jobs.sweep()


def cancel_before_another_takes_it(claimed: Composition, give_back: Callable[[Composition], object]) -> None:
    give_back(claimed)
    jobs.cancel(claimed, owner_of(claimed))


ENDS: dict[str, Callable[[Composition], object]] = {
    "it succeeds": lambda claimed: jobs.finish(
        claimed,
        make_result(),
        weights=storage.store_stream([b"weights"]),
        config=storage.store_stream([b"{}"]),
    ),
    "it fails": lambda claimed: jobs.fail(claimed, "Out of memory."),
    "it is cancelled": lambda claimed: (
        jobs.cancel(claimed, owner_of(claimed)),
        jobs.confirm_cancelled(claimed),
    ),
    "its worker goes and it is cancelled": partial(cancel_before_another_takes_it, give_back=jobs.release),
    "its worker is lost and it is cancelled": partial(cancel_before_another_takes_it, give_back=lose),
    "its worker goes and another fails before it scores": lambda claimed: (
        jobs.release(claimed),
        jobs.fail(jobs.claim(claimed.pk, "another") or claimed, "The hub is away."),
    ),
    "its owner is blocked": lambda claimed: jobs.end_all_of(owner_of(claimed), "Blocked."),
    "it waits again": jobs.release,
}


@pytest.mark.parametrize("end", ENDS)
def test_from_its_scoring_on_it_counts_for_the_day_whatever_becomes_of_it(end: str, settings: Any):
    """Its progress has told how many rows it is scored on, and so whether a guess is among them."""
    settings.MAX_SCORED_PER_TASK_PER_DAY = 1
    task = make_board_task()
    claimed = jobs.claim(make_composition(task=task).pk, "worker")
    assert claimed
    owner = owner_of(claimed)
    jobs.set_stage(claimed, "evaluate")
    jobs.set_step(claimed, 0, 100, "answers")
    ENDS[end](claimed)
    with pytest.raises(daily_limit.DailyLimit):
        make_composition(owner=owner, task=task, base_model=claimed.base_model)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("module,boolean_expressions,word_sorting\nlorahub/one,56.67,0.0\nlorahub/two,50.0,\n")
    return path


def test_a_table_of_modules_and_tasks_is_kept_as_self_reported_and_again_without_harm(table: Path):
    make_user("ada")
    arguments: list[Any] = [
        table,
        "--by",
        "ada",
        "--note",
        "their repository",
        "--percent",
        "--task-prefix",
        "bbh-",
    ]
    call_command("import_scores", *arguments)
    assert not AdapterScore.objects.exists()
    arguments += ["--make-missing", "--make-namespace", "lorahub", "--base", "google/flan-t5-large"]
    for _ in range(2):
        call_command("import_scores", *arguments)
    assert AdapterScore.objects.count() == 3
    score = AdapterScore.objects.get(adapter__name="one", task__slug="bbh-boolean-expressions")
    assert score.value == pytest.approx(0.5667)
    assert (score.source, score.note) == ("reported", "their repository")
    page = Client().get("/tasks/bbh-boolean-expressions").content.decode()
    assert "lorahub/one" in page
    assert "self-reported" in page
    query = AdapterQuery(namespace="lorahub", scored_on="bbh-boolean-expressions", sort="score")
    assert [adapter.name for adapter in find(query, person=None).items] == ["one", "two"]


def test_an_import_of_scores_makes_nobody_admin_of_what_is_another_s(table: Path):
    make_user("ada")
    make_organisation("lorahub", members={make_user("bob"): "admin"})
    arguments: list[Any] = [table, "--by", "ada", "--note", "x", "--percent", "--make-missing"]
    with pytest.raises(CommandError, match="not a member"):
        call_command("import_scores", *arguments, "--make-namespace", "lorahub")
    assert not Membership.objects.filter(namespace__name="lorahub", user__username="ada").exists()
    with pytest.raises(CommandError, match="address of this site"):
        call_command("import_scores", *arguments, "--make-namespace", "settings")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "first line"),
        ("module\n", "first line"),
        ("module,a,a\n", "another task"),
        ("module,a\nx/y\n", "Line 2 has 1 columns"),
        ("module,a\nx/y,much\n", "Line 2, a: 'much' is no number"),
        ("module,a\nx/y,101\n", "not between 0 and 100"),
        ("module,a\nx/y,nan\n", "not between 0 and 100"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_line_and_nothing_is_kept(
    tmp_path: Path, text: str, sentence: str
):
    path = tmp_path / "table.csv"
    path.write_text(text)
    make_user("ada")
    with pytest.raises(CommandError, match=sentence):
        call_command("import_scores", path, "--by", "ada", "--note", "x", "--percent")
    assert not AdapterScore.objects.exists()
    assert not Task.objects.exists()


def test_lorahubs_own_table_imports_at_its_real_size():
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "lorahub" / "single_module_accuracy.csv"
    if not path.exists():
        pytest.skip("the table is not on this machine")
    cells = reported_scores.read_table(path, in_percent=True)
    assert len(cells) == 196 * 27
    assert len({cell.module for cell in cells}) == 196


def test_what_a_composition_was_compared_with_is_a_baseline_and_the_best_single_module_is_named(
    client: Client,
):
    task, owner = make_board_task(), make_user()
    scores = [
        types.Score(method, "exact_match", value, value, 1.0, 20, "held_out")
        for method, value in (("auto", 0.9), ("lorahub", 0.4), ("best_single", 0.3), ("zero_shot", 0.1))
    ]
    composition = finish(make_composition(task=task, owner=owner, method="auto"), scores=scores)
    composition.candidates.update(audition_loss=2.0)
    best = composition.candidates.last()
    composition.candidates.filter(pk=best.pk).update(audition_loss=1.0)
    entries = leaderboards.board(task, owner).entries
    assert [(entry.method, entry.is_baseline) for entry in entries] == [
        ("auto", False), ("lorahub", True), ("best_single", True), ("zero_shot", True),
    ]  # fmt: skip
    module = best.revision.adapter
    assert (entries[2].module, entries[2].url) == (module.full_name, module.get_absolute_url())
    client.force_login(owner)
    assert (
        f'<a href="{module.get_absolute_url()}">{module.full_name}</a>'
        in client.get("/tasks/count").content.decode()
    )
    Adapter.objects.filter(pk=module.pk).update(visibility="private")
    assert leaderboards.board(task, make_user("else")).entries == []
    assert leaderboards.board(task, owner).entries[2].module == ""


def test_what_has_no_owner_any_more_is_not_said_to_be_a_guests():
    task = make_board_task()
    done = scored(task, 0.6)
    Composition.objects.filter(pk=done.pk).update(owner=None, adapter=make_adapter("mix", kind="composed"))
    AdapterScore.objects.create(adapter=make_adapter("claimed"), task=task, source="reported", value=0.4)
    page = Client().get("/tasks/count").content.decode()
    assert "mix" in page
    assert "claimed" in page
    assert ">yours<" not in page


def test_a_board_of_before_leads_to_its_own_files():
    task, owner = make_board_task(), make_user()
    client = Client()
    client.force_login(owner)
    scored(task, 0.6, owner=owner)
    make_board_task(test=ROWS[::-1])
    page = client.get("/tasks/count?revision=1").content.decode()
    for address in ("/tasks/count/leaderboard.csv", "/api/v1/tasks/count/leaderboard/"):
        assert f'href="{address}?revision=1"' in page


def test_a_gain_on_a_few_rows_is_none_of_the_best():
    lucky = [
        types.Score("zero_shot", "exact_match", 0.0, 0.0, 0.8, 1, "held_out"),
        types.Score("lorahub", "exact_match", 1.0, 0.2, 1.0, 1, "held_out"),
    ]
    base_model = make_base_model()
    finish(make_composition(base_model=base_model), scores=lucky)
    scored(make_board_task(), 0.6, base_model=base_model)
    assert [gain.ours.n for gain in leaderboards.best_gains(Composition.objects.all(), limit=3)] == [20]


@pytest.mark.parametrize("first", [1, 21, 100])
def test_the_best_gains_are_of_different_tasks_however_many_one_of_them_has(
    monkeypatch: pytest.MonkeyPatch, first: int
):
    monkeypatch.setattr(leaderboards, "FIRST_GAINS", first)
    tasks = [make_board_task(slug=slug, title=slug) for slug in ("much", "less")]
    base_model = make_base_model()
    make_modules(base_model)
    values = [(tasks[0], 0.9)] * 20 + [(tasks[1], 0.5), (None, 0.4), (None, 0.3)]
    for task, value in values:
        done = scored(task or make_board_task(), value, base_model=base_model)  # of a person of its own
        if task is None:
            Composition.objects.filter(pk=done.pk).update(task=None)
    gains = leaderboards.best_gains(Composition.objects.all(), limit=3)
    assert [(gain.ours.value, gain.composition.task) for gain in gains] == [
        (0.9, tasks[0]), (0.5, tasks[1]), (0.4, None),
    ]  # fmt: skip


def test_gains_from_before_are_those_that_finishing_writes():
    task = make_board_task()
    scored(task, 0.6)
    scored(task, 0.1)
    few = [
        types.Score(method, "exact_match", 0.5, 0.1, 0.9, 3, "held_out")
        for method in ("zero_shot", "lorahub")
    ]
    finish(make_composition(task=task), scores=few)
    written = dict(Composition.objects.values_list("pk", "gain"))
    assert sorted(written.values(), key=str) == [pytest.approx(-0.1), pytest.approx(0.4), None]
    Composition.objects.update(gain=None)
    import_module("compose.migrations.0019_gains_of_what_is_there").write_gains(apps, None)
    assert dict(Composition.objects.values_list("pk", "gain")) == written


def test_scores_of_boards_from_before_are_those_that_finishing_writes():
    task = make_board_task()
    scored(task, 0.6)
    scored(task, 0.1)
    few = [types.Score("lorahub", "exact_match", 0.9, 0.1, 1.0, 3, "held_out")]
    finish(make_composition(task=task), scores=few)  # on some of the hidden rows, and so on no board
    finish(make_composition())
    written = dict(Composition.objects.values_list("pk", "board_score"))
    assert sorted(written.values(), key=str) == [0.1, 0.6, None, None]
    Composition.objects.update(board_score=None)
    import_module("compose.migrations.0021_board_scores_of_what_is_there").write_board_scores(apps, None)
    assert dict(Composition.objects.values_list("pk", "board_score")) == written


def test_what_a_worker_of_the_version_before_leaves_out_is_written_by_the_clock():
    task = make_board_task()
    ended = scored(task, 0.6)
    few = [types.Score("lorahub", "exact_match", 0.9, 0.1, 1.0, 3, "held_out")]
    finish(make_composition(task=task), scores=few)
    finish(make_composition())
    written = Composition.objects.values_list("pk", "gain", "board_score").order_by("pk")
    before = list(written)
    assert jobs.write_what_is_missing() == 0
    for missing in ({"board_score": None}, {"board_score": None, "gain": None}):
        Composition.objects.filter(pk=ended.pk).update(**missing)
        assert jobs.write_what_is_missing() == 1
        assert list(written) == before


def test_the_best_on_a_task_is_the_best_that_one_may_see_with_its_own_base_model_alone():
    task, ann = make_board_task(), make_user()
    for owner, own, alone in ((ann, 0.6, 0.2), (ann, 0.5, 0.4), (make_user(), 0.9, 0.8)):
        values = {"lorahub": own, "zero_shot": alone}
        scores = [
            types.Score(name, "exact_match", value, 0.0, 1.0, 20, "held_out")
            for name, value in values.items()
        ]
        finish(make_composition(task=task, owner=owner), scores=scores)
    other = make_task("other", rows=2, is_held_out=True)
    for person, seen in ((ann, (0.6, 0.2)), (None, (None, None))):
        listed = [Task.objects.get(pk=each.pk) for each in (task, other)]
        leaderboards.show_best(listed, person)
        told = [(vars(each)["best_value"], vars(each)["zero_shot_value"]) for each in listed]
        assert told == [seen, (None, None)]
        best = [entry.value for entry in leaderboards.board(task, person).entries if entry.rank == 1]
        assert best == [value for value in seen[:1] if value is not None]


@pytest.mark.postgres_only
def test_the_best_on_a_task_is_not_looked_for_among_all_that_was_composed_for_it():
    task = make_board_task()
    scored(task, 0.6)
    with plans() as lines:
        leaderboards.show_best([Task.objects.get(pk=task.pk)], make_user())
    assert any("composition_best_on_task" in line for line in lines), lines
