"""Nobody ends on an address that is no page."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.factories import make_adapter, make_organisation, make_user
from web.way_back import page_above

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("path", "above"),
    [
        ("/alice/colour/like", "/alice/colour"),
        ("/alice/follow", "/alice"),
        ("/settings/tokens/3/revoke", "/settings/tokens"),
        ("/settings/deliveries/3/replay", "/settings"),
        ("/modules/saved", "/modules"),
        ("/lab/settings/members/bob", "/lab/settings"),
        ("/upload/check", "/upload"),
        ("/accounts/2fa/", "/"),
        ("/", "/"),
    ],
)
def test_the_page_above_is_the_nearest_that_there_is(path: str, above: str):
    assert page_above(path) == above


def test_a_guest_who_presses_a_button_comes_back_to_its_page_after_signing_in(client: Client):
    seen = make_adapter("seen")
    page = f"/{seen.full_name}"
    assert client.post(f"{page}/like")["Location"] == f"/accounts/login/?next={page}"
    elsewhere = client.post(f"{page}/like", headers={"Referer": "https://evil.example/x"})
    assert elsewhere["Location"] == f"/accounts/login/?next={page}"
    listed = client.post(f"{page}/follow", headers={"Referer": "http://testserver/modules?q=a"})
    assert listed["Location"] == "/accounts/login/?next=/modules%3Fq%3Da"
    same = client.post("/upload", headers={"Referer": "http://testserver/upload?name=a"})
    assert same["Location"] == "/accounts/login/?next=/upload%3Fname%3Da"
    make_user("ada")
    fields = {"login": "ada", "password": "correct horse battery", "next": page}
    assert client.post("/accounts/login/", fields, follow=True).status_code == 200


def test_a_script_is_told_that_its_person_is_signed_out(client: Client):
    for address in ("/upload", "/upload/check"):
        answer = client.post(address, headers={"Accept": "application/json"})
        assert answer.status_code == 401
        assert answer.json()["code"] == "signed_out"


def test_a_part_of_a_page_is_refused_in_a_sentence_that_the_page_shows():
    """htmx would put a page of its own, such as the sign-in, into the page that is open."""
    strict = Client(enforce_csrf_checks=True, headers={"HX-Request": "true"})
    for address, status, words in (
        ("/settings/following", 401, "You are signed out."),
        ("/compositions/abc/progress", 404, "If you were signed in, do so again in another tab."),
        ("/nothing/here", 404, "There is no LoRA module"),
    ):
        answer = strict.get(address)
        assert (answer.status_code, answer["Content-Type"]) == (status, "text/plain; charset=utf-8")
        assert words in answer.content.decode()
    answer = strict.post("/compose/check", {})
    assert (answer.status_code, answer["Content-Type"]) == (403, "text/plain; charset=utf-8")
    assert "This form was too old" in answer.content.decode()
    signed_in = Client(headers={"HX-Request": "true"})
    signed_in.force_login(make_user())
    assert "If you were" not in signed_in.get("/nothing/here").content.decode()


def test_a_wrong_method_has_a_page_that_leads_on_and_names_the_right_one(client: Client):
    page = f"/{make_adapter('seen').full_name}"
    client.force_login(make_user())
    answer = client.get(f"{page}/like")
    assert answer.status_code == 405
    assert answer["Allow"] == "POST"
    assert f'href="{page}">Back to the page' in answer.content.decode()


def test_a_form_that_is_refused_leads_to_the_page_that_it_is_on():
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user())
    answer = client.post("/modules/saved", {}, headers={"Referer": "http://testserver/modules?q=a"})
    page = answer.content.decode()
    assert answer.status_code == 403
    assert 'href="/modules?q=a">Load the page again' in page
    assert "Ask somebody" not in page


def test_who_may_not_write_is_told_whom_to_ask(client: Client):
    page = f"/{make_adapter('seen').full_name}"
    client.force_login(make_user())
    assert "Ask somebody who may write there" in client.get(f"{page}/settings").content.decode()


def test_the_last_admin_is_refused_where_they_pressed_leave(client: Client):
    ada = make_user("ada")
    make_organisation("lab", members={ada: "admin"})
    client.force_login(ada)
    mine = client.post("/settings/organizations/lab/leave")
    theirs = client.post("/lab/settings/members/ada", {"action": "remove"})
    for answer, sign in ((mine, "Your organisations"), (theirs, "Ask somebody to join")):
        assert answer.status_code == 409
        assert sign in answer.content.decode()
        assert "left without an admin" in answer.content.decode()


def test_a_script_that_forgets_the_last_slash_is_told(client: Client):
    for path in ("/api/v1/adapters", "/api/v1/adapters/ada/m", "/api/v1/compositions"):
        for ask in (client.get, client.post):
            answer = ask(path)
            assert answer.status_code == 404
            assert answer.json()["message"].endswith(f"it ends with a slash: {path}/")
    assert "slash" not in client.get("/api/v1/nothing").json()["message"]
    for path in ("/api", "/api/", "/api/docs", "/api/v1", "/api/v1/"):
        assert client.get(path)["Location"] == "/api/docs/"


def test_a_slash_too_many_leads_to_the_page(client: Client):
    page = f"/{make_adapter('seen').full_name}"
    for path, bare in (
        ("/modules/?q=a", "/modules?q=a"),
        (f"{page}/", page),
        ("/docs/limits/", "/docs/limits"),
    ):
        answer = client.get(path)
        assert answer.status_code == 301
        assert answer["Location"] == bare
    for path in ("/api/models/a/", "/a/b/c/d/", "/%2Fevil.example/", "/%2Fevil.example%2Fx/"):
        assert client.get(path).status_code == 404
    assert client.post("/modules/").status_code == 404
