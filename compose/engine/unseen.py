"""Test rows that are among the examples too score nothing; pure Python, so the web side may import it."""

from __future__ import annotations

from collections.abc import Iterable

from compose.engine.types import Example

NONE_UNSEEN = (
    "All test rows are among the examples too, so none could score the result. Give others, or none."
)


def unseen(test_examples: Iterable[Example], examples: Iterable[Example]) -> list[Example]:
    """The test rows whose input is none of the examples': whoever searches on a row has seen it."""
    inputs = {example.input.strip() for example in examples}
    return [row for row in test_examples if row.input.strip() not in inputs]


def said_of_seen(count: int) -> str:
    """That so many test rows are left out."""
    verb, those = ("is", "it counts") if count == 1 else ("are", "they count")
    return f"{count} of the test rows {verb} also among the examples, so {those} for no score."
