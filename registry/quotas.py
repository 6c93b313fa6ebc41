"""How much one namespace may keep: modules, bytes of all their versions, tasks. For whoever runs the site to set.

Whoever adds to a namespace holds it (`hold`) before they ask for room, or two at once would both fit into the last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Count, Sum
from django.utils import timezone

from registry.models import Adapter, Namespace, Revision, Task, TaskRevision
from web.errors import DomainError
from web.templatetags.formatting import size


@dataclass(frozen=True)
class Use:
    """What a namespace keeps; the limits are 0 where there is none."""

    adapters: int
    size_bytes: int

    @property
    def may_keep(self) -> int:
        return settings.MAX_ADAPTERS_PER_NAMESPACE

    @property
    def may_fill(self) -> int:
        return settings.MAX_BYTES_PER_NAMESPACE


class QuotaReached(DomainError):
    code = "quota_reached"
    status = 403


class TooManyTaskRevisions(DomainError):
    code = "too_many_task_revisions"
    status = 429


def hold(*namespaces: Namespace) -> None:
    """Until this transaction ends nobody else adds to these namespaces or deletes them: what is counted here stays true.

    To be called before a module or a task in them is held, which is the order of whoever deletes a namespace. What was read of
    them is to be asked again afterwards: one that somebody deletes at this moment is waited for, and gone then.
    """
    rows = Namespace.objects.select_for_update(no_key=True).filter(pk__in=[one.pk for one in namespaces])
    list(rows.order_by("pk").values_list("pk"))


def use_of(namespace: Namespace) -> Use:
    """What counts: all that is not deleted. Equal files of several versions count each time."""
    kept = Adapter.objects.filter(namespace=namespace, deleted_at=None)
    sums = kept.aggregate(adapters=Count("pk", distinct=True), bytes=Sum("revisions__size_bytes"))
    return Use(sums["adapters"], sums["bytes"] or 0)


def require_room_for_one_more(namespace: Namespace) -> None:
    """Raises QuotaReached."""
    most = settings.MAX_ADAPTERS_PER_NAMESPACE
    if most and _adapters(namespace) >= most:
        raise QuotaReached(
            f"{namespace.name} has {most:,} modules, the most one namespace may have here. Publish new versions of "
            "those, or delete some."
        )


def require_room_for_a_task(namespace: Namespace) -> None:
    """Raises QuotaReached, and TooManyTaskRevisions for today's."""
    most = settings.MAX_TASKS_PER_NAMESPACE
    if most and Task.objects.filter(owner=namespace, is_held_out=True).count() >= most:
        raise QuotaReached(
            f"{namespace.name} has {most:,} tasks with rows, the most one namespace may have here. Delete one that "
            "nobody uses."
        )
    require_task_rows_today(namespace)


def require_task_rows_today(namespace: Namespace) -> None:
    """Raises TooManyTaskRevisions if no more rows are taken for tasks of this namespace today."""
    most = settings.MAX_TASK_REVISIONS_PER_DAY
    since = timezone.now() - timedelta(days=1)
    if most and TaskRevision.objects.filter(task__owner=namespace, created_at__gt=since).count() >= most:
        raise TooManyTaskRevisions(
            f"{namespace.name} has made {most:,} tasks or new rows for tasks within 24 hours, the most that are taken. "
            "Come back tomorrow."
        )


def require_bytes(namespace: Namespace, more: int) -> None:
    """Raises QuotaReached where `more` bytes would be too many."""
    most = settings.MAX_BYTES_PER_NAMESPACE
    if most and more and _bytes(namespace) + more > most:
        raise QuotaReached(
            f"With these {size(more)} {namespace.name} would keep more than {size(most)}, the most one namespace may "
            "here. Delete what is no longer needed."
        )


def _adapters(namespace: Namespace) -> int:
    return Adapter.objects.filter(namespace=namespace, deleted_at=None).count()


def _bytes(namespace: Namespace) -> int:
    kept = Revision.objects.filter(adapter__namespace=namespace, adapter__deleted_at=None)
    return kept.aggregate(sum=Sum("size_bytes"))["sum"] or 0
