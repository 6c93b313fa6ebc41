"""One cell of the bench: some methods on one held-out task, with one draw of examples and one pool of modules."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.quality import modules
from compose.engine import auto, evaluation, gradient, metrics
from compose.engine.bank import Bank, build_bank
from compose.engine.loading import LoadedBase, LoadedModule, load_base
from compose.engine.measuring import run_to_the_end
from compose.engine.methods import Problem, method_named
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from compose.engine.types import Example
from demo import build, table
from demo.collection import BASES, Base
from demo.stories import Pair, distinct_rows

CPU = torch.device("cpu")
IRRELEVANT = 100


@dataclass(frozen=True)
class Cell:
    """What is measured together. `draw` or `pool` is 0 where nothing in the group depends on it."""

    base: str
    task: str
    group: str
    draw: int
    pool: int
    shots: int = 5
    rows: int = 100

    @property
    def key(self) -> str:
        """A hash of everything the figures depend on: the cell, and how the methods in it are set."""
        parts = {**asdict(self), "settings": _settings(self.group)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _settings(group: str) -> dict[str, object]:
    """What the methods of a group are set to, where it may still change."""
    if group in ("gradient", "gradient-all"):
        return {
            "rate": gradient.RATE,
            "start": gradient.START_TOTAL,
            "l1": gradient.L1_PENALTY,
            "budget": method_named("gradient").usual_budget,
        }
    if group in ("auto", "auto-all", "crowd", "controls"):
        return {
            "l1": auto.L1_PENALTY,
            "l2": auto.L2_PENALTY,
            "step": auto.STEP,
            "kept": auto.MOST_KEPT,
            "enough": auto.ENOUGH,
            "dampings": auto.DAMPINGS,
            "legs": (auto.LEGS, auto.LEG_ROUNDS, auto.FEWER_ROUNDS),
            "budget": (auto.FEWEST, auto.FOR_EACH_SQUARE, auto.USUAL_BUDGET),
        }
    return {}


@dataclass(frozen=True)
class Found:
    """What one method reached in a cell.

    `cpu_s` and `peak_mib` are of the search: processor seconds on one thread with the audition where the method has one, and
    the most that lay in memory, interpreter, base and modules included. 0: no search, or not known on this system.
    """

    right: int
    n: int
    evaluations: int = 0
    rows: int = 0
    cpu_s: float = 0.0
    peak_mib: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True)
class _Task:
    base: LoadedBase
    examples: tuple[Example, ...]
    test: tuple[Example, ...]


def measure(cell: Cell) -> dict[str, Found]:
    """Every method of the cell's group, by name."""
    base = next(each for each in BASES if each.id == cell.base)
    pair = next(each for each in base.held_out if each.key == cell.task)
    task = _task(base, pair, cell)
    return GROUPS[cell.group](base, task, cell)


def _task(base: Base, pair: Pair, cell: Cell) -> _Task:
    case = table.case(base, pair, max(cell.draw, 1))
    examples = case.few_shot
    if cell.shots > len(examples):
        # The first five are told apart with care; more are taken as they come, and none is a test row.
        seen = frozenset(each.input for each in [*case.test, *examples])
        stream = random.Random(f"{base.id}/{pair.key}/more/{cell.draw}")
        more = distinct_rows(pair, stream, cell.shots - len(examples), excluding=seen)
        examples += tuple(Example(row.input, row.output) for row in more)
    return _Task(_base(base), examples, case.test[: cell.rows])


@cache
def _base(base: Base) -> LoadedBase:
    build.prepare_process()
    return load_base(modules.folder_of(base), device=CPU)


Group = Callable[[Base, _Task, "Cell"], dict[str, Found]]


@dataclass(frozen=True)
class _Audition:
    """Loss of every module alone, and what it took to learn these."""

    losses: list[float]
    cpu_s: float


class _PeakMemory:
    """The most memory this process held since; Linux alone can be asked."""

    def __init__(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now

    def peak_mib(self) -> float:
        with suppress(OSError):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
        return 0.0


class _Desk:
    """A bank of modules, what is searched on it, and what answers in the end."""

    def __init__(self, task: _Task, loaded: Sequence[LoadedModule]) -> None:
        self.task = task
        self.bank: Bank = build_bank(loaded, device=CPU)
        self.mixer = Mixer(task.base, self.bank)
        self._answering: dict[str, tuple[Mix, dict[str, float]]] = {}

    @property
    def size(self) -> int:
        return self.bank.size

    def answer_by(self, name: str, mix: Mix, **cost: float) -> None:
        """Let this mix answer the test rows."""
        self._answering[name] = (mix, cost)

    def search(self, name: str, method_name: str, budget: int, examples: Sequence[Example]) -> _Audition:
        """Run a method on the examples and let what it finds answer."""
        method = method_named(method_name)
        memory = _PeakMemory()
        started = time.process_time()
        scorer = Scorer(self.task.base, self.mixer, tokenise(self.task.base, examples))
        alone = [Mix(EXACT, tuple(float(i == j) for j in range(self.size))) for i in range(self.size)]
        audition = scorer.row_losses([Mix(EXACT, (0.0,) * self.size), *alone]).means()
        auditioned = time.process_time()
        problem = Problem(
            modules=self.size,
            examples=len(examples),
            budget=budget,
            seed=1,
            audition=tuple(audition[1:]),
            base_loss=audition[0],
        )
        search = method.start(problem)
        trials = run_to_the_end(scorer, self.bank, method.mix, search)
        best = search.best(trials)
        assert best is not None
        # LoraHub has no audition; ours is counted.
        listens = method_name != "lorahub"
        evaluations = len(trials) + listens * (self.size + 1)
        self.answer_by(
            name,
            Mix(method.mix, best.mixing_weights),
            evaluations=evaluations,
            rows=evaluations * len(examples),
            cpu_s=time.process_time() - (started if listens else auditioned),
            peak_mib=memory.peak_mib(),
            loss=best.loss,
        )
        return _Audition(audition[1:], auditioned - started)

    def answers(self, *, in_context: bool = False) -> dict[str, Found]:
        """Exact match of everything that answers; rows of all mixes share the batches."""
        base, test = self.task.base, self.task.test
        texts = [example.input for example in test]
        asked = []
        for name, (mix, _) in self._answering.items():
            asked += evaluation.questions(base, name, mix, texts)
        if in_context:
            prompts = [evaluation.in_context_prompt(self.task.examples, text) for text in texts]
            asked += evaluation.questions(base, "in-context", Mix(EXACT, (0.0,) * self.size), prompts)
        # A text longer than the expected one by more than dropped full stops cannot match it.
        limit = max(len(row.labels) for row in tokenise(base, test)) + 2
        written = evaluation.answer(base, self.mixer, asked, max_new_tokens=limit)
        right: dict[str, int] = {question.method: 0 for question in asked}
        for question, text in zip(asked, written, strict=True):
            right[question.method] += metrics.matches(text, test[question.row].output)
        costs = {name: cost for name, (_, cost) in self._answering.items()}
        return {
            name: Found(right=hits, n=len(test), **costs.get(name, {}))  # type: ignore[arg-type]
            for name, hits in right.items()
        }


def _pool_modules(base: Base, cell: Cell) -> list[LoadedModule]:
    return [modules.loaded(base)[index] for index in modules.pool(base, cell.pool)]


def _static(base: Base, task: _Task, cell: Cell) -> dict[str, Found]:
    """What no example changes: the base alone, the uniform mix, PEFT's merges with uniform weights."""
    pool, merged = _pool_modules(base, cell), modules.merged_by_peft(base, cell.pool)
    desk = _Desk(task, [*pool, *merged.values()])
    n = desk.size
    if cell.pool == 1:
        desk.answer_by("zero-shot", Mix(EXACT, (0.0,) * n))
    desk.answer_by("uniform", Mix(EXACT, (1 / len(pool),) * len(pool) + (0.0,) * len(merged)))
    for place, way in enumerate(merged, start=len(pool)):
        desk.answer_by(f"PEFT {way}", Mix(EXACT, tuple(float(index == place) for index in range(n))))
    return desk.answers()


def _lorahub(base: Base, task: _Task, cell: Cell) -> dict[str, Found]:
    desk = _Desk(task, _pool_modules(base, cell))
    audition = desk.search("lorahub, 40", "lorahub", 40, task.examples)
    best = audition.losses.index(min(audition.losses))
    one_hot = tuple(float(index == best) for index in range(desk.size))
    size = desk.size + 1
    desk.answer_by(
        "best single",
        Mix(EXACT, one_hot),
        evaluations=size,
        rows=size * len(task.examples),
        cpu_s=audition.cpu_s,
        loss=min(audition.losses),
    )
    return desk.answers()


def _in_context(base: Base, task: _Task, cell: Cell) -> dict[str, Found]:
    """The examples as a prompt of the base alone."""
    return _Desk(task, modules.loaded(base)[:1]).answers(in_context=True)


def _one(name: str, method: str, budget: int | None = None) -> Group:
    """A single method on the cell's pool, or on all modules where the cell has none."""

    def measured(base: Base, task: _Task, cell: Cell) -> dict[str, Found]:
        desk = _Desk(task, _pool_modules(base, cell) if cell.pool else modules.loaded(base))
        desk.search(name, method, budget or method_named(method).usual_budget, task.examples)
        return desk.answers()

    return measured


def _crowd(base: Base, task: _Task, cell: Cell) -> dict[str, Found]:
    """All modules and a hundred that know nothing."""
    desk = _Desk(task, [*modules.loaded(base), *modules.irrelevant(base, IRRELEVANT)])
    desk.search(
        f"auto, {IRRELEVANT} irrelevant more", "auto", method_named("auto").usual_budget, task.examples
    )
    return desk.answers()


def _controls(base: Base, task: _Task, cell: Cell) -> dict[str, Found]:
    """As many random modules as there are real ones; and the real ones on examples with each other's answers."""
    budget = method_named("auto").usual_budget
    nothing = _Desk(task, modules.random_like(modules.loaded(base), seed=f"{base.id}/control"))
    nothing.search("auto, random modules", "auto", budget, task.examples)
    wrong = _Desk(task, modules.loaded(base))
    wrong.search("auto, shuffled labels", "auto", budget, shuffled(task.examples))
    return {**nothing.answers(), **wrong.answers()}


def shuffled(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Every example with the next one's answer."""
    outputs = [each.output for each in examples]
    return tuple(
        Example(each.input, output) for each, output in zip(examples, [*outputs[1:], outputs[0]], strict=True)
    )


GROUPS: dict[str, Group] = {
    "static": _static,
    "in-context": _in_context,
    "lorahub": _lorahub,
    "lorahub-200": _one("lorahub, 200", "lorahub", 200),
    "auto": _one("auto", "auto"),
    "gradient": _one("gradient", "gradient"),
    "auto-all": _one("auto, all modules", "auto"),
    "gradient-all": _one("gradient, all modules", "gradient"),
    "crowd": _crowd,
    "controls": _controls,
}
