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
    for pairs in (reporting(T5), tuning(T5)):
        yield from _round(pairs, 0, ("lorahub", "auto"), rows)
        yield from _without_pool(pairs, "auto-all", DRAWS, rows)
        yield from _without_pool(pairs, "in-context", DRAWS, rows)
        for group in ("crowd", "controls", "gradient-all"):
            yield from _without_pool(pairs, group, DRAWS[:1], rows)
        for pool in POOLS:
            yield from (Cell(T5.id, pair.key, "static", 0, pool, rows=rows) for pair in pairs)
    for turn in range(1, len(POOLS)):
        for pairs in (reporting(T5), tuning(T5)):
            yield from _round(pairs, turn, ("lorahub", "auto"), rows)
    for pairs in (reporting(T5), tuning(T5)):
        yield from _round(pairs, 0, ("lorahub-200", "gradient"), rows)
        for group in ("crowd", "controls", "gradient-all"):
            yield from _without_pool(pairs, group, DRAWS[1:], rows)


def _round(pairs: list[Pair], turn: int, groups: tuple[str, ...], rows: int) -> Iterator[Cell]:
    """Every draw with one pool each; five rounds pair every draw with every pool."""
    for draw in DRAWS:
        pool = POOLS[(draw - 1 + turn) % len(POOLS)]
        for pair in pairs:
            yield from (Cell(T5.id, pair.key, group, draw, pool, rows=rows) for group in groups)


def _without_pool(pairs: list[Pair], group: str, draws: tuple[int, ...], rows: int) -> Iterator[Cell]:
    for draw in draws:
        yield from (Cell(T5.id, pair.key, group, draw, 0, rows=rows) for pair in pairs)


def causal_cells(base: Base, rows: int) -> Iterator[Cell]:
    """The causal twin's few tasks: all its modules are one pool."""
    yield from (Cell(base.id, pair.key, "static", 0, 1, rows=rows) for pair in base.held_out)
    for draw in DRAWS:
        for pair in base.held_out:
            for group in ("lorahub", "auto-all", "gradient-all"):
                yield Cell(base.id, pair.key, group, draw, int(group == "lorahub"), rows=rows)


def curve_cells(rows: int, *, shots: tuple[int, ...] = (5, 20, 100), draws: int = 1) -> Iterator[Cell]:
    """Accuracy over the number of examples, on the reporting tasks; with pools where a method takes twenty modules."""
    for draw in range(1, draws + 1):
        for count in shots:
            for pair in reporting(T5):
                for group in ("auto", "lorahub", "gradient", "auto-all", "gradient-all", "lorahub-200"):
                    pool = 0 if group.endswith("-all") else draw
                    yield Cell(T5.id, pair.key, group, draw, pool, shots=count, rows=rows)
                if count < max(shots):  # a hundred are no prompt any more
                    yield Cell(T5.id, pair.key, "in-context", draw, 0, shots=count, rows=rows)
