"""A mail to the owner when a composition has ended, once, and again only if the mail server was not there for it."""

from __future__ import annotations

import threading
from datetime import timedelta

from django.utils import timezone

from compose.errors import BadSetting
from compose.models import Composition
from registry import long_work
from registry.models import User
from web import mail

AT_ONCE = 20
GIVEN_UP_AFTER = timedelta(hours=6)
Status = Composition.Status
SUBJECTS = {
    Status.SUCCEEDED: "Composed: {title}",
    Status.FAILED: "The composition failed: {title}",
    Status.CANCELLED: "Cancelled: {title}",
}

_telling = threading.Lock()


def can_mail(person: User) -> bool:
    """Whether this site sends mail and knows where to."""
    return bool(person.email) and mail.is_sent()


def check_can_mail(person: User) -> None:
    """Raises BadSetting."""
    if not mail.is_sent():
        raise BadSetting("email_when_done", "This site sends no mail. Keep the page open, or ask the API.")
    if not person.email:
        raise BadSetting("email_when_done", "Your account has no e-mail address to send to.")


def tell_owners() -> int:
    """Send what is due: how many mails the server took. Two that run at once send each mail once."""
    # A round may wait long for the mail server, and the sweeps that come after it are not to wait there too.
    with long_work.alone(_telling) as may_tell:
        return _tell_round() if may_tell else 0


def _tell_round() -> int:
    now = timezone.now()
    due = Composition.objects.filter(  # nothing is sent to people who are blocked
        wants_email=True, told_at=None, finished_at__gte=now - GIVEN_UP_AFTER, owner__is_active=True
    ).select_related("owner", "adapter")
    sent = 0
    # In no order, so that one which is not taken for now does not stand before the others each time.
    for composition in due.defer("examples", "test_examples", "predictions").order_by("?")[:AT_ONCE]:
        # Taken first, sent then: a mail twice is worse than one that waits for the next round.
        if not Composition.objects.filter(pk=composition.pk, told_at=None).update(told_at=now):
            continue
        try:
            is_taken = _send(composition)
        except mail.AddressRefused:
            continue  # asked again, it would be refused again
        if not is_taken:
            break  # each of the others would wait as long for the same server
        sent += 1
    return sent


def _send(composition: Composition) -> bool:
    assert composition.owner is not None  # as `tell_owners` asked
    about = f"composition {composition.pk}"
    is_taken = mail.send(_subject(composition), _text(composition), to=composition.owner.email, about=about)
    if not is_taken:
        Composition.objects.filter(pk=composition.pk).update(told_at=None)
    return is_taken


def _subject(composition: Composition) -> str:
    title = " ".join(composition.title.split())  # a line break in a header is refused
    return SUBJECTS[Status(composition.status)].format(title=title)


def _text(composition: Composition) -> str:
    result = composition.result or {}
    said = composition.error or result.get("verdict") or "Nothing was kept but the request."
    address = f"{composition.notice_origin}{composition.get_absolute_url()}"
    return f"{said}\n\n{address}\n\nYou asked for this mail when you started the composition.\n"
