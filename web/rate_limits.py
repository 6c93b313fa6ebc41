"""So many requests in a fixed window: what is left of it, counted in the cache that all web processes share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.core.cache import cache

from web.templatetags.formatting import plural

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_WORDS = {"s": "second,seconds", "m": "minute,minutes", "h": "hour,hours"}


@dataclass(frozen=True)
class Rate:
    """`count` requests in each window of `window_s` seconds."""

    count: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`500/5m`: so many in so many seconds, minutes or hours."""
        count, window = text.split("/")
        return cls(int(count), int(window[:-1] or "1") * _SECONDS[window[-1]])

    def __str__(self) -> str:
        """`500 requests in 5 minutes`."""
        unit = next(name for name in ("h", "m", "s") if self.window_s % _SECONDS[name] == 0)
        length = self.window_s // _SECONDS[unit]
        return f"{plural(self.count, 'request,requests')} in {plural(length, _WORDS[unit])}"


@dataclass(frozen=True)
class Budget:
    """What one client has left: `remaining` of `rate.count`, anew in `reset_s` seconds. `is_over` once it was too much."""

    name: str
    rate: Rate
    remaining: int
    reset_s: int
    is_over: bool

    def headers(self) -> dict[str, str]:
        """Source: IETF draft-ietf-httpapi-ratelimit-headers-09, as the Hub sends it and its clients read it."""
        return {
            "RateLimit": f'"{self.name}";r={self.remaining};t={self.reset_s}',
            "RateLimit-Policy": f'"fixed window";"{self.name}";q={self.rate.count};w={self.rate.window_s}',
        }


def spend(name: str, who: str, rate: Rate) -> Budget:
    """Count one request of `who`. A cache that is away counts nothing, so nobody is kept out by it."""
    now = time.time()
    window, into_it = divmod(now, rate.window_s)
    key = f"rate:{name}:{who}:{rate.window_s}:{int(window)}"
    cache.add(key, 0, timeout=rate.window_s + 1)
    try:
        used = cache.incr(key)
    except ValueError:  # thrown out of the cache between the two lines
        used = 1
    return Budget(
        name=name,
        rate=rate,
        remaining=max(0, rate.count - used),
        reset_s=max(1, round(rate.window_s - into_it)),
        is_over=used > rate.count,
    )
