"""The quality bench: a balanced plan, a record it goes on from, tables that add up, and one cell for real."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import __main__ as quality
from benchmarks.quality import beside, modules, plan, tables
from benchmarks.quality.beside import Took, as_markdown
from benchmarks.quality.cells import Cell, Found, measure, shuffled
from compose.engine.types import Example
from demo import table
from demo.collection import T5


def record(task: str, draw: int, pool: int, **right: int) -> dict:
    names = {"lorahub": "lorahub, 40", "auto": "auto", "whole": "auto, all modules"}
    found = {
        names[name]: {
            "right": hits,
            "n": 10,
            "evaluations": 40,
            "rows": 200,
            "cpu_s": 1.5,
            "peak_mib": 300.0,
            "loss": 0.1,
        }
        for name, hits in right.items()
    }
    return {
        "key": f"{task}{draw}{pool}{right}",
        "cell": Cell("b", task, "g", draw, pool).__dict__,
        "found": found,
    }


def test_every_draw_meets_every_pool_once_and_any_beginning_is_spread_evenly():
    cells = [cell for cell in plan.main_cells(100) if cell.group == "auto"]
    assert len({cell.key for cell in cells}) == len(cells) == 14 * 5 * 5
    beginning = Counter((cell.draw, cell.pool) for cell in cells[:35])
    assert beginning == Counter({(number, number): 7 for number in range(1, 6)})


def test_methods_are_not_adjusted_on_the_tasks_they_report():
    assert not {pair.key for pair in plan.tuning(T5)} & {pair.key for pair in plan.reporting(T5)}
    assert len(plan.tuning(T5)) == len(plan.reporting(T5)) == 7


def test_other_settings_of_a_method_make_another_cell(monkeypatch: pytest.MonkeyPatch):
    searched, fixed = Cell("b", "t", "auto", 1, 1), Cell("b", "t", "lorahub", 1, 1)
    before = searched.key, fixed.key
    monkeypatch.setattr("compose.engine.auto.L1_PENALTY", 0.5)
    assert searched.key != before[0]
    assert fixed.key == before[1]


def test_the_half_that_methods_are_adjusted_on_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks: set[str] = set()

    def note_the_task(cell: Cell) -> dict:
        tasks.add(cell.task)
        return {}

    monkeypatch.setattr(quality, "measure", note_the_task)
    quality.main(["run", "--record", str(tmp_path / "r"), "--half", "reporting", "--groups", "static"])
    assert tasks == {pair.key for pair in plan.reporting(T5)}


def record_measuring(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measure nothing; the keys of the cells that would have been."""
    measured: list[str] = []

    def measure_nothing(cell: Cell) -> dict:
        measured.append(cell.key)
        return {}

    monkeypatch.setattr(quality, "measure", measure_nothing)
    return measured


def test_a_run_goes_on_where_the_record_ends_and_a_cut_off_line_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measured = record_measuring(monkeypatch)
    lines = tmp_path / "record.jsonl"
    quality.main(["run", "--record", str(lines), "--cells", "3"])
    lines.write_text(lines.read_text()[:-20] + "\n", encoding="utf-8")
    quality.main(["run", "--record", str(lines), "--cells", "5"])
    assert len(measured) == 3 + 3
    assert measured[2] == measured[3]


def test_shares_of_a_run_split_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measured = record_measuring(monkeypatch)
    for share in ("1/2", "2/2"):
        quality.main(["run", "--record", str(tmp_path / "r"), "--cells", "5", "--share", share])
    assert len(set(measured)) == len(measured) == 5


def test_differences_are_paired_by_draw_and_pool_or_with_the_mean_over_pools():
    records = [record("t", 1, 1, lorahub=2, auto=9), record("t", 1, 2, lorahub=4, auto=8)]
    records.append(record("t", 1, 0, whole=10))
    reference = tables.values(records, "lorahub, 40")
    by_pool = tables.paired(tables.values(records, "auto"), reference)
    whole = tables.paired(tables.values(records, "auto, all modules"), reference)
    assert by_pool["t"] == pytest.approx({(1, 1): 0.7, (1, 2): 0.4})
    assert whole["t"] == pytest.approx({(1, 0): 0.7})


def test_a_line_tells_mean_interval_difference_spread_and_cost():
    pair = T5.held_out[0]
    records = [record(pair.key, draw, 1, lorahub=1, auto=7 + draw % 2) for draw in (1, 2)]
    line = next(line for line in tables.table(records, [pair]).splitlines() if line.startswith("| auto |"))
    assert line == "| auto | 0.75 (0.70 to 0.80) | +0.65 (+0.60 to +0.70) | 0.07 | 40 | 200 | 1.5 | 300 | 2 |"


def test_shuffled_labels_leave_no_example_its_own_answer():
    examples = [Example(str(number), f"answer {number}") for number in range(5)]
    for before, after in zip(examples, shuffled(examples), strict=True):
        assert before.input == after.input
        assert before.output != after.output


def test_modules_that_know_nothing_are_as_large_as_the_real_ones():
    [real] = modules.loaded(T5)[:1]
    [random] = modules.random_like([real], seed="a")
    [permuted] = modules.permuted_like([real], seed="a")
    for path, factors in real.factors.items():
        change = factors.b @ factors.a
        for other in (random.factors[path], permuted.factors[path]):
            assert float((other.b @ other.a).norm()) == pytest.approx(float(change.norm()), rel=1e-4)
            assert ((other.b @ other.a) * change).sum().abs() < 0.2 * change.norm() ** 2


def test_a_cell_tells_what_its_search_took():
    found = measure(Cell(T5.id, T5.held_out[0].key, "lorahub", 1, 1, rows=2))
    assert set(found) == {"lorahub, 40", "best single"}
    assert found["lorahub, 40"].evaluations == 40
    assert found["best single"].cpu_s > 0
    if sys.platform == "linux":
        assert 50 < found["lorahub, 40"].peak_mib < 10_000


def test_one_cell_of_the_bench_runs_with_the_merges_of_peft():
    found = measure(Cell(T5.id, T5.held_out[0].key, "static", 0, 1, rows=2))
    assert set(found) == {"zero-shot", "uniform", *(f"PEFT {way}" for way in modules.PEFT_MERGES)}
    assert {each.n for each in found.values()} == {2}
    json.dumps({name: each.__dict__ for name, each in found.items()})


def test_the_clock_table_has_medians_of_seconds_and_of_the_ratios():
    ours, theirs = [Took(0.5, 1.0), Took(0.5, 3.0)], [Took(1.0, 1.0), Took(1.0, 2.0)]
    _, _, search, whole = as_markdown(ours, theirs, "cpu s, 2 tasks, 1 threads").splitlines()
    assert search == "| search | 2.00 | 1.50 | 1.25 |"
    assert whole == "| loading and search | 2.50 | 2.50 | 0.96 |"


def test_ours_is_timed_in_loading_and_search():
    examples = table.case(T5, plan.reporting(T5)[0], 1).few_shot
    took = beside._auto(modules.offered(T5)[:2], examples, time.process_time)
    assert took.load_s > 0
    assert took.search_s > 0


def test_other_processes_can_import_what_they_are_to_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A package's `__main__` has another name in a spawned process, so nothing of it can be called there.
    called = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, **_how: Any) -> None:
            super().__init__(workers)

        def submit(self, function: Any, *args: Any) -> Any:  # type: ignore[override]
            called.append(function.__module__)
            return super().submit(dict, auto=Found(1, 2))

    monkeypatch.setattr(quality, "ProcessPoolExecutor", Pool)
    cells = list(plan.main_cells(2))[:7]
    quality.run(cells, tmp_path / "record.jsonl", workers=2, seconds=60)
    written = list(quality.records(tmp_path / "record.jsonl"))
    assert {record["key"] for record in written} == {cell.key for cell in cells}
    assert set(called) == {"benchmarks.quality.cells"}
