"""Kills, stalls, cuts, races and full disks, counted: `python -m benchmarks.chaos [--trials F10 F12] [--scale 1] [--seed 1]`.

Real worker processes (with an engine whose objective is a distance), a real web server, brokers, Postgres servers and
disks of the trial's own. The database is SQLite in a temporary folder, or an empty Postgres database by `--database`.
Prints a line of docs/reliability.md's table for each trial, and after it what went wrong, line by line. Ends with 1 if
anything did. What a machine cannot run (no Postgres, no right to mount) says so and is not counted. The same seed draws
the same moments; what the machine makes of them differs.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from benchmarks.chaos import backup, broker, database, disk, doors, inputs, jobs, storage, strangers
from benchmarks.chaos.stage import Outcome, Stage, Trial

GROUPS = (jobs, doors, storage, broker, database, disk, backup, strangers, inputs)
TRIALS: dict[str, Trial] = {name: trial for group in GROUPS for name, trial in group.TRIALS.items()}
SHOWN = 10


def in_order(name: str) -> int:
    return int(name[1:])


def line(name: str, outcome: Outcome, seconds: float) -> str:
    """A row of the table."""
    what = (TRIALS[name].__doc__ or "").strip()
    if outcome.not_run:
        return f"| {name} | {what} | not run | {outcome.not_run} |"
    verdict = f"**{len(outcome.wrong)} wrong**; " if outcome.wrong else ""
    return (
        f"| {name} | {what} | {outcome.trials}, {date.today()}, {seconds:.0f} s | {verdict}{outcome.note} |"
    )


def run(names: list[str], stage: Stage) -> bool:
    """Print a row for each trial; whether nothing went wrong."""
    clean = True
    for name in names:
        began = time.monotonic()
        outcome = TRIALS[name](stage)
        clean = clean and not outcome.wrong
        print(line(name, outcome, time.monotonic() - began), flush=True)
        for wrong in outcome.wrong[:SHOWN]:
            print(f"  {wrong}", file=sys.stderr, flush=True)
    return clean


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.chaos", description=__doc__)
    parser.add_argument(
        "--trials", nargs="*", choices=sorted(TRIALS, key=in_order), default=sorted(TRIALS, key=in_order)
    )
    parser.add_argument("--scale", type=float, default=1.0, help="1: the counts that the aims ask for")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="", help="of an empty Postgres database; SQLite without")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what it started ends with it
    with tempfile.TemporaryDirectory(prefix="lora-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        database = given.database or f"sqlite:///{folder / 'chaos.sqlite3'}"
        stage = Stage(folder, database, random.Random(given.seed), given.scale)
        os.environ.update(stage.environment(), DJANGO_SETTINGS_MODULE="config.settings")
        import django
        from django.core.management import call_command

        django.setup()
        logging.disable(logging.CRITICAL)  # of this process, where the clients are
        call_command("migrate", verbosity=0)
        print("| id | trial | how often, when | result |\n| --- | --- | --- | --- |")
        with stage.servers:
            return 0 if run(given.trials, stage) else 1


if __name__ == "__main__":
    sys.exit(main())
