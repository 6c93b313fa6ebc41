"""How often a module was fetched on each of the last days, as numbers and as the bars that templates/registry/_download_days.html draws."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import ClassVar

from django.core.cache import cache
from django.db.models import Count
from django.utils import timezone

from registry.models import Adapter, Download

DAYS = 30
PAST_KEPT_S = 24 * 3600
HEIGHT = 40  # of the bar of the busiest day
_STEP = 100 / DAYS


@dataclass(frozen=True)
class DownloadDay:
    """`count` as `downloads.count_download` counts: each client once for each version; days are those of UTC."""

    day: date
    count: int


@dataclass(frozen=True)
class Bar:
    """`x` in per cent of the picture, `y` and `height` in its own units."""

    day: DownloadDay
    x: float
    y: float
    height: float


@dataclass(frozen=True)
class Picture:
    bars: list[Bar]
    total: int
    busiest: DownloadDay
    bar_width: ClassVar = round(_STEP * 0.75, 2)  # in per cent
    line_y: ClassVar = HEIGHT + 0.5
    height: ClassVar = HEIGHT + 1


def days_of(adapter: Adapter) -> list[DownloadDay]:
    """Each of the last 30 days since it is here, today last, those without a download too."""
    today = timezone.now().date()
    first = max(today - timedelta(days=DAYS - 1), adapter.created_at.date())
    counts = _counts_between(adapter, first, today) if adapter.downloads else {}
    days = (first + timedelta(days=passed) for passed in range((today - first).days + 1))
    return [DownloadDay(day, counts.get(day, 0)) for day in days]


def draw(days: list[DownloadDay]) -> Picture | None:
    """A bar for each day; None where there was no download, which is a sentence and no picture."""
    total = sum(day.count for day in days)
    if not total:
        return None
    busiest = max(days, key=lambda day: day.count)
    start = 100 - _STEP * len(days)  # today stands at the right, however many days there are
    bars = []
    for place, day in enumerate(days):
        # Even one beside thousands is to be seen.
        tall = max(HEIGHT * day.count / busiest.count, 1.5) if day.count else 0.0
        bars.append(Bar(day, round(start + _STEP * place, 2), round(HEIGHT - tall, 2), round(tall, 2)))
    return Picture(bars, total, busiest)


def _counts_between(adapter: Adapter, first: date, today: date) -> dict[date, int]:
    """What is past is kept: of a module that very many fetch each day it is most of what there is to count."""
    # A download about midnight is written down a moment later, as one of yesterday.
    yesterday = today - timedelta(days=1)
    key = f"downloads:{adapter.pk}:{first}:{today}"
    past: dict[date, int] | None = cache.get(key)
    if past is not None:
        return past | _counts(adapter, yesterday, today)
    counts = _counts(adapter, first, today)
    cache.set(key, {day: count for day, count in counts.items() if day < yesterday}, PAST_KEPT_S)
    return counts


def _counts(adapter: Adapter, first: date, last: date) -> dict[date, int]:
    rows = Download.objects.filter(revision__adapter=adapter, day__range=(first, last))
    return dict(rows.values_list("day").annotate(Count("pk")).order_by())
