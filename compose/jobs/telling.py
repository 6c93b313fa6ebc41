"""A mail to the owner when a composition has ended, once, and again only if the mail server did not take it."""

from __future__ import annotations

import logging
import smtplib
from datetime import timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.utils import timezone

from compose.errors import BadSetting
from compose.models import Composition
from registry.models import User

logger = logging.getLogger(__name__)
AT_ONCE = 20
GIVEN_UP_AFTER = timedelta(hours=6)
Status = Composition.Status
SUBJECTS = {
    Status.SUCCEEDED: "Composed: {title}",
    Status.FAILED: "The composition failed: {title}",
    Status.CANCELLED: "Cancelled: {title}",
}


def can_mail(person: User) -> bool:
    """Whether this site sends mail and knows where to."""
    return bool(person.email) and "console" not in settings.EMAIL_BACKEND


def check_can_mail(person: User) -> None:
    """Raises BadSetting."""
    if "console" in settings.EMAIL_BACKEND:
        raise BadSetting("email_when_done", "This site sends no mail. Keep the page open, or ask the API.")
    if not person.email:
        raise BadSetting("email_when_done", "Your account has no e-mail address to send to.")


def tell_owners() -> int:
    """Send what is due: how many mails the server took. Two that run at once send each mail once."""
    now = timezone.now()
    due = Composition.objects.filter(
        wants_email=True, told_at=None, finished_at__gte=now - GIVEN_UP_AFTER, owner__isnull=False
    ).select_related("owner", "adapter")
    sent = 0
    for composition in due.defer("examples", "test_examples", "predictions")[:AT_ONCE]:
        # Taken first, sent then: a mail twice is worse than one that waits for the next round.
        if Composition.objects.filter(pk=composition.pk, told_at=None).update(told_at=now):
            sent += _send(composition)
    return sent


def _send(composition: Composition) -> bool:
    assert composition.owner is not None  # as `tell_owners` asked
    try:
        send_mail(_subject(composition), _text(composition), None, [composition.owner.email])
    except (OSError, smtplib.SMTPException) as error:
        logger.warning("No mail about composition %s: %s", composition.pk, error)
        Composition.objects.filter(pk=composition.pk).update(told_at=None)
        return False
    return True


def _subject(composition: Composition) -> str:
    title = " ".join(composition.title.split())  # a line break in a header is refused
    return SUBJECTS[Status(composition.status)].format(title=title)


def _text(composition: Composition) -> str:
    result = composition.result or {}
    said = composition.error or result.get("verdict") or "Nothing was kept but the request."
    address = f"{composition.notice_origin}{composition.get_absolute_url()}"
    return f"{said}\n\n{address}\n\nYou asked for this mail when you started the composition.\n"
