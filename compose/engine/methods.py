"""The search methods: each proposes mixing weights, is told their losses, and at the end names the best trial.

A method is a class that makes searches; a search is asked and told, so that it can be watched, cancelled, resumed
from recorded trials, and run for several leave-one-out folds in lockstep. New methods register themselves in METHODS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from compose.engine.auto import USUAL_BUDGET, AutoSearch, most_trials
from compose.engine.errors import BadInput
from compose.engine.gradient import GradientSearch
from compose.engine.mixing import EXACT, PAPER
from compose.engine.search import LoraHubSearch
from compose.engine.types import Trial

Vector = tuple[float, ...]


@dataclass(frozen=True)
class Problem:
    """What a search may know. Losses are mean token losses on the examples, never on test rows.

    `audition` has the loss of every module alone at weight 1 (exact mix), `base_loss` that of the bare base. `units`:
    see `soundness.Proportions`; with a unit of 0 the audition has no number, and the module takes no part.
    """

    modules: int
    examples: int
    budget: int
    seed: int
    audition: tuple[float, ...]
    base_loss: float
    units: tuple[float, ...] = ()  # empty: 1 for each


class Search(Protocol):
    """One run of a method."""

    @property
    def needs(self) -> str:
        """What `tell` wants beside the losses of the last `ask`: "losses" (nothing), "responses" or "gradient"."""

    def ask(self) -> list[Vector]:
        """Vectors to score next, in order; empty when the search is over."""

    def tell(self, trials: Sequence[Trial], more: Any = None) -> None:
        """The scored vectors of the last `ask`, all of them, in order.

        `more` is what was needed: `responses.Responses` of all vectors, or a list of derivatives for each vector.
        """

    def objective(self, mixing_weights: Vector, loss: float) -> float:
        """What is minimised, from the mean token loss."""

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial to take; also after an early stop. None without trials."""


class Method(Protocol):
    """A way to search, and how its weights mix the modules."""

    name: str
    mix: str
    usual_budget: int

    def most_trials(self, problem: Problem) -> int:
        """What a search takes at most, within the budget."""

    def start(self, problem: Problem) -> Search:
        """A fresh search."""


class LoraHub:
    """LoraHub as released: COBYLA over the paper mix, one trial after the other."""

    name = "lorahub"
    mix = PAPER
    usual_budget = 40

    def most_trials(self, problem: Problem) -> int:
        return problem.budget

    def start(self, problem: Problem) -> Search:
        return LoraHubSearch(
            modules=problem.modules, examples=problem.examples, budget=problem.budget, seed=problem.seed
        )


class Auto:
    """Ours: Gauss-Newton over the exact mix, without gradients; modules of unlike rank, alpha and targets may join."""

    name = "auto"
    mix = EXACT
    usual_budget = USUAL_BUDGET

    def most_trials(self, problem: Problem) -> int:
        return most_trials(problem.budget, problem.modules - problem.units.count(0.0))

    def start(self, problem: Problem) -> Search:
        return AutoSearch(
            audition=problem.audition, base_loss=problem.base_loss, budget=problem.budget, units=problem.units
        )


class Gradient:
    """Adam on the weights of the exact mix: needs the base's gradients, a few times the cost of a trial each."""

    name = "gradient"
    mix = EXACT
    usual_budget = 200

    def most_trials(self, problem: Problem) -> int:
        return problem.budget

    def start(self, problem: Problem) -> Search:
        return GradientSearch(
            modules=problem.modules,
            audition=problem.audition,
            base_loss=problem.base_loss,
            budget=problem.budget,
        )


METHODS: dict[str, Method] = {method.name: method for method in (LoraHub(), Auto(), Gradient())}


def method_named(name: str) -> Method:
    """Raises BadInput, naming the methods there are."""
    try:
        return METHODS[name]
    except KeyError:
        raise BadInput(f"There is no method {name!r}; choose one of: {', '.join(sorted(METHODS))}.") from None
