"""LoraHub's released search: nevergrad's NGOpt on a bounded array, asked and told one trial at a time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import nevergrad as ng
import numpy as np
from nevergrad.optimization.base import Optimizer
from nevergrad.optimization.recaster import SequentialRecastOptimizer, _MessagingThread

from compose.engine.types import Trial

BOUND = 1.5
L1_FACTOR = 0.05
BY_THE_CLOCK = "CmaFmin2"  # `cma.fmin`, which seeds numpy's global generator by the time of day


class LoraHubSearch:
    """Proposes exactly the points `lorahub==0.1.0` does for the same losses, where those are the same each time.

    With one worker and fewer than about 60 trials a module NGOpt resolves to COBYLA, which is sequential and
    deterministic. Its recommendation is then the trial of the lowest objective, the first of equals, so that is
    what `best` takes, also after an early stop. With more trials NGOpt may take a meta-model over a CMA that draws its
    numbers by the clock: a search that goes on after a lost worker would ask for other points, so that here it is over
    nevergrad's own CMA, which draws them by the seed.
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
        chosen = ng.optimizers.NGOpt(parametrization=array, budget=budget).optim
        if BY_THE_CLOCK in chosen.name:
            chosen = ng.optimizers.MetaModel(parametrization=array, budget=budget)
        is_sequential = isinstance(chosen, SequentialRecastOptimizer)
        self._proposals: _Proposals = _Running(array, chosen) if is_sequential else _Asked(chosen)

    def ask(self) -> list[tuple[float, ...]]:
        if self._left <= 0:
            return []
        self._left -= 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nevergrad tells programmers when an optimiser converged early
            return [tuple(self._proposals.following().tolist())]

    def tell(self, trials: Sequence[Trial], more: None = None) -> None:
        assert len(trials) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._proposals.answer(trials[0].objective)

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The trial of the lowest objective, the earliest of equals; None without trials."""
        return min(trials, key=lambda trial: trial.objective, default=None)

    def objective(self, mixing_weights: tuple[float, ...], loss: float) -> float:
        """The batch-mean loss once more divided by the number of examples, as the released code does, plus L1."""
        penalty = sum(abs(weight) for weight in mixing_weights) / len(mixing_weights)
        return loss / self._examples + L1_FACTOR * penalty


class _Proposals(Protocol):
    """What an optimiser wants to know, one point after the other."""

    def following(self) -> np.ndarray: ...  # (n,) float64

    def answer(self, objective: float) -> None: ...


class _Asked:
    """By the optimiser's own ask and tell."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._asked: ng.p.Parameter | None = None

    def following(self) -> np.ndarray:
        self._asked = self._optimizer.ask()
        value: np.ndarray = self._asked.value
        return value

    def answer(self, objective: float) -> None:
        assert self._asked is not None
        self._optimizer.tell(self._asked, objective)
        self._asked = None


class _Running:
    """By what runs behind an optimiser's ask and tell, in the same kind of thread: COBYLA, and the same points.

    Ask and tell copy each point several times and keep it for a recommendation of their own, which nobody wants here: a
    quarter of what a proposal takes (docs/engine-performance.md).
    """

    def __init__(self, array: ng.p.Array, optimizer: SequentialRecastOptimizer) -> None:
        self._array, self._point = array, array.spawn_child()
        self._optimizer = optimizer  # what runs refers to it, but weakly
        self._thread: _MessagingThread | None = None

    def following(self) -> np.ndarray:
        if self._thread is None:
            self._thread = _MessagingThread(self._optimizer.get_optimization_function())
            self._thread.daemon = True  # a process that ends in the midst of a search does not wait for it
            self._thread.start()
        told = self._thread.messages_ask.get()
        if not isinstance(told, np.ndarray):
            raise RuntimeError(f"The optimiser of LoraHub ended by itself: {told}") from self._thread.error
        value: np.ndarray = self._point.set_standardized_data(told, reference=self._array).value
        return value

    def answer(self, objective: float) -> None:
        assert self._thread is not None
        self._thread.messages_tell.put(objective)

    def __del__(self) -> None:
        if self._thread is not None:
            self._thread.stop()
