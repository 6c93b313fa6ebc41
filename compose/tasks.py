"""Celery's door to the compositions: decides nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery import shared_task
from celery.app.task import Task
from celery.signals import celeryd_after_setup, worker_ready, worker_shutdown, worker_shutting_down
from kombu import Exchange, Queue

if TYPE_CHECKING:
    from compose.presence import Presence

COMPOSITIONS = "compositions"  # the queue that every worker of compositions hears
BELLS = Exchange("bells")  # of the queues that one worker hears; drops what is for a worker that is gone
_presence: Presence | None = None


@shared_task(bind=True, name="compose.tasks.run_composition")
def run_composition(self: Task, composition_id: str) -> None:
    """Work on whoever is first in line; harmless if delivered twice.

    The id says who rang, for the log: the queue decides who is next, so that people take turns.
    """
    # Here and not at the top: the web process only rings, and must start without torch.
    from compose import worker

    worker.run_next(self.request.hostname or "worker")


@shared_task(bind=True, name="compose.tasks.run_errands", queue=COMPOSITIONS)
def run_errands(self: Task, errand_id: str) -> None:
    """Do the try-outs and auditions that wait; harmless if delivered twice. The id says who rang, for the log."""
    from compose import running_errands

    running_errands.run_waiting(self.request.hostname or "worker")


@shared_task(name="compose.tasks.sweep_compositions")
def sweep_compositions() -> None:
    """Take back what lost its worker and ring for what nobody came for."""
    from compose import errands, jobs

    jobs.sweep()
    errands.sweep()
    jobs.tell_owners()


@shared_task(name="compose.tasks.forget_texts")
def forget_texts() -> None:
    """Once an hour: the texts of compositions that ended long ago."""
    from compose import jobs

    jobs.forget_texts()


@celeryd_after_setup.connect
def hang_own_bell(sender: str, instance: Any, **_: Any) -> None:
    """A worker of compositions also hears a queue of its own, by which it gets what it is warm for."""
    queues = instance.app.amqp.queues
    if COMPOSITIONS in queues.consume_from:
        name = own_bell(sender)
        queues.select_add(Queue(name, BELLS, routing_key=name, auto_delete=True, expires=60))


@shared_task(name="compose.tasks.announce")
def announce() -> None:
    """Write down what compositions did for those who want to hear of it."""
    from compose import announcements

    announcements.announce()


@shared_task(name="compose.tasks.refresh_standing")
def refresh_standing() -> None:
    """Write down what is trending and what has proved useful."""
    from compose import jobs, usefulness

    jobs.write_what_is_missing()
    usefulness.refresh_standing()


@worker_ready.connect
def begin(sender: Any = None, **_: Any) -> None:
    """Say that this worker is there, and load the engine's libraries while nobody waits: they take seconds."""
    global _presence
    if COMPOSITIONS not in sender.app.amqp.queues.consume_from:
        return
    from compose import presence, worker

    _presence = presence.Presence(sender.hostname, bell=own_bell(sender.hostname))
    _presence.start()
    threading.Thread(target=worker.import_engine, name="import-engine", daemon=True).start()


@worker_shutting_down.connect
def give_back(sender: Any = None, **_: Any) -> None:
    """SIGTERM: what this worker is at goes back in line, and another goes on with it."""
    from compose import worker

    worker.drain(str(sender))


@worker_shutdown.connect
def end(**_: Any) -> None:
    if _presence is not None:
        _presence.end()


def own_bell(worker_name: str) -> str:
    return f"{COMPOSITIONS}@{worker_name}"
