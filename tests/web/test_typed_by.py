"""A form on a page that was made for one person counts for nobody else who signed in to the same browser meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from registry.models import Adapter, Namespace, User
from tests.factories import make_user, namespace_of
from web.typed_by import mark_of

pytestmark = pytest.mark.django_db
SAID = "You are signed in as eve now, and this page was opened by somebody else. Nothing was done."


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def as_eve() -> Client:
    client = Client()
    client.force_login(make_user("eve"), backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.mark.parametrize(
    "address",
    [
        "/settings",
        "/settings/delete",
        "/settings/tokens",
        "/organizations/new",
        "/compose",
        "/accounts/logout/",
    ],
)
def test_what_somebody_else_opened_is_refused_on_a_page(as_eve: Client, ada: User, address: str):
    form = {"typed_by": mark_of(ada), "full_name": "Ada", "name": "lab", "confirm": "eve", "scope": "read"}
    answer = as_eve.post(address, form)
    page = answer.content.decode()
    assert (answer.status_code, SAID in page) == (409, True)
    assert "data-refused" in page, "what was typed would be lost"
    assert User.objects.count() == Namespace.objects.count() == 2
    assert not namespace_of(User.objects.get(username="eve")).full_name
    assert as_eve.get("/settings").status_code == 200


def test_a_script_of_a_page_is_told_in_its_own_shape(as_eve: Client, ada: User):
    part = as_eve.post("/compose/check", {"typed_by": mark_of(ada)}, headers={"HX-Request": "true"})
    assert (part.status_code, part.content.decode()) == (409, SAID)
    upload = as_eve.post("/upload", {"typed_by": mark_of(ada)}, headers={"Accept": "application/json"})
    assert (upload.status_code, upload.json()["problems"][0]["message"]) == (409, SAID)
    assert not Adapter.objects.exists()


def test_a_page_that_was_open_before_the_key_changed_is_still_ones_own(as_eve: Client, settings: Any):
    eve = User.objects.get(username="eve")
    mark = mark_of(eve)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "k" * 60, [settings.SECRET_KEY]
    assert as_eve.post("/settings", {"typed_by": mark, "full_name": "Eve"})["Location"] == "/settings"


def test_ones_own_page_and_a_guests_count(as_eve: Client):
    eve = User.objects.get(username="eve")
    for mark in (mark_of(eve), ""):
        assert as_eve.post("/settings", {"typed_by": mark, "full_name": "Eve"})["Location"] == "/settings"
    assert namespace_of(eve).full_name == "Eve"
