"""A mail to whom an organisation asks to join: they would not come by the page that says so."""

from __future__ import annotations

from django.conf import settings
from django.core.cache import cache
from django.urls import reverse

from registry.models import Invitation
from web import mail

AGAIN_AFTER_S = 24 * 3600


def tell_invited(invitation: Invitation, *, origin: str) -> bool:
    """Whether a mail went out. `origin` is the address of this site.

    Not where the site or the person has no mail, and not twice a day: asking somebody over and over is no way to write
    to them.
    """
    person, name = invitation.user, invitation.namespace.name
    if not person.email or not mail.is_sent():
        return False
    if not cache.add(f"invited:{person.pk}:{invitation.namespace_id}", 1, AGAIN_AFTER_S):
        return False
    try:
        return mail.send(
            f"{settings.ACCOUNT_EMAIL_SUBJECT_PREFIX}Join {name}?",
            _text(invitation, origin),
            to=person.email,
            about=f"the invitation of {person} to {name}",
        )
    except mail.AddressRefused:
        return False


def _text(invitation: Invitation, origin: str) -> str:
    who = invitation.invited_by.username if invitation.invited_by else "An admin"
    may = {
        "read": "see what is private there",
        "write": "publish there",
        "admin": "publish there and decide who belongs",
    }
    return (
        f"{who} asks you to join {invitation.namespace.name} on LoRA Commons. You could {may[invitation.role]}.\n\n"
        f"Join or decline: {origin}{reverse('my_organisations')}\n\n"
        "You belong to it only once you join. If you do not know them, decline, or leave this mail alone.\n"
    )
