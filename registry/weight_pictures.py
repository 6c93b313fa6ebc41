"""Weight statistics as pictures: positions in per cent, which templates/registry/_weight_pictures.html draws as SVG.

Two pictures: the norm of every matrix's change by layer, one line for each kind of matrix, and the singular values of
the matrices as shares of the largest, which tell how much of the rank is used.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from registry.models import WeightStatistics

LINES = 8  # kinds of matrices drawn; the others are in the table
COLOURS = 4  # the design's chart colours; kinds beyond them repeat with dashes


@dataclass(frozen=True)
class Line:
    """A drawn line: `points` is an SVG point list in a box of 100 by 100. A single point is drawn as a short line."""

    label: str
    points: str
    colour: int
    is_dashed: bool


@dataclass(frozen=True)
class Picture:
    lines: list[Line]
    low: str
    high: str
    first: str
    last: str


@dataclass(frozen=True)
class Row:
    path: str
    rank: int
    norm: float
    largest: float
    effective_rank: float


@dataclass(frozen=True)
class WeightPictures:
    norms: Picture
    spectra: Picture
    rows: list[Row]
    kinds_left_out: int


def draw(statistics: WeightStatistics) -> WeightPictures | None:
    """The pictures of a revision's weights; None where there are no numbers."""
    matrices = statistics.matrices
    if not matrices:
        return None
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for matrix in matrices:
        kinds[kind_of(matrix["path"])].append(matrix)
    loudest = sorted(kinds, key=lambda kind: -max(matrix["norm"] for matrix in kinds[kind]))
    drawn = sorted(loudest[:LINES])
    return WeightPictures(
        norms=_norms({kind: kinds[kind] for kind in drawn}),
        spectra=_spectra({kind: kinds[kind] for kind in drawn}),
        rows=[_row(matrix) for matrix in matrices],
        kinds_left_out=len(kinds) - len(drawn),
    )


def kind_of(path: str) -> str:
    """A matrix's path without its layer's number: `encoder.block.3.layer.0.SelfAttention.q` -> `encoder SelfAttention.q`."""
    parts = [part for part in path.split(".") if not part.isdigit()]
    tail = ".".join(parts[-2:])
    side = next((part for part in parts if part in {"encoder", "decoder"}), "")
    return f"{side} {tail}".strip()


def layer_of(path: str) -> int:
    found = re.search(r"\.(\d+)\.", f".{path}.")
    return int(found[1]) if found else 0


def effective_rank(values: list[float]) -> float:
    """How many equal directions would be spread as widely: the square of the energies' sum over the sum of squares.

    1 for a change that acts in one direction, the rank for one that uses all its directions alike.
    """
    energies = [value**2 for value in values]
    total = sum(energies)
    return total**2 / sum(energy**2 for energy in energies) if total else 0.0


def _norms(kinds: dict[str, list[dict[str, Any]]]) -> Picture:
    layers = [layer_of(matrix["path"]) for matrices in kinds.values() for matrix in matrices]
    first, last = min(layers), max(layers)
    highest = max(matrix["norm"] for matrices in kinds.values() for matrix in matrices)
    lines = []
    for place, (kind, matrices) in enumerate(kinds.items()):
        by_layer = sorted((layer_of(matrix["path"]), matrix["norm"]) for matrix in matrices)
        points = [
            (_share(layer - first, last - first), norm / highest if highest else 0.0)
            for layer, norm in by_layer
        ]
        lines.append(_line(kind, points, place))
    return Picture(lines, "0", f"{highest:.3g}", f"layer {first}", f"layer {last}" if last > first else "")


def _spectra(kinds: dict[str, list[dict[str, Any]]]) -> Picture:
    """Of each kind the mean over its matrices of each singular value's share of the largest one."""
    longest = max(len(matrix["singular_values"]) for matrices in kinds.values() for matrix in matrices)
    lines = []
    for place, (kind, matrices) in enumerate(kinds.items()):
        spectra = [matrix["singular_values"] for matrix in matrices]
        points = []
        for index in range(max(map(len, spectra))):
            shares = [
                values[index] / values[0] for values in spectra if index < len(values) and values[0] > 0
            ]
            points.append((_share(index, longest - 1), sum(shares) / len(shares) if shares else 0.0))
        lines.append(_line(kind, points, place))
    return Picture(lines, "0", "1", "largest", f"no. {longest}" if longest > 1 else "")


def _line(label: str, points: list[tuple[float, float]], place: int) -> Line:
    """`points` are (across, up), across in per cent and up from 0 to 1."""
    if len(points) == 1:
        points = [(points[0][0] - 2, points[0][1]), (points[0][0] + 2, points[0][1])]
    drawn = " ".join(f"{across:.2f},{98 - 96 * up:.2f}" for across, up in points)
    return Line(label, drawn, place % COLOURS + 1, is_dashed=place >= COLOURS)


def _row(matrix: dict[str, Any]) -> Row:
    values = matrix["singular_values"]
    return Row(
        matrix["path"], matrix["rank"], matrix["norm"], values[0] if values else 0.0, effective_rank(values)
    )


def _share(position: int, length: int) -> float:
    return 1 + 98 * position / length if length else 50.0
