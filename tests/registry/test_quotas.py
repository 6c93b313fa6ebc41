"""How much a namespace may keep: asked on every way in, shown to those who write there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection
from django.test import Client

from registry import commits, moving, publishing, quotas, storage
from registry.models import Adapter
from tests.beside import Beside, after
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_token,
    make_user,
    namespace_of,
    publish_fake,
)
from tests.registry.test_api import Script, assert_refused

pytestmark = pytest.mark.django_db


def test_more_modules_than_one_may_have_are_refused_on_every_way_in(settings):
    settings.MAX_ADAPTERS_PER_NAMESPACE = 1
    ada = make_user("ada")
    first = make_adapter("first", namespace=namespace_of(ada))
    with pytest.raises(quotas.QuotaReached, match="ada has 1 modules"):
        commits.create_adapter(author=ada, namespace=namespace_of(ada), name="second")
    with pytest.raises(quotas.QuotaReached):
        publishing.create(namespace_of(ada), "second", author=ada)
    hub = Client().post(
        "/api/repos/create",
        {"name": "second", "type": "model"},
        "application/json",
        headers={"Authorization": f"Bearer {make_token(ada)}"},
    )
    assert hub.status_code == 403
    assert "the most one namespace may have here" in hub.headers["X-Error-Message"]
    publishing.withdraw(first, actor=ada)
    commits.create_adapter(author=ada, namespace=namespace_of(ada), name="second")


def test_more_bytes_than_one_may_keep_are_refused_and_leave_nothing(settings):
    ada = make_user("ada")
    made = make_adapter("first", namespace=namespace_of(ada))
    assert made.head is not None
    type(made.head).objects.filter(pk=made.head.pk).update(size_bytes=900)
    settings.MAX_BYTES_PER_NAMESPACE = 1000
    quotas.require_bytes(namespace_of(ada), 100)
    with pytest.raises(quotas.QuotaReached, match="would keep more than"):
        quotas.require_bytes(namespace_of(ada), 101)
    settings.MAX_BYTES_PER_NAMESPACE = 0
    quotas.require_bytes(namespace_of(ada), 10**15)


def test_those_who_write_there_see_what_is_left_and_others_do_not(settings):
    settings.MAX_ADAPTERS_PER_NAMESPACE = 5
    ada = make_user("ada")
    make_adapter("first", namespace=namespace_of(ada))
    client = Client()
    assert "Uses " not in client.get("/ada").content.decode()
    client.force_login(ada)
    assert "Uses 1 of 5 modules" in client.get("/ada").content.decode()
    assert "Modules of one person or organisation" in client.get("/docs/limits").content.decode()


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_as_many_come_as_there_is_room_for_on_any_database(settings):
    settings.MAX_ADAPTERS_PER_NAMESPACE = 2
    ada = make_user("ada")
    barrier = Barrier(5)

    def make(number: int) -> str:
        barrier.wait()
        try:
            commits.create_adapter(author=ada, namespace=namespace_of(ada), name=f"m-{number}")
        except quotas.QuotaReached:
            return "refused"
        finally:
            connection.close()
        return "made"

    with ThreadPoolExecutor(5) as pool:
        outcomes = sorted(pool.map(make, range(5)))
    assert outcomes == ["made", "made", "refused", "refused", "refused"]
    assert Adapter.objects.count() == 2


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
def test_two_modules_at_once_do_not_both_take_the_last_place(settings, monkeypatch):
    settings.MAX_ADAPTERS_PER_NAMESPACE = 1
    ada = make_user("ada")
    make = lambda name: commits.create_adapter(author=ada, namespace=namespace_of(ada), name=name)  # noqa: E731
    beside = Beside()
    after(quotas, "require_room_for_one_more", lambda: beside.start(lambda: make("second")), monkeypatch)
    make("first")
    assert isinstance(beside.error(), quotas.QuotaReached)
    assert [adapter.name for adapter in Adapter.objects.all()] == ["first"]


@pytest.mark.postgres_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", ["committed", "published", "moved"])
def test_two_versions_at_once_do_not_both_take_the_last_bytes(tmp_path, settings, way: str, monkeypatch):
    """Of different modules, so that nothing else makes one wait for the other."""
    make_base_model()
    ada = make_user("ada")
    lab = make_organisation("lab", members={ada: "admin"})
    one, two = make_adapter("one", owner=ada), make_adapter("two", owner=ada)
    foreign = make_adapter("foreign", namespace=lab, files={"README.md": b"x" * 600})
    text = storage.store_stream([b"y" * 600])
    other = publish_fake(tmp_path, "alike").size_bytes if way == "published" else 600
    most = quotas.use_of(namespace_of(ada)).size_bytes + 600 + other - 1
    settings.MAX_BYTES_PER_NAMESPACE = most

    def write(adapter: Adapter) -> None:
        gone = [commits.Delete("adapter_config.json"), commits.Delete("adapter_model.safetensors")]
        commits.commit(
            adapter, actor=ada, operations=[*gone, commits.Put("README.md", text)], message="Change"
        )

    act = {
        "committed": lambda: write(two),
        "published": lambda: publish_fake(tmp_path, "three", owner=ada),
        "moved": lambda: moving.move(foreign, actor=ada, namespace=namespace_of(ada), name="foreign"),
    }
    beside = Beside()
    after(quotas, "require_bytes", lambda: beside.start(act[way]), monkeypatch)
    write(one)
    assert isinstance(beside.error(), quotas.QuotaReached)
    assert quotas.use_of(namespace_of(ada)).size_bytes <= most


def test_members_read_by_script_what_is_kept_and_what_may_be(settings):
    settings.MAX_ADAPTERS_PER_NAMESPACE, settings.MAX_BYTES_PER_NAMESPACE = 3, 0
    ada, rita = make_user("ada"), make_user("rita")
    lab = make_organisation("lab", members={ada: "admin", rita: "read"})
    made = make_adapter("first", namespace=lab, visibility="private")
    assert made.head is not None
    type(made.head).objects.filter(pk=made.head.pk).update(size_bytes=900)
    kept = {"adapters": 1, "most_adapters": 3, "size_bytes": 900, "most_bytes": 0}
    for person in (ada, rita):
        assert Script(make_token(person, "read")).get("namespaces/LAB/quota/").json() == kept
    assert Script(make_token(ada)).get("namespaces/ada/quota/").json()["adapters"] == 0
    assert Script(make_token(ada, namespace=lab)).get("namespaces/lab/quota/").json() == kept
    for limit in ({"namespace": namespace_of(ada)}, {"adapter": made}):
        assert_refused(Script(make_token(ada, **limit)).get("namespaces/lab/quota/"), 403)
    stranger = Script(make_token(make_user("eve")))
    assert_refused(stranger.get("namespaces/lab/quota/"), 403)
    assert_refused(stranger.get("namespaces/absent/quota/"), 404)
