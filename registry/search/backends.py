"""What the two databases do for a search, each in its own words: upkeep by triggers, changes, words, likeness.

`of(connection)` is the one for a connection. A backend knows nothing of queries, facets or people: ids go out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Ids = NDArray[np.int64]

# The columns of a search row that are kept in memory, in the order in which they are read.
COLUMNS = (
    "adapter_id", "is_alive", "is_public", "namespace_id", "base_model_id", "task_id", "is_composable", "is_composed",
    "rank", "size_bytes", "created_us", "updated_us", "downloads", "likes", "score", "trending", "usefulness", "uses",
    "license", "language", "targets",
)  # fmt: skip
FETCHED_AT_ONCE = 50_000

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

    def changes(self, connection: Any, since: int) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Rows of COLUMNS that changed in or after `since`, in batches; some may be given that were seen before."""

    def with_words(
        self, connection: Any, words: Sequence[str], *, names_only: bool = False, among: Ids | None = None
    ) -> Ids:
        """Adapters, all or `among` some, whose text (or name) holds a word beginning with each of `words`."""

    def with_similar_names(self, connection: Any, words: Sequence[str]) -> Ids:
        """Adapters whose name holds something like each of `words`."""


def of(connection: Any) -> Backend:
    from registry.search import postgres, sqlite

    backend: Backend = postgres.Postgres() if connection.vendor == "postgresql" else sqlite.Sqlite()
    return backend
