"""The chores worker's part of imports and pushes: one step after the other, one at a time in a process."""

from __future__ import annotations

import threading
from collections.abc import Callable

from registry import hub_jobs, import_jobs, push_jobs
from registry.models import HubJob, ImportJob

_busy = threading.Lock()


def run_all(worker: str) -> int:
    """Do steps until no job waits; how many. At once 0 if this process is at it already."""
    if not _busy.acquire(blocking=False):
        return 0
    try:
        steps = 0
        while not hub_jobs.is_draining() and run_step(worker):
            steps += 1
        return steps
    finally:
        _busy.release()


def run_step(worker: str) -> bool:
    """Claim the job that waited longest and do its next step; whether there was one."""
    job = hub_jobs.claim_next(worker)
    if job is None:
        return False
    _work_of(job)()
    return True


def _work_of(job: HubJob) -> Callable[[], None]:
    if isinstance(job, ImportJob):
        return lambda: import_jobs.work(job)
    return lambda: push_jobs.work(job)  # type: ignore[arg-type]
