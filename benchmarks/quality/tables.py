"""Tables of the bench: means with bootstrap intervals, paired differences, spread, and what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.quality import plan
from demo.collection import LLAMA, T5
from demo.stories import Pair

REFERENCE = "lorahub, 40"
RESAMPLES = 2000
# The order of the lines; what was not measured has none.
METHODS = (
    "zero-shot",
    "in-context",
    "best single",
    "uniform",
    "PEFT cat",
    "PEFT linear",
    "PEFT ties",
    "PEFT dare_linear",
    "lorahub, 40",
    "lorahub, 200",
    "auto, random modules",
    "auto, shuffled labels",
    "auto",
    "auto, all modules",
    "auto, 100 irrelevant more",
    "gradient",
    "gradient, all modules",
)

COSTS = ("evaluations", "rows", "cpu_s")

# By task, then by (draw, pool): share of right answers.
Values = dict[str, dict[tuple[int, int], float]]


def page(bench: str, records: Sequence[dict[str, Any]]) -> str:
    """Markdown of a bench."""
    if bench == "curve":
        return curve(records)
    if bench == "causal":
        return table(records, LLAMA.held_out)
    halves = {"reporting": plan.reporting(T5), "tuning": plan.tuning(T5)}
    measured = {record["cell"]["task"] for record in records}
    parts = [
        f"### The {len(pairs)} {name} tasks\n\n{table(records, pairs)}"
        for name, pairs in halves.items()
        if any(pair.key in measured for pair in pairs)
    ]
    return "\n\n".join([*parts, f"### By task\n\n{by_task(records, T5.held_out)}"])


def table(records: Iterable[dict[str, Any]], pairs: Sequence[Pair]) -> str:
    """A line for each method over these tasks."""
    records = [each for each in records if each["cell"]["task"] in {pair.key for pair in pairs}]
    lines = [
        f"| method | exact match (95 %) | minus {REFERENCE} (95 %) | sd | evaluations | rows | CPU s | MiB | cells |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    reference = values(records, REFERENCE)
    for method in METHODS:
        found = values(records, method)
        if found:
            lines.append(_line(method, found, reference, costs(records, method)))
    return "\n".join(lines)


def _line(method: str, found: Values, reference: Values, cost: dict[str, float]) -> str:
    cells = sum(len(each) for each in found.values())
    gained = paired(found, reference) if method != REFERENCE else {}
    evaluations, rows = (
        f"{cost[name]:.0f}" if cost["evaluations"] else "" for name in ("evaluations", "rows")
    )
    seconds = f"{cost['cpu_s']:.1f}" if cost["cpu_s"] else ""
    memory = f"{cost['peak_mib']:.0f}" if cost["peak_mib"] else ""
    difference = _with_interval(gained, sign=True) if gained else ""
    return (
        f"| {method} | {_with_interval(found)} | {difference} | {spread(found)} "
        f"| {evaluations} | {rows} | {seconds} | {memory} | {cells} |"
    )


def values(records: Iterable[dict[str, Any]], method: str) -> Values:
    """What a method reached, by task and then by draw and pool."""
    found: Values = defaultdict(dict)
    for record in records:
        if method in record["found"]:
            cell, one = record["cell"], record["found"][method]
            found[cell["task"]][cell["draw"], cell["pool"]] = one["right"] / one["n"]
    return dict(found)


def costs(records: Iterable[dict[str, Any]], method: str) -> dict[str, float]:
    """Means over the cells; of memory the least, since the process of a cell keeps what earlier ones loaded."""
    found = [record["found"][method] for record in records if method in record["found"]]
    means = {name: mean(each[name] for each in found) for name in COSTS}
    return {**means, "peak_mib": min(each["peak_mib"] for each in found)}


def paired(found: Values, reference: Values) -> Values:
    """Differences cell by cell; where a method has no pool, or no draw, against the mean over the reference's."""
    gained: Values = defaultdict(dict)
    for task, cells in found.items():
        for (draw, pool), value in cells.items():
            others = [
                other
                for (its_draw, its_pool), other in reference.get(task, {}).items()
                if (not draw or draw == its_draw) and (not pool or pool == its_pool)
            ]
            if others:
                gained[task][draw, pool] = value - mean(others)
    return dict(gained)


def spread(found: Values) -> str:
    """Standard deviation over draws and pools within a task, averaged over the tasks."""
    within = [stdev(cells.values()) for cells in found.values() if len(cells) > 1]
    return f"{mean(within):.2f}" if within else ""


def interval(found: Values, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over tasks: tasks drawn with replacement, then cells within each."""
    generator = np.random.default_rng(seed)
    tasks = [np.array(list(cells.values())) for cells in found.values()]
    means = []
    for _ in range(RESAMPLES):
        drawn = [tasks[index] for index in generator.integers(len(tasks), size=len(tasks))]
        means.append(np.mean([generator.choice(cells, size=len(cells)).mean() for cells in drawn]))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _with_interval(found: Values, *, sign: bool = False) -> str:
    middle = mean(mean(cells.values()) for cells in found.values())
    low, high = interval(found)
    form = "+.2f" if sign else ".2f"
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def by_task(records: Sequence[dict[str, Any]], pairs: Sequence[Pair]) -> str:
    """A line for each task: means over draws and pools."""
    shown = [
        REFERENCE,
        "auto",
        "gradient",
        "auto, all modules",
        "auto, 100 irrelevant more",
        "gradient, all modules",
    ]
    found = {method: values(records, method) for method in shown}
    shown = [method for method in shown if found[method]]
    lines = [f"| held-out task | {' | '.join(shown)} |", f"| --- |{' ---: |' * len(shown)}"]
    for pair in pairs:
        cells = [found[method].get(pair.key) for method in shown]
        if not any(cells):
            continue
        said = " | ".join(f"{mean(each.values()):.2f}" if each else "" for each in cells)
        lines.append(f"| {pair.key} | {said} |")
    return "\n".join(lines)


def curve(records: Sequence[dict[str, Any]]) -> str:
    """A line for each method, a column for each number of examples."""
    counts = sorted({record["cell"]["shots"] for record in records})
    lines = [f"| method | {' | '.join(map(str, counts))} |", f"| --- |{' ---: |' * len(counts)}"]
    for method in METHODS:
        cells = [
            values([record for record in records if record["cell"]["shots"] == count], method)
            for count in counts
        ]
        if any(cells):
            said = " | ".join(_with_interval(each) if each else "" for each in cells)
            lines.append(f"| {method} | {said} |")
    return "\n".join(lines)
