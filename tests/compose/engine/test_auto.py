"""Method `auto`: never worse on the examples than what is there already, any LoRA, resumable in mid-batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from scipy.optimize import minimize

from compose.engine import run
from compose.engine.auto import MOST_KEPT, AutoSearch, most_trials
from compose.engine.responses import Responses
from compose.engine.scoring import tokenise
from compose.engine.types import Trial
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import Recorder, request_for, undisturbed
from tests.compose.engine.test_scoring import load, mixed_modules, peft_loss


class Bending:
    """A made-up problem: the log-probabilities of six answer tokens, linear in the weights before the softmax.

    Modules 0 and 1 each raise the expected tokens where the other does not; the others push at random.
    """

    def __init__(self, *, modules: int, noise: float = 0.3, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.slopes = noise * generator.standard_normal((modules, 6, 4))
        self.slopes[:2] = 0.0
        self.slopes[0, :3, 0] = self.slopes[1, 3:, 0] = 4.0

    def responses(self, vectors: Sequence[tuple[float, ...]]) -> Responses:
        logits = np.einsum("mn,npc->mpc", np.array(vectors), self.slopes)
        log_probs = logits - np.log(np.exp(logits).sum(2, keepdims=True))
        return Responses(log_probs, np.arange(6))

    def audition(self) -> list[float]:
        return self.responses([tuple(row) for row in np.eye(len(self.slopes))]).losses()

    def base_loss(self) -> float:
        return self.responses([(0.0,) * len(self.slopes)]).losses()[0]

    def search(self, *, budget: int) -> AutoSearch:
        return AutoSearch(audition=self.audition(), base_loss=self.base_loss(), budget=budget)


def play(search: AutoSearch, problem: Bending) -> list[Trial]:
    trials: list[Trial] = []
    while vectors := search.ask():
        responses = problem.responses(vectors)
        told = [
            Trial(number, vector, loss, search.objective(vector, loss))
            for number, (vector, loss) in enumerate(
                zip(vectors, responses.losses(), strict=True), start=len(trials) + 1
            )
        ]
        trials += told
        search.tell(told, responses if search.needs == "responses" else None)
    return trials


def test_it_finds_the_two_modules_that_only_help_together_in_a_few_rounds():
    problem = Bending(modules=12)
    search = problem.search(budget=400)
    trials = play(search, problem)
    best = search.best(trials)
    assert min(best.mixing_weights[:2]) > 0.5
    assert max(map(abs, best.mixing_weights[2:])) < 0.35
    assert best.loss < 0.15 < min(problem.audition())
    assert len(trials) < 250


def test_what_it_finds_is_the_lowest_point_that_a_general_optimiser_finds():
    problem = Bending(modules=5)
    search = problem.search(budget=400)
    best = search.best(play(search, problem))

    def objective(point: np.ndarray) -> float:
        vector = tuple(point)
        return search.objective(vector, problem.responses([vector]).losses()[0])

    found = minimize(objective, best.mixing_weights, method="Nelder-Mead", options={"maxiter": 4000})
    assert best.objective == pytest.approx(found.fun, rel=5e-3)


def test_of_many_modules_all_are_probed_once_and_the_most_useful_stay():
    problem = Bending(modules=100)
    search = problem.search(budget=400)
    trials = play(search, problem)
    assert len(search.kept) <= MOST_KEPT
    assert {0, 1} <= set(search.kept)
    assert search.best(trials).loss < 0.15


class TwoValleys(Bending):
    """The answers get likelier about a sum of weights of 1.4, and much likelier below zero."""

    def __init__(self) -> None:
        super().__init__(modules=2)

    def responses(self, vectors: Sequence[tuple[float, ...]]) -> Responses:
        total = np.array(vectors).sum(1)
        expected = 1.5 * np.exp(-(((total - 1.4) / 0.5) ** 2)) + 4 / (1 + np.exp(5 * total + 4))
        logits = np.zeros((len(vectors), 6, 4))
        logits[:, :, 0] = expected[:, None]
        return Responses(logits - np.log(np.exp(logits).sum(2, keepdims=True)), np.arange(6))


def test_it_goes_on_from_the_start_that_leads_lowest_not_from_the_one_that_begins_lowest(
    monkeypatch: pytest.MonkeyPatch,
):
    problem = TwoValleys()
    search = problem.search(budget=400)
    best = search.best(play(search, problem))
    assert sum(best.mixing_weights) < -0.5
    monkeypatch.setattr("compose.engine.auto.LEGS", 1)
    search = problem.search(budget=400)
    single_start = search.best(play(search, problem))
    assert sum(single_start.mixing_weights) > 1
    assert best.objective < single_start.objective - 0.2


def test_with_a_small_budget_it_starts_from_one_place_and_has_rounds_left():
    problem = Bending(modules=12)
    search = problem.search(budget=100)
    trials = play(search, problem)
    assert search.best(trials).loss < 0.2


class Endless(Bending):
    """Every trial is better than all before it, so that nothing but the number of trials ends a search."""

    def __init__(self, *, modules: int) -> None:
        super().__init__(modules=modules)
        self.gain = 1.0

    def responses(self, vectors: Sequence[tuple[float, ...]]) -> Responses:
        found = super().responses(vectors)
        self.gain *= 1.2
        return Responses(found.log_probs + self.gain, found.examples)


@pytest.mark.parametrize(
    ("modules", "budget", "most"), [(20, 600, 300), (27, 600, 546), (8, 199, 199), (20, 601, 601)]
)
def test_it_takes_as_many_trials_as_modules_need_unless_it_is_given_more_than_usual(
    modules: int, budget: int, most: int
):
    problem = Endless(modules=modules)
    search = problem.search(budget=budget)
    assert len(play(search, problem)) == most == most_trials(budget, modules)


def test_where_the_budget_is_too_small_for_two_whole_starts_each_goes_a_round_less():
    problem = Endless(modules=20)
    search = problem.search(budget=300)
    rounds = 1 + 20 + 6
    trials = play(search, problem)
    starts = sorted(trials[:4], key=lambda trial: trial.objective)
    probed = [trials[4 + number * rounds].mixing_weights for number in range(4)]
    assert probed[0] == starts[0].mixing_weights
    assert probed[3] == starts[1].mixing_weights


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 6, 7, 20, 100])
def test_it_never_takes_more_trials_than_the_budget(budget: int):
    problem = Bending(modules=10)
    search = problem.search(budget=budget)
    trials = play(search, problem)
    assert 1 <= len(trials) <= budget
    assert search.best(trials) is not None


def test_where_nothing_helps_it_keeps_the_base():
    problem = Bending(modules=3)
    problem.slopes[:] = 0.0
    search = problem.search(budget=80)
    assert search.best(play(search, problem)).mixing_weights == (0.0, 0.0, 0.0)


def test_a_low_penalty_does_not_excuse_a_loss_above_the_best_single_module():
    search = AutoSearch(audition=[1.0, 9.0], base_loss=9.0, budget=2)
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
    whole = undisturbed(request)
    observer = Recorder()
    resumed = run.compose(request, observer=observer, recorded=whole.trials[:recorded])
    assert resumed.trials == whole.trials
    assert resumed.mixing_weights == whole.mixing_weights
    assert resumed.scores == whole.scores
    assert observer.trials == whole.trials[recorded:]


def test_nothing_is_random_so_the_seed_changes_nothing(t5: Collection):
    first = run.compose(request_for(t5, method="auto", budget=20, seed=1))
    second = run.compose(request_for(t5, method="auto", budget=20, seed=2))
    assert first.trials == second.trials


def test_without_test_rows_the_leave_one_out_estimate_has_both_methods(t5: Collection):
    result = run.compose(request_for(t5, method="auto", budget=20, test=()))
    assert {"lorahub", "auto"} <= {score.method for score in result.scores}
    assert {score.split for score in result.scores} == {"leave_one_out"}
