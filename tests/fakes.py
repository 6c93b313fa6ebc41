"""Stand-ins with the interface of the real thing. Here: the engine, whose objective is a distance."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from compose.engine.errors import Cancelled, EngineError, UnusableTestRow
from compose.engine.types import Observer, Prediction, Request, Result, Score, Trial


class WarmCache:
    """Counts what a job would have to load."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.loads: Counter[str] = Counter()
        self.kept: set[Path] = set()

    def keeps_base(self, path: Path) -> bool:
        return path in self.kept


def compose(
    request: Request,
    *,
    observer: Observer | None = None,
    recorded: Sequence[Trial] = (),
    warm: WarmCache | None = None,
) -> Result:
    """Draws points by the seed, keeps the one nearest to where each module's weight is 1 / its place.

    Takes FAKE_TRIAL_S seconds a trial. Input "boom" raises what is our fault, "bad" what is the user's, a test row "long" what
    is the task's; "die" kills the process.
    """
    observer = observer or Observer()
    observer.on_stage("load", f"{len(request.modules)} modules")
    if warm is not None and request.base not in warm.kept:
        warm.loads["base"] += 1
        warm.kept.add(request.base)
    for module in request.modules:
        assert (module.path / "adapter_config.json").exists()
    _refuse(request)
    audition = [1.0 / (1 + number) for number in range(len(request.modules))]
    observer.on_stage("audition")
    observer.on_audition(2.0, audition)
    trials, stopped = _search(request, observer, recorded)
    best = min(trials, key=lambda trial: trial.objective, default=None)
    weights = list(best.mixing_weights) if best else [0.0] * len(request.modules)
    observer.on_stage("evaluate")
    rows = request.test or request.examples
    for number in range(1, len(rows) + 1):
        if _wish(observer) == "cancel":
            raise Cancelled
        observer.on_progress(number, len(rows), "answers")
    observer.on_stage("export")
    if request.out is not None:
        export(weights, request.out, request.base_name)
    split = "held_out" if request.test else "leave_one_out"
    return Result(
        modules=[module.name for module in request.modules],
        mixing_weights=weights,
        mix="paper",
        trials=trials,
        scores=[
            Score(name, metric, value, max(0.0, value - 0.2), min(1.0, value + 0.2), len(rows), split)
            for metric in dict.fromkeys((request.metric, "exact_match"))
            for name, value in (("zero_shot", 0.1), ("best_single", 0.3), (request.method, 0.6))
        ],
        predictions=[
            Prediction(row.input, row.output, {"zero_shot": "", request.method: row.output}) for row in rows
        ],
        audition=audition,
        base_loss=2.0,
        loss=best.loss if best else 2.0,
        attribution=[0.1] * len(request.modules),
        verdict="The composed adapter answers 60 % of the rows, the base model 10 %.",
        notes=[],
        seconds={"load": 0.0, "search": 0.1, "evaluate": 0.1, "export": 0.0},
        stopped_early=stopped,
        versions={"fake": "1"},
    )


def export(weights: Sequence[float], out: Path, base_name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "adapter_model.safetensors").write_bytes(json.dumps(list(weights)).encode())
    (out / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base_name}))


def export_weights(
    base: Path,
    modules: Sequence[object],
    mixing_weights: Sequence[float],
    mix: str,
    out: Path,
    base_name: str = "",
) -> None:
    export(mixing_weights, out, base_name)


def _refuse(request: Request) -> None:
    inputs = {example.input for example in request.examples}
    if "die" in inputs:
        os.kill(os.getpid(), signal.SIGKILL)
    if "bad" in inputs:
        raise EngineError("Row 1 tokenises to nothing; write something else.")
    if "boom" in inputs:
        raise RuntimeError("a secret of ours")
    for number, row in enumerate(request.test, 1):
        if row.input == "long":
            raise UnusableTestRow(f"The input of the test row {number} has 3,001 tokens.")


def _search(request: Request, observer: Observer, recorded: Sequence[Trial]) -> tuple[list[Trial], bool]:
    observer.on_stage("search", f"{request.method}, {request.budget} trials", trials=request.budget)
    generator = random.Random(request.seed)
    pause = float(os.environ.get("FAKE_TRIAL_S", "0"))
    trials: list[Trial] = []
    for number in range(1, request.budget + 1):
        point = tuple(generator.uniform(-1.5, 1.5) for _ in request.modules)
        if number <= len(recorded) and recorded[number - 1].mixing_weights == point:
            trials.append(recorded[number - 1])
            continue
        wish = _wish(observer)
        if wish == "cancel":
            raise Cancelled
        if wish == "stop":
            return trials, True
        time.sleep(pause)
        loss = sum((weight - 1 / place) ** 2 for place, weight in enumerate(point, 1))
        trials.append(Trial(number, point, loss, loss + 0.05 * sum(map(abs, point)) / len(point)))
        observer.on_trial(trials[-1])
    return trials, False


def _wish(observer: Observer) -> str:
    return observer.wanted()
