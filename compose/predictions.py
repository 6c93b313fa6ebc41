"""What the methods wrote for the scored rows: beside what was expected, on a page and in a file."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from compose import charts
from compose.engine.metrics import EXACT_MATCH, METRICS, matches
from compose.models import Composition


@dataclass(frozen=True)
class Word:
    """A piece of an answer; `differs` where the expected text has something else."""

    text: str
    differs: bool


@dataclass(frozen=True)
class Answer:
    """What a method wrote for one row."""

    method: str
    is_right: bool
    value: float  # by the composition's metric
    words: list[Word]


@dataclass(frozen=True)
class PredictionRow:
    input: str
    expected: str
    answers: list[Answer]  # in the order of the table's methods


def compare(method: str, written: str, expected: str, *, metric: str = EXACT_MATCH) -> Answer:
    """An answer in words, those that the expected text does not have at that place marked."""
    value = METRICS[metric].of_row(written, expected)
    if matches(written, expected):
        return Answer(method, is_right=True, value=value, words=[Word(written, differs=False)])
    got, wanted = _pieces(written), _pieces(expected)
    words: list[Word] = []
    # Spaces match beside words alone: each being like every other, they would take most of the time.
    steps = difflib.SequenceMatcher(str.isspace, got, wanted, autojunk=False).get_opcodes()
    shared = "".join("".join(got[start:end]) for kind, start, end, _, _ in steps if kind == "equal")
    if not shared.strip():  # nothing in common: marking every word tells nothing
        words = [Word(written, differs=False)] if written else []
        return Answer(method, is_right=False, value=value, words=words)
    for kind, start, end, _, _ in steps:
        if start < end:
            words.append(Word("".join(got[start:end]), differs=kind != "equal"))
    return Answer(method, is_right=False, value=value, words=words)


def _pieces(text: str) -> list[str]:
    """Words and the spaces between them; of a very long text the rest in one piece, to keep comparing cheap."""
    pieces = re.findall(r"\s+|[^\s]+", text)
    return [*pieces[:400], "".join(pieces[400:])] if len(pieces) > 400 else pieces


def in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """The names of a JSON object, which Postgres keeps in an order of its own; unknown ones last."""
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def predictions_csv(composition: Composition) -> str:
    """Every kept prediction, one column for each method, then what each is worth by the composition's metric.

    Cells that a spreadsheet would run are made text.
    """
    found = composition.predictions[0]["outputs"] if composition.predictions else {}
    methods = in_order(found, [composition.method, *charts.METHOD_LABELS])
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["input", "expected", *methods, *(f"{name} {composition.metric}" for name in methods)])
    for row in valued_predictions(composition):
        cells = [row["input"], row["expected"], *(row["outputs"].get(name, "") for name in methods)]
        values = [row["values"].get(name, "") for name in methods]
        writer.writerow([*(plain_cell(cell) for cell in cells), *values])
    return out.getvalue()


def valued_predictions(composition: Composition) -> list[dict[str, Any]]:
    """Every kept prediction with what each method's answer is worth by the composition's metric, in `values`."""
    of_row = METRICS[composition.metric].of_row
    return [
        {**row, "values": {name: of_row(text, row["expected"]) for name, text in row["outputs"].items()}}
        for row in composition.predictions
    ]


def plain_cell(text: str) -> str:
    """Text that a spreadsheet shows and never computes: a leading =, +, -, @, tab or return gets an apostrophe."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
