"""Something happens in the middle of something else: on the same connection, or on one of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from tests.conftest import wait_for
from web.errors import DomainError


def after(owner: Any, name: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """`act` happens right after the function `name` of `owner`, once."""
    original = getattr(owner, name)

    def then(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        answer = original(*arguments, **options)
        act()
        return answer

    monkeypatch.setattr(owner, name, then)


class Beside:
    """Does something on a connection of its own, in the middle of what the test does on its one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._doing: Future[Any] | None = None

    def start(self, act: Callable[[], object]) -> None:
        """Returns when `act` has ended, or waits for a lock of the test's connection."""

        def on_its_own() -> Any:
            try:
                return act()
            finally:
                connection.close()

        self._doing = self._pool.submit(on_its_own)
        wait_for(
            lambda: self._doing is None or self._doing.done() or self._waits(),
            seconds=20,
            what="Its end or its wait",
        )

    def error(self) -> DomainError | None:
        """What refused it, None if nothing did; any other error is raised."""
        assert self._doing is not None
        try:
            self._doing.result(timeout=20)
        except DomainError as error:
            return error
        return None

    def _waits(self) -> bool:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        with connection.cursor() as cursor:
            cursor.execute(query)
            return bool(cursor.fetchone()[0])
