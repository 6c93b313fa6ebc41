"""Where a trial plays, what it tells in the end, and the small world that all trials share."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
BUDGET = 30
LEASE_S = 2


@dataclass
class Outcome:
    """`trials` counts what was tried, `wrong` says what should not have happened, one line each."""

    trials: int
    wrong: list[str] = field(default_factory=list)
    note: str = ""
    not_run: str = ""  # why the machine could not run it


@dataclass
class Stage:
    """The folder, database and draws of a trial, and how large it is."""

    folder: Path
    database: str
    generator: random.Random
    scale: float
    servers: ExitStack = field(
        default_factory=ExitStack
    )  # what several trials share; the end of the run closes it
    port: int = 0  # of the web server they share, once it is there

    def times(self, count: int) -> int:
        """`count` at full scale, and never fewer than two."""
        return max(2, round(count * self.scale))

    def environment(self, **more: str) -> dict[str, str]:
        """For every process of the trial: leases that run out quickly, and no limit on requests."""
        return {
            **os.environ,
            "LORA_DATA_DIR": str(self.folder),
            "DATABASE_URL": self.database,
            "SECRET_KEY": "only-for-chaos-" + "x" * 50,
            "REDIS_URL": "",
            "JOB_LEASE_S": str(LEASE_S),
            "JOB_HEARTBEAT_S": "1",
            "JOB_RING_AGAIN_S": "1",
            "FAKE_TRIAL_S": "0.01",
            "MAX_WAITING_JOBS_PER_USER": "100000",
            "MIN_FREE_DISK_BYTES": "0",
            "LFS_PART_BYTES": "1000",
            "THROTTLE_USER": "100000000/5m",
            "THROTTLE_ANONYMOUS": "100000000/5m",
            "LOG_LEVEL": "CRITICAL",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **more,
        }


Trial = Callable[[Stage], Outcome]


def world() -> tuple[Any, list[Any]]:
    """A hosted base model with three modules, and ten people; made once for a database."""
    from registry import storage
    from registry.models import BaseModel, BaseModelFile, User
    from tests.compose.factories import make_modules
    from tests.factories import make_base_model, make_user

    base_model = BaseModel.objects.filter(name="demo/tiny-t5").first()
    if base_model is None:
        base_model = make_base_model(kind="hosted", commit="a" * 40)
        BaseModelFile.objects.create(
            base_model=base_model, path="config.json", blob=storage.store_stream([b"{}"])
        )
        make_modules(base_model, 3)
        for number in range(10):
            make_user(f"person-{number}")
    return base_model, list(User.objects.filter(username__startswith="person-").order_by("username"))


def token_of(person: Any, scope: str = "write") -> str:
    """The secret of a new token."""
    from registry.tokens import issue_token

    return issue_token(user=person, name="chaos", scope=scope)[1]


def at_once(acts: Sequence[Callable[[], Any]]) -> list[Any]:
    """All of them in threads of their own, with connections of their own; raises what one of them raised."""
    from django.db import connection

    def act(one: Callable[[], Any]) -> Any:
        try:
            return one()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return [done.result() for done in [pool.submit(act, one) for one in acts]]
