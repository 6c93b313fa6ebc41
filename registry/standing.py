"""How an adapter stands: what is trending and what has proved useful, written into the search rows once an hour."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from django.db import connection, transaction
from django.db.models import Count, F, Q
from django.db.models.functions import TruncDate
from django.utils import timezone

from registry.models import Download, Like, SearchRow

TRENDING_DAYS = 14
DECAY = 0.8  # a day; what happened a week ago counts a fifth
LIKE_WORTH = 3  # downloads
USE_WORTH = 5  # a composition that gave it a weight
ROWS_AT_ONCE = 500
IDS_AT_ONCE = 10_000  # Postgres takes 65,535 values in one query, and SQLite 32,766 or more

# Adapter -> day -> how much happened.
Activity = Mapping[int, Mapping[date, float]]


@dataclass(frozen=True)
class Usefulness:
    """`value`: see compose.usefulness; `uses`: compositions that gave it a weight."""

    value: float
    uses: int


def trending_of(days: Mapping[date, float], today: date) -> float:
    """The sum over days of log(1 + what happened), each day that has passed since counting 0.8 of the next."""
    return sum(
        math.log1p(happened) * DECAY ** (today - day).days
        for day, happened in days.items()
        if 0 <= (today - day).days < TRENDING_DAYS
    )


def refresh(*, uses: Activity | None = None, usefulness: Mapping[int, Usefulness] | None = None) -> int:
    """Write trending and usefulness of every adapter down, where they have changed; how many rows that were.

    `uses` is how often compositions used an adapter on a day.
    """
    today = timezone.now().date()
    activity = _activity(today)
    for pk, days in (uses or {}).items():
        for day, count in days.items():
            activity[pk][day] += USE_WORTH * count
    useful = usefulness or {}
    wanted = {
        pk: (round(trending_of(activity.get(pk, {}), today), 6), useful.get(pk, Usefulness(0.0, 0)))
        for pk in {*activity, *useful}
    }
    changed = []
    for row in _rows_of(wanted):
        trending, proved = wanted.get(row.pk, (0.0, Usefulness(0.0, 0)))
        if (row.trending, row.usefulness, row.uses) != (trending, proved.value, proved.uses):
            row.trending, row.usefulness, row.uses = trending, proved.value, proved.uses
            changed.append(row)
    return sum(
        _write(changed[start : start + ROWS_AT_ONCE]) for start in range(0, len(changed), ROWS_AT_ONCE)
    )


@transaction.atomic
def _write(rows: Sequence[SearchRow]) -> int:
    """So few that nobody waits long. Those that somebody writes to at this moment are left for the next time, or each would wait
    for the other.
    """
    free = SearchRow.objects.select_for_update(skip_locked=True).filter(pk__in=[row.pk for row in rows])
    ids = set(free.values_list("pk", flat=True))
    values = [(row.trending, row.usefulness, row.uses, row.pk) for row in rows if row.pk in ids]
    with connection.cursor() as cursor:
        # Each by itself: the one statement of a bulk update looks for every row through the values of all, which takes
        # thirty times as long.
        cursor.executemany(
            "UPDATE registry_searchrow SET trending = %s, usefulness = %s, uses = %s WHERE adapter_id = %s",
            values,
        )
    return len(values)


def _rows_of(wanted: Collection[int]) -> Iterator[SearchRow]:
    """Of the adapters that had some standing, and of those that are to have some."""
    rows = SearchRow.objects.only("trending", "usefulness", "uses")
    had_some = rows.filter(Q(trending__gt=0) | Q(usefulness__gt=0) | Q(uses__gt=0))
    seen = set()
    for row in had_some:
        seen.add(row.pk)
        yield row
    new = [pk for pk in wanted if pk not in seen]
    for start in range(0, len(new), IDS_AT_ONCE):
        yield from rows.filter(pk__in=new[start : start + IDS_AT_ONCE])


def _activity(today: date) -> dict[int, dict[date, float]]:
    since = today - timedelta(days=TRENDING_DAYS - 1)
    downloads = (
        Download.objects.filter(day__gte=since)
        .values_list(F("revision__adapter_id"), "day")
        .annotate(count=Count("pk"))
        .order_by()
    )
    likes = (
        Like.objects.filter(created_at__date__gte=since)
        .values_list("adapter_id", TruncDate("created_at"))
        .annotate(count=Count("pk"))
        .order_by()
    )
    activity: dict[int, dict[date, float]] = defaultdict(lambda: defaultdict(float))
    for worth, rows in ((1, downloads), (LIKE_WORTH, likes)):
        _add(activity, rows, worth)
    return activity


def _add(activity: dict[int, dict[date, float]], rows: Iterable[tuple[int, date, int]], worth: float) -> None:
    for pk, day, count in rows:
        activity[pk][day] += worth * count
