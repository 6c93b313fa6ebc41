"""The searches of a composition: on all examples, resumed from a record, and on the folds that its estimate leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch

from compose.engine.errors import LossNotFinite
from compose.engine.keeping import once
from compose.engine.measuring import measure
from compose.engine.methods import Method, Problem, Search, Vector
from compose.engine.mixing import EXACT, Mix
from compose.engine.prepared import Prepared
from compose.engine.scoring import RowLosses
from compose.engine.types import Observer, Request, Trial


@dataclass
class Audition:
    """Every module alone at weight 1 on the examples, and the bare base."""

    row_losses: RowLosses  # (1 + n mixes, rows): the base first
    left_out: tuple[int, ...] = ()

    def base(self, rows: Sequence[int] | None = None) -> float:
        return self.row_losses.means(rows)[0]

    def modules(self, rows: Sequence[int] | None = None) -> list[float]:
        """Not a number for what is left out."""
        losses = self.row_losses.means(rows)[1:]
        return [math.nan if index in self.left_out else loss for index, loss in enumerate(losses)]

    def best(self, rows: Sequence[int] | None = None) -> int:
        """Index of the module of the lowest loss."""
        losses = self.modules(rows)
        return min(set(range(len(losses))) - set(self.left_out), key=lambda index: (losses[index], index))


def audition(prepared: Prepared) -> Audition:
    """Raises LossNotFinite, naming the module."""
    n = prepared.bank.size
    one_hot = [tuple(float(i == j) for j in range(n)) for i in range(n)]
    mixes = [Mix(EXACT, (0.0,) * n), *(Mix(EXACT, vector) for vector in one_hot)]
    losses = prepared.search_scorer.row_losses(mixes)
    if not math.isfinite(losses.means()[0]):
        raise LossNotFinite(
            "The base model's own loss on the examples is not a number; "
            "check the base model, or use float32 if it ran in a shorter float type."
        )
    for module, loss in zip(prepared.bank.names, losses.means()[1:], strict=True):
        if not math.isfinite(loss):
            raise LossNotFinite(f"With the module {module} the loss is not a number; leave it out.")
    return Audition(losses, prepared.sizes.left_out)


@dataclass
class Found:
    """How a search ended."""

    weights: Vector
    trials: list[Trial]
    loss: float
    stopped_early: bool = False
    note: str = ""  # what the result has to say about it


@dataclass
class _Fold:
    """A search on some of the rows."""

    rows: list[int]
    search: Search
    trials: list[Trial] = field(default_factory=list)

    def tell(self, vectors: list[Vector], losses: list[float], more: Any = None) -> None:
        if not vectors:
            return
        told = [
            Trial(number, vector, loss, self.search.objective(vector, loss))
            for number, (vector, loss) in enumerate(
                zip(vectors, losses, strict=True), start=len(self.trials) + 1
            )
        ]
        self.trials += told
        self.search.tell(told, more)


@dataclass
class Searches:
    """All searches of one composition; the observer is asked between batches whether to go on."""

    request: Request
    observer: Observer
    recorded: list[Trial]  # of an earlier attempt; what disagrees with it is dropped
    prepared: Prepared
    audition: Audition
    _stopped: bool = False  # the first one was ended early; what is compared with it runs as long as it did

    def on_all_rows(self, method: Method) -> Found:
        """The search that is asked for; its trials are told to the observer. Raises LossNotFinite, Cancelled."""
        everything = range(len(self.prepared.rows))
        search = method.start(self._problem(everything, self.request.budget))
        trials: list[Trial] = []
        while not self._stopped and (vectors := search.ask()):
            asked = self._trials(method, search, vectors, len(trials))
            if asked is None:
                self._stopped = True
                break
            trials += asked[0]
            search.tell(*asked)
        best = search.best(trials)
        weights = self._without_left_out(best.mixing_weights) if best else (0.0,) * self.prepared.bank.size
        loss = best.loss if best else self.audition.base()
        return self._in_float32(method, Found(weights, trials, loss, self._stopped))

    def most_trials(self, method: Method) -> int:
        """What a search by this method takes at most."""
        return method.most_trials(self._problem(range(len(self.prepared.rows)), self._budget(method)))

    def on_folds(
        self,
        method: Method,
        kept: list[list[int]],
        *,
        trials_each: int,
        on_trials: Callable[[int], None] = lambda done: None,
    ) -> list[Vector]:
        """The weights found on each set of kept rows; one forward scores the next trials of every fold.

        `on_trials` is told how many trials each fold has had, from 0 on.

        `trials_each` is the budget, or after a stop what the search on all rows took until then. A wish to stop that comes
        later ends none of them: cut short, what is compared would look worse than it is.
        """
        found = once(self.request, self.observer, "searches on parts")(
            [method.name, kept, trials_each], partial(self._on_folds, method, kept, trials_each, on_trials)
        )
        return [tuple(weights) for weights in found]

    def _on_folds(
        self, method: Method, kept: list[list[int]], trials_each: int, on_trials: Callable[[int], None]
    ) -> list[Vector]:
        folds = [_Fold(rest, method.start(self._problem(rest, self._budget(method)))) for rest in kept]
        done = 0
        while done < trials_each and (asked := [fold.search.ask() for fold in folds]) and any(asked):
            on_trials(done)
            self.observer.checked()
            self._score_folds(method, folds, asked)
            done = max(len(fold.trials) for fold in folds)
        nothing = (0.0,) * self.prepared.bank.size
        bests = [fold.search.best(fold.trials) for fold in folds]
        return [self._without_left_out(best.mixing_weights) if best else nothing for best in bests]

    def _budget(self, method: Method) -> int:
        return self.request.budget if method.name == self.request.method else method.usual_budget

    def _without_left_out(self, weights: Vector) -> Vector:
        """The same mix: what is left out is zeros there, whatever weight a search gives it."""
        return tuple(
            0.0 if index in self.prepared.sizes.left_out else weight for index, weight in enumerate(weights)
        )

    def _problem(self, rows: Sequence[int], budget: int) -> Problem:
        """The search problem on these rows of the examples."""
        return Problem(
            modules=self.prepared.bank.size,
            examples=len(rows),
            budget=budget,
            seed=self.request.seed,
            audition=tuple(self.audition.modules(rows)),
            base_loss=self.audition.base(rows),
            units=self.prepared.sizes.units,
        )

    def _trials(
        self, method: Method, search: Search, vectors: list[Vector], before: int
    ) -> tuple[list[Trial], Any] | None:
        """The vectors scored, and what else the search needs; None if the observer asked to stop.

        Losses come from the record as far as it agrees.
        """
        known = self._replayed(vectors, before)
        told = before + len(known)
        if 0 < len(known) < len(vectors) or search.needs != "losses":
            # A half recorded batch is scored whole, since a smaller batch would round otherwise; so is one of
            # which more than the losses is needed, as only they are on record.
            known = []
        fresh = vectors[len(known) :]
        # What was told before is not stopped, only cancelled: a record that has to be measured again may take long.
        if fresh and self.observer.checked() == "stop" and told < before + len(vectors):
            return None
        losses, more = measure(
            *self.prepared.searching(method, search.needs), method.mix, search.needs, fresh
        )
        trials = []
        for offset, (vector, loss) in enumerate(zip(vectors, known + losses, strict=True)):
            number = before + offset + 1
            if not math.isfinite(loss):
                raise LossNotFinite(
                    f"The loss of trial {number} is not a number; leave out modules that are not sound."
                )
            trials.append(Trial(number, vector, loss, search.objective(vector, loss)))
            if number > told:
                self.observer.on_trial(trials[-1])
        return trials, more

    def _replayed(self, vectors: list[Vector], before: int) -> list[float]:
        """Recorded losses of the first vectors; from the first that disagrees the record is given up."""
        losses = []
        for offset, vector in enumerate(vectors):
            index = before + offset
            if index >= len(self.recorded):
                break
            trial = self.recorded[index]
            same = len(trial.mixing_weights) == len(vector) and all(
                math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
                for a, b in zip(trial.mixing_weights, vector, strict=True)
            )
            if not same or trial.number != index + 1:
                del self.recorded[index:]
                break
            losses.append(trial.loss)
        return losses

    def _in_float32(self, method: Method, found: Found) -> Found:
        """What was found in a shorter float type, with its loss in float32; never worse there than what it had to beat.

        `lorahub` takes its own recommendation, whatever it is.
        """
        if self.prepared.dtype == torch.float32:
            return found
        n, best = self.prepared.bank.size, self.audition.best()
        mixes = [
            Mix(method.mix, found.weights),
            Mix(EXACT, (0.0,) * n),
            Mix(EXACT, tuple(float(index == best) for index in range(n))),
        ]
        losses = self.prepared.scorer.losses(mixes)
        if not all(map(math.isfinite, losses)):
            raise LossNotFinite(
                "The loss of what was found is not a number in float32; leave out modules that are not sound."
            )
        chosen = losses.index(min(losses)) if method.mix == EXACT else 0
        note = ""
        if chosen:
            taken = "the base model alone" if chosen == 1 else self.prepared.bank.names[best]
            note = (
                f"The search ran in {str(self.prepared.dtype).removeprefix('torch.')}; in float32 what it found was worse "
                f"on the examples than {taken}, which is taken."
            )
        return replace(found, weights=mixes[chosen].mixing_weights, loss=losses[chosen], note=note)

    def _score_folds(self, method: Method, folds: list[_Fold], asked: list[list[Vector]]) -> None:
        """Tell every fold what it asked; where the losses do, one forward serves them all.

        A fold of all rows is measured as the search on all rows is, so that LoraHub beside another method finds the very
        weights that it finds alone.
        """
        if any(fold.search.needs != "losses" for fold in folds):
            for fold, own in zip(folds, asked, strict=True):
                fold.tell(own, *self._measure_fold(method, fold, own))
            return
        told = once(self.request, self.observer, "trials on parts")(
            [method.name, [fold.rows for fold in folds], asked],
            partial(self._losses_of_folds, method, folds, asked),
        )
        for fold, own, losses in zip(folds, asked, told, strict=True):
            fold.tell(own, losses)

    def _losses_of_folds(
        self, method: Method, folds: list[_Fold], asked: list[list[Vector]]
    ) -> list[list[float]]:
        if len(folds) == 1:
            return [self._measure_fold(method, folds[0], asked[0])[0]]
        vectors = [vector for own in asked for vector in own]
        scorer, _ = self.prepared.searching(method, "losses")
        losses = scorer.row_losses([Mix(method.mix, vector) for vector in vectors])
        ends = list(accumulate(map(len, asked), initial=0))
        return [losses.means(fold.rows)[a:b] for fold, (a, b) in zip(folds, pairwise(ends), strict=True)]

    def _measure_fold(self, method: Method, fold: _Fold, own: list[Vector]) -> tuple[list[float], Any]:
        some = fold.rows if len(fold.rows) < len(self.prepared.rows) else None
        needs = fold.search.needs
        return measure(*self.prepared.searching(method, needs), method.mix, needs, own, some)


def attribution(prepared: Prepared, method: Method, weights: Vector) -> list[float]:
    """How much the loss on the examples rises, in nats, when each module is left out; 0 for what has no weight."""
    kept = [index for index, weight in enumerate(weights) if weight]
    without = [tuple(0.0 if j == i else w for j, w in enumerate(weights)) for i in kept]
    rises = [0.0] * len(weights)
    if not kept:
        return rises
    losses = prepared.scorer.losses([Mix(method.mix, vector) for vector in [weights, *without]])
    for index, loss in zip(kept, losses[1:], strict=True):
        rises[index] = loss - losses[0]
    return rises
