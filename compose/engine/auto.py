"""Method `auto`: Gauss-Newton steps over the exact mix, from forward passes alone, a whole round to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from compose.engine.responses import Responses
from compose.engine.tangent import Tangent
from compose.engine.types import Trial

# Modules in the search. Of more, all are probed once, and those that move the answers most stay.
MOST_KEPT = 32
# Sum of the weights of the uniform mixes that are tried as a start.
STARTS = (0.7, 1.4)
# From so many starts the search goes this many rounds, as far as two thirds of the budget reach; then on from the best.
# Where they do not reach for two starts, each gets a round less.
LEGS, LEG_ROUNDS, FEWER_ROUNDS = 3, 4, 3
# What a search may take at most, unless it is given more than the last of these: from 300 trials with 20 modules or fewer to
# 600 with 29, for each square of their number so many. A round costs a trial for each module, and more modules need more rounds.
FEWEST, FOR_EACH_SQUARE, USUAL_BUDGET = 300, 0.75, 600
# How far a weight is raised to see what it does.
STEP = 0.005
# What a unit of absolute weight and half a unit of squared weight cost, in nats; see docs/decisions/0007.
L1_PENALTY = 0.015
L2_PENALTY = 0.06
# Steps tried in a round, from bold to timid. Rounds differ so much in what they bear that the range is wide.
DAMPINGS = tuple(10.0**exponent for exponent in (-2.0, -1.2, -0.4, 0.4, 1.2, 2.0))
# After two rounds in a row that lower the objective by less than this share of it, the search is over.
ENOUGH = 1e-2


def most_trials(budget: int, modules: int) -> int:
    """What a search over so many modules takes of its budget at most: as many as it needs, and more only if given more than usual."""
    needed = max(FEWEST, int(FOR_EACH_SQUARE * modules**2))
    return min(budget, needed) if budget <= USUAL_BUDGET else budget


def lowest_within(trials: Sequence[Trial], bar: float) -> Trial | None:
    """Of the trials whose loss is `bar` at most that of the lowest objective; where there is none, that of the lowest loss."""
    # What the bar is of was scored in another batch, so equal losses may differ by a rounding.
    good = [trial for trial in trials if trial.loss <= bar * (1 + 1e-5)]
    fallback = min(trials, key=lambda trial: trial.loss, default=None)
    return min(good, key=lambda trial: trial.objective, default=fallback)


class _Place(NamedTuple):
    weights: np.ndarray  # (n,)
    objective: float


class AutoSearch:
    """A few rounds from each of the best of base, best single module and uniform mixes; then on from the lowest.

    A round raises the weight of every module a little, all in one batch, and learns from the answers'
    log-probabilities how each module bends them next to the others. The modelled loss with its penalty is minimised
    under some dampings, and these mixes are the second batch. So a module is heard in company, where a form
    without its function helps, and not only alone, where it may hurt. Nothing is random: the seed changes nothing.

    One start is not enough: what the first bold steps fall into may be a valley far above the lowest.

    Of many modules, those stay that move the answers most when they are probed beside a uniform mix of all. Loss is no
    guide there: a module that knows nothing leaves it as it is, one with the right form and another function raises it.

    Inside, a weight counts units of its module: a change ten times as large as the others' is probed a tenth as far and
    costs as much penalty as theirs.
    """

    def __init__(
        self, *, audition: Sequence[float], base_loss: float, budget: int, units: Sequence[float] = ()
    ) -> None:
        self._modules = len(audition)
        self._units = np.array(units or [1.0] * self._modules)  # (n,) 0: takes no part
        self._by_loss = sorted(np.flatnonzero(self._units).tolist(), key=lambda index: audition[index])
        self._bar = min(base_loss, *(audition[index] for index in self._by_loss))
        self._left = most_trials(budget, len(self._by_loss))
        self.kept = self._by_loss
        self._centre = np.zeros(self._modules)
        self._lowest = np.inf
        self._caution = 1.0  # scales the dampings
        self._small = 0  # rounds in a row that gained little
        self._rounds = 0  # of this leg
        self._leg_rounds = LEG_ROUNDS
        self._waiting: list[_Place] = []  # starts still to be tried
        self._reached: list[_Place] = []  # where the legs before this one ended
        self._tangent: Tangent | None = None
        self._stage = "starts" if len(self._by_loss) <= MOST_KEPT else "screen"
        self._points = np.zeros((0, self._modules))

    @property
    def needs(self) -> str:
        """What the last `ask` wants to be told besides the losses."""
        return "responses" if self._stage in ("screen", "probes") else "losses"

    def ask(self) -> list[tuple[float, ...]]:
        if self._stage == "screen":
            points = self._screen()
        elif self._stage == "starts":
            points = self._starts()
        elif self._stage == "probes":
            points = self._probes()
        elif self._stage == "steps":
            points = self._steps()
        else:
            return []
        self._points = points[: max(self._left, 0)]
        self._left -= len(self._points)
        return [tuple(float(weight) for weight in point) for point in self._points * self._units]

    def tell(self, trials: Sequence[Trial], responses: Responses | None = None) -> None:
        objectives = np.array([trial.objective for trial in trials])
        best = int(objectives.argmin())
        if self._stage == "screen":
            assert responses is not None
            self._keep_what_moves(responses)
            self._stage = "starts"
        elif self._stage == "starts":
            legs, self._leg_rounds = self._legs()
            ranked = objectives.argsort(kind="stable")[:legs]
            self._waiting = [_Place(self._points[index], objectives[index]) for index in ranked]
            self._leave()
        elif self._stage == "probes":
            assert responses is not None
            self._lowest = objectives[0]
            self._tangent = Tangent(responses.log_probs, step=STEP)
            self._stage = "steps"
        else:
            self._judge(best, objectives[best])
        if self._left <= 0:
            self._stage = "done"

    def objective(self, mixing_weights: tuple[float, ...], loss: float) -> float:
        """Mean token loss plus the penalty for large weights, which does not depend on how many modules are offered."""
        counted = [weight / unit for weight, unit in zip(mixing_weights, self._units, strict=True) if unit]
        size = sum(abs(weight) for weight in counted)
        return loss + L1_PENALTY * size + L2_PENALTY / 2 * sum(weight**2 for weight in counted)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """Lowest objective among what is no worse on the examples than the base and every single module."""
        return lowest_within(trials, self._bar)

    def _screen(self) -> np.ndarray:
        """All modules beside a uniform mix; where the budget is too small for that, the best of the audition go on."""
        # What is left then is enough for the starts, one round of probes and its steps.
        if self._left < len(self._by_loss) + 1 + MOST_KEPT + len(DAMPINGS) + 6:
            self.kept = sorted(self._by_loss[:MOST_KEPT])
            self._stage = "starts"
            return self._starts()
        uniform = np.zeros(self._modules)
        uniform[self._by_loss] = STARTS[-1] / len(self._by_loss)
        return np.vstack([uniform, uniform + STEP * np.eye(self._modules)[sorted(self._by_loss)]])

    def _keep_what_moves(self, responses: Responses) -> None:
        moved = np.abs(responses.log_probs[1:] - responses.log_probs[0]).mean((1, 2))  # (n,)
        asked = sorted(self._by_loss)
        ranked = [
            asked[place] for place in np.argsort(-moved, kind="stable") if asked[place] != self._by_loss[0]
        ]
        self.kept = sorted([self._by_loss[0], *ranked[: MOST_KEPT - 1]])

    def _starts(self) -> np.ndarray:
        """The references, which the result must not be worse than, and small uniform mixes."""
        base, single = np.zeros((2, self._modules))
        single[self._by_loss[0]] = 1.0 / self._units[self._by_loss[0]]
        points = [base, single]
        for total in STARTS:
            points.append(np.zeros(self._modules))
            points[-1][self.kept] = total / len(self.kept)
        return np.stack(points)

    def _probes(self) -> np.ndarray:
        """The centre, then each kept weight raised; as many modules as leave a trial for a step."""
        room = self._left - 2
        if room < 1:
            self._stage = "done"
            return np.zeros((0, self._modules))
        if len(self.kept) > room:
            ranked = sorted(self.kept, key=lambda index: -abs(self._centre[index]))
            self.kept = sorted(ranked[:room])
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

    def _legs(self) -> tuple[int, int]:
        """From how many places to start, and how many rounds to go from each."""
        round_costs = 1 + len(self.kept) + len(DAMPINGS)
        rounds = int(self._left * 2 / 3) // round_costs  # of all starts
        if rounds >= 2 * LEG_ROUNDS:
            return min(LEGS, rounds // LEG_ROUNDS), LEG_ROUNDS
        if rounds >= 2 * FEWER_ROUNDS:
            return 2, FEWER_ROUNDS
        return 1, LEG_ROUNDS

    def _judge(self, best: int, objective: float) -> None:
        """Take the best step if it leads down, else ask for more cautious ones; stop where little is to be had."""
        gained = (self._lowest - objective) / max(abs(self._lowest), 1e-12)
        self._small = 0 if gained > ENOUGH else self._small + 1
        self._rounds += 1
        if gained > 0:
            self._go_to(_Place(self._points[best], objective))
        else:
            self._caution *= 1000.0
        if self._small >= 2 or (self._is_trying and self._rounds >= self._leg_rounds):
            self._leave()

    @property
    def _is_trying(self) -> bool:
        """Whether there are other places than this one to go on from."""
        return bool(self._waiting or self._reached)

    def _leave(self) -> None:
        """Go to the next start; after the last one back to the lowest place reached; and from there nowhere."""
        if self._rounds and self._is_trying:
            self._reached.append(_Place(self._centre, self._lowest))
        if self._waiting:
            self._go_to(self._waiting.pop(0))
            self._small = self._rounds = 0
        elif self._reached:
            self._go_to(min(self._reached, key=lambda place: place.objective))
            self._reached = []
            self._small = self._rounds = 0
        else:
            self._stage = "done"

    def _go_to(self, place: _Place) -> None:
        self._centre = place.weights.copy()
        self._lowest = place.objective
        self._caution, self._stage = 1.0, "probes"
