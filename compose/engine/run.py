"""One composition from folders to result: load, audition, search, evaluate, export."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from compose.engine import export, loading, metrics, precision
from compose.engine.bank import Bank, build_bank
from compose.engine.comparison import Comparison
from compose.engine.errors import BadInput, EmptyExample, ExamplesTooLong, UnusableTestRow
from compose.engine.keeping import once
from compose.engine.methods import method_named
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.prepared import Prepared, check_modules, check_weights, load, mix_kind, prepare
from compose.engine.scoring import Scorer, tokenise
from compose.engine.searching import Searches, attribution, audition
from compose.engine.soundness import out_of_proportion, without
from compose.engine.types import Example, Exported, ExportForm, Module, Observer, Request, Result, Trial
from compose.engine.warm import WarmCache


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
    """Mean token loss (nats) of the examples as one batch, for every vector of mixing weights. Raises EngineError.

    No module is left out: of one out of all proportion the loss is what it is, or no number.
    """
    for number, vector in enumerate(weights, start=1):
        check_weights(vector, modules, f"Weight vector {number}")
    request = Request(
        base=base, modules=tuple(modules), examples=tuple(examples), device=device, dtype=dtype, budget=1
    )
    cache, chosen = warm or WarmCache(), precision.named(dtype) or torch.float32
    loaded_base, loaded, rows = load(request, cache, chosen)
    bank = cache.bank(request.modules, loaded, device=loaded_base.device, dtype=chosen)
    kind = mix_kind(mix)
    huge = out_of_proportion(loaded_base, bank) if kind == EXACT else ()

    def losses_of(bank: Bank, vectors: Sequence[Sequence[float]]) -> list[float]:
        scorer = Scorer(loaded_base, Mixer(loaded_base, bank), rows)
        return scorer.losses([Mix(kind, tuple(vector)) for vector in vectors])

    if not huge:
        return losses_of(bank, weights)
    # What has no weight must not be in a product either: infinity times 0 is no number.
    where = loaded_base.device
    losses = losses_of(build_bank(without(loaded, huge), device=where, dtype=chosen), weights)
    for number, vector in enumerate(weights):
        if any(vector[index] for index in huge):
            used = [index for index, weight in enumerate(vector) if weight]
            own = build_bank([loaded[index] for index in used], device=where, dtype=chosen)
            [losses[number]] = losses_of(own, [[vector[index] for index in used]])
    return losses


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
    check_weights(mixing_weights, modules, "The recipe")
    check_modules(modules)
    cache = warm or WarmCache()
    loaded_base = cache.base(base, device=torch.device("cpu"), dtype=torch.float32)
    loaded = [cache.module(module) for module in modules]
    loading.check_all_fit(loaded, loaded_base)
    bank = cache.bank(modules, loaded, device=torch.device("cpu"), dtype=torch.float32)
    loaded = without(
        loaded, [index for index in out_of_proportion(loaded_base, bank) if not mixing_weights[index]]
    )
    return export.export_adapter(
        loaded_base.model,
        loaded,
        Mix(mix_kind(mix), tuple(mixing_weights)),
        out,
        base_name=base_name,
        seq2seq=loaded_base.kind == "seq2seq",
        form=form or ExportForm(),
    )


@dataclass
class _Composition:
    request: Request
    observer: Observer
    recorded: list[Trial]
    warm: WarmCache
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self) -> Result:
        """All stages in order."""
        request = self.request
        method = method_named(request.method)
        if request.budget < 1:
            raise BadInput(f"The budget is {request.budget} trials; give at least 1.")
        if not 0 <= request.seed < 2**32:
            raise BadInput(f"The seed is {request.seed}; give a whole number from 0 to {2**32 - 1}.")
        export.check_form(request.export)
        if request.metric not in metrics.METRICS:
            raise BadInput(metrics.unknown(request.metric))
        self.observer.checked()
        with self._stage("load", f"{len(request.modules)} modules"):
            prepared = prepare(request, self.warm, precision.wanted(request.dtype, method=method.name))
            self.notes += [prepared.sizes.note] if prepared.sizes.note else []
            self.notes += prepared.bank.notes if method.mix == PAPER else ()
        try:
            test_rows = tokenise(prepared.base, request.test, what="test row")
        except (EmptyExample, ExamplesTooLong) as error:
            raise UnusableTestRow(error.message) from error
        with self._stage("audition", timed_as="search"):
            self.observer.checked()
            heard = audition(prepared)
            self.observer.on_audition(heard.base(), heard.modules())
        searches = Searches(request, self.observer, self.recorded, prepared, heard)
        comparison = Comparison(searches, self.notes)
        most = searches.most_trials(method)
        with self._stage("search", f"{method.name}, at most {most} trials", trials=most):
            found = searches.on_all_rows(method)
            self.notes += [found.note] if found.note else []
            rises = once(request, self.observer, "attribution")(
                [method.name, found.weights], partial(attribution, prepared, method, found.weights)
            )
            comparison.enter(method, found)
        alone = "" if request.test else "no test rows, so searching again without each example in turn"
        with self._stage("evaluate", alone):
            scores, predictions, verdict = comparison.scores(test_rows)
        exported = None
        with self._stage("export"):
            if request.out is not None:
                mix = Mix(method.mix, found.weights)
                exported = self._export(prepared, mix, comparison.written.get(mix), request.out)
        return Result(
            modules=[module.name for module in request.modules],
            mixing_weights=list(found.weights),
            mix=method.mix,
            trials=found.trials,
            scores=scores,
            predictions=predictions,
            audition=heard.modules(),
            base_loss=heard.base(),
            loss=found.loss,
            attribution=rises,
            verdict=verdict,
            notes=self.notes,
            seconds=self.seconds,
            stopped_early=found.stopped_early,
            versions=versions(),
            precision=str(prepared.dtype).removeprefix("torch."),
            exported=exported,
            option_scores=comparison.option_scores,
        )

    @contextmanager
    def _stage(self, name: str, message: str = "", *, timed_as: str = "", trials: int = 0) -> Iterator[None]:
        self.observer.on_stage(name, message, trials=trials)
        started = time.perf_counter()
        try:
            yield
        finally:
            key = timed_as or name
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - started

    def _export(self, prepared: Prepared, mix: Mix, written: export.Written | None, out: Path) -> Exported:
        return export.export_adapter(
            prepared.base.model,
            prepared.modules,
            mix,
            Path(out),
            base_name=self.request.base_name,
            seq2seq=prepared.base.kind == "seq2seq",
            form=self.request.export,
            written=written,
        )


def versions() -> dict[str, str]:
    """Versions of everything whose numbers can change a result."""
    names = ("torch", "peft", "transformers", "nevergrad", "numpy", "scipy")
    return {name: version(name) for name in names}
