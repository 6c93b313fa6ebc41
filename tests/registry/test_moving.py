"""Another name for an adapter, or another namespace: by page and by script, and what its old addresses lead to."""

from __future__ import annotations

import json

import pytest
from django.test import Client

from registry import moving, publishing, quotas
from registry.models import Adapter, Membership, User
from tests.factories import (
    make_adapter,
    make_organisation,
    make_revision,
    make_token,
    namespace_of,
)

pytestmark = pytest.mark.django_db


def browser_of(person: User) -> Client:
    client = Client()
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return client


def move(client: Client, adapter: str, namespace: str, name: str) -> tuple[int, str]:
    """The answer of the page's form: its status, and where it leads or what it says."""
    answer = client.post(f"/{adapter}/move", {"move-namespace": namespace, "move-name": name})
    return answer.status_code, answer.headers.get("Location", "") or answer.content.decode()


# --- By page -----------------------------------------------------------------------------------------------------


def test_an_adapter_is_renamed_on_its_settings_page(ada: User):
    make_adapter("colour", owner=ada)
    client = browser_of(ada)
    page = client.get("/ada/colour/settings").content.decode()
    assert "Rename or move" in page
    assert 'value="colour"' in page
    assert move(client, "ada/colour", "ada", "shades") == (302, "/ada/shades")
    assert "ada/colour is called ada/shades now" in client.get("/ada/shades").content.decode()


def test_an_adapter_is_given_to_an_organisation_one_may_write_to_and_to_no_other(ada: User):
    make_adapter("colour", owner=ada)
    make_organisation("lab", members={ada: "write"})
    make_organisation("readers", members={ada: "read"})
    make_organisation("others")
    client = browser_of(ada)
    page = client.get("/ada/colour/settings").content.decode()
    assert '<option value="lab">' in page
    assert "readers" not in page
    for closed in ("readers", "others", "nowhere"):
        assert move(client, "ada/colour", closed, "colour")[0] == 400
    assert move(client, "ada/colour", "lab", "colour") == (302, "/lab/colour")
    assert Adapter.objects.get().full_name == "lab/colour"


def test_a_name_that_cannot_be_had_is_refused_in_words_beside_what_was_typed(ada: User):
    make_adapter("colour", owner=ada)
    make_adapter("shape", owner=ada)
    client = browser_of(ada)
    for name, words in (
        ("shape", "ada/shape exists already."),
        ("colour", "It is called ada/colour already."),
        ("a b", "cannot be a name"),
    ):
        status, page = move(client, "ada/colour", "ada", name)
        assert status == 400
        assert words in page.replace("&#x27;", "'")
        assert f'value="{name}"' in page
    assert Adapter.objects.filter(name="colour").exists()


def test_looking_at_the_address_of_the_form_leads_to_its_page(ada: User):
    make_adapter("colour", owner=ada)
    assert browser_of(ada).get("/ada/colour/move")["Location"] == "/ada/colour/settings"


# --- Old addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rest",
    ["", "?use=curl", "/versions", "/compare?to=main", "/lineage", "/feed.atom", "/settings", "/revisions/COMMIT",
     "/download/COMMIT.zip", "/download/COMMIT/adapter_config.json"],
)  # fmt: skip
def test_every_page_by_the_old_name_leads_to_the_same_under_the_new_one(ada: User, rest: str):
    adapter = make_adapter("old", owner=ada)
    make_revision(adapter)
    adapter.refresh_from_db()
    assert adapter.head is not None
    rest = rest.replace("COMMIT", adapter.head.commit)
    moving.move(adapter, actor=ada, namespace=adapter.namespace, name="new")
    client = browser_of(ada)
    answer = client.get(f"/ada/old{rest}")
    assert (answer.status_code, answer["Location"]) == (302, f"/ada/new{rest}")
    assert client.get(answer["Location"]).status_code == 200


def test_an_old_name_tells_nobody_the_new_one_of_what_they_may_not_see(ada: User):
    adapter = make_adapter("old", owner=ada)
    moving.move(adapter, actor=ada, namespace=adapter.namespace, name="secret-name")
    Adapter.objects.update(visibility="private")
    for rest in ("", "/versions"):
        answer = Client().get(f"/ada/old{rest}")
        assert answer.status_code == 404
        assert "secret-name" not in answer.content.decode()


# --- By script ---------------------------------------------------------------------------------------------------


def test_a_script_moves_an_adapter_and_leaves_away_what_stays(ada: User):
    make_adapter("colour", owner=ada)
    make_organisation("lab", members={ada: "write"})
    headers = {"Authorization": f"Bearer {make_token(ada)}"}

    def ask(adapter: str, body: dict[str, str]) -> tuple[int, str, str]:
        answer = Client().post(
            f"/api/v1/adapters/{adapter}/move/", json.dumps(body), "application/json", headers=headers
        )
        return answer.status_code, answer.headers.get("Location", ""), answer.json().get("code", "")

    assert ask("ada/colour", {"name": "shades"}) == (200, "/api/v1/adapters/ada/shades/", "")
    assert ask("ada/shades", {"namespace": "lab"}) == (200, "/api/v1/adapters/lab/shades/", "")
    assert ask("ada/colour", {"name": "x"}) == (307, "/api/v1/adapters/lab/shades/move/", "moved")
    assert ask("lab/shades", {"nam": "x"})[0] == 400
    assert ask("lab/shades", {"name": "a b"})[2] == "invalid_name"
    assert ask("lab/shades", {"namespace": "nowhere"})[0] == 404
    make_adapter("taken", owner=ada)
    assert ask("lab/shades", {"namespace": "ada", "name": "taken"})[2] == "exists"


def test_a_token_for_one_adapter_does_not_give_it_away(ada: User):
    adapter = make_adapter("colour", owner=ada)
    headers = {"Authorization": f"Bearer {make_token(ada, adapter=adapter)}"}
    answer = Client().post(
        "/api/v1/adapters/ada/colour/move/", '{"name": "x"}', "application/json", headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "token_may_not")


# --- Room --------------------------------------------------------------------------------------------------------


def test_no_namespace_gets_more_than_it_may_keep_by_moving(ada: User, settings):
    lab = make_organisation("lab", members={ada: "write"})
    make_adapter("first", namespace=lab)
    adapter = make_adapter("second", owner=ada)
    settings.MAX_ADAPTERS_PER_NAMESPACE = 1
    with pytest.raises(quotas.QuotaReached, match="lab has 1 modules"):
        moving.move(adapter, actor=ada, namespace=lab, name="second")
    moving.move(adapter, actor=ada, namespace=namespace_of(ada), name="renamed")
    settings.MAX_ADAPTERS_PER_NAMESPACE = 0
    settings.MAX_BYTES_PER_NAMESPACE = 10
    with pytest.raises(quotas.QuotaReached, match="would keep more than"):
        moving.move(adapter, actor=ada, namespace=lab, name="second")
    assert Membership.objects.filter(namespace=lab, user=ada).exists()
    assert Adapter.objects.get(pk=adapter.pk).full_name == "ada/renamed"


def test_the_old_name_of_one_that_is_deleted_since_is_said_to_be_deleted_and_leads_nowhere(ada: User):
    adapter = make_adapter("colour", owner=ada)
    space = namespace_of(ada)
    moved = moving.move(adapter, actor=ada, namespace=space, name="shades")
    with pytest.raises(publishing.NameMoved, match="its old name leads to the new one"):
        publishing.find_by_name(space, "Colour")
    publishing.withdraw(moved, actor=ada)
    for name in ("Colour", "shades"):
        with pytest.raises(publishing.NameNotFree, match=f"ada/{name} was deleted, and names are not"):
            publishing.find_by_name(space, name)
    authorization = {"Authorization": f"Bearer {make_token(ada)}"}
    made = Client().post(
        "/api/repos/create", {"name": "colour", "type": "model"}, "application/json", headers=authorization
    )
    assert made.status_code == 400  # as a 409 clients would take it for theirs
    assert "ada/colour was deleted" in made.headers["X-Error-Message"]
    for address in ("/ada/colour", "/api/v1/adapters/ada/colour/", "/api/models/ada/colour"):
        assert browser_of(ada).get(address).status_code == 404, address
