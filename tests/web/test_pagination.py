"""Cursors that somebody wrote by hand, in the lists that `paginate` cuts into pages."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from registry.models import Adapter
from tests.factories import make_adapter, make_user
from tests.plans import plans
from web.pagination import cursor_of, paginate

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "moment",
    [{"t": "2026-01-01T00:00:00+00:00"}, "2026-01-01T00:00:00+00:00"],
    ids=["as-a-moment", "as-text"],
)
def test_a_cursor_of_the_right_kinds_is_taken(moment: Any):
    cursor = cursor_of([["-created_at", "-id"], [moment, 3]])
    assert Client().get("/hashes", {"sha256": "0" * 64, "cursor": cursor}).status_code == 200


@pytest.mark.parametrize(
    "values",
    [
        [{"t": "2026-01-01T00:00:00+00:00"}, float("inf")],
        [{"t": "2026-01-01T00:00:00+00:00"}, float("nan")],
        [{"t": "2026-01-01T00:00:00+00:00"}, 2**63],
        [5, 3],
        ["\ud800", 3],
        ["\x00", 3],
        [None, 3],
        [{}, 3],
        [[], 3],
    ],
)
def test_values_that_no_row_has_are_refused(values: list[Any]):
    cursor = cursor_of([["-created_at", "-id"], values])
    assert Client().get("/hashes", {"sha256": "0" * 64, "cursor": cursor}).status_code == 400


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_moment_at_the_end_of_the_calendar_breaks_nothing(moment: str, as_text: bool):
    cursor = cursor_of([["-created_at", "-id"], [moment if as_text else {"t": moment}, 3]])
    answer = Client().get("/hashes", {"sha256": "0" * 64, "cursor": cursor})
    assert answer.status_code in (200, 400)  # which of the two is the database's matter


@pytest.mark.parametrize("text", ["\ud800", "\x00"])
def test_text_that_a_database_does_not_take_is_refused(text: str):
    assert Client().get("/tasks", {"cursor": cursor_of([["slug"], [text]])}).status_code == 400


@pytest.mark.parametrize("cursor", ["x", "é", "e30", cursor_of([]), cursor_of([[], []]), cursor_of([5, [5]])])
def test_what_is_no_cursor_of_this_list_is_refused(cursor: str):
    assert Client().get("/tasks", {"cursor": cursor}).status_code == 400


ORDERS = [("-downloads", "-id"), ("downloads", "id"), ("-downloads", "id"), ("id",)]


@pytest.mark.parametrize("order", ORDERS)
def test_pages_hold_every_row_once_and_in_order_also_where_many_are_level(order: tuple[str, ...]):
    owner = make_user("ada")
    for number in range(7):
        make_adapter(f"m{number}", owner=owner, downloads=number % 2)
    found: list[Adapter] = []
    cursor: str | None = ""
    while cursor is not None:
        page = paginate(Adapter.objects.all(), order=order, cursor=cursor, size=2)
        found, cursor = found + page.items, page.next_cursor
    assert found == list(Adapter.objects.order_by(*order))


@pytest.mark.postgres_only
def test_a_page_far_down_is_not_reached_by_way_of_all_before_it():
    order = ("-downloads", "-id")
    adapters = [make_adapter(f"m{number}", owner=make_user(f"ada{number}")) for number in range(2)]
    cursor = cursor_of([list(order), [0, adapters[1].pk]])
    rows = Adapter.objects.alive()
    with plans() as lines:
        assert paginate(rows, order=order, cursor=cursor, size=5).items == adapters[:1]
    assert any("Index Cond: (ROW(" in line for line in lines), lines
