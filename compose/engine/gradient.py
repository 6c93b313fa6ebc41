"""Method `gradient`: Adam on the mixing weights of the exact mix. A yardstick, and worth its price with many examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compose.engine.auto import lowest_within
from compose.engine.types import Trial

START_TOTAL = 1.4  # sum of the first weights, which are equal
L1_PENALTY = 0.03  # nats for a unit of absolute weight
RATE = 0.05
LOWEST_RATE = 0.002
PATIENCE = 8  # steps without a new lowest objective before the rate is halved
_AVERAGING, _SQUARES, _TINY = 0.9, 0.999, 1e-8


class GradientSearch:
    """One step of Adam a trial from the uniform mix; the rate is halved when it gets no further, until it is small.

    Deterministic. Source of Adam: Kingma and Ba 2015, arXiv:1412.6980.
    """

    needs = "gradient"

    def __init__(self, *, modules: int, audition: Sequence[float], base_loss: float, budget: int) -> None:
        self._weights = np.full(modules, START_TOTAL / modules)
        self._mean, self._square = np.zeros(modules), np.zeros(modules)
        self._bar = float(np.nanmin([base_loss, *audition]))  # no number: it takes no part
        single = np.zeros(modules)
        single[int(np.nanargmin(audition))] = 1.0
        self._references = [np.zeros(modules), single]
        self._left, self._steps = budget, 0
        self._rate = RATE
        self._lowest, self._since = np.inf, 0

    def ask(self) -> list[tuple[float, ...]]:
        if self._left <= 0 or self._rate < LOWEST_RATE:
            return []
        self._left -= 1
        point = self._references[0] if self._references else self._weights
        return [tuple(float(weight) for weight in point)]

    def tell(self, trials: Sequence[Trial], gradients: Sequence[Sequence[float]] | None = None) -> None:
        if self._references:
            self._references.pop(0)
            return
        assert gradients is not None
        [trial], [gradient] = trials, gradients
        self._since += 1
        if trial.objective < self._lowest * (1 - 1e-3):
            self._lowest, self._since = trial.objective, 0
        if self._since >= PATIENCE:
            self._rate, self._since = self._rate / 2, 0
        self._step(np.asarray(gradient) + L1_PENALTY * np.sign(self._weights))

    def _step(self, slope: np.ndarray) -> None:
        self._steps += 1
        self._mean = _AVERAGING * self._mean + (1 - _AVERAGING) * slope
        self._square = _SQUARES * self._square + (1 - _SQUARES) * slope**2
        mean = self._mean / (1 - _AVERAGING**self._steps)
        square = self._square / (1 - _SQUARES**self._steps)
        self._weights = self._weights - self._rate * mean / (np.sqrt(square) + _TINY)

    def objective(self, mixing_weights: tuple[float, ...], loss: float) -> float:
        """Mean token loss plus the penalty for large weights."""
        return loss + L1_PENALTY * sum(abs(weight) for weight in mixing_weights)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Lowest objective among what is no worse on the examples than the base and every single module."""
        return lowest_within(trials, self._bar)
