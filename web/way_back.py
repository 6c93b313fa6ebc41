"""Where to send somebody from an address that is no page: to the one they came from, or the one above."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.http import HttpRequest
from django.urls import Resolver404, resolve

# Beginnings of addresses that are no page themselves.
_NO_PAGES = frozenset({"/accounts", "/admin", "/api", "/organizations"})


def page_before(request: HttpRequest) -> str:
    """The page of ours from which this request came, else the nearest one above its address."""
    referrer = urlsplit(request.headers.get("Referer", ""))
    is_ours = referrer.scheme == request.scheme and referrer.netloc == request.get_host()
    # Many a form is sent to the address of the page that it is on; a page that was asked for does not lead back to itself.
    leads_on = request.method == "POST" or referrer.path != request.path
    if is_ours and leads_on and _is_ours(referrer.path):
        return referrer.path + (f"?{referrer.query}" if referrer.query else "")
    return page_above(request.path)


def page_above(path: str) -> str:
    """`/alice/colour/like` -> `/alice/colour`, `/settings/tokens/3/revoke` -> `/settings/tokens`."""
    parts = path.strip("/").split("/")
    above = ["/" + "/".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    return next((address for address in above if _is_ours(address)), "/")


def _is_ours(path: str) -> bool:
    """Whether there may be a page. `/settings/deliveries` looks like a module of somebody called settings, who cannot be."""
    if path in _NO_PAGES:
        return False
    try:
        route = resolve(path).route
    except Resolver404:
        return False
    first = "/" + path.strip("/").split("/")[0]
    return not route.startswith("<") or first == path or resolve(first).route.startswith("<")
