"""Secrets that we keep sealed, and what becomes of them when SECRET_KEY changes."""

from __future__ import annotations

import pytest
from django.core.management import call_command

from registry import sealing
from registry.models import Webhook
from tests.factories import make_user

pytestmark = pytest.mark.django_db

OLD, NEW = "o" * 60, "n" * 60


def opened(webhook: Webhook) -> str | None:
    webhook.refresh_from_db()
    return sealing.unseal(webhook.secret, purpose="test", kept_s=600)


def make_webhook(secret: str) -> Webhook:
    sealed = sealing.seal(secret, purpose="test")
    return Webhook.objects.create(user=make_user(), url="https://receiver.example/", events=[], secret=sealed)


def test_sealed_anew_a_secret_opens_without_the_key_of_before(settings, capsys):
    settings.SECRET_KEY = OLD
    webhook = make_webhook("whsec")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    assert opened(webhook) == "whsec"
    for _ in range(2):  # harmless to repeat
        call_command("seal_anew")
    assert "1 secrets are sealed by SECRET_KEY now; 0 could not be opened." in capsys.readouterr().out
    settings.SECRET_KEY_FALLBACKS = []
    assert opened(webhook) == "whsec"


def test_a_secret_of_an_unknown_key_is_named_and_left(settings, capsys):
    settings.SECRET_KEY = OLD
    webhook = make_webhook("whsec")
    settings.SECRET_KEY = NEW
    with pytest.raises(SystemExit):
        call_command("seal_anew")
    assert f"Webhook {webhook.pk}: sealed by a key that is not here." in capsys.readouterr().err
    settings.SECRET_KEY = OLD
    assert opened(webhook) == "whsec"


def test_sealing_anew_makes_nothing_younger(settings):
    """A token for another Hub is kept for a day, whatever keys change meanwhile."""
    sealed = sealing.seal("hf_token", purpose="test")
    anew = sealing.seal_anew(sealed)
    assert anew not in (None, sealed)
    assert _made_at(str(anew)) == _made_at(sealed)


def _made_at(sealed: str) -> int:
    return sealing._box().extract_timestamp(sealed.encode())
