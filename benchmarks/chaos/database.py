"""Postgres that is restarted under clients: what was answered stays, and errors end with the outage."""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.asking import Answer, ask, composition, publish
from benchmarks.chaos.servers import (
    NO_POSTGRES,
    Postgres,
    children,
    people_of,
    site_on_postgres,
    web,
    what_fsck_finds,
)
from benchmarks.chaos.stage import Outcome, Stage, Trial

CLIENTS = 20
MOST_AFTER_S = 10
WAYS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill -9": signal.SIGKILL}


@dataclass
class Notes:
    """What clients saw: acknowledged writes as addresses to look at, and errors with their moment."""

    written: list[tuple[str, str]] = field(default_factory=list)  # token, address
    errors: list[tuple[float, Answer]] = field(default_factory=list)
    requests: int = 0

    def take(self, answer: Answer, token: str, where: str) -> None:
        self.requests += 1
        if where:
            self.written.append((token, where))
        if not 200 <= answer.status < 300:
            self.errors.append((time.monotonic(), answer))


def client(
    port: int, site: dict[str, Any], number: int, sources: Path, over: threading.Event, notes: Notes
) -> None:
    """Asks, publishes and reads, with a pause between, until it is over."""
    generator = random.Random(number)
    token = site["tokens"][number % len(site["tokens"])]
    turn = 0
    while not over.wait(generator.uniform(0.2, 0.8)):
        turn += 1
        kind = generator.choice(["compose", "publish", "read", "read"])
        if kind == "compose":
            body = composition(site["base_model"], 1000 * number + turn)
            answer = ask(port, "POST", "/api/v1/compositions/", body, token=token)
            where = f"/api/v1/compositions/{answer.json()['id']}/" if answer.status == 201 else ""
        elif kind == "publish":
            from tests.fake_adapters import files_of, make_adapter

            name = f"m-{number}-{turn}"
            folder = make_adapter(sources / name, seed=1000 * number + turn)
            answer = publish(port, name, files_of(folder), token)
            where = f"/api/v1/adapters/{answer.json()['id']}/" if answer.status == 201 else ""
        else:
            answer = ask(port, "GET", generator.choice(["/modules", "/api/v1/adapters/", "/status"]))
            where = ""
        notes.take(answer, token, where)


def restarts(stage: Stage) -> Outcome:
    """Postgres restarted fast, immediately and by kill -9 under 20 clients"""
    with site_on_postgres(stage, "site", stage.folder / "postgres") as site:
        return _restarts(*site) if site else Outcome(0, not_run=NO_POSTGRES)


def _restarts(stage: Stage, server: Postgres) -> Outcome:
    site = people_of(stage)
    notes, wrong = Notes(), []
    over = threading.Event()
    rounds = [way for way in WAYS for _ in range(stage.times(20))]
    stage.generator.shuffle(rounds)
    longest = 0.0
    outages: list[tuple[float, float]] = []
    with web(stage) as (port, process):
        before = children(process)
        clients = [
            threading.Thread(target=client, args=(port, site, number, stage.folder / "sources", over, notes))
            for number in range(CLIENTS)
        ]
        for one in clients:
            one.start()
        for way in rounds:
            time.sleep(stage.generator.uniform(1, 3))
            down = time.monotonic()
            server.stop(WAYS[way])
            server.start()
            up = time.monotonic()
            outages.append((down, up))
            time.sleep(3)
        time.sleep(MOST_AFTER_S)
        calm = time.monotonic()
        time.sleep(2)
        over.set()
        for one in clients:
            one.join()
        if len({token for token, _ in notes.written}) < 2:
            wrong.append("hardly anything was written, so nothing was tried")
        if children(process) != before:
            wrong.append("a web process was replaced")
        for moment, answer in notes.errors:
            up = max((end for begin, end in outages if begin - 0.5 <= moment), default=0.0)
            longest = max(longest, moment - up)
            if not up or moment - up > MOST_AFTER_S or moment > calm:
                wrong.append(f"{answer.status} {moment - up:.1f} s after the database was back")
        for token, where in notes.written:
            status = ask(port, "GET", where, token=token).status
            if status != 200:
                wrong.append(f"{where}: acknowledged, and now {status}")
    wrong += half_states(server)
    wrong += what_fsck_finds(stage)
    statuses = sorted({answer.status for _, answer in notes.errors})
    wrong += [
        f"{answer.status}: {answer.content[:80]!r}" for _, answer in notes.errors if answer.status != 503
    ]
    note = (
        f"{len(notes.written)} acknowledged writes all there, fsck clean, no process restarted; of "
        f"{notes.requests} requests {len(notes.errors)} failed ({', '.join(map(str, statuses))}), the last "
        f"{max(longest, 0):.1f} s after the database was back"
    )
    return Outcome(len(rounds), wrong, note)


def half_states(server: Postgres) -> list[str]:
    """Rows that only half of a transaction would leave."""
    import psycopg

    asked = {
        "compositions without candidates": "SELECT count(*) FROM compose_composition c WHERE NOT EXISTS "
        "(SELECT 1 FROM compose_candidate WHERE composition_id = c.id)",
        "adapters without a revision": "SELECT count(*) FROM registry_adapter WHERE head_id IS NULL",
        "revisions without files": "SELECT count(*) FROM registry_revision r WHERE NOT EXISTS "
        "(SELECT 1 FROM registry_revisionfile WHERE revision_id = r.id)",
    }
    wrong = []
    with psycopg.connect(server.url) as connection:
        for what, query in asked.items():
            row = connection.execute(query).fetchone()
            if row and row[0]:
                wrong.append(f"{row[0]} {what}")
    return wrong


TRIALS: dict[str, Trial] = {"F15": restarts}
