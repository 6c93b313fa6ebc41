"""LoraHub's released search: nevergrad's NGOpt on a bounded array, asked and told one trial at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import nevergrad as ng
import numpy as np

from compose.engine.types import Trial

BOUND = 1.5
L1_FACTOR = 0.05


class LoraHubSearch:
    """Proposes exactly the points `lorahub==0.1.0` does for the same losses.

    With one worker and fewer than about 200 trials a module NGOpt resolves to COBYLA, which is sequential and
    deterministic. Its recommendation is then the trial of the lowest objective, the first of equals, so that is
    what `best` takes, also after an early stop.
    Source: Huang et al. 2023, LoraHub, arXiv:2307.13269; PyPI package lorahub 0.1.0, `lorahub_learning`.
    """

    needs = "losses"

    def __init__(self, *, modules: int, examples: int, budget: int, seed: int) -> None:
        self._examples = examples
        self._left = budget
        array = ng.p.Array(init=[0] * modules, upper=[BOUND] * modules, lower=[-BOUND] * modules)
        # The package seeds numpy's global state, from which nevergrad draws its own seed at first use.
        drawn = np.random.RandomState(seed).randint(2**32, dtype=np.uint32)
        array.random_state = np.random.RandomState(drawn)
        # What NGOpt chose, without NGOpt, which keeps every point and loss a second time and else only passes them on.
        self._optimizer = ng.optimizers.NGOpt(parametrization=array, budget=budget).optim
        self._asked: ng.p.Parameter | None = None

    def ask(self) -> list[tuple[float, ...]]:
        if self._left <= 0:
            return []
        self._left -= 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nevergrad tells programmers when an optimiser converged early
            self._asked = self._optimizer.ask()
        return [tuple(float(weight) for weight in self._asked.value)]

    def tell(self, trials: Sequence[Trial], more: None = None) -> None:
        assert self._asked is not None
        assert len(trials) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer.tell(self._asked, trials[0].objective)
        self._asked = None

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial of the lowest objective, the earliest of equals; None without trials."""
        return min(trials, key=lambda trial: trial.objective, default=None)

    def objective(self, mixing_weights: tuple[float, ...], loss: float) -> float:
        """The batch-mean loss once more divided by the number of examples, as the released code does, plus L1."""
        penalty = sum(abs(weight) for weight in mixing_weights) / len(mixing_weights)
        return loss / self._examples + L1_FACTOR * penalty
