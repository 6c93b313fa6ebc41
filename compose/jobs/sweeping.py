"""Taking back what lost its worker, and ringing for what nobody came for."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from compose.jobs import lease, log, queue, workers
from compose.models import Composition
from web.database import after_commit

logger = logging.getLogger(__name__)
RING_AT_ONCE = 8
Status = Composition.Status
Wish = Composition.Wish


def sweep() -> dict[str, int]:
    """Take back what lost its worker and ring for what nobody came for: how many of each."""
    now = timezone.now()
    counts = {"requeued": 0, "failed": 0, "cancelled": 0, "rung": 0}
    for composition in Composition.objects.filter(status=Status.RUNNING, lease_until__lt=now):
        outcome = _take_back(composition)
        if outcome:
            counts[outcome] += 1
    overdue = now - timedelta(seconds=settings.JOB_RING_AGAIN_S)
    for composition_id in queue.queue_order()[:RING_AT_ONCE]:
        unheard = Composition.objects.filter(pk=composition_id, status=Status.QUEUED).filter(
            Q(rung_at__lt=overdue) | Q(rung_at=None)
        )
        if unheard.update(rung_at=now):
            # It was rung for and nobody came: now for everybody, since one worker's own bell may have no worker.
            queue.ring(composition_id, to_all=True)
            counts["rung"] += 1
    workers.forget_the_gone()
    return counts


@transaction.atomic
def _take_back(composition: Composition) -> str:
    """One composition whose lease ran out: back in line, or ended. Empty if its worker was quicker."""
    # The lease again: the worker may have renewed it since we looked.
    lost = lease.held(composition).filter(lease_until=composition.lease_until)
    logger.warning("Composition %s lost its worker %s", composition.pk, composition.worker)
    if lease.close(lost.filter(wish=Wish.CANCEL), Status.CANCELLED):
        log.write(composition, log.CANCELLED)
        return "cancelled"
    if composition.losses + 1 >= settings.JOB_MAX_ATTEMPTS:
        message = (
            f"The worker was lost {settings.JOB_MAX_ATTEMPTS} times while it worked on this, perhaps because the base "
            "model and the modules do not fit into its memory. Try fewer or shorter examples or fewer modules, or "
            "tell the people who run this site."
        )
        if not lease.close(lost, Status.FAILED, error=message):
            return ""
        log.write(composition, message)
        return "failed"
    if not lost.update(losses=F("losses") + 1, **lease.back_in_line()):
        return ""
    log.write(composition, "Its worker was lost; back in line, to go on from its trials.")
    after_commit(queue.ring, composition.pk)
    return "requeued"
