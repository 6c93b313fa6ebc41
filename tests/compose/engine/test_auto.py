"""Method `auto`: never worse on the examples than what is there already, any LoRA, resumable in mid-batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from compose.engine import run
from compose.engine.auto import MOST_KEPT, AutoSearch
from compose.engine.scoring import tokenise
from compose.engine.types import Trial
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import Recorder, request_for
from tests.compose.engine.test_scoring import load, mixed_modules, peft_loss


def play(search: AutoSearch, loss) -> list[Trial]:
    trials: list[Trial] = []
    while vectors := search.ask():
        told = [
            Trial(len(trials) + i, vector, loss(vector), search.objective(vector, loss(vector)))
            for i, vector in enumerate(vectors, start=1)
        ]
        trials += told
        search.tell(told)
    return trials


def distance(vector: tuple[float, ...]) -> float:
    """Lowest where the first two modules have weight 1 and the others 0."""
    goal = [1.0, 1.0] + [0.0] * (len(vector) - 2)
    return sum((w - g) ** 2 for w, g in zip(vector, goal, strict=True))


def test_it_finds_the_mix_of_two_modules_that_no_single_one_comes_near():
    search = AutoSearch(audition=[1.0, 1.0, *[3.0] * 8], base_loss=2.0, budget=600, seed=1)
    trials = play(search, distance)
    best = search.best(trials)
    assert len(trials) <= 600
    # Not 1: the penalty pulls each weight a little towards 0.
    assert best.mixing_weights[:2] == pytest.approx((0.8, 0.8), abs=0.1)
    assert best.loss < 0.15


def test_of_many_modules_only_the_best_of_the_audition_are_searched():
    audition = [5.0] * 100
    audition[7], audition[60] = 1.0, 2.0
    search = AutoSearch(audition=audition, base_loss=4.0, budget=60, seed=1)
    trials = play(search, lambda vector: 3.0)
    used = {index for trial in trials for index, weight in enumerate(trial.mixing_weights) if weight}
    assert len(used) == MOST_KEPT
    assert {7, 60} <= used


@pytest.mark.parametrize("budget", [1, 2, 3, 6, 7, 20, 100])
def test_it_never_takes_more_trials_than_the_budget(budget: int):
    search = AutoSearch(audition=[1.0, 2.0, 3.0], base_loss=2.0, budget=budget, seed=1)
    trials = play(search, lambda vector: sum(abs(w) for w in vector))
    assert 1 <= len(trials) <= budget
    assert search.best(trials) is not None


def test_where_nothing_helps_it_keeps_the_base():
    search = AutoSearch(audition=[3.0, 4.0, 5.0], base_loss=1.0, budget=80, seed=1)
    best = search.best(play(search, lambda vector: 1.0 + sum(map(abs, vector))))
    assert best.mixing_weights == (0.0, 0.0, 0.0)


def test_a_low_penalty_does_not_excuse_a_loss_above_the_best_single_module():
    search = AutoSearch(audition=[1.0, 9.0], base_loss=9.0, budget=2, seed=1)
    worse = Trial(2, (0.01, 0.0), 1.1, 0.0)
    single = Trial(1, (1.0, 0.0), 1.0, 1.25)
    assert search.best([single, worse]) == single


@pytest.mark.parametrize("budget", [10, 60])
def test_the_composition_is_no_worse_on_the_examples_than_base_and_best_single(
    collection: Collection, budget: int
):
    result = run.compose(request_for(collection, method="auto", budget=budget))
    assert result.mix == "exact"
    assert result.loss <= min(result.base_loss, *result.audition) * (1 + 2e-5)
    assert {"zero_shot", "best_single", "uniform", "lorahub", "auto"} <= {s.method for s in result.scores}


def test_unlike_modules_compose_export_and_load_in_peft(collection: Collection, tmp_path: Path):
    modules = mixed_modules(collection, tmp_path)
    result = run.compose(
        request_for(collection, method="auto", budget=40, modules=modules, out=tmp_path / "out")
    )
    assert any(note.startswith("LoraHub was not measured beside it: mixed-0 and") for note in result.notes)
    base = load(collection.base)
    model = PeftModel.from_pretrained(base.model, tmp_path / "out").eval()
    with torch.inference_mode():
        loss = peft_loss(model, base, tokenise(base, tiny.EXAMPLES))
    assert loss == pytest.approx(result.loss, rel=1e-4)


@pytest.mark.parametrize("recorded", [1, 2, 5, 17, 40])
def test_a_search_resumed_within_a_batch_gives_the_undisturbed_result(t5: Collection, recorded: int):
    request = request_for(t5, method="auto", budget=40)
    undisturbed = run.compose(request)
    observer = Recorder()
    resumed = run.compose(request, observer=observer, recorded=undisturbed.trials[:recorded])
    assert resumed.trials == undisturbed.trials
    assert resumed.mixing_weights == undisturbed.mixing_weights
    assert resumed.scores == undisturbed.scores
    assert observer.trials == undisturbed.trials[recorded:]


def test_another_seed_searches_elsewhere(t5: Collection):
    first = run.compose(request_for(t5, method="auto", budget=20, seed=1))
    second = run.compose(request_for(t5, method="auto", budget=20, seed=2))
    assert first.trials != second.trials


def test_without_test_rows_the_leave_one_out_estimate_has_both_methods(t5: Collection):
    result = run.compose(request_for(t5, method="auto", budget=20, test=()))
    assert {"lorahub", "auto"} <= {score.method for score in result.scores}
    assert {score.split for score in result.scores} == {"leave_one_out"}
