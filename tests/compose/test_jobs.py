from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from compose import examples as reading
from compose import jobs
from compose.engine import types
from compose.errors import (
    BadSetting,
    CandidateProblem,
    FewShotProblem,
    LeaseLost,
    NoSuchComposition,
    TooManyWaiting,
    WrongState,
)
from compose.jobs import sweeping, workers
from compose.models import Candidate, Composition, Kept, Score, Trial, Worker
from registry import storage
from tests.compose.factories import (
    finish,
    make_composition,
    make_examples,
    make_modules,
    make_result,
    make_trials,
)
from tests.factories import make_adapter, make_base_model, make_task, make_user, namespace_of
from web.errors import Forbidden

pytestmark = pytest.mark.django_db
Status = Composition.Status


def let_the_lease_run_out(composition: Composition) -> None:
    Composition.objects.filter(pk=composition.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def claim(composition: Composition, worker: str = "worker-1") -> Composition:
    claimed = jobs.claim(composition.pk, worker)
    assert claimed is not None
    return claimed


def rang(rung) -> list[str]:
    return [ring.args[0] for ring in rung]


def store_outputs() -> dict:
    return {"weights": storage.store_stream([b"weights"]), "config": storage.store_stream([b"{}"])}


# --- asking


def test_a_request_is_queued_with_its_candidates_and_rings_after_commit(
    rung, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        composition = make_composition(title=" Colours ", seed=7)
        assert rung == []
    assert rang(rung) == [composition.pk]
    assert (composition.status, composition.title) == ("queued", "Colours")
    assert [c.position for c in composition.candidates.all()] == [0, 1, 2]
    assert composition.candidates_note == "All 3 modules that fit demo/tiny-t5."
    assert "5 examples are too few" in composition.split_note


def test_a_broker_that_is_down_does_not_fail_the_request(monkeypatch, django_capture_on_commit_callbacks):
    from compose import tasks

    def refuse(*args, **kwargs):
        raise OSError("connection refused")

    monkeypatch.setattr(tasks.run_composition, "apply_async", refuse)
    with django_capture_on_commit_callbacks(execute=True):
        composition = make_composition()
    assert composition.status == "queued"


def test_the_same_request_has_the_same_spec_and_another_seed_another():
    base_model = make_base_model()
    make_modules(base_model)
    owner = make_user()
    first, second, other = (make_composition(owner=owner, base_model=base_model, seed=s) for s in (1, 1, 2))
    assert first.spec_sha256 == second.spec_sha256 != other.spec_sha256


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"budget": 0}, BadSetting, "The budget is the number of trials, from 1 to 2,000."),
        ({"budget": 2001}, BadSetting, "from 1 to 2,000"),
        ({"seed": -1}, BadSetting, "The seed is a whole number from 0"),
        ({"seed": 2**70}, BadSetting, "The seed is a whole number from 0"),
        ({"method": "magic"}, BadSetting, "There is no method 'magic' here; choose one of: lorahub, auto"),
        ({"title": "x" * 201}, BadSetting, "The title has 201 characters"),
        ({"title": "\u200b"}, BadSetting, "The title has no character that can be seen."),
        ({"title": "a\u202eb"}, BadSetting, "The title holds the character U+202E"),
        ({"examples": []}, FewShotProblem, "There are no examples."),
        ({"examples": make_examples(1)}, FewShotProblem, "needs at least 2 examples; you gave 1"),
        ({"examples": make_examples(101)}, FewShotProblem, "You gave 101 rows; at most 100 are used"),
        ({"candidates": []}, CandidateProblem, "Pick at least one LoRA module"),
    ],
)
def test_a_refused_request_says_why_and_leaves_nothing_behind(options, error, sentence):
    with pytest.raises(error) as refusal:
        make_composition(**options)
    assert sentence in refusal.value.message
    assert not Composition.objects.exists()
    assert not Candidate.objects.exists()


def test_each_method_gets_its_usual_budget():
    methods = ("lorahub", "auto", "gradient")
    assert [make_composition(method=method).budget for method in methods] == [40, 600, 200]


def test_a_task_lends_its_few_shot_rows_and_scores_on_its_hidden_ones():
    task = make_task("who-quoted", rows=5, test_rows=30)
    composition = make_composition(task=task, examples=[])
    assert len(composition.examples) == 5
    assert len(composition.test_examples) == 30
    assert composition.has_hidden_test
    assert finish(composition).split_note == "Scored on the 30 hidden test rows of its task."


def test_own_test_rows_go_before_hidden_ones_and_before_a_split():
    composition = make_composition(examples=make_examples(20), test_examples=make_examples(4, start=50))
    assert (len(composition.examples), len(composition.test_examples)) == (20, 4)
    assert composition.split_note == "Scored on 4 test rows that came with the examples."


def test_test_rows_that_the_search_sees_score_nothing():
    examples = make_examples(5)
    composition = make_composition(examples=examples, test_examples=make_examples(4, start=3))
    assert reading.from_json(composition.test_examples) == make_examples(2, start=5)
    assert composition.split_note == (
        "Scored on 2 of the 4 test rows that came with the examples: the others are among the examples too."
    )
    with pytest.raises(FewShotProblem) as refused:
        make_composition(examples=examples, test_examples=examples[:3])
    assert (refused.value.fields.keys(), "none could score the result" in str(refused.value)) == (
        {"test_examples"},
        True,
    )
    composition = make_composition(examples=examples, test_examples=make_examples(3, start=4))
    assert (
        composition.split_note
        == "Scored on 2 of the 3 test rows that came with the examples: the other is among the examples too."
    )


def test_enough_examples_are_split():
    composition = make_composition(examples=make_examples(15), seed=3)
    assert (len(composition.examples), len(composition.test_examples)) == (10, 5)
    assert composition.split_note == (
        "5 of the 15 examples, drawn by seed 3, are held out for scoring; the search sees the other 10."
    )


def test_one_person_cannot_fill_the_queue(settings):
    settings.MAX_WAITING_JOBS_PER_USER = 2
    owner = make_user()
    for _ in range(2):
        make_composition(owner=owner)
    with pytest.raises(TooManyWaiting, match="You have 2 compositions waiting"):
        make_composition(owner=owner)
    assert jobs.room(owner).places_left == 0
    make_composition()


def test_a_dry_run_tells_everything_and_saves_nothing():
    base_model = make_base_model()
    make_modules(base_model)
    finish(make_composition(base_model=base_model, budget=40))
    make_composition(base_model=base_model)
    answer = jobs.dry_run(
        jobs.CompositionRequest(
            owner=make_user(), base_model=base_model, examples=make_examples(16), method="lorahub", budget=80
        )
    )
    assert answer["ok"]
    assert answer["queue_place"] == 2
    assert (answer["few_shot"], answer["held_out"]) == (11, 5)
    assert len(answer["candidates"]) == 3
    # 4.5 s whatever the budget, 0.5 s a trial, and a tenth of the budget was used.
    assert answer["estimate"] == {"seconds": 8.5, "based_on": 1}
    assert Composition.objects.count() == 2


def test_a_dry_run_names_rows_by_their_numbers_though_some_are_held_out():
    base_model = make_base_model()
    make_modules(base_model)
    rows = [*make_examples(18), make_examples(1, start=17)[0], make_examples(1, start=3)[0]]
    for seed in range(4):
        answer = jobs.dry_run(
            jobs.CompositionRequest(owner=make_user(), base_model=base_model, examples=rows, seed=seed)
        )
        assert answer["warnings"] == [
            "Rows 4, 18, 19, 20 are duplicates; each counts as often as it is there."
        ]


def test_a_dry_run_of_a_bad_request_lists_the_problems():
    base_model = make_base_model()
    answer = jobs.dry_run(
        jobs.CompositionRequest(owner=make_user(), base_model=base_model, examples=make_examples(5))
    )
    assert not answer["ok"]
    assert answer["problems"] == [
        "There is no LoRA module here that composes on demo/tiny-t5 and that you may see. Upload one, or choose "
        "another base model."
    ]


def test_a_dry_run_says_that_todays_scored_compositions_are_used_up(settings):
    settings.MAX_SCORED_PER_TASK_PER_DAY = 1
    task, owner = make_task(rows=5, test_rows=30), make_user()
    composition = make_composition(owner=owner, task=task, examples=[])
    wanted = jobs.CompositionRequest(owner=owner, base_model=composition.base_model, task=task)
    [problem] = jobs.dry_run(wanted)["problems"]
    assert "The next one is possible at" in problem, "the whole sentence, with what to do"
    own_rows = replace(wanted, examples=make_examples(5), test_examples=make_examples(4, start=9))
    assert jobs.dry_run(own_rows)["ok"], "not scored on the task's rows"


def test_an_estimate_is_not_misled_by_what_was_resumed_or_stopped():
    base_model = make_base_model()
    seconds = {"load": 1.0, "search": 8.0, "evaluate": 2.0, "export": 0.5}
    plain = finish(make_composition(base_model=base_model, budget=4), seconds=seconds, trials=4)
    expected = {"seconds": 3.5 + 2.0 * 10, "based_on": 1}
    assert jobs.estimate(base_model, "lorahub", 10) == expected
    resumed = make_composition(base_model=base_model, budget=4)
    jobs.release(claim(resumed))
    finish(resumed, seconds={**seconds, "search": 0.1}, trials=4)
    assert jobs.estimate(base_model, "lorahub", 10) == expected
    for _ in range(2):
        stopped = make_composition(base_model=plain.base_model, budget=40)
        finish(stopped, seconds=seconds, trials=4, stopped_early=True)
    assert jobs.estimate(base_model, "lorahub", 10) == {**expected, "based_on": 3}


def test_an_estimate_reads_nobodys_rows():
    base_model = make_base_model()
    done = finish(make_composition(base_model=base_model))
    with CaptureQueriesContext(connection) as queries:
        assert jobs.estimate(base_model, done.method, done.budget)["based_on"] == 1
    [query] = queries
    assert '"result"' in query["sql"]
    assert "examples" not in query["sql"]


def test_what_is_said_of_a_composition_fits_its_columns_whatever_its_base_is_called():
    base_model = make_base_model(f"lab/{'x' * 190}")
    make_modules(base_model, 26)
    unlike = [
        make_adapter(base_model=base_model, facts={"ranks": [rank], "target_names": ["q"]}) for rank in (1, 2)
    ]
    composition = make_composition(base_model=base_model, excluded=[unlike[0].full_name])
    assert "drawn by seed 1" in composition.candidates_note
    assert len(composition.candidates_note) <= 300
    assert len(composition.title) <= 200


# --- claiming and order


def test_a_composition_is_claimed_once():
    composition = make_composition()
    claimed = claim(composition)
    assert (claimed.status, claimed.attempt, claimed.worker) == ("running", 1, "worker-1")
    assert claimed.lease_until
    assert claimed.lease_until > timezone.now()
    assert jobs.claim(composition.pk, "worker-2") is None


def test_people_take_turns_whoever_asked_for_more():
    ann, bob = make_user(), make_user()
    first, second, third = (make_composition(owner=ann) for _ in range(3))
    late = make_composition(owner=bob)
    assert jobs.queue_order() == [first.pk, late.pk, second.pk, third.pk]
    assert [jobs.queue_place(c) for c in (first, second, late)] == [1, 3, 2]
    claim(first)
    assert jobs.queue_order() == [late.pk, second.pk, third.pk]
    assert jobs.queue_place(first) is None or jobs.queue_place(claim_refreshed(first)) is None


def claim_refreshed(composition: Composition) -> Composition:
    composition.refresh_from_db()
    return composition


def test_nobody_has_more_running_than_allowed(settings):
    settings.MAX_RUNNING_JOBS_PER_USER = 1
    ann, bob = make_user(), make_user()
    for owner in (ann, ann, bob):
        make_composition(owner=owner)
    taken = [jobs.claim_next("w") for _ in range(3)]
    assert [c.owner if c else None for c in taken] == [ann, bob, None]


# --- working


def test_a_beat_renews_the_lease_and_tells_the_wish():
    composition = make_composition()
    claimed = claim(composition)
    Composition.objects.filter(pk=claimed.pk).update(wish="stop", lease_until=timezone.now())
    assert jobs.beat(claimed) == "stop"
    claimed.refresh_from_db()
    assert claimed.lease_until
    assert claimed.lease_until > timezone.now()


def test_trials_are_recorded_once_and_read_back_in_order():
    claimed = claim(make_composition())
    trials = make_trials(5)
    jobs.record_trials(claimed, trials[:3])
    jobs.record_trials(claimed, trials[1:])
    assert jobs.recorded_trials(claimed) == trials
    claimed.refresh_from_db()
    assert claimed.step == 5


def test_of_an_attempt_that_went_another_way_no_trial_is_left():
    composition = make_composition()
    lost = claim(composition)
    jobs.record_trials(lost, make_trials(6))
    let_the_lease_run_out(lost)
    jobs.sweep()
    second = claim(composition, "another-machine")
    found = [replace(trial, loss=trial.loss / 2) for trial in make_trials(4)]
    jobs.record_trials(second, found[:2])
    assert jobs.recorded_trials(second)[:2] == found[:2]
    jobs.finish(second, replace(make_result(), trials=found), **store_outputs())
    assert jobs.recorded_trials(second) == found
    assert second.trials.count() == 4


def test_a_gap_ends_what_can_be_replayed():
    claimed = claim(make_composition())
    trials = make_trials(5)
    jobs.record_trials(claimed, [*trials[:2], trials[4]])
    assert jobs.recorded_trials(claimed) == trials[:2]


def test_what_took_long_is_there_for_the_next_attempt_and_gone_after_the_end():
    composition = make_composition()
    first = claim(composition)
    jobs.keep(first, {"a": ["red \0", 0.1], "b": {"lorahub": [True]}})
    jobs.keep(first, {"a": ["another"]})
    let_the_lease_run_out(first)
    jobs.sweep()
    second = claim(composition, "another-machine")
    assert jobs.kept(second, "a") == ["red \0", 0.1], "what was there first"
    assert jobs.kept(second, "b") == {"lorahub": [True]}
    assert jobs.kept(second, "c") is None
    jobs.sweep()
    assert Kept.objects.count() == 2
    jobs.finish(second, make_result(), **store_outputs())
    jobs.sweep()
    assert not Kept.objects.exists()


def test_finishing_writes_everything_at_once():
    claimed = claim(make_composition())
    jobs.finish(claimed, make_result(), **store_outputs())
    done = Composition.objects.get(pk=claimed.pk)
    assert (done.status, done.step, done.lease_until) == ("succeeded", 4, None)
    assert done.result
    assert done.result["verdict"].startswith("The composed adapter is better")
    assert [c.mixing_weight for c in done.candidates.all()] == [0.1, 1.1, 2.1]
    assert [s.method for s in done.scores.all()] == ["zero_shot", "lorahub"]
    assert done.trials.count() == 4
    assert len(done.predictions) == 30
    assert done.weights_blob is not None


def predicted(rows: Iterable[types.Example]) -> list[types.Prediction]:
    return [types.Prediction(row.input, row.output, {"lorahub": "x", "zero_shot": "x"}) for row in rows]


def test_predictions_on_hidden_rows_show_only_the_first_ones():
    task = make_task(rows=5, test_rows=30)
    claimed = claim(make_composition(task=task, examples=[]))
    rows = reading.from_json(claimed.test_examples)
    jobs.finish(claimed, make_result(predictions=predicted(rows)), **store_outputs())
    kept = Composition.objects.get(pk=claimed.pk).predictions
    assert [row["input"] for row in kept] == [row.input for row in rows[:20]]


def test_of_a_task_that_a_person_made_no_hidden_row_is_kept_with_the_answers():
    task = make_task(rows=5, test_rows=30, owner=namespace_of(make_user()))
    claimed = claim(make_composition(task=task, examples=[]))
    rows = reading.from_json(claimed.test_examples)
    jobs.finish(claimed, make_result(predictions=predicted(rows)), **store_outputs())
    assert Composition.objects.get(pk=claimed.pk).predictions == []


def test_hidden_rows_among_the_examples_are_not_scored_and_bring_no_others_to_light():
    task = make_task(rows=5, test_rows=30)
    shown = reading.from_json(task.revisions.get().test)[:8]
    composition = make_composition(task=task, examples=shown)
    assert composition.has_hidden_test
    assert composition.split_note == (
        "Scored on those of the 30 hidden test rows of its task that are not among the examples."
    )
    rows = reading.from_json(composition.test_examples)
    assert not {row.input for row in rows} & {row.input for row in shown}
    claimed = claim(composition)
    jobs.finish(claimed, make_result(predictions=predicted(rows)), **store_outputs())
    done = Composition.objects.get(pk=claimed.pk)
    assert done.split_note == (
        "Scored on 22 of the 30 hidden test rows of its task: the others are among the examples. "
        "The task's ranking takes no such score."
    )
    assert [row["input"] for row in done.predictions] == [
        row.input for row in rows[:12]
    ]  # the first 20 of the task, less 8


def test_a_composition_on_all_hidden_rows_is_scored_on_none_of_them():
    task = make_task(rows=5, test_rows=8)
    composition = make_composition(task=task, examples=reading.from_json(task.revisions.get().test))
    assert (len(composition.examples), composition.test_examples) == (8, [])
    assert finish(composition, scores=[], predictions=[]).split_note == (
        "Not scored: all 8 hidden test rows of its task are among the examples. The task's ranking takes no such score."
    )


def test_a_private_module_among_the_candidates_is_said_before_anything_runs():
    base_model, owner = make_base_model(), make_user()
    make_modules(base_model)
    mine = make_adapter("mine", owner=owner, base_model=base_model, visibility="private", is_composable=True)
    answer = jobs.dry_run(
        jobs.CompositionRequest(owner=owner, base_model=base_model, examples=make_examples(5))
    )
    [warning] = answer["warnings"]
    assert warning == (
        f"{mine.full_name} is private: what is composed of it cannot be published for everybody."
    )


def test_a_worker_that_was_given_up_can_write_nothing():
    composition = make_composition()
    lost = claim(composition)
    let_the_lease_run_out(lost)
    assert jobs.sweep()["requeued"] == 1
    second = claim(composition, "worker-2")
    assert second.attempt == 2
    for write in (
        lambda: jobs.beat(lost),
        lambda: jobs.record_trials(lost, make_trials(1)),
        lambda: jobs.keep(lost, {"a": [1]}),
        lambda: jobs.set_stage(lost, "search"),
        lambda: jobs.set_step(lost, 1, 2, "answers"),
        lambda: jobs.finish(lost, make_result(), **store_outputs()),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert not jobs.fail(lost, "Too late.")
    assert not jobs.release(lost)
    assert not Trial.objects.exists()
    assert not Kept.objects.exists()
    assert not Score.objects.exists()
    jobs.finish(second, make_result(), **store_outputs())
    assert Composition.objects.get(pk=composition.pk).status == "succeeded"


def test_a_released_composition_is_next_for_another_worker(rung, django_capture_on_commit_callbacks):
    claimed = claim(make_composition(), "going")
    jobs.record_trials(claimed, make_trials(3))
    with django_capture_on_commit_callbacks(execute=True):
        assert jobs.release_all("going") == 1
    assert rang(rung) == [claimed.pk]
    again = claim(claimed, "next")
    assert (again.attempt, again.losses) == (2, 0)
    assert len(jobs.recorded_trials(again)) == 3


def test_what_another_worker_begins_anew_says_nothing_of_how_far_the_one_before_was():
    claimed = claim(make_composition())
    jobs.set_stage(claimed, "evaluate")
    jobs.set_step(claimed, 40, 240, "answers")
    jobs.release(claimed)
    again = claim(claimed, "next")
    assert (again.stage, again.step, again.steps, again.counted) == ("", 0, 0, "")


def test_failing_keeps_the_sentence():
    claimed = claim(make_composition())
    assert jobs.fail(claimed, "Row 2 does not fit.")
    done = Composition.objects.get(pk=claimed.pk)
    assert (done.status, done.error) == ("failed", "Row 2 does not fit.")


# --- the sweep


def lose(composition: Composition, *, stage: str = "search", trials: int = 0, name: str = "worker") -> None:
    """A worker takes it, comes to this stage and so many trials, and falls silent."""
    claimed = claim(composition, name)
    jobs.set_stage(claimed, stage)
    jobs.record_trials(claimed, make_trials(trials))
    let_the_lease_run_out(composition)


def test_the_third_lost_worker_is_the_last_and_one_that_got_no_further_may_want_too_much():
    composition = make_composition()
    for expected in ("requeued", "requeued", "failed"):
        lose(composition, stage="load")
        assert jobs.sweep()[expected] == 1
    composition.refresh_from_db()
    assert (composition.status, composition.losses) == ("failed", 3)
    assert composition.error == (
        "The worker was lost 3 times, each time while it loaded the base model and the modules, and got no further, perhaps "
        "because this takes more memory than it has. Try fewer or shorter examples, fewer modules or a smaller base model, "
        "or tell the people who run this site."
    )
    lines = [line.text for line in composition.log.all()]
    back = "Its worker was lost while it loaded the base model and the modules; back in line, to go on from its trials."
    assert lines.count(back) == 2
    assert lines[-1] == composition.error, "nothing is cut off"


def test_of_losses_from_before_an_upgrade_no_more_is_said_than_is_known():
    composition = make_composition()
    Composition.objects.update(losses=2)
    lose(composition)
    jobs.sweep()
    composition.refresh_from_db()
    assert composition.error.startswith(
        "The worker was lost 3 times, the last time in the search, perhaps because"
    )


def test_of_workers_that_got_further_each_time_memory_is_not_guessed():
    composition = make_composition()
    for trials in (3, 7, 7):
        lose(composition, trials=trials)
        jobs.sweep()
    composition.refresh_from_db()
    assert composition.error == (
        "The worker was lost 3 times, the last time in the search, and not each time at the same point: workers were "
        "probably stopped, or cut off from the database. Ask for it again; if it ends so again, tell the people who run this "
        "site."
    )
    assert composition.log.last().text == composition.error
    assert "memory" not in composition.error


def test_of_a_worker_that_the_kernel_probably_killed_memory_is_told():
    composition = make_composition()
    for trials, kills in ((3, 4), (5, 4), (9, 5)):
        workers.report("worker", oom_kills=4)
        lose(composition, trials=trials)
        workers.say_begun("worker", oom_kills=kills)
        jobs.sweep()
    composition.refresh_from_db()
    assert composition.error == (
        "The worker was lost 3 times; in the search its machine probably had no memory left. Try fewer or shorter examples, "
        "fewer modules or a smaller base model, or tell the people who run this site."
    )


def test_the_log_tells_at_once_that_a_machine_had_no_memory_left():
    composition = make_composition()
    workers.report("worker", oom_kills=0)
    lose(composition)
    workers.say_begun("worker", oom_kills=1)
    jobs.sweep()
    said = "Its worker was lost in the search, probably because its machine had no memory left; back in line, to go on from its trials."
    assert composition.log.last().text == said


@pytest.mark.parametrize(("before", "kills"), [(4, 4), (4, 0), (4, None), (None, 4)])
def test_a_kernel_that_killed_nothing_more_or_does_not_tell_says_nothing_of_memory(before, kills):
    """Fewer: the machine was started anew."""
    composition = make_composition()
    workers.report("worker", oom_kills=before)
    lose(composition)
    workers.say_begun("worker", oom_kills=kills)
    jobs.sweep()
    assert "memory" not in composition.log.last().text


def test_a_kill_of_long_ago_says_nothing_of_a_worker_that_is_lost_now():
    composition = make_composition()
    workers.report("worker", oom_kills=0)
    workers.say_begun("worker", oom_kills=1)
    Worker.objects.update(killed_for_memory_at=timezone.now() - timedelta(hours=1))
    lose(composition)
    jobs.sweep()
    assert "memory" not in composition.log.last().text


def test_after_the_database_was_away_workers_speak_before_anything_is_taken_from_them(monkeypatch, settings):
    composition = make_composition()
    claimed = claim(composition)
    let_the_lease_run_out(composition)
    clock = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr(sweeping, "time", clock)
    monkeypatch.setattr(sweeping, "_unanswered_at", -1000.0)

    def away() -> None:
        raise OperationalError("server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "_sweep", away)
        with pytest.raises(OperationalError):
            jobs.sweep()
    clock.monotonic = lambda: 1001.0
    assert jobs.sweep()["requeued"] == 0
    clock.monotonic = lambda: 1001.0 + 3 * settings.JOB_HEARTBEAT_S
    assert jobs.sweep()["requeued"] == 1
    with pytest.raises(LeaseLost):
        jobs.beat(claimed)


def test_a_live_lease_is_left_alone(rung):
    claim(make_composition())
    assert jobs.sweep() == {"requeued": 0, "failed": 0, "cancelled": 0, "rung": 0}
    assert rung == []


def test_the_sweep_rings_again_for_what_nobody_came_for(rung, settings):
    composition = make_composition()
    assert jobs.sweep()["rung"] == 0
    past = timezone.now() - timedelta(seconds=settings.JOB_RING_AGAIN_S + 1)
    Composition.objects.filter(pk=composition.pk).update(rung_at=past)
    assert jobs.sweep()["rung"] == 1
    assert jobs.sweep()["rung"] == 0
    assert rang(rung) == [composition.pk]


def test_a_wish_to_cancel_outlives_the_worker():
    composition = make_composition()
    claim(composition)
    jobs.cancel(composition, composition.owner)
    let_the_lease_run_out(composition)
    assert jobs.sweep()["cancelled"] == 1
    composition.refresh_from_db()
    assert composition.status == "cancelled"


def test_a_wish_to_cancel_that_comes_while_the_sweep_looks_is_obeyed(monkeypatch):
    composition = make_composition()
    claim(composition)
    let_the_lease_run_out(composition)
    taken_back = sweeping._take_back

    def cancelled_first(found: Composition) -> str:
        jobs.cancel(composition, composition.owner)
        return taken_back(found)

    monkeypatch.setattr(sweeping, "_take_back", cancelled_first)
    assert jobs.sweep()["cancelled"] == 1
    composition.refresh_from_db()
    assert composition.status == "cancelled"


# --- the owner


def test_a_queued_composition_is_cancelled_at_once():
    composition = make_composition()
    jobs.cancel(composition, composition.owner)
    assert composition.status == "cancelled"
    assert jobs.claim(composition.pk, "worker") is None


def test_a_running_one_is_asked_to_stop_or_to_cancel():
    composition = make_composition()
    claimed = claim(composition)
    jobs.stop(composition, composition.owner)
    assert jobs.wish(claimed) == "stop"
    jobs.cancel(composition, composition.owner)
    assert jobs.wish(claimed) == "cancel"
    jobs.stop(composition, composition.owner)
    assert jobs.wish(claimed) == "cancel"
    assert jobs.confirm_cancelled(claimed)


def test_what_is_finished_cannot_be_cancelled_or_stopped():
    composition = finish(make_composition())
    with pytest.raises(WrongState, match="has already finished; there is nothing to cancel"):
        jobs.cancel(composition, composition.owner)
    with pytest.raises(WrongState, match="there is nothing to stop"):
        jobs.stop(composition, composition.owner)


def test_what_has_not_started_has_nothing_to_keep():
    composition = make_composition()
    with pytest.raises(WrongState, match="Cancel it instead"):
        jobs.stop(composition, composition.owner)


def test_strangers_neither_see_nor_cancel():
    composition = make_composition()
    stranger = make_user()
    with pytest.raises(NoSuchComposition):
        jobs.visible_composition(stranger, composition.pk)
    with pytest.raises(NoSuchComposition):
        jobs.cancel(composition, stranger)
    assert jobs.visible_composition(composition.owner, composition.pk) == composition


def test_who_may_see_a_published_one_may_still_not_change_it():
    composition = finish(make_composition())
    [module] = make_modules(make_base_model("demo/other"), 1)
    Composition.objects.filter(pk=composition.pk).update(adapter=module)
    with pytest.raises(Forbidden):
        jobs.cancel(composition, make_user())


@pytest.mark.parametrize("seconds", [1, -5, 90_000])
def test_a_time_limit_is_seconds_to_a_day(seconds):
    with pytest.raises(BadSetting, match="time limit is from 5 to 86,400"):
        make_composition(time_limit_s=seconds)
    assert make_composition(time_limit_s=300).time_limit_s == 300
