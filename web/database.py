"""A database that does not answer, or others who write to the same, in words: 503 or 507 instead of "something broke on our side"."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import IntegrityError, InterfaceError, OperationalError, connections, transaction
from django.db.models import QuerySet

from web.disk import StorageFull
from web.errors import DomainError

logger = logging.getLogger(__name__)
SQLITE_IS_FULL = "disk is full"
POSTGRES_IS_FULL = "53100"  # its words differ: no space left, or fewer bytes written than asked for
# Serialization failure, deadlock, no lock in time; and a row that names one which somebody deleted at this moment, such as the
# account of who writes.
POSTGRES_ENDED_IT_FOR_OTHERS = {"40001", "40P01", "55P03", "23503"}
SQLITE_ENDED_IT_FOR_OTHERS = ("database is locked", "FOREIGN KEY constraint failed")


class DatabaseAway(DomainError):
    code = "database_away"
    status = 503
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__(
            "The database of this site does not answer. Try again in a moment, and look whether your last change was "
            "kept before you repeat it."
        )


class OthersWrite(DomainError):
    code = "others_write"
    status = 503
    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("Others were changing the same at this moment, and went first. Try again.")


def refusal_of(error: BaseException | None) -> DomainError | None:
    """What to tell about a failed query if it was the database's fault and not the query's; it is logged here."""
    if not isinstance(error, OperationalError | InterfaceError | IntegrityError):
        return None
    state = getattr(error.__cause__, "sqlstate", "")
    if state in POSTGRES_ENDED_IT_FOR_OTHERS or any(
        words in str(error) for words in SQLITE_ENDED_IT_FOR_OTHERS
    ):
        logger.error("Others wrote to the same: %s", error)
        return OthersWrite()
    if isinstance(error, IntegrityError):
        return None
    logger.error("The database does not answer: %s", error)
    is_full = SQLITE_IS_FULL in str(error) or state == POSTGRES_IS_FULL
    return StorageFull() if is_full else DatabaseAway()


def keep_from_deletion(rows: QuerySet[Any]) -> None:
    """Nobody deletes these rows before this transaction ends, and they may still be changed. Read them afterwards: one that
    somebody deletes at this moment is waited for, and gone then.

    Whoever deletes takes the row first (`take_for_deletion`), and looks for what uses it after that. SQLite needs nothing: it
    has one writer at a time.
    """
    connection = connections[rows.db]
    if connection.vendor == "postgresql":
        try:
            query, parameters = rows.order_by("pk").values("pk").query.sql_with_params()
        except EmptyResultSet:  # Django sees that there are none without asking, as of `pk__in=[]`
            return
        with connection.cursor() as cursor:
            cursor.execute(f"{query} FOR KEY SHARE", parameters)


def take_for_deletion(rows: QuerySet[Any]) -> None:
    """Before these rows are deleted, inside a transaction: whoever keeps one (`keep_from_deletion`) is waited for."""
    list(rows.select_for_update().order_by("pk").values_list("pk"))


def after_commit(act: Callable[..., object], *arguments: Any) -> None:
    """Call `act` once what is being written is committed. What goes wrong there is logged: what was written stays written, and
    whoever asked for it is told so. So it is for what a sweep makes up for.
    """

    def call() -> None:
        act(*arguments)

    # Django's log line names it; a partial has no name, and the line itself fails.
    call.__qualname__ = act.__qualname__
    transaction.on_commit(call, robust=True)
