"""Making and revoking the tokens of a person's scripts."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone

from registry.details import BadDetail, check_text
from registry.models import Token, User
from web.errors import Conflict, NotFound

MAX_TOKENS = 50
MAX_DAYS = 3650


class TooManyTokens(Conflict):
    code = "too_many_tokens"

    def __init__(self) -> None:
        super().__init__(f"You have {MAX_TOKENS} tokens that work. Revoke one that you no longer need.")


def issue_token(*, user: User, name: str, scope: str, days: int | None = None) -> tuple[Token, str]:
    """A new token and its secret, which is shown once and never again. `days` None: it does not expire.

    Raises BadDetail, TooManyTokens.
    """
    name = check_text("name", name, limit=100)
    if not name:
        raise BadDetail("name", "Give the token a name, such as the machine that will use it.")
    if scope not in Token.Scope.values:
        raise BadDetail("scope", f"The scope must be read or write, not {scope[:40]!r}.")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise BadDetail("days", f"A token lasts 1 to {MAX_DAYS} days, or does not expire.")
    if Token.objects.usable().filter(user=user).count() >= MAX_TOKENS:
        raise TooManyTokens
    return Token.issue(user=user, name=name, scope=scope, days=days)


def tokens_of(user: User) -> QuerySet[Token]:
    """A person's tokens, newest first; the revoked ones too, so that they see what was."""
    return Token.objects.filter(user=user)


def revoke_token(*, user: User, token_id: int) -> Token:
    """Make a token useless at once. Raises NotFound if it is not this person's."""
    token = Token.objects.filter(user=user, pk=token_id).first()
    if token is None:
        raise NotFound("You have no such token.")
    if token.revoked_at is None:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
    return token
