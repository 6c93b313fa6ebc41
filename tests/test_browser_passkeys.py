"""In real Chromium with a virtual authenticator: a passkey is added and opens the account, alone or after the password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from allauth.mfa.models import Authenticator

from registry.models import User
from tests.factories import make_user
from tests.in_browser import PASSWORD, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import CDPSession, Page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def alice(transactional_db: None) -> User:
    return make_user("alice", password=PASSWORD)


@pytest.fixture
def authenticator(page: Page) -> CDPSession:
    """As a laptop with a finger on its sensor: what it makes is kept in it, and its owner always agrees."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session


def begin_adding(page: Page, site: Any) -> None:
    """Whoever found an open browser adds no key: the password is asked for once more."""
    page.goto(f"{site.url}/accounts/2fa/webauthn/add/")
    page.wait_for_url("**/accounts/reauthenticate/**")
    page.fill("input[name=password]", PASSWORD)
    page.click("main button[type=submit]")
    page.wait_for_url("**/accounts/2fa/webauthn/add/")
    page.fill("input[name=name]", "My laptop")


def sign_out(page: Page, site: Any) -> None:
    page.goto(f"{site.url}/accounts/logout/")
    page.click("main button")
    page.wait_for_url(f"{site.url}/")


def by_passkey(page: Page, site: Any) -> None:
    page.goto(f"{site.url}/accounts/login/")
    page.click("#passkey_login")


def test_a_passkey_opens_the_account_without_a_password(
    page: Page, live_server: Any, alice: User, authenticator: CDPSession
):
    sign_in(page, live_server.url, "alice")
    begin_adding(page, live_server)
    page.check("input[name=passwordless]")
    page.click("#mfa_webauthn_add")
    page.wait_for_url("**/accounts/2fa/recovery-codes/**")
    [key] = Authenticator.objects.filter(user=alice, type=Authenticator.Type.WEBAUTHN)
    assert key.wrap().is_passwordless

    sign_out(page, live_server)
    by_passkey(page, live_server)
    page.wait_for_url(f"{live_server.url}/")
    page.goto(f"{live_server.url}/settings")
    assert page.url == f"{live_server.url}/settings"

    page.goto(f"{live_server.url}/accounts/2fa/webauthn/")
    assert "My laptop" in page.inner_text("main")


def test_the_password_alone_is_not_enough_once_there_is_a_key(
    page: Page, live_server: Any, alice: User, authenticator: CDPSession
):
    sign_in(page, live_server.url, "alice")
    begin_adding(page, live_server)
    page.click("#mfa_webauthn_add")
    page.wait_for_url("**/accounts/2fa/recovery-codes/**")
    sign_out(page, live_server)
    page.goto(f"{live_server.url}/accounts/login/")
    page.fill("input[name=login]", "alice")
    page.fill("input[name=password]", PASSWORD)
    page.click("button:has-text('Sign in')")
    page.wait_for_url("**/accounts/2fa/authenticate/**")
    page.goto(f"{live_server.url}/settings")
    assert page.url == f"{live_server.url}/accounts/2fa/authenticate/", "not yet in"
    page.click("#mfa_webauthn_authenticate")
    page.wait_for_url(f"{live_server.url}/")
    page.goto(f"{live_server.url}/settings")
    assert page.url == f"{live_server.url}/settings"
