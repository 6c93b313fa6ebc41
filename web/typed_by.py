"""Who typed what waits for an answer: a page names its reader by a mark, which is kept with the text and compared later."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils.crypto import constant_time_compare, salted_hmac

MARK_LENGTH = 16


def mark_of(person: AbstractBaseUser | AnonymousUser) -> str:
    """The same for a person on every page, and nobody else's; empty for a guest."""
    if not person.is_authenticated:
        return ""
    return salted_hmac("web.typed_by", str(person.pk)).hexdigest()[:MARK_LENGTH]


def may_have(person: AbstractBaseUser | AnonymousUser, mark: str) -> bool:
    """Whether this person may have a text with this mark. A guest's is for whoever signs in: they typed it before."""
    return not mark or constant_time_compare(mark, mark_of(person))
