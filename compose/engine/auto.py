"""Method `auto`: Gauss-Newton steps over the exact mix, from forward passes alone, a whole round to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compose.engine.responses import Responses
from compose.engine.tangent import Tangent
from compose.engine.types import Trial

# Modules probed in every round. More are probed once, in the first round, and the most useful of them stay.
MOST_KEPT = 32
# Sum of the weights of the uniform mixes that are tried as a start.
STARTS = (0.7, 1.4)
# How far a weight is raised to see what it does.
STEP = 0.005
# What a unit of absolute weight and half a unit of squared weight cost, in nats; see docs/decisions/0007.
L1_PENALTY = 0.015
L2_PENALTY = 0.06
# Steps tried in a round, from bold to timid. Rounds differ so much in what they bear that the range is wide.
DAMPINGS = tuple(10.0**exponent for exponent in (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5))
# After two rounds in a row that lower the objective by less than this share of it, the search is over.
ENOUGH = 5e-3


class AutoSearch:
    """Starts from the best of base and uniform mixes; then rounds of probes around it and of steps from it.

    A round raises the weight of every module a little, all in one batch, and learns from the answers'
    log-probabilities how each module bends them next to the others. The modelled loss with its penalty is minimised
    under ten dampings, and these ten mixes are the second batch. So a module is heard in company, where a form
    without its function helps, and not only alone, where it may hurt. Nothing is random: the seed changes nothing.
    """

    def __init__(self, *, audition: Sequence[float], base_loss: float, budget: int) -> None:
        self._modules = len(audition)
        self._by_loss = sorted(range(self._modules), key=lambda index: audition[index])
        self._bar = min(base_loss, *audition)
        self._left = budget
        self.kept = self._by_loss
        self._centre = np.zeros(self._modules)
        self._lowest = np.inf
        self._caution = 1.0  # scales the dampings
        self._small = 0  # rounds in a row that gained little
        self._tangent: Tangent | None = None
        self._stage = "starts"
        self._points = np.zeros((0, self._modules))

    @property
    def needs(self) -> str:
        """What the last `ask` wants to be told besides the losses."""
        return "responses" if self._stage == "probes" else "losses"

    def ask(self) -> list[tuple[float, ...]]:
        if self._stage == "starts":
            points = self._starts()
        elif self._stage == "probes":
            points = self._probes()
        elif self._stage == "steps":
            points = self._steps()
        else:
            return []
        self._points = points[: max(self._left, 0)]
        self._left -= len(self._points)
        return [tuple(float(weight) for weight in point) for point in self._points]

    def tell(self, trials: Sequence[Trial], responses: Responses | None = None) -> None:
        objectives = np.array([trial.objective for trial in trials])
        best = int(objectives.argmin())
        if self._stage == "starts":
            self._move(best, objectives[best])
            self._stage = "probes"
        elif self._stage == "probes":
            assert responses is not None
            self._lowest = objectives[0]  # of the centre, which may have lost modules since
            self._tangent = Tangent(responses.log_probs, step=STEP)
            self._stage = "steps"
        else:
            self._judge(best, objectives[best])
        if self._left <= 0:
            self._stage = "done"

    def objective(self, mixing_weights: tuple[float, ...], loss: float) -> float:
        """Mean token loss plus the penalty for large weights, which does not depend on how many modules are offered."""
        size = sum(abs(weight) for weight in mixing_weights)
        return loss + L1_PENALTY * size + L2_PENALTY / 2 * sum(weight**2 for weight in mixing_weights)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Lowest objective among what is no worse on the examples than the base and every single module."""
        # The references were scored in another batch, so equal losses may differ by a rounding.
        good = [trial for trial in trials if trial.loss <= self._bar * (1 + 1e-5)]
        fallback = min(trials, key=lambda trial: trial.loss, default=None)
        return min(good, key=lambda trial: trial.objective, default=fallback)

    def _starts(self) -> np.ndarray:
        """The references, which the result must not be worse than, and small uniform mixes."""
        base = np.zeros(self._modules)
        single = np.zeros(self._modules)
        single[self._by_loss[0]] = 1.0
        uniform = [np.full(self._modules, total / self._modules) for total in STARTS]
        return np.stack([base, single, *uniform])

    def _probes(self) -> np.ndarray:
        """The centre, then each kept weight raised; as many modules as leave a trial for a step."""
        room = self._left - 2
        if room < 1:
            self._stage = "done"
            return np.zeros((0, self._modules))
        if len(self.kept) > room:
            self._keep(self.kept[:room])
        raised = np.repeat(self._centre[None], len(self.kept), axis=0)
        raised[range(len(self.kept)), self.kept] += STEP
        return np.vstack([self._centre, raised])

    def _steps(self) -> np.ndarray:
        assert self._tangent is not None
        steps = self._tangent.steps(
            self._centre[self.kept],
            l1=L1_PENALTY,
            l2=L2_PENALTY,
            dampings=[self._caution * damping for damping in DAMPINGS][-self._left :],
        )
        points = np.repeat(self._centre[None], len(steps), axis=0)
        points[:, self.kept] += steps
        return points

    def _judge(self, best: int, objective: float) -> None:
        """Take the best step if it leads down, else ask for more cautious ones; stop where little is to be had."""
        gained = (self._lowest - objective) / max(abs(self._lowest), 1e-12)
        self._small = 0 if gained > ENOUGH else self._small + 1
        if gained > 0:
            self._move(best, objective)
            self._caution = 1.0
            self._stage = "probes"
            if len(self.kept) > MOST_KEPT:
                self._keep(self._most_useful())
        else:
            self._caution *= 1000.0
        if self._small >= 2:
            self._stage = "done"

    def _move(self, point: int, objective: float) -> None:
        self._centre = self._points[point].copy()
        self._lowest = objective

    def _most_useful(self) -> list[int]:
        """The modules of the largest weight after the first round; among unused ones those the loss feels most."""
        assert self._tangent is not None
        slopes = dict(zip(self.kept, np.abs(self._tangent.slope()), strict=True))
        ranked = sorted(self.kept, key=lambda index: (-abs(self._centre[index]), -slopes[index]))
        return ranked[:MOST_KEPT]

    def _keep(self, modules: Sequence[int]) -> None:
        self.kept = sorted(modules)
        dropped = np.setdiff1d(np.arange(self._modules), self.kept)
        self._centre[dropped] = 0.0
