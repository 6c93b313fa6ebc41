"""What people and organisations say of themselves: where it is written and shown, what is refused, how moderators remove it."""

from __future__ import annotations

import pytest
from django.test import Client

from registry import profiles
from registry.models import AuditEntry, Namespace, User
from tests.factories import make_organisation, make_user, namespace_of
from tests.visitors import client_of
from web.errors import Conflict, DomainError, Forbidden, NotFound

pytestmark = pytest.mark.django_db
SAID = {"full_name": "Ada L.", "about": "Numbers & <b>tales</b>", "website": "https://ada.example/notes?a=1"}


@pytest.fixture
def lab(ada: User, bob: User) -> Namespace:
    return make_organisation("lab", members={ada: "admin", bob: "write"})


@pytest.mark.parametrize(("name", "form"), [("ada", "/settings"), ("lab", "/lab/settings")])
def test_what_is_written_in_the_settings_is_shown_to_everybody_on_the_page(
    ada: User, lab: Namespace, name: str, form: str
):
    assert client_of(ada).post(form, SAID)["Location"] == form
    page = Client().get(f"/{name}").content.decode()
    assert '<p class="about break">Numbers &amp; &lt;b&gt;tales&lt;/b&gt;</p>' in page
    assert f'content="LoRA modules of {name}. Numbers &amp; &lt;b&gt;tales&lt;/b&gt;"' in page
    link = 'href="https://ada.example/notes?a=1" rel="nofollow noopener ugc">ada.example</a>'
    assert link in page
    again = client_of(ada).get(form).content.decode()
    assert 'value="Numbers &amp; &lt;b&gt;tales&lt;/b&gt;"' in again
    assert 'value="https://ada.example/notes?a=1"' in again


def test_only_its_admins_write_what_an_organisation_says(bob: User, lab: Namespace):
    assert client_of(bob).post("/lab/settings", SAID).status_code == 403
    assert not Namespace.objects.get(pk=lab.pk).about


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("about", "\u202eevil", "The line about it holds the character U+202E"),
        ("about", "one\x07", "The line about it holds the character U+0007"),
        ("about", "one\ntwo", "This is more than one line"),
        ("about", "one\u2028two", "This is more than one line"),
        ("about", "\u200b", "The line about it has no character that can be seen."),
        ("about", "x" * 281, "The line about it has 281 characters; 280 are allowed."),
        ("website", "javascript:alert(1)", "This is no address of a website."),
        ("website", "ftp://ada.example", "This is no address of a website."),
        ("website", "ada.example", "This is no address of a website. Give a whole one, such as https://"),
        ("website", "https://", "This is no address of a website."),
        ("website", "https://a b.example", "This is no address of a website."),
        ("website", f"https://{'ä' * 63}.example", "Give the host as browsers ask for it"),
        ("website", "https://\u0430pple.example:8000/x", "Give the host as browsers ask for it"),
        ("website", "https://stra\u00dfe.example", "in ASCII letters: xn--"),
        ("website", "https://exam\u200dple.org", "in ASCII letters: xn--"),
        ("website", "https://bank.example@evil.example", "Leave the name before the @ out"),
        ("website", "https://ada.example/\u202e", "U+202E"),
        ("website", f"https://ada.example/{'x' * 200}", "characters; 200 are allowed."),
    ],
)
def test_what_cannot_be_shown_is_refused_beside_its_field_and_kept_in_the_form(
    ada: User, field: str, value: str, said: str
):
    with pytest.raises(DomainError) as refused:
        profiles.change(namespace_of(ada), **{field: value})
    assert said in refused.value.message
    assert list(refused.value.fields) == [field]
    answer = client_of(ada).post("/settings", {"about": "Tales", field: value})
    assert (answer.status_code, "errorlist" in answer.content.decode()) == (400, True)
    assert not getattr(namespace_of(ada), field)


def test_the_host_of_a_website_is_shown_in_the_letters_that_are_asked_for(ada: User):
    profiles.change(namespace_of(ada), website="https://XN--pple-43d.example:8000/\u0430")
    assert ">xn--pple-43d.example</a>" in Client().get("/ada").content.decode()


def test_what_is_deleted_at_this_moment_says_nothing_more(ada: User):
    own = namespace_of(ada)
    Namespace.objects.filter(pk=own.pk).update(deleted_at="2026-01-01T00:00Z")
    with pytest.raises(NotFound):
        profiles.change(own, about="Still here")
    assert not namespace_of(ada).about


def test_a_moderator_removes_it_with_a_reason_that_the_book_keeps(ada: User):
    sam = make_user("sam", is_staff=True)
    profiles.change(namespace_of(ada), **SAID)
    assert "/moderation/people/ada/blank" in client_of(sam).get("/ada").content.decode()
    assert client_of(sam).post("/moderation/people/ada/blank", {"reason": " "}).status_code == 400
    assert namespace_of(ada).about
    done = client_of(sam).post("/moderation/people/ADA/blank", {"reason": "It sells pills."}, follow=True)
    assert "ada says nothing of itself now." in done.content.decode()
    own = namespace_of(ada)
    assert (own.full_name, own.about, own.website) == ("", "", "")
    entry = AuditEntry.objects.get(action="blank profile")
    assert (entry.actor_name, entry.subject_name, entry.detail) == ("sam", "ada", "It sells pills.")
    assert "It sells pills." in client_of(sam).get("/moderation").content.decode()
    with pytest.raises(Conflict):
        profiles.blank(own, moderator=sam, reason="again")
    assert "/blank" not in client_of(sam).get("/ada").content.decode()


def test_nobody_else_removes_it_or_is_offered_to(ada: User, bob: User):
    profiles.change(namespace_of(ada), **SAID)
    assert "/blank" not in client_of(bob).get("/ada").content.decode()
    assert client_of(bob).post("/moderation/people/ada/blank", {"reason": "x"}).status_code == 403
    assert Client().post("/moderation/people/ada/blank", {"reason": "x"}).status_code == 302
    with pytest.raises(Forbidden):
        profiles.blank(namespace_of(ada), moderator=bob, reason="x")
    assert namespace_of(ada).about
