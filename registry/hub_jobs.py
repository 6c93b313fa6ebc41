"""Jobs with other Hubs, whatever they do: who is next, holding one by a lease, ending it, cancelling it, the sweep.

A job is done in steps, and between two steps it goes to the end of the line: who imports a thousand adapters does not
stand before who imports one. A process does one step at a time, so that its other threads stay free for the sweeps.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from registry import sealing
from registry.models import HubJob, ImportJob, JobStatus, PushJob, User
from registry.models.hub_jobs import UNFINISHED
from registry.rights import Person, hold_account
from web.database import after_commit
from web.errors import Conflict, DomainError, NotFound

logger = logging.getLogger(__name__)

KINDS: tuple[type[HubJob], ...] = (ImportJob, PushJob)
RING_AT_ONCE = 3
EXPIRED = "expired"  # in place of a sealed token that was kept too long; it opens nothing
OUR_ERROR = (
    "It stopped because of an error on our side. It has been logged; try again, and if it stops again tell the people "
    "who run this site its address."
)
Job = TypeVar("Job", bound=HubJob)

_draining = threading.Event()


class TooManyJobs(Conflict):
    code = "too_many_jobs"

    def __init__(self) -> None:
        most = settings.MAX_HUB_JOBS_PER_USER
        super().__init__(
            f"You have {most} imports and pushes that are not done yet, which is all that one person may have. "
            "Wait for one of them, or cancel one."
        )


class AlreadyEnded(Conflict):
    code = "wrong_state"


class TokenGone(DomainError):
    code = "token_gone"

    def __init__(self) -> None:
        super().__init__(
            "Your token for the other Hub is no longer kept here. Start again and give it once more."
        )


class LeaseLost(Exception):
    """The job is no longer ours: it was cancelled, or given to another worker."""


class CancelWanted(Exception):
    """Its owner wishes it to end."""


class Draining(Exception):
    """This worker is going; another goes on."""


# --- Asking ------------------------------------------------------------------------------------------------------


def _require_room(owner: User) -> None:
    """Raises TooManyJobs."""
    unfinished = sum(kind.objects.filter(owner=owner, status__in=UNFINISHED).count() for kind in KINDS)  # type: ignore[attr-defined]
    if unfinished >= settings.MAX_HUB_JOBS_PER_USER:
        raise TooManyJobs


@transaction.atomic
def start(job: HubJob, token: str) -> None:
    """Save a new job and tell a worker. The token is sealed for this job alone.

    Raises TooManyJobs, and Forbidden for an account that was deleted or blocked meanwhile.
    """
    hold_account(job.owner)
    _require_room(job.owner)
    job.sealed_token = sealing.seal(token.strip(), purpose=_purpose(job))
    job.rung_at = timezone.now()
    job.save(force_insert=True)
    # After commit, or a fast worker would look for a row that is not there yet.
    after_commit(ring, job.pk)


def token_of(job: HubJob) -> str:
    """The person's token for the other Hub, "" if they gave none. Raises TokenGone."""
    token = sealing.unseal(job.sealed_token, purpose=_purpose(job), kept_s=settings.HUB_TOKEN_KEPT_S)
    if token is None:
        raise TokenGone
    return token


def _purpose(job: HubJob) -> str:
    return f"{type(job).__name__} {job.pk} {job.endpoint}"


def own_job(kind: type[Job], person: Person, job_id: str) -> Job:
    """A person's own job. Raises NotFound for what is not there and for what is somebody else's."""
    if person is not None and person.is_authenticated:
        job = kind.objects.filter(pk=job_id, owner_id=person.pk).select_related("owner").first()  # type: ignore[attr-defined]
        if job is not None:
            return job
    raise NotFound(f"There is no {'import' if kind is ImportJob else 'push'} of yours with this address.")


def cancel(job: HubJob) -> None:
    """End a job: at once if nobody works on it, else as soon as its worker looks. Raises AlreadyEnded."""
    rows = _rows(job)
    # The attempt goes up, so that a worker that comes back from the dead cannot go on with it.
    ended = _free(rows).update(**_ending(JobStatus.CANCELLED, ""), attempt=F("attempt") + 1)
    if not ended and not rows.filter(status__in=UNFINISHED).update(is_cancel_wanted=True):
        raise AlreadyEnded("It has ended already; there is nothing to cancel.")
    job.refresh_from_db()


# --- The line ----------------------------------------------------------------------------------------------------


def ring(job_id: str) -> None:
    """Tell a worker that something waits. A broker that is down is no failure: the sweep rings again."""
    from registry.tasks import work_on_hub_jobs

    try:
        work_on_hub_jobs.apply_async([job_id], retry=False)
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about job %s: %s", job_id, error)


def claim_next(worker: str) -> HubJob | None:
    """Take the job that waited longest, under a lease; None if none waits."""
    waiting = [
        job
        for kind in KINDS
        for job in _free(kind.objects.all()).order_by("waits_since", "pk")[:10]  # type: ignore[attr-defined]
    ]
    for job in sorted(waiting, key=lambda row: row.waits_since):
        if _claim(job, worker):
            return job
    return None


def _free(rows: QuerySet[HubJob]) -> QuerySet[HubJob]:
    """Those that nobody holds, or whose holder was lost."""
    now = timezone.now()
    return rows.filter(status__in=UNFINISHED).filter(Q(lease_until=None) | Q(lease_until__lt=now))


def _claim(job: HubJob, worker: str) -> bool:
    now = timezone.now()
    won = _free(_rows(job).filter(attempt=job.attempt)).update(
        status=JobStatus.RUNNING,
        attempt=F("attempt") + 1,
        worker=worker[:200],
        lease_until=_lease_end(),
        started_at=Coalesce("started_at", Value(now)),
    )
    if won:
        was_lost = job.lease_until is not None
        job.refresh_from_db()
        job.was_lost = was_lost  # type: ignore[attr-defined]
    return bool(won)


# --- A worker's part ---------------------------------------------------------------------------------------------


def drain() -> None:
    """Begin nothing more; what is at work stops at the next piece and goes back in line."""
    _draining.set()


def is_draining() -> bool:
    return _draining.is_set()


def mine(job: HubJob) -> QuerySet[Any]:
    """The job's row, as long as this hold of it counts."""
    return _rows(job).filter(status=JobStatus.RUNNING, attempt=job.attempt)


def look(job: HubJob) -> None:
    """Go on? Raises CancelWanted, LeaseLost, Draining."""
    if _draining.is_set():
        raise Draining
    wanted = mine(job).values_list("is_cancel_wanted", flat=True).first()
    if wanted is None:
        raise LeaseLost(job.pk)
    if wanted:
        raise CancelWanted


def give_back(job: HubJob) -> None:
    """The end of a step: to the end of the line."""
    mine(job).update(lease_until=None, waits_since=timezone.now(), worker="")


def end(job: HubJob, status: str, error: str = "") -> bool:
    """End it for good; whether it was still ours to end. The token goes with it."""
    return bool(mine(job).update(**_ending(status, error)))


@contextmanager
def heartbeat(job: HubJob) -> Iterator[None]:
    """Renews the lease from a thread while the block runs: one file can take longer than a lease."""
    over = threading.Event()

    def beat() -> None:
        try:
            while not over.wait(settings.JOB_HEARTBEAT_S):
                try:
                    if not mine(job).update(lease_until=_lease_end()):
                        return
                except DatabaseError:  # the next beat may reach it; if none does, the lease runs out
                    logger.warning("job %s: a heartbeat did not reach the database", job.pk, exc_info=True)
        finally:
            connection.close()

    thread = threading.Thread(target=beat, name=f"heartbeat-{job.pk}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _rows(job: HubJob) -> QuerySet[HubJob]:
    rows: QuerySet[HubJob] = type(job).objects.filter(pk=job.pk)  # type: ignore[attr-defined]
    return rows


def _lease_end() -> object:
    return timezone.now() + timedelta(seconds=settings.JOB_LEASE_S)


def _ending(status: str, error: str) -> dict[str, object]:
    return {
        "status": status,
        "error": error,
        "finished_at": timezone.now(),
        "lease_until": None,
        "sealed_token": "",
    }


# --- The sweep ---------------------------------------------------------------------------------------------------


def sweep() -> dict[str, int]:
    """Ring for what nobody came for, and drop tokens that are older than they may get: how many of each."""
    now = timezone.now()
    counts = {"rung": 0, "tokens": 0}
    overdue = now - timedelta(seconds=settings.JOB_RING_AGAIN_S)
    too_old = now - timedelta(seconds=settings.HUB_TOKEN_KEPT_S)
    for kind in KINDS:
        rows: QuerySet[HubJob] = kind.objects.all()  # type: ignore[attr-defined]
        unheard = _free(rows).filter(Q(rung_at__lt=overdue) | Q(rung_at=None)).order_by("waits_since")
        for job in unheard[:RING_AT_ONCE]:
            if unheard.filter(pk=job.pk).order_by().update(rung_at=now):
                ring(job.pk)
                counts["rung"] += 1
        # Old ones open nothing any more; gone is better still. The job finds out when it needs it.
        kept = rows.exclude(sealed_token="").exclude(sealed_token=EXPIRED)
        counts["tokens"] += kept.filter(created_at__lt=too_old).update(sealed_token=EXPIRED)
    return counts


def forget_old() -> int:
    """Remove imports and pushes that ended HUB_JOBS_KEPT_DAYS ago; how many. What they made stays, with its origin."""
    if not settings.HUB_JOBS_KEPT_DAYS:
        return 0
    cutoff = timezone.now() - timedelta(days=settings.HUB_JOBS_KEPT_DAYS)
    count = 0
    for kind in KINDS:
        old = kind.objects.filter(finished_at__lt=cutoff).exclude(status__in=UNFINISHED)  # type: ignore[attr-defined]
        count += old.count()
        old.delete()
    return count


def run_guarded(job: HubJob, step: Callable[[], None], *, on_cancel: Callable[[], None]) -> None:
    """Do one step of a claimed job, and whatever its end means."""
    try:
        with heartbeat(job):
            look(job)
            step()
    except LeaseLost:
        logger.warning("job %s, hold %d, is no longer ours", job.pk, job.attempt)
    except CancelWanted:
        if end(job, JobStatus.CANCELLED):
            on_cancel()
    except Draining:
        give_back(job)
    except DomainError as error:
        end(job, JobStatus.FAILED, error.message)
    except DatabaseError:
        # Nothing can be written now; the lease runs out, and another hold goes on.
        logger.exception("job %s: the database did not answer", job.pk)
        connection.close()
    except Exception:
        # The traceback goes to the log; the owner gets a sentence we can stand behind.
        logger.exception("job %s stopped", job.pk)
        end(job, JobStatus.FAILED, OUR_ERROR)
    else:
        give_back(job)
