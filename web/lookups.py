"""Lookups as our indexes have them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models.lookups import IExact

# SQLite's bound for a pattern, in bytes; above it fails. No text that is looked for by its whole is a tenth as long.
MOST_BYTES = 50_000


class CaselessExact(IExact):
    """`iexact` by LOWER on Postgres: Django asks for UPPER, and every unique index of names here is of LOWER."""

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        # Some bytes are written twice or thrice in a pattern.
        if isinstance(self.rhs, str) and 2 * len(self.rhs.encode("utf-8", "surrogatepass")) > MOST_BYTES:
            raise EmptyResultSet
        sql, params = self.as_sql(compiler, connection)
        return sql, list(params)

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        left, left_params = compiler.compile(self.lhs)
        right, right_params = self.process_rhs(compiler, connection)
        return f"LOWER(({left})::text) = LOWER({right})", [*left_params, *right_params]
