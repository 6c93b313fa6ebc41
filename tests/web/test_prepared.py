"""Connections to Postgres: statements that it has prepared, a table that changes under them, and no compiling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import NotSupportedError, OperationalError, connection
from django.db.backends.utils import CursorWrapper

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres_only]
OFTEN = 5


def elsewhere(statement: str) -> None:
    """As another process does it; a connection forgets its plans when it changes a table itself."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute(statement)
    other.close()


@pytest.fixture
def cursor() -> Iterator[CursorWrapper]:
    elsewhere("CREATE TABLE changing (id int, words varchar(20))")
    elsewhere("INSERT INTO changing VALUES (1, 'a'), (2, 'b')")
    with connection.cursor() as cursor:
        yield cursor
    elsewhere("DROP TABLE changing")


def ask(cursor: CursorWrapper) -> str:
    cursor.execute("SELECT words FROM changing WHERE id = %s", [2])
    return cursor.fetchone()[0]


def prepared(cursor: CursorWrapper) -> int:
    cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%changing WHERE%'")
    return cursor.fetchone()[0]


def test_what_is_asked_often_is_prepared(cursor):
    ask(cursor)
    assert prepared(cursor) == 0
    assert {ask(cursor) for _ in range(OFTEN)} == {"b"}
    assert prepared(cursor) == 1


def test_a_column_that_changes_its_type_costs_a_request_and_no_more(cursor):
    for _ in range(OFTEN):
        ask(cursor)
    elsewhere("ALTER TABLE changing ALTER words TYPE text")
    for _ in range(2):  # it would go on like this
        with pytest.raises(NotSupportedError, match="cached plan"):
            ask(cursor)
    before = connection.connection
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is before
    assert {ask(cursor) for _ in range(OFTEN)} == {"b"}
    assert prepared(cursor) == 1


def test_a_connection_that_is_gone_is_closed_as_ever(cursor):
    cursor.execute("SELECT pg_backend_pid()")
    elsewhere(f"SELECT pg_terminate_backend({cursor.fetchone()[0]})")
    with pytest.raises(OperationalError):
        ask(cursor)
    connection.close_if_unusable_or_obsolete()
    assert connection.connection is None
    with connection.cursor() as again:
        again.execute("SELECT words FROM changing WHERE id = 1")
        assert again.fetchone() == ("a",)


def test_postgres_compiles_no_statement():
    with connection.cursor() as cursor:
        cursor.execute("SHOW jit")
        assert cursor.fetchone() == ("off",)
