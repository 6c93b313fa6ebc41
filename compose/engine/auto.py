"""Method `auto`: CMA-ES over the exact mix of the modules that do best in the audition, many trials to a forward."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from compose.engine.types import Trial

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it misses matplotlib, which only its plots need
    import cma  # type: ignore[import-untyped]

# More weights than this and the budget no longer tells them apart; the audition chooses.
MOST_KEPT = 32
START = 0.05
STEP = 0.15
# Chosen on half of the demo's held-out tasks, see docs/decisions/0007.
L1_FACTOR = 4.0


class AutoSearch:
    """Base and best single module first, then generations of CMA-ES from a small uniform mix, last their mean.

    The exact mix has no flat point at 0 and no sign symmetry, so it is the easier landscape; what 40 sequential
    trials cannot do in it, hundreds of batched ones can. The L1 penalty keeps five examples from being fitted by
    large opposite weights. Deterministic for a seed.
    Source of CMA-ES: Hansen 2016, arXiv:1604.00772, package `cma`.
    """

    def __init__(
        self,
        *,
        audition: Sequence[float],
        base_loss: float,
        budget: int,
        seed: int,
        most_kept: int = MOST_KEPT,
    ) -> None:
        self._modules = len(audition)
        by_loss = sorted(range(self._modules), key=lambda index: audition[index])
        self.kept = sorted(by_loss[:most_kept])
        self._bar = min(base_loss, *audition)
        self._best_single = by_loss[0]
        self._left = budget
        self._strategy = _strategy(len(self.kept), generation=_generation(len(self.kept), budget), seed=seed)
        self._step = "references"
        self._points: list[np.ndarray] = []

    def ask(self) -> list[tuple[float, ...]]:
        if self._left <= 0 or self._step == "done":
            return []
        if self._step == "references":
            vectors = [self._full([0.0] * len(self.kept)), self._one_hot(self._best_single)][: self._left]
        elif self._left > self._strategy.popsize:
            self._points = self._strategy.ask()
            vectors = [self._full(point) for point in self._points]
        else:
            self._step = "done"
            vectors = [self._full(self._strategy.result.xfavorite)]
        self._left -= len(vectors)
        return vectors

    def tell(self, trials: Sequence[Trial]) -> None:
        if self._step == "references":
            self._step = "generations"
        elif self._step == "generations":
            self._strategy.tell(self._points, [trial.objective for trial in trials])

    def objective(self, mixing_weights: tuple[float, ...], loss: float) -> float:
        """Mean token loss plus L1 over the modules in the search."""
        return loss + L1_FACTOR * sum(abs(weight) for weight in mixing_weights) / len(self.kept)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Lowest objective among what is no worse on the examples than the base and every single module."""
        # The references were scored in another batch, so equal losses may differ by a rounding.
        good = [trial for trial in trials if trial.loss <= self._bar * (1 + 1e-5)]
        fallback = min(trials, key=lambda trial: trial.loss, default=None)
        return min(good, key=lambda trial: trial.objective, default=fallback)

    def _full(self, point: Sequence[float] | np.ndarray) -> tuple[float, ...]:
        """Weights for all modules from those of the kept ones."""
        weights = [0.0] * self._modules
        for index, weight in zip(self.kept, point, strict=True):
            weights[index] = float(weight)
        return tuple(weights)

    def _one_hot(self, module: int) -> tuple[float, ...]:
        return tuple(float(index == module) for index in range(self._modules))


def _generation(dimensions: int, budget: int) -> int:
    """Trials of one generation: CMA-ES's own default, fewer where the budget would not reach three of them."""
    usual = 4 + int(3 * np.log(dimensions))
    return max(4, min(usual, (budget - 3) // 3))


def _strategy(dimensions: int, *, generation: int, seed: int) -> cma.CMAEvolutionStrategy:
    generator = np.random.default_rng(seed)
    options = {
        "popsize": generation,
        # Its own seed option would reseed numpy's global state; ours are drawn from a generator of this search.
        "seed": np.nan,
        "randn": lambda *shape: generator.standard_normal(shape),
        "verbose": -9,
    }
    return cma.CMAEvolutionStrategy([START] * dimensions, STEP, options)
