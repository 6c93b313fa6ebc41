"""Who has a word, on Postgres: lists written down from time to time, and what changed since from the text index.

A GIN index knows which rows have a word, but not whose they are: for a word that most of a million adapters have it
reads the whole table. A list holds the adapters' ids themselves. It is as old as the mark beside it, a transaction id;
texts that were written in or after that transaction are asked anew, so answers are those of this moment. Where no lists
have been written yet, every text is one that changed since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from django.db import transaction
from numpy.typing import NDArray

Ids = NDArray[np.int64]

# Ids are handed over as they lie in the list, 4 bytes each; an array of positions by id is kept in memory anyway.
TABLES = """
CREATE TABLE IF NOT EXISTS registry_postingmark (mark bigint NOT NULL);
CREATE TABLE IF NOT EXISTS registry_posting (is_name boolean NOT NULL, word text COLLATE "C" NOT NULL, ids bytea NOT NULL);
ALTER TABLE registry_posting ALTER COLUMN ids SET STORAGE EXTERNAL;
CREATE INDEX IF NOT EXISTS posting_of_word ON registry_posting (is_name, word);
CREATE INDEX IF NOT EXISTS posting_of_name_word ON registry_posting (word) WHERE is_name AND word ~ '[^0-9]';
"""
WRITTEN_AFTER = 2000  # changed texts: so many are looked through in some milliseconds
ADAPTERS_AT_ONCE = 100_000  # bounds what the writing sorts; a word has as many lists
WRITERS = 4_317_205  # an advisory lock of our own: one writes at a time
_IDS = "string_agg(int4send(adapter_id::int), ''::bytea)"


@dataclass(frozen=True)
class Wanted:
    """Words for both ways of asking: as a tsquery, and as a condition on a list's word with its parameter."""

    words: Sequence[str]
    query: str
    names_only: bool
    condition: str
    parameter: str | list[str]


def who_has(connection: Any, wanted: Wanted, *, among: Ids | None = None) -> Ids:
    """Ids of the adapters, all or `among` some, that have what is wanted; in no order."""
    column = "names_document" if wanted.names_only else "document"
    has_it = f"{column} @@ to_tsquery('simple', %s)"
    if among is not None:
        statement = f"SELECT {_IDS} FROM registry_adaptertext WHERE {has_it} AND adapter_id = ANY(%s)"  # noqa: S608
        return _fetch(connection, statement, [wanted.query, among.tolist()])[0]
    mark, listed = _listed(connection, wanted)
    if mark is None:
        statement = f"SELECT {_IDS} FROM registry_adaptertext WHERE {has_it}"  # noqa: S608
        return _fetch(connection, statement, [wanted.query])[0]
    statement = (
        f"SELECT {_IDS}, {_IDS} FILTER (WHERE {has_it}) FROM registry_adaptertext WHERE changed_in >= %s"  # noqa: S608
    )
    changed, now = _fetch(connection, statement, [wanted.query, mark])
    if len(changed):
        listed = listed[~np.isin(listed, changed)]
    return np.concatenate([listed, now])


def _listed(connection: Any, wanted: Wanted) -> tuple[int | None, Ids]:
    """The mark of the lists and who was in those wanted; None if there are none, or none for words like these."""
    # One statement, so that lists and mark are of one writing. A word that Postgres takes apart, as it does "x²", is in
    # no list as it stands.
    statement = (
        "SELECT (SELECT max(mark) FROM registry_postingmark "  # noqa: S608
        "WHERE tsvector_to_array(to_tsvector('simple', %s)) @> %s::text[]), (SELECT string_agg(ids, ''::bytea) "
        f"FROM registry_posting WHERE is_name = %s AND {wanted.condition})"
    )
    words = wanted.words
    connection.ensure_connection()
    # Not through Django's cursor, which takes text alone: in it, every byte travels as two.
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(
            statement,
            [" ".join(words), list(words), wanted.names_only, wanted.parameter],
            prepare=False,
            binary=True,
        )
        row = cursor.fetchone()
    mark, packed = row or (None, None)
    return mark, _unpacked(packed)


def name_words(connection: Any) -> list[str]:
    """Every word of a name that is not all digits; some may be in none any more."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT word FROM registry_posting WHERE is_name AND word ~ '[^0-9]' UNION "
            "SELECT DISTINCT word FROM registry_adaptertext, unnest(tsvector_to_array(names_document)) word "
            "WHERE changed_in >= (SELECT coalesce(max(mark), 0) FROM registry_postingmark) AND word ~ '[^0-9]'"
        )
        return [word for (word,) in cursor.fetchall()]


def write(connection: Any, *, after: int | None = None) -> bool:
    """Write all lists anew if `after` texts (WRITTEN_AFTER unless given) have changed since; whether it was done."""
    after = WRITTEN_AFTER if after is None else after
    few = "SELECT count(*) FROM (SELECT FROM registry_adaptertext WHERE changed_in >= %s LIMIT %s) few"
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [WRITERS])
        (is_ours,) = cursor.fetchone()
        # The mark before the lists: they may know of later transactions, but know all that ended before it.
        cursor.execute(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, "
            "(SELECT coalesce(max(mark), 0) FROM registry_postingmark), "
            "(SELECT coalesce(max(adapter_id), 0) FROM registry_adaptertext)"
        )
        mark, last_mark, highest = cursor.fetchone()
        cursor.execute(few, [last_mark, after])
        if not is_ours or cursor.fetchone()[0] < after:
            return False
        # Grouping by sorting: a hash table of growing lists would leave its bounds.
        cursor.execute("SET LOCAL enable_hashagg = off; SET LOCAL work_mem = '128MB'")
        cursor.execute("DELETE FROM registry_posting; DELETE FROM registry_postingmark")
        for start in range(0, highest + 1, ADAPTERS_AT_ONCE):
            for is_name, column in ((True, "names_document"), (False, "document")):
                cursor.execute(
                    "INSERT INTO registry_posting (is_name, word, ids) "  # noqa: S608 - column names of ours
                    f'SELECT %s, word COLLATE "C", {_IDS} FROM registry_adaptertext, '
                    f"unnest(tsvector_to_array({column})) word WHERE adapter_id >= %s AND adapter_id < %s GROUP BY 2",
                    [is_name, start, start + ADAPTERS_AT_ONCE],
                )
        cursor.execute("INSERT INTO registry_postingmark (mark) VALUES (%s)", [mark])
    with connection.cursor() as cursor:
        # Without figures the planner would read every text to find the few that changed.
        cursor.execute("ANALYZE registry_posting, registry_adaptertext (changed_in)")
    return True


def _fetch(connection: Any, statement: str, params: list[Any]) -> list[Ids]:
    """The columns of packed ids in the one row, without a Python object for each id: there may be a million."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return [_unpacked(packed) for packed in cursor.fetchone()]


def _unpacked(packed: bytes | None) -> Ids:
    return np.frombuffer(packed or b"", dtype=">i4").astype(np.int64)
