"""Following by script: what a webhook then tells of."""

from __future__ import annotations

import pytest

from registry import moving
from registry.models import Follow
from tests.factories import make_adapter, make_token, make_user, namespace_of
from tests.registry.test_api import Script, assert_refused

pytestmark = pytest.mark.django_db


def test_adapters_and_people_are_followed_listed_and_followed_no_longer():
    ada, script = make_user("ada"), Script(make_token(make_user("eve")))
    make_adapter("m", owner=ada)
    for _ in range(2):
        assert script.send("PUT", "following/ada/m/", {}).status_code == 204
        assert script.send("PUT", "following/ADA/", {}).status_code == 204
    told = script.get("following/").json()["results"]
    assert [(row["adapter"], row["namespace"]) for row in told] == [(None, "ada"), ("ada/m", None)]
    first = script.get("following/?limit=1").json()
    assert first["results"] == told[:1]
    for name in ("ada/m", "ada"):
        assert script.send("DELETE", f"following/{name}/", {}).status_code == 204
    assert not Follow.objects.exists()


def test_nothing_is_followed_that_is_not_there_or_not_seen():
    ada, script = make_user("ada"), Script(make_token(make_user("eve")))
    make_adapter("hidden", owner=ada, visibility="private")
    for name in ("ada/hidden", "ada/none", "nobody"):
        assert_refused(script.send("PUT", f"following/{name}/", {}), 404)
    assert_refused(Script().send("PUT", "following/ada/", {}), 401)
    assert_refused(Script(make_token(ada, "read")).send("PUT", "following/ada/", {}), 403)
    limited = Script(make_token(ada, namespace=namespace_of(ada)))
    assert_refused(limited.send("PUT", "following/ada/hidden/", {}), 403)
    assert_refused(limited.get("following/"), 403)
    assert not Follow.objects.exists()


def test_by_its_old_name_an_adapter_is_led_to():
    ada = make_user("ada")
    adapter = make_adapter("old", owner=ada)
    moving.move(adapter, actor=ada, namespace=adapter.namespace, name="new")
    answer = Script(make_token(ada)).send("PUT", "following/ada/old/", {})
    assert (answer.status_code, answer["Location"]) == (307, "/api/v1/following/ada/new/")
