"""Which cells there are, in an order in which every beginning is a balanced bench."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.quality.cells import Cell
from benchmarks.quality.modules import POOLS
from demo.collection import T5, Base
from demo.stories import Pair

DRAWS = (1, 2, 3, 4, 5)


def tuning(base: Base) -> list[Pair]:
    """The held-out tasks on which methods may be adjusted."""
    return list(base.held_out[0::2])


def reporting(base: Base) -> list[Pair]:
    """The held-out tasks whose figures are claimed."""
    return list(base.held_out[1::2])


def main_cells(rows: int) -> Iterator[Cell]:
    """The T5's: reporting tasks first, then the others; every round pairs each draw with another pool."""
    for pair in T5.held_out:
        for pool in POOLS:
            yield Cell(T5.id, pair.key, "static", 0, pool, rows=rows)
    for turn in range(len(POOLS)):
        for pairs in (reporting(T5), tuning(T5)):
            for draw in DRAWS:
                pool = POOLS[(draw - 1 + turn) % len(POOLS)]
                for group in (
                    "lorahub",
                    "auto",
                    "gradient" if turn < 2 else "",
                    "lorahub-200" if turn < 2 else "",
                ):
                    if group:
                        yield from (Cell(T5.id, pair.key, group, draw, pool, rows=rows) for pair in pairs)
            if turn == 0:
                yield from _without_pool(pairs, rows)


def _without_pool(pairs: list[Pair], rows: int) -> Iterator[Cell]:
    for draw in DRAWS:
        for group in ("auto-all", "crowd", "gradient-all", "controls"):
            if group == "auto-all" or draw <= 2:
                yield from (Cell(T5.id, pair.key, group, draw, 0, rows=rows) for pair in pairs)


def causal_cells(base: Base, rows: int) -> Iterator[Cell]:
    """The causal twin's few tasks: all its modules are one pool."""
    for pair in base.held_out:
        yield Cell(base.id, pair.key, "static", 0, 1, rows=rows)
        for draw in DRAWS:
            for group in ("lorahub", "auto-all", "gradient-all"):
                yield Cell(base.id, pair.key, group, draw, int(group == "lorahub"), rows=rows)


def curve_cells(rows: int, *, shots: tuple[int, ...] = (5, 20, 100), draws: int = 1) -> Iterator[Cell]:
    """Accuracy over the number of examples, on the reporting tasks."""
    for draw in range(1, draws + 1):
        for count in shots:
            for pair in reporting(T5):
                for group in ("auto-all", "lorahub", "gradient-all"):
                    pool = draw if group == "lorahub" else 0
                    yield Cell(T5.id, pair.key, group, draw, pool, shots=count, rows=rows)
