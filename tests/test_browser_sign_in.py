"""Sign-in by another server, the whole way in real Chromium: there, back, a name, and the same person the next time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal import auth as totp
from allauth.socialaccount.models import SocialAccount

from registry.models import Namespace, User
from tests.factories import code_of, make_user
from tests.in_browser import PASSWORD
from tests.oidc_provider import Provider, oidc_provider

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def provider(settings: Any) -> Iterator[Provider]:
    with oidc_provider() as provider:
        provider.people["7"] = {
            "email": "grace@example.org",
            "email_verified": True,
            "preferred_username": "grace.hopper@works.example",
        }
        settings.SOCIALACCOUNT_PROVIDERS = provider.settings()
        yield provider


@pytest.fixture
def start(page: Page, live_server: Any, provider: Provider) -> str:
    """The address of the site, and the page not signed in."""
    return str(live_server.url)


def come_from_there(page: Page, start: str, sub: str, *, back_to: str = "/modules") -> None:
    page.goto(f"{start}/accounts/login/?next={back_to}")
    page.click("text=Sign in with Example Works")
    say_who(page, sub)


def say_who(page: Page, sub: str) -> None:
    page.fill("#sub", sub)
    page.click("button[value=yes]")
    page.wait_for_selector("header.site")


def sign_in_here(page: Page, start: str, name: str, back_to: str) -> None:
    page.goto(f"{start}/accounts/login/?next={back_to}")
    page.fill("[name=login]", name)
    page.fill("[name=password]", PASSWORD)
    page.click("main form.card button[type=submit]")


def show_once_more(page: Page) -> None:
    """Whoever found an open browser changes nothing: the password is asked for before a change of sign-in."""
    page.wait_for_selector("h1:has-text('Is it you?')")
    page.fill("[name=password]", PASSWORD)
    page.click("main button[type=submit]")


def sign_out(page: Page) -> None:
    page.context.clear_cookies()


def is_in(page: Page, name: str) -> bool:
    return page.locator(f"summary[aria-label='Menu of {name}']").count() == 1


def test_the_first_time_a_name_is_chosen_and_the_second_time_it_is_known(page: Page, start: str):
    come_from_there(page, start, "7", back_to="/base-models")
    assert page.input_value("[name=username]") == "grace.hopper"  # as there, as far as a name here may be so
    page.fill("[name=username]", "grace")
    page.click("main button[type=submit]")
    page.wait_for_url(f"{start}/base-models")
    assert is_in(page, "grace")
    assert Namespace.objects.get(name="grace").kind == "user"
    assert not User.objects.get().has_usable_password()
    sign_out(page)
    come_from_there(page, start, "7")
    page.wait_for_url(f"{start}/modules")
    assert is_in(page, "grace")
    assert User.objects.count() == 1


def test_a_name_that_somebody_has_is_not_proposed_and_refused_in_words(page: Page, start: str):
    make_user("grace.hopper")
    come_from_there(page, start, "7")
    assert page.input_value("[name=username]") == ""
    page.fill("[name=username]", "grace.hopper")
    page.click("main button[type=submit]")
    assert "names are not handed out twice" in page.inner_text(".errorlist")


def test_an_address_of_another_account_is_not_taken_over(page: Page, start: str):
    ada = make_user("ada", email="grace@example.org")
    come_from_there(page, start, "7")
    assert not is_in(page, "ada")
    page.fill("[name=username]", "grace")
    page.click("main button[type=submit]")
    assert "An account here has this e-mail address already." in page.inner_text(".errorlist")
    page.fill("[name=email]", "")
    page.click("main button[type=submit]")
    page.wait_for_url(f"{start}/modules")
    assert is_in(page, "grace")
    assert not SocialAccount.objects.filter(user=ada).exists()
    assert not EmailAddress.objects.filter(user__username="grace").exists()


def test_an_account_is_linked_used_and_unlinked(page: Page, start: str):
    make_user("ada", password=PASSWORD)
    sign_in_here(page, start, "ada", "/settings")
    page.click("nav[aria-label=Settings] >> text=Sign-in elsewhere")
    page.click("text=Add an account at Example Works")
    say_who(page, "7")
    show_once_more(page)
    page.wait_for_selector("text=It signs you in here from now on.")
    sign_out(page)
    come_from_there(page, start, "7", back_to="/accounts/3rdparty/")
    assert is_in(page, "ada")
    page.click("button[aria-label='Remove grace@example.org']")
    show_once_more(page)
    page.wait_for_selector("text=It no longer signs you in here.")
    assert not SocialAccount.objects.exists()


def test_the_only_way_in_is_not_removed(page: Page, start: str):
    come_from_there(page, start, "7")
    page.click("main button[type=submit]")
    page.wait_for_url(f"{start}/modules")
    page.goto(f"{start}/accounts/3rdparty/")
    page.click("main .addresses button")
    assert "Set a password first" in page.inner_text("main [role=alert]")
    page.click("text=Set a password >> nth=-1")
    page.fill("[name=password1]", PASSWORD)
    page.fill("[name=password2]", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_selector("text=Your password is set.")
    assert SocialAccount.objects.count() == 1


def test_a_second_factor_is_asked_for_all_the_same(page: Page, start: str):
    ada = make_user("ada")
    SocialAccount.objects.create(user=ada, provider="oidc", uid="7", extra_data={})
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(ada, secret)
    come_from_there(page, start, "7")
    assert not is_in(page, "ada")
    page.goto(f"{start}/accounts/2fa/authenticate/")
    assert not page.is_visible("#mfa_webauthn_authenticate"), "there is no passkey"
    page.fill("[name=code]", code_of(secret))
    page.click("main button[type=submit]")
    page.wait_for_url(f"{start}/modules")
    assert is_in(page, "ada")


def test_who_has_no_password_turns_on_a_second_factor(page: Page, start: str):
    come_from_there(page, start, "7")
    page.click("main button[type=submit]")
    page.wait_for_url(f"{start}/modules")
    page.goto(f"{start}/accounts/2fa/totp/activate/")
    page.fill("[name=code]", code_of(page.input_value("#authenticator_secret")))
    page.click("main button[type=submit]")
    page.wait_for_selector("text=The authenticator app is turned on.")


def test_a_no_there_and_a_server_that_is_away_are_said_in_words(page: Page, start: str, provider: Provider):
    page.goto(f"{start}/accounts/login/")
    page.click("text=Sign in with Example Works")
    page.click("button[value=no]")
    page.wait_for_selector("text=You said no at the other server.")
    page.click("text=Sign in another way")
    page.click("text=Sign in with Example Works")
    page.wait_for_selector("#sub")
    provider.is_broken = True
    say_who(page, "7")
    page.wait_for_selector("text=Example Works did not say who you are")
    page.click("text=Try again")
    page.click("text=Sign in with Example Works")
    page.wait_for_selector("text=The server of Example Works does not answer")


@pytest.mark.parametrize("may_they", [True, False])
def test_a_site_that_makes_no_accounts_may_still_let_those_in(
    page: Page, start: str, settings: Any, may_they: bool
):
    settings.SIGN_UP_OPEN = False
    settings.OIDC_SIGN_UP_OPEN = may_they
    come_from_there(page, start, "7")
    if may_they:
        page.click("main button[type=submit]")
        page.wait_for_url(f"{start}/modules")
    else:
        page.wait_for_selector("text=Sign-up is closed")
    assert User.objects.exists() == may_they


def test_from_a_link_that_was_used_before_one_sees_where_to_go_on(page: Page, live_server: Any):
    page.goto(f"{live_server.url}/accounts/confirm-email/used-before/")
    link = page.get_by_role("link", name="Send a new one")
    assert link.evaluate("(at) => getComputedStyle(at).textDecorationLine") == "underline"
