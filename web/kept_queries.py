"""Queries that nearly every page asks, with other values each time: their SQL is made once.

Making it takes Django longer than Postgres takes to answer: of the 4.6 ms that a module cost with all that belongs to it,
3 were that. Only SQL is kept; the rows are read each time.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, Generic, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import connection, connections
from django.db.models import BigIntegerField, CharField, Expression, Model, QuerySet
from django.db.models.query import ModelIterable

M = TypeVar("M", bound=Model)
Person = AbstractBaseUser | AnonymousUser | None


class Given(Expression):
    """Stands for a value that is known when the query is asked."""

    def __init__(self, name: str, output_field: Any) -> None:
        super().__init__(output_field=output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", [self]


class GivenIds(Given):
    """Stands for any number of ids, to be used with `__in`."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "(SELECT unnest(%s::bigint[]))", [self]


def text_of(name: str) -> Given:
    return Given(name, CharField())


def number_of(name: str) -> Given:
    return Given(name, BigIntegerField())


def ids_of(name: str) -> Given:
    return GivenIds(name, BigIntegerField())


class KeptQuery(Generic[M]):
    """`build(**values)`, a queryset that differs with `values` in nothing but these values.

    `given` says of what kind each of them is. SQLite is asked as ever: its SQL depends on the values. What is fetched after the
    rows (`prefetch_related`) is not.
    """

    def __init__(self, build: Callable[..., QuerySet[M, Any]], *given: Given) -> None:
        self._build = build
        self._given = given
        self._made: tuple[Any, str, tuple[Any, ...]] | None = None

    def rows(self, **values: Any) -> list[M]:
        """Where it is one of whole models."""
        if connection.vendor != "postgresql":
            return list(self._build(**values))
        return list(ModelIterable(QuerySet(query=self._asked(values))))  # type: ignore[arg-type]

    def tuples(self, **values: Any) -> list[tuple[Any, ...]]:
        """Where it ends in `values_list`."""
        if connection.vendor != "postgresql":
            return list(self._build(**values))
        return list(
            self._asked(values).get_compiler(using=connection.alias).results_iter(tuple_expected=True)
        )

    def _asked(self, values: dict[str, Any]) -> _Asked:
        if self._made is None:
            query = self._build(**{given.name: given for given in self._given}).query
            compiler = query.get_compiler(connection=connection)
            sql, params = compiler.as_sql()
            compiler.connection = None  # of a thread that may end; whoever asks gives its own
            self._made = (compiler, sql, params)
        compiler, sql, params = self._made
        asked = [values[param.name] if isinstance(param, Given) else param for param in params]
        return _Asked(compiler, sql, asked)


class KeptForGuests(Generic[M]):
    """`build(person=, **values)`, whose SQL depends on rights: kept for guests, who all see the same, else made anew."""

    def __init__(self, build: Callable[..., QuerySet[M, Any]], *given: Given) -> None:
        self._build = build
        self._kept = KeptQuery(partial(build, person=None), *given)

    def rows(self, person: Person, **values: Any) -> list[M]:
        return self._kept.rows(**values) if is_guest(person) else list(self._build(person=person, **values))

    def tuples(self, person: Person, **values: Any) -> list[tuple[Any, ...]]:
        return self._kept.tuples(**values) if is_guest(person) else list(self._build(person=person, **values))


def is_guest(person: Person) -> bool:
    return person is None or not person.is_authenticated


class _Asked:
    """What Django's reader of rows needs of a query."""

    def __init__(self, compiler: Any, sql: str, params: list[Any]) -> None:
        self.compiler, self.sql, self.params = compiler, sql, params

    def get_compiler(self, using: str) -> Any:
        compiler = copy(self.compiler)
        compiler.connection = connections[using]  # of this thread
        compiler.as_sql = lambda: (self.sql, self.params)
        return compiler
