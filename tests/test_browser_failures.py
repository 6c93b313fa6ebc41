"""In real Chromium: what does not work is said on the page that one is on, and nothing that was typed is lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError
from playwright.sync_api import expect

from compose.models import Composition, Tryout
from registry import likes
from registry.models import Adapter, User
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import make_adapter, make_base_model, make_user, namespace_of
from tests.fake_adapters import make_adapter as make_adapter_folder
from tests.in_browser import PASSWORD, drop, sign_in

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import APIResponse, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def ada(transactional_db: None, rung: list[Any]) -> User:
    return make_user("ada", password=PASSWORD)


@pytest.fixture
def done(ada: User) -> Composition:
    base_model = make_base_model("demo/tiny-t5", kind="hosted")
    make_modules(base_model, 3)
    return finish(make_composition(owner=ada, base_model=base_model, title="Colours"))


def sign_out_behind(page: Page) -> None:
    """As when a session ends while its page is open."""
    page.context.clear_cookies(name="sessionid")


def sign_in_here(page: Page, name: str) -> None:
    """On the page that asked for it."""
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", PASSWORD)
    page.click("main button:has-text('Sign in')")


def sign_in_beside(page: Page, address: str, name: str = "ada") -> None:
    """In another tab of the same browser."""
    tab = page.context.new_page()
    sign_in(tab, address, name)
    tab.close()


def refused(route: Route) -> APIResponse:
    """The site's own answer to the same without the form's token."""
    headers = {"HX-Request": "true", "Content-Type": "application/x-www-form-urlencoded"}
    return route.fetch(headers=headers, post_data="seed=1")


def test_a_part_that_is_refused_says_why_on_the_page(page: Page, live_server: Any, done: Composition):
    page.goto(f"{live_server.url}/compose")
    trouble = page.locator("#trouble")
    first = page.get_by_label("Input of row 1")
    page.route("**/compose/check", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    first.fill("typed")
    expect(trouble).to_have_text("The site answered 502. What you typed is still here; try again.")
    page.wait_for_timeout(300)
    assert trouble.is_visible(), "it goes away before it can be read"
    page.unroute("**/compose/check")
    page.route("**/compose/check", lambda route: route.fulfill(response=refused(route)))
    first.fill("typed once more")
    expect(trouble).to_contain_text("This form was too old")
    page.unroute("**/compose/check")
    first.fill("short again")
    expect(trouble).not_to_be_visible()


def test_a_site_that_takes_a_question_and_says_nothing_is_said(
    page: Page, live_server: Any, done: Composition
):
    page.goto(f"{live_server.url}/compose")
    assert page.evaluate("htmx.config.timeout") == 60_000
    page.evaluate("htmx.config.timeout = 300")
    page.route("**/compose/check", lambda route: None)
    page.get_by_label("Input of row 1").fill("typed")
    expect(page.locator("#trouble")).to_have_text(
        "The site does not answer. What you typed is still here; try again."
    )


def test_a_page_whose_person_is_signed_out_says_so_and_goes_on_after(
    page: Page, live_server: Any, done: Composition
):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}{done.get_absolute_url()}")
    sign_out_behind(page)
    page.fill("#try-text", "What colour?")
    page.click("#try button:has-text('Answer')")
    expect(page.locator("#trouble")).to_contain_text("You are signed out. Sign in in another tab")
    assert page.locator("main input[type=password]").count() == 0, "the sign-in was put into the page"
    sign_in_beside(page, live_server.url)
    page.click("#try button:has-text('Answer')")
    expect(page.locator("#tryout")).to_contain_text("Waiting for a free worker")
    assert Tryout.objects.count() == 1


def test_an_answer_that_did_not_come_is_asked_for_again(page: Page, live_server: Any, done: Composition):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}{done.get_absolute_url()}")
    page.route("**/try/*", lambda route: route.abort())
    page.fill("#try-text", "What colour?")
    page.click("#try button:has-text('Answer')")
    expect(page.locator("#trouble")).to_contain_text("It is asked again by itself.")
    Tryout.objects.update(status="done", answers={"composed": "red", "zero_shot": "no"}, seconds=0.1)
    page.unroute("**/try/*")
    expect(page.locator(".tryout-answers .is-ours dd")).to_have_text("red")
    expect(page.locator("#said")).to_have_text("Answer: red")
    expect(page.locator("#trouble")).not_to_be_visible()


def test_back_from_a_composition_leads_to_the_form_as_it_was_sent(
    page: Page, live_server: Any, done: Composition
):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/compose")
    typed = [f"question {number}" for number in range(7)]
    for number, text in enumerate(typed, 1):
        page.get_by_label(f"Input of row {number}").fill(text)
        page.get_by_label(f"Output of row {number}").fill("yes")
    page.click("button[value=compose]")
    page.wait_for_url("**/compositions/*")
    page.go_back()
    expect(page.get_by_label("Input of row 7")).to_have_value("question 6")
    inputs = page.locator("textarea[name=example_input]")
    assert [cell.input_value() for cell in inputs.all()][:7] == typed
    page.wait_for_timeout(600)  # longer than the page waits before it keeps what somebody types
    page.goto(f"{live_server.url}/compose")
    assert inputs.first.input_value() == ""
    assert not page.is_visible("#draft-offer"), "it was sent"


def test_back_to_a_compose_form_that_was_not_sent_keeps_every_row(
    page: Page, live_server: Any, done: Composition
):
    page.goto(f"{live_server.url}/compose")
    for number in range(1, 8):
        page.get_by_label(f"Input of row {number}").fill(f"question {number}")
        page.get_by_label(f"Output of row {number}").fill("yes")
    page.wait_for_timeout(600)
    page.goto(f"{live_server.url}/tasks")
    page.go_back()
    expect(page.get_by_label("Input of row 7")).to_have_value("question 7")
    expect(page.locator("#draft-offer")).to_be_hidden()
    expect(page.locator("#examples-check b")).to_have_text("7 examples")


def test_back_to_another_compose_form_leaves_what_it_had(page: Page, live_server: Any, done: Composition):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/compose?again={done.pk}")
    inputs = page.locator("textarea[name=example_input]")
    before = [cell.input_value() for cell in inputs.all()]
    assert before[0]
    page.goto(f"{live_server.url}/compose")
    for number in range(1, 6):
        page.get_by_label(f"Input of row {number}").fill("mine")
        page.get_by_label(f"Output of row {number}").fill("yes")
    page.click("button[value=compose]")
    page.wait_for_url("**/compositions/*")
    page.go_back()
    expect(page.get_by_label("Input of row 5")).to_have_value("mine")
    page.go_back()
    page.wait_for_url("**/compose?again=*")
    page.wait_for_load_state()
    assert [cell.input_value() for cell in inputs.all()] == before


def test_what_was_typed_is_there_again_after_signing_in(page: Page, live_server: Any, ada: User):
    module = make_adapter("colour", namespace=namespace_of(ada))
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/ada/colour/settings")
    page.fill("[name=training]", "Three epochs, a rate of 1e-4")
    page.check("[name=visibility][value=private]")
    sign_out_behind(page)
    page.click("button:has-text('Save')")
    sign_in_here(page, "ada")
    page.wait_for_url("**/ada/colour/settings")
    assert page.input_value("[name=training]") == "Three epochs, a rate of 1e-4"
    assert page.is_checked("[name=visibility][value=private]")
    expect(page.get_by_text("It was not sent.")).to_be_visible()
    page.click("button:has-text('Save')")
    page.wait_for_url("**/ada/colour")
    module.refresh_from_db()
    assert (module.training, module.visibility) == ("Three epochs, a rate of 1e-4", "private")
    page.goto(f"{live_server.url}/ada/colour/settings")
    assert page.get_by_text("It was not sent.").count() == 0


def test_what_somebody_typed_is_nobody_elses(page: Page, live_server: Any, done: Composition):
    make_user("eve", password=PASSWORD)
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/organizations/new")
    page.fill("[name=name]", "secret-lab")
    sign_out_behind(page)
    page.click("button:has-text('Make the organisation')")
    sign_in_here(page, "eve")
    page.wait_for_url("**/organizations/new")
    assert page.input_value("[name=name]") == ""
    assert page.evaluate("sessionStorage.getItem('typed')") is None


def test_a_draft_is_nobody_elses(page: Page, live_server: Any, done: Composition):
    make_user("eve", password=PASSWORD)
    offer = page.locator("#draft-offer")

    def type_as_ada() -> None:
        sign_in(page, live_server.url, "ada")
        page.goto(f"{live_server.url}/compose")
        page.get_by_label("Input of row 1").fill("mine")
        page.wait_for_timeout(600)

    type_as_ada()
    sign_out_behind(page)
    page.goto(f"{live_server.url}/compose")
    expect(offer).to_be_hidden()
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/compose")
    expect(offer).to_be_visible()
    sign_out_behind(page)
    sign_in(page, live_server.url, "eve")
    page.goto(f"{live_server.url}/compose")
    expect(offer).to_be_hidden()
    assert page.evaluate("sessionStorage.getItem('compose-draft')") is None

    sign_out_behind(page)
    type_as_ada()
    page.click("summary[aria-label='Menu of ada']")
    page.click("button:has-text('Sign out')")
    page.wait_for_url(f"{live_server.url}/")
    assert page.evaluate("sessionStorage.getItem('compose-draft')") is None
    page.go_back()  # where the browser itself puts back what was typed
    expect(page.get_by_role("link", name="Sign in", exact=True)).to_be_visible()
    expect(page.get_by_label("Input of row 1")).to_have_value("")


def test_a_page_that_the_browser_kept_whole_is_asked_for_again_by_who_came_after(
    page: Page, live_server: Any, ada: User
):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/settings/liked")
    sign_out_behind(page)
    # Chromium keeps no page whole while it is watched: this is what it says when it shows one again.
    shown_again = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
    page.evaluate(shown_again)
    page.wait_for_timeout(300)
    assert page.url.endswith("/settings/liked")
    page.evaluate("sessionStorage.setItem('reader', '')")  # as the page of a guest does
    page.evaluate(shown_again)
    page.wait_for_url("**/accounts/login/**")


def test_a_page_about_a_fault_of_ours_takes_nobody_for_a_guest(
    page: Page, live_server: Any, ada: User, monkeypatch: pytest.MonkeyPatch
):
    def away(_: User) -> None:
        raise OperationalError("the database is away")

    sign_in(page, live_server.url, "ada")
    here = "sessionStorage.getItem('reader')"
    before = page.evaluate(here)
    monkeypatch.setattr(likes, "liked_by", away)
    answer = page.goto(f"{live_server.url}/settings/liked")
    assert answer is not None
    assert answer.status == 503
    assert page.evaluate(here) == before != ""


def test_what_a_guest_typed_is_for_who_signs_in(page: Page, live_server: Any, done: Composition):
    page.goto(f"{live_server.url}/compose")
    page.get_by_label("Input of row 1").fill("mine")
    page.wait_for_timeout(600)
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/compose")
    page.click("[data-draft=restore]")
    expect(page.get_by_label("Input of row 1")).to_have_value("mine")


def test_what_was_typed_into_a_form_that_is_too_old_is_there_again(page: Page, live_server: Any, ada: User):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/organizations/new")
    page.fill("[name=name]", "story-lab")
    page.context.clear_cookies(name="csrftoken")
    page.click("button:has-text('Make the organisation')")
    page.click("a:has-text('Load the page again')")
    assert page.input_value("[name=name]") == "story-lab"
    page.click("button:has-text('Make the organisation')")
    page.wait_for_url("**/story-lab**")


def test_what_was_too_much_for_one_form_is_there_again(
    page: Page, live_server: Any, done: Composition, settings: Any
):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2_000
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/tasks/new")
    page.fill("[name=title]", "Colours")
    page.fill("[name=rows]", "a\tb\n" * 600)
    page.click("button:has-text('Preview')")
    page.click("a:has-text('Back to the page')")
    assert page.input_value("[name=title]") == "Colours"
    assert len(page.input_value("[name=rows]")) == 2_400
    page.goto(f"{live_server.url}/compose")
    page.get_by_label("Input of row 1").fill("x" * 3_000)
    page.click("button[value=compose]")
    page.click("a:has-text('Back to the page')")
    page.click("[data-draft=restore]")
    assert len(page.get_by_label("Input of row 1").input_value()) == 3_000


def test_a_form_that_was_open_before_somebody_signed_in_elsewhere_still_counts(
    page: Page, live_server: Any, ada: User
):
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/settings")
    page.fill("[name=full_name]", "Ada")
    sign_out_behind(page)
    sign_in_beside(page, live_server.url)
    page.click("button:has-text('Save')")
    expect(page.get_by_text("Saved.")).to_be_visible()


def test_a_form_that_was_open_before_somebody_else_signed_in_counts_for_neither(
    page: Page, live_server: Any, ada: User
):
    eve = make_user("eve", password=PASSWORD)
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/settings")
    page.fill("[name=full_name]", "Ada")
    sign_out_behind(page)
    sign_in_beside(page, live_server.url, "eve")
    page.click("button:has-text('Save')")
    expect(page.locator("h1")).to_have_text(re.compile("^You are signed in as eve now"))
    page.click("a:has-text('Back to the page')")
    expect(page.locator("[name=full_name]")).to_have_value("")
    sign_out_behind(page)
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/settings")
    page.fill("[name=full_name]", "Ada")
    page.click("button:has-text('Save')")
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert [namespace_of(one).full_name for one in (ada, eve)] == ["Ada", ""]


def test_an_upload_whose_person_was_signed_out_is_sent_again(
    page: Page, live_server: Any, ada: User, tmp_path: Path
):
    make_base_model()
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/upload")
    drop(page, make_adapter_folder(tmp_path / "colour"))
    page.wait_for_selector("#verdict .notice.good")
    page.fill("input[name=name]", "colour")
    sign_out_behind(page)
    page.click("#publish")
    expect(page.locator("#problems")).to_contain_text("Sign in in another tab")
    assert page.title().startswith("Error: ")
    sign_in_beside(page, live_server.url)
    page.click("#forget")
    drop(page, make_adapter_folder(tmp_path / "colour"))
    page.wait_for_selector("#verdict .notice.good")
    page.click("#publish")
    page.wait_for_url("**/ada/colour")
    assert Adapter.objects.count() == 1


def test_a_refused_upload_leads_to_its_inputs(page: Page, live_server: Any, ada: User, tmp_path: Path):
    make_base_model()
    sign_in(page, live_server.url, "ada")
    page.goto(f"{live_server.url}/upload")
    drop(page, make_adapter_folder(tmp_path / "colour"))
    page.fill("input[name=name]", "no spaces")
    page.click("#publish")
    link = page.locator("#problems a[href='#id_name']")
    expect(link).to_contain_text("Name: ")
    assert page.title().startswith("Error: ")
    assert page.evaluate("document.activeElement.matches('#problems .notice')")
    link.click()
    name = page.locator("#id_name")
    expect(name).to_be_focused()
    said = link.inner_text().removeprefix("Name: ")
    expect(name).to_have_accessible_description(re.compile(re.escape(said)))
