"""How Postgres would answer the questions of a page on a site with very many rows: without reading or sorting all of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


@contextmanager
def plans() -> Iterator[list[str]]:
    """The lines of the plans of whatever is asked inside, which has to be in a transaction."""
    lines: list[str] = []

    def explained(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT"):
            with connection.connection.cursor() as beside:
                lines.extend(line for (line,) in beside.execute(f"EXPLAIN {sql}", params).fetchall())
        return execute(sql, params, many, context)

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
    with connection.execute_wrapper(explained):
        yield lines
