"""A module that somebody may not see has no name for them, wherever a composition speaks of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from compose import jobs, naming, recipes
from compose.models import Composition
from registry import moderation, moving, publishing
from registry.models import Adapter, Task, User
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_token,
    make_user,
    namespace_of,
)
from tests.visitors import client_of

pytestmark = pytest.mark.django_db


def published(ada: User, *, task: Task | None = None, **found: Any) -> Composition:
    """A composition of three modules of lin's, ada's, and published."""
    base_model = make_base_model()
    make_modules(base_model, 3, owner=make_user("lin"))
    composition = finish(make_composition(owner=ada, base_model=base_model, task=task), **found)
    composition.adapter = make_adapter("mix", namespace=namespace_of(ada), kind="composed")
    composition.save(update_fields=["adapter"])
    return composition


def doors(composition: Composition) -> list[str]:
    page = f"/compositions/{composition.pk}"
    api = f"/api/v1/compositions/{composition.pk}"
    return [
        page, f"{page}/progress", f"{page}/recipe.json", f"{page}/trials.json", f"{api}/", f"{api}/recipe/",
        "/ada/mix", "/ada/mix/lineage", "/lin",
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["private", "quarantined"])
def test_no_door_names_a_hidden_module_to_strangers(ada, state):
    said = (
        "Better: 6 of 9 rows right, against 3 for best single module (lin/part-0@abcdef12) on held-out rows."
    )
    composition = published(ada, verdict=said, notes=["It was worse than lin/part-0, which is taken."])
    hidden = Adapter.objects.filter(name="part-0")
    hidden.update(license="")  # the sentence on the licence names what has none
    doors_that_named_it = [
        url for url in doors(composition) if "part-0" in Client().get(url).content.decode()
    ]
    assert len(doors_that_named_it) == len(doors(composition)), "the trial cannot fail"
    if state == "private":
        hidden.update(visibility="private")
    else:
        moderation.quarantine(hidden.get(), moderator=None, reason="x")
    for client in (Client(), client_of(make_user())):
        for url in doors(composition):
            answer = client.get(url)
            assert answer.status_code == 200, url
            assert "part-0" not in answer.content.decode(), url
            assert "part-1" in answer.content.decode(), url


def test_no_door_names_a_hidden_module_by_the_name_that_it_had_when_it_was_composed(ada):
    said = (
        "Better: 6 of 9 rows right, against 3 for best single module (lin/part-0@abcdef12) on held-out rows."
    )
    composition = published(ada, verdict=said, notes=["It was worse than lin/part-0, which is taken."])
    jobs.share(composition, ada)
    hidden = Adapter.objects.get(name="part-0")
    lin = User.objects.get(username="lin")
    moved = moving.move(hidden, actor=lin, namespace=namespace_of(lin), name="renamed")
    publishing.update_adapter(moved, actor=lin, visibility="private")
    shared = f"/compositions/{composition.pk}?key={composition.share_key}"
    for url in [*doors(composition), shared]:
        page = Client().get(url).content.decode()
        assert "part-0" not in page, url
        assert "renamed" not in page, url
    assert (
        "against 3 for best single module (a module that is not public)"
        in Client().get("/ada/mix").content.decode()
    )


def test_a_shared_link_names_no_private_module_and_its_owner_keeps_the_whole_recipe(ada):
    base_model = make_base_model()
    make_modules(base_model, 3, owner=ada)
    Adapter.objects.filter(name="part-0").update(visibility="private")
    composition = finish(make_composition(owner=ada, base_model=base_model))
    jobs.share(composition, ada)
    for page in ("", "/progress", "/recipe.json", "/trials.json"):
        url = f"/compositions/{composition.pk}{page}?key={composition.share_key}"
        assert "part-0" not in Client().get(url).content.decode(), url
        assert "part-0" in client_of(ada).get(url).content.decode(), url
    given = json.loads(
        Client().get(f"/compositions/{composition.pk}/recipe.json?key={composition.share_key}").content
    )
    whole = recipes.recipe(composition)
    assert given["modules"][0] == {
        "adapter": None, "revision": None, "tensor_sha256": None, "files": {},
        "mixing_weight": whole["modules"][0]["mixing_weight"],
    }  # fmt: skip
    assert given["modules"][1:] == whole["modules"][1:]


def test_why_a_composition_failed_is_told_to_its_owner_alone(ada):
    composition = make_composition(owner=ada)
    jobs.share(composition, ada)
    claimed = jobs.claim(composition.pk, "w")
    assert claimed
    jobs.fail(claimed, "Example 1, “my secret”, is too long.")
    url = f"/compositions/{composition.pk}?key={composition.share_key}"
    assert "my secret" in client_of(ada).get(url).content.decode()
    assert "my secret" not in Client().get(url).content.decode()


def test_a_link_leads_nowhere_while_its_adapter_is_in_quarantine(ada):
    composition = published(ada)
    jobs.share(composition, ada)
    url = f"/compositions/{composition.pk}?key={composition.share_key}"
    moderation.quarantine(Adapter.objects.get(name="mix"), moderator=None, reason="x")
    assert Client().get(url).status_code == 404
    assert client_of(ada).get(f"/compositions/{composition.pk}").status_code == 200
    moderation.release(Adapter.objects.get(name="mix"), moderator=None)
    assert Client().get(url).status_code == 200


def test_a_name_is_taken_out_of_a_sentence_and_longer_ones_stay():
    said = "Against a/b (a/b@12ab34cd, or A/b.), a/b-2, a/b.c, x-a/b and za/b."
    hidden = naming.HIDDEN
    assert naming.without_names(said, ["a/b"]) == (
        f"Against {hidden} ({hidden}, or {hidden}.), a/b-2, a/b.c, x-a/b and za/b."
    )


def test_a_shared_link_neither_names_nor_leads_to_an_adapter_that_is_private(ada):
    composition = published(ada)
    jobs.share(composition, ada)
    url = f"/compositions/{composition.pk}?key={composition.share_key}"
    assert "ada/mix" in Client().get(url).content.decode()
    Adapter.objects.filter(name="mix").update(visibility="private")
    for reader in (Client(), client_of(make_user())):
        assert "ada/mix" not in reader.get(url).content.decode()
    assert "ada/mix" in client_of(ada).get(url).content.decode()


def test_who_left_the_organisation_is_not_led_to_what_they_published_there(ada):
    composition = published(ada)
    lab = make_organisation("lab", members={ada: "write"})
    Adapter.objects.filter(name="mix").update(namespace=lab, visibility="private")
    page = f"/compositions/{composition.pk}"
    assert "/lab/mix" in client_of(ada).get(page).content.decode()
    lab.memberships.all().delete()
    left = client_of(ada).get(page).content.decode()
    assert "/lab/mix" not in left
    assert "Published, and not shown to you now" in left


def test_what_was_published_in_an_organisation_has_no_name_for_who_left_it(ada):
    task = make_task("count", rows=5, test_rows=20, is_held_out=True)
    composition = published(ada, task=task)
    lab = make_organisation("lab", members={ada: "write"})
    Adapter.objects.filter(name="mix").update(namespace=lab, visibility="private")
    addresses = [
        "/compositions", "/api/v1/compositions/", f"/api/v1/compositions/{composition.pk}/", "/tasks/count",
        "/tasks/count/leaderboard.csv", "/lin/part-0", "/lin",
    ]  # fmt: skip
    browser = client_of(ada)
    for url in addresses:
        assert "lab/mix" in browser.get(url).content.decode(), url
    lab.memberships.all().delete()
    for url in addresses:
        page = browser.get(url)
        assert page.status_code == 200
        assert "lab/mix" not in page.content.decode(), url
    assert "Published, and not shown to you now" in browser.get("/compositions").content.decode()
    again = browser.post(
        f"/api/v1/compositions/{composition.pk}/publish/", {"name": "x"}, content_type="application/json"
    )
    assert again.json()["message"] == "This composition is already published."


def test_a_recipe_tells_strangers_of_no_hidden_module_that_was_pinned(ada):
    base_model = make_base_model()
    make_modules(base_model, 3, owner=make_user("lin"))
    pinned = ["Lin/part-0", "lin/part-1@main"]
    composition = finish(make_composition(owner=ada, base_model=base_model, pinned=pinned))
    jobs.share(composition, ada)
    assert recipes.recipe_for(composition, None)["chosen"]["pinned"] == pinned
    Adapter.objects.filter(name="part-0").update(visibility="private")
    url = f"/compositions/{composition.pk}/recipe.json?key={composition.share_key}"
    assert "part-0" not in Client().get(url).content.decode()
    assert recipes.recipe_for(composition, None)["chosen"]["pinned"] == pinned[1:]
    assert recipes.recipe_for(composition, ada)["chosen"]["pinned"] == pinned


def test_what_was_pinned_and_left_out_is_not_told_to_a_token_for_something_else(ada):
    composition = published(ada)
    Composition.objects.filter(pk=composition.pk).update(pinned=["ada/secret"], excluded=["ada/other"])
    url = f"/api/v1/compositions/{composition.pk}/"
    for limit, told in (({}, True), ({"adapter": Adapter.objects.get(name="mix")}, False)):
        headers = {"Authorization": f"Bearer {make_token(ada, 'read', **limit)}"}
        answer = Client().get(url, headers=headers)
        assert answer.status_code == 200
        assert ("ada/secret" in answer.content.decode()) is told
        assert ("ada/other" in answer.content.decode()) is told
