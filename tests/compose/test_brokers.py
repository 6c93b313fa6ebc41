"""Several Celery workers as processes of their own, on Postgres with Redis and with RabbitMQ: the fake engine.

On Postgres only, which is where there are several workers: SQLite's own crashes are in test_crashes.py.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu import Connection

from compose import jobs
from compose.models import Composition, Trial, Worker
from registry.models import BaseModel
from tests import rabbitmq
from tests.compose.factories import make_modules
from tests.compose.test_crashes import (
    assert_finished_once,
    base_model,
    environment,
    now,
    queue,
    wait_until,
)
from tests.conftest import ROOT
from tests.environment import missing
from tests.factories import make_base_model, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.services, pytest.mark.postgres_only]
__all__ = ["base_model"]  # a fixture of the neighbour's


@pytest.fixture(scope="module")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = rabbitmq.find_or_start(tmp_path_factory.mktemp("rabbitmq"))
    if server is None:
        missing("There is no RabbitMQ on this machine, and none could be started.")
    yield server.url
    server.stop()


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> str:
    """The address of a real broker with empty queues."""
    return str(request.getfixturevalue(f"{request.param}_url"))


Hire = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def hire(broker: str, data_dir: Path) -> Iterator[Hire]:
    """Starts a Celery worker by name; whoever is left is killed."""
    with ExitStack() as stack:

        def hire(name: str, *, trial_s: float = 0.05) -> subprocess.Popen[bytes]:
            log = stack.enter_context((data_dir / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.compose.worker_nursery", "celery", name],
                cwd=ROOT,
                env=environment(BROKER_URL=broker, FAKE_TRIAL_S=str(trial_s), JOB_RING_AGAIN_S="2"),
                stdout=log,
                stderr=log,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield hire
        with Connection(broker) as connection:
            connection.default_channel.queue_delete("compositions")


@pytest.fixture(autouse=True)
def no_broker(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the fixture that keeps messages back: this process rings where the workers listen."""
    from config.celery import app

    # Its pools of connections are made anew, here and after the test.
    monkeypatch.setattr(app, "_pool", None)
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    monkeypatch.setattr(app.conf, "broker_url", broker)
    monkeypatch.setattr(app.conf, "broker_write_url", broker)


def wait_for_workers(count: int) -> None:
    wait_until(lambda: Worker.objects.count() >= count, f"{count} workers being there", seconds=150)


def sweeping_until_done(compositions: list[Composition]) -> Callable[[], bool]:
    def is_done() -> bool:
        jobs.sweep()
        return all(now(composition).is_finished for composition in compositions)

    return is_done


def test_two_workers_one_killed_and_one_told_to_go_finish_everything_once(hire, base_model, tmp_path):
    first, second = hire("first"), hire("second")
    wait_for_workers(2)
    compositions = [queue(base_model, owner=make_user(), seed=seed) for seed in range(4)]
    wait_until(lambda: Composition.objects.filter(status="running").count() == 2, "both working", seconds=90)
    wait_until(lambda: Trial.objects.count() >= 6, "progress", seconds=90)
    first.kill()
    jobs.sweep()
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=30) == 0
    assert Composition.objects.filter(worker__startswith="second", status="running").count() == 0
    assert not Worker.objects.filter(name__startswith="second").exists(), "it says goodbye"
    hire("third", trial_s=0.02)
    wait_until(sweeping_until_done(compositions), "the end of all", seconds=120)
    for composition in compositions:
        assert_finished_once(composition, tmp_path)
    assert sum(now(one).losses for one in compositions) == 1, (
        "the killed one's; who is told to go loses nothing"
    )


def test_the_bell_finds_the_worker_that_has_the_base_model_in_memory(hire, base_model):
    other = make_base_model("demo/other-t5", kind="hosted", commit="a" * 40)
    copy_files(base_model, other)
    make_modules(other, 3)
    hire("one", trial_s=0.01)
    hire("two", trial_s=0.01)
    wait_for_workers(2)
    for base in (base_model, other):  # at once, so each takes one
        queue(base)
    wait_until(lambda: is_warm(base_model) and is_warm(other), "each being warm for one", seconds=90)
    wait_until(lambda: not Composition.objects.filter(status="running").exists(), "rest", seconds=90)
    homes = {base: Worker.objects.get(warm=[base.name]).name for base in (base_model, other)}
    for seed, base in enumerate([other, base_model, other, base_model], start=7):
        composition = queue(base, seed=seed)
        wait_until(lambda: now(composition).is_finished, "its end", seconds=60)  # noqa: B023
        assert now(composition).worker == homes[base]


def is_warm(base: BaseModel) -> bool:
    return any(base.name in worker.warm for worker in Worker.objects.all())


def copy_files(source: BaseModel, target: BaseModel) -> None:
    for file in source.files.all():
        file.pk, file.base_model = None, target
        file.save()
