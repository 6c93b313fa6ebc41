"""How gunicorn serves the site: `gunicorn config.wsgi -c config/gunicorn.py`; the bind address is the caller's.

Workers and threads: docs/reliability.md has what was measured; flags on the command line change them.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

if __name__ == "__config__":  # gunicorn reads this file at its start and at each SIGHUP
    # The processes forked from now on find here what was imported: after SIGHUP that shall be new code and settings too.
    for _name in [name for name in sys.modules if name.partition(".")[0] in {"config", "web"}]:
        del sys.modules[_name]

from config import settings
from web.logs import FORMATTERS, AnswerFilter
from web.server import BUSY

worker_class = "web.server.PatientWorker"  # gunicorn's gthread, but slow clients hold no threads
workers = 2
threads = 16
# A worker that does not answer its parent for this long is replaced.
timeout = 60
graceful_timeout = 30
keepalive = 5
control_socket_disable = True
accesslog = "-"
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(B)s %(M)sms'  # no query: it may hold words
# Its heartbeat files belong in memory, where a busy disk cannot make a worker look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - not a file name


class SiteLogger(Logger):
    """gunicorn's lines, as `LOG_FORMAT` has all others, and without secrets like them."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        answer = AnswerFilter(behind_proxy=settings.HTTPS)
        for handler in [*self.error_log.handlers, *self.access_log.handlers]:
            handler.setFormatter(FORMATTERS[settings.LOG_FORMAT]())
            handler.addFilter(answer)


logger_class = SiteLogger


def on_starting(server: Any) -> None:
    """Before any process is forked."""
    _share_heaps()
    # Figures of the processes before this start are not ours.
    if settings.METRICS_DIR:
        for path in Path(settings.METRICS_DIR).glob("*.db"):
            path.unlink(missing_ok=True)


def _share_heaps() -> None:
    """Two heaps for all threads of a process: with one each, as glibc has it, each keeps what its largest request took."""
    arena_max, heaps = -8, 2  # M_ARENA_MAX of <malloc.h>
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(arena_max, heaps)


def post_worker_init(worker: Any) -> None:
    """Each by itself and not once before they are forked, so that SIGHUP brings new code."""
    from config.warming import warm

    warming = threading.Thread(target=warm, args=[worker.wsgi], daemon=True)
    warming.start()
    warming.join(
        timeout / 2
    )  # a database that does not answer at all must not look like a process that does not
    _leave_alone_what_stays()


def _leave_alone_what_stays() -> None:
    """Spare the collector the 190,000 objects that are here before the first request and stay as long as the process does.

    Going through them takes it 110 ms from time to time, for which everybody waits.
    """
    gc.collect()
    gc.freeze()


def child_exit(server: Any, worker: Any) -> None:
    BUSY.leave(worker.age)
    if settings.METRICS_DIR:
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)
