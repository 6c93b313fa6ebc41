"""Who typed what waits for an answer: a page names its reader by a mark, which goes with the text and is compared later."""

from __future__ import annotations

from django.conf import settings
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


def mark_of(person: AbstractBaseUser | AnonymousUser, key: str | None = None) -> str:
    """The same for a person on every page, and nobody else's; empty for a guest. By SECRET_KEY unless by another one."""
    if not person.is_authenticated:
        return ""
    return salted_hmac("web.typed_by", str(person.pk), secret=key).hexdigest()[:MARK_LENGTH]


def may_have(person: AbstractBaseUser | AnonymousUser, mark: str) -> bool:
    """Whether this person may have a text with this mark. A guest's is for whoever signs in: they typed it before."""
    # Who is signed in stays so while the key changes, and so do the pages that are open.
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return not mark or any(constant_time_compare(mark, mark_of(person, key)) for key in keys)


def require_own(request: HttpRequest) -> None:
    """Raises OfSomebodyElse for a form on a page that was made for somebody else than who is signed in now.

    site.js says whose page it was, as it gives an open form the token of a later sign-in; without scripts that form is too old.
    """
    mark = request.POST.get("typed_by", "")
    if mark and request.user.is_authenticated and not may_have(request.user, mark):
        raise OfSomebodyElse(request.user.get_username())
