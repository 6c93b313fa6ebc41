"""Mails of this site's own, which may fail: what they are about is done all the same."""

from __future__ import annotations

import logging
import smtplib

from django.conf import settings
from django.core.mail import EmailMessage

logger = logging.getLogger(__name__)


class AddressRefused(Exception):
    """The mail server takes nothing for this address, now or later."""


def is_sent() -> bool:
    """Whether this site has a mail server; else mails stand in the log."""
    return "console" not in settings.EMAIL_BACKEND


def send(subject: str, text: str, *, to: str, about: str, headers: dict[str, str] | None = None) -> bool:
    """Whether the mail server took it. `about` is for the log. Raises AddressRefused."""
    try:
        EmailMessage(subject, text, None, [to], headers=headers).send()
    except smtplib.SMTPRecipientsRefused as error:
        logger.warning("No mail about %s: %s", about, error)
        if all(code >= 500 for code, _ in error.recipients.values()):
            raise AddressRefused from error
        return False
    except (OSError, smtplib.SMTPException) as error:
        logger.warning("No mail about %s: %s", about, error)
        return False
    return True
