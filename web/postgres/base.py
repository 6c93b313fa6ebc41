"""The database engine `web.postgres`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.db import Error
from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """Connections are kept for good and their statements prepared, and a plan outlives the table it was made for.

    Once a migration has changed the type of a column, each prepared statement that reads it fails, "cached plan must not
    change result type", for as long as the connection lives. Closing it would heal that too, but a Postgres with a full disk
    takes no new one.
    """

    def _configure_connection(self, connection: Any) -> bool:
        """Once for each, by Django or by the pool.

        Postgres compiles what it thinks is long (`jit`). It thinks so of every question with a subquery that it then never
        runs, and compiling takes it a second where the answer takes a millisecond.
        """
        connection.execute("SET jit = off")
        super()._configure_connection(connection)  # type: ignore[misc]
        return True

    def close_if_unusable_or_obsolete(self) -> None:
        """Django calls it before and after each request."""
        if self.connection is not None and self.errors_occurred:
            # A connection that is beyond this is found out and closed next.
            with suppress(Error), self.cursor() as cursor:
                cursor.execute("DEALLOCATE ALL")
        super().close_if_unusable_or_obsolete()
