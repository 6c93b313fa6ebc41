"""A worker process's sign of life, from a thread of its own, whether it works or waits."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from compose import jobs, worker, worker_cache
from compose.jobs import workers

logger = logging.getLogger(__name__)
COUNTS = Path("/proc/vmstat")  # of the kernel, also where a container hides the rest of the machine


class Presence:
    """Says every JOB_HEARTBEAT_S that worker `name` is there, from `start` to `end`."""

    def __init__(self, name: str, *, bell: str = "") -> None:
        self.name = name
        self.bell = bell
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"presence-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Take the name off the list. Returns when that is done, or the database does not answer."""
        self._over.set()
        self._thread.join(timeout=5)

    def _beat(self) -> None:
        has_begun = is_full = False
        try:
            while True:
                try:
                    if not has_begun:
                        workers.say_begun(self.name, oom_kills=oom_kills())
                        has_begun = True
                    if not worker.is_draining():
                        is_full_now, warm = not worker_cache.has_room(), worker.warm_bases()
                        workers.report(
                            self.name, bell=self.bell, warm=warm, is_full=is_full_now, oom_kills=oom_kills()
                        )
                        self._tell_room(is_full, is_full_now)
                        is_full = is_full_now  # not before it is written: what comes of it is told once it is
                    worker.say_given_up()
                except DatabaseError as error:
                    logger.warning("Worker %s could not say that it is there: %s", self.name, error)
                    connection.close()
                if self._over.wait(settings.JOB_HEARTBEAT_S):
                    workers.say_gone(self.name)
                    return
        except DatabaseError as error:
            logger.warning("Worker %s could not say that it is gone: %s", self.name, error)
        finally:
            connection.close()

    def _tell_room(self, was_full: bool, is_full: bool) -> None:
        if is_full and not was_full:
            logger.error("Worker %s takes nothing until its disk has room", self.name)
        elif was_full and not is_full:
            logger.info("Worker %s has room on its disk again", self.name)
            jobs.ring_next()


def oom_kills() -> int | None:
    """How many processes the kernel has killed for memory since the machine was started; None where it does not tell."""
    try:
        counts = dict(line.split() for line in COUNTS.read_text().splitlines())
        return int(counts["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
