"""Celery's door to the compositions: decides nothing."""

from __future__ import annotations

import threading
from typing import Any

from celery import shared_task
from celery.app.task import Task
from celery.signals import worker_ready, worker_shutting_down


@shared_task(bind=True, name="compose.tasks.run_composition")
def run_composition(self: Task, composition_id: str) -> None:
    """Work on whoever is first in line; harmless if delivered twice.

    The id says who rang, for the log: the queue decides who is next, so that people take turns.
    """
    # Here and not at the top: the web process only rings, and must start without torch.
    from compose import worker

    worker.run_next(self.request.hostname or "worker")


@shared_task(name="compose.tasks.sweep_compositions")
def sweep_compositions() -> None:
    """Take back what lost its worker and ring for what nobody came for."""
    from compose import jobs

    jobs.sweep()
    jobs.tell_owners()


@worker_ready.connect
def warm_up(sender: Any = None, **_: Any) -> None:
    """Load the engine's libraries while nobody waits: they take seconds, and the first composition would."""
    if "compositions" not in sender.app.amqp.queues.consume_from:
        return
    from compose import worker

    threading.Thread(target=worker.import_engine, name="import-engine", daemon=True).start()


@worker_shutting_down.connect
def give_back(sender: Any = None, **_: Any) -> None:
    """SIGTERM: what this worker is at goes back in line, and another goes on with it."""
    from compose import worker

    worker.drain(str(sender))
