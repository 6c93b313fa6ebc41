"""Figures about requests, for Prometheus, over all processes of the web server together.

Only where METRICS_TOKEN is set. The processes share files in PROMETHEUS_MULTIPROC_DIR, which config/gunicorn.py empties
when the server starts.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram

Handler = Callable[[HttpRequest], HttpResponse]
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


@cache
def _figures() -> tuple[Counter, Histogram]:
    """Made once for each process."""
    from prometheus_client import Counter, Histogram  # decides on import where it keeps its figures

    requests = Counter("lora_http_requests", "Answers given.", ["method", "route", "status"])
    seconds = Histogram(
        "lora_http_request_seconds", "From request to answer.", ["method", "route"], buckets=SECONDS
    )
    return requests, seconds


class MetricsMiddleware:
    """Counts requests and their seconds by method, route and status; a route is a pattern, never an address."""

    def __init__(self, get_response: Handler) -> None:
        if not settings.METRICS_TOKEN:
            raise MiddlewareNotUsed
        self.get_response = get_response
        self.requests, self.seconds = _figures()

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.monotonic()
        response = self.get_response(request)
        found = getattr(request, "resolver_match", None)
        route = found.route if found else "none"
        method = (
            request.method if request.method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} else "other"
        )
        self.requests.labels(method, route, str(response.status_code)).inc()
        self.seconds.labels(method, route).observe(time.monotonic() - began)
        return response


def may_read(request: HttpRequest) -> bool:
    """Whoever sends METRICS_TOKEN as a bearer token; nobody where it is not set."""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(given, settings.METRICS_TOKEN.encode())
