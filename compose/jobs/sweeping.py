"""Taking back what lost its worker, and ringing for what nobody came for."""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from compose.jobs import lease, log, losses, queue, workers
from compose.models import Composition, Kept
from web.database import after_commit

logger = logging.getLogger(__name__)
RING_AT_ONCE = 8
Status = Composition.Status
Wish = Composition.Wish
_unanswered_at = -math.inf  # by the clock of `time.monotonic`: when a sweep last met a database that was away


def sweep() -> dict[str, int]:
    """Take back what lost its worker and ring for what nobody came for: how many of each."""
    global _unanswered_at
    try:
        return _sweep()
    except DatabaseError:
        _unanswered_at = time.monotonic()
        raise


def _sweep() -> dict[str, int]:
    counts = {"requeued": 0, "failed": 0, "cancelled": 0, "rung": 0}
    # Where the database was away, nobody could renew a lease: workers that are there speak first.
    if time.monotonic() - _unanswered_at > workers.SILENT_AFTER_BEATS * settings.JOB_HEARTBEAT_S:
        for composition in Composition.objects.filter(status=Status.RUNNING, lease_until__lt=Now()):
            outcome = _take_back(composition)
            if outcome:
                counts[outcome] += 1
    overdue = Now() - timedelta(seconds=settings.JOB_RING_AGAIN_S)
    for composition_id in queue.queue_order()[:RING_AT_ONCE]:
        unheard = Composition.objects.filter(pk=composition_id, status=Status.QUEUED).filter(
            Q(rung_at__lt=overdue) | Q(rung_at=None)
        )
        if unheard.update(rung_at=Now()):
            # It was rung for and nobody came: now for everybody, since one worker's own bell may have no worker.
            queue.ring(composition_id, to_all=True)
            counts["rung"] += 1
    workers.forget_the_gone()
    _forget_what_was_kept()
    return counts


@transaction.atomic
def _take_back(composition: Composition) -> str:
    """One composition whose lease ran out: back in line, or ended. Empty if its worker was quicker."""
    # The lease again: the worker may have renewed it since we looked.
    held = lease.held(composition).filter(lease_until=composition.lease_until)
    if lease.close(held.filter(wish=Wish.CANCEL), Status.CANCELLED):
        log.write(composition, log.CANCELLED)
        return "cancelled"
    if not composition.worker:  # given up by it, which has said why
        return _back_in_line(composition, held.update(**lease.back_in_line()), "Back in line.")
    logger.warning("Composition %s lost its worker %s", composition.pk, composition.worker)
    lost = losses.now_lost(composition)
    known = {"losses": F("losses") + 1, "known_losses": losses.as_json(lost)}
    if composition.losses + 1 < settings.JOB_MAX_ATTEMPTS:
        changed = held.update(**known, **lease.back_in_line())
        return _back_in_line(composition, changed, losses.line(lost[-1]))
    message = losses.why_it_ends(lost, count=composition.losses + 1)
    if not held.update(**known) or not lease.close(held, Status.FAILED, error=message):
        return ""
    log.write(composition, message)
    return "failed"


def _forget_what_was_kept() -> None:
    """For the next attempt, of those that have none any more."""
    Kept.objects.exclude(composition__status__in=[Status.QUEUED, Status.RUNNING]).delete()


def _back_in_line(composition: Composition, changed: int, said: str) -> str:
    if not changed:
        return ""
    log.write(composition, said)
    after_commit(queue.ring, composition.pk)
    return "requeued"
