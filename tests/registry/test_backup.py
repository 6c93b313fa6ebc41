"""Backup, loss of everything, restore, as docs/operations.md has it: then fsck finds every blob with its hash."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from registry.models import Blob
from tests import postgres
from tests.compose.test_crashes import database_url
from tests.conftest import ROOT, clean_environment
from tests.environment import missing
from tests.factories import make_revision

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_restored_backup_is_whole(data_dir, tmp_path):
    for _ in range(3):
        make_revision()
    blobs = Blob.objects.count()
    # The database first, then the blobs: what the dump names is there then.
    restored = restore_database(tmp_path)
    folder = tmp_path / "restored"
    shutil.copytree(data_dir / "blobs", folder / "blobs")
    try:
        done = fsck(restored, folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{blobs} blob" in done.stdout
        next(path for path in (folder / "blobs").rglob("*") if path.is_file()).write_bytes(b"damaged")
        assert fsck(restored, folder).returncode == 1, "the check can fail"
    finally:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f'DROP DATABASE IF EXISTS "{copy_name()}" WITH (FORCE)')


def fsck(database: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **clean_environment(),
        "DATABASE_URL": database,
        "LORA_DATA_DIR": str(folder),
        "SECRET_KEY": settings.SECRET_KEY,
    }
    command = [sys.executable, "-W", "ignore", "manage.py", "fsck"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def restore_database(folder: Path) -> str:
    """The address of a copy of the test database that came by way of a backup file."""
    if connection.vendor == "sqlite":
        copy = folder / "restored.sqlite3"
        with connection.cursor() as cursor:
            cursor.execute("VACUUM INTO %s", [str(copy)])
        return f"sqlite:///{copy}"
    dump = folder / "lora-commons.dump"
    run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={libpq_url()}")
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{copy_name()}"')
    address = libpq_url().rpartition("/")[0] + f"/{copy_name()}"
    run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={address}", str(dump))
    return database_url().rpartition("/")[0] + f"/{copy_name()}"


def copy_name() -> str:
    return f"{connection.settings_dict['NAME']}_restored"


def libpq_url() -> str:
    return database_url().replace("postgres://", "postgresql://", 1)


def run(program: str, *arguments: str) -> None:
    """A program of Postgres' that is not older than the server."""
    server = connection.pg_version // 10_000  # type: ignore[attr-defined]
    found = shutil.which(program)
    places = [
        *([Path(found)] if found else []),
        *(folder / program for folder in postgres.folders_of_binaries()),
    ]
    for place in places:
        if place.exists() and _major(place) >= server:
            subprocess.run([str(place), *arguments], check=True)
            return
    missing(f"There is no {program} of version {server} on this machine.")


def _major(program: Path) -> int:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True).stdout
    found = re.search(r"(\d+)", said)
    return int(found[1]) if found else 0
