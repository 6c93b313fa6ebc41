"""A database that does not answer, in words: 503 or 507 instead of "something broke on our side"."""

from __future__ import annotations

import logging

from django.db import InterfaceError, OperationalError

from web.disk import StorageFull
from web.errors import DomainError

logger = logging.getLogger(__name__)
FULL = ("disk is full", "No space left on device")  # SQLite's words, and those that Postgres hands on


class DatabaseAway(DomainError):
    code = "database_away"
    status = 503
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__(
            "The database of this site does not answer. Try again in a moment, and look whether your last change was "
            "kept before you repeat it."
        )


def refusal_of(error: BaseException | None) -> DomainError | None:
    """What to tell about a failed query if it was the database's fault and not the query's; it is logged here."""
    if not isinstance(error, OperationalError | InterfaceError):
        return None
    logger.error("The database does not answer: %s", error)
    return StorageFull() if any(word in str(error) for word in FULL) else DatabaseAway()
