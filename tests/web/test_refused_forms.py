"""A form that comes back says so where everybody notices: in the title, with the focus, and at each input."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
from allauth.mfa.totp.internal import auth as totp
from django.test import Client

from registry import moderation
from registry.models import User
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import (
    make_adapter,
    make_base_model,
    make_organisation,
    make_task,
    make_user,
    namespace_of,
)

pytestmark = pytest.mark.django_db


@dataclass
class _Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""

    @property
    def described_by(self) -> list[str]:
        return self.attributes.get("aria-describedby", "").split()

    @property
    def is_mistake(self) -> bool:
        return bool({"errorlist", "field-error"} & set(self.attributes.get("class", "").split()))


@dataclass
class _Page(HTMLParser):
    """The elements of a page with all text inside of them."""

    elements: list[_Element] = field(default_factory=list)
    _open: list[_Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = _Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in {
            "input",
            "meta",
            "link",
            "br",
            "hr",
            "img",
            "path",
            "circle",
            "rect",
            "line",
            "option",
        }:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and any(one.tag == tag for one in self._open):
            if self._open.pop().tag == tag:
                break

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


def page_of(answer: Any) -> _Page:
    page = _Page()
    page.feed(answer.content.decode())
    return page


def wrongs_of(page: _Page) -> list[str]:
    """What somebody who does not see the page would miss of the refusal on it."""
    found = []
    title = next(one.text for one in page.elements if one.tag == "title")
    if not title.startswith("Error: "):
        found.append(f"the title is {title!r}")
    focused = next((one for one in page.elements if "autofocus" in one.attributes), None)
    if focused is None:
        found.append("nothing has the focus")
    elif "aria-invalid" not in focused.attributes and focused.attributes.get("tabindex") != "-1":
        found.append(f"the focus is on {focused}")
    by_id = {one.attributes["id"]: one for one in page.elements if "id" in one.attributes}
    for one in page.elements:
        if "aria-invalid" in one.attributes and one.attributes.get("type") != "radio":
            if not one.described_by:
                found.append(f"{one.attributes} is wrong, and nothing says why")
            found += [f"there is no {name}" for name in one.described_by if name not in by_id]
        address = one.attributes.get("href", "")
        if one.tag == "a" and address.startswith("#") and address[1:] not in by_id:
            found.append(f"{address} leads nowhere")
    tied = {name for one in page.elements for name in one.described_by}
    found += [
        f"{one.text.strip()!r} belongs to no input"
        for one in page.elements
        if one.is_mistake and one.attributes.get("id") not in tied and one is not focused
    ]
    return found


@pytest.fixture
def ada() -> User:
    """Somebody with one of everything that a form is about."""
    ada = make_user("ada", is_staff=True, is_superuser=True)
    base_model = make_base_model("demo/tiny-t5", kind="hosted")
    make_modules(base_model, 3, owner=ada)
    make_adapter("colour", namespace=namespace_of(ada), base_model=base_model)
    make_task("mine", rows=5, test_rows=20, is_held_out=True, base_model=base_model, owner=namespace_of(ada))
    make_organisation("lab", members={ada: "admin"})
    return ada


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("/ada/colour/card", {"card": "x" * 262_145}),
    ("/ada/colour/delete", {"confirm": "something else"}),
    ("/ada/colour/move", {"move-namespace": "ada", "move-name": "a b"}),
    ("/ada/colour/move", {"move-namespace": "ada", "move-name": "colour"}),
    ("/ada/colour/push", {"endpoint": "https://evil.example"}),
    ("/ada/colour/report", {"reason": ""}),
    ("/ada/colour/settings", {"language": "x" * 41, "visibility": "odd"}),
    ("/accounts/email/", {"action_add": "", "email": "no address"}),
    ("/accounts/password/change/", {"oldpassword": "wrong", "password1": "short", "password2": "other"}),
    ("/accounts/reauthenticate/", {"password": "wrong"}),
    ("/base-models/new", {"name": "", "config_text": "{"}),
    ("/import", {"sources": "", "visibility": ""}),
    ("/lab/settings", {"full_name": "x" * 201}),
    ("/lab/settings/delete", {"confirm": "something else"}),
    ("/lab/settings/invite", {"username": "nobody", "role": "read"}),
    ("/lab/settings/members/ada", {"action": "remove"}),
    ("/modules/fit", {"base_model": "nobody/knows", "examples_text": "a"}),
    ("/modules/saved", {"name": "", "parameters": "q=a"}),
    ("/organizations/new", {"name": "a b"}),
    ("/settings", {"full_name": "x" * 201}),
    ("/settings/delete", {"confirm": "something else"}),
    ("/settings/organizations/lab/leave", {}),
    ("/settings/tokens", {"name": "", "scope": "odd"}),
    ("/settings/webhooks", {"url": "no address", "events": ["adapter.published"]}),
    ("/settings/webhooks", {"url": "https://lora.example/hook", "events": []}),
    ("/tasks/mine/delete", {"confirm": "something else"}),
    ("/tasks/mine/edit", {"title": "", "visibility": "public"}),
    ("/tasks/mine/report", {"reason": ""}),
    ("/tasks/mine/rows", {"rows": "a", "shown": "many"}),
    ("/tasks/new", {"title": "", "rows": "a\tb", "visibility": "odd"}),
    ("/upload", {"namespace": "ada", "name": "", "visibility": "odd"}),
    ("/upload", {"namespace": "ada", "name": "fine", "visibility": "public"}),
]


@pytest.mark.parametrize(("address", "sent"), REFUSED, ids=[address for address, _ in REFUSED])
def test_a_refused_form_says_so_in_the_title_with_the_focus_and_at_each_input(
    client: Client, ada: User, address: str, sent: dict[str, Any]
):
    client.force_login(ada)
    assert wrongs_of(page_of(client.get("/modules")))[0].startswith("the title is"), "and no other page"
    answer = client.post(address, sent)
    if "/reauthenticate/" in answer.get("Location", ""):  # deleting an account asks for the password first
        client.post(answer["Location"], {"password": "correct horse battery"})
        answer = client.post(address, sent)
    assert answer.status_code in {200, 400, 409, 422}
    assert wrongs_of(page_of(answer)) == []


def test_a_refused_question_in_an_address_says_so_too(client: Client):
    for address in ("/hashes?sha256=short", f"/modules?q={'x' * 300}"):
        assert wrongs_of(page_of(client.get(address))) == [], address


def test_deleting_an_account_says_so_too(client: Client):
    client.force_login(make_user("bob"))
    asked = client.post("/settings/delete", {"confirm": "b"})
    client.post(asked["Location"], {"password": "correct horse battery"})
    assert wrongs_of(page_of(client.post("/settings/delete", {"confirm": "b"}))) == []


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("/accounts/login/", {"login": "ada", "password": "wrong"}),
        ("/accounts/login/", {"login": "", "password": ""}),
        ("/accounts/signup/", {"username": "a b", "email": "no address", "password1": "short"}),
        ("/accounts/password/reset/", {"email": "no address"}),
    ],
)
def test_the_forms_of_guests_say_so_too(client: Client, address: str, sent: dict[str, str]):
    make_user("ada")
    assert wrongs_of(page_of(client.post(address, sent))) == []


def test_the_second_factor_says_so_too(client: Client):
    ada = make_user("ada")
    totp.TOTP.activate(ada, totp.generate_totp_secret())
    client.post("/accounts/login/", {"login": "ada", "password": "correct horse battery"})
    assert wrongs_of(page_of(client.post("/accounts/2fa/authenticate/", {"code": "000000"}))) == []


ROWS = {"example_input": [f"q{n}" for n in range(5)], "example_output": [f"a{n}" for n in range(5)]}
ASKED = {"base_model": "demo/tiny-t5", "choice": "auto", "method": "auto", "seed": "1", "action": "compose"}


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"example_input": [], "example_output": []}, "example-1"),
        ({"example_input": ["q"], "example_output": ["a"]}, "example-2"),
        ({"example_output": ["a", "b", "", "d", "e"]}, "example-3"),
        ({"examples_text": '{"in": "x"}'}, "examples-text"),
        ({"test_text": '{"in": "x"}'}, "test-text"),
        ({"budget": "0", "seed": "", "export_rank": "5000", "time_limit": "0"}, "id_budget"),
        ({"base_model": "nobody/knows", "method": "magic", "metric": "magic"}, "id_base_model"),
        ({"choice": "picked"}, "choice-picked"),
        ({"task": "gone"}, ""),
    ],
)
def test_the_compose_form_leads_to_the_input_that_is_wrong(
    client: Client, ada: User, sent: dict[str, Any], place: str
):
    client.force_login(ada)
    page = page_of(client.post("/compose", ROWS | ASKED | sent))
    assert wrongs_of(page) == []
    links = [
        one.attributes["href"] for one in page.elements if one.attributes.get("href", "").startswith("#")
    ]
    assert not place or f"#{place}" in links


def test_a_check_is_where_the_page_opens(client: Client, ada: User):
    client.force_login(ada)
    fine = page_of(client.post("/compose", ROWS | ASKED | {"action": "check"}))
    assert wrongs_of(fine) == ["the title is 'Compose · LoRA Commons'"]
    few = {"example_input": ["q"], "example_output": ["a"], "action": "check"}
    refused = page_of(client.post("/compose", ROWS | ASKED | few))
    assert wrongs_of(refused) == []
    for page in (fine, refused):
        focused = next(one for one in page.elements if "autofocus" in one.attributes)
        assert focused.attributes["id"] == "check"


def test_a_row_keeps_its_number_when_the_form_comes_back(client: Client, ada: User):
    client.force_login(ada)
    rows = {"example_input": ["one", "", "three"], "example_output": ["I", "", ""]}
    page = page_of(client.post("/compose", ROWS | ASKED | rows))
    assert any("Row 3 has no output." in one.text for one in page.elements if one.is_mistake)
    [wrong] = [one for one in page.elements if one.tag == "textarea" and "aria-invalid" in one.attributes]
    assert wrong.attributes["aria-label"] == "Output of row 3"


def test_publishing_says_so_too(client: Client, ada: User):
    client.force_login(ada)
    done = finish(make_composition(owner=ada))
    sent = {"namespace": "nobody", "name": "a b", "visibility": "odd", "description": "x" * 501}
    assert wrongs_of(page_of(client.post(f"{done.get_absolute_url()}/publish", sent))) == []


def test_a_moderator_is_led_to_what_could_not_be_done(client: Client, ada: User):
    client.force_login(ada)
    colour = make_adapter("doubtful")
    moderation.report(colour, reporter=ada, address="", reason="other", text="Look.")
    answer = client.post(f"{colour.get_absolute_url()}/moderate", {"action": "quarantine", "reason": ""})
    assert wrongs_of(page_of(answer)) == []


def test_a_page_that_is_not_there_has_its_own_title(client: Client):
    assert "<title>There is no LoRA module" in client.get("/nothing/here").content.decode()


def test_hints_belong_to_their_inputs(client: Client, ada: User):
    client.force_login(ada)
    for address in (
        "/upload",
        "/settings/tokens",
        "/ada/colour/settings",
        "/ada/colour/card",
        "/tasks/new",
        "/import",
    ):
        page = page_of(client.get(address))
        tied = {name for one in page.elements for name in one.described_by}
        hints = [one for one in page.elements if one.attributes.get("id", "").endswith("_helptext")]
        assert hints, address
        assert [one.text for one in hints if one.attributes["id"] not in tied] == [], address


def test_a_guest_gets_no_token_for_forms_from_a_page_that_has_none(client: Client):
    assert "csrftoken" not in client.get("/docs").cookies
    assert "csrftoken" in client.get("/").cookies
