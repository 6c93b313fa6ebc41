from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from registry import following
from registry.models import AdapterScore, Follow
from tests.factories import make_adapter, make_base_model, make_task, make_user

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
    assert [revision.adapter.name for revision in following.news_for(ada)] == ["followed"]
    following.follow(user=ada, adapter=other)
    assert {revision.adapter.name for revision in following.news_for(ada)} == {"followed", "other"}
    assert Follow.objects.count() == 2


def test_scores_say_who_computed_them_and_the_page_takes_at_most_fifteen_queries(client: Client):
    base_model = make_base_model()
    adapter = make_adapter("scored", base_model=base_model, facts={"rank": 4})
    for number in range(4):
        AdapterScore.objects.create(
            adapter=adapter,
            task=make_task(f"t{number}"),
            source="verified" if number else "reported",
            value=0.5,
            note="" if number else "LoraHub's own table",
        )
    client.force_login(make_user())
    with CaptureQueriesContext(connection) as queries:
        page = client.get(f"/{adapter.full_name}").content.decode()
    assert "LoraHub&#x27;s own table" in page
    assert "this site, on hidden rows" in re.sub(r"<[^>]+>", "", page)
    assert len(queries) <= 15, "\n".join(query["sql"][:110] for query in queries)
