from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from registry import following, likes, saved_searches
from registry.models import Adapter, AdapterScore, Follow, SavedSearch
from registry.views import following as views
from tests.factories import make_adapter, make_base_model, make_revision, make_task, make_user, namespace_of
from tests.visitors import client_of, text_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("act", ["like", "follow"])
def test_a_button_is_pressed_once_and_taken_back(client: Client, act: str):
    adapter, ada = make_adapter("one"), make_user("ada")
    client.force_login(ada)
    for _ in range(2):
        assert client.post(f"/{adapter.full_name}/{act}").status_code == 302
    assert 'aria-pressed="true"' in client.get(f"/{adapter.full_name}").content.decode()
    client.post(f"/{adapter.full_name}/{act}", {"undo": "1"})
    assert 'aria-pressed="true"' not in client.get(f"/{adapter.full_name}").content.decode()


@pytest.mark.parametrize("act", ["like", "follow"])
def test_strangers_sign_in_first_and_nobody_likes_what_they_may_not_see(client: Client, act: str):
    hidden = make_adapter("hidden", visibility="private")
    assert "/login" in client.post(f"/{hidden.full_name}/{act}")["Location"]
    client.force_login(make_user())
    assert client.post(f"/{hidden.full_name}/{act}").status_code == 404
    assert client.get(f"/{make_adapter('seen').full_name}/{act}").status_code == 405


def test_news_are_versions_of_what_one_follows_and_may_see():
    ada, other = make_user("ada"), make_adapter("other", facts={"rank": 4})
    followed = make_adapter("followed", facts={"rank": 4})
    make_adapter("private", namespace=followed.namespace, visibility="private", facts={"rank": 4})
    following.follow(user=ada, namespace=followed.namespace)
    following.follow(user=ada, namespace=followed.namespace)
    assert [revision.adapter.name for revision in following.news_for(ada, count=30)] == ["followed"]
    following.follow(user=ada, adapter=other)
    assert {revision.adapter.name for revision in following.news_for(ada, count=30)} == {"followed", "other"}
    assert Follow.objects.count() == 2


def test_scores_say_who_computed_them_and_the_page_takes_at_most_fifteen_queries(client: Client):
    base_model = make_base_model()
    adapter, reader = make_adapter("scored", base_model=base_model, facts={"rank": 4}), make_user()
    for number in range(12):
        own: dict[str, Any] = (
            {"is_private": True, "is_held_out": True, "owner": namespace_of(reader)} if number > 1 else {}
        )
        AdapterScore.objects.create(
            adapter=adapter,
            task=make_task(f"t{number}", **own),
            source="verified" if number else "reported",
            value=0.5,
            note="" if number else "LoraHub's own table",
        )
    client.force_login(reader)
    with CaptureQueriesContext(connection) as queries:
        page = client.get(f"/{adapter.full_name}").content.decode()
    assert "LoraHub&#x27;s own table" in page
    assert "T11" in page
    assert "this site, on hidden rows" in re.sub(r"<[^>]+>", "", page)
    assert len(queries) <= 15, "\n".join(query["sql"][:110] for query in queries)


def test_of_what_is_new_the_first_version_says_what_it_is_and_others_what_has_changed(client: Client):
    ada, adapter = make_user("ada"), make_adapter("new", description="Says a colour twice", facts={"rank": 4})
    following.follow(user=ada, adapter=adapter)
    client.force_login(ada)
    assert "Says a colour twice" in client.get("/settings/following").content.decode()
    make_revision(adapter, facts={"rank": 4})
    assert "New version: Upload" in client.get("/settings/following").content.decode()


def test_all_that_one_follows_stands_beside_the_news_and_is_given_up_there(client: Client):
    ada, one, other = make_user("ada"), make_adapter("one"), make_adapter("other")
    following.follow(user=ada, adapter=one)
    following.follow(user=ada, namespace=other.namespace)
    client.force_login(ada)
    shown = client.get("/settings/following").content.decode()
    for name, address in (
        (one.full_name, f"/{one.full_name}"),
        (other.namespace.name, f"/{other.namespace.name}"),
    ):
        assert f'aria-label="Unfollow {name}"' in shown
        pressed = client.post(f"{address}/follow", {"undo": "1", "back": "following"}, follow=True)
        assert pressed.redirect_chain == [("/settings/following", 302)]
        assert f"You no longer follow {name}." in pressed.content.decode()
    assert not Follow.objects.exists()
    assert "You follow nothing yet" in client.get("/settings/following").content.decode()


def test_a_button_leads_back_to_lists_of_ours_only(client: Client):
    adapter = make_adapter("one")
    client.force_login(make_user("ada"))
    for act in ("like", "follow"):
        answer = client.post(f"/{adapter.full_name}/{act}", {"back": "https://elsewhere.example"})
        assert answer["Location"] == f"/{adapter.full_name}"


def test_searches_that_one_keeps_stand_on_the_page_as_well_and_are_forgotten_there(client: Client):
    ada = make_user("ada")
    kept, _ = saved_searches.save(user=ada, name="who modules", parameters="q=who")
    client.force_login(ada)
    assert 'href="/modules?q=who"' in client.get("/settings/following").content.decode()
    answer = client.post(f"/modules/saved/{kept.pk}/remove", {"back": "following"})
    assert answer["Location"] == "/settings/following"
    assert not SavedSearch.objects.exists()


def test_what_one_likes_is_a_list_the_latest_first_and_is_given_up_there(client: Client):
    ada = make_user("ada")
    first, second, hidden = (make_adapter(name, facts={"rank": 4}) for name in ("first", "second", "hidden"))
    for adapter in (first, second, hidden):
        likes.like(adapter, actor=ada)
    Adapter.objects.filter(pk=hidden.pk).update(visibility="private")
    client.force_login(ada)
    shown = client.get("/settings/liked").content.decode()
    assert 0 < shown.index(f"/{second.full_name}") < shown.index(f"/{first.full_name}")
    assert hidden.full_name not in shown
    pressed = client.post(f"/{second.full_name}/like", {"undo": "1", "back": "liked"}, follow=True)
    assert pressed.redirect_chain == [("/settings/liked", 302)]
    assert f"You no longer like {second.full_name}." in pressed.content.decode()
    assert second.full_name not in client.get("/settings/liked").content.decode()


def test_the_list_of_what_one_likes_goes_on_behind_its_first_page(
    client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("registry.views.following.PAGE", 1)
    ada = make_user("ada")
    client.force_login(ada)
    assert "You like nothing yet" in client.get("/settings/liked").content.decode()
    for name in ("first", "second"):
        likes.like(make_adapter(name), actor=ada)
    page = client.get("/settings/liked").content.decode()
    cursor = re.search(r'href="\?cursor=([^"]+)" rel="next"', page)
    assert cursor
    assert "first" in client.get("/settings/liked", {"cursor": cursor[1]}).content.decode()


def test_whatever_somebody_follows_is_listed_a_page_at_a_time(monkeypatch):
    monkeypatch.setattr(views, "FOLLOWS", 2)
    ann, owner = make_user("ann"), make_user("ada")
    for number in range(3):
        following.follow(user=ann, adapter=make_adapter(f"m{number}", owner=owner))
    browser = client_of(ann)
    first = text_of(browser.get("/settings/following"))
    older = re.search(r'href="(\?cursor=[^"]+)" rel="next"', first)
    assert older is not None
    last = text_of(browser.get(f"/settings/following{older[1]}"))
    assert [re.findall(r"Unfollow ada/(m\d)", page) for page in (first, last)] == [["m2", "m1"], ["m0"]]
    assert 'rel="next"' not in last
    assert browser.get("/settings/following?cursor=x").status_code == 400
