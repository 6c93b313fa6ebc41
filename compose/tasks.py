"""Celery's door to the compositions: decides nothing."""

from __future__ import annotations

from celery import shared_task
from celery.app.task import Task


@shared_task(bind=True, name="compose.tasks.run_composition")
def run_composition(self: Task, composition_id: str) -> None:
    """Work on whoever is first in line; harmless if delivered twice.

    The id says who rang, for the log: the queue decides who is next, so that people take turns.
    """
    # Here and not at the top: the web process only rings, and must start without torch.
    from compose import worker

    worker.run_next(worker.name(self.request.hostname))


@shared_task(name="compose.tasks.sweep_compositions")
def sweep_compositions() -> None:
    """Take back what lost its worker and ring for what nobody came for."""
    from compose import jobs

    jobs.sweep()
