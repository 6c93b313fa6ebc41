"""Pages that belong to no subject: errors, and whether the site is up."""

from __future__ import annotations

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from web import api_errors
from web.errors import DomainError, Forbidden, NotFound


def health(request: HttpRequest) -> JsonResponse:
    """200 while the web process reaches its database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, NotFound("There is nothing at this address, or you may not see it."))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, Forbidden("You may not do this."))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, DomainError("The request could not be read."))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(
        request,
        Forbidden("This form was too old or came from another site. Load the page again and repeat it."),
    )


def server_error(request: HttpRequest) -> HttpResponse:
    error = DomainError("Something broke on our side. It has been logged; try again in a moment.")
    error.code, error.status = "server_error", 500
    return _answer(request, error)


def _answer(request: HttpRequest, error: DomainError) -> HttpResponse:
    if request.path.startswith("/api/"):
        return api_errors.json_error(error)
    return render(request, "error.html", {"error": error}, status=error.status)
