"""A whole composition: what it reports, how it is watched, stopped, cancelled and resumed, what it refuses."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from compose.engine import (
    errors,
    evaluation,
    loading,
    metrics,
    options,
    prepared,
    run,
    scoring,
    searching,
    soundness,
    verdicts,
)
from compose.engine.bank import Bank, build_bank
from compose.engine.loading import load_module
from compose.engine.methods import METHODS
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.searching import _Fold
from compose.engine.types import Example, ExportForm, Observer, Request, Result, Trial
from compose.engine.warm import WarmCache
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_scoring import load

TEST_ROWS = tuple(
    Example(f"the {colour} {animal} sat on the box who", animal)
    for colour in ("red", "green", "blue")
    for animal in ("cat", "dog", "bird")
)


def request_for(collection: Collection, **options: Any) -> Request:
    settings: dict[str, Any] = {
        "modules": collection.modules,
        "examples": tiny.EXAMPLES,
        "test": TEST_ROWS,
        "budget": 12,
    }
    return Request(base=collection.base, **(settings | options))


@cache
def undisturbed(request: Request) -> Result:
    """What comes of it, composed once for all tests that compare with it: leave it as it is."""
    return run.compose(request)


class Recorder(Observer):
    """Keeps what it is told, and changes its wish once so many trials are in."""

    def __init__(self, wish: str = "go", after_trials: int = 0) -> None:
        self.stages: list[str] = []
        self.most: list[int] = []
        self.trials: list[Trial] = []
        self.progress: list[tuple[int, int, str]] = []
        self.auditions: list[tuple[float, list[float], int]] = []
        self.wish, self.after_trials = wish, after_trials

    def on_audition(self, base_loss: float, losses: Sequence[float]) -> None:
        self.auditions.append((base_loss, list(losses), len(self.trials)))

    def on_stage(self, stage: str, message: str = "", *, trials: int = 0) -> None:
        self.stages.append(stage)
        self.most += [trials] if trials else []

    def on_trial(self, trial: Trial) -> None:
        self.trials.append(trial)

    def on_progress(self, done: int, total: int, counted: str) -> None:
        self.progress.append((done, total, counted))

    def wanted(self) -> str:
        return self.wish if len(self.trials) >= self.after_trials else "go"


def test_a_composition_reports_trials_scores_and_predictions(collection: Collection, tmp_path: Path):
    observer = Recorder()
    result = run.compose(request_for(collection, out=tmp_path), observer=observer)
    assert observer.stages == ["load", "audition", "search", "evaluate", "export"]
    assert observer.auditions == [(result.base_loss, result.audition, 0)], "once, before the first trial"
    assert observer.trials == result.trials
    assert [trial.number for trial in result.trials] == list(range(1, 13))
    assert observer.progress[-1][0] == observer.progress[-1][1] > 0
    best = min(result.trials, key=lambda trial: trial.objective)
    assert tuple(result.mixing_weights) == best.mixing_weights
    assert result.loss == best.loss
    assert result.base_loss == pytest.approx(result.trials[0].loss, rel=1e-5)  # LoraHub starts at 0
    methods = ["zero_shot", "best_single", "uniform", "lorahub", "in_context"]
    assert [score.method for score in result.scores] == methods
    assert {(score.split, score.n, score.metric) for score in result.scores} == {
        ("held_out", 9, "exact_match")
    }
    assert all(0 <= score.low <= score.value <= score.high <= 1 for score in result.scores)
    assert [prediction.expected for prediction in result.predictions] == [row.output for row in TEST_ROWS]
    assert all(set(prediction.outputs) == set(methods) for prediction in result.predictions)
    assert set(result.seconds) == {"load", "search", "evaluate", "export"}
    assert set(result.versions) == {"torch", "peft", "transformers", "nevergrad", "numpy", "scipy"}
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert result.verdict.endswith(".")


@pytest.mark.parametrize("metric", ["token_f1", "rouge_l"])
def test_every_method_is_scored_by_the_metric_that_was_asked_for_and_by_exact_match(
    t5: Collection, metric: str
):
    by_exact_match = undisturbed(request_for(t5))
    result = run.compose(request_for(t5, metric=metric))
    assert result.mixing_weights == by_exact_match.mixing_weights, "the search does not know it"
    assert result.predictions == by_exact_match.predictions
    mine = [score for score in result.scores if score.metric == metric]
    assert [score for score in result.scores if score.metric != metric] == by_exact_match.scores
    assert [score.method for score in mine] == [score.method for score in by_exact_match.scores]
    for score in mine:
        written = [(row.outputs[score.method], row.expected) for row in result.predictions]
        values = [metrics.METRICS[metric].of_row(*each) for each in written]
        assert score.value == pytest.approx(sum(values) / 9)
        assert 0 <= score.low <= score.value <= score.high <= 1
    assert f"a mean {metrics.label_of(metric)} of" in result.verdict


def test_an_estimate_without_test_rows_is_by_the_metric_too(t5: Collection):
    result = run.compose(request_for(t5, test=(), budget=8, metric="token_f1"))
    assert {(score.split, score.metric, score.n) for score in result.scores} == {
        ("leave_one_out", "token_f1", 4),
        ("leave_one_out", "exact_match", 4),
    }
    assert "a mean token F1 of" in result.verdict


def test_what_a_lower_rank_costs_is_said_by_the_metric_too(t5: Collection):
    request = request_for(t5, method="auto", metric="rouge_l", export=ExportForm(rank=1))
    notes = run.compose(request).notes
    assert any(
        "cut to rank 1: a mean ROUGE-L of" in note and "the mix itself gets 0." in note for note in notes
    )


def test_a_metric_that_there_is_not_is_refused_before_anything_is_loaded(t5: Collection):
    observer = Recorder()
    with pytest.raises(errors.BadInput, match="choose one of: exact_match, token_f1, rouge_l"):
        run.compose(request_for(t5, metric="bleu"), observer=observer)
    assert observer.stages == []


def test_in_context_is_left_out_with_a_note_where_it_does_not_fit(llama: Collection):
    examples = (*tiny.EXAMPLES, TEST_ROWS[0], TEST_ROWS[1])
    result = run.compose(request_for(llama, budget=1, examples=examples))
    assert "in_context" not in {score.method for score in result.scores}
    assert any(note.startswith("In-context was not measured") and "takes 64" in note for note in result.notes)


def test_in_context_is_measured_where_it_fits(llama: Collection):
    result = run.compose(request_for(llama, budget=1, examples=tiny.EXAMPLES[:2]))
    assert "in_context" in {score.method for score in result.scores}


def test_in_context_has_room_for_the_longest_answer_that_is_asked_for(llama: Collection):
    long = Example("the cat who", "a red cat and a blue dog sat on the box under the tree")
    result = run.compose(request_for(llama, budget=1, examples=tiny.EXAMPLES[:2], test=(*TEST_ROWS, long)))
    assert "in_context" not in {score.method for score in result.scores}


@pytest.mark.parametrize("words", [59, 62])
def test_a_row_that_nearly_fills_the_context_is_answered_in_the_room_that_is_left(
    gpt2: Collection, words: int
):
    full = Example("cat " * words, "dog")
    result = run.compose(request_for(gpt2, budget=1, test=(TEST_ROWS[0], full, TEST_ROWS[1])))
    for row in result.predictions:
        assert all(len(text.split()) <= 64 - len(row.input.split()) for text in row.outputs.values())
    alone = run.compose(request_for(gpt2, budget=1, test=(TEST_ROWS[0], TEST_ROWS[1])))
    for beside, by_itself in zip(result.predictions[::2], alone.predictions, strict=True):
        assert by_itself.outputs.items() >= beside.outputs.items(), "the others have all the room they had"


def test_an_answer_ends_where_base_or_tokenizer_say(llama: Collection, monkeypatch: pytest.MonkeyPatch):
    base = load(llama.base)
    base.model.generation_config.eos_token_id = [5, 7]
    told: dict[str, Any] = {}

    def generate(**options: Any) -> torch.Tensor:
        told.update(options)
        return torch.cat(
            [options["input_ids"], torch.tensor([[3, 1, 4, 4], [3, 7, 4, 4], [3, 4, 5, 4]])], dim=1
        )

    monkeypatch.setattr(base.model, "generate", generate)
    bank = build_bank([load_module(llama.modules[0])], device=base.device)
    asked = evaluation.questions(base, "zero_shot", Mix(EXACT, (0.0,)), ["cat", "dog", "bird"])
    answers = evaluation.answer(base, Mixer(base, bank), asked, max_new_tokens=4)
    assert told["eos_token_id"] == [1, 5, 7]
    words = tiny.WORDS  # three special tokens stand before them
    assert answers == [words[0], words[0], f"{words[0]} {words[1]}"]


def test_an_option_that_does_not_fit_leaves_the_rest_of_the_result(llama: Collection):
    listed = "{} Options:\n- cat\n- dog"
    examples = tuple(
        Example(listed.format(text), animal) for text, animal in (("red", "cat"), ("blue", "dog"))
    )
    wide = Example(listed.format("the " * 30) + "\n- " + "bird " * 20, "cat")
    result = run.compose(request_for(llama, budget=1, examples=examples, test=(wide,)))
    assert result.option_scores is None
    assert result.scores
    assert any(
        note.startswith("The options were not compared. The option of a test row") for note in result.notes
    )


def test_the_same_request_gives_the_same_result_and_the_same_bytes(t5: Collection, tmp_path: Path):
    first = run.compose(request_for(t5, out=tmp_path / "first"))
    second = run.compose(request_for(t5, out=tmp_path / "second"))
    assert first.trials == second.trials
    assert first.scores == second.scores
    assert first.predictions == second.predictions
    name = "adapter_model.safetensors"
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    run.export_weights(t5.base, t5.modules, first.mixing_weights, first.mix, tmp_path / "third")
    assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "third" / name).read_bytes()


@pytest.mark.parametrize("recorded", [1, 7, 12])
def test_a_resumed_search_gives_the_result_of_an_undisturbed_one(t5: Collection, recorded: int):
    whole = undisturbed(request_for(t5))
    observer = Recorder()
    resumed = run.compose(request_for(t5), observer=observer, recorded=whole.trials[:recorded])
    assert resumed.trials == whole.trials
    assert resumed.mixing_weights == whole.mixing_weights
    assert resumed.scores == whole.scores
    assert [trial.number for trial in observer.trials] == list(range(recorded + 1, 13))


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("recorded", [1, 8])
def test_every_method_goes_on_from_its_record_to_the_undisturbed_result(
    t5: Collection, name: str, recorded: int
):
    request = request_for(t5, method=name, budget=14, test=())
    whole = undisturbed(request)
    resumed = run.compose(request, recorded=whole.trials[:recorded])
    assert resumed.trials == whole.trials
    assert resumed.mixing_weights == whole.mixing_weights
    assert resumed.scores == whole.scores


class Keeper(Observer):
    """Keeps what took long, and is gone once so much of it is there."""

    def __init__(self, most: int = 10**6) -> None:
        self.values: dict[str, str] = {}
        self.most = most

    def keep(self, key: str, value: Any) -> None:
        self.values[key] = json.dumps(value)

    def kept(self, key: str) -> Any:
        return json.loads(self.values[key]) if key in self.values else None

    def wanted(self) -> str:
        return "cancel" if len(self.values) >= self.most else "go"


def resumable(t5: Collection, name: str, *, is_held_out: bool) -> Request:
    """With answers of a small closed set, and of an adapter that is written otherwise than it is mixed."""
    answers = [replace(row, output=("cat", "dog")[n % 2]) for n, row in enumerate(tiny.EXAMPLES)]
    test = tuple(replace(row, output="dog") for row in TEST_ROWS) if is_held_out else ()
    export = ExportForm(rank=2, dtype="bfloat16")
    return request_for(t5, method=name, budget=14, examples=tuple(answers), test=test, export=export)


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("is_held_out", [True, False])
def test_what_an_attempt_evaluated_is_not_evaluated_again(
    t5: Collection, monkeypatch: pytest.MonkeyPatch, name: str, is_held_out: bool
):
    request, keeper = resumable(t5, name, is_held_out=is_held_out), Keeper()
    whole = run.compose(request, observer=keeper)
    assert (whole.option_scores is not None) == is_held_out

    def paid_for(*_: object, **__: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(evaluation, "_generate", paid_for)
    monkeypatch.setattr(searching.Searches, "_on_folds", paid_for)
    monkeypatch.setattr(run, "attribution", paid_for)
    monkeypatch.setattr(options, "Scorer", paid_for)
    before = len(keeper.values)
    again = run.compose(request, observer=keeper, recorded=whole.trials)
    assert len(keeper.values) == before
    assert replace(again, seconds={}) == replace(whole, seconds={})


def test_one_that_broke_off_anywhere_while_it_evaluated_goes_on_to_the_undisturbed_result(t5: Collection):
    request = resumable(t5, "lorahub", is_held_out=False)
    keeper = Keeper()
    whole = run.compose(request, observer=keeper)
    for most in range(1, len(keeper.values)):
        broken = Keeper(most)
        with pytest.raises(errors.Cancelled):
            run.compose(request, observer=broken, recorded=whole.trials)
        broken.most = 10**6
        again = run.compose(request, observer=broken, recorded=whole.trials)
        assert again.scores == whole.scores
        assert again.predictions == whole.predictions
        assert broken.values.keys() == keeper.values.keys()


def test_a_cancel_is_heard_while_a_record_is_measured_again(t5: Collection, monkeypatch: pytest.MonkeyPatch):
    request = request_for(t5, method="gradient", budget=14)
    trials = run.compose(request).trials
    measured: list[int] = []
    gradient = scoring.Scorer.gradient

    def counted(self: scoring.Scorer, *arguments: Any) -> Any:
        measured.append(len(measured))
        return gradient(self, *arguments)

    monkeypatch.setattr(scoring.Scorer, "gradient", counted)
    observer = Recorder()
    monkeypatch.setattr(observer, "wanted", lambda: "cancel" if len(measured) == 3 else "go")
    with pytest.raises(errors.Cancelled):
        run.compose(request, observer=observer, recorded=trials)
    assert len(measured) == 3
    measured.clear()
    monkeypatch.setattr(observer, "wanted", lambda: "stop" if measured else "go")
    assert run.compose(request, observer=observer, recorded=trials[:6]).trials == trials[:6], (
        "none is given up"
    )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_can_be_cancelled_and_leaves_nothing(t5: Collection, name: str, tmp_path: Path):
    request = request_for(t5, method=name, budget=14, out=tmp_path / "out")
    with pytest.raises(errors.Cancelled):
        run.compose(request, observer=Recorder("cancel", after_trials=1))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def all_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the modules are: a huge one would be left out."""
    monkeypatch.setattr(
        prepared, "proportions", lambda base, bank: soundness.Proportions((), (1.0,) * bank.size, "")
    )


@pytest.mark.usefixtures("all_in_proportion")
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_names_a_module_whose_loss_is_not_a_number(t5: Collection, name: str, tmp_path: Path):
    huge = tiny.save_module(t5.base, "t5", tmp_path / "huge", seed=3, strength=1e30)
    request = request_for(t5, method=name, modules=(*t5.modules[:2], huge))
    assert "With the module huge the loss is not a number" in refusal(request, errors.LossNotFinite)


def test_a_replayed_trial_is_not_scored_again(t5: Collection, monkeypatch: pytest.MonkeyPatch):
    request = request_for(t5)
    trials = undisturbed(request).trials
    scored: list[int] = []
    losses = scoring.Scorer.losses

    def counted(self: scoring.Scorer, mixes: Any) -> Any:
        scored.append(len(mixes))
        return losses(self, mixes)

    monkeypatch.setattr(scoring.Scorer, "losses", counted)
    run.compose(request, recorded=trials[:9])
    assert scored[:3] == [1, 1, 1]
    assert len(scored) == 4  # three trials, and the attribution


def test_records_of_another_search_are_given_up(t5: Collection):
    strange = [Trial(1, (9.0,) * 6, 0.0, 0.0)]
    assert run.compose(request_for(t5), recorded=strange).trials == undisturbed(request_for(t5)).trials


def test_stopping_keeps_the_best_trial_so_far_and_finishes(t5: Collection, tmp_path: Path):
    whole = undisturbed(request_for(t5))
    stopped = run.compose(request_for(t5, out=tmp_path), observer=Recorder("stop", after_trials=5))
    assert stopped.stopped_early
    assert not whole.stopped_early
    assert stopped.trials == whole.trials[:5]
    best = min(whole.trials[:5], key=lambda trial: trial.objective)
    assert tuple(stopped.mixing_weights) == best.mixing_weights
    assert stopped.scores
    assert (tmp_path / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("test", [TEST_ROWS, ()])
def test_a_wish_to_stop_after_the_search_cuts_nothing_that_is_compared(
    t5: Collection, test: tuple[Example, ...]
):
    request = request_for(t5, method="auto", budget=20, test=test)
    observer, in_search = Recorder("stop", after_trials=1), Recorder()
    whole = run.compose(request, observer=in_search)
    observer.after_trials = len(in_search.trials)  # so many are there when the search has ended by itself
    late = run.compose(request, observer=observer)
    assert not late.stopped_early
    assert (late.scores, late.predictions) == (whole.scores, whole.predictions)


def test_stopping_before_the_first_trial_keeps_the_base(t5: Collection):
    result = run.compose(request_for(t5), observer=Recorder("stop"))
    assert result.trials == []
    assert result.mixing_weights == [0.0] * 6


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cancelling_takes_effect_within_one_evaluation(t5: Collection, tmp_path: Path, after: int):
    observer = Recorder("cancel", after_trials=after)
    with pytest.raises(errors.Cancelled):
        run.compose(request_for(t5, out=tmp_path / "out"), observer=observer)
    assert len(observer.trials) == after
    assert not (tmp_path / "out").exists()


def test_cancelling_takes_effect_between_batches_of_answers(t5: Collection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(evaluation._ROWS_AT_ONCE, "cpu", 4)
    observer = Recorder()
    monkeypatch.setattr(
        observer, "wanted", lambda: "cancel" if any(done for done, *_ in observer.progress) else "go"
    )
    with pytest.raises(errors.Cancelled):
        run.compose(request_for(t5), observer=observer)
    (none, *_), (some, total, _) = observer.progress
    assert none == 0 < some < total


def test_answers_do_not_depend_on_how_rows_are_batched(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
):
    together = undisturbed(request_for(collection)).predictions
    monkeypatch.setitem(evaluation._ROWS_AT_ONCE, "cpu", 1)
    assert run.compose(request_for(collection)).predictions == together


def test_an_answer_holds_no_nul_which_no_database_takes(t5: Collection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "_generate", lambda base, mixer, most, rows: ["a\x00b"] * len(rows))
    result = run.compose(request_for(t5, budget=1))
    assert {text for each in result.predictions for text in each.outputs.values()} == {"a\ufffdb"}


def test_without_test_rows_every_example_is_predicted_by_a_mix_found_without_it(collection: Collection):
    result = undisturbed(request_for(collection, test=(), budget=8))
    assert {(score.split, score.n) for score in result.scores} == {("leave_one_out", 4)}
    assert result.verdict.startswith("Not scored on held-out rows")
    assert [p.expected for p in result.predictions] == [example.output for example in tiny.EXAMPLES]


def test_lorahub_beside_another_method_is_the_search_that_it_is_alone(
    t5: Collection, monkeypatch: pytest.MonkeyPatch
):
    folds: list[_Fold] = []

    def fold(*given: Any) -> _Fold:
        folds.append(_Fold(*given))
        return folds[-1]

    monkeypatch.setattr(searching, "_Fold", fold)
    run.compose(request_for(t5, method="auto", budget=20))
    alone = run.compose(request_for(t5, method="lorahub", budget=METHODS["lorahub"].usual_budget))
    [beside] = folds
    assert beside.trials == alone.trials, "to the last digit"


def test_the_search_beside_another_method_says_how_far_it_is(t5: Collection):
    observer = Recorder()
    run.compose(request_for(t5, method="auto", budget=400), observer=observer)
    assert observer.stages == ["load", "audition", "search", "search", "evaluate", "export"]
    assert observer.most == [300, 40], "so few modules need no more of a budget of 400"
    assert len(observer.trials) <= 300
    trials = [done for done, total, counted in observer.progress if (total, counted) == (40, "trials")]
    assert trials[0] == 0
    assert trials == sorted(trials)
    assert trials[-1] > 30


@pytest.mark.parametrize(("test", "is_named"), [(TEST_ROWS, True), ((), False)])
def test_an_estimate_names_no_single_module_since_each_fold_has_its_own(
    t5: Collection, monkeypatch: pytest.MonkeyPatch, test: tuple[Example, ...], is_named: bool
):
    monkeypatch.setattr(verdicts, "best_of", lambda values: ["best_single"])
    verdict = run.compose(request_for(t5, test=test, budget=2)).verdict
    assert "for the best single module" in verdict
    assert ("the best single module (t5-module-" in verdict) == is_named


def test_the_leave_one_out_mix_is_the_one_a_search_without_that_example_finds(t5: Collection):
    left_out = undisturbed(request_for(t5, test=(), budget=8))
    rest = run.compose(request_for(t5, examples=tiny.EXAMPLES[1:], test=tiny.EXAMPLES[:1], budget=8))
    ours, theirs = left_out.predictions[0].outputs, rest.predictions[0].outputs
    # The longest expected answer limits how far either writes on.
    assert set(ours) == set(theirs)
    assert all(ours[method].startswith(theirs[method]) for method in ours)


def test_how_far_an_evaluation_is_is_told_from_its_beginning_and_says_what_it_counts(t5: Collection):
    observer = Recorder()
    result = run.compose(request_for(t5, method="auto", budget=30), observer=observer)
    methods = len({score.method for score in result.scores})
    answers = methods * len(TEST_ROWS)
    assert [step for step in observer.progress if step[2] == "answers"] == [
        (0, answers, "answers"), (answers, answers, "answers")
    ]  # fmt: skip
    observer = Recorder()
    run.compose(request_for(t5, method="auto", budget=30, test=()), observer=observer)
    trials = [step for step in observer.progress if step[1:] != (40, "trials") and step[2] == "trials"]
    assert trials[0] == (0, 30 + 40, "trials"), "auto again, and LoraHub beside it"
    assert len(trials) > 10
    assert [done for done, *_ in trials] == sorted(done for done, *_ in trials)
    assert observer.progress.index(trials[-1]) < observer.progress.index((0, 4 * methods, "answers"))


def test_an_estimate_is_counted_to_what_its_searches_take_at_most(t5: Collection):
    observer = Recorder()
    run.compose(request_for(t5, method="auto", budget=400, test=()), observer=observer)
    assert (0, 300 + 40, "trials") in observer.progress, "so few modules need no more of a budget of 400"
    assert (300, 300 + 40, "trials") in observer.progress, "where LoraHub begins"


def test_many_examples_are_left_out_in_five_parts_and_that_is_said(t5: Collection):
    examples = tuple(Example(row.input + " " + row.output, row.output) for row in TEST_ROWS) + tiny.EXAMPLES
    result = run.compose(request_for(t5, examples=examples, test=(), budget=2))
    assert {score.n for score in result.scores} == {13}
    assert any("leaves the examples out in 5 parts" in note for note in result.notes)


def test_examples_with_one_input_are_left_out_together(t5: Collection):
    doubled = run.compose(request_for(t5, examples=tiny.EXAMPLES[:2] * 3, test=(), budget=12))
    single = run.compose(request_for(t5, examples=tiny.EXAMPLES[:2], test=(), budget=12))
    # Three times the same example weighs as one, and no copy of what is asked is shown.
    assert [p.outputs["lorahub"] for p in doubled.predictions] == [
        p.outputs["lorahub"] for p in single.predictions
    ] * 3
    assert any("in 2 parts, not one by one; those with the same input together" in n for n in doubled.notes)
    alike = run.compose(request_for(t5, examples=tiny.EXAMPLES[:1] * 3, test=(), budget=2))
    assert alike.scores == []
    assert alike.verdict.startswith("Not scored: examples of one input")


def test_expected_answers_that_nobody_can_write_in_full_are_counted(t5: Collection):
    long = Example("the cat sat", "cat " * 257)
    result = run.compose(request_for(t5, test=(*TEST_ROWS[:2], long), budget=1))
    assert (
        "Answers are written up to 256 tokens; of the 3 expected ones 1 is longer, so that no method can get the whole of it."
        in result.notes
    )
    longest = Example("the cat sat", "cat " * 256)
    result = run.compose(request_for(t5, test=(*TEST_ROWS[:2], longest), budget=1))
    assert not any("no method can" in note for note in result.notes)


def test_a_single_example_without_test_rows_is_not_scored(t5: Collection):
    result = run.compose(request_for(t5, examples=tiny.EXAMPLES[:1], test=(), budget=2))
    assert result.scores == []
    assert result.verdict.startswith("Not scored: one example")


def test_attribution_is_the_rise_of_the_loss_without_a_module(t5: Collection):
    result = undisturbed(request_for(t5))
    index = max(range(6), key=lambda i: abs(result.mixing_weights[i]))
    without = [0.0 if i == index else weight for i, weight in enumerate(result.mixing_weights)]
    loss = run.score(t5.base, t5.modules, tiny.EXAMPLES, [without], "paper")[0]
    assert result.attribution[index] == pytest.approx(loss - result.loss, abs=1e-4)
    assert all(
        rise == 0
        for rise, weight in zip(result.attribution, result.mixing_weights, strict=True)
        if not weight
    )


def test_the_audition_is_every_module_alone(t5: Collection):
    result = run.compose(request_for(t5, budget=1))
    alone = [[float(i == j) for j in range(6)] for i in range(6)]
    assert result.audition == pytest.approx(
        run.score(t5.base, t5.modules, tiny.EXAMPLES, alone, "exact"), rel=1e-5
    )


def test_a_second_job_on_the_same_base_loads_nothing_again(t5: Collection):
    warm = WarmCache()
    run.compose(request_for(t5, budget=1), warm=warm)
    loads = dict(warm.loads)
    assert loads == {"base": 1, "module": 6, "bank": 1}
    second = run.compose(request_for(t5, budget=1, examples=tiny.EXAMPLES[:2]), warm=warm)
    assert dict(warm.loads) == loads
    assert second.seconds["load"] < 0.2


def test_a_changed_module_is_loaded_again(t5: Collection, tmp_path: Path):
    module = tiny.save_module(t5.base, "t5", tmp_path / "module", seed=1)
    warm = WarmCache()
    first = run.score(t5.base, [module], tiny.EXAMPLES, [[1.0]], "exact", warm=warm)
    tiny.save_module(t5.base, "t5", tmp_path / "module", seed=2)
    assert run.score(t5.base, [module], tiny.EXAMPLES, [[1.0]], "exact", warm=warm) != first
    assert warm.loads["module"] == 2
    assert warm.loads["base"] == 1


def test_a_base_whose_files_are_gone_is_not_warm(t5: Collection, tmp_path: Path):
    links = tmp_path / "base"
    links.mkdir()
    for file in t5.base.iterdir():
        (links / file.name).symlink_to(file)
    warm = WarmCache()
    warm.base(links, device=torch.device("cpu"), dtype=torch.float32)
    assert warm.keeps_base(links)
    (links / "config.json").unlink()
    (links / "config.json").symlink_to(tmp_path / "removed since")
    assert not warm.keeps_base(links)


def test_the_warm_cache_keeps_to_its_limit(t5: Collection):
    probe = WarmCache()
    run.score(t5.base, t5.modules, tiny.EXAMPLES, [[0.0] * 6], "exact", warm=probe)
    warm = WarmCache(limit_bytes=probe.size_bytes // 2)
    run.score(t5.base, t5.modules, tiny.EXAMPLES, [[0.0] * 6], "exact", warm=warm)
    assert 0 < warm.size_bytes <= warm.limit_bytes
    nothing = WarmCache(limit_bytes=0)
    run.score(t5.base, t5.modules, tiny.EXAMPLES, [[0.0] * 6], "exact", warm=nothing)
    assert nothing.size_bytes == 0


def test_what_does_not_fit_into_the_cache_is_read_once_for_a_job_all_the_same(t5: Collection):
    nothing = WarmCache(limit_bytes=0)
    run.compose(request_for(t5, budget=1), warm=nothing)
    assert nothing.loads == {"base": 1, "module": len(t5.modules), "bank": 1}


def test_a_base_that_was_too_large_to_be_kept_is_gone_before_it_is_loaded_again(
    t5: Collection, monkeypatch: pytest.MonkeyPatch
):
    load_base = loading.load_base
    models: list[weakref.ref[Any]] = []

    def seen(*given: Any, **named: Any) -> loading.LoadedBase:
        assert not any(model() for model in models)
        base = load_base(*given, **named)
        models.append(weakref.ref(base.model))
        return base

    monkeypatch.setattr(loading, "load_base", seen)
    cache = WarmCache(limit_bytes=0)
    for _ in range(2):
        run.score(t5.base, t5.modules, tiny.EXAMPLES, [[0.1] * 6], "exact", warm=cache)
    assert len(models) == 2


def test_what_is_kept_for_other_jobs_goes_where_it_leaves_no_room(
    t5: Collection, monkeypatch: pytest.MonkeyPatch
):
    vectors = [[0.1] * 6]
    expected = run.score(t5.base, t5.modules, tiny.EXAMPLES, vectors, "exact")
    cache = WarmCache()

    def build_if_alone(*given: Any, **named: Any) -> Bank:
        if cache.size_bytes:
            raise errors.OutOfMemory("There is no room.")
        return build_bank(*given, **named)

    monkeypatch.setattr("compose.engine.warm.build_bank", build_if_alone)
    assert run.score(t5.base, t5.modules, tiny.EXAMPLES, vectors, "exact", warm=cache) == expected


def refusal(request: Request, error: type[errors.EngineError]) -> str:
    with pytest.raises(error) as caught:
        run.compose(request)
    assert caught.value.message.endswith(".")
    return caught.value.message


def test_requests_without_modules_examples_budget_or_method_are_refused(t5: Collection):
    assert "no modules" in refusal(request_for(t5, modules=()), errors.NoModules)
    assert "no few-shot examples" in refusal(request_for(t5, examples=()), errors.NoExamples)
    assert "budget is 0" in refusal(request_for(t5, budget=0), errors.BadInput)
    assert "no method 'magic'; choose one of: " in refusal(request_for(t5, method="magic"), errors.BadInput)
    assert "no float type 'int8'" in refusal(request_for(t5, dtype="int8"), errors.BadInput)
    assert "The seed is -1" in refusal(request_for(t5, seed=-1), errors.BadInput)
    assert "from 0 to 4294967295" in refusal(request_for(t5, seed=2**32), errors.BadInput)
    twice = (t5.modules[0], t5.modules[0])
    assert "t5-module-0 was given twice" in refusal(request_for(t5, modules=twice), errors.BadInput)


@pytest.mark.parametrize(
    ("given", "part"), [(Example("", "cat"), "input"), (Example("the cat", "  "), "output")]
)
def test_an_example_without_tokens_is_refused_by_its_number(
    collection: Collection, given: Example, part: str
):
    examples = (*tiny.EXAMPLES, given)
    message = refusal(request_for(collection, examples=examples), errors.EmptyExample)
    assert message.startswith(f"The example 5 has an {part} without any token")


def test_an_example_longer_than_the_context_is_refused_with_both_lengths(t5: Collection, llama: Collection):
    long = Example("cat " * 3000, "dog")
    message = refusal(request_for(t5, examples=(long,)), errors.ExamplesTooLong)
    assert (
        message
        == "The input of the example 1 has 3,001 tokens; the base model takes 2,048. Shorten it or leave it out."
    )
    message = refusal(request_for(llama, examples=(Example("cat " * 63, "dog"),)), errors.ExamplesTooLong)
    assert message.startswith(
        "The example 1, input and output together, has 65 tokens; the base model takes 64."
    )
    message = refusal(request_for(t5, test=(TEST_ROWS[0], long)), errors.UnusableTestRow)
    assert message.startswith("The input of the test row 2 has 3,001 tokens")


def test_unlike_modules_are_refused_by_lorahub(t5: Collection, tmp_path: Path):
    other = tiny.save_module(t5.base, "t5", tmp_path / "rank-2", seed=1, r=2)
    message = refusal(request_for(t5, modules=(t5.modules[0], other)), errors.IncompatibleModule)
    assert "t5-module-0 has rank 4 at" in message
    assert "rank-2 has rank 2" in message


@pytest.mark.usefixtures("all_in_proportion")
def test_a_module_whose_loss_is_not_a_number_is_named(t5: Collection, tmp_path: Path):
    huge = tiny.save_module(t5.base, "t5", tmp_path / "huge", seed=1, strength=1e30)
    message = refusal(request_for(t5, modules=(t5.modules[0], huge)), errors.LossNotFinite)
    assert message == "With the module huge the loss is not a number; leave it out."


def test_a_trial_whose_loss_is_not_a_number_is_named(t5: Collection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoring.Scorer, "losses", lambda self, mixes: [float("nan")] * len(mixes))
    message = refusal(request_for(t5), errors.LossNotFinite)
    assert message.startswith("The loss of trial 1 is not a number")


def test_a_base_whose_own_loss_is_not_a_number_is_refused(t5: Collection, tmp_path: Path):
    model = tiny.new_model("t5")
    model.shared.weight.data[:] = float("nan")
    model.save_pretrained(tmp_path)
    tiny.tokenizer("t5").save_pretrained(tmp_path)
    message = refusal(replace(request_for(t5), base=tmp_path), errors.LossNotFinite)
    assert message.startswith("The base model's own loss")


def test_running_out_of_memory_at_a_single_row_has_its_sentence(
    t5: Collection, monkeypatch: pytest.MonkeyPatch
):
    def full(*_args: object, **_options: object):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scoring.Scorer, "_logits", full)
    assert "needs more memory than the worker has" in refusal(request_for(t5), errors.OutOfMemory)
    monkeypatch.undo()
    monkeypatch.setattr(evaluation, "_generate", full)
    assert "Generating an answer for one row" in refusal(request_for(t5), errors.OutOfMemory)


def test_weights_that_do_not_match_the_modules_are_refused(t5: Collection, tmp_path: Path):
    with pytest.raises(errors.BadInput, match="Weight vector 2 has 1 numbers for 6 modules"):
        run.score(t5.base, t5.modules, tiny.EXAMPLES, [[0.0] * 6, [1.0]], "paper")
    with pytest.raises(errors.BadInput, match="not a finite number"):
        run.export_weights(t5.base, t5.modules, [float("nan")] * 6, "paper", tmp_path)
    with pytest.raises(errors.BadInput, match="no mix 'linear'"):
        run.score(t5.base, t5.modules, tiny.EXAMPLES, [[0.0] * 6], "linear")


def test_a_search_in_a_shorter_float_type_has_its_result_scored_again_in_float32(t5: Collection):
    request = Request(
        base=t5.base, modules=t5.modules, examples=tiny.EXAMPLES, method="auto", budget=60, dtype="bfloat16"
    )
    result = run.compose(request)
    assert result.precision == "bfloat16"
    exact = run.score(
        t5.base, t5.modules, tiny.EXAMPLES, [result.mixing_weights, [0.0] * 6], "exact", dtype="float32"
    )
    assert result.loss == pytest.approx(exact[0], rel=1e-5)
    assert result.loss <= exact[1] * (1 + 1e-5)


def test_lorahub_searches_in_float32_unless_told_otherwise(t5: Collection):
    request = Request(base=t5.base, modules=t5.modules, examples=tiny.EXAMPLES, budget=2)
    assert run.compose(request).precision == "float32"
