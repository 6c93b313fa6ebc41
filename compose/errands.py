"""What a free worker does beside compositions: small, for one person, forgotten after a day.

    waiting -> running -> done | failed

As with compositions the row is the truth and the broker a doorbell, and a worker holds an errand by a lease that it
renews. An errand that lost its worker goes back in line once; one that nobody came for is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from django.db.models import Count, F, Min, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from compose.errors import LeaseLost
from compose.jobs import lease
from compose.models import Errand
from registry.models import User
from registry.rights import hold_account
from web.database import after_commit
from web.errors import DomainError

logger = logging.getLogger(__name__)
KEPT = timedelta(days=1)
MOST_LOSSES = 2
Status = Errand.Status
E = TypeVar("E", bound=Errand)


@dataclass(frozen=True)
class Line:
    """What of one kind of errand waits and runs, whoever asked; `oldest` is when the one that waits longest was asked."""

    kind: str
    waiting: int
    running: int
    oldest: datetime | None


@dataclass(frozen=True)
class Kind(Generic[E]):
    """One kind of errand: what people call it, its model, how many one person may have, and how long it waits and runs at most."""

    name: str
    model: type[E]
    most_unfinished: int
    most_an_hour: int
    waits_at_most: timedelta
    runs_at_most: timedelta
    nobody_came: str
    worker_lost: str
    took_too_long: str
    our_error: str

    # --- Asking ----------------------------------------------------------------------------------------------

    def require_room(self, person: User, refusal: type[DomainError], noun: str) -> None:
        """Raises `refusal`, and Forbidden for an account that was deleted or blocked meanwhile.

        Inside a transaction, so that two requests do not both take the last place.
        """
        hold_account(person)
        own = self.model._default_manager.filter(asked_by=person)
        if own.filter(status__in=[Status.WAITING, Status.RUNNING]).count() >= self.most_unfinished:
            raise refusal(
                f"You have {self.most_unfinished} {noun} waiting for an answer; wait for one of them."
            )
        if own.filter(created_at__gte=timezone.now() - timedelta(hours=1)).count() >= self.most_an_hour:
            raise refusal(
                f"You asked for {self.most_an_hour} {noun} in the last hour, the most one person may."
            )

    def line(self) -> Line:
        counts = self.model._default_manager.aggregate(
            waiting=Count("pk", filter=Q(status=Status.WAITING)),
            running=Count("pk", filter=Q(status=Status.RUNNING)),
            oldest=Min("created_at", filter=Q(status=Status.WAITING)),
        )
        return Line(self.name, **counts)

    # --- A worker's part -------------------------------------------------------------------------------------

    def take_next(self, worker: str = "") -> E | None:
        """The oldest that waits, now running and held by `worker`; None if there is none."""
        objects = self.model._default_manager
        while True:
            waiting = objects.filter(status=Status.WAITING).order_by("created_at", "pk")
            first = waiting.values_list("pk", flat=True).first()
            if first is None:
                return None
            taken = objects.filter(pk=first, status=Status.WAITING).update(
                status=Status.RUNNING,
                taken_at=Now(),
                attempt=F("attempt") + 1,
                worker=worker[:200],
                lease_until=lease.end(),
            )
            found = objects.filter(pk=first).first() if taken else None
            if found is not None:  # else it went with the account of who asked, or somebody was quicker
                return found

    def held(self, errand: E) -> QuerySet[E]:
        return self.model._default_manager.filter(pk=errand.pk, status=Status.RUNNING, attempt=errand.attempt)

    def beat(self, errand: E) -> None:
        """Renew the lease, for as long as this kind may run. Raises LeaseLost."""
        still = self.held(errand).filter(taken_at__gte=Now() - self.runs_at_most)
        if not still.update(lease_until=lease.end()):
            raise LeaseLost(errand.pk)

    def finish(self, errand: E, **fields: Any) -> bool:
        """Done, with these fields written; False where it is no longer ours."""
        return bool(self.held(errand).update(status=Status.DONE, lease_until=None, **fields))

    def fail(self, errand: E, message: str) -> bool:
        return bool(self.held(errand).update(status=Status.FAILED, lease_until=None, error=message[:500]))

    def release_all(self, worker: str) -> int:
        """Give back what a worker that goes is at, without counting that as a loss."""
        mine = self.model._default_manager.filter(status=Status.RUNNING, worker=worker[:200])
        return mine.update(**_waiting_from_now())

    def end_all_of(self, person: User, why: str) -> int:
        """End what waits or runs for one person, with a sentence for them."""
        unfinished = self.model._default_manager.filter(
            asked_by=person, status__in=[Status.WAITING, Status.RUNNING]
        )
        return unfinished.update(status=Status.FAILED, lease_until=None, error=why)

    # --- The sweep -------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Ring for what waits, take back what lost its worker, tell those nobody came for, forget what is old."""
        now = Now()
        objects = self.model._default_manager
        lost = objects.filter(status=Status.RUNNING).filter(Q(lease_until__lt=now) | Q(lease_until=None))
        lost.filter(losses__lt=MOST_LOSSES - 1).update(losses=F("losses") + 1, **_waiting_from_now())
        # Asked for again: it is later by now, and a first lease that ran out since is not the last loss.
        lost_again = lost.filter(losses__gte=MOST_LOSSES - 1)
        # `beat` ends what runs too long, so its worker need not be lost.
        overlong = lost_again.filter(taken_at__lt=now - self.runs_at_most)
        overlong.update(status=Status.FAILED, error=self.took_too_long, lease_until=None)
        lost_again.update(status=Status.FAILED, error=self.worker_lost, lease_until=None)
        waiting = objects.filter(status=Status.WAITING)
        never_taken = Q(taken_at=None, created_at__lt=now - self.waits_at_most)
        given_back = Q(taken_at__lt=now - self.waits_at_most)
        waiting.filter(never_taken | given_back).update(status=Status.FAILED, error=self.nobody_came)
        unheard = waiting.filter(created_at__lt=now - timedelta(seconds=3)).order_by("created_at")
        oldest = unheard.values_list("pk", flat=True).first()
        if oldest is not None:
            ring(oldest)
        objects.filter(created_at__lt=now - KEPT).delete()


def _waiting_from_now() -> dict[str, Any]:
    """Of one that a worker gave back or was lost with: it has not waited while it ran, so from now on that counts."""
    return {"status": Status.WAITING, "lease_until": None, "worker": "", "taken_at": Now()}


def ring(errand_id: str) -> None:
    """Tell a worker. A broker that is down is no failure: the sweep rings again."""
    from compose.tasks import run_errands

    try:
        run_errands.apply_async([errand_id], retry=False)
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about errand %s: %s", errand_id, error)


def ring_after_commit(errand: Errand) -> None:
    after_commit(ring, errand.pk)


def kinds() -> Iterable[Kind[Any]]:
    from compose import auditions, tryouts

    return (tryouts.KIND, auditions.KIND)


def lines() -> list[Line]:
    """For each kind, how many wait and run now."""
    return [kind.line() for kind in kinds()]


def sweep() -> None:
    for kind in kinds():
        kind.sweep()


def release_all(worker: str) -> int:
    return sum(kind.release_all(worker) for kind in kinds())


def end_all_of(person: User, why: str) -> int:
    return sum(kind.end_all_of(person, why) for kind in kinds())
