"""How much one namespace may keep: modules, and bytes of all their versions. For whoever runs the site to set."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db.models import Count, Sum

from registry.models import Adapter, Namespace, Revision
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
