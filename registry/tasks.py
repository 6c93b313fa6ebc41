"""Celery's door to the registry's housekeeping; decides nothing."""

from __future__ import annotations

import threading
from typing import Any

from celery import shared_task
from celery.app.task import Task
from celery.signals import worker_shutting_down

from registry import (
    base_models,
    hub_jobs,
    hub_work,
    idempotency,
    long_work,
    news_mail,
    sweeping,
    tombstones,
    webhooks,
    weight_statistics,
)
from registry.search import upkeep


@shared_task
def sweep_storage() -> None:
    """Once an hour: what is old and wanted by nobody (files, blobs, answers, deliveries, jobs), unread cards, the
    search's word lists."""
    tombstones.sweep()
    sweeping.sweep_storage()
    idempotency.sweep_answers()
    upkeep.read_cards()
    upkeep.write_postings()
    with long_work.alone() as may_work:
        if may_work:
            weight_statistics.compute_missing()
    webhooks.forget_old()
    hub_jobs.forget_old()


_rechecking = threading.Lock()


@shared_task
def recheck_adapters() -> None:
    """Soon after a base model became known: compare the modules that name it with it."""
    with long_work.alone(_rechecking) as may_work:
        if may_work:
            base_models.recheck_wanted()


@shared_task
def draw_weights() -> None:
    """Soon after publishing: norms and singular values of the new weights."""
    with long_work.alone() as may_work:
        if may_work:
            weight_statistics.compute_recent()


@shared_task
def deliver_webhooks() -> None:
    """Write down what was published for those who want to hear of it, and send what is due."""
    webhooks.announce_versions()
    webhooks.deliver_due()


@shared_task
def tell_news() -> None:
    """Mails of what is new, to those who asked for them and had none for a day."""
    news_mail.tell()


@shared_task(bind=True, name="registry.tasks.work_on_hub_jobs")
def work_on_hub_jobs(self: Task, job_id: str) -> None:
    """Work on imports and pushes, the longest waiting first, until none waits; harmless if delivered twice.

    The id says who rang, for the log.
    """
    hub_work.run_all(self.request.hostname or "worker")


@shared_task(name="registry.tasks.sweep_hub_jobs")
def sweep_hub_jobs() -> None:
    """Ring for imports and pushes that nobody came for."""
    hub_jobs.sweep()


@worker_shutting_down.connect
def stop_hub_jobs(**_: Any) -> None:
    """SIGTERM: what is at work stops at the next piece; another worker goes on behind it."""
    hub_jobs.drain()
