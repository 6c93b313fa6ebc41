"""LoraHub's own protocol: 27 BIG-Bench Hard tasks, 20 random modules, 5 examples, 40 trials, seeds 1 to 5.

    python -m benchmarks.bbh --data data_bbh --base google/flan-t5-large --modules modules.txt --out bbh

`--data` is a folder of tasks, each with example.jsonl and zero_shot.jsonl of {"context", "completion"} (LoraHub's
data_bbh). `--modules` is a text file with one Hub id or local folder a line, in the order of LoraHub's own list, since
the seed draws from that order; the released package has it:

    pip install --no-deps --target reference lorahub==0.1.0
    python -c "exec(open('reference/lorahub/constant.py').read()); print(*LORA_MODULE_NAMES, sep='\\n')" > modules.txt

What is on the Hub is fetched once (HF_ENDPOINT says from where). Every task, seed and method is a file in --out; those
that are there are not run again, so the command may be stopped and started at will.
Source: Huang et al. 2023, arXiv:2307.13269; github.com/sail-sg/lorahub, reproduce_bbh.py.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from compose.engine import run
from compose.engine.errors import EngineError
from compose.engine.methods import METHODS, method_named
from compose.engine.mixing import EXACT
from compose.engine.types import Example, Module, Request
from compose.engine.warm import WarmCache

EXAMPLES = 5
POOL = 20
BUDGET = 40
SEEDS = (1, 2, 3, 4, 5)
EXAMPLE_SEED = 42  # the released code shuffles the examples with this one, whatever the pool's seed
SEARCH_SEED = 42  # the default of the released `lorahub_learning`
# Means over the 27 tasks in the paper's table, exact match in percent, FLAN-T5-large.
PUBLISHED = {"zero_shot": 27.0, "in_context": 37.3, "lorahub": 34.7, "lorahub, best seed of each task": 41.2}
UNIFORM_EXACT = "uniform, exact mix"
MODULE_FILES = ("adapter_config.json", "adapter_model.safetensors")
BASE_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the table."""
    options = _parser().parse_args(arguments)
    tasks = read_tasks(options.data, only=options.tasks, rows=options.rows)
    names = [line.strip() for line in options.modules.read_text().splitlines() if line.strip()]
    if len(names) < POOL:
        raise SystemExit(f"{options.modules} names {len(names)} modules; a pool is drawn of {POOL}.")
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [(task, seed, method) for task in tasks for seed in options.seeds for method in options.methods]
    missing = [job for job in jobs if not _file(options.out, *job).exists()]
    print(f"{len(jobs)} compositions, {len(jobs) - len(missing)} of them done before.", file=sys.stderr)
    if missing:
        runner = Runner(options.base, names, options.out, device=options.device, cache_gib=options.cache_gib)
        for task, seed, method in missing:
            runner.run(task, seed, method)
    report = summary(options.out, tasks, options.seeds, options.methods)
    (options.out / "summary.json").write_text(json.dumps(report, indent=1) + "\n")
    print(as_markdown(report))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--base", required=True, help="Hub id or local folder")
    parser.add_argument("--modules", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--methods", nargs="+", default=["lorahub", "auto"])
    parser.add_argument("--rows", type=int, help="only the first test rows of each task: a rehearsal")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache-gib", type=float, default=16.0, help="bases and modules kept in memory")
    return parser


@dataclass(frozen=True)
class Task:
    """Five examples, always the same, and the test rows."""

    name: str
    examples: tuple[Example, ...]
    test: tuple[Example, ...]


def read_tasks(folder: Path, *, only: Sequence[str] | None = None, rows: int | None = None) -> list[Task]:
    """Every task of the folder, or those named; exits with a sentence for one that cannot be read."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    unknown = [name for name in only or () if name not in names]
    if unknown or not names:
        raise SystemExit(f"There is no task {', '.join(unknown) or 'at all'} in {folder}.")
    return [_read_task(folder / name, rows) for name in only or names]


def _read_task(folder: Path, rows: int | None) -> Task:
    shown = _read_rows(folder / "example.jsonl")
    random.Random(EXAMPLE_SEED).shuffle(shown)
    return Task(folder.name, tuple(shown[:EXAMPLES]), tuple(_read_rows(folder / "zero_shot.jsonl")[:rows]))


def _read_rows(path: Path) -> list[Example]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [Example(row["context"], row["completion"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f'{path} is not JSON lines of "context" and "completion": {error!r}') from error


def pool(names: Sequence[str], seed: int) -> list[str]:
    """The modules the released code draws for this seed."""
    return random.Random(seed).sample(list(names), POOL)


class Runner:
    """Composes one task after the other on the same base, which stays in memory."""

    def __init__(self, base: str, names: list[str], out: Path, *, device: str, cache_gib: float) -> None:
        self._base = _fetched(base, BASE_FILES)
        self._names = names
        self._out = out
        self._device = device
        self._warm = WarmCache(limit_bytes=int(cache_gib * 2**30))

    def run(self, task: Task, seed: int, method: str) -> None:
        """Compose, and write what came of it; a refusal of the engine is written down as one."""
        modules = tuple(Module(name, _fetched(name, MODULE_FILES)) for name in pool(self._names, seed))
        request = Request(
            base=self._base,
            modules=modules,
            examples=task.examples,
            test=task.test,
            method=method,
            budget=BUDGET if method == "lorahub" else method_named(method).usual_budget,
            seed=SEARCH_SEED,
            device=self._device,
        )
        found: dict[str, Any] = {"task": task.name, "seed": seed, "method": method}
        try:
            result = run.compose(request, warm=self._warm)
        except EngineError as error:
            found["refused"] = error.message
        else:
            found |= {
                "scores": {score.method: 100 * score.value for score in result.scores},
                "option_scores": asdict(result.option_scores) if result.option_scores else None,
                "rows": len(task.test),
                "trials": len(result.trials),
                "weights": result.mixing_weights,
                "modules": result.modules,
                "seconds": result.seconds,
                "versions": result.versions,
            }
        file = _file(self._out, task, seed, method)
        written = file.with_suffix(".part")
        written.write_text(json.dumps(found) + "\n")
        written.replace(file)  # so that a file that is there is whole
        print(f"{task.name}, seed {seed}, {method}: {_in_short(found)}", file=sys.stderr)


def _fetched(name: str, files: Sequence[str]) -> Path:
    """The local folder, or the snapshot of the Hub's repository, fetched at the first time only."""
    return Path(name) if Path(name).is_dir() else Path(snapshot_download(name, allow_patterns=list(files)))


def _file(out: Path, task: Task, seed: int, method: str) -> Path:
    return out / f"{task.name}.{seed}.{method}.json"


def _in_short(found: dict[str, Any]) -> str:
    return found.get("refused") or f"{found['scores'][found['method']]:.1f} of 100"


# --- The table -------------------------------------------------------------------------------------------------


def summary(out: Path, tasks: Sequence[Task], seeds: Sequence[int], methods: Sequence[str]) -> dict[str, Any]:
    """For every task and column the mean over the seeds and the best seed; means over the tasks that have them."""
    rows = {task.name: _task_row(list(_found(out, task, seeds, methods))) for task in tasks}
    columns = sorted({column for row in rows.values() for column in row["mean"]}, key=_column_order)
    means = {
        column: statistics.mean(row["mean"][column] for row in rows.values() if column in row["mean"])
        for column in columns
    }
    bests = {
        method: statistics.mean(row["best"][method] for row in rows.values() if method in row["best"])
        for method in methods
        if any(method in row["best"] for row in rows.values())
    }
    refused = [sentence for row in rows.values() for sentence in row["refused"]]
    return {
        "tasks": rows,
        "columns": columns,
        "means": means,
        "bests": bests,
        "published": PUBLISHED,
        "test_rows": sum(len(task.test) for task in tasks),
        "seeds": list(seeds),
        "refused": refused,
    }


def _found(out: Path, task: Task, seeds: Sequence[int], methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    for seed in seeds:
        for method in methods:
            yield json.loads(_file(out, task, seed, method).read_text())


def _task_row(found: list[dict[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.get("scores", {}).items():
            # Beside another method LoraHub runs as well: the same search, counted once.
            if name in METHODS and name != one["method"]:
                continue
            # The average mixes as the method does it stands beside.
            is_exact = name == "uniform" and METHODS[one["method"]].mix == EXACT
            values.setdefault(UNIFORM_EXACT if is_exact else name, []).append(value)
    return {
        "mean": {name: statistics.mean(each) for name, each in values.items()},
        "best": {name: max(each) for name, each in values.items()},
        "refused": [
            f"{one['task']}, seed {one['seed']}: {one['refused']}" for one in found if "refused" in one
        ],
    }


def _column_order(name: str) -> tuple[int, str]:
    order = ("zero_shot", "in_context", "best_single", "uniform", UNIFORM_EXACT, *METHODS)
    return (order.index(name) if name in order else len(order)), name


def as_markdown(report: dict[str, Any]) -> str:
    """The table, with the published means below ours."""
    columns = report["columns"]
    lines = [
        f"Exact match in percent, mean over seeds {', '.join(map(str, report['seeds']))}; {report['test_rows']} test rows.",
        "",
        "| task | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for task, row in report["tasks"].items():
        cells = [f"{row['mean'][column]:.1f}" if column in row["mean"] else "–" for column in columns]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    means = [f"{report['means'][column]:.1f}" for column in columns]
    published = [
        f"{report['published'][column]:.1f}" if column in report["published"] else "–" for column in columns
    ]
    lines += [
        "| **mean** | " + " | ".join(means) + " |",
        "| published (FLAN-T5-large, 196 modules) | " + " | ".join(published) + " |",
        "",
    ]
    best = PUBLISHED["lorahub, best seed of each task"]
    for method, value in report["bests"].items():
        beside = f", published {best:.1f}" if method == "lorahub" else ""
        lines.append(f"Best seed of each task, chosen by test rows: {method} {value:.1f}{beside}.")
    return "\n".join([*lines, *(f"Refused: {sentence}" for sentence in report["refused"])])


if __name__ == "__main__":
    main()
