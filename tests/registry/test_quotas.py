"""How much a namespace may keep: asked on every way in, shown to those who write there."""

from __future__ import annotations

import pytest
from django.test import Client

from registry import commits, publishing, quotas
from tests.factories import make_adapter, make_token, make_user, namespace_of

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
