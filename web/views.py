"""Pages that belong to no subject: documentation, errors, and whether the site is up."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponsePermanentRedirect, JsonResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.urls import Resolver404, resolve, reverse
from django.utils.encoding import iri_to_uri
from django.utils.http import escape_leading_slashes

from web import api_errors, way_back
from web.errors import NOTHING_HERE, DomainError, Forbidden, NotFound
from web.rate_limits import Rate

# Address below /docs -> title. The order is that of the menu.
DOCS = {
    "": "Start here",
    "composing": "Composing",
    "uploading": "Upload rules",
    "api": "API",
    "limits": "Limits",
}


def health(request: HttpRequest) -> JsonResponse:
    """200 while the web process reaches its database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


class FormTooOld(Forbidden):
    code = "form_too_old"
    advice = (
        "Loading the page again brings back what you typed, or else your browser’s Back does. If this goes on, let this "
        "site keep its cookies."
    )

    def __init__(self) -> None:
        super().__init__(
            "This form was too old, or came from another site. Load its page again and repeat it."
        )


def docs(request: HttpRequest, page: str = "") -> HttpResponse:
    """A page of documentation; its text is a template."""
    if page not in DOCS:
        raise Http404
    rates = {**settings.REQUEST_RATES["api"], "files": settings.REQUEST_RATES["resolvers"]["user"]}
    context: dict[str, Any] = {
        "section": "docs",
        "pages": [(f"/docs/{slug}".rstrip("/"), title, slug == page) for slug, title in DOCS.items()],
        "page_title": DOCS[page],
        "site": request.build_absolute_uri("/").rstrip("/"),
        "limits": settings,
        "rates": {name: Rate.parse(rate) for name, rate in rates.items()},
    }
    return render(request, f"docs/{page or 'start'}.html", context)


def api_reference(request: HttpRequest) -> HttpResponse:
    """The API's schema as a page that needs no scripts."""
    from web.api_reference import reference  # the generator is slow to load, and few pages need it

    return render(request, "docs/api_reference.html", {"section": "docs", "reference": reference()})


def robots(request: HttpRequest) -> HttpResponse:
    """Crawlers may read pages; downloads, forms and the API are not for them."""
    closed = ["/api/", "/accounts/", "/admin/", "/settings", "/upload", "/compose", "/*/download/"]
    sitemap = f"Sitemap: {request.build_absolute_uri(reverse('sitemap'))}"
    lines = ["User-agent: *", *(f"Disallow: {path}" for path in closed), "", sitemap, ""]
    return HttpResponse("\n".join(lines), content_type="text/plain; charset=utf-8")


def favicon(request: HttpRequest) -> HttpResponse:
    """For clients that ask here whatever the page says."""
    return redirect(static("favicon.svg"))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Where only a slash at the end is too much, the page without it; scripts and the Hub's clients are not redirected.

    Scripts are told where it is one too few.
    """
    bare = request.path.rstrip("/")
    is_page = request.method in {"GET", "HEAD"} and not request.path.startswith("/api/")
    if isinstance(exception, Resolver404) and is_page and bare != request.path:
        with suppress(Resolver404):
            resolve(bare)
            query = request.META.get("QUERY_STRING", "")
            return HttpResponsePermanentRedirect(
                escape_leading_slashes(iri_to_uri(quote(bare))) + (f"?{query}" if query else "")
            )
    if request.path.startswith("/api/v1/") and bare == request.path:
        with suppress(Resolver404):
            resolve(f"{bare}/")
            return answer_error(
                request, NotFound(f"There is nothing at this address; it ends with a slash: {bare}/")
            )
    return answer_error(request, NotFound(NOTHING_HERE))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer_error(request, Forbidden("You may not do this."))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """A request that could not be read, in the words of the refusal where the exception is one."""
    if isinstance(exception, DomainError):
        return answer_error(request, exception)
    if isinstance(exception, RequestDataTooBig):
        most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 1024**2
        too_big = DomainError(f"The text in this form is larger than {most} MB. Give it as a file instead.")
        too_big.code, too_big.status = "too_large", 413
        return answer_error(request, too_big)
    return answer_error(request, DomainError("The request could not be read."))


def too_many_requests(request: HttpRequest) -> HttpResponse:
    """For forms that are counted (ACCOUNT_RATE_LIMITS); the longest that somebody who is no machine has to wait."""
    by_the_hour = {reverse("account_signup"), reverse("account_reset_password")}
    words, wait_s = ("an hour", 3600) if request.path in by_the_hour else ("five minutes", 300)
    error = DomainError(f"Too many attempts. Wait {words}, then try again.")
    error.code, error.status, error.retry_after_s = "too_many_requests", 429, wait_s
    return answer_error(request, error)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return answer_error(request, FormTooOld())


def server_error(request: HttpRequest) -> HttpResponse:
    """Whatever no view caught; a database that is away is often found before there is a view."""
    outage = api_errors.refusal_of(sys.exc_info()[1])
    if outage is not None:
        return answer_error(request, outage)
    error = DomainError("Something broke on our side. It has been logged; try again in a moment.")
    error.code, error.status = "server_error", 500
    return answer_error(request, error)


def answer_error(request: HttpRequest, error: DomainError) -> HttpResponse:
    """A refusal as a page, in the API's shape below /api/, or as the sentence alone for a part of a page."""
    if request.path.startswith("/api/"):
        return api_errors.json_error(error)
    if "HX-Request" in request.headers:
        response = _answer_a_part(request, error)
    else:
        back = way_back.page_before(request) if error.status < 500 else ""
        response = render(request, "error.html", {"error": error, "back": back}, status=error.status)
    for name, value in api_errors.headers_of(error).items():
        response[name] = value
    return response


def _answer_a_part(request: HttpRequest, error: DomainError) -> HttpResponse:
    """To a page that asked for a part of itself: the sentence, which site.js shows on it."""
    words = error.message
    # On our own faults the database is not asked who somebody is: it may be what broke.
    if error.status == 404 and not request.user.is_authenticated:
        words += " If you were signed in, do so again in another tab."
    return HttpResponse(words, content_type="text/plain; charset=utf-8", status=error.status)
