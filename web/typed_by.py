"""Who typed what waits for an answer: a page names its reader by a mark, which is kept with the text and compared later."""

from __future__ import annotations

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare, salted_hmac

from web.errors import Conflict

MARK_LENGTH = 16


class OfSomebodyElse(Conflict):
    code = "of_somebody_else"
    advice = "Load the page again to do this yourself, or sign in as who you were."

    def __init__(self, name: str) -> None:
        super().__init__(
            f"You are signed in as {name} now, and this page was opened by somebody else. Nothing was done."
        )


def mark_of(person: AbstractBaseUser | AnonymousUser) -> str:
    """The same for a person on every page, and nobody else's; empty for a guest."""
    if not person.is_authenticated:
        return ""
    return salted_hmac("web.typed_by", str(person.pk)).hexdigest()[:MARK_LENGTH]


def may_have(person: AbstractBaseUser | AnonymousUser, mark: str) -> bool:
    """Whether this person may have a text with this mark. A guest's is for whoever signs in: they typed it before."""
    return not mark or constant_time_compare(mark, mark_of(person))


def require_own(request: HttpRequest) -> None:
    """Raises OfSomebodyElse for a form on a page that was made for somebody else than who is signed in now.

    site.js says whose page it was, as it gives an open form the token of a later sign-in; without scripts that form is too old.
    """
    mark = request.POST.get("typed_by", "")
    if mark and request.user.is_authenticated and not may_have(request.user, mark):
        raise OfSomebodyElse(request.user.get_username())
