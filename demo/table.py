"""Measures the demo collection and publishes the table in demo/README.md: `python -m demo.table`.

For every held-out task and draw of five examples: the base alone, the best single module, LoraHub as published
(20 random modules, paper mix) with 40 and with 200 evaluations, and two yardsticks: CMA-ES with 800 evaluations of
the exact mix of all modules, and a LoRA trained on 2,000 rows of the task.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import cma  # type: ignore[import-untyped]  # nevergrad brings it along
import numpy as np
from peft import PeftModel

from compose.engine import run
from compose.engine.types import Example, Module, Request, Result
from compose.engine.warm import WarmCache
from demo import build
from demo.build import prepare_process
from demo.collection import FOLDER, T5, Base
from demo.stories import Pair, Row, distinct_rows, telling_rows
from demo.training import exact_match, train, with_lora

POOL = 20
CMA_EVALUATIONS, CMA_START, CMA_STEP, CMA_PENALTY = 800, 0.05, 0.15, 0.5
CEILING_ROWS, CEILING_SCHEDULE = 2000, build.MODULE_SCHEDULE
METHODS = (
    "zero-shot",
    "best single",
    "LoraHub, 40",
    "LoraHub, 200",
    "exact mix, CMA-ES 800",
    "LoRA on 2,000 rows",
)
_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Case:
    """One held-out task with one draw of examples; draw 1 is the published one."""

    base: Base
    pair: Pair
    draw: int
    few_shot: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.pair.key, self.draw


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.table", description="Measure the demo collection.")
    parser.add_argument(
        "--draws", type=int, default=2, help="draws of five examples for each task (default: 2)"
    )
    parser.add_argument(
        "--tasks", type=int, default=len(T5.held_out), help="the first so many tasks (default: all)"
    )
    parser.add_argument(
        "--record", type=Path, help="JSON lines of what is measured; an interrupted run goes on here"
    )
    parser.add_argument(
        "--processes", type=int, default=2, help="cases side by side, one thread each (default: 2)"
    )
    parser.add_argument(
        "--print",
        dest="only_print",
        action="store_true",
        help="print the table and leave demo/README.md alone",
    )
    options = parser.parse_args(arguments)
    pairs = T5.held_out[: options.tasks]
    cases = [case(T5, pair, draw) for draw in range(1, options.draws + 1) for pair in pairs]
    found = measure_all(cases, options.record, processes=options.processes)
    text = table(pairs, found, draws=options.draws)
    if options.only_print:
        print(text)
    else:
        publish(FOLDER / "README.md", text)


def case(base: Base, pair: Pair, draw: int) -> Case:
    """The published examples as draw 1, others of the same kind after it, always the same test rows."""
    few_shot, test = build.held_out_rows(base, pair)
    if draw > 1:
        few_shot = telling_rows(pair, random.Random(f"{base.id}/{pair.key}/few-shot/{draw}"), len(few_shot))
    return Case(base, pair, draw, _examples(few_shot), _examples(test))


def measure_all(
    cases: Sequence[Case], record: Path | None, *, processes: int
) -> dict[tuple[str, int], dict[str, float]]:
    """Exact match (0-1) of every column of the table for every case, by task key and draw."""
    found = _recorded(record)
    missing = [one for one in cases if one.key not in found]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=prepare_process) as pool:
        running = {pool.submit(measure, one): one.key for one in missing}
        for number, done in enumerate(as_completed(running), start=1):
            key, scores = running[done], done.result()
            found[key] = scores
            if record is not None:
                with record.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"task": key[0], "draw": key[1], "scores": scores}) + "\n")
            said = ", ".join(f"{method} {score:.2f}" for method, score in scores.items())
            _say(f"{number} of {len(missing)}: {key[0]}, draw {key[1]}: {said}")
    return found


def _recorded(record: Path | None) -> dict[tuple[str, int], dict[str, float]]:
    if record is None or not record.exists():
        return {}
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    return {(line["task"], line["draw"]): line["scores"] for line in lines}


def measure(one: Case) -> dict[str, float]:
    """Exact match of every column of the table on the case's test rows.

    What is composed is exported first and read back with peft, so the figures are those of the adapter people get.
    """
    warm = WarmCache()
    model, words = build.load_base(FOLDER, one.base)
    scores = {"zero-shot": exact_match(model, words, _rows(one.test), architecture=one.base.architecture)}
    with TemporaryDirectory() as folder:
        found = lorahub(one, 40, warm, Path(folder))
        single = pool(one)[found.audition.index(min(found.audition))]
        scores["best single"] = match_of(one, single.path)
        scores["LoraHub, 40"] = match_of(one, Path(folder))
    with TemporaryDirectory() as folder:
        lorahub(one, 200, warm, Path(folder))
        scores["LoraHub, 200"] = match_of(one, Path(folder))
    with TemporaryDirectory() as folder:
        exact_mix(one, warm, Path(folder))
        scores["exact mix, CMA-ES 800"] = match_of(one, Path(folder))
    if one.draw == 1:  # it learns from its own 2,000 rows, whatever the draw
        scores["LoRA on 2,000 rows"] = ceiling(one)
    return scores


def match_of(one: Case, adapter: Path) -> float:
    """Exact match of the adapter in this folder on the case's test rows."""
    model, words = build.load_base(FOLDER, one.base)
    adapted = PeftModel.from_pretrained(model, adapter)
    return exact_match(adapted, words, _rows(one.test), architecture=one.base.architecture)


def pool(one: Case) -> list[Module]:
    """The 20 modules LoraHub mixes, drawn by task and draw."""
    chosen = random.Random(f"{one.pair.key}/{one.draw}").sample(modules(one.base), POOL)
    return sorted(chosen, key=lambda module: module.name)


def lorahub(one: Case, budget: int, warm: WarmCache, out: Path) -> Result:
    """LoraHub as published, its composed adapter written to `out`."""
    request = Request(
        base=FOLDER / one.base.id,
        modules=tuple(pool(one)),
        examples=one.few_shot,
        # The engine's own scores are not used here; without any rows it would estimate them by leaving one out.
        test=one.few_shot[:1],
        method="lorahub",
        budget=budget,
        seed=one.draw,
        out=out,
        device="cpu",
    )
    return run.compose(request, warm=warm)


def exact_mix(one: Case, warm: WarmCache, out: Path) -> None:
    """The exact mix of all modules, its weights found by CMA-ES on the five examples, written to `out`."""
    base, offered = FOLDER / one.base.id, modules(one.base)
    losses = partial(run.score, base, offered, one.few_shot, mix="exact", device="cpu", warm=warm)
    weights = search_exact(losses, len(offered), seed=one.draw)
    run.export_weights(base, offered, weights, "exact", out, one.base.name, warm=warm)


def search_exact(losses: Callable[..., list[float]], count: int, *, seed: int) -> list[float]:
    """The best of 800 weight vectors of `count` modules by few-shot loss plus 0.5 times the mean absolute weight."""
    settings = {"seed": seed, "verbose": -9, "maxfevals": CMA_EVALUATIONS}
    search = cma.CMAEvolutionStrategy([CMA_START] * count, CMA_STEP, settings)
    while not search.stop():
        vectors = search.ask()
        found = losses(weights=[vector.tolist() for vector in vectors])
        penalties = [CMA_PENALTY * float(np.abs(vector).mean()) for vector in vectors]
        search.tell(vectors, [loss + penalty for loss, penalty in zip(found, penalties, strict=True)])
    return search.result.xbest.tolist()


def ceiling(one: Case) -> float:
    """Exact match of a LoRA of the modules' kind, trained on 2,000 rows of the task itself."""
    model, words = build.load_base(FOLDER, one.base)
    seed = f"{one.base.id}/{one.pair.key}/ceiling"
    adapted = with_lora(
        model, architecture=one.base.architecture, name=one.base.name, seed=build.seed_of(seed)
    )
    tested = frozenset(row.input for row in one.test)
    rows = distinct_rows(one.pair, random.Random(seed), CEILING_ROWS, excluding=tested)
    batches = build.batches_of(words, rows, CEILING_SCHEDULE.rows, seed, one.base.architecture)
    train(adapted, batches, CEILING_SCHEDULE, progress=lambda *_: None)
    return exact_match(adapted, words, _rows(one.test), architecture=one.base.architecture)


def modules(base: Base) -> list[Module]:
    """Every module of the base."""
    return [Module(pair.key, build.module_folder(FOLDER, base, pair)) for pair in base.trained]


# --- the text ------------------------------------------------------------------------------------------------------


def table(pairs: Sequence[Pair], found: dict[tuple[str, int], dict[str, float]], *, draws: int) -> str:
    """Markdown: a line for each held-out task, a column for each method, means over the draws."""
    lines = [f"| held-out task | {' | '.join(METHODS)} |", f"| --- |{' ---: |' * len(METHODS)}"]
    columns: dict[str, list[float]] = {method: [] for method in METHODS}
    for pair in pairs:
        measured = [found[pair.key, draw] for draw in range(1, draws + 1)]
        means = {method: mean([one[method] for one in measured if method in one]) for method in METHODS}
        lines.append(f"| {pair.key} | {' | '.join(f'{means[method]:.2f}' for method in METHODS)} |")
        for method in METHODS:
            columns[method].append(means[method])
    lines.append(
        f"| **mean of {len(pairs)}** | {' | '.join(f'**{mean(columns[m]):.2f}**' for m in METHODS)} |"
    )
    seeds = ", ".join(str(draw) for draw in range(1, draws + 1))
    caption = f"Draws of five examples: {draws}, with seed {seeds}; the first is the published set.\n"
    return "\n".join([caption, *lines])


def publish(path: Path, text: str) -> None:
    """Put the table between its two marks in the file."""
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    return tuple(Example(row.input, row.output) for row in rows)


def _rows(examples: Sequence[Example]) -> list[Row]:
    return [Row(example.input, example.output) for example in examples]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
