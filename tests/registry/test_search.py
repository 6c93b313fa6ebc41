from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from django.db import connection
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from benchmarks.search import questions
from registry import search
from registry.models import Adapter, AdapterScore, AdapterText, Ref, SavedSearch, SearchRow, User
from registry.search import AdapterQuery, BadParameter, Facet, columns, finding, upkeep
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.plans import plans
from web.errors import DomainError
from web.pagination import BadCursor

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
        "a": make_adapter("who-plain", owner=owner, base_model=t5, task=who, rank=4, downloads=5, tags=["stories", "short answers"],
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
        ("tag=Stories", ["who-plain"]),
        ("tag=short+answers", ["who-plain"]),
        ("tag=stor", []),
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


@pytest.mark.postgres_only
def test_what_a_member_sees_beyond_everybody_is_not_looked_for_among_all_of_their_organisation(shelf):
    owner = shelf["f"].namespace.memberships.get().user
    with plans() as lines:
        assert "hidden" in names("", owner)
    assert any("adapter_not_for_everybody" in line for line in lines), lines


def test_with_what_is_in_quarantine_nothing_composes_in_lists_either(shelf):
    held, free = shelf["f"], shelf["a"]
    owner = held.namespace.memberships.get().user
    Adapter.objects.filter(pk=held.pk).update(quarantined_at=timezone.now())
    listed = {row.pk: row.composes_with for row in search.find(AdapterQuery(), person=owner).items}
    alone = {pk: search.family_size(Adapter.objects.get(pk=pk), person=owner) for pk in (free.pk, held.pk)}
    rows = {row.pk: row.composes_with for row in search.rows_of(list(alone), person=owner)}
    assert {pk: listed[pk] for pk in alone} == alone == rows == {free.pk: 1, held.pk: 0}
    assert search.modules_by_base(person=owner)[free.base_model_id] == (4, 2)
    assert search.families(person=owner)[free.base_model_id] == 2


def test_counts_by_task_and_kind_are_of_what_lists_show_this_person(shelf):
    owner = shelf["f"].namespace.memberships.get().user
    for person in (None, owner):
        by_task = search.modules_by_task(person=person)
        tasks = {row.task for row in Adapter.objects.select_related("task") if row.task}
        assert {task.pk: by_task.get(task.pk, 0) for task in tasks} == {
            task.pk: search.count(AdapterQuery(task=task.slug), person=person) for task in tasks
        }
        assert search.kinds(person=person) == {
            kind: search.count(AdapterQuery(kind=kind), person=person) for kind in Adapter.Kind.values
        }
    assert search.kinds(person=owner)[Adapter.Kind.MODULE] > search.kinds(person=None)[Adapter.Kind.MODULE]


def test_facets_count_exactly_under_all_other_parameters(shelf):
    query = AdapterQuery.parse(QueryDict("base=google/flan-t5-large&rank=4"))
    facets = {facet.parameter: facet for facet in search.find(query, person=None, with_facets=True).facets}
    assert {value.value: value.count for value in facets["base"].values} == {"google/flan-t5-large": 2}
    assert {value.value: value.count for value in facets["rank"].values} == {"4": 2, "16": 1}
    assert {value.value: value.count for value in facets["composable"].values} == {"yes": 1, "no": 1}
    assert [value.value for value in facets["rank"].values if value.is_chosen] == ["4"]
    assert [(value.label, value.count) for value in facets["task"].values] == [("Who did it", 1)]


def test_counts_that_are_kept_follow_every_change(shelf, monkeypatch: pytest.MonkeyPatch):
    def look() -> object:
        found = search.find(AdapterQuery(), person=None, with_facets=True)
        return found.facets, {adapter.name: adapter.composes_with for adapter in found.items}

    table, fresh = columns.Columns(), columns.current
    counted: list[object] = []
    monkeypatch.setattr(finding._Search, "_facet_counts", spied(finding._Search._facet_counts, counted))
    for change, recounts in (
        ({}, True),
        ({"downloads": 7}, False),
        ({"is_composable": True, "rank": 64}, True),
        ({"visibility": "private"}, True),
        ({"visibility": "public", "license": "mit"}, True),
    ):
        Adapter.objects.filter(pk=shelf["e"].pk).update(**change)
        monkeypatch.setattr(columns, "current", lambda: table)
        counted.clear()
        kept = look()
        assert bool(counted) == recounts, change
        assert kept == look()
        monkeypatch.setattr(columns, "current", fresh)
        assert kept == look(), change


def spied(function: Callable[..., Any], calls: list[object]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    return call


def test_every_facet_value_finds_as_many_as_it_counts(shelf):
    query = AdapterQuery()
    for facet in search.find(query, person=None, with_facets=True).facets:
        for value in facet.values:
            narrowed = AdapterQuery.parse(QueryDict(query.url_with(**{facet.parameter: value.value})))
            assert search.count(narrowed, person=None) == value.count, (facet.parameter, value)


def test_the_rarest_facet_values_are_counted_but_not_listed():
    owner = make_user()
    for number in range(35):
        make_adapter(owner=owner, rank=number + 1)
    facets = {
        facet.parameter: facet for facet in search.find(AdapterQuery(), person=None, with_facets=True).facets
    }
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


def test_a_card_is_found_by_its_words_once_it_is_published(tmp_path, django_capture_on_commit_callbacks):
    make_base_model()
    with django_capture_on_commit_callbacks(execute=True):
        publish_fake(
            tmp_path, "carded", config={"card": "---\nlicense: mit\n---\n# Says *heliotrope* aloud\n"}
        )
    assert names("q=heliotrope") == ["carded"]
    AdapterText.objects.update(card="", card_of=None)
    assert names("q=heliotrope") == []
    assert upkeep.read_cards() == 1
    assert names("q=heliotrope") == ["carded"]
    assert upkeep.read_cards() == 0


def test_rows_and_texts_follow_every_way_of_writing(shelf):
    Adapter.objects.filter(name="odd").update(name="even", description="", is_composable=True)
    shelf["a"].namespace.name = "countess"
    shelf["a"].namespace.save()
    shelf["a"].task.title = "Whodunnit"
    shelf["a"].task.save(update_fields=["title"])
    assert names("q=even") == ["even"]
    assert names("q=countess+who") == ["who-plain"]
    assert names("q=whodunnit") == ["who-plain"]
    assert "even" in names("composable=yes")
    Adapter.objects.filter(name="even").update(quarantined_at=timezone.now())
    assert "even" not in names("")
    SearchRow.objects.filter(adapter=shelf["e"]).delete()
    assert "dora" not in names("")


@pytest.mark.django_db(transaction=True)
def test_what_a_process_keeps_in_memory_follows_what_was_committed_and_deleted():
    owner = make_user("ada")
    first = make_adapter("first", owner=owner, rank=4)
    assert names("rank=4") == ["first"]
    make_adapter("second", owner=owner, rank=4)
    Adapter.objects.filter(pk=first.pk).update(rank=8, downloads=3)
    assert names("rank=4") == ["second"]
    assert names("sort=downloads") == ["first", "second"]
    Adapter.objects.filter(pk=first.pk).update(head=None)
    Ref.objects.filter(adapter=first).delete()
    first.revisions.all().delete()
    first.delete()
    assert names("") == ["second"]


@pytest.mark.parametrize("seed", range(4))
def test_pages_of_every_order_hold_each_row_once_and_in_order(seed):
    generator = random.Random(seed)
    owner = make_user()
    for number in range(37):
        make_adapter(f"n{number}", owner=owner, downloads=generator.randrange(4), likes=generator.randrange(3),
                     best_score=generator.choice([None, 0.5, 0.25]))  # fmt: skip
    for sort in search.SORTS:
        query = AdapterQuery(q="n", sort=sort, limit=generator.choice([1, 5, 12]))
        seen: list[int] = []
        while True:
            found = search.find(query, person=None)
            seen += [item.pk for item in found.items]
            if not found.next_cursor:
                break
            query = replace(query, cursor=found.next_cursor)
        assert len(seen) == len(set(seen)) == found.count == 37, sort
        whole = search.find(AdapterQuery(q="n", sort=sort, limit=100), person=None)
        assert seen == [item.pk for item in whole.items], sort


@pytest.mark.parametrize("cursor", ["x", "e30", "WyJuZXciLDEsMV0", "WyJyZWxldmFuY2UiLHRydWUsMV0", "é"])
def test_a_cursor_that_is_not_of_this_list_is_refused(shelf, cursor):
    with pytest.raises(BadCursor):
        search.find(AdapterQuery(q="who", cursor=cursor), person=None)


def test_the_api_counts_facets_and_says_how_many_there_are(shelf):
    answer = Client().get("/api/v1/adapters/?q=twise")
    assert [row["name"] for row in answer.json()["results"]] == ["who-twice"]
    assert (answer["X-Total-Count"], answer["X-Search-Matched"]) == ("1", "similar-names")
    facets = Client().get("/api/v1/adapters/facets/?q=who").json()
    assert facets["count"] == 2
    by_name = {facet["parameter"]: facet["values"] for facet in facets["facets"]}
    assert {"value": "who", "label": "Who did it", "count": 1} in by_name["task"]
    bad = Client().get("/api/v1/adapters/facets/?colour=red")
    assert bad.status_code == 400
    assert "colour" in bad.json()["fields"]


def test_an_adapter_of_several_languages_is_found_by_each_and_counted_with_each(shelf):
    make_adapter("both", owner=User.objects.get(username="ada"), language="DE, en")
    assert names("language=de") == names("language=de,+en") == ["both"]
    assert names("language=EN") == ["both", "where"]
    assert names("language=d") == []
    facets = search.find(AdapterQuery(), person=None, with_facets=True).facets
    languages = next(facet.values for facet in facets if facet.parameter == "language")
    assert [(item.value, item.count) for item in languages] == [("en", 2), ("de", 1)]


def test_an_adapter_is_counted_with_each_of_its_tags_and_found_by_those_of_now(shelf, client):
    tags = [f"tag {number}" for number in range(35)]
    make_adapter("many", owner=User.objects.get(username="ada"), tags=["stories", *tags[:20]])
    make_adapter("more", owner=User.objects.get(username="ada"), tags=tags[15:])
    make_adapter("mine", owner=User.objects.get(username="ada"), tags=["stories"], visibility="private")

    def counted(query: str) -> Facet:
        found = search.find(AdapterQuery.parse(QueryDict(query)), person=None, with_facets=True)
        return next(facet for facet in found.facets if facet.parameter == "tag")

    facet = counted("")
    assert [(item.value, item.count) for item in facet.values[:7]] == [
        ("stories", 2), *((tag, 2) for tag in tags[15:20]), ("short answers", 1),
    ]  # fmt: skip
    assert (len(facet.values), facet.more) == (30, 7)
    facet = counted("tag=TAG+9&namespace=ada")
    assert [(item.value, item.is_chosen) for item in facet.values[30:]] == [("tag 9", True)]
    assert names("tag=tag+9") == ["many"]
    Adapter.objects.filter(name="many").update(tags=["tag 9", "new"])
    assert [(item.value, item.count) for item in counted("q=many").values] == [("new", 1), ("tag 9", 1)]
    page = client.get("/ada/many").content.decode()
    assert '<a class="chip" href="/modules?tag=tag+9">tag 9</a>' in page
    page = client.get("/modules?tag=tag+9").content.decode()
    assert 'aria-label="Remove the filter tagged tag 9"' in page
    assert client.get("/api/v1/adapters/?tag=tag+9").json()["results"][0]["name"] == "many"


def test_only_what_narrows_the_list_stands_beside_it(shelf, client):
    def facets(query: str) -> list[str]:
        return [facet["label"] for facet in client.get(f"/modules?{query}").context["facets"]]

    assert {"Tag", "Rank"} <= set(facets(""))
    assert facets("q=plain") == []  # one module, with two tags
    assert facets("q=plain&tag=stories") == ["Tag"]


def test_searches_are_kept_under_a_name_listed_and_forgotten(shelf, client):
    ada = User.objects.get(username="ada")
    client.force_login(ada)
    saved = client.post("/modules/saved", {"name": "Mine", "parameters": "q=who&sort=new&cursor=abc"})
    assert saved["Location"] == "/modules?q=who&sort=new"
    page = client.get("/modules?q=who&sort=new").content.decode()
    assert "Mine" in page
    assert 'name="parameters"' not in page  # it is saved already
    kept = SavedSearch.objects.get()
    client.force_login(make_user())
    assert client.post(f"/modules/saved/{kept.pk}/remove").status_code == 404
    client.force_login(ada)
    client.post(f"/modules/saved/{kept.pk}/remove")
    assert not SavedSearch.objects.exists()


@pytest.mark.parametrize(
    "given", [{"name": "", "parameters": "q=a"}, {"name": "x", "parameters": "colour=red"}]
)
def test_a_search_that_cannot_be_saved_is_refused(client, given):
    client.force_login(make_user())
    assert client.post("/modules/saved", given).status_code == 400
    assert not SavedSearch.objects.exists()


def test_a_name_that_is_kept_already_is_refused_beside_the_form_and_the_list_stays(shelf, client):
    client.force_login(make_user())
    client.post("/modules/saved", {"name": "Mine", "parameters": "q=who"})
    assert client.post("/modules/saved", {"name": "Mine", "parameters": "q=who"}).status_code == 302
    for given, status in (({"name": "Mine"}, 409), ({"name": " "}, 400)):
        refused = client.post("/modules/saved", {**given, "parameters": "q=colour"})
        assert refused.status_code == status
        page = refused.content.decode()
        assert 'id="save-problem"' in page
        assert 'name="parameters" value="q=colour"' in page
    assert SavedSearch.objects.get().parameters == "q=who"
    assert client.get("/modules/saved?q=who")["Location"] == "/modules?q=who"


def test_forgetting_a_search_leads_back_to_the_list_with_a_word_about_it(shelf, client):
    client.force_login(make_user())
    client.post("/modules/saved", {"name": "Mine", "parameters": "q=who"})
    kept = SavedSearch.objects.get()
    left = client.post(f"/modules/saved/{kept.pk}/remove", {"list": "q=colour&sort=new"}, follow=True)
    assert left.redirect_chain[-1][0] == "/modules?q=colour&sort=new"
    assert "“Mine” is forgotten." in left.content.decode()


def test_a_search_of_signs_alone_shows_the_list_and_keeps_what_was_typed(shelf, client):
    answer = client.get("/modules?q=%25%25&sort=new")
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "The search has neither a letter nor a digit to look for." in page
    assert 'value="%%"' in page
    assert 'class="row' in page
    assert client.get("/modules/feed.atom?q=%25").status_code == 400


def test_on_the_page_of_a_person_too_and_what_matches_nothing_leads_back_to_all(shelf, client):
    answer = client.get("/ada?q=%25%25")
    page = answer.content.decode()
    assert answer.status_code == 400
    assert "The search has neither a letter nor a digit to look for." in page
    assert 'class="row' in page
    page = client.get("/ada?q=xylophone").content.decode()
    assert "Nothing matches" in page
    assert "Nothing published yet" not in page


def test_strangers_are_sent_to_sign_in_before_they_save(client):
    assert "/login" in client.post("/modules/saved", {"name": "x", "parameters": ""})["Location"]


def test_the_page_of_modules_says_when_names_are_only_alike_and_takes_at_most_fifteen_queries(shelf, client):
    assert "These names are like them" in client.get("/modules?q=twise").content.decode()
    client.force_login(User.objects.get(username="ada"))
    with CaptureQueriesContext(connection) as queries:
        assert client.get("/modules?q=who&base=flan-large&task=who&sort=score").status_code == 200
    assert len(queries) <= 15


def test_the_benchmarks_questions_are_ones_that_the_search_takes():
    for params in questions(200):
        text = urlencode(params)
        AdapterQuery.parse(QueryDict(text))


@pytest.mark.django_db(transaction=True)
def test_words_that_many_have_are_kept_and_follow_what_changes(monkeypatch):
    monkeypatch.setattr("registry.search.columns.WORTH_KEEPING", 1)
    owner = make_user("ada")
    for number in range(3):
        make_adapter(f"colour-{number}", owner=owner)
    assert len(names("q=colour")) == 3
    Adapter.objects.filter(name="colour-1").update(name="sound-1")
    make_adapter("colour-3", owner=owner)
    AdapterText.objects.filter(adapter__name="sound-1").update(card="of every colour")
    Adapter.objects.filter(name="colour-0").update(name="smell-0")
    assert sorted(names("q=colour")) == ["colour-2", "colour-3", "sound-1"]
    with CaptureQueriesContext(connection) as queries:
        names("q=colour")
    asked = [
        query["sql"] for query in queries if "tsquery" in query["sql"] or "registry_words" in query["sql"]
    ]
    assert all("ANY" in sql for sql in asked) if connection.vendor == "postgresql" else not asked


@pytest.mark.parametrize("ties", [1, 5, 100_000])
def test_the_first_rows_of_very_many_are_those_of_a_whole_sort(ties):
    generator = np.random.default_rng(ties)
    keys = generator.integers(0, 100_000 // ties + 1, 100_000)
    ids = generator.permutation(100_000) + 1
    whole = np.lexsort((-ids, -keys))[:21]
    assert finding._first(keys, ids, np.arange(len(ids)), 21).tolist() == whole.tolist()


def test_the_first_row_of_any_number_is_the_first_of_a_whole_sort():
    generator = np.random.default_rng(0)
    for size in (1, 2, 9, 399, 450, 1999, 2001, 4001):
        keys, ids = generator.integers(0, 50, size), generator.permutation(size) + 1
        for wanted in (1, 2, 21):
            whole = np.lexsort((-ids, -keys))[:wanted]
            assert finding._first(keys, ids, np.arange(len(ids)), wanted).tolist() == whole.tolist(), (
                size,
                wanted,
            )


def test_days_narrow_by_when_it_was_published_and_updated():
    for name, created, updated in (("old", "2026-01-10", "2026-06-01"), ("new", "2026-05-20", "2026-05-20")):
        adapter = make_adapter(name)
        Adapter.objects.filter(pk=adapter.pk).update(
            first_public_at=datetime.fromisoformat(f"{created}T23:59:59+00:00"),
            updated_at=datetime.fromisoformat(f"{updated}T00:00:00+00:00"),
        )

    def names(address: str) -> set[str]:
        return {row["name"] for row in Client().get(f"/api/v1/adapters/?{address}").json()["results"]}

    assert names("created=2026-01-10") == {"old"}
    assert names("created=2026-01-11..") == {"new"}
    assert names("created=..2026-05-19") == {"old"}
    assert names("updated=2026-05-20..2026-06-01") == {"old", "new"}
    assert names("updated=2026-05-21..2026-06-01") == {"old"}
    page = Client().get("/modules?updated=2026-05-21..").content.decode()
    assert "updated since 2026-05-21" in page
    assert "last month" in page


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        ("2026-13-01", "is a day or days such as"),
        ("yesterday", "is a day or days such as"),
        ("..", "is a day or days such as"),
        ("2026-05-02..2026-05-01", "turn the two around"),
        ("1969-01-01", "begins with 1970"),
        ("20260501", "is a day or days such as"),
    ],
)
def test_days_that_are_none_are_refused(days, sentence):
    answer = Client().get(f"/api/v1/adapters/?created={days}")
    assert answer.status_code == 400
    assert sentence in answer.json()["message"]


def test_the_home_page_finds_the_newest_by_an_index():
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # so few rows are read as they lie
        assert "adapter_published" in Adapter.objects.visible_to(None).newest_first()[:6].explain()


@pytest.mark.parametrize("path", ["/api/v1/tasks/", "/tasks"])
def test_a_search_for_tasks_has_as_many_words_as_one_for_modules(path):
    assert Client().get(path, {"q": "word " * 10}).status_code == 200
    answer = Client().get(path, {"q": "word " * 3000 if "api" in path else "word " * 11})
    assert answer.status_code == 400
    assert "words; 10 are allowed" in answer.content.decode()
