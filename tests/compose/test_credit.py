from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from compose import announcements
from registry import publishing, webhooks
from registry.models import Adapter, Delivery, Membership
from tests.compose.factories import finish, make_composition, make_modules, owner_of
from tests.factories import make_adapter, make_base_model, make_user, namespace_of

pytestmark = pytest.mark.django_db


def published_use(contributor: object, visibility: str = "public") -> Adapter:
    """Somebody else's published adapter, composed of three modules of the contributor."""
    base_model = make_base_model()
    make_modules(base_model, 3, owner=contributor)  # type: ignore[arg-type]
    composition = finish(make_composition(base_model=base_model))
    owner = namespace_of(owner_of(composition))
    composed = make_adapter("mix", namespace=owner, kind="composed", visibility=visibility)
    composition.adapter = composed
    composition.save(update_fields=["adapter"])
    return composed


def test_a_contributors_page_says_where_their_modules_helped_in_few_queries(client: Client):
    ada = make_user("ada")
    composed = published_use(ada)
    with CaptureQueriesContext(connection) as queries:
        page = client.get("/ada").content.decode()
    assert "3 modules in 1 composition of 1 person" in page
    assert composed.full_name in page
    assert len(queries) <= 15
    Adapter.objects.filter(pk=composed.pk).update(visibility="private")
    assert "Where these modules helped" not in client.get("/ada").content.decode()


def test_contributors_are_told_when_their_modules_are_used_and_owners_when_a_composition_ended():
    ada = make_user("ada")
    webhooks.create(user=ada, url="https://example.org/a", events=["module.used"])
    composed = published_use(ada)
    assert announcements.announce() == 3
    assert announcements.announce() == 0
    payload = Delivery.objects.filter(key__endswith=str(Adapter.objects.get(name="part-1").pk)).get().payload
    assert payload["data"]["adapter"] == composed.full_name
    assert payload["data"]["mixing_weight"] == pytest.approx(1.1)
    owner = composed.namespace.memberships.get().user
    webhooks.create(user=owner, url="https://example.org/b", events=["composition.ended"])
    finish(make_composition(owner=owner))
    assert announcements.announce() == 1
    assert Delivery.objects.get(event="composition.ended").payload["data"]["status"] == "succeeded"


def test_contributors_are_told_once_of_a_use_that_was_private_until_now():
    ada = make_user("ada")
    webhooks.create(user=ada, url="https://example.org/a", events=["module.used"])
    composed = published_use(ada, visibility="private")
    Adapter.objects.update(created_at=timezone.now() - timedelta(days=40))
    composed.refresh_from_db()
    owner = composed.namespace.memberships.get().user
    assert announcements.announce() == 0
    publishing.update_adapter(composed, actor=owner, visibility="public")
    assert announcements.announce() == 3
    Delivery.objects.all().delete()  # as after a month
    Adapter.objects.update(first_public_at=timezone.now() - timedelta(days=31))
    for visibility in ("private", "public"):
        publishing.update_adapter(Adapter.objects.get(pk=composed.pk), actor=owner, visibility=visibility)
    assert announcements.announce() == 0


def test_members_are_told_of_a_use_when_it_is_published_and_not_again_when_it_is_opened():
    ada = make_user("ada")
    webhooks.create(user=ada, url="https://example.org/a", events=["module.used"])
    composed = published_use(ada, visibility="private")
    Membership.objects.create(namespace=composed.namespace, user=ada, role="read")
    assert announcements.announce() == 3
    Delivery.objects.all().delete()  # as after a month
    Adapter.objects.update(created_at=timezone.now() - timedelta(days=31))
    composed.refresh_from_db()
    owner = composed.namespace.memberships.get(role="admin").user
    publishing.update_adapter(composed, actor=owner, visibility="public")
    assert announcements.announce() == 0


def test_nobody_hears_of_what_they_may_not_see():
    ada = make_user("ada")
    webhooks.create(user=ada, url="https://example.org/a", events=["module.used"])
    Adapter.objects.filter(pk=published_use(ada).pk).update(visibility="private")
    assert announcements.announce() == 0
