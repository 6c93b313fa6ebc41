"""Which workers there are: each says every few seconds that it is there and what it has in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from compose.models import Composition, Worker

KEPT = timedelta(days=1)
SILENT_AFTER_BEATS = 3


def report(
    name: str,
    *,
    bell: str = "",
    warm: Iterable[str] = (),
    is_full: bool = False,
    oom_kills: int | None = None,
) -> None:
    """This worker is there; `bell` names the queue of the broker that it alone hears, `oom_kills`: see `say_begun`."""
    Worker.objects.update_or_create(
        name=name[:200],
        defaults={
            "bell": bell[:200],
            "warm": sorted(warm),
            "heartbeat_at": Now(),
            "is_leaving": False,
            "is_full": is_full,
            "oom_kills": oom_kills,
        },
    )


def say_begun(name: str, *, oom_kills: int | None) -> None:
    """A process of this name begins. One before it that did not say that it was going is gone; where its kernel has killed
    something for memory since that one was last heard, that was probably it.

    `oom_kills` is how many processes that were since the machine was started, None where its kernel does not tell.
    """
    if oom_kills is not None:
        before = Worker.objects.filter(name=name[:200], oom_kills__lt=oom_kills)
        before.update(oom_kills=oom_kills, killed_for_memory_at=Now())


def say_leaving(name: str) -> None:
    """It takes no more; what it held is given back by `release_all`."""
    Worker.objects.filter(name=name[:200]).update(is_leaving=True, heartbeat_at=Now())


def say_gone(name: str) -> None:
    Worker.objects.filter(name=name[:200]).delete()


def heard_lately() -> Q:
    """By its own row, or that of what it holds: one of which this is not so has missed three heartbeats."""
    return Q(heartbeat_at__gte=Now() - timedelta(seconds=SILENT_AFTER_BEATS * settings.JOB_HEARTBEAT_S))


def _here() -> QuerySet[Worker]:
    return Worker.objects.filter(heard_lately(), is_leaving=False)


def _open() -> QuerySet[Worker]:
    return _here().filter(is_full=False)


def idle() -> list[Worker]:
    """Workers that are there, would take something, and hold nothing, in the order of their names."""
    busy = Composition.objects.filter(status=Composition.Status.RUNNING).values("worker")
    return list(_open().exclude(name__in=busy).order_by("name"))


def present() -> bool:
    """Whether any worker is there that would take something."""
    return _open().exists()


def are_full() -> bool:
    """Whether workers are there, and none takes anything since their disks are full."""
    return _here().exists() and not present()


def forget_the_gone() -> None:
    """What nothing was heard of for a day."""
    Worker.objects.filter(heartbeat_at__lt=Now() - KEPT).delete()
