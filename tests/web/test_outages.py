"""A database that is away is told in words, by pages, API and Hub alike, with a status that says: later."""

from __future__ import annotations

import json

import pytest
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import Client
from psycopg.errors import DeadlockDetected, DiskFull, ForeignKeyViolation

from registry import following
from registry.models import User
from registry.search import bulk, columns
from tests.factories import make_token, make_user
from web.database import after_commit, keep_from_deletion

pytestmark = pytest.mark.django_db
AWAY = "does not answer"


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """From here on every query does."""

    def execute(self, *arguments, **options):
        raise error

    monkeypatch.setattr(CursorWrapper, "execute", execute)


@pytest.mark.parametrize(
    "error", [OperationalError("the connection is closed"), InterfaceError("connection already closed")]
)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/modules",
        "/ada/m",
        "/settings",
        "/api/health",
        "/api/v1/adapters/",
        "/api/models/ada/m",
        "/ada/m/resolve/main/x",
    ],
)
def test_a_database_that_is_away_is_503_in_words(path, error, monkeypatch):
    user = make_user("ada")
    client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {make_token(user)}"})
    client.force_login(user)
    fails(monkeypatch, error)
    answer = client.get(path)
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert AWAY in answer.content.decode()


def test_the_apis_refusal_has_its_one_shape(monkeypatch):
    client = Client(raise_request_exception=False)
    fails(monkeypatch, OperationalError("away"))
    answer = client.get("/api/v1/adapters/")
    assert set(json.loads(answer.content)) == {"code", "message", "fields"}
    assert json.loads(answer.content)["code"] == "database_away"


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "halfway",
    [
        "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)",  # as a timeout does
        "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)",
    ],
)
def test_a_database_that_stops_while_all_search_rows_are_read_is_503_in_words(halfway, monkeypatch):
    client = Client(raise_request_exception=False)
    columns.forget()
    with monkeypatch.context() as patched:
        pieces = bulk._pieces
        copied = f"COPY ({halfway}) TO STDOUT (FORMAT binary)".encode()
        patched.setattr(bulk, "_pieces", lambda connection, _: pieces(connection, copied))
        answer = client.get("/modules")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert AWAY in answer.content.decode()
    connection.close_if_unusable_or_obsolete()  # as between two requests, which a test's client leaves out
    assert client.get("/modules").status_code == 200


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("database or disk is full", None),
        ('could not extend file "base/1": No space left on device', DiskFull()),
        ('could not extend file "base/1": wrote only 4096 of 8192 bytes at block 7', DiskFull()),
    ],
)
def test_a_database_whose_disk_is_full_is_507(words, cause, monkeypatch):
    client = Client(raise_request_exception=False)
    error = OperationalError(words)
    error.__cause__ = cause
    fails(monkeypatch, error)
    assert client.get("/modules").status_code == 507


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OperationalError("database is locked"), None),
        (OperationalError("deadlock detected"), DeadlockDetected()),
        (IntegrityError("FOREIGN KEY constraint failed"), None),
        (IntegrityError("insert or update on table violates"), ForeignKeyViolation()),
    ],
)
def test_who_gave_way_to_others_is_told_that(error, cause, monkeypatch):
    client = Client(raise_request_exception=False)
    error.__cause__ = cause
    fails(monkeypatch, error)
    answer = client.get("/modules")
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")
    assert "Others were changing the same at this moment" in answer.content.decode()


@pytest.mark.django_db(transaction=True)
def test_whose_account_is_deleted_while_something_is_kept_for_it_is_told_to_try_again(monkeypatch):
    user = make_user("ada")
    client = Client(raise_request_exception=False, headers={"Authorization": f"Bearer {make_token(user)}"})
    make_user("bob")
    follow = following.follow

    def deleted_first(**options):
        User.objects.filter(pk=user.pk).delete()
        follow(**options)

    monkeypatch.setattr(following, "follow", deleted_first)
    answer = client.put("/api/v1/following/bob/")
    assert (answer.status_code, answer.json()["code"]) == (503, "others_write")
    assert client.put("/api/v1/following/bob/").status_code == 401


@pytest.mark.django_db(transaction=True)
def test_what_fails_after_the_commit_undoes_nothing_and_is_logged(caplog):
    def read_the_card(_):
        raise OperationalError("database or disk is full")

    with transaction.atomic():
        user = make_user("ada")
        after_commit(read_the_card, user.pk)
    assert User.objects.filter(username="ada").exists()
    assert "read_the_card" in caplog.text


def test_of_no_rows_none_are_kept():
    keep_from_deletion(User.objects.filter(pk__in=[]))
