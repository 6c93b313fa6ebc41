"""Keyset pages: the cursor holds the last row's sort values, so rows that come or go neither repeat nor hide others."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import F, Model, Q, QuerySet
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from web.errors import DomainError

MAX_PAGE_SIZE = 100
M = TypeVar("M", bound=Model)


class BadCursor(DomainError):
    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__(
            "This cursor is not one of ours or belongs to another order; start again without it.",
            fields={"cursor": ["Not a cursor of this list."]},
        )


class BadPageSize(DomainError):
    code = "bad_page_size"

    def __init__(self, given: str) -> None:
        super().__init__(
            f"A page holds 1 to {MAX_PAGE_SIZE} rows; you asked for {given[:20]!r}.",
            fields={"limit": [f"A whole number from 1 to {MAX_PAGE_SIZE}."]},
        )


@dataclass(frozen=True)
class Page(Generic[M]):
    items: list[M]
    next_cursor: str | None


def paginate(queryset: QuerySet[M], *, order: tuple[str, ...], cursor: str | None, size: int) -> Page[M]:
    """One page of `queryset` in `order`, from behind `cursor`.

    `order` names fields or annotations that are never null, with a leading minus for descending; the last one
    must be unique. Raises BadCursor.
    """
    if cursor:
        try:
            queryset = queryset.filter(_behind(order, _decode(cursor, order)))
        except (TypeError, ValueError, ValidationError) as error:  # of another kind than its field
            raise BadCursor from error
    try:
        rows = list(queryset.order_by(*order)[: size + 1])
    except OverflowError as error:  # a moment at the calendar's end, which another timezone puts behind it
        raise BadCursor from error
    items = rows[:size]
    has_more = len(rows) > size
    return Page(items=items, next_cursor=_encode(items[-1], order) if has_more else None)


def begins_behind(cursor: str | None, order: tuple[str, ...]) -> Any:
    """The first field's value in the row that a page comes after; None for the first page. Raises BadCursor."""
    return _decode(cursor, order)[0] if cursor else None


def next_page(request: Request, cursor: str | None) -> str | None:
    """The whole address of the page behind `cursor`; None at the end."""
    if not cursor:
        return None
    query = request.query_params.copy()
    query["cursor"] = cursor
    return request.build_absolute_uri(f"{request.path}?{query.urlencode()}")


def page_size(given: str | None) -> int:
    """The `limit` parameter as a number of rows. Raises BadPageSize."""
    if given in (None, ""):
        return int(str(settings.REST_FRAMEWORK["PAGE_SIZE"]))
    if not (given.isascii() and given.isdigit() and len(given) < 4 and 1 <= int(given) <= MAX_PAGE_SIZE):
        raise BadPageSize(given)
    return int(given)


def cursor_of(values: list[Any]) -> str:
    """The values as a cursor, which `values_in` reads."""
    text = json.dumps(values, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def values_in(cursor: str) -> Any:
    """What JSON the cursor holds, of any kind: whoever reads it checks it. Raises BadCursor."""
    try:
        return json.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError) as error:
        raise BadCursor from error


def _behind(order: tuple[str, ...], values: list[Any]) -> Q:
    """Rows that come after `values`: greater in one field and equal in all before it."""
    condition = Q()
    equal = Q()
    for field, value in zip(order, values, strict=True):
        name = field.lstrip("-")
        step = "lt" if field.startswith("-") else "gt"
        condition |= equal & Q(**{f"{name}__{step}": value})
        equal &= Q(**{name: value})
    return condition & _enters_at(order, values)


def _enters_at(order: tuple[str, ...], values: list[Any]) -> Q:
    """The same once more without an "or": a database then enters an index at this row, and does not read all before it."""
    is_down = order[0].startswith("-")
    names = [field.lstrip("-") for field in order]
    if any(field.startswith("-") != is_down for field in order):
        return Q(**{f"{names[0]}__{'lte' if is_down else 'gte'}": values[0]})
    row = Tuple(*map(F, names))
    return Q(TupleLessThan(row, values) if is_down else TupleGreaterThan(row, values))


def _encode(row: Model, order: tuple[str, ...]) -> str:
    values = [_json_ready(getattr(row, field.lstrip("-"))) for field in order]
    return cursor_of([list(order), values])


def _decode(cursor: str, order: tuple[str, ...]) -> list[Any]:
    try:
        given_order, values = values_in(cursor)
        if tuple(given_order) != order or len(values) != len(order):
            raise BadCursor
        return [_from_json(value) for value in values]
    except (ValueError, TypeError, KeyError) as error:
        raise BadCursor from error


def _json_ready(value: Any) -> Any:
    return {"t": value.isoformat()} if isinstance(value, datetime) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        moment = datetime.fromisoformat(value["t"])
        if moment.tzinfo is None:
            raise BadCursor
        return moment
    if isinstance(value, bool | None) or not isinstance(value, int | float | str):
        raise BadCursor
    if isinstance(value, str):
        if "\x00" in value:
            raise BadCursor
        value.encode()  # half a character is no text for a database
    elif not abs(value) < 2**62:  # nor infinite, nor no number
        raise BadCursor
    return value


class KeysetPagination(BasePagination):
    """DRF's door to `paginate`: `cursor` and `limit` in the query, `next` and `results` in the answer.

    A view names its order in `keyset_order` or by a method `get_keyset_order()`.
    """

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        order = view.get_keyset_order() if hasattr(view, "get_keyset_order") else view.keyset_order
        self.request = request
        self.page: Page[Any] = paginate(
            queryset,
            order=order,
            cursor=request.query_params.get("cursor"),
            size=page_size(request.query_params.get("limit")),
        )
        return self.page.items

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": next_page(self.request, self.page.next_cursor), "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["next", "results"],
            "properties": {
                "next": {"type": "string", "format": "uri", "nullable": True},
                "results": schema,
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": "cursor",
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": "Taken from `next` of the page before.",
            },
            {
                "name": "limit",
                "in": "query",
                "required": False,
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE},
                "description": "Rows on a page.",
            },
        ]
