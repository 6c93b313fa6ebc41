"""Long answers in pages: the client follows `Link: <…>; rel="next"`, which has to be absolute."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TypeVar

from django.http import HttpRequest, JsonResponse

from web.errors import DomainError

T = TypeVar("T")


class BadNumber(DomainError):
    code = "bad_parameter"


def whole_number(request: HttpRequest, name: str, *, default: int, most: int) -> int:
    """A parameter as a number from 0 to `most`; larger ones become `most`. Raises BadNumber."""
    given = request.GET.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise BadNumber(f"{name!r} is a whole number, not {given[:40]!r}.")
    return min(int(given), most)


def is_true(request: HttpRequest, name: str) -> bool:
    return request.GET.get(name, "").lower() in {"1", "true"}


def expanded(request: HttpRequest) -> set[str]:
    """The fields that are asked for by name, instead of the usual ones. Those that are none here are left out."""
    return {*request.GET.getlist("expand"), *request.GET.getlist("expand[]")} - {""}


def page(request: HttpRequest, rows: Iterable[T], *, size: int) -> tuple[list[T], str]:
    """The page of `rows` that the cursor, a place in the list, asks for, and the next cursor ("" at the end).

    For lists that never change, such as the files of a commit.
    """
    start = whole_number(request, "cursor", default=0, most=10**9)
    found = list(islice(rows, start, start + size + 1))
    return found[:size], str(start + size) if len(found) > size else ""


def json_page(
    request: HttpRequest, rows: list[object], *, next_cursor: str | None, name: str = "cursor"
) -> JsonResponse:
    """`rows` as JSON, with the address of the next page if there is one: this one with `next_cursor` as its `name`."""
    response = JsonResponse(rows, safe=False)
    if next_cursor:
        params = request.GET.copy()
        params[name] = next_cursor
        response["Link"] = f'<{request.build_absolute_uri(request.path)}?{params.urlencode()}>; rel="next"'
    return response
