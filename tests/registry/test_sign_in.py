"""Signing in: limits that lock nobody out, a second factor, sessions, another server's accounts, no telling who exists."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from gettext import GNUTranslations
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import allauth
import httpx2
import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth as totp
from django.conf import settings as settings_of_site
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import get_resolver

from benchmarks.chaos import strangers
from registry.accounts import NameTaken, create_account
from registry.models import Namespace, User
from registry.names import name_like
from registry.rights import may_write
from tests.factories import code_of, make_user
from tests.oidc_provider import Provider, oidc_provider
from tests.test_rights_matrix import ACCOUNT, ROUTES
from web.templatetags import sign_in as purposes

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


def sign_in(client: Client, login: str, password: str = PASSWORD, address: str = "127.0.0.1") -> Any:
    return client.post("/accounts/login/", {"login": login, "password": password}, REMOTE_ADDR=address)


def was_checked(answer: Any) -> bool:
    """Whether the password was looked at; as the trial of many guesses sees it, so that both know the page's words."""
    return strangers.was_checked(answer.status_code, answer.content.decode())


def is_in(client: Client) -> bool:
    return client.get("/settings").status_code == 200


# --- Guessing ------------------------------------------------------------------------------------------------


def test_a_thousand_guesses_from_one_address_are_ten():
    make_user("ada")
    client = Client()
    answers = [sign_in(client, "ada", f"guess {number}") for number in range(50)]
    assert sum(was_checked(answer) for answer in answers) <= 10
    assert answers[-1].status_code == 429
    assert answers[-1]["Retry-After"] == "300"
    sign_in(client, "ada")
    assert not is_in(client), "the right password from there waits as well"


def test_guesses_from_many_addresses_do_not_lock_out_the_owner():
    make_user("ada")
    home = Client()
    sign_in(home, "ada", address="10.9.9.9")
    assert is_in(home)
    home.post("/accounts/logout/")
    answers = [
        sign_in(Client(), "ada", f"guess {number}", address=f"10.0.0.{number}") for number in range(60)
    ]
    assert sum(was_checked(answer) for answer in answers) <= 10
    sign_in(home, "ada", address="10.9.9.9")
    assert is_in(home), "the owner's own browser is counted apart"


def test_a_known_browser_is_known_for_its_account_alone():
    make_user("ada")
    make_user("eve")
    client = Client()
    sign_in(client, "eve")
    client.post("/accounts/logout/")
    answers = [sign_in(client, "ada", f"guess {number}", address=f"10.0.0.{number}") for number in range(30)]
    assert sum(was_checked(answer) for answer in answers) <= 10


def test_nobody_is_told_who_has_an_account():
    make_user("ada", email="ada@example.org")
    token = re.compile(r'name="csrfmiddlewaretoken" value="[^"]+"|request [0-9a-f]{16}')
    for address, fields in (
        ("/accounts/login/", [{"login": name, "password": "wrong"} for name in ("ada", "abc")]),
        ("/accounts/password/reset/", [{"email": f"{name}@example.org"} for name in ("ada", "abc")]),
    ):
        known, unknown = (Client().post(address, given, follow=True) for given in fields)
        assert known.status_code == unknown.status_code
        first, second = (token.sub("", answer.content.decode()) for answer in (known, unknown))
        assert first.replace("ada", "abc") == second, address


def test_the_administration_has_no_door_of_its_own():
    make_user("root", is_staff=True, is_superuser=True)
    client = Client()
    answer = client.post("/admin/login/", {"username": "root", "password": PASSWORD})
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/")
    assert client.get("/admin/").status_code == 302


def test_a_site_may_close_its_sign_up(settings):
    settings.SIGN_UP_OPEN = False
    Client().post("/accounts/signup/", {"username": "eve", "password1": PASSWORD, "password2": PASSWORD})
    assert not User.objects.filter(username="eve").exists()
    page = Client().get("/accounts/login/").content.decode()
    assert "/accounts/signup/" not in page
    assert "The people who run this site decide who has an account." in page


# --- Why somebody is here, and the way back ----------------------------------------------------------------------

PAGE = "/upload?namespace=lab"
FORM = {"username": "zoe", "password1": PASSWORD, "password2": PASSWORD, "next": PAGE}


def link_in(mail: Any) -> str:
    found = re.search(r"http://[^/]+(/accounts/confirm-email/\S+)", mail.body)
    assert found
    return found[1]


def test_who_is_sent_to_sign_in_is_told_what_for_and_what_an_account_takes(settings: Any):
    page = Client().get(PAGE, follow=True).content.decode()
    assert "Sign in to upload a module. No account?" in page
    assert "it takes a name and a password." in page
    assert "Sign in to" not in Client().get("/accounts/login/").content.decode()
    assert "Sign in to" not in Client().get("/accounts/login/?next=/ada/colour").content.decode()
    settings.HIDES_WHOSE_ADDRESS = True
    page = Client().get("/accounts/login/?next=/tasks/new").content.decode()
    assert "Sign in to make a task." in page
    assert "it takes a name, a password and an e-mail address." in page


@pytest.mark.parametrize(
    "url",
    [
        route.url
        for name, route in ROUTES.items()
        if route.needs.get("GET") == ACCOUNT and route.door == "page" and not name.startswith("accounts/")
    ],
)
def test_every_page_that_needs_an_account_says_what_for(url: str):
    answer = Client().get(url, follow=True)
    assert answer.redirect_chain[0][0].startswith("/accounts/login/?next=")
    assert "Sign in to " in answer.content.decode()


def test_what_for_is_said_again_beside_a_wrong_password():
    answer = Client().post("/accounts/login/", {"login": "ada", "password": "no", "next": "/tasks/new"})
    assert "Sign in to make a task." in answer.content.decode()


def test_every_link_between_signing_in_and_signing_up_keeps_the_way_back():
    for address in ("login", "signup"):
        page = Client().get(f"/accounts/{address}/", {"next": PAGE}).content.decode()
        links = set(re.findall(r'href="(/accounts/(?:login|signup)/[^"]*)"', page))
        assert {parse_qs(urlsplit(unescape(link)).query)["next"][0] for link in links} == {PAGE}
    home = Client().get("/").content.decode()
    assert {'href="/accounts/login/"', 'href="/accounts/signup/"'} <= set(
        re.findall(r'href="/acc[^"]*"', home)
    )
    assert 'href="/accounts/signup/?next=/modules%3Fq%3Dx"' in Client().get("/modules?q=x").content.decode()


_FORM_TYPE = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("sent", "content_type", "status"),
    [
        (urlencode({f"field{number}": "x" for number in range(2001)}), _FORM_TYPE, 400),
        (urlencode({"login": "x" * 5_000_000}), _FORM_TYPE, 413),
        ("login=ada", f"{_FORM_TYPE}; charset=latin-1", 400),
    ],
    ids=["fields", "bytes", "letters"],
)
def test_a_form_to_sign_in_that_cannot_be_read_is_refused_on_a_page(
    sent: str, content_type: str, status: int
):
    answer = Client().post(f"/accounts/login/?next={PAGE}", sent, content_type)
    assert answer.status_code == status
    links = re.findall(r'href="(/accounts/login/[^"]*)"', answer.content.decode())
    assert {parse_qs(urlsplit(unescape(link)).query)["next"][0] for link in links} == {PAGE}


def test_the_page_of_what_is_not_there_leads_back_to_what_was_asked_for_and_not_to_what_was_sent():
    def link(page: str) -> str:
        return re.findall(r'href="(/accounts/login/[^"]*)"', page.partition("<main")[2])[0]

    assert link(Client().get("/nobody").content.decode()) == "/accounts/login/?next=/nobody"
    assert link(Client().post("/nobody").content.decode()) == "/accounts/login/"


def test_who_signs_up_goes_on_where_they_were_going():
    assert Client().post("/accounts/signup/", FORM)["Location"] == PAGE


def test_who_confirms_their_address_in_another_browser_signs_in_there(confirms_addresses, mailoutbox):
    client = Client()
    client.post("/accounts/signup/", {**FORM, "email": "zoe@example.org"})
    assert not is_in(client)
    elsewhere = Client()
    assert elsewhere.post(link_in(mailoutbox[-1]))["Location"] == "/accounts/login/"
    assert not is_in(elsewhere)


def test_who_confirms_their_address_in_the_same_browser_is_in(confirms_addresses, mailoutbox):
    client = Client()
    client.post("/accounts/signup/", {**FORM, "email": "zoe@example.org"})
    assert (
        client.get(link_in(mailoutbox[-1])).status_code == 200
    )  # a program that looks at links in mails confirms nothing
    assert not is_in(client)
    assert client.post(link_in(mailoutbox[-1]))["Location"] == PAGE
    assert is_in(client)


def test_a_second_factor_keeps_the_way_back():
    user = make_user("ada")
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(user, secret)
    client = Client()
    answer = client.post("/accounts/login/", {"login": "ada", "password": PASSWORD, "next": PAGE})
    assert client.post(answer["Location"], {"code": code_of(secret)})["Location"] == PAGE


# --- A second factor and sessions --------------------------------------------------------------------------------


def test_with_a_second_factor_the_password_alone_opens_nothing():
    user = make_user("ada")
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(user, secret)
    client = Client()
    answer = sign_in(client, "ada")
    assert answer["Location"].startswith("/accounts/2fa/authenticate/")
    assert not is_in(client)
    assert client.get("/admin/").status_code == 302
    client.post("/accounts/2fa/authenticate/", {"code": "000000"})
    assert not is_in(client)
    client.post("/accounts/2fa/authenticate/", {"code": code_of(secret)})
    assert is_in(client)


@pytest.mark.parametrize(
    ("steps_late", "is_good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_a_code_typed_as_it_changes_is_right_and_each_is_good_once(monkeypatch, steps_late, is_good):
    user = make_user("ada")
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(user, secret)
    now = int(time.time())
    code = code_of(secret)
    monkeypatch.setattr(time, "time", lambda: now + 30 * steps_late)
    for is_right in (is_good, False):
        client = Client()
        sign_in(client, "ada")
        client.post("/accounts/2fa/authenticate/", {"code": code})
        assert is_in(client) == is_right


def test_a_person_turns_on_a_second_factor_by_the_pages():
    make_user("ada")
    client = Client()
    sign_in(client, "ada")
    assert client.get("/accounts/2fa/").status_code == 200
    asked = client.get("/accounts/2fa/totp/activate/")["Location"]
    assert asked.startswith("/accounts/reauthenticate/"), "whoever found an open browser changes no factors"
    client.post(asked, {"password": PASSWORD})
    page = client.get("/accounts/2fa/totp/activate/")
    assert "data:image/svg+xml" in page.content.decode()
    secret = client.session["mfa.totp.secret"]
    client.post("/accounts/2fa/totp/activate/", {"code": code_of(secret)})
    assert Authenticator.objects.filter(user__username="ada", type="totp").exists()
    codes = client.get("/accounts/2fa/recovery-codes/")
    unused = Authenticator.objects.get(user__username="ada", type="recovery_codes").wrap().get_unused_codes()
    [shown] = re.findall(r"<textarea[^>]+>([^<]+)</textarea>", codes.content.decode())
    assert shown.split() == unused
    assert client.get("/accounts/2fa/webauthn/add/").status_code == 200
    assert "passkey_login" in Client().get("/accounts/login/").content.decode()


def test_an_address_is_changed_after_the_password_and_the_old_one_signs_nobody_in(settings):
    make_user("ada", email="old@example.org")
    client = Client()
    client.force_login(User.objects.get(username="ada"), backend="django.contrib.auth.backends.ModelBackend")
    assert "old@example.org" in client.get("/settings").content.decode()
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    page = client.get("/accounts/email/").content.decode()
    assert "E-mail addresses" in page
    assert "This site sends no mail." in page
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    assert "This site sends no mail." not in client.get("/accounts/email/").content.decode()
    asked = client.post("/accounts/email/", {"action_add": "", "email": "new@example.org"})
    assert asked["Location"].startswith("/accounts/reauthenticate/")
    assert EmailAddress.objects.get().primary
    client.post(asked["Location"], {"password": PASSWORD})
    client.post("/accounts/email/", {"action_add": "", "email": "new@example.org"})
    client.post("/accounts/email/", {"action_primary": "", "email": "new@example.org"})
    client.post("/accounts/email/", {"action_remove": "", "email": "old@example.org"})
    assert User.objects.get(username="ada").email == "new@example.org"
    other = Client()
    sign_in(other, "old@example.org")
    assert not is_in(other)
    sign_in(other, "new@example.org")
    assert is_in(other)


def test_who_asks_for_the_link_again_too_soon_is_told_so(client, mailoutbox, settings):
    settings.ACCOUNT_EMAIL_VERIFICATION = "optional"
    fields = {"username": "ada", "email": "ada@example.org", "password1": PASSWORD, "password2": PASSWORD}
    client.post("/accounts/signup/", fields, follow=True)
    answer = client.post("/accounts/email/", {"action_send": "", "email": "ada@example.org"}, follow=True)
    assert "A link went to this address a moment ago." in answer.content.decode()
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    answer = client.post("/accounts/email/", {"action_send": "", "email": "ada@example.org"}, follow=True)
    assert "the link of a moment ago stands in its log." in answer.content.decode()
    assert len(mailoutbox) == 1


def test_who_has_no_password_is_asked_for_none(client):
    client.force_login(make_user("ada", password=None), backend="django.contrib.auth.backends.ModelBackend")
    answer = client.post("/accounts/email/", {"action_add": "", "email": "ada@example.org"})
    assert answer["Location"] == "/accounts/email/"
    assert EmailAddress.objects.get().email == "ada@example.org"
    client.get("/accounts/email/")
    assert EmailAddress.objects.get().primary
    assert User.objects.get(username="ada").email == "ada@example.org"
    assert client.get("/accounts/password/set/").status_code == 200


def test_an_address_of_somebody_else_is_refused(client):
    make_user("grace", email="grace@example.org")
    make_user("ada")
    sign_in(client, "ada")
    answer = client.post("/accounts/email/", {"action_add": "", "email": "grace@example.org"})
    assert "An account has this e-mail address already." in answer.content.decode()
    client.post("/settings", {"full_name": "Ada", "email": "grace@example.org"})
    assert User.objects.get(username="ada").email == ""
    assert not EmailAddress.objects.exists()


@pytest.mark.parametrize("name", ["a b", "a@b", "Äda"])
def test_a_name_that_cannot_be_one_is_refused_in_the_words_of_the_hint(client, name):
    fields = {"username": name, "password1": PASSWORD, "password2": PASSWORD}
    page = client.post("/accounts/signup/", fields).content.decode()
    assert "cannot be a name" in page
    assert "Enter a valid username" not in page


def test_what_the_library_says_is_said_in_our_words(mailoutbox):
    make_user("ada", email="ada@example.org")
    client = Client()
    sign_in(client, "ada")
    security = client.get("/accounts/2fa/").content.decode()
    assert "<h1>Second factor</h1>" in " ".join(security.replace("\n", "").split()).replace(
        "> ", ">"
    ).replace(" <", "<")
    assert "Passkeys" in security
    assert 'aria-label="Settings"' in security
    assert (
        "Look into your mail"
        in client.post(
            "/accounts/password/reset/", {"email": "ada@example.org"}, follow=True
        ).content.decode()
    )
    assert mailoutbox[0].subject == "[LoRA Commons] Set a new password"
    assert "testserver!" not in mailoutbox[0].body
    assert mailoutbox[0].body.count("LoRA Commons") == 1


def test_our_words_are_compiled_and_for_sentences_that_the_library_still_says():
    folder = Path(settings_of_site.LOCALE_PATHS[0]) / "en_GB" / "LC_MESSAGES"
    ours = msgids((folder / "django.po").read_text())
    theirs = msgids(
        (Path(allauth.__file__).parent / "locale" / "de" / "LC_MESSAGES" / "django.po").read_text()
    )
    assert ours <= theirs
    with (folder / "django.mo").open("rb") as compiled:
        known = GNUTranslations(compiled)
    assert all(known.gettext(text) != text or known.ngettext(text, text, 1) != text for text in ours)


def msgids(catalogue: str) -> set[str]:
    """The texts that a .po file translates, without its head."""
    found = re.findall(r'^msgid ((?:".*"\n)+)', catalogue, re.MULTILINE)
    return {"".join(json.loads(line) for line in text.splitlines()) for text in found} - {""}


def test_a_person_ends_their_other_sessions():
    make_user("ada")
    here, elsewhere = Client(), Client()
    sign_in(here, "ada")
    sign_in(elsewhere, "ada")
    assert here.get("/accounts/sessions/").content.decode().count("<tr") >= 3
    here.post("/accounts/sessions/")
    assert is_in(here)
    assert not is_in(elsewhere)


def test_a_session_is_said_by_its_browser_and_what_is_none_as_it_names_itself():
    make_user("ada")
    sent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    client, script = Client(headers={"User-Agent": sent}), Client(headers={"User-Agent": "script/1 <b>"})
    sign_in(client, "ada")
    sign_in(script, "ada")
    page = client.get("/accounts/sessions/").content.decode()
    assert f'<summary>Firefox on Linux</summary><p class="fine">{sent}</p>' in page
    assert '<td class="break">script/1 &lt;b&gt;<div' in page


# --- Another server's accounts -----------------------------------------------------------------------------------


@pytest.fixture
def provider(settings: Any) -> Iterator[Provider]:
    """An OpenID Connect server on this machine that the site trusts."""
    with oidc_provider() as provider:
        provider.people["42"] = {"email": "grace@example.org", "preferred_username": "grace"}
        settings.SOCIALACCOUNT_PROVIDERS = provider.settings()
        yield provider


def come_from(provider: Provider, client: Client) -> Any:
    """Sign in there as "42", and come back with what the server said; the site's answer to that."""
    page = client.post("/accounts/oidc/oidc/login/?process=login").content.decode()
    [address] = re.findall(r'content="0; url=([^"]+)"', page)
    assert address.startswith(f"{provider.address}/authorize")
    back = httpx2.post(unescape(address), data={"sub": "42"}).headers["Location"]
    return client.get(urlsplit(back).path, parse_qs(urlsplit(back).query))


def test_somebody_from_another_server_chooses_a_name_once_and_is_known_then(provider):
    make_user("grace-taken")
    for attempt in range(2):
        client = Client()
        assert "Example Works" in client.get("/accounts/login/").content.decode()
        back = come_from(provider, client)
        if attempt == 0:
            assert back["Location"] == "/accounts/3rdparty/signup/"
            for taken in ("grace-taken", "settings", "a b"):
                client.post("/accounts/3rdparty/signup/", {"username": taken, "email": "grace@example.org"})
                assert not is_in(client)
            client.post("/accounts/3rdparty/signup/", {"username": "grace", "email": "grace@example.org"})
        assert is_in(client)
    assert User.objects.filter(username="grace").count() == 1
    assert Namespace.objects.filter(name="grace").exists()


def test_an_address_that_another_server_claims_opens_no_account_here(provider):
    make_user("ada", email="grace@example.org")
    client = Client()
    come_from(provider, client)
    assert not is_in(client)


def test_what_another_server_says_that_is_no_name_of_a_person_is_no_error_of_ours(provider, monkeypatch):
    monkeypatch.setattr(Provider, "claims", lambda self, sub: {"email": "grace@example.org"})
    client = Client()
    back = come_from(provider, client)
    assert back.status_code == 401
    assert "did not say who you are" in back.content.decode()


@pytest.mark.parametrize(
    ("elsewhere", "here"),
    [
        ("grace", "grace"),
        ("Ödd Person@works.example", "Odd-Person"),
        ("a..b--c.", "a-b-c"),
        ("settings", ""),
        ("李", ""),
        ("x.git", ""),
    ],
)
def test_a_name_from_elsewhere_becomes_one_that_may_be_had_here(elsewhere, here):
    assert name_like(elsewhere) == here


def test_without_a_server_in_the_environment_nothing_of_it_is_there():
    assert Client().get("/accounts/oidc/oidc/login/").status_code == 404
    assert "Sign in with" not in Client().get("/accounts/login/").content.decode().replace(
        "Sign in with a passkey", ""
    )


def test_an_account_made_by_command_may_publish_in_its_own_name(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    call_command("createsuperuser", "--noinput", username="root", email="", verbosity=0)
    assert may_write(User.objects.get(username="root"), Namespace.objects.get(name="root"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("admin", "it is an address of this site"), ("Ann B", "valid username"), ("lab", "is taken")],
)
def test_a_command_makes_no_account_under_a_name_that_nobody_may_have(monkeypatch, name, words):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    Namespace.objects.create(name="Lab", kind=Namespace.Kind.ORGANISATION)
    with pytest.raises(CommandError, match=words):
        call_command("createsuperuser", "--noinput", username=name, email="", verbosity=0)
    assert not User.objects.filter(username=name).exists()


def test_a_name_that_is_taken_is_refused_in_words_also_where_code_makes_the_account():
    create_account(username="ada", password=None)
    for name in ("ada", "ADA"):
        with pytest.raises(NameTaken, match="is taken"):
            create_account(username=name, password=None)


def test_an_account_of_before_without_a_name_of_its_own_does_not_stop_the_next_one(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", PASSWORD)
    User.objects.create_superuser("admin")
    call_command("createsuperuser", "--noinput", username="root", email="", verbosity=0)
    assert Namespace.objects.filter(name="root").exists()


# --- Whose an address is --------------------------------------------------------------------------------------------


@pytest.fixture
def confirms_addresses(settings):
    """A site that lets nobody in before they have confirmed their address."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_PREVENT_ENUMERATION = "strict"
    settings.HIDES_WHOSE_ADDRESS = True
    settings.ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]


def make_ada(*, confirmed: bool = True) -> User:
    ada = make_user("ada", email="ada@example.org")
    if confirmed:
        EmailAddress.objects.create(user=ada, email=ada.email, primary=True, verified=True)
    return ada


def without_what_differs(answer) -> str:
    page = re.sub(
        r'name="csrfmiddlewaretoken" value="[^"]+"|request [0-9a-f]{16}', "", answer.content.decode()
    )
    return page.replace("abc", "ada").replace("eve2", "eve1")


def sign_up(name: str, address: str):
    client = Client()
    fields = {"username": name, "email": address, "password1": PASSWORD, "password2": PASSWORD}
    return client, client.post("/accounts/signup/", fields, follow=True)


@pytest.mark.parametrize("confirmed", [True, False], ids=["confirmed", "given by a command"])
def test_sign_up_tells_nobody_whose_an_address_is(confirms_addresses, mailoutbox, monkeypatch, confirmed):
    make_ada(confirmed=confirmed)
    hashed: list[str] = []
    set_password = User.set_password

    def count(person: User, raw: str) -> None:
        hashed.append(raw)
        set_password(person, raw)

    monkeypatch.setattr(User, "set_password", count)
    taken, answer = sign_up("eve1", "ada@example.org")
    work, free = len(hashed), sign_up("eve2", "abc@example.org")[1]
    assert answer.status_code == free.status_code == 200
    assert answer.redirect_chain == free.redirect_chain
    assert without_what_differs(answer) == without_what_differs(free)
    assert len(hashed) == 2 * work > 0  # nobody is quicker
    for name in ("eve1", "eve2"):  # and there is a page of either
        assert Client().get(f"/{name}").status_code == 200
        later = Client()
        assert sign_in(later, name).status_code == 302
        assert not is_in(later)
    assert not is_in(taken)
    to_ada, to_abc = (
        next(mail for mail in mailoutbox if mail.to == [f"{who}@example.org"]) for who in ("ada", "abc")
    )
    assert "An account has it already" in to_ada.body
    assert "confirm-email" not in to_ada.body
    assert "/accounts/password/reset/" in to_ada.body
    assert "confirm-email" in to_abc.body
    assert sum(mail.to == ["ada@example.org"] for mail in mailoutbox) == 1


def test_the_address_stays_whose_it_is(confirms_addresses, mailoutbox):
    ada = make_ada()
    sign_up("eve", "ada@example.org")
    owner = Client()
    sign_in(owner, "ada@example.org")
    assert is_in(owner)
    Client().post("/accounts/password/reset/", {"email": "ada@example.org"})
    assert "ada" in mailoutbox[-1].body
    assert not EmailAddress.objects.filter(email="ada@example.org", verified=True).exclude(user=ada).exists()


def test_adding_an_address_tells_nobody_whose_it_is(confirms_addresses, mailoutbox):
    make_ada()
    eve = make_user("eve", email="eve@example.org")
    EmailAddress.objects.create(user=eve, email=eve.email, primary=True, verified=True)
    client = Client()
    sign_in(client, "eve")
    client.post("/accounts/reauthenticate/", {"password": PASSWORD}, follow=True)
    shown = []
    for address in ("ada@example.org", "abc@example.org"):
        answer = client.post("/accounts/email/", {"action_add": "", "email": address}, follow=True)
        shown.append((answer.status_code, without_what_differs(answer)))
        for act in ("primary", "remove"):
            client.post("/accounts/email/", {f"action_{act}": "", "email": address})
            assert User.objects.get(username="eve").email == "eve@example.org"
        client.get("/accounts/email/")  # takes what was said
    assert shown[0] == shown[1]
    assert "An account has it already" in mailoutbox[0].body
    assert "confirm-email" in mailoutbox[1].body


def test_an_address_that_is_not_confirmed_is_used_for_nothing(confirms_addresses, client):
    make_ada()
    client.force_login(make_user("eve", password=None), backend="django.contrib.auth.backends.ModelBackend")
    client.post("/accounts/email/", {"action_add": "", "email": "ada@example.org"})
    answer = client.post("/accounts/email/", {"action_primary": "", "email": "ada@example.org"}, follow=True)
    assert "Confirm this address first" in answer.content.decode()
    assert User.objects.get(username="eve").email == ""


def test_a_site_that_lets_people_in_at_once_says_that_an_address_is_taken():
    """It has to: two accounts with one address could not be told apart when its owner signs in by it."""
    make_ada()
    page = sign_up("eve", "ada@example.org")[1].content.decode()
    assert "An account has this e-mail address already." in page
    assert not User.objects.filter(username="eve").exists()


def test_each_page_of_which_sign_in_says_what_for_is_there():
    names = get_resolver().reverse_dict
    assert [name for name in purposes._PURPOSES if name not in names] == []
