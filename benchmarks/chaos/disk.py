"""Disks that are really full: small file systems in memory, mounted for the trial, filled to a random byte."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.chaos.asking import Answer, ask, publish
from benchmarks.chaos.servers import NO_POSTGRES, Postgres, people_of, site_on_postgres, web, what_fsck_finds
from benchmarks.chaos.stage import Outcome, Stage, Trial

MIB = 1024**2
RANK = 512  # of the adapters: 115 kB of weights, so that the disk fills somewhere in them
AGAIN_WITHIN_S = 10
NOT_ALLOWED = "mounting is not allowed here"


@contextmanager
def small_disk(place: Path, size_mib: int) -> Iterator[bool]:
    """A file system of this size at `place`; False where we may not mount one."""
    place.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    made = (
        mount is not None
        and not subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={size_mib}m,mode=0755", "none", str(place)],
            capture_output=True,
        ).returncode
    )
    try:
        yield made
    finally:
        if made:
            for _ in range(50):
                if not subprocess.run(["umount", str(place)], capture_output=True).returncode:
                    break
                time.sleep(0.1)


class Filler:
    """Takes all of a file system but some bytes."""

    def __init__(self, disk: Path) -> None:
        self.path = disk / "filler"

    def fill(self, *, leave: int) -> None:
        free = os.statvfs(self.path.parent)
        size = max(0, free.f_bavail * free.f_frsize - leave)
        with self.path.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, size)

    def empty(self) -> None:
        self.path.unlink(missing_ok=True)


class Rounds:
    """Uploads to a site whose disk is full, one after the other, and what was wrong with them."""

    def __init__(self, stage: Stage, port: int, site: dict[str, Any]) -> None:
        self.stage, self.port, self.token = stage, port, site["tokens"][0]
        self.answers: Counter[int] = Counter()
        self.wrong: list[str] = []
        # Not on the disk that is filled.
        self.sources = stage.folder.with_name(f"{stage.folder.name}-sources")
        known = self.files("known")
        self.sha256 = hashlib.sha256(known["adapter_model.safetensors"].read_bytes()).hexdigest()
        first = publish(port, "known", known, self.token)
        assert first.status == 201, first.content
        self.known = first.json()["id"]

    def files(self, name: str) -> dict[str, Path]:
        from tests.fake_adapters import files_of, make_adapter

        seed = random.randrange(2**31)
        return files_of(make_adapter(self.sources / name, rank=RANK, seed=seed))

    def upload(self, name: str) -> Answer:
        answer = publish(self.port, name, self.files(name), self.token)
        self.answers[answer.status] += 1
        owner = self.known.partition("/")[0]
        there = ask(self.port, "GET", f"/api/v1/adapters/{owner}/{name}/", token=self.token).status
        if answer.status not in {201, 503, 507}:
            self.wrong.append(f"{name}: {answer.status} {answer.content[:100]!r}")
        elif answer.status != 201 and b"message" not in answer.content:
            self.wrong.append(f"{name}: {answer.status} without words")
        if (answer.status == 201) != (there == 200) and there not in {503, 507}:
            self.wrong.append(f"{name}: {answer.status}, and then {there}")
        return answer

    def read(self) -> None:
        """A page, and a file whose bytes are compared."""
        page = ask(self.port, "GET", f"/{self.known}")
        file = ask(self.port, "GET", f"/{self.known}/resolve/main/adapter_model.safetensors")
        if (page.status, hashlib.sha256(file.content).hexdigest()) != (200, self.sha256):
            self.wrong.append(f"reading with a full disk: {page.status}, {file.status}")

    def works_again(self, name: str) -> None:
        end = time.monotonic() + AGAIN_WITHIN_S
        while self.upload(name).status != 201:
            if time.monotonic() > end:
                self.wrong.append(f"{name}: does not work {AGAIN_WITHIN_S} s after there was space again")
                return
            time.sleep(0.5)


def full_disk(stage: Stage) -> Outcome:
    """a really full disk at a random byte: all on one disk, blobs, temporary files, and Postgres' own"""
    parts: list[Outcome] = []
    notes = []
    for what, play in (
        ("all on one disk", _everything),
        ("blobs and temporary files", _blobs),
        ("temporary files", _temporary),
        ("Postgres", _postgres),
    ):
        outcome = play(stage)
        if outcome.not_run == NOT_ALLOWED:
            return outcome
        notes.append(f"{what}: {outcome.not_run or outcome.note}")
        outcome.wrong = [f"{what}: {line}" for line in outcome.wrong]
        parts.append(outcome)
    return Outcome(
        sum(part.trials for part in parts), [line for part in parts for line in part.wrong], "; ".join(notes)
    )


def _everything(stage: Stage) -> Outcome:
    """An embedded site whose database is on the disk that fills."""
    folder = stage.folder / "full-everything"
    with small_disk(folder, 64) as made:
        if not made:
            return Outcome(0, not_run=NOT_ALLOWED)
        own = Stage(folder, f"sqlite:///{folder / 'db.sqlite3'}", stage.generator, stage.scale)
        return _rounds(own, folder)


def _blobs(stage: Stage) -> Outcome:
    folder = stage.folder / "full-blobs"
    with small_disk(folder, 64) as made:
        if not made:
            return Outcome(0, not_run=NOT_ALLOWED)
        database = f"sqlite:///{stage.folder / 'full-blobs.sqlite3'}"
        return _rounds(Stage(folder, database, stage.generator, stage.scale), folder)


def _temporary(stage: Stage) -> Outcome:
    folder = stage.folder / "full-temporary"
    with small_disk(folder / "tmp", 8) as made:
        if not made:
            return Outcome(0, not_run=NOT_ALLOWED)
        database = f"sqlite:///{stage.folder / 'full-temporary.sqlite3'}"
        return _rounds(Stage(folder, database, stage.generator, stage.scale), folder / "tmp")


def _rounds(stage: Stage, disk: Path) -> Outcome:
    site = people_of(stage)
    filler = Filler(disk)
    count = stage.times(100)
    with web(stage) as (port, _):
        rounds = Rounds(stage, port, site)
        for number in range(count):
            filler.fill(leave=stage.generator.randrange(2 * 130_000))
            rounds.upload(f"full-{number}")
            rounds.read()
            filler.empty()
            rounds.works_again(f"again-{number}")
    return _told(stage, rounds, count)


def _told(stage: Stage, rounds: Rounds, count: int) -> Outcome:
    left = [path.name for path in (stage.folder / "tmp").iterdir()]
    wrong = rounds.wrong + ([f"left in tmp: {', '.join(left[:3])}"] if left else [])
    wrong += what_fsck_finds(stage)
    shutil.rmtree(rounds.sources, ignore_errors=True)
    told = ", ".join(f"{times} × {status}" for status, times in sorted(rounds.answers.items()))
    return Outcome(count, wrong, f"{count} rounds, {told}")


def _postgres(stage: Stage) -> Outcome:
    disk = stage.folder / "full-postgres"
    with small_disk(disk, 256) as made:
        if not made:
            return Outcome(0, not_run=NOT_ALLOWED)
        with site_on_postgres(stage, "full-postgres-site", disk / "server") as site:
            return _postgres_rounds(*site, disk) if site else Outcome(0, not_run=NO_POSTGRES)


def _postgres_rounds(stage: Stage, server: Postgres, disk: Path) -> Outcome:
    site = people_of(stage)
    filler = Filler(disk)
    count = stage.times(100)
    stopped = 0
    with web(stage) as (port, _):
        rounds = Rounds(stage, port, site)
        for number in range(count):
            filler.fill(leave=stage.generator.randrange(64 * 1024))
            for attempt in range(60):  # until it needs more than it has
                if rounds.upload(f"full-{number}-{attempt}").status != 201:
                    break
            if not server.has_ended():
                rounds.read()
            filler.empty()
            if server.has_ended():  # its log could not be written; it stops then, and asks to be started
                stopped += 1
                server.start()
            rounds.works_again(f"again-{number}")
    outcome = _told(stage, rounds, count)
    outcome.note += f", Postgres itself stopped {stopped} times and was started"
    return outcome


TRIALS: dict[str, Trial] = {"F16": full_disk}
