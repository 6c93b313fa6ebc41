"""Celery's door to the registry's housekeeping; decides nothing."""

from __future__ import annotations

from celery import shared_task

from registry import idempotency, storage
from registry.search import upkeep


@shared_task
def sweep_storage() -> None:
    """Once an hour: old temporary files, blobs that nobody wants, answers that nobody will ask for, unread cards."""
    storage.sweep_storage()
    idempotency.sweep_answers()
    upkeep.read_cards()
