"""One migrated database for all passes of a run of the suite: the first makes it, the others begin with a copy.

Sixty migrations take a pass seconds of processor time, and passes beside each other have two cores in all.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from django.db import connection


class Migrated:
    """What passes share in `folder`, for the test database of the settings `database`; without a folder, nothing.

    Made before the test database is: passes that begin together wait for the first until it has called `is_ready`.
    """

    def __init__(self, folder: Path | None, database: dict[str, Any]) -> None:
        self._database = database
        self._is_file = database["ENGINE"].endswith("sqlite3")
        self._folder = folder
        self._waiting = ExitStack()
        self._is_maker = False
        self.is_copied_file = False
        if folder is None:
            return
        # The system lets go of the lock where a pass dies.
        fcntl.flock(self._waiting.enter_context((folder / "migrating").open("w")), fcntl.LOCK_EX)
        self._is_maker = not self._made.exists()
        if self._is_maker:
            return
        if self._is_file:
            shutil.copyfile(self._made, database["TEST"]["NAME"])
            self.is_copied_file = True
        else:
            database.setdefault("TEST", {})["TEMPLATE"] = self._made.read_text()

    @property
    def _made(self) -> Path:
        """The file itself, or one that names the database; a pass may have a server of its own."""
        assert self._folder is not None
        if self._is_file:
            return self._folder / "migrated.sqlite3"
        where = f"{self._database['HOST']}-{self._database['PORT']}".replace("/", "_")
        return self._folder / f"migrated-at-{where}"

    def is_ready(self) -> None:
        """The test database is there, migrated and without rows."""
        if self._is_maker:
            connection.close()
            if self._is_file:
                part = self._made.with_suffix(".part")
                with (
                    closing(sqlite3.connect(self._database["NAME"])) as own,
                    closing(sqlite3.connect(part)) as copy,
                ):
                    own.backup(copy)
                part.rename(self._made)
            else:
                name = f"{self._database['NAME']}_migrated"
                self._on_the_server(f'CREATE DATABASE "{name}" TEMPLATE "{self._database["NAME"]}"')
                self._made.write_text(name)
        self._waiting.close()

    def copy_file(self, path: Path) -> bool:
        """Lay a SQLite database of its own at `path`, migrated and without rows. False where passes share none."""
        if self._folder is None or not self._is_file:
            return False
        shutil.copyfile(self._made, path)
        return True

    def end(self) -> None:
        """A file goes with its folder. Of a server's database a pass that begins after this makes another."""
        if self._is_maker and not self._is_file:
            name = self._made.read_text()
            self._made.unlink()
            self._on_the_server(f'DROP DATABASE IF EXISTS "{name}"')

    def _on_the_server(self, statement: str) -> None:
        with connection._nodb_cursor() as cursor:
            cursor.execute(statement)
