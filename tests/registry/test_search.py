from __future__ import annotations

import pytest
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from registry import search
from registry.models import Adapter, AdapterScore
from registry.search import AdapterQuery, BadParameter
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
)
from web.errors import DomainError

pytestmark = pytest.mark.django_db


def names(query: str, person: object = None) -> list[str]:
    """Names of what `query`, the part of an address behind "?", finds, in order."""
    parsed = AdapterQuery.parse(QueryDict(query))
    return [adapter.name for adapter in search.find(parsed, person=person).items]  # type: ignore[arg-type]


@pytest.fixture
def shelf() -> dict[str, Adapter]:
    """Five public adapters that differ in everything, and a private one."""
    t5, llama = make_base_model("google/flan-t5-large"), make_base_model("meta/llama")
    t5.aliases.create(text="flan-large")
    owner, lab = make_user("ada"), make_organisation("story-lab")
    who = make_task("who", title="Who did it")
    shelf = {
        "a": make_adapter("who-plain", owner=owner, base_model=t5, task=who, rank=4, downloads=5, tags=["stories"],
                          facts={"target_names": ["q", "v"]}),
        "b": make_adapter("who-twice", namespace=lab, base_model=t5, rank=16, best_score=0.9, license="Apache-2.0"),
        "c": make_adapter("where", owner=owner, base_model=llama, rank=8, kind="composed", best_score=0.2, language="en"),
        "d": make_adapter("odd", owner=owner, base_model_label="someone/unknown", rank=64, description="50% of _it_"),
        "e": make_adapter("dora", owner=owner, base_model=t5, is_composable=False, rank=4),
        "f": make_adapter("hidden", owner=owner, base_model=t5, visibility="private"),
    }  # fmt: skip
    Adapter.objects.filter(pk=shelf["d"].pk).update(size_bytes=7_000_000)
    AdapterScore.objects.create(adapter=shelf["c"], task=who, source="verified", value=0.7)
    return shelf


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["dora", "odd", "where", "who-twice", "who-plain"]),
        ("q=WHO", ["who-plain", "who-twice"]),
        ("q=who+twice", ["who-twice"]),
        ("q=did", ["who-plain"]),
        ("q=story-lab", ["who-twice"]),
        ("q=stories", ["who-plain"]),
        ("q=flan", ["who-plain", "dora", "who-twice"]),
        ("q=someone/unknown", ["odd"]),
        ("q=50%25", ["odd"]),
        ("q=_it_", ["who-plain", "odd"]),
        ("q=who&sort=new", ["who-twice", "who-plain"]),
        ("q=twise", ["who-twice"]),
        ("q=wher&sort=new", ["where"]),
        ("targets=v,q", ["who-plain"]),
        ("language=EN", ["where"]),
        ("size=5-19", ["odd"]),
        ("size=-4", ["dora", "where", "who-twice", "who-plain"]),
        ("scored_on=who", ["where"]),
        ("q=hidden", []),
        ("task=who", ["who-plain"]),
        ("base=google/FLAN-t5-large", ["dora", "who-twice", "who-plain"]),
        ("base=flan-large&composable=yes", ["who-twice", "who-plain"]),
        ("base=someone/unknown", ["odd"]),
        ("base=nobody/knows", []),
        ("composable=no", ["dora", "odd"]),
        ("rank=8", ["where"]),
        ("rank=5-16", ["where", "who-twice"]),
        ("rank=16-", ["odd", "who-twice"]),
        ("rank=-4", ["dora", "who-plain"]),
        ("license=apache-2.0", ["who-twice"]),
        ("kind=composed", ["where"]),
        ("namespace=Story-Lab", ["who-twice"]),
        ("sort=downloads", ["who-plain", "dora", "odd", "where", "who-twice"]),
        ("sort=score&base=flan-large", ["who-twice", "dora", "who-plain"]),
        ("q=nothing+like+it", []),
    ],
)
def test_each_parameter_narrows_the_list_as_it_says(shelf, query, found):
    assert names(query) == found


def test_members_find_what_is_private_and_others_do_not(shelf):
    owner = shelf["f"].namespace.memberships.get().user
    assert "hidden" in names("", owner)
    assert "hidden" not in names("", make_user())


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("page=2", "page"),
        ("sort=best", "sort"),
        ("rank=", ""),
        ("rank=x", "rank"),
        ("rank=16-4", "rank"),
        ("rank=0", "rank"),
        ("rank=99999", "rank"),
        ("rank=-", "rank"),
        ("rank=٣", "rank"),
        ("composable=perhaps", "composable"),
        ("kind=lora", "kind"),
        ("limit=1000", "limit"),
        ("q=a&q=b", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=" + "+".join("abcdefghijk"), "q"),
        ("q=%00", "q"),
        ("q=--%25", "q"),
        ("sort=relevance", "sort"),
        ("size=x", "size"),
        ("size=9-3", "size"),
        ("task=%0a%07", "task"),
    ],
)
def test_a_parameter_that_is_unknown_or_unusable_is_refused_by_name(query, parameter):
    if not parameter:
        AdapterQuery.parse(QueryDict(query))
        return
    with pytest.raises(DomainError) as caught:
        AdapterQuery.parse(QueryDict(query))
    assert parameter in caught.value.fields


def test_a_query_written_as_an_address_reads_back_the_same():
    text = "q=who+did&task=who&base=gpt2&composable=no&rank=4-16&license=mit&kind=module&sort=score&limit=50"
    query = AdapterQuery.parse(QueryDict(text))
    assert AdapterQuery.parse(QueryDict(query.url_with())) == query
    assert not query.without("rank").rank
    assert "base" not in query.url_with(base="")
    assert not AdapterQuery.parse(QueryDict("sort=score")).is_narrowed


def test_composes_with_counts_the_others_of_the_family_that_one_may_see(shelf):
    owner = shelf["f"].namespace.memberships.get().user

    def counts(person: object) -> dict[str, int]:
        rows = search.find(AdapterQuery(), person=person).items  # type: ignore[arg-type]
        return {row.name: row.composes_with for row in rows}

    assert counts(None) == {"who-plain": 1, "who-twice": 1, "where": 0, "odd": 0, "dora": 0}
    assert counts(owner)["who-plain"] == 2
    assert set(search.composes_with(shelf["a"], person=None)) == {shelf["b"]}


def test_facets_count_exactly_under_all_other_parameters(shelf):
    query = AdapterQuery.parse(QueryDict("base=google/flan-t5-large&rank=4"))
    facets = {facet.parameter: facet for facet in search.facets(query, person=None)}
    assert {value.value: value.count for value in facets["base"].values} == {"google/flan-t5-large": 2}
    assert {value.value: value.count for value in facets["rank"].values} == {"4": 2, "16": 1}
    assert {value.value: value.count for value in facets["composable"].values} == {"yes": 1, "no": 1}
    assert [value.value for value in facets["rank"].values if value.is_chosen] == ["4"]
    assert [(value.label, value.count) for value in facets["task"].values] == [("Who did it", 1)]


def test_every_facet_value_finds_as_many_as_it_counts(shelf):
    query = AdapterQuery()
    for facet in search.facets(query, person=None):
        for value in facet.values:
            narrowed = AdapterQuery.parse(QueryDict(query.url_with(**{facet.parameter: value.value})))
            assert search.count(narrowed, person=None) == value.count, (facet.parameter, value)


def test_the_rarest_facet_values_are_counted_but_not_listed():
    owner = make_user()
    for number in range(35):
        make_adapter(owner=owner, rank=number + 1)
    facets = {facet.parameter: facet for facet in search.facets(AdapterQuery(), person=None)}
    assert (len(facets["rank"].values), facets["rank"].more) == (30, 5)


def test_a_page_of_results_with_all_facets_takes_few_queries_at_any_size(shelf):
    for size in (0, 40):
        for _ in range(size):
            make_adapter(namespace=namespace_of(make_user()), base_model=shelf["a"].base_model)
        with CaptureQueriesContext(connection) as queries:
            found = search.find(AdapterQuery(q="mod"), person=None, with_facets=True)
            for adapter in found.items:
                _ = (adapter.namespace.name, adapter.base_model, adapter.task, adapter.head.composable_reason)
        assert len(queries) <= 7


def test_pages_neither_repeat_nor_lose_rows_while_others_come(shelf):
    first = search.find(AdapterQuery(sort="score", limit=2), person=None)
    make_adapter("newcomer", best_score=1.0)
    rest = search.find(AdapterQuery(sort="score", cursor=first.next_cursor or ""), person=None)
    seen = [adapter.name for adapter in [*first.items, *rest.items]]
    assert sorted(seen) == sorted(["dora", "odd", "where", "who-plain", "who-twice"])


def test_bad_parameter_is_a_400():
    assert BadParameter("x", "y").status == 400
