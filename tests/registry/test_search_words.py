"""Words that are misspelt, lists of who has a word, and what is read at a process's start."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import numpy as np
import pytest
from django.db import connection
from django.http import QueryDict

from registry import search
from registry.models import Adapter, AdapterText
from registry.search import AdapterQuery, bulk, columns, postings, upkeep
from registry.search.alike import Vocabulary, errors_allowed
from tests.factories import make_adapter, make_user

only_postgres = pytest.mark.postgres_only


def found(query: str, person: object = None) -> list[str]:
    parsed = AdapterQuery.parse(QueryDict(query))
    return [adapter.name for adapter in search.find(parsed, person=person).items]  # type: ignore[arg-type]


def plain_errors(word: str, other: str) -> int:
    """Optimal string alignment, as textbooks write it."""
    table = [[max(row, column) for column in range(len(other) + 1)] for row in range(len(word) + 1)]
    for row in range(1, len(word) + 1):
        for column in range(1, len(other) + 1):
            is_other = word[row - 1] != other[column - 1]
            best = min(
                table[row - 1][column] + 1, table[row][column - 1] + 1, table[row - 1][column - 1] + is_other
            )
            if row > 1 and column > 1 and word[row - 2 : row] == other[column - 2 : column][::-1]:
                best = min(best, table[row - 2][column - 2] + 1)
            table[row][column] = best
    return table[-1][-1]


@pytest.mark.parametrize("seed", range(3))
def test_words_that_are_alike_are_those_a_letter_by_letter_comparison_finds(seed):
    generator = random.Random(seed)
    words = {"".join(generator.choices("abcé", k=generator.randint(1, 9))) for _ in range(400)}
    vocabulary = Vocabulary(words)
    for word in [*generator.sample(sorted(words), 20), "ab", "abcabcabcabc"]:
        near = {other: plain_errors(word, other) for other in words - {word}} if errors_allowed(word) else {}
        assert vocabulary.like(word) == {
            other: errors for other, errors in near.items() if errors <= errors_allowed(word)
        }


@pytest.mark.parametrize(
    ("word", "errors"),
    [("t5", 0), ("2024", 0), ("cat", 1), ("storx", 1), ("summry", 2), ("transaltino", 2)],
)
def test_longer_words_may_hold_more_errors_and_numbers_none(word, errors):
    assert errors_allowed(word) == errors


@pytest.mark.django_db
def test_the_nearest_names_come_first_and_words_that_are_right_have_to_be_there():
    owner = make_user("ada")
    for name, downloads in [
        ("summary-plain", 1),
        ("summery-plain", 900),
        ("summit", 9),
        ("summary-other", 5),
    ]:
        make_adapter(name, owner=owner, downloads=downloads)
    assert found("q=sumary") == ["summary-other", "summary-plain", "summery-plain"]
    assert found("q=sumary+plain") == ["summary-plain", "summery-plain"]
    assert found("q=sumary&sort=downloads")[0] == "summery-plain"
    assert found("q=sumary+2024") == []


@pytest.mark.django_db
def test_what_one_may_not_see_does_not_decide_whether_similar_names_are_looked_for():
    owner = make_user("ada")
    make_adapter("secrex", owner=owner, visibility="private")
    make_adapter("secret", owner=owner)
    assert found("q=secrex") == ["secret"]
    assert found("q=secrex", owner) == ["secrex"]


@pytest.fixture
def lists(monkeypatch) -> Iterator[None]:
    """Lists are written at the first change, and are gone afterwards."""
    monkeypatch.setattr(postings, "WRITTEN_AFTER", 1)
    monkeypatch.setattr(postings, "ADAPTERS_AT_ONCE", 2)
    yield
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM registry_posting; DELETE FROM registry_postingmark")


def written_after_all_transactions() -> bool:
    """Write the lists once every transaction of before has ended: other tests keep theirs open on the same server.

    What an open one may still write counts as changed since, in other databases as well: ids are the server's.
    """
    end = time.monotonic() + 120
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        (now,) = cursor.fetchone()
        while True:
            cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            (oldest,) = cursor.fetchone()
            if oldest > now:
                return upkeep.write_postings()
            assert time.monotonic() < end, f"Transaction {oldest} has been open for two minutes."
            time.sleep(0.05)


@pytest.mark.django_db(transaction=True)
def test_answers_are_those_of_this_moment_however_old_the_lists_are(lists):
    owner = make_user("ada")
    for number in range(5):
        make_adapter(f"colour-{number}", owner=owner)
    AdapterText.objects.filter(adapter__name="colour-0").update(card="heliotrope")
    assert upkeep.write_postings() is (connection.vendor == "postgresql")
    assert len(found("q=colo")) == 5
    assert found("q=heliotr") == ["colour-0"]
    assert len(found("q=colous")) == 5

    Adapter.objects.filter(name="colour-1").update(name="sound")
    AdapterText.objects.filter(adapter__name="colour-0").update(card="")
    make_adapter("colour-new", owner=owner)
    for process in ("the same", "another"):
        if process == "another":
            columns.forget()
        assert sorted(found("q=colo")) == ["colour-0", "colour-2", "colour-3", "colour-4", "colour-new"]
        assert len(found("q=colous")) == 5
        assert found("q=soumd") == ["sound"]
        assert found("q=heliotr") == []


@pytest.mark.django_db(transaction=True)
def test_words_that_databases_take_apart_in_ways_of_their_own_are_found_in_lists_as_in_texts(lists):
    owner = make_user("ada")
    words = ["straße", "x²y", "1e5", "7b", "日本語", "ǆep", "İstanbul", "qυ", "0x1f", "½"]
    for number, word in enumerate(words):
        make_adapter(f"odd-{number}", owner=owner, description=f"of {word} here")
    before = {word: found(f"q={word}") for word in words}
    upkeep.write_postings()
    columns.forget()
    assert {word: found(f"q={word}") for word in words} == before


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_lists_are_written_again_only_when_enough_has_changed(lists, monkeypatch):
    make_adapter("colour", owner=make_user("ada"))
    assert written_after_all_transactions()
    assert not upkeep.write_postings()
    monkeypatch.setattr(postings, "WRITTEN_AFTER", 2)
    Adapter.objects.update(name="sound")
    assert not upkeep.write_postings()


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_a_common_word_is_read_from_its_list_and_not_from_the_texts(lists, monkeypatch):
    make_adapter("colour", owner=make_user("ada"))
    written_after_all_transactions()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE registry_posting SET ids = '' WHERE NOT is_name")
    assert found("q=colour&sort=new") == []


@only_postgres
@pytest.mark.django_db(transaction=True)
def test_what_a_dump_brought_from_another_server_counts_as_changed_now(lists):
    make_adapter("colour", owner=make_user("ada"))
    upkeep.write_postings()
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE registry_searchrow SET changed_in = 1::bigint << 60")
        cursor.execute("UPDATE registry_adaptertext SET changed_in = 1::bigint << 60")
        cursor.execute("UPDATE registry_postingmark SET mark = 1::bigint << 60")
        cursor.execute("SET session_replication_role = origin")
    upkeep.set_up("default", is_changed=False)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(r.changed_in), max(t.changed_in), (SELECT count(*) FROM registry_postingmark) "
            "FROM registry_searchrow r, registry_adaptertext t"
        )
        row_changed_in, text_changed_in, marks = cursor.fetchone()
    assert 0 < row_changed_in < 1 << 60
    assert 0 < text_changed_in < 1 << 60
    assert marks == 0
    assert found("q=colour") == ["colour"]


@only_postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("adapters", [0, 1, 4, 5])
def test_all_rows_at_once_are_the_rows_one_by_one(monkeypatch, adapters):
    monkeypatch.setattr(bulk, "FETCHED_AT_ONCE", 2)
    owner = make_user("ada")
    for number in range(adapters):
        make_adapter(f"n{number}", owner=owner, license=["mit", "", "Ünlü-1.0"][number % 3], best_score=0.25,
                     facts={"target_names": ["q", "v"][: number % 3]})  # fmt: skip
    for is_ambiguous in (False, True):
        if is_ambiguous:  # two texts of one hash: then row by row
            monkeypatch.setattr(bulk, "_dictionary", lambda *_: (np.zeros(2, np.int64), ["", "x"]))
        columns.forget()
        rows = {item.name: item for item in search.find(AdapterQuery(), person=None).items}
        assert len(rows) == adapters
        kept = columns.current()
        for pk, place in ((row.pk, kept.positions[row.pk]) for row in rows.values()):
            adapter = Adapter.objects.get(pk=pk)
            assert kept.words["license"].texts[kept["license"][place]] == adapter.license.lower()
            assert kept["score"][place] == 0.25
            assert kept["namespace_id"][place] == adapter.namespace_id
            assert kept["published_us"][place] == int(adapter.published_at.timestamp() * 1_000_000)
