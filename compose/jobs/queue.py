"""Who waits, who is next, and claiming it.

The line is ordered by one number, `due`: the moment at which a composition would be next if nothing but arrival
counted. It is when it was asked for, plus TURN_S for each composition that its owner has before it, plus the seconds
that it will likely take, at most LONGEST_HEAD_START_S. So people take turns, short ones pass long ones, and nobody is
passed for ever: what is asked for after `due` comes behind, whatever it is. A worker adds COLD_S where it would first
have to load the base model.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from compose.errors import TooManyWaiting
from compose.jobs import lease, log, workers
from compose.models import Composition
from registry.models import User
from registry.rights import hold_account

logger = logging.getLogger(__name__)
TURN_S = 900.0
LONGEST_HEAD_START_S = 600.0
UNKNOWN_TRIAL_S = 0.1  # a trial of a base model that nothing was composed on yet
COLD_S = 60.0
LEFT_TO_THE_WARM = timedelta(seconds=5)
Status = Composition.Status


# --- Room ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """What one person has in the queue, and what still fits."""

    waiting: int
    running: int
    places_left: int
    may_wait: int
    may_run: int


def room(owner: User) -> Room:
    statuses = list(
        Composition.objects.filter(owner=owner, status__in=[Status.QUEUED, Status.RUNNING]).values_list(
            "status", flat=True
        )
    )
    waiting = statuses.count(Status.QUEUED)
    return Room(
        waiting=waiting,
        running=statuses.count(Status.RUNNING),
        places_left=max(0, settings.MAX_WAITING_JOBS_PER_USER - waiting),
        may_wait=settings.MAX_WAITING_JOBS_PER_USER,
        may_run=settings.MAX_RUNNING_JOBS_PER_USER,
    )


def require_room(owner: User) -> None:
    """Raises TooManyWaiting, and Forbidden for an account that was deleted or blocked meanwhile.

    Inside a transaction, so that two requests at once do not both take the last place.
    """
    with transaction.atomic():
        hold_account(owner)
        left = room(owner)
    if not left.places_left:
        raise TooManyWaiting(left.waiting)


# --- The bell ------------------------------------------------------------------------------------------------


def ring(composition_id: str, *, to_all: bool = False) -> None:
    """Tell a worker that something waits; a broker that is down is no failure, for the sweep rings again.

    The bell of an idle worker that has the base model in memory, if there is one; else, or `to_all`, the bell that
    whichever worker is free hears.
    """
    from compose.tasks import BELLS, run_composition

    target = None if to_all else _warm_and_idle(composition_id)
    try:
        if target is None:
            run_composition.apply_async([composition_id], retry=False)
        else:
            run_composition.apply_async(
                [composition_id],
                retry=False,
                exchange=BELLS.name,
                declare=[BELLS],
                routing_key=target,
                expires=settings.JOB_RING_AGAIN_S,
            )
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about composition %s: %s", composition_id, error)


def ring_next() -> None:
    """Ring for the first in line, if anybody is: a worker that just became free goes on without waiting."""
    order = queue_order()
    if order:
        ring(order[0])


def _warm_and_idle(composition_id: str) -> str | None:
    base_model = (
        Composition.objects.filter(pk=composition_id).values_list("base_model__name", flat=True).first()
    )
    return next((worker.bell for worker in workers.idle() if worker.bell and base_model in worker.warm), None)


# --- The line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    composition_id: str
    owner_id: int
    base_model: str
    created_at: datetime
    due: float  # seconds since 1970


def line(*more: tuple[str, int, str, datetime, float | None, int]) -> list[Waiting]:
    """All that wait, who is next first; with `more` as if these waited too."""
    turns = Counter(Composition.objects.filter(status=Status.RUNNING).values_list("owner_id", flat=True))
    queued = Composition.objects.filter(status=Status.QUEUED).values_list(
        "pk", "owner_id", "base_model__name", "created_at", "expected_s", "budget"
    )
    ready = sorted((created.timestamp() + head_start_s(expected, budget), created, pk, owner, base)
                   for pk, owner, base, created, expected, budget in (*queued, *more))  # fmt: skip
    waiting = []
    for ready_at, created, pk, owner, base in ready:
        waiting.append(Waiting(pk, owner, base, created, ready_at + turns[owner] * TURN_S))
        turns[owner] += 1
    return sorted(waiting, key=lambda one: (one.due, one.composition_id))


def head_start_s(expected_s: float | None, budget: int) -> float:
    """What others may come later and still be before it: the seconds it will likely take, up to a bound."""
    likely = budget * UNKNOWN_TRIAL_S if expected_s is None else expected_s
    return min(likely, LONGEST_HEAD_START_S)


def queue_order() -> list[str]:
    """Ids of the queued compositions, who is next first."""
    return [waiting.composition_id for waiting in line()]


def queue_place(composition: Composition) -> int | None:
    """1 for the next in line; None for one that does not wait."""
    if composition.status != Status.QUEUED:
        return None
    order = queue_order()
    return order.index(composition.pk) + 1 if composition.pk in order else None


def is_held_back(composition: Composition) -> bool:
    """Whether it waits until one of its owner's own ends, who has as many running as one person may."""
    if composition.status != Status.QUEUED or composition.owner is None:
        return False
    own = room(composition.owner)
    return own.running >= own.may_run


def place_of_next(owner: User, *, expected_s: float | None, budget: int) -> int:
    """Where a composition that this person asks for now would come in."""
    asked = ("", owner.pk, "", timezone.now(), expected_s, budget)
    return [one.composition_id for one in line(asked)].index("") + 1


# --- Claiming ------------------------------------------------------------------------------------------------


def claim_next(worker: str, *, warm: Iterable[str] = ()) -> Composition | None:
    """Take the first in line whose owner may have one more running; None if there is none.

    `warm` names the base models that this worker has in memory.
    """
    for composition_id in order_for(worker, warm=frozenset(warm)):
        composition = claim(composition_id, worker)
        if composition is not None:
            return composition
    return None


def order_for(worker: str, *, warm: frozenset[str]) -> list[str]:
    """The line as this worker should take it: what it has in memory first, within COLD_S.

    What another idle worker has in memory is left to that one for its first seconds.
    """
    warm_elsewhere = {
        base for other in workers.idle() if other.name != worker for base in other.warm if base not in warm
    }
    young = timezone.now() - LEFT_TO_THE_WARM
    mine = [one for one in line() if one.base_model not in warm_elsewhere or one.created_at < young]
    mine.sort(key=lambda one: one.due + (0.0 if one.base_model in warm else COLD_S))
    return [one.composition_id for one in mine]


def claim(composition_id: str, worker: str) -> Composition | None:
    """Take one queued composition under a lease; None if it is not queued or its owner has enough running."""
    with transaction.atomic():
        owner = User.objects.select_for_update(no_key=True).filter(compositions=composition_id).first()
        running = Composition.objects.filter(owner=owner, status=Status.RUNNING).count()
        if owner is None or running >= settings.MAX_RUNNING_JOBS_PER_USER:
            return None
        claimed = Composition.objects.filter(pk=composition_id, status=Status.QUEUED).update(
            status=Status.RUNNING,
            attempt=F("attempt") + 1,
            worker=worker[:200],
            lease_until=lease.end(),
            heartbeat_at=Now(),
            started_at=Coalesce("started_at", Now()),
            stage="",
            stage_note="",
        )
        if not claimed:
            return None
        composition = Composition.objects.select_related("owner", "base_model", "task").get(pk=composition_id)
        # Here, where the owner is held: after it the composition may be gone with the account.
        log.write(
            composition,
            f"Taken by {worker}{f', attempt {composition.attempt}' if composition.attempt > 1 else ''}.",
        )
    return composition
