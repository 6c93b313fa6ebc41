"""What people and organisations say of themselves on their page: the name to show, one line, and one address of theirs."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import transaction

from registry import audit
from registry.details import MAX_FULL_NAME, BadDetail, check_text
from registry.models import Namespace, User
from registry.models.accounts import MAX_ABOUT, MAX_WEBSITE, check_website
from registry.rights import require_moderator
from web.errors import Conflict, NotFound

LIMITS = {"full_name": MAX_FULL_NAME, "about": MAX_ABOUT, "website": MAX_WEBSITE}


def change(namespace: Namespace, **said: str) -> list[str]:
    """Write down what it says of itself, of `LIMITS` those that are given; the names of those that it said otherwise before.

    Raises BadDetail, and NotFound where it was deleted meanwhile.
    """
    said = {field: check(field, value) for field, value in said.items()}
    changed = [field for field, value in said.items() if value != getattr(namespace, field)]
    if changed:
        # Not a save: nothing is written to what an account that is deleted at this moment leaves.
        if not Namespace.objects.filter(pk=namespace.pk, deleted_at=None).update(**said):
            raise NotFound(f"{namespace.name} is deleted.")
        for field, value in said.items():
            setattr(namespace, field, value)
    return changed


@transaction.atomic
def blank(namespace: Namespace, *, moderator: User, reason: str) -> None:
    """Remove all that it says of itself; its people may say something else. The book keeps the reason and not the words.

    Raises Forbidden, BadDetail, and Conflict where there is nothing.
    """
    require_moderator(moderator)
    reason = check_text("reason", reason, limit=500)
    if not reason:
        raise BadDetail("reason", "Say what is wrong with it, for the other moderators.")
    if not change(namespace, **dict.fromkeys(LIMITS, "")):
        raise Conflict(f"{namespace.name} says nothing of itself.")
    audit.record(actor=moderator, action="blank profile", subject=namespace, detail=reason)


def check(field: str, value: str) -> str:
    """`value` as it is written down. Raises BadDetail."""
    value = check_text(field, value, limit=LIMITS[field])
    if len(value.splitlines()) > 1:
        raise BadDetail(field, "This is more than one line, and only one is shown. Leave the line ends out.")
    if field == "website" and value:
        try:
            check_website(value)
        except ValidationError as error:
            raise BadDetail("website", error.messages[0]) from error
    return value
