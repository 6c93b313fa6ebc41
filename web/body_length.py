"""Refuses bodies that do not say how long they are, which Django reads as empty: what they ask for would be lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.http import HttpRequest, HttpResponse

from web import views
from web.errors import DomainError

V = TypeVar("V", bound=Callable[..., Any])


class LengthNeeded(DomainError):
    code = "length_needed"
    status = 411

    def __init__(self) -> None:
        super().__init__(
            "Say how long the body is (Content-Length). One that comes in chunks without it is not read here."
        )


def require_length(request: HttpRequest) -> None:
    """Raises LengthNeeded for a body that comes in chunks."""
    if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
        raise LengthNeeded


def requires_length_itself(view: V) -> V:
    """Marks a view that calls `require_length` and answers in a shape of its own."""
    view.requires_length_itself = True  # type: ignore[attr-defined]
    return view


class BodyLengthMiddleware:
    """Answers 411 for every view that is not marked. It stands before the check of forms, which reads the body."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        if getattr(view, "requires_length_itself", False):
            return None
        try:
            require_length(request)
        except LengthNeeded as error:
            return views.answer_error(request, error)
        return None
