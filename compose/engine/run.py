"""One composition from folders to result: load, audition, search, evaluate, export."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from compose.engine import evaluation, export, loading, options, precision
from compose.engine.bank import Bank
from compose.engine.errors import BadInput, Cancelled, LossNotFinite, NoExamples, NoModules
from compose.engine.loading import LoadedBase, LoadedModule
from compose.engine.measuring import measure
from compose.engine.methods import METHODS, Method, Problem, Search, Vector, method_named
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.scoring import Row, RowLosses, Scorer, tokenise
from compose.engine.types import (
    Example,
    Exported,
    ExportForm,
    Module,
    Observer,
    OptionScores,
    Prediction,
    Request,
    Result,
    Score,
    Trial,
)
from compose.engine.warm import WarmCache

# Leave-one-out runs a search for every example; beyond this many the examples are left out in fifths.
_MOST_SINGLE_FOLDS = 10
_FOLDS_OTHERWISE = 5


def compose(
    request: Request,
    *,
    observer: Observer | None = None,
    recorded: Sequence[Trial] = (),
    warm: WarmCache | None = None,
) -> Result:
    """Find mixing weights for the examples, score them against the baselines, and export the adapter.

    Args:
        observer: told what happens; asked between evaluations whether to go on.
        recorded: trials of an earlier attempt at the same request. They are replayed, not scored again, and the
            result is that of an undisturbed run.
        warm: keeps bases and modules for the next job; without one everything is loaded for this job alone.
    Raises EngineError with a sentence for the user; Cancelled when the observer asks for it.
    """
    return _Composition(request, observer or Observer(), list(recorded), warm or WarmCache()).run()


def score(
    base: Path,
    modules: Sequence[Module],
    examples: Sequence[Example],
    weights: Sequence[Sequence[float]],
    mix: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    warm: WarmCache | None = None,
) -> list[float]:
    """Mean token loss (nats) of the examples as one batch, for every vector of mixing weights. Raises EngineError."""
    for number, vector in enumerate(weights, start=1):
        _check_weights(vector, modules, f"Weight vector {number}")
    request = Request(
        base=base, modules=tuple(modules), examples=tuple(examples), device=device, dtype=dtype, budget=1
    )
    loaded = _load(request, warm or WarmCache(), precision.named(dtype) or torch.float32)
    return loaded.search_scorer.losses([Mix(_mix_kind(mix), tuple(vector)) for vector in weights])


def export_weights(
    base: Path,
    modules: Sequence[Module],
    mixing_weights: Sequence[float],
    mix: str,
    out: Path,
    base_name: str = "",
    *,
    form: ExportForm | None = None,
    warm: WarmCache | None = None,
) -> Exported:
    """Write the adapter of known weights, the same bytes `compose` wrote for them. Raises EngineError."""
    _check_weights(mixing_weights, modules, "The recipe")
    _check_modules(modules)
    cache = warm or WarmCache()
    loaded_base = cache.base(base, device=torch.device("cpu"), dtype=torch.float32)
    loaded = [cache.module(module) for module in modules]
    for module in loaded:
        loading.check_fit(module, loaded_base)
    return export.export_adapter(
        loaded_base.model,
        loaded,
        Mix(_mix_kind(mix), tuple(mixing_weights)),
        out,
        base_name=base_name,
        seq2seq=loaded_base.kind == "seq2seq",
        form=form or ExportForm(),
    )


def _mix_kind(name: str) -> str:
    if name not in (PAPER, EXACT):
        raise BadInput(f"There is no mix {name!r}; choose {PAPER} or {EXACT}.")
    return name


def _check_weights(vector: Sequence[float], modules: Sequence[Module], what: str) -> None:
    if len(vector) != len(modules):
        raise BadInput(f"{what} has {len(vector)} numbers for {len(modules)} modules; give one for each.")
    if not all(isinstance(w, int | float) and math.isfinite(w) for w in vector):
        raise BadInput(f"{what} holds something that is not a finite number.")


def _check_modules(modules: Sequence[Module]) -> None:
    if not modules:
        raise NoModules("There are no modules to compose; choose at least one that fits the base model.")
    names = [module.name for module in modules]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise BadInput(f"The module {doubled} was given twice; give each module once.")


@dataclass
class _Loaded:
    """What the stages after "load" work with. The search may have a base and a bank of its own, in a shorter type."""

    base: LoadedBase  # float32, as is what follows
    modules: list[LoadedModule]
    bank: Bank
    mixer: Mixer
    rows: list[Row]
    scorer: Scorer
    search_bank: Bank
    search_scorer: Scorer
    dtype: torch.dtype  # of the search
    method: str  # whose search it is; any other, as what it is compared with, runs in float32

    def searching(self, method: Method, needs: str) -> tuple[Scorer, Bank]:
        """What a search by this method works with; small differences and derivatives are taken in float32."""
        if method.name == self.method and needs == "losses":
            return self.search_scorer, self.search_bank
        return self.scorer, self.bank


def _load(request: Request, warm: WarmCache, dtype: torch.dtype | None) -> _Loaded:
    """`dtype` None: what this machine does faster."""
    _check_modules(request.modules)
    if not request.examples:
        raise NoExamples("There are no few-shot examples; give at least one with an input and an output.")
    device = loading.resolve_device(request.device)
    base = warm.base(Path(request.base), device=device, dtype=torch.float32)
    modules = [warm.module(module) for module in request.modules]
    for module in modules:
        loading.check_fit(module, base)
    rows = tokenise(base, request.examples)
    bank = warm.bank(request.modules, device=device, dtype=torch.float32)
    mixer = Mixer(base, bank)
    scorer = Scorer(base, mixer, rows)
    chosen = dtype or precision.for_search(base)
    if chosen == torch.float32:
        return _Loaded(base, modules, bank, mixer, rows, scorer, bank, scorer, chosen, request.method)
    short_base = warm.base(Path(request.base), device=device, dtype=chosen)
    short_bank = warm.bank(request.modules, device=device, dtype=chosen)
    short_scorer = Scorer(short_base, Mixer(short_base, short_bank), rows)
    return _Loaded(base, modules, bank, mixer, rows, scorer, short_bank, short_scorer, chosen, request.method)


@dataclass
class _Audition:
    """Every module alone at weight 1 on the examples, and the bare base."""

    row_losses: RowLosses  # (1 + n mixes, rows): the base first

    def base(self, rows: Sequence[int] | None = None) -> float:
        return self.row_losses.means(rows)[0]

    def modules(self, rows: Sequence[int] | None = None) -> list[float]:
        return self.row_losses.means(rows)[1:]

    def best(self, rows: Sequence[int] | None = None) -> int:
        """Index of the module of the lowest loss."""
        losses = self.modules(rows)
        return losses.index(min(losses))


@dataclass
class _Found:
    """How a search ended."""

    weights: Vector
    trials: list[Trial]
    loss: float
    stopped_early: bool = False


@dataclass
class _Answering:
    """A method that is scored, and the weights it found on all examples."""

    method: Method
    weights: Vector
    trials: int


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


def _score_folds(loaded: _Loaded, method: Method, folds: list[_Fold], asked: list[list[Vector]]) -> None:
    """Tell every fold what it asked; where the losses do, one forward serves them all."""
    if any(fold.search.needs != "losses" for fold in folds):
        for fold, own in zip(folds, asked, strict=True):
            needs = fold.search.needs
            fold.tell(own, *measure(*loaded.searching(method, needs), method.mix, needs, own, fold.rows))
        return
    vectors = [vector for own in asked for vector in own]
    scorer, _ = loaded.searching(method, "losses")
    losses = scorer.row_losses([Mix(method.mix, vector) for vector in vectors])
    start = 0
    for fold, own in zip(folds, asked, strict=True):
        fold.tell(own, losses.means(fold.rows)[start : start + len(own)])
        start += len(own)


@dataclass
class _Composition:
    request: Request
    observer: Observer
    recorded: list[Trial]
    warm: WarmCache
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _option_scores: OptionScores | None = None
    _stopped: bool = False  # the search was ended early; what is compared with it runs as long as it did

    def run(self) -> Result:
        """All stages in order."""
        request = self.request
        method = method_named(request.method)
        if request.budget < 1:
            raise BadInput(f"The budget is {request.budget} trials; give at least 1.")
        export.check_form(request.export)
        self._check_wish()
        with self._stage("load", f"{len(request.modules)} modules"):
            loaded = _load(request, self.warm, precision.wanted(request.dtype, method=method.name))
            self.notes += loaded.bank.notes if method.mix == PAPER else ()
        test_rows = tokenise(loaded.base, request.test, what="test row")
        with self._stage("audition", timed_as="search"):
            self._check_wish()
            audition = self._audition(loaded)
            self.observer.on_audition(audition.base(), audition.modules())
        with self._stage("search", f"{method.name}, {request.budget} trials"):
            found = self._search(loaded, method, audition)
            found = self._scored_again(loaded, method, found, audition)
            attribution = self._attribution(loaded, method, found)
            most = len(found.trials) if found.stopped_early else request.budget
            answering = [_Answering(method, found.weights, most)]
            answering += self._reference(loaded, method, audition)
        with self._stage("evaluate"):
            scores, predictions, verdict = self._evaluate(loaded, answering, audition, test_rows)
        exported = None
        with self._stage("export"):
            if request.out is not None:
                exported = self._export(loaded, method, found)
        return Result(
            modules=[module.name for module in request.modules],
            mixing_weights=list(found.weights),
            mix=method.mix,
            trials=found.trials,
            scores=scores,
            predictions=predictions,
            audition=audition.modules(),
            base_loss=audition.base(),
            loss=found.loss,
            attribution=attribution,
            verdict=verdict,
            notes=self.notes,
            seconds=self.seconds,
            stopped_early=found.stopped_early,
            versions=versions(),
            precision=str(loaded.dtype).removeprefix("torch."),
            exported=exported,
            option_scores=self._option_scores,
        )

    @contextmanager
    def _stage(self, name: str, message: str = "", *, timed_as: str = "") -> Iterator[None]:
        self.observer.on_stage(name, message)
        started = time.perf_counter()
        try:
            yield
        finally:
            key = timed_as or name
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - started

    def _check_wish(self) -> str:
        wish = self.observer.wanted()
        if wish == "cancel":
            raise Cancelled
        return wish

    def _audition(self, loaded: _Loaded) -> _Audition:
        n = loaded.bank.size
        one_hot = [tuple(float(i == j) for j in range(n)) for i in range(n)]
        mixes = [Mix(EXACT, (0.0,) * n), *(Mix(EXACT, vector) for vector in one_hot)]
        losses = loaded.search_scorer.row_losses(mixes)
        if not math.isfinite(losses.means()[0]):
            raise LossNotFinite(
                "The base model's own loss on the examples is not a number; "
                "check the base model, or use float32 if it ran in a shorter float type."
            )
        for module, loss in zip(loaded.bank.names, losses.means()[1:], strict=True):
            if not math.isfinite(loss):
                raise LossNotFinite(f"With the module {module} the loss is not a number; leave it out.")
        return _Audition(losses)

    def _search(self, loaded: _Loaded, method: Method, audition: _Audition) -> _Found:
        n = loaded.bank.size
        search = method.start(self._problem(loaded, audition, range(len(loaded.rows)), self.request.budget))
        trials: list[Trial] = []
        stopped = False
        while not stopped and (vectors := search.ask()):
            asked = self._trials(loaded, method, search, vectors, len(trials))
            if asked is None:
                stopped = self._stopped = True
                break
            trials += asked[0]
            search.tell(*asked)
        best = search.best(trials)
        weights = best.mixing_weights if best else (0.0,) * n
        return _Found(weights, trials, best.loss if best else audition.base(), stopped)

    def _scored_again(self, loaded: _Loaded, method: Method, found: _Found, audition: _Audition) -> _Found:
        """What was found in a shorter float type, with its loss in float32; never worse there than what it had to beat.

        `lorahub` takes its own recommendation, whatever it is.
        """
        if loaded.dtype == torch.float32:
            return found
        n, best = loaded.bank.size, audition.best()
        mixes = [
            Mix(method.mix, found.weights),
            Mix(EXACT, (0.0,) * n),
            Mix(EXACT, tuple(float(index == best) for index in range(n))),
        ]
        losses = loaded.scorer.losses(mixes)
        if not all(map(math.isfinite, losses)):
            raise LossNotFinite(
                "The loss of what was found is not a number in float32; leave out modules that are not sound."
            )
        chosen = losses.index(min(losses)) if method.mix == EXACT else 0
        if chosen:
            self.notes.append(
                f"The search ran in {str(loaded.dtype).removeprefix('torch.')}; in float32 what it found was worse on "
                f"the examples than {'the base model alone' if chosen == 1 else loaded.bank.names[best]}, which is taken."
            )
        return replace(found, weights=mixes[chosen].mixing_weights, loss=losses[chosen])

    def _trials(
        self, loaded: _Loaded, method: Method, search: Search, vectors: list[Vector], before: int
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
        if told < before + len(vectors) and self._check_wish() == "stop":
            return None
        losses, more = measure(*loaded.searching(method, search.needs), method.mix, search.needs, fresh)
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

    def _attribution(self, loaded: _Loaded, method: Method, found: _Found) -> list[float]:
        kept = [index for index, weight in enumerate(found.weights) if weight]
        without = [tuple(0.0 if j == i else w for j, w in enumerate(found.weights)) for i in kept]
        rises = [0.0] * len(found.weights)
        if not kept:
            return rises
        losses = loaded.scorer.losses([Mix(method.mix, vector) for vector in [found.weights, *without]])
        for index, loss in zip(kept, losses[1:], strict=True):
            rises[index] = loss - losses[0]
        return rises

    def _reference(self, loaded: _Loaded, method: Method, audition: _Audition) -> list[_Answering]:
        """LoraHub as published beside another method, where the modules allow its mix."""
        lorahub = METHODS["lorahub"]
        if method.name == lorahub.name:
            return []
        if loaded.bank.paper_problem:
            self.notes.append(f"LoraHub was not measured beside it: {loaded.bank.paper_problem}.")
            return []
        everything = list(range(len(loaded.rows)))
        [weights] = self._search_folds(
            loaded, lorahub, audition, [everything], trials_each=lorahub.usual_budget
        )
        return [_Answering(lorahub, weights, lorahub.usual_budget)]

    def _evaluate(
        self, loaded: _Loaded, answering: list[_Answering], audition: _Audition, test_rows: list[Row]
    ) -> tuple[list[Score], list[Prediction], str]:
        if self.request.test:
            asked = self._held_out_questions(loaded, answering, audition)
            rows, examples, split = test_rows, list(self.request.test), "held_out"
        elif len(self.request.examples) > 1:
            asked = self._left_out_questions(loaded, answering, audition)
            rows, examples, split = loaded.rows, list(self.request.examples), "leave_one_out"
        else:
            return (
                [],
                [],
                "Not scored: one example cannot be both shown and held out. Give test rows to know more.",
            )
        written = evaluation.answer(
            loaded.base,
            loaded.mixer,
            asked,
            max_new_tokens=evaluation.answer_limit(rows),
            on_batch=lambda done: self._evaluated(done, len(asked)),
        )
        outputs: list[dict[str, str]] = [{} for _ in examples]
        for question, text in zip(asked, written, strict=True):
            outputs[question.row][question.method] = text.strip()
        predictions = [
            Prediction(example.input, example.output, output)
            for example, output in zip(examples, outputs, strict=True)
        ]
        hits = {
            name: [evaluation.matches(p.outputs[name], p.expected) for p in predictions]
            for name in outputs[0]
        }
        scores = [evaluation.exact_match_score(name, found_, split=split) for name, found_ in hits.items()]
        if split == "held_out":
            self._option_scores = self._by_options(loaded, answering, audition, hits)
        single = loaded.bank.names[audition.best()]
        return scores, predictions, evaluation.verdict(self.request.method, hits, split=split, single=single)

    def _by_options(
        self,
        loaded: _Loaded,
        answering: list[_Answering],
        audition: _Audition,
        hits: dict[str, list[bool]],
    ) -> OptionScores | None:
        """The same mixes held to the options, where the answers are a small closed set."""
        found = options.closed_set(self.request.examples, self.request.test)
        if found is None:
            return None
        weights = [(each.method, each.weights) for each in answering]
        return options.score(
            loaded.base,
            loaded.mixer,
            found,
            self.request.test,
            self._mixes(loaded, weights, audition.best()),
            ours=self.request.method,
            written=hits,
            on_row=self._evaluated,
        )

    def _evaluated(self, done: int, total: int) -> None:
        self.observer.on_progress(done, total)
        if done < total:
            self._check_wish()

    def _held_out_questions(
        self, loaded: _Loaded, answering: list[_Answering], audition: _Audition
    ) -> list[evaluation.Question]:
        texts = [example.input for example in self.request.test]
        asked = []
        found = [(each.method, each.weights) for each in answering]
        for name, mix in self._mixes(loaded, found, audition.best()).items():
            asked += evaluation.questions(loaded.base, name, mix, texts)
        prompts = [evaluation.in_context_prompt(self.request.examples, text) for text in texts]
        return asked + self._in_context(loaded, prompts)

    def _mixes(self, loaded: _Loaded, found: list[tuple[Method, Vector]], best: int) -> dict[str, Mix]:
        """What answers for each method; a single module always acts as it is, which is the exact mix."""
        n = loaded.bank.size
        return {
            "zero_shot": Mix(EXACT, (0.0,) * n),
            "best_single": Mix(EXACT, tuple(float(index == best) for index in range(n))),
            "uniform": Mix(found[0][0].mix, (1.0 / n,) * n),
            **{method.name: Mix(method.mix, weights) for method, weights in reversed(found)},
        }

    def _in_context(self, loaded: _Loaded, prompts: list[str]) -> list[evaluation.Question]:
        """Questions to the bare base with the examples in front; none when they do not fit its context."""
        base = loaded.base
        asked = evaluation.questions(base, "in_context", Mix(EXACT, (0.0,) * loaded.bank.size), prompts)
        room = evaluation.answer_limit(loaded.rows) if base.kind == "causal" else 0
        longest = max(len(question.prompt) for question in asked) + room
        if longest <= base.context_tokens:
            return asked
        self.notes.append(
            f"In-context was not measured: the examples with a question take {longest} tokens, "
            f"the base model takes {base.context_tokens}."
        )
        return []

    def _left_out_questions(
        self, loaded: _Loaded, answering: list[_Answering], audition: _Audition
    ) -> list[evaluation.Question]:
        """Every example asked of what is found without it; the folds' searches run in lockstep."""
        folds = _folds(len(loaded.rows))
        if len(folds) < len(loaded.rows):
            self.notes.append(
                f"The estimate without test rows leaves the examples out in {len(folds)} parts, not one by one."
            )
        everything = range(len(loaded.rows))
        kept = [[index for index in everything if index not in fold] for fold in folds]
        weights = [
            self._search_folds(loaded, each.method, audition, kept, trials_each=each.trials)
            for each in answering
        ]
        examples = self.request.examples
        asked, prompts = [], {}
        for number, (fold, rest) in enumerate(zip(folds, kept, strict=True)):
            found = [(each.method, own[number]) for each, own in zip(answering, weights, strict=True)]
            for index in fold:
                text = examples[index].input
                prompts[index] = evaluation.in_context_prompt([examples[i] for i in rest], text)
                for name, mix in self._mixes(loaded, found, audition.best(rest)).items():
                    asked += [_at_row(q, index) for q in evaluation.questions(loaded.base, name, mix, [text])]
        return asked + self._in_context(loaded, [prompts[index] for index in everything])

    def _search_folds(
        self, loaded: _Loaded, method: Method, audition: _Audition, kept: list[list[int]], *, trials_each: int
    ) -> list[Vector]:
        """The weights found on each set of kept rows; one forward scores the next trials of every fold.

        `trials_each` is the budget, or after a stop what the search on all rows took until then.
        """
        budget = self.request.budget if method.name == self.request.method else method.usual_budget
        folds = [_Fold(rest, method.start(self._problem(loaded, audition, rest, budget))) for rest in kept]
        done = 0
        while done < trials_each and (asked := [fold.search.ask() for fold in folds]) and any(asked):
            if self._check_wish() == "stop" and not self._stopped:
                break
            _score_folds(loaded, method, folds, asked)
            done = max(len(fold.trials) for fold in folds)
        nothing = (0.0,) * loaded.bank.size
        bests = [fold.search.best(fold.trials) for fold in folds]
        return [best.mixing_weights if best else nothing for best in bests]

    def _problem(self, loaded: _Loaded, audition: _Audition, rows: Sequence[int], budget: int) -> Problem:
        """The search problem on these rows of the examples."""
        return Problem(
            modules=loaded.bank.size,
            examples=len(rows),
            budget=budget,
            seed=self.request.seed,
            audition=tuple(audition.modules(rows)),
            base_loss=audition.base(rows),
        )

    def _export(self, loaded: _Loaded, method: Method, found: _Found) -> Exported:
        assert self.request.out is not None
        return export.export_adapter(
            loaded.base.model,
            loaded.modules,
            Mix(method.mix, found.weights),
            Path(self.request.out),
            base_name=self.request.base_name,
            seq2seq=loaded.base.kind == "seq2seq",
            form=self.request.export,
        )


def _folds(rows: int) -> list[list[int]]:
    if rows <= _MOST_SINGLE_FOLDS:
        return [[index] for index in range(rows)]
    return [list(range(start, rows, _FOLDS_OTHERWISE)) for start in range(_FOLDS_OTHERWISE)]


def _at_row(question: evaluation.Question, row: int) -> evaluation.Question:
    return evaluation.Question(question.method, row, question.mix, question.prompt)


def versions() -> dict[str, str]:
    """Versions of everything whose numbers can change a result."""
    names = ("torch", "peft", "transformers", "nevergrad", "numpy", "scipy")
    return {name: version(name) for name in names}
