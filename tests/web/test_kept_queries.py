"""Queries whose SQL is made once: they say what the same query says that is made anew."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.db.models import Count, F

from registry.models import Adapter
from tests.factories import make_adapter
from web.kept_queries import KeptQuery, ids_of, number_of, text_of

pytestmark = pytest.mark.django_db


def called() -> KeptQuery[Adapter]:
    return KeptQuery(
        lambda name: (
            Adapter.objects.filter(name__iexact=name)
            .select_related("namespace", "head")
            .annotate(twice=F("downloads") * 2)
        ),
        text_of("name"),
    )


def test_each_asking_has_values_of_its_own():
    kept = called()
    made = [make_adapter(name=name) for name in ("colour", "animal", "100-percent")]
    assert [kept.rows(name=adapter.name.upper()) for adapter in made] == [[adapter] for adapter in made]
    for odd in ("", "%", "colou_", "'; --", "%s"):
        assert kept.rows(name=odd) == []


def test_rows_are_what_is_there_now(django_assert_num_queries):
    kept = called()
    adapter = make_adapter(name="colour", description="before")
    assert kept.rows(name="colour")[0].description == "before"
    Adapter.objects.filter(pk=adapter.pk).update(description="after", downloads=3)
    with django_assert_num_queries(1):
        (found,) = kept.rows(name="colour")
        assert (found.description, found.twice) == ("after", 6)  # type: ignore[attr-defined]
        assert found.head is not None
        assert (found.namespace.pk, found.head.pk) == (adapter.namespace_id, adapter.head_id)
    Adapter.objects.filter(pk=adapter.pk).update(name="animal")
    assert kept.rows(name="colour") == []


def test_any_number_of_ids_may_be_given():
    kept = KeptQuery(
        lambda among, most: Adapter.objects.filter(pk__in=among, downloads__lte=most).order_by("pk"),
        ids_of("among"),
        number_of("most"),
    )
    made = [make_adapter(name=f"colour-{place}") for place in range(4)]
    for count in range(5):
        assert kept.rows(among=[adapter.pk for adapter in made[:count]], most=10) == made[:count]
    assert kept.rows(among=[made[0].pk, 2**40], most=-1) == []


@pytest.mark.django_db(transaction=True)
def test_threads_ask_by_connections_of_their_own():
    kept = called()
    made = [make_adapter(name=f"colour-{place}") for place in range(8)]

    def ask(adapter: Adapter) -> list[Adapter]:
        try:
            return kept.rows(name=adapter.name)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, made)) == [[adapter] for adapter in made]


def test_values_alone_may_be_asked_for():
    kept = KeptQuery(
        lambda most: (
            Adapter.objects.filter(downloads__lte=most).values_list("kind").annotate(Count("pk")).order_by()
        ),
        number_of("most"),
    )
    assert kept.tuples(most=10) == []
    for place in range(3):
        make_adapter(name=f"colour-{place}")
    assert kept.tuples(most=10) == [("module", 3)]
