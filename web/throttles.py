"""How many API requests one client may make. A courtesy between users, not a defence."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle


class _WindowThrottle(SimpleRateThrottle):
    def parse_rate(self, rate: str | None) -> tuple[int | None, int | None]:
        """`500/5m`: so many in so many seconds, minutes or hours."""
        if not rate:
            return None, None
        count, window = rate.split("/")
        seconds = int(window[:-1]) * {"s": 1, "m": 60, "h": 3600}[window[-1]]
        return int(count), seconds


class AnonymousThrottle(_WindowThrottle):
    scope = "anonymous"

    def get_cache_key(self, request: Request, view: object) -> str | None:
        if request.user and request.user.is_authenticated:
            return None
        return f"throttle:anonymous:{self.get_ident(request)}"


class UserThrottle(_WindowThrottle):
    scope = "user"

    def get_cache_key(self, request: Request, view: object) -> str | None:
        if not (request.user and request.user.is_authenticated):
            return None
        return f"throttle:user:{request.user.pk}"
