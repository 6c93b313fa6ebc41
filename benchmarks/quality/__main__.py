"""How well the methods compose, on the demo collection: `python -m benchmarks.quality run`, then `... table`; or `... beside`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.quality import beside, plan, tables
from benchmarks.quality.cells import GROUPS, Cell, Found, measure
from demo.build import prepare_process
from demo.collection import LLAMA, T5

BENCHES = ("main", "causal", "curve")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("command", choices=("run", "table", "beside"))
    parser.add_argument("--record", type=Path, help="JSON lines, one for every cell; a run goes on here")
    parser.add_argument("--bench", choices=BENCHES, default="main")
    parser.add_argument("--rows", type=int, default=100, help="test rows of a cell (default: 100)")
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=list(GROUPS), help="only these")
    parser.add_argument(
        "--half", choices=("reporting", "tuning"), help="only this half of the main bench's held-out tasks"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes, one thread each (default: 1)")
    parser.add_argument("--share", default="1/1", help="2/3: the second of three runs that share the cells")
    parser.add_argument(
        "--minutes", type=float, default=0.0, help="take no new cell after so many; 0: no limit"
    )
    parser.add_argument("--cells", type=int, default=0, help="only the first so many cells; 0: all")
    parser.add_argument(
        "--reference-venv", type=Path, help="beside: environment of lorahub==0.1.0; made if it is not there"
    )
    parser.add_argument("--threads", type=int, default=2, help="beside: of both sides (default: 2)")
    parser.add_argument("--clock", choices=beside.CLOCKS, default="wall", help="beside: which one")
    parser.add_argument("--tasks", type=int, default=7, help="beside: the first so many (default: 7)")
    options = parser.parse_args(arguments)
    if options.command == "beside":
        if options.reference_venv is None:
            parser.error("beside needs --reference-venv")
        print(
            beside.compare(
                options.reference_venv, threads=options.threads, clock=options.clock, tasks=options.tasks
            )
        )
        return
    if options.record is None:
        parser.error(f"{options.command} needs --record")
    if options.command == "table":
        print(tables.page(options.bench, list(records(options.record))))
        return
    wanted = (cell for cell in cells_of(options.bench, options.rows) if cell.group in options.groups)
    if options.half:
        halves = {"reporting": plan.reporting(T5), "tuning": plan.tuning(T5)}
        tasks = {pair.key for pair in halves[options.half]}
        wanted = (cell for cell in wanted if cell.task in tasks)
    cells = list(islice(wanted, options.cells or None))
    part, parts = (int(number) for number in options.share.split("/"))
    done = {record["key"] for record in records(options.record)}
    missing = [cell for cell in cells[part - 1 :: parts] if cell.key not in done]
    run(missing, options.record, workers=options.workers, seconds=options.minutes * 60 or float("inf"))


def cells_of(bench: str, rows: int) -> Iterator[Cell]:
    """All cells of a bench, in order."""
    if bench == "causal":
        return plan.causal_cells(LLAMA, rows)
    return plan.curve_cells(rows) if bench == "curve" else plan.main_cells(rows)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """What is on record; a line that a kill cut off is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def run(cells: Sequence[Cell], record: Path, *, workers: int, seconds: float) -> None:
    """Measure the cells and write each down as soon as it is done."""
    end = time.monotonic() + seconds
    if workers <= 1:
        prepare_process()
        for number, cell in enumerate(cells, start=1):
            if time.monotonic() > end:
                return
            _write(record, cell, measure(cell), number, len(cells))
        return
    # What another process is to call must not be of this file: it is not imported there under the name it has here.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=prepare_process) as pool:
        waiting = iter(cells)
        running = {pool.submit(measure, cell): cell for cell in islice(waiting, workers * 2)}
        number = 0
        while running:
            finished = next(as_completed(running))
            cell = running.pop(finished)
            number += 1
            _write(record, cell, finished.result(), number, len(cells))
            if time.monotonic() < end:
                running |= {pool.submit(measure, cell): cell for cell in islice(waiting, 1)}


def _write(record: Path, cell: Cell, found: dict[str, Found], number: int, count: int) -> None:
    told = {name: asdict(each) for name, each in found.items()}
    with record.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"key": cell.key, "cell": asdict(cell), "found": told}) + "\n")
    said = ", ".join(f"{name} {each.right}/{each.n}" for name, each in found.items())
    print(
        f"{number} of {count}: {cell.task}, draw {cell.draw}, pool {cell.pool}, {cell.shots} examples: {said}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
