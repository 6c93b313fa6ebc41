"""Every search row out of Postgres at once, as arrays: what a process does before its first search."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from django.db import transaction
from numpy.typing import NDArray
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from registry.search.backends import COLUMNS, FETCHED_AT_ONCE, TEXTS, Batch, Coded, as_batch

# Column -> its type in Postgres, and how numpy reads that. Texts travel as hashes, so that all rows are equally long.
_KINDS = {
    **dict.fromkeys(COLUMNS, ("int8", ">i8")),
    **dict.fromkeys(("is_alive", "is_public", "is_composable", "is_composed"), ("bool", "?")),
    **dict.fromkeys(("score", "trending", "usefulness"), ("float8", ">f8")),
}
# A row in COPY's binary format: the number of fields, then each with its length before it.
_FIELDS: list[tuple[str, str]] = [("fields", ">i2")]
for _name in COLUMNS:
    _FIELDS += [(f"length of {_name}", ">i4"), (_name, _KINDS[_name][1])]
_ROW = np.dtype(_FIELDS)
_HEADER_BYTES, _TRAILER = 19, b"\xff\xff"

Dictionary = tuple[NDArray[np.int64], list[str]]  # hashes in order, and the text of each


def everything(connection: Any) -> Iterator[Batch]:
    """All search rows, in batches."""
    if connection.in_atomic_block:
        yield from _row_by_row(connection)  # what a transaction sees of itself is little, or a test
        return
    with transaction.atomic(using=connection.alias):
        with connection.cursor() as cursor:
            # Rows and dictionaries of one moment.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        dictionaries = {name: _dictionary(connection, name) for name in TEXTS}
        if any(len(np.unique(hashes)) < len(texts) for hashes, texts in dictionaries.values()):
            yield from _row_by_row(connection)  # two texts of one hash
            return
        for rows in _copied(connection):
            batch: Batch = {name: rows[name].astype(_KINDS[name][1].replace(">", "=")) for name in COLUMNS}
            for name, (hashes, texts) in dictionaries.items():
                batch[name] = Coded(np.asarray(np.searchsorted(hashes, batch[name])), texts)
            yield batch


def _dictionary(connection: Any, column: str) -> Dictionary:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT hashtextextended({column}, 0), {column} FROM registry_searchrow GROUP BY {column}"  # noqa: S608
        )
        pairs = sorted(cursor.fetchall())
    return np.array([number for number, _ in pairs], np.int64), [text for _, text in pairs]


def _copied(connection: Any) -> Iterator[NDArray[Any]]:
    wanted = ", ".join(
        f"hashtextextended({name}, 0)" if name in TEXTS else f"{name}::{_KINDS[name][0]}" for name in COLUMNS
    )
    statement = f"COPY (SELECT {wanted} FROM registry_searchrow) TO STDOUT (FORMAT binary)"  # noqa: S608
    pieces = _pieces(connection, statement.encode())
    left = next(pieces)[_HEADER_BYTES:]  # the header comes with the first row
    while some := b"".join(islice(pieces, FETCHED_AT_ONCE)):
        data = left + some
        count = len(data) // _ROW.itemsize
        left = data[count * _ROW.itemsize :]
        if count:
            yield np.frombuffer(data, _ROW, count)
    if left != _TRAILER:
        raise ValueError("Postgres handed over rows that are not of the expected length.")


def _pieces(connection: Any, statement: bytes) -> Iterator[bytes]:
    """What COPY sends, a row at a time; psycopg's own loop around this takes longer than everything else together."""
    pgconn = connection.connection.pgconn
    with connection.wrap_database_errors:
        result = pgconn.exec_(statement)
        if result.status != ExecStatus.COPY_OUT:
            raise error_from_result(result)
        while True:
            size, piece = pgconn.get_copy_data(0)
            if size <= 0:
                break
            yield bytes(piece)
        while (result := pgconn.get_result()) is not None:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result)


def _row_by_row(connection: Any) -> Iterator[Batch]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM registry_searchrow")  # noqa: S608
        while rows := cursor.fetchmany(FETCHED_AT_ONCE):
            yield as_batch(rows)
