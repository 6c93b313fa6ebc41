"""Real worker processes with the fake engine, for tests that kill them.

Starting Python with Django takes seconds. So one process, `python -m tests.compose.worker_nursery`, starts once and
forks: each line on its stdin is a worker to be, {"settings", "trial_s", "log"}, and it answers with the process id. With
`celery NAME` as arguments it is a Celery worker itself, that waits for messages.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any


def use_the_fake_engine() -> None:
    from compose import engine
    from tests import fakes

    vars(engine).update(run=fakes, warm=fakes)
    sys.modules["compose.engine.run"] = sys.modules["compose.engine.warm"] = fakes


def fork_workers() -> None:
    import django

    django.setup()
    from compose import jobs, presence, worker

    assert jobs
    assert presence
    assert worker
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            be_a_worker(json.loads(line))
        print(pid, flush=True)


def be_a_worker(wanted: dict[str, Any]) -> None:
    """Runs in the fork until it is told to go."""
    from django.conf import settings

    log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["FAKE_TRIAL_S"] = str(wanted["trial_s"])
    folder = Path(wanted["data_dir"])
    settings.DATA_DIR = folder
    settings.UPLOAD_TMP_DIR = folder / "tmp"
    settings.WORKER_CACHE_DIR = folder / "worker-cache"
    settings.STORAGES["blobs"]["OPTIONS"]["location"] = str(folder / "blobs")
    code = 1
    try:
        work_until_told()
        code = 0
    finally:
        os._exit(code)


def work_until_told() -> None:
    """What a worker of Celery does when its bells ring, by looking at the queue itself; SIGTERM ends it."""
    from compose import jobs, worker
    from compose.presence import Presence

    name = f"{socket.gethostname()}:{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda number, frame: worker.drain(name))
    presence = Presence(name)
    presence.start()
    try:
        while not worker.is_draining():
            jobs.sweep()
            if not worker.run_next(name):
                time.sleep(0.1)
    finally:
        presence.end()


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    use_the_fake_engine()
    if sys.argv[1:2] == ["celery"]:
        from config.celery import app

        if timeout_s := os.environ.get("FAKE_VISIBILITY_TIMEOUT_S"):  # for a broker that hands out twice
            often = {"unacked_restore_interval": 2, "unacked_restore_throttle": 1}
            app.conf.broker_transport_options = {"visibility_timeout": int(timeout_s), **often}
        name = f"{sys.argv[2]}@%h"
        quiet = ["--without-mingle", "--without-gossip", "-l", "INFO"]
        app.worker_main(["worker", "--pool", "threads", "-c", "1", "-Q", "compositions", "-n", name, *quiet])
    else:
        fork_workers()
