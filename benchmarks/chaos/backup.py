"""Everything lost, and brought back from a backup as docs/operations.md has it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.chaos.servers import (
    NO_POSTGRES,
    Postgres,
    manage,
    people_of,
    site_on_postgres,
    what_fsck_finds,
)
from benchmarks.chaos.stage import Outcome, Stage, Trial

ROUNDS = 3
BLOBS = 100
BYTES = 10 * 1024**3  # of all of them
MOST_S = 30 * 60
FILL = """
import os
from registry import storage
from registry.models import Revision, RevisionFile
revision = Revision.objects.first()
for number in range({blobs}):
    blob = storage.store_stream(os.urandom(1024**2) for _ in range({mib}))
    RevisionFile.objects.create(revision=revision, path="large " + str(number), blob=blob)
"""


def restore(stage: Stage) -> Outcome:
    """backup, loss of the database and of every blob, restore"""
    with site_on_postgres(stage, "backup-site", stage.folder / "backup-postgres-0") as site:
        return _rounds(*site) if site else Outcome(0, not_run=NO_POSTGRES)


def _rounds(stage: Stage, server: Postgres) -> Outcome:
    people_of(stage)
    mib = max(1, int(BYTES * stage.scale) // BLOBS // 1024**2)
    filled = manage(stage, "shell", "-v0", "-c", FILL.format(blobs=BLOBS, mib=mib))
    if filled.returncode:
        raise RuntimeError(filled.stderr[-2000:])
    wrong: list[str] = []
    saved_s, restored_s = 0.0, 0.0
    kept = stage.folder / "kept"
    for number in range(ROUNDS):
        kept.mkdir()
        began = time.monotonic()
        _save(stage, server, kept)
        saved_s = max(saved_s, time.monotonic() - began)
        _lose(stage, server)
        if number == 0 and not what_fsck_finds(stage):
            wrong.append("fsck found nothing wrong with a site that had lost everything")
        began = time.monotonic()
        _bring_back(stage, server, kept)
        wrong += what_fsck_finds(stage)
        restored_s = max(restored_s, time.monotonic() - began)
        shutil.rmtree(kept)
    if restored_s > MOST_S:
        wrong.append(f"a restore took {restored_s:.0f} s")
    note = (
        f"{BLOBS * mib / 1024:.1f} GiB in {BLOBS} files; backup at most {saved_s:.0f} s, restore with set_up and fsck at most "
        f"{restored_s:.0f} s, every blob there with its hash"
    )
    return Outcome(ROUNDS, wrong, note)


def _save(stage: Stage, server: Postgres, kept: Path) -> None:
    """The database first: what the dump names is among the blobs then."""
    dump = [str(server.binaries / "pg_dump"), "--format=custom", f"--file={kept / 'dump'}"]
    subprocess.run([*dump, f"--dbname={server.url}"], check=True)
    shutil.copytree(stage.folder / "blobs", kept / "blobs")


def _lose(stage: Stage, server: Postgres) -> None:
    """The server's files and the blobs; an empty server is in its place then."""
    server.stop(signal.SIGQUIT)
    shutil.rmtree(server.data)
    shutil.rmtree(stage.folder / "blobs")
    server.make()
    server.start()


def _bring_back(stage: Stage, server: Postgres, kept: Path) -> None:
    put = [str(server.binaries / "pg_restore"), "--no-owner", "--exit-on-error"]
    subprocess.run([*put, f"--dbname={server.url}", str(kept / "dump")], check=True)
    shutil.copytree(kept / "blobs", stage.folder / "blobs")
    done = manage(stage, "set_up")
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])


TRIALS: dict[str, Trial] = {"F39": restore}
