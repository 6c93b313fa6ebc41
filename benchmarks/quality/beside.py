"""Method `auto` beside the released LoraHub on the demo, on the clock: `python -m benchmarks.quality beside`.

Both get the same 20 modules, five examples and number of threads, one after the other, task by task, the released
package in a process of its own. Timed are the search alone, and with it the loading of base and modules from files;
starting the interpreter and importing are left out on both sides. On a machine with other work `--clock cpu` and one
thread give processor seconds, which are close to what the clock on the wall shows on an idle one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.quality import modules
from benchmarks.quality.plan import reporting
from benchmarks.record_reference import environment
from compose.engine.bank import build_bank
from compose.engine.loading import load_base, load_module
from compose.engine.measuring import run_to_the_end
from compose.engine.methods import Problem, method_named
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from compose.engine.types import Example, Module
from demo import table
from demo.collection import T5

TIMER = Path(__file__).resolve().parents[1] / "reference_timer.py"
BUDGET = 40  # of the reference
TURNS = 2
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Took:
    """Seconds of one composition."""

    load_s: float
    search_s: float

    @property
    def whole_s(self) -> float:
        return self.load_s + self.search_s


def compare(venv: Path, *, threads: int, clock: str, tasks: int, pool: int = 1) -> str:
    """A Markdown table: medians over the first reporting tasks and of their ratios. `clock` is one of CLOCKS."""
    torch.set_num_threads(threads)
    chosen = [modules.offered(T5)[index] for index in modules.pool(T5, pool)]
    ours: list[Took] = []
    theirs: list[Took] = []
    for pair in reporting(T5)[:tasks]:
        examples = table.case(T5, pair, 1).few_shot
        theirs.append(_reference(venv, chosen, examples, threads, clock))
        ours.append(_best_of([_auto(chosen, examples, CLOCKS[clock]) for _ in range(TURNS)]))
    return as_markdown(ours, theirs, f"{clock} s, {tasks} tasks, {threads} threads")


def as_markdown(ours: Sequence[Took], theirs: Sequence[Took], what: str) -> str:
    """One line for the search and one with loading, medians over the tasks."""
    lines = [
        f"| {what} | auto | lorahub==0.1.0, {BUDGET} | auto / reference |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, part in (("search", "search_s"), ("loading and search", "whole_s")):
        mine, other = ([getattr(took, part) for took in side] for side in (ours, theirs))
        ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        lines.append(
            f"| {name} | {statistics.median(mine):.2f} | {statistics.median(other):.2f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def _best_of(turns: Sequence[Took]) -> Took:
    return Took(min(took.load_s for took in turns), min(took.search_s for took in turns))


def _auto(chosen: Sequence[Module], examples: Sequence[Example], now: Callable[[], float]) -> Took:
    started = now()
    base = load_base(modules.folder_of(T5), device=torch.device("cpu"))
    bank = build_bank([load_module(module) for module in chosen], device=torch.device("cpu"))
    loaded = now()
    scorer = Scorer(base, Mixer(base, bank), tokenise(base, examples))
    n, method = bank.size, method_named("auto")
    alone = [Mix(EXACT, tuple(float(i == j) for j in range(n))) for i in range(n)]
    audition = scorer.row_losses([Mix(EXACT, (0.0,) * n), *alone]).means()
    problem = Problem(
        modules=n,
        examples=len(examples),
        budget=method.usual_budget,
        seed=1,
        audition=tuple(audition[1:]),
        base_loss=audition[0],
    )
    run_to_the_end(scorer, bank, method.mix, method.start(problem))
    return Took(loaded - started, now() - loaded)


def _reference(
    venv: Path, chosen: Sequence[Module], examples: Sequence[Example], threads: int, clock: str
) -> Took:
    """A fresh process of the released package: one loading, the fastest of some searches."""
    with tempfile.TemporaryDirectory() as scratch:
        request = Path(scratch) / "request.json"
        request.write_text(
            json.dumps(
                {
                    "base": str(modules.folder_of(T5)),
                    "modules": [str(module.path) for module in chosen],
                    "examples": [asdict(example) for example in examples],
                    "threads": threads,
                    "seed": 1,
                    "clock": clock,
                }
            ),
            encoding="utf-8",
        )
        answered = subprocess.run(
            [environment(venv.absolute()), TIMER, request],
            input=f"{BUDGET}\n" * TURNS,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
            cwd=scratch,
        )
    loading, *searches = map(json.loads, answered.stdout.splitlines())
    return Took(loading["load_s"], min(search["search_s"] for search in searches))
