"""Folding the matrices of a base model: layers that only differ by their number become one line.

`{"model.layers.{0..31}.self_attn.q_proj": [4096, 4096]}` stands for 32 matrices.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

MAX_MATRICES = 200_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")

Segment = str | range


def fold(matrices: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The same matrices with runs of layer numbers written as `{first..last}`; see `expand`."""
    entries: dict[tuple[Segment, ...], tuple[int, ...]] = {
        tuple(_segment(part) for part in path.split(".")): tuple(size) for path, size in matrices.items()
    }
    for position in range(max((len(path) for path in entries), default=0)):
        entries = dict(_fold_position(entries, position))
    return {".".join(map(_written, path)): list(size) for path, size in entries.items()}


def _segment(part: str) -> Segment:
    return range(int(part), int(part) + 1) if part.isdecimal() and str(int(part)) == part else part


def _written(segment: Segment) -> str:
    if isinstance(segment, str):
        return segment
    return str(segment.start) if len(segment) == 1 else f"{{{segment.start}..{segment.stop - 1}}}"


def _fold_position(
    entries: Mapping[tuple[Segment, ...], tuple[int, ...]], position: int
) -> Iterator[tuple[tuple[Segment, ...], tuple[int, ...]]]:
    groups: dict[tuple, list[range]] = defaultdict(list)
    for path, size in entries.items():
        number = path[position] if position < len(path) else ""
        if isinstance(number, range):
            groups[path[:position], path[position + 1 :], size].append(number)
        else:
            yield path, size
    for (before, after, size), numbers in groups.items():
        for run in _runs(sorted(numbers, key=lambda one: one.start)):
            yield (*before, run, *after), size


def _runs(numbers: list[range]) -> Iterator[range]:
    run = numbers[0]
    for number in numbers[1:]:
        if number.start == run.stop:
            run = range(run.start, number.stop)
        else:
            yield run
            run = number
    yield run


def expand(folded: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Full module path -> (in, out) for everything that `fold` folded. Raises ValueError beyond 200,000 matrices."""
    matrices: dict[str, tuple[int, int]] = {}
    for pattern, (in_features, out_features) in folded.items():
        ranges = [range(int(first), int(last) + 1) for first, last in _RANGE.findall(pattern)]
        template = _RANGE.sub("{}", pattern)
        for numbers in itertools.product(*ranges):
            matrices[template.format(*numbers)] = (in_features, out_features)
            if len(matrices) > MAX_MATRICES:
                raise ValueError(f"more than {MAX_MATRICES:,} matrices")
    return matrices
