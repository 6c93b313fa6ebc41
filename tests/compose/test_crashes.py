"""Workers that die, freeze or are told to go in the middle of a search: real processes, the fake engine.

Whatever happens, a composition finishes once, and with the weights of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from django.conf import settings
from django.db import connection

from compose import jobs
from compose.engine import types
from compose.models import Composition, Trial
from registry import storage
from registry.models import BaseModel, BaseModelFile, User
from tests import fakes
from tests.compose.factories import make_composition, make_modules
from tests.conftest import ROOT, clean_environment, wait_for
from tests.factories import make_base_model, make_user

pytestmark = pytest.mark.django_db(transaction=True)
BUDGET = 40


class Worker:
    """A process of the nursery's."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log = log

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def is_gone(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def wait(self, seconds: float = 20) -> None:
        wait_for(lambda: self.is_gone, seconds=seconds, what="the end of the worker")


Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def nursery(django_db_setup: None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.compose.worker_nursery"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def start(nursery: subprocess.Popen[str], data_dir: Path) -> Iterator[Start]:
    """Starts workers; those that are left at the end of the test are killed."""
    workers: list[Worker] = []

    def start(trial_s: float = 0.05) -> Worker:
        log = data_dir / f"worker-{len(workers)}.log"
        assert nursery.stdin
        assert nursery.stdout
        wanted = {"data_dir": str(data_dir), "trial_s": trial_s, "log": str(log)}
        nursery.stdin.write(json.dumps(wanted) + "\n")
        nursery.stdin.flush()
        workers.append(Worker(int(nursery.stdout.readline()), log))
        return workers[-1]

    yield start
    for worker in workers:
        worker.send(signal.SIGKILL)
    for worker in workers:
        worker.wait()


def environment(**more: str) -> dict[str, str]:
    """For another process on the same test database, with leases that run out quickly."""
    return {
        **clean_environment(),
        "DATABASE_URL": database_url(),
        "SECRET_KEY": "only-for-tests " * 5,
        "LORA_DATA_DIR": str(settings.DATA_DIR),
        "JOB_LEASE_S": "2",
        "JOB_HEARTBEAT_S": "1",
        "JOB_RING_AGAIN_S": "1",
        "FAKE_TRIAL_S": "0.05",
        "REDIS_URL": "",
        "OMP_NUM_THREADS": "1",
        **more,
    }


def database_url() -> str:
    """Of the test database, for another process."""
    values = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{values['NAME']}"
    login = quote(values["USER"] or "", safe="")
    if values["PASSWORD"]:
        login += f":{quote(values['PASSWORD'], safe='')}"
    host = quote(values["HOST"] or "localhost", safe="")
    return f"postgres://{login}@{host}:{values['PORT'] or 5432}/{values['NAME']}"


@pytest.fixture
def base_model() -> BaseModel:
    base_model = make_base_model(kind="hosted", commit="a" * 40)
    blob = storage.store_stream([b"{}"])
    BaseModelFile.objects.create(base_model=base_model, path="config.json", blob=blob)
    make_modules(base_model, 3)
    return base_model


def queue(base_model: BaseModel, *, owner: User | None = None, seed: int = 1) -> Composition:
    return make_composition(owner=owner or make_user(), base_model=base_model, budget=BUDGET, seed=seed)


def undisturbed_weights(composition: Composition, folder: Path) -> list[float]:
    """What the search finds when nothing happens to it."""
    modules = []
    for number in range(composition.candidates.count()):
        place = folder / f"undisturbed-{number}"
        place.mkdir(exist_ok=True)
        (place / "adapter_config.json").touch()
        modules.append(types.Module(str(number), place))
    request = types.Request(
        base=folder,
        modules=tuple(modules),
        examples=(types.Example("a", "b"),),
        budget=BUDGET,
        seed=composition.seed,
    )
    return fakes.compose(request).mixing_weights


def now(composition: Composition) -> Composition:
    return Composition.objects.get(pk=composition.pk)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 40) -> None:
    wait_for(condition, seconds=seconds, what=what)


def wait_for_trials(composition: Composition, count: int) -> None:
    wait_until(lambda: composition.trials.count() >= count, f"trial {count}")


def wait_for_status(composition: Composition, status: str) -> Composition:
    wait_until(lambda: now(composition).status == status, f"status {status}")
    return now(composition)


def assert_finished_once(composition: Composition, folder: Path) -> None:
    done = now(composition)
    assert (done.status, done.error) == ("succeeded", "")
    assert [c.mixing_weight for c in done.candidates.all()] == undisturbed_weights(done, folder)
    assert [trial.number for trial in done.trials.all()] == list(range(1, BUDGET + 1))
    assert done.scores.count() == 3


def test_a_worker_killed_in_mid_search_is_replaced_and_the_weights_are_the_same(start, base_model, tmp_path):
    composition = queue(base_model)
    first = start()
    wait_for_trials(composition, 5)
    first.send(signal.SIGKILL)
    first.wait()
    assert now(composition).status == "running"
    start()
    done = wait_for_status(composition, "succeeded")
    assert (done.attempt, done.losses) == (2, 1)
    assert_finished_once(composition, tmp_path)


def test_a_worker_frozen_longer_than_its_lease_wakes_up_and_changes_nothing(start, base_model, tmp_path):
    composition = queue(base_model)
    frozen = start()
    wait_for_trials(composition, 5)
    frozen.send(signal.SIGSTOP)
    start()
    done = wait_for_status(composition, "succeeded")
    assert done.attempt == 2
    frozen.send(signal.SIGCONT)
    wait_until(lambda: "is no longer ours" in frozen.log.read_text(), "giving up")
    after = now(composition)
    assert (after.finished_at, after.attempt, after.weights_blob_id) == (
        done.finished_at,
        2,
        done.weights_blob_id,
    )
    assert_finished_once(composition, tmp_path)


def test_a_worker_that_is_told_to_go_hands_over_at_once(start, base_model, tmp_path):
    composition = queue(base_model)
    going = start()
    wait_for_trials(composition, 5)
    going.send(signal.SIGTERM)
    going.wait()
    back = now(composition)
    assert (back.status, back.losses) == ("queued", 0)
    start()
    wait_for_status(composition, "succeeded")
    assert_finished_once(composition, tmp_path)


def test_cancel_takes_effect_within_one_evaluation(start, base_model):
    composition = queue(base_model)
    start(trial_s=0.5)
    wait_for_trials(composition, 2)
    jobs.cancel(composition, composition.owner)
    began = time.monotonic()
    done = wait_for_status(composition, "cancelled")
    assert time.monotonic() - began < 3, "one evaluation takes half a second; the rest is a busy machine's"
    assert done.trials.count() <= 5
    assert done.finished_at


def has_trials(count: int) -> bool:
    return Trial.objects.count() >= count


def test_many_jobs_and_workers_that_keep_dying_all_finish_once(start, base_model, tmp_path):
    people = [make_user() for _ in range(3)]
    compositions = [queue(base_model, owner=people[n % 3], seed=n) for n in range(6)]
    workers = [start(trial_s=0.02), start(trial_s=0.02)]
    for round_ in range(2):
        wanted = Trial.objects.count() + 15
        wait_until(partial(has_trials, wanted), "progress")
        workers[round_].send(signal.SIGKILL)
        workers.append(start(trial_s=0.02))
    for composition in compositions:
        wait_for_status(composition, "succeeded")
        assert_finished_once(composition, tmp_path)
    assert sum(now(c).losses for c in compositions) >= 1
