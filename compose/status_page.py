"""How the workers are doing, for everybody: nothing here tells whose composition it is or what it is about."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Case, Count, Min, Q, When
from django.db.models.functions import Now
from django.utils import timezone

from compose import errands
from compose.errands import Line
from compose.jobs import workers
from compose.models import Composition, Worker

RECENT = timedelta(hours=24)
LAST_WAITS = 50
LAST_FAILURES = 5
STILL_AFTER_S = 45  # without a sweep, which comes every five seconds
Status = Composition.Status


WORKER_STATES = ("busy", "idle", "leaving", "full", "silent")


@dataclass(frozen=True)
class WorkerLine:
    """`state` is one of WORKER_STATES; `done` counts what it finished in the last 24 hours."""

    name: str
    state: str
    heartbeat_at: datetime | None
    warm: list[str]
    busy_with: str  # the base model
    stage: str
    done: int


@dataclass(frozen=True)
class Queue:
    base_model: str
    waiting: int
    running: int
    oldest: datetime | None


@dataclass(frozen=True)
class SiteStatus:
    workers: list[WorkerLine]
    queues: list[Queue]
    errands: list[Line]  # what free workers do beside compositions
    median_wait_s: float | None
    median_run_s: float | None
    waits_counted: int
    succeeded: int
    failed: int
    cancelled: int
    failures: list[tuple[datetime, str, str]]  # when, base model, stage
    is_clock_still: bool  # nobody sweeps

    @property
    def waiting(self) -> int:
        return sum(queue.waiting for queue in self.queues)

    @property
    def running(self) -> int:
        return sum(queue.running for queue in self.queues)

    @property
    def headline(self) -> str:
        """The state in one sentence."""
        if self.is_clock_still:
            return (
                "The clock of this site or its chores worker stands still: what waits may not begin, and what lost its worker does "
                "not go back in line, until the people who run it start them again."
            )
        states = {worker.state for worker in self.workers}
        is_anybody_there = not states.isdisjoint({"busy", "idle"})
        if self.waiting and not is_anybody_there:
            return (
                "Compositions are waiting and no worker has room on its disk; they stay in line, and begin as soon as the people who "
                "run this site have made room."
                if "full" in states
                else "Compositions are waiting and no worker is there; they stay in line until one comes."
            )
        # One that holds nothing any more is in the list for a day, and no news.
        if any(worker.state == "silent" and worker.busy_with for worker in self.workers):
            return "A worker fell silent; what it held goes back into the queue by itself."
        if self.waiting and "busy" not in states:
            return "Compositions are waiting and no worker is busy; one should begin within seconds."
        if self.running:
            return f"Working: {self.running} running, {self.waiting} waiting."
        if any(line.running or line.waiting for line in self.errands):
            return self._of_errands(states, is_anybody_there=is_anybody_there)
        return "Idle: nothing is running and nothing waits."

    def _of_errands(self, states: set[str], *, is_anybody_there: bool) -> str:
        waiting = sum(line.waiting for line in self.errands)
        if not is_anybody_there:
            why = "has room on its disk" if "full" in states else "is there"
            return f"Small requests are waiting and no worker {why}; each says so if none comes."
        return f"No composition runs; small requests: {sum(line.running for line in self.errands)} running, {waiting} waiting."


def site_status() -> SiteStatus:
    """Of the queue, the workers, and what ended lately."""
    since = timezone.now() - RECENT
    recent = Composition.objects.filter(finished_at__gte=since)
    counts = recent.aggregate(
        succeeded=Count("id", filter=Q(status=Status.SUCCEEDED)),
        failed=Count("id", filter=Q(status=Status.FAILED)),
        cancelled=Count("id", filter=Q(status=Status.CANCELLED)),
    )
    done = list(
        Composition.objects.filter(status=Status.SUCCEEDED, started_at__isnull=False)
        .order_by("-finished_at")
        .values_list("created_at", "started_at", "finished_at", "attempt")[:LAST_WAITS]
    )
    waits = [(started - created).total_seconds() for created, started, *_ in done if started]
    # Of one that lost its worker, or was given back, the time until it ended is not that of a run: it waited again.
    runs = [
        (finished - started).total_seconds()
        for _, started, finished, attempt in done
        if started and finished and attempt <= 1
    ]
    failures = (
        Composition.objects.filter(status=Status.FAILED)
        .order_by("-finished_at")
        .values_list("finished_at", "base_model__name", "stage")[:LAST_FAILURES]
    )
    return SiteStatus(
        workers=all_workers(),
        queues=_queues(),
        errands=errands.lines(),
        median_wait_s=statistics.median(waits) if waits else None,
        median_run_s=statistics.median(runs) if runs else None,
        waits_counted=len(waits),
        failures=[(when, base, stage) for when, base, stage in failures if when],
        is_clock_still=_is_clock_still(),
        **counts,
    )


def _is_clock_still() -> bool:
    """Whether a sweep would long have rung for what waits, or have taken back what lost its worker."""
    since = Now() - timedelta(seconds=settings.JOB_RING_AGAIN_S + STILL_AFTER_S)
    queued = Composition.objects.filter(status=Status.QUEUED).aggregate(
        all=Count("pk"), rung=Count("pk", filter=Q(rung_at__gte=since))
    )
    lost = Composition.objects.filter(status=Status.RUNNING, lease_until__lt=since)
    return bool(queued["all"] and not queued["rung"]) or lost.exists()


def all_workers() -> list[WorkerLine]:
    """Those that say they are there, and those that hold a composition without having said so, by name."""
    since = timezone.now() - RECENT
    heard = Case(When(workers.heard_lately(), then=True), default=False)
    busy = {
        name: (base, stage, heartbeat, is_heard)
        for name, base, stage, heartbeat, is_heard in Composition.objects.filter(status=Status.RUNNING)
        .exclude(worker="")  # given up until its lease has run out
        .annotate(is_heard=heard)
        .values_list("worker", "base_model__name", "stage", "heartbeat_at", "is_heard")
    }
    done = dict(
        Composition.objects.filter(status=Status.SUCCEEDED, finished_at__gte=since)
        .values_list("worker")
        .annotate(count=Count("pk"))
        .order_by()
    )
    known = {worker.name: worker for worker in Worker.objects.annotate(is_heard=heard)}
    lines = []
    for name in sorted({*known, *busy}):
        worker = known.get(name)
        base, stage, heartbeat, is_heard = busy.get(name, ("", "", None, False))
        last = max((at for at in (worker.heartbeat_at if worker else None, heartbeat) if at), default=None)
        if not (is_heard or (worker and worker.is_heard)):
            state = "silent"
        elif worker is not None and worker.is_leaving:
            state = "leaving"
        else:
            state = "busy" if name in busy else "full" if worker is not None and worker.is_full else "idle"
        warm = worker.warm if worker else []
        lines.append(WorkerLine(name, state, last, warm, base, stage, done.get(name, 0)))
    return lines


def _queues() -> list[Queue]:
    rows = (
        Composition.objects.filter(status__in=[Status.QUEUED, Status.RUNNING])
        .values("base_model__name")
        .annotate(
            waiting=Count("id", filter=Q(status=Status.QUEUED)),
            running=Count("id", filter=Q(status=Status.RUNNING)),
            oldest=Min("created_at", filter=Q(status=Status.QUEUED)),
        )
        .order_by("-waiting", "base_model__name")
    )
    return [Queue(row["base_model__name"], row["waiting"], row["running"], row["oldest"]) for row in rows]
