"""Saved searches by script, and the mail that tells what is new in them."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.account.models import EmailAddress

from registry import news_mail, saved_searches
from registry.models import NewsMail, SavedSearch, User
from tests.factories import make_token, make_user, namespace_of
from tests.registry.test_api import Script, assert_refused

pytestmark = pytest.mark.django_db


@pytest.fixture
def script(ada: User) -> Script:
    return Script(make_token(ada))


def save(script: Script, name: str = "Mine", parameters: str = "q=who") -> Any:
    return script.send("POST", "saved-searches/", {"name": name, "parameters": parameters})


def test_searches_are_kept_listed_read_and_forgotten(script: Script):
    made = save(script, "  Mine ", "sort=new&q=who&cursor=abc&composable=1")
    told = made.json()
    assert (made.status_code, told["name"], told["parameters"]) == (
        201,
        "Mine",
        "q=who&composable=yes&sort=new",
    )
    assert told["url"].endswith("/modules?q=who&composable=yes&sort=new")
    assert made["Location"].endswith(f"/api/v1/saved-searches/{told['id']}/")
    save(script, "All of them", "")
    assert [row["name"] for row in script.get("saved-searches/").json()["results"]] == ["All of them", "Mine"]
    assert script.get(f"saved-searches/{told['id']}/").json() == told
    assert script.send("DELETE", f"saved-searches/{told['id']}/", {}).status_code == 204
    assert_refused(script.get(f"saved-searches/{told['id']}/"), 404)
    assert SavedSearch.objects.get().parameters == ""


def test_the_same_one_twice_is_once_and_another_under_its_name_is_refused(script: Script):
    first = save(script).json()
    again = save(script)
    assert (again.status_code, again.json()) == (200, first)
    assert_refused(save(script, parameters="q=where"), 409, "name")
    assert SavedSearch.objects.get().parameters == "q=who"


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        (" ", "q=who", "name"),
        ("x" * 101, "q=who", "name"),
        ("x" * 600, "q=who", "name"),
        ("a\u202eb", "q=who", "name"),
        ("Mine", "colour=red", "colour"),
        ("Mine", "rank=many", "rank"),
        ("Mine", "q=a&q=b", "q"),
        ("Mine", "q=" + "蝶" * 200 + "&license=" + "蝶" * 200, "parameters"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_field(script: Script, name: str, parameters: str, field: str):
    assert_refused(save(script, name, parameters), 400, field)
    assert not SavedSearch.objects.exists()


def test_nobody_sees_or_forgets_anothers(script: Script, ada: User):
    kept, _ = saved_searches.save(user=make_user("eve"), name="hers", parameters="q=who")
    assert script.get("saved-searches/").json()["results"] == []
    assert_refused(script.get(f"saved-searches/{kept.pk}/"), 404)
    assert_refused(script.send("DELETE", f"saved-searches/{kept.pk}/", {}), 404)
    assert_refused(Script().get("saved-searches/"), 401)
    assert_refused(save(Script(make_token(ada, "read"))), 403)
    assert_refused(Script(make_token(ada, namespace=namespace_of(ada))).get("saved-searches/"), 403)
    assert SavedSearch.objects.get() == kept


def test_mails_of_what_is_new_are_asked_for_and_ended(script: Script, ada: User):
    assert "no e-mail address" in assert_refused(script.send("PUT", "news-mail/", {}), 400)["message"]
    ada.email = "ada@example.org"
    ada.save()
    asked = script.send("PUT", "news-mail/", {})
    assert "Confirm your e-mail address first" in assert_refused(asked, 400)["message"]
    EmailAddress.objects.create(user=ada, email=ada.email, verified=True, primary=True)
    off = {"wanted": False, "address": "ada@example.org", "confirmed": True}
    assert script.get("news-mail/").json() == off
    for _ in range(2):
        assert script.send("PUT", "news-mail/", {}).status_code == 204
    assert script.get("news-mail/").json() == off | {"wanted": True}
    assert NewsMail.objects.get().origin == "http://testserver"
    for _ in range(2):
        assert script.send("DELETE", "news-mail/", {}).status_code == 204
    assert not news_mail.is_wanted(ada)
