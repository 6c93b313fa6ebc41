"""The mail of what is new: to whoever asked, once a day at most, with a way out."""

from __future__ import annotations

import re
import smtplib
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.test import Client
from django.utils import timezone

from registry import following, news_mail, saved_searches
from registry.models import Adapter, NewsMail, Revision, User
from tests.factories import make_adapter, make_base_model, make_revision, make_user

pytestmark = pytest.mark.django_db
SITE = "https://lora.example"


@pytest.fixture
def ada() -> User:
    person = make_user("ada", email="ada@lora.example")
    EmailAddress.objects.create(user=person, email=person.email, verified=True, primary=True)
    return person


def wants_mail(person: User) -> None:
    """Asked for two days ago."""
    news_mail.begin(person, origin=SITE)
    NewsMail.objects.filter(user=person).update(told_until=timezone.now() - timedelta(days=2))


def new(name: str, *, hours: float = 1, **fields: Any) -> Adapter:
    """Published so many hours ago."""
    adapter = make_adapter(name, facts={"rank": 4}, **fields)
    then = timezone.now() - timedelta(hours=hours)
    Adapter.objects.filter(pk=adapter.pk).update(created_at=then)
    if not adapter.is_private:
        Adapter.objects.filter(pk=adapter.pk).update(first_public_at=then)
    Revision.objects.filter(adapter=adapter).update(created_at=then, message=f"Publish {name}")
    return adapter


def test_one_mail_a_day_names_what_is_new_of_what_one_follows_and_in_saved_searches(ada, mailoutbox):
    followed, found = new("followed"), new("colour-twice", description="Says a colour\ntwice.")
    new("of-no-interest")
    following.follow(user=ada, namespace=followed.namespace)
    saved_searches.save(user=ada, name="colours", parameters="q=colour")
    wants_mail(ada)
    assert (news_mail.tell(), news_mail.tell()) == (1, 0)
    (sent,) = mailoutbox
    assert sent.to == ["ada@lora.example"]
    assert sent.subject == f"[LoRA Commons] New: {followed.full_name} and 1 more"
    assert f"* {followed.full_name}: Publish followed\n  {SITE}/{followed.full_name}\n" in sent.body
    assert "New in your saved search “colours”" in sent.body
    assert f"* {found.full_name}: Says a colour twice.\n" in sent.body
    assert "of-no-interest" not in sent.body


def test_what_was_told_is_not_told_again_and_where_nothing_is_new_there_is_no_mail(ada, mailoutbox):
    following.follow(user=ada, adapter=new("old"))
    wants_mail(ada)
    news_mail.tell()
    NewsMail.objects.update(told_until=timezone.now() - timedelta(minutes=30))
    assert news_mail.tell() == 0, "it is no day since the last"
    Revision.objects.update(created_at=timezone.now() - timedelta(days=4))
    Adapter.objects.update(first_public_at=timezone.now() - timedelta(days=4))
    NewsMail.objects.update(told_until=timezone.now() - timedelta(days=2))
    assert news_mail.tell() == 0
    assert len(mailoutbox) == 1
    assert NewsMail.objects.get().told_until > timezone.now() - timedelta(hours=1)


def test_one_hears_neither_of_ones_own_nor_of_what_one_may_not_see_nor_twice_of_anything(ada, mailoutbox):
    base_model = make_base_model()
    seen = new("seen", base_model=base_model)
    new("private", base_model=base_model, namespace=seen.namespace, visibility="private")
    mine = new("mine", base_model=base_model, owner=ada, created_by=ada)
    Revision.objects.filter(adapter=mine).update(author=ada)
    for followed in (seen.namespace, mine.namespace):
        following.follow(user=ada, namespace=followed)
    second = make_revision(seen, facts={"rank": 4})
    Revision.objects.filter(pk=second.pk).update(
        message="Second thoughts", created_at=timezone.now() - timedelta(minutes=20)
    )
    saved_searches.save(user=ada, name="all of them", parameters=f"base={base_model.name}")
    saved_searches.save(user=ada, name="also all", parameters=f"base={base_model.name}&kind=module")
    wants_mail(ada)
    news_mail.tell()
    (sent,) = mailoutbox
    assert re.findall(r"^\* (\S+)", sent.body, re.MULTILINE) == [f"{seen.full_name}:"]
    assert "Second thoughts" in sent.body


def test_a_search_that_finds_only_names_alike_or_asks_for_a_task_that_is_gone_tells_nothing(ada, mailoutbox):
    new("colour-twice")
    saved_searches.save(user=ada, name="misspelt", parameters="q=coluor-twice")
    saved_searches.save(user=ada, name="gone", parameters="scored_on=gone")
    wants_mail(ada)
    assert news_mail.tell() == 0
    assert mailoutbox == []


@pytest.mark.parametrize("why_not", [{"is_active": False}, {"email": ""}])
def test_nobody_who_is_blocked_or_has_no_address_gets_mail(ada, mailoutbox, why_not):
    following.follow(user=ada, adapter=new("new"))
    wants_mail(ada)
    User.objects.filter(pk=ada.pk).update(**why_not)
    assert news_mail.tell() == 0
    assert mailoutbox == []


def test_a_mail_server_that_is_away_is_asked_again_with_all_that_is_new(ada, mailoutbox, monkeypatch):
    following.follow(user=ada, adapter=new("new"))
    wants_mail(ada)

    def away(*args: Any) -> None:
        raise smtplib.SMTPServerDisconnected("gone")

    with monkeypatch.context() as patch:
        patch.setattr("web.mail.EmailMessage.send", away)
        assert news_mail.tell() == 0
    assert news_mail.tell() == 1


def test_the_page_switches_the_mails_on_and_off(client: Client, ada):
    client.force_login(ada)
    asked = client.post("/settings/following/mail", follow=True).content.decode()
    assert "goes to ada@lora.example from tomorrow on" in asked
    assert NewsMail.objects.get().origin == "http://testserver"
    assert "No more mails" in asked
    assert (
        "Mail me what is new"
        in client.post("/settings/following/mail", {"undo": "1"}, follow=True).content.decode()
    )
    assert not NewsMail.objects.exists()


def test_without_mail_the_page_says_why_there_is_none(client: Client, ada, settings):
    client.force_login(make_user("bob"))
    assert "has no e-mail address" in client.get("/settings/following").content.decode()
    assert "has no e-mail address" in client.post("/settings/following/mail", follow=True).content.decode()
    client.force_login(ada)
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert "This site sends no mail" in client.get("/settings/following").content.decode()
    client.post("/settings/following/mail")
    assert not NewsMail.objects.exists()


def test_an_address_that_nobody_confirmed_gets_none_of_these_mails(client: Client, ada, mailoutbox):
    following.follow(user=ada, adapter=new("new"))
    wants_mail(ada)
    EmailAddress.objects.update(verified=False)
    assert news_mail.tell() == 0
    client.force_login(ada)
    assert "They go out once your account has" in client.get("/settings/following").content.decode()
    NewsMail.objects.all().delete()
    assert "is not confirmed" in client.get("/settings/following").content.decode()
    assert (
        "Confirm your e-mail address first"
        in client.post("/settings/following/mail", follow=True).content.decode()
    )
    assert not NewsMail.objects.exists()
    assert mailoutbox == []


def test_each_mail_has_a_way_out_that_needs_no_password_and_that_mail_programs_take(ada, mailoutbox):
    following.follow(user=ada, adapter=new("new"))
    wants_mail(ada)
    news_mail.tell()
    (sent,) = mailoutbox
    link = sent.extra_headers["List-Unsubscribe"].strip("<>")
    assert sent.extra_headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"No more of them: {link}" in sent.body
    stranger, path = Client(enforce_csrf_checks=True), link.removeprefix(SITE)
    assert "No more of them" in stranger.get(path).content.decode()
    assert NewsMail.objects.exists(), (
        "looking at it ended the mails: programs that look at links would end them"
    )
    assert (
        "ada gets no more of them" in stranger.post(path, {"List-Unsubscribe": "One-Click"}).content.decode()
    )
    assert not NewsMail.objects.exists()
    assert stranger.post(path).status_code == 200


def test_a_link_that_is_not_whole_ends_nobodys_mails(client: Client, ada):
    wants_mail(ada)
    answer = client.post(f"/settings/following/no-mail/{news_mail.key_of(ada)[:-3]}")
    assert answer.status_code == 404
    assert "Copy the whole link" in answer.content.decode()
    assert NewsMail.objects.exists()
