"""What compositions say about the modules they tried: how often each helped, and how much was lost without it."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta

from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import Greatest, TruncDate
from django.utils import timezone

from compose.models import Candidate, Composition
from registry import standing
from registry.standing import Usefulness

# Compositions that every module is taken to have failed in before its first: one lucky success is no proof.
DOUBT = 5


def usefulness() -> dict[int, Usefulness]:
    """Adapter -> the rise of the loss without it, summed over the compositions that tried it, over (how many + 5).

    Only succeeded compositions count, and only other people's: nobody makes their own module useful. A module that was
    left out, or without which the loss fell, adds nothing and counts as a try.
    """
    rows = (
        _tries()
        .values("revision__adapter_id")
        .annotate(
            # Not of candidates: two versions of one adapter may be in one composition.
            tries=Count("composition", distinct=True),
            uses=Count("composition", distinct=True, filter=~Q(mixing_weight=0)),
            helped=Sum(Greatest("attribution", 0.0), filter=~Q(mixing_weight=0)),
        )
        .order_by()
    )
    return {
        row["revision__adapter_id"]: Usefulness(
            round((row["helped"] or 0.0) / (row["tries"] + DOUBT), 6), row["uses"]
        )
        for row in rows
    }


def uses_by_day() -> dict[int, dict[date, float]]:
    """Adapter -> day -> other people's compositions that ended that day and gave it a weight, as far as trending looks."""
    since = timezone.now() - timedelta(days=standing.TRENDING_DAYS)
    rows = (
        _tries()
        .filter(composition__finished_at__gte=since)
        .exclude(mixing_weight=0)
        .values_list("revision__adapter_id", TruncDate("composition__finished_at"))
        .annotate(count=Count("composition", distinct=True))
        .order_by()
    )
    found: dict[int, dict[date, float]] = defaultdict(dict)
    for pk, day, count in rows:
        found[pk][day] = count
    return found


def refresh_standing() -> int:
    """Write trending and usefulness down for the search; how many adapters moved."""
    return standing.refresh(uses=uses_by_day(), usefulness=usefulness())


def _tries() -> QuerySet[Candidate]:
    return Candidate.objects.filter(
        composition__status=Composition.Status.SUCCEEDED, mixing_weight__isnull=False
    ).exclude(revision__adapter__created_by=F("composition__owner"))
