"""Lookups as our indexes have them."""

from __future__ import annotations

from typing import Any

from django.db.models.lookups import IExact


class CaselessExact(IExact):
    """`iexact` by LOWER on Postgres: Django asks for UPPER, and every unique index of names here is of LOWER."""

    def as_postgresql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        left, left_params = compiler.compile(self.lhs)
        right, right_params = self.process_rhs(compiler, connection)
        return f"LOWER(({left})::text) = LOWER({right})", [*left_params, *right_params]
