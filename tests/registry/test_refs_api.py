"""Branches and tags by script: a version gets a name, and keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from registry import moving
from registry.models import Adapter, Ref, User
from tests.factories import make_adapter, make_revision, make_token, make_user
from tests.registry.test_api import Script, assert_refused

pytestmark = pytest.mark.django_db


@pytest.fixture
def module() -> Adapter:
    return make_adapter("m", owner=make_user("ada"))


@pytest.fixture
def script(module: Adapter) -> Script:
    return Script(make_token(User.objects.get(username="ada")))


def tag(script: Script, name: str = "v1", **said: Any) -> Any:
    return script.send("PUT", f"adapters/ada/m/tags/{name}/", said)


def test_a_version_is_tagged_found_by_its_tag_and_untagged(script: Script, module: Adapter):
    assert module.head is not None
    first = module.head.commit
    make_revision(module, files={"new.txt": b"x"})
    newest = Script().get("adapters/ada/m/").json()["revision"]
    assert newest != first
    made = tag(script, revision=first[:7])
    assert (made.status_code, made.json()) == (201, {"kind": "tag", "name": "v1", "revision": first})
    assert tag(script, "release/2").json()["revision"] == newest
    assert tag(script, revision=first).status_code == 200, "it says so already"
    assert Script().get("adapters/ada/m/revisions/v1/").json()["commit"] == first
    listed = Script().get("adapters/ada/m/refs/").json()["results"]
    assert [(row["kind"], row["name"], row["revision"]) for row in listed] == [
        ("branch", "main", newest),
        ("tag", "release/2", newest),
        ("tag", "v1", first),
    ]
    assert [row["name"] for row in Script().get("adapters/ada/m/refs/?limit=1").json()["results"]] == ["main"]
    assert script.send("DELETE", "adapters/ada/m/tags/v1/", {}).status_code == 204
    assert_refused(script.send("DELETE", "adapters/ada/m/tags/v1/", {}), 404)
    assert_refused(script.send("DELETE", "adapters/ada/m/tags/main/", {}), 400)
    assert_refused(Script().get("adapters/ada/m/revisions/v1/"), 404)


def test_a_tag_stays_where_it_is_and_a_name_that_is_none_is_refused(script: Script, module: Adapter):
    tag(script)
    make_revision(module, files={"new.txt": b"x"})
    assert_refused(tag(script), 409)
    assert_refused(tag(script, revision="absent"), 404, "revision")
    for name in ("main", "a..b", "0123456789abcdef", "refs/x", "x" * 101, "v1/x"):
        assert_refused(tag(script, name), 400)
    assert_refused(tag(script, "v2", commit="x"), 400, "commit")
    assert Ref.objects.filter(kind="tag").count() == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a b", "single slashes are allowed"),
        ("a//b", "single slashes are allowed"),
        (".a", "as in git"),
        ("a/.b", "as in git"),
        ("a./b", "as in git"),
        ("a..b", "as in git"),
        ("a.lock", "as in git"),
        ("a.lock/b", "as in git"),
        ("refs/a", "begins with 'refs/'"),
    ],
)
def test_a_name_that_is_none_is_refused_by_what_is_wrong_with_it(script: Script, name: str, why: str):
    assert why in tag(script, name).json()["message"]


def test_only_who_may_write_there_tags(script: Script, module: Adapter):
    eve = Script(make_token(make_user("eve")))
    assert_refused(tag(Script()), 401)
    assert_refused(tag(eve), 403)
    Adapter.objects.update(visibility="private")
    assert_refused(tag(eve), 404)
    assert_refused(eve.get("adapters/ada/m/refs/"), 404)
    only_it = Script(make_token(User.objects.get(username="ada"), adapter=module))
    assert tag(only_it).status_code == 201


def test_by_its_old_name_it_is_led_to(script: Script, module: Adapter):
    moving.move(module, actor=User.objects.get(username="ada"), namespace=module.namespace, name="new")
    answer = tag(script)
    assert (answer.status_code, answer["Location"]) == (307, "/api/v1/adapters/ada/new/tags/v1/")
