"""The chores worker's part of imports and pushes: one step after the other, one at a time in a process."""

from __future__ import annotations

from typing import cast

from registry import hub_jobs, import_jobs, long_work, push_jobs, weight_statistics
from registry.models import ImportJob, PushJob


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
    if isinstance(job, ImportJob):
        import_jobs.work(job)
    else:
        push_jobs.work(cast(PushJob, job))
    return True
