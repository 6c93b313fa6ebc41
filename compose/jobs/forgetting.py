"""Texts that people gave are not kept for ever: FEW_SHOT_KEPT_DAYS after its end a composition holds none.

And of compositions that their owner removes, or that go with the account, only how many there were is kept.
"""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, QuerySet
from django.utils import timezone

from compose.models import Composition, Kept, LogLine, RemovedTally

AT_ONCE = 200
Status = Composition.Status
REASON_GONE = "It failed; the reason is no longer kept, since it may quote the examples."


def forget_texts() -> int:
    """Remove examples, predictions and what may quote them from what ended long ago: of how many compositions.

    Scores, mixing weights and trials stay, and so does how many rows there were: each is kept as an empty one.
    """
    if not settings.FEW_SHOT_KEPT_DAYS:
        return 0
    cutoff = timezone.now() - timedelta(days=settings.FEW_SHOT_KEPT_DAYS)
    old = Composition.objects.filter(finished_at__lt=cutoff, examples_removed_at=None).order_by("finished_at")
    count = 0
    while some := list(old.defer("result", "predictions")[:AT_ONCE]):  # all that are due, and few in memory
        count += sum(forget_texts_of(composition) for composition in some)
    return count


@transaction.atomic
def forget_texts_of(composition: Composition) -> bool:
    """Remove the texts of one that has ended; False if they were gone before."""
    empty = {"input": "", "output": ""}
    changed = Composition.objects.filter(pk=composition.pk, examples_removed_at=None).update(
        examples=[empty] * len(composition.examples),
        test_examples=[empty] * len(composition.test_examples),
        predictions=[],
        # Why one was cancelled is a sentence of ours and quotes nothing.
        error=REASON_GONE if composition.error and composition.status == Status.FAILED else composition.error,
        examples_removed_at=timezone.now(),
    )
    LogLine.objects.filter(composition=composition).delete()
    Kept.objects.filter(composition=composition).delete()
    return bool(changed)


@transaction.atomic
def remove(compositions: QuerySet[Composition]) -> int:
    """Delete compositions and all that hangs on them: how many there were. How those ended stays counted."""
    by_status = compositions.order_by().values_list("status").annotate(count=Count("pk"))
    counts: dict[str, int] = dict(by_status)
    for status, count in counts.items():
        RemovedTally.objects.get_or_create(status=status)
        RemovedTally.objects.filter(status=status).update(count=F("count") + count)
    compositions.delete()
    return sum(counts.values())


def ended() -> dict[str, int]:
    """How many compositions ended in each way since the site began, those that were removed included."""
    there = Composition.objects.order_by().values_list("status").annotate(count=Count("pk"))
    kept: dict[str, int] = dict(there)
    gone: dict[str, int] = dict(RemovedTally.objects.values_list("status", "count"))
    return {
        status: kept.get(status, 0) + gone.get(status, 0)
        for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
    }
