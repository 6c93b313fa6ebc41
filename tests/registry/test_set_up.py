"""`set_up` beside others that write."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import OperationalError
from psycopg.errors import DeadlockDetected, DiskFull

from registry.management.commands import set_up

pytestmark = pytest.mark.django_db


def ended_by(monkeypatch: pytest.MonkeyPatch, cause: Exception, *, times: int) -> list[str]:
    """What is called, where the first migrations are ended by Postgres."""
    called: list[str] = []

    def call(name: str, **_: object) -> None:
        called.append(name)
        if name == "migrate" and called.count("migrate") <= times:
            raise OperationalError(str(cause)) from cause

    monkeypatch.setattr(set_up, "call_command", call)
    return called


def test_a_migration_that_postgres_ended_for_another_writer_is_made_again(monkeypatch):
    called = ended_by(monkeypatch, DeadlockDetected("deadlock detected"), times=2)
    said = io.StringIO()
    call_command("set_up", stdout=said)
    assert called == ["migrate", "migrate", "migrate", "load_catalogue"]
    assert said.getvalue().count("went first") == 2


@pytest.mark.parametrize(
    ("cause", "times"), [(DeadlockDetected("deadlock detected"), 99), (DiskFull("no space"), 1)]
)
def test_what_does_not_pass_ends_it(monkeypatch, cause, times):
    called = ended_by(monkeypatch, cause, times=times)
    with pytest.raises(OperationalError):
        call_command("set_up", stdout=io.StringIO())
    assert called == ["migrate"] * min(times, set_up.ATTEMPTS)
