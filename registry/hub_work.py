"""The chores worker's part of imports and pushes: one step after the other, one at a time in a process."""

from __future__ import annotations

from collections.abc import Callable

from registry import hub_jobs, import_jobs, long_work, push_jobs, weight_statistics
from registry.models import HubJob, ImportJob


def run_all(worker: str) -> int:
    """Do steps until no job waits; how many. At once 0 if this process is at something long already."""
    with long_work.alone() as may_work:
        steps = 0
        while may_work and not hub_jobs.is_draining() and run_step(worker):
            steps += 1
            if not hub_jobs.is_draining():
                weight_statistics.compute_recent()  # whose turn would not come while jobs wait
        return steps


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
