"""What happened to a composition, line by line and in words: the page shows it while it happens and afterwards.

The log explains and decides nothing. A line is written after the change it tells of has won and in its transaction, so it
never tells of one that did not happen, and no change is without its line.
"""

from __future__ import annotations

from django.db.models.functions import Now

from compose.models import Composition, LogLine

STAGES = {
    "load": "Loading",
    "audition": "Trying every module alone",
    "search": "Searching",
    "evaluate": "Scoring each method on rows it has not seen",
    "export": "Writing the adapter",
}
CANCELLED = "Cancelled."


def write(composition: Composition, text: str) -> None:
    """One line, of the attempt at hand."""
    LogLine.objects.create(
        composition_id=composition.pk, at=Now(), attempt=composition.attempt, text=text[:300]
    )


def stage(composition: Composition, name: str, note: str) -> None:
    """A stage began."""
    said = STAGES.get(name, name.capitalize())
    write(composition, f"{said}: {note}." if note else f"{said}.")
