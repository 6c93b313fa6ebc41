"""Who waits, who is next, and claiming it."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from compose.errors import TooManyWaiting
from compose.jobs import lease, log
from compose.models import Composition
from registry.models import User

logger = logging.getLogger(__name__)
Status = Composition.Status


# --- Room ----------------------------------------------------------------------------------------------------


def require_room(owner: User) -> None:
    """Raises TooManyWaiting. Inside a transaction, so that two requests at once do not both take the last place."""
    with transaction.atomic():
        list(User.objects.select_for_update().filter(pk=owner.pk).values_list("pk"))
        waiting = Composition.objects.filter(owner=owner, status=Status.QUEUED).count()
    if waiting >= settings.MAX_WAITING_JOBS_PER_USER:
        raise TooManyWaiting(waiting)


def places_left(owner: User) -> int:
    """How many more compositions this person may queue now."""
    waiting = Composition.objects.filter(owner=owner, status=Status.QUEUED).count()
    return max(0, settings.MAX_WAITING_JOBS_PER_USER - waiting)


# --- The bell ------------------------------------------------------------------------------------------------


def ring(composition_id: str) -> None:
    """Tell a worker that something waits. A broker that is down is no failure: the sweep rings again."""
    from compose.tasks import run_composition

    try:
        run_composition.apply_async([composition_id], retry=False)
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about composition %s: %s", composition_id, error)


def ring_next() -> None:
    """Ring for the first in line, if anybody is: a worker that just became free goes on without waiting."""
    order = queue_order()
    if order:
        ring(order[0])


# --- The line ------------------------------------------------------------------------------------------------


def queue_order() -> list[str]:
    """Ids of the queued compositions, who is next first.

    People take turns: each one's oldest comes before anybody's second, and what they have running counts as
    turns taken. Among equals the older comes first.
    """
    turns: dict[int, int] = {}
    for owner in Composition.objects.filter(status=Status.RUNNING).values_list("owner_id", flat=True):
        turns[owner] = turns.get(owner, 0) + 1
    line = []
    queued = Composition.objects.filter(status=Status.QUEUED).order_by("created_at", "pk")
    for place, (pk, owner) in enumerate(queued.values_list("pk", "owner_id")):
        line.append((turns.get(owner, 0), place, pk))
        turns[owner] = turns.get(owner, 0) + 1
    return [pk for _, _, pk in sorted(line)]


def queue_place(composition: Composition) -> int | None:
    """1 for the next in line; None for one that does not wait."""
    if composition.status != Status.QUEUED:
        return None
    order = queue_order()
    return order.index(composition.pk) + 1 if composition.pk in order else None


def place_of_next(owner: User) -> int:
    """Where a composition that this person asks for now would come in."""
    own = Composition.objects.filter(owner=owner, status__in=[Status.QUEUED, Status.RUNNING]).count()
    ahead = 0
    counts: dict[int, int] = {}
    for other in Composition.objects.filter(status=Status.RUNNING).values_list("owner_id", flat=True):
        counts[other] = counts.get(other, 0) + 1
    for other in Composition.objects.filter(status=Status.QUEUED).values_list("owner_id", flat=True):
        ahead += counts.get(other, 0) <= own
        counts[other] = counts.get(other, 0) + 1
    return ahead + 1


# --- Claiming ------------------------------------------------------------------------------------------------


def claim_next(worker: str) -> Composition | None:
    """Take the first in line whose owner may have one more running; None if there is none."""
    for composition_id in queue_order():
        composition = claim(composition_id, worker)
        if composition is not None:
            return composition
    return None


def claim(composition_id: str, worker: str) -> Composition | None:
    """Take one queued composition under a lease; None if it is not queued or its owner has enough running."""
    now = timezone.now()
    with transaction.atomic():
        owner = User.objects.select_for_update().filter(compositions=composition_id).first()
        running = Composition.objects.filter(owner=owner, status=Status.RUNNING).count()
        if owner is None or running >= settings.MAX_RUNNING_JOBS_PER_USER:
            return None
        claimed = Composition.objects.filter(pk=composition_id, status=Status.QUEUED).update(
            status=Status.RUNNING,
            attempt=F("attempt") + 1,
            worker=worker[:200],
            lease_until=lease.end(),
            heartbeat_at=now,
            started_at=Coalesce("started_at", Value(now)),
            stage="",
            stage_note="",
        )
    if not claimed:
        return None
    composition = Composition.objects.select_related("owner", "base_model", "task").get(pk=composition_id)
    log.write(
        composition,
        f"Taken by {worker}{f', attempt {composition.attempt}' if composition.attempt > 1 else ''}.",
    )
    return composition
