"""Scripts on pages of other sites, where OPEN_TO_OTHER_SITES lets them ask (CORS): clients of the Hub run in browsers too."""

from __future__ import annotations

import re
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse

# The API but for its page, and what of the Hub protocol is not below it: files, Git LFS, Xet.
_OPEN = re.compile(r"/(?:api(?!/docs)|xet)/|/[^/]+(?:/[^/]+)?/(?:resolve|raw)/|/[^/]+/[^/]+\.git/info/lfs/")
_ALWAYS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
_BEFOREHAND = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, *",  # the star leaves that one out
    "Access-Control-Max-Age": "86400",
}


class CrossOriginMiddleware:
    """Lets browsers hand our answers to scripts of any site, which come as guests or by a token that they hold.

    Never by cookies: to `*` a browser gives no answer of a request that it sent them with. Pages are left out.
    https://fetch.spec.whatwg.org/#cors-protocol-and-credentials
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        if not settings.OPEN_TO_OTHER_SITES:
            raise MiddlewareNotUsed
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not _OPEN.match(request.path):
            return self.get_response(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return HttpResponse(status=204, headers=_ALWAYS | _BEFOREHAND)
        response = self.get_response(request)
        for name, value in _ALWAYS.items():
            response[name] = value
        return response
