"""Numbers, sizes and times as people read them."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

THIN_SPACE = "\u202f"  # narrow and unbreakable: a number stays with its unit
MINUS = "\u2212"
# Up to which distance in seconds which unit is used, and how long it is.
_DISTANCES = [
    (45 * 60, "minute", 60.0),
    (22 * 3600, "hour", 3600.0),
    (26 * 86_400, "day", 86_400.0),
    (320 * 86_400, "month", 30.4 * 86_400),
]


def _scaled(number: float, units: tuple[str, ...]) -> tuple[float, str]:
    """The number in the first of its units, each 1000 of the one before, that leaves three digits."""
    value = float(number)
    for unit in units[:-1]:
        if abs(value) < 999.5:
            return value, unit
        value /= 1000
    return value, units[-1]


@register.filter
def size(size_bytes: int | None) -> str:
    """98304 -> `98.3 kB`. Units of 1000, as disks and downloads count."""
    if size_bytes is None:
        return "–"
    value, unit = _scaled(size_bytes, ("bytes", "kB", "MB", "GB", "TB"))
    digits = 0 if unit == "bytes" or value >= 99.95 else 1
    text = f"{value:.{digits}f}".removesuffix(".0")
    if unit == "bytes" and size_bytes == 1:
        unit = "byte"
    return f"{text}{THIN_SPACE}{unit}"


@register.filter
def count(number: int | None) -> str:
    """2114 -> `2,114`."""
    return "–" if number is None else f"{number:,}"


@register.filter
def compact(number: int | None) -> str:
    """1234 -> `1.2k`, 24_000_000 -> `24M`: for narrow columns."""
    if number is None:
        return "–"
    value, unit = _scaled(number, ("", "k", "M", "B", "T"))
    digits = 0 if unit == "" or abs(value) >= 9.95 else 1
    return f"{value:.{digits}f}".removesuffix(".0") + unit


@register.filter
def decimals(value: float | None, digits: int = 2) -> str:
    """0.4137 -> `0.41`, with a real minus sign."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


@register.filter
def signed(value: float | None, digits: int = 2) -> str:
    """0.94 -> `+0.94`, -0.3 -> `−0.30`; nothing has no sign."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", MINUS)


@register.filter
def shortest(value: float | None) -> str:
    """16.0 -> `16`, 0.5 -> `0.5`: a number of a configuration as one would type it."""
    return "–" if value is None else f"{value:g}"


@register.filter
def fact(value: Any) -> str:
    """A fact of a weight file, whatever it is: [4, 8] -> `4, 8`, 18432 -> `18,432`, 8.0 -> `8`; nothing -> `–`."""
    if value is None or value in ([], ""):
        return "–"
    if isinstance(value, list):
        return ", ".join(fact(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


@register.filter
def duration(seconds: float | None) -> str:
    """75 -> `1 min 15 s`."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f}{THIN_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{THIN_SPACE}h {minutes}{THIN_SPACE}min"
    return f"{minutes}{THIN_SPACE}min {rest}{THIN_SPACE}s" if minutes else f"{rest}{THIN_SPACE}s"


@register.filter
def plural(number: int | str | None, words: str) -> str:
    """`{{ n|plural:"module,modules" }}` -> `1 module`, `2,114 modules`; `– modules` where the number is missing."""
    one, many = words.split(",")
    if not isinstance(number, int):
        return f"– {many}"
    return f"{number:,} {one if number == 1 else many}"


@register.simple_tag
def when(moment: datetime | None) -> SafeString | str:
    """`3 days ago`, with the exact time on hover and for machines."""
    if moment is None:
        return "never"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        moment.strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        relative(moment),
    )


def relative(moment: datetime, now: datetime | None = None) -> str:
    """`just now`, `3 days ago`, `in 2 months`."""
    seconds = ((now or timezone.now()) - moment).total_seconds()
    distance = abs(seconds)
    if distance < 45:
        return "just now"
    number, unit = round(distance / 31_536_000) or 1, "year"
    for limit, name, length in _DISTANCES:
        if distance < limit:
            number, unit = max(1, round(distance / length)), name
            break
    words = f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{words} ago" if seconds > 0 else f"in {words}"


@register.simple_tag
def querystring_for(**params: str) -> str:
    """`{% querystring_for base="gpt2" %}` -> `base=gpt2`, quoted for an address; empty values are left out."""
    return urlencode({name: value for name, value in params.items() if value not in ("", None)})
