"""The mail to the owner when a composition has ended."""

from __future__ import annotations

import smtplib

import pytest

from compose import jobs
from compose.errors import BadSetting
from tests.compose.factories import finish, make_composition, make_modules
from tests.factories import make_base_model, make_user
from web import mail

pytestmark = pytest.mark.django_db
SITE = "https://lora.example"


@pytest.fixture
def ada(rung):
    return make_user("ada", email="ada@lora.example")


def test_the_owner_who_asked_gets_one_mail_with_finding_and_link(ada, mailoutbox):
    composition = finish(make_composition(owner=ada, title="Colour\nof it", notice_origin=SITE))
    assert (jobs.tell_owners(), jobs.tell_owners()) == (1, 0)
    (mail,) = mailoutbox
    assert mail.to == ["ada@lora.example"]
    assert mail.subject == "Composed: Colour of it"
    assert mail.body.startswith("The composed adapter is better than the base model.")
    assert f"{SITE}{composition.get_absolute_url()}" in mail.body


def test_a_failure_is_told_with_its_reason(ada, mailoutbox):
    claimed = jobs.claim(make_composition(owner=ada, notice_origin=SITE).pk, "worker")
    assert claimed is not None
    jobs.fail(claimed, "Example 3 is longer than the base model reads.")
    jobs.tell_owners()
    assert mailoutbox[0].body.startswith("Example 3 is longer than the base model reads.")


def test_nobody_who_did_not_ask_gets_mail_and_nobody_before_the_end(ada, mailoutbox):
    finish(make_composition(owner=ada))
    make_composition(owner=ada, notice_origin=SITE)
    assert jobs.tell_owners() == 0
    assert mailoutbox == []


def test_a_mail_server_that_is_away_is_asked_again(ada, mailoutbox, monkeypatch):
    finish(make_composition(owner=ada, notice_origin=SITE))

    def away(*args, **kwargs):
        raise smtplib.SMTPServerDisconnected("gone")

    with monkeypatch.context() as patch:
        patch.setattr("web.mail.EmailMessage.send", away)
        assert jobs.tell_owners() == 0
    assert jobs.tell_owners() == 1
    assert len(mailoutbox) == 1


def test_asking_for_mail_without_an_address_or_a_mail_server_is_refused(ada, settings):
    with pytest.raises(BadSetting, match="no e-mail address"):
        make_composition(owner=make_user("bob"), notice_origin=SITE)
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    with pytest.raises(BadSetting, match="sends no mail"):
        make_composition(owner=ada, notice_origin=SITE)
    assert not jobs.can_mail(ada)


def test_an_address_that_is_refused_for_good_is_not_asked_again_and_stands_in_nobodys_way(
    ada, mailoutbox, monkeypatch
):
    base_model = make_base_model()
    make_modules(base_model)
    for number in range(3):
        bob = make_user(email=f"bob{number}@gone.example")
        finish(make_composition(owner=bob, base_model=base_model, notice_origin=SITE))
    finish(make_composition(owner=ada, base_model=base_model, notice_origin=SITE))
    asked = []
    send = mail.EmailMessage.send

    def refuse(message):
        (address,) = message.to
        asked.append(address)
        if "gone" in address:
            raise smtplib.SMTPRecipientsRefused({address: (550, b"no such user")})
        send(message)

    monkeypatch.setattr("web.mail.EmailMessage.send", refuse)
    assert (jobs.tell_owners(), jobs.tell_owners()) == (1, 0)
    assert len(asked) == 4
    assert len(mailoutbox) == 1


def test_while_the_mail_server_is_away_one_mail_a_round_waits_for_it(ada, monkeypatch):
    base_model = make_base_model()
    make_modules(base_model)
    for _ in range(3):
        finish(make_composition(owner=ada, base_model=base_model, notice_origin=SITE))
    asked = []

    def away(*args):
        asked.append(args)
        assert jobs.tell_owners() == 0, "another round at the same time"
        raise TimeoutError

    monkeypatch.setattr("web.mail.EmailMessage.send", away)
    assert jobs.tell_owners() == 0
    assert len(asked) == 1
