"""How the workers are doing, for everybody: nothing here tells whose composition it is or what it is about."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from compose.models import Composition

RECENT = timedelta(hours=24)
LAST_WAITS = 50
LAST_FAILURES = 5


@dataclass(frozen=True)
class Worker:
    """`busy_with` is the base model it works on now; `is_silent`: its lease runs and it stopped beating."""

    name: str
    last_seen: datetime
    busy_with: str
    stage: str
    done: int
    is_silent: bool


@dataclass(frozen=True)
class Queue:
    base_model: str
    waiting: int
    running: int
    oldest: datetime | None


@dataclass(frozen=True)
class SiteStatus:
    workers: list[Worker]
    queues: list[Queue]
    median_wait_s: float | None
    median_run_s: float | None
    waits_counted: int
    succeeded: int
    failed: int
    cancelled: int
    failures: list[tuple[datetime, str, str]]  # when, base model, stage

    @property
    def waiting(self) -> int:
        return sum(queue.waiting for queue in self.queues)

    @property
    def running(self) -> int:
        return sum(queue.running for queue in self.queues)

    @property
    def headline(self) -> str:
        """The state in one sentence."""
        alive = [worker for worker in self.workers if not worker.is_silent]
        if any(worker.is_silent for worker in self.workers):
            return "A worker fell silent; what it held goes back into the queue by itself."
        if self.waiting and not any(worker.busy_with for worker in alive):
            return "Compositions are waiting and no worker is busy; one should begin within seconds."
        if self.running:
            return f"Working: {self.running} running, {self.waiting} waiting."
        return "Idle: nothing is running and nothing waits."


def site_status() -> SiteStatus:
    """Read from the compositions alone: a worker is known by what it claims and by its heartbeats."""
    since = timezone.now() - RECENT
    recent = Composition.objects.filter(finished_at__gte=since)
    counts = recent.aggregate(
        succeeded=Count("id", filter=Q(status=Composition.Status.SUCCEEDED)),
        failed=Count("id", filter=Q(status=Composition.Status.FAILED)),
        cancelled=Count("id", filter=Q(status=Composition.Status.CANCELLED)),
    )
    done = list(
        Composition.objects.filter(status=Composition.Status.SUCCEEDED, started_at__isnull=False)
        .order_by("-finished_at")
        .values_list("created_at", "started_at", "finished_at")[:LAST_WAITS]
    )
    waits = [(started - created).total_seconds() for created, started, _ in done if started]
    runs = [(finished - started).total_seconds() for _, started, finished in done if started and finished]
    failures = (
        Composition.objects.filter(status=Composition.Status.FAILED)
        .order_by("-finished_at")
        .values_list("finished_at", "base_model__name", "stage")[:LAST_FAILURES]
    )
    return SiteStatus(
        workers=_workers(since),
        queues=_queues(),
        median_wait_s=statistics.median(waits) if waits else None,
        median_run_s=statistics.median(runs) if runs else None,
        waits_counted=len(waits),
        failures=[(when, base, stage) for when, base, stage in failures if when],
        **counts,
    )


def _workers(since: datetime) -> list[Worker]:
    seen = (
        Composition.objects.filter(heartbeat_at__gte=since)
        .exclude(worker="")
        .values("worker")
        .annotate(last=Max("heartbeat_at"), done=Count("id", filter=Q(status=Composition.Status.SUCCEEDED)))
        .order_by("worker")
    )
    busy = {
        worker: (base, stage)
        for worker, base, stage in Composition.objects.filter(status=Composition.Status.RUNNING).values_list(
            "worker", "base_model__name", "stage"
        )
    }
    silent_before = timezone.now() - timedelta(seconds=settings.JOB_LEASE_S)
    return [
        Worker(
            name=row["worker"],
            last_seen=row["last"],
            busy_with=busy.get(row["worker"], ("", ""))[0],
            stage=busy.get(row["worker"], ("", ""))[1],
            done=row["done"],
            is_silent=row["worker"] in busy and row["last"] < silent_before,
        )
        for row in seen
    ]


def _queues() -> list[Queue]:
    rows = (
        Composition.objects.filter(status__in=[Composition.Status.QUEUED, Composition.Status.RUNNING])
        .values("base_model__name")
        .annotate(
            waiting=Count("id", filter=Q(status=Composition.Status.QUEUED)),
            running=Count("id", filter=Q(status=Composition.Status.RUNNING)),
            oldest=Min("created_at", filter=Q(status=Composition.Status.QUEUED)),
        )
        .order_by("-waiting", "base_model__name")
    )
    return [Queue(row["base_model__name"], row["waiting"], row["running"], row["oldest"]) for row in rows]
