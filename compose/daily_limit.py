"""How often one person may have compositions scored on a task's hidden rows in a day: else these would be learnt by heart."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from compose.models import Composition
from registry.models import Task, User
from registry.rights import Person
from web.errors import DomainError

Status = Composition.Status
DAY = timedelta(days=1)


class DailyLimit(DomainError):
    code = "daily_limit"
    status = 429

    def __init__(self, task: Task, next_at: datetime) -> None:
        limit = settings.MAX_SCORED_PER_TASK_PER_DAY
        super().__init__(
            f"You have used today's {limit} scored compositions for {task.slug!r}. The next one is possible at "
            f"{next_at:%H:%M} UTC on {next_at:%d %B}; or compose on the same examples without naming the task.",
            fields={"task": [f"At most {limit} in 24 hours."]},
        )


def used(person: User, task: Task) -> list[datetime]:
    """When this person's compositions of the last 24 hours that count were asked for, the oldest first.

    One that failed or was cancelled before its scoring began is given back. From then on it has told how many of the
    hidden rows are among its examples, whatever becomes of it, and who can make it fail could ask that for nothing.
    """
    mine = _counting().filter(owner=person, task=task)
    return list(mine.order_by("created_at").values_list("created_at", flat=True))


def counts_until(composition: Composition) -> datetime | None:
    """Until when a composition counts for its owner's day on its task; None where it does not."""
    counts = _counting().filter(pk=composition.pk, task__isnull=False).exists()
    return composition.created_at + DAY if counts else None


def _counting() -> QuerySet[Composition]:
    scored = Composition.objects.filter(has_hidden_test=True, created_at__gt=timezone.now() - DAY)
    return scored.exclude(status__in=[Status.FAILED, Status.CANCELLED], has_begun_scoring=False)


def require_left(person: User, task: Task) -> None:
    """Raises DailyLimit if this person has used up the day's scored compositions for this task."""
    times = used(person, task)
    if len(times) >= settings.MAX_SCORED_PER_TASK_PER_DAY:
        raise DailyLimit(task, times[-settings.MAX_SCORED_PER_TASK_PER_DAY] + DAY)


def for_person(person: Person, task: Task) -> str:
    """A sentence about what is allowed, and for somebody who is signed in what is left of it."""
    limit = settings.MAX_SCORED_PER_TASK_PER_DAY
    if person is None or not isinstance(person, User):
        return f"Each person may have {limit} compositions a day scored here."
    left = max(0, limit - len(used(person, task)))
    return f"You may have {left} more of {limit} compositions scored here within 24 hours."
