"""Method `gradient`: its derivatives are those of the loss, it ends lower than it began, and it resumes."""

from __future__ import annotations

import numpy as np
import pytest

from compose.engine import run, scoring
from compose.engine.bank import build_bank
from compose.engine.gradient import GradientSearch
from compose.engine.loading import load_base, load_module
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from compose.engine.types import Trial
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import Recorder, request_for, undisturbed


@pytest.fixture
def scorer_and_bank(collection: Collection):
    base = load_base(collection.base, device=run.torch.device("cpu"))
    bank = build_bank([load_module(module) for module in collection.modules], device=run.torch.device("cpu"))
    return Scorer(base, Mixer(base, bank), tokenise(base, tiny.EXAMPLES), tokens_per_forward=64), bank


def test_the_derivatives_are_those_of_the_loss(scorer_and_bank):
    scorer, bank = scorer_and_bank
    # Small ones: further out the bends of a random T5 lie so close that differences step over them.
    weights = [0.03 - 0.01 * index for index in range(bank.size)]
    loss, slope = scorer.gradient(bank, weights, range(scorer.row_count))
    assert loss == pytest.approx(scorer.losses([Mix(EXACT, tuple(weights))])[0], rel=1e-5)
    step = 0.001
    for index in range(bank.size):
        ends = [tuple(w + sign * step * (i == index) for i, w in enumerate(weights)) for sign in (1, -1)]
        up, down = scorer.losses([Mix(EXACT, end) for end in ends])
        assert slope[index] == pytest.approx((up - down) / (2 * step), rel=0.02, abs=0.01)


def test_derivatives_over_some_examples_leave_the_others_out(scorer_and_bank):
    scorer, bank = scorer_and_bank
    weights = tuple(0.1 for _ in range(bank.size))
    loss, _ = scorer.gradient(bank, weights, [1, 2])
    assert loss == pytest.approx(scorer.row_losses([Mix(EXACT, weights)]).means([1, 2])[0], rel=1e-5)


def test_derivatives_that_do_not_fit_the_memory_are_taken_in_halves(scorer_and_bank, monkeypatch):
    scorer, bank = scorer_and_bank
    weights = tuple(0.1 for _ in range(bank.size))
    loss, slope = scorer.gradient(bank, weights, range(scorer.row_count))
    logits = scorer._logits

    def narrow(rows, *, repeats):
        if len(rows) > 1:
            raise RuntimeError("[enforce fail] not enough memory: you tried to allocate 1 bytes.")
        return logits(rows, repeats=repeats)

    monkeypatch.setattr(scorer, "_logits", narrow)
    in_halves = scorer.gradient(bank, weights, range(scorer.row_count))
    assert in_halves[0] == pytest.approx(loss, rel=1e-5)
    assert in_halves[1] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_derivatives_are_taken_over_no_more_tokens_than_the_memory_they_keep_allows(
    collection: Collection, monkeypatch
):
    base = load_base(collection.base, device=run.torch.device("cpu"))
    bank = build_bank([load_module(module) for module in collection.modules], device=run.torch.device("cpu"))
    rows = tokenise(base, tiny.EXAMPLES)
    weights = tuple(0.1 for _ in range(bank.size))
    whole = Scorer(base, Mixer(base, bank), rows)
    loss, slope = whole.gradient(bank, weights, range(len(rows)))
    assert whole.forwards == 1
    monkeypatch.setattr(scoring, "_DIFFERENTIATED_BYTES", 1)
    bounded = Scorer(base, Mixer(base, bank), rows)
    in_parts = bounded.gradient(bank, weights, range(len(rows)))
    assert bounded.forwards == len(rows)
    assert in_parts[0] == pytest.approx(loss, rel=1e-5)
    assert in_parts[1] == pytest.approx(slope, rel=1e-3, abs=1e-5)
    bounded.row_losses([Mix(EXACT, weights)])
    assert bounded.forwards == len(rows) + 1, "what is not differentiated keeps nothing"


def test_responses_hold_the_losses_and_a_distribution_at_every_token(scorer_and_bank):
    scorer, bank = scorer_and_bank
    mixes = [Mix(EXACT, tuple(scale for _ in range(bank.size))) for scale in (0.0, 0.1, 0.2)]
    responses = scorer.responses(mixes)
    assert responses.losses() == pytest.approx(scorer.row_losses(mixes).means(), rel=1e-5)
    assert responses.of([0, 2]).losses() == pytest.approx(scorer.row_losses(mixes).means([0, 2]), rel=1e-5)
    assert np.exp(responses.log_probs).sum(2) == pytest.approx(1.0, abs=1e-4)


def test_responses_do_not_depend_on_how_rows_are_batched(collection: Collection):
    base = load_base(collection.base, device=run.torch.device("cpu"))
    bank = build_bank([load_module(module) for module in collection.modules], device=run.torch.device("cpu"))
    rows = tokenise(base, tiny.EXAMPLES)
    mixes = [Mix(EXACT, tuple(scale for _ in range(bank.size))) for scale in (0.0, 0.1, 0.2)]
    together, apart = (
        Scorer(base, Mixer(base, bank), rows, tokens_per_forward=limit).responses(mixes)
        for limit in (100_000, 32)
    )
    for example in range(len(rows)):
        first, second = together.of([example]).log_probs, apart.of([example]).log_probs
        assert np.sort(first, axis=2) == pytest.approx(np.sort(second, axis=2), abs=1e-4)


def test_it_descends_to_the_lowest_point_of_a_bowl_and_stops_by_itself():
    search = GradientSearch(modules=3, audition=[4.0, 5.0, 6.0], base_loss=3.0, budget=500)
    goal = np.array([0.8, -0.4, 0.0])
    trials: list[Trial] = []
    while vectors := search.ask():
        [vector] = vectors
        loss = float(((np.array(vector) - goal) ** 2).sum())
        trials.append(Trial(len(trials) + 1, vector, loss, search.objective(vector, loss)))
        search.tell(trials[-1:], [list(2 * (np.array(vector) - goal))])
    assert search.best(trials).mixing_weights == pytest.approx((0.785, -0.385, 0.0), abs=0.02)
    assert len(trials) < 500


@pytest.mark.parametrize("recorded", [1, 9])
def test_a_resumed_search_gives_the_undisturbed_result(t5: Collection, recorded: int):
    request = request_for(t5, method="gradient", budget=12)
    whole = undisturbed(request)
    observer = Recorder()
    resumed = run.compose(request, observer=observer, recorded=whole.trials[:recorded])
    assert resumed.trials == whole.trials
    assert resumed.mixing_weights == whole.mixing_weights
    assert observer.trials == whole.trials[recorded:]
    assert resumed.loss <= min(resumed.base_loss, *resumed.audition) * (1 + 2e-5)
    assert {"zero_shot", "best_single", "uniform", "lorahub", "gradient"} <= {
        s.method for s in resumed.scores
    }
