"""What the two databases do for a search, each in its own words: upkeep by triggers, changes, words.

`of(connection)` is the one for a connection. A backend knows nothing of queries, facets or people: ids go out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Ids = NDArray[np.int64]

# The columns of a search row that are kept in memory, in the order in which they are read.
COLUMNS = (
    "adapter_id", "is_alive", "is_public", "namespace_id", "base_model_id", "task_id", "is_composable", "is_composed",
    "rank", "size_bytes", "published_us", "updated_us", "downloads", "likes", "score", "trending", "usefulness", "uses",
    "license", "language", "tag", "targets",
)  # fmt: skip
TEXTS = ("license", "language", "tag", "targets")
LISTS = ("language", "tag")  # of texts with commas between: each text in them is found and counted by itself
FETCHED_AT_ONCE = 50_000


@dataclass(frozen=True)
class Coded:
    """A column of texts: for each row a number, and the text that each number stands for."""

    numbers: NDArray[np.int64]
    texts: Sequence[str]


# Rows by column: name -> a value for each row, a `Coded` for those in TEXTS.
Batch = dict[str, Any]


def as_batch(rows: Sequence[tuple[Any, ...]]) -> Batch:
    """Rows of COLUMNS, at least one, by column."""
    batch: Batch = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    for name in TEXTS:
        numbers = {text: number for number, text in enumerate(dict.fromkeys(batch[name]))}
        batch[name] = Coded(np.array([numbers[text] for text in batch[name]]), list(numbers))
    return batch


# The title of the task `t` among an adapter's words: of what is hidden nobody finds out by searching for it.
TASK_TITLE = "CASE WHEN t.is_private OR t.quarantined_at IS NOT NULL THEN '' ELSE coalesce(t.title, '') END"
# What of a task those words follow.
TASK_COLUMNS = "title, is_private, quarantined_at"
# Column of the search row -> how it follows from the adapter `a`, where both databases have the same words for it.
ROW = {
    "is_alive": "a.deleted_at IS NULL",
    "is_public": "a.deleted_at IS NULL AND a.visibility = 'public' AND a.quarantined_at IS NULL",
    "namespace_id": "a.namespace_id",
    "base_model_id": "coalesce(a.base_model_id, 0)",
    "task_id": "coalesce(a.task_id, 0)",
    "is_composable": "a.is_composable",
    "is_composed": "a.kind = 'composed'",
    "rank": "coalesce(a.rank, -1)",
    "license": "lower(a.license)",
    "language": "lower(a.language)",
    "size_bytes": "a.size_bytes",
    "downloads": "a.downloads",
    "likes": "a.likes",
    "score": "coalesce(a.best_score, -1)",
}


class Backend(Protocol):
    """What a database has to do for the search."""

    def install(self, connection: Any) -> None:
        """Triggers and text indexes, made anew."""

    def remove(self, connection: Any) -> None:
        """Take the triggers away, so that tables can be rebuilt; texts stay."""

    def resync(self, connection: Any) -> None:
        """Write every row and text that differs from what it repeats."""

    def now(self, connection: Any) -> tuple[int, int]:
        """(epoch, mark): `changes` from this mark on finds all that is not visible yet, in the same epoch."""

    def changes(self, connection: Any, since: int) -> Iterator[Batch]:
        """Rows that changed in or after `since`; some may be given that were seen before."""

    def with_word(
        self, connection: Any, word: str, *, names_only: bool = False, among: Ids | None = None
    ) -> Ids:
        """Adapters, all or `among` some, whose text (or name) holds a word beginning with this one."""

    def with_any_of(self, connection: Any, words: Sequence[str], *, among: Ids | None = None) -> Ids:
        """Adapters, all or `among` some, whose name holds one of `words`, whole."""

    def name_words(self, connection: Any) -> list[str]:
        """Every word that is in some name and has anything but digits; some may be in none any more."""

    def write_postings(self, connection: Any) -> bool:
        """Write down anew who has which word, if it is time to; whether it was."""

    def mend(self, connection: Any) -> None:
        """Put right what no longer holds where a database was moved."""


def of(connection: Any) -> Backend:
    from registry.search import postgres, sqlite

    backend: Backend = postgres.Postgres() if connection.vendor == "postgresql" else sqlite.Sqlite()
    return backend
