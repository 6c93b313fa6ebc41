"""Making and revoking the tokens of a person's scripts."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone

from registry import rights
from registry.details import BadDetail, check_text
from registry.models import Adapter, Membership, Namespace, Token, User
from web.errors import Conflict, NotFound

MAX_TOKENS = 50
MAX_DAYS = 3650


class TooManyTokens(Conflict):
    code = "too_many_tokens"

    def __init__(self) -> None:
        super().__init__(f"You have {MAX_TOKENS} tokens that work. Revoke one that you no longer need.")


def issue_token(
    *, user: User, name: str, scope: str, days: int | None = None, limit: str = ""
) -> tuple[Token, str]:
    """A new token and its secret, which is shown once and never again. `days` None: it does not expire.

    `limit` is the name of a namespace or an adapter that the token is for and worth nothing elsewhere; empty: it is
    good for everything its person may. Raises BadDetail, TooManyTokens, Forbidden for one that is here by a token.
    """
    if rights.token_of(user) is not None:
        raise rights.TokenMayNot("A token makes no tokens. Sign in to make one.")
    name = check_text("name", name, limit=100)
    if not name:
        raise BadDetail("name", "Give the token a name, such as the machine that will use it.")
    if scope not in Token.Scope.values:
        raise BadDetail("scope", f"The scope must be read or write, not {scope[:40]!r}.")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise BadDetail("days", f"A token lasts 1 to {MAX_DAYS} days, or does not expire.")
    namespace, adapter = _limit(user, limit.strip())
    if Token.objects.usable().filter(user=user).count() >= MAX_TOKENS:
        raise TooManyTokens
    return Token.issue(user=user, name=name, scope=scope, days=days, namespace=namespace, adapter=adapter)


def tokens_of(user: User) -> QuerySet[Token]:
    """A person's tokens, newest first; the revoked ones too, so that they see what was."""
    return Token.objects.filter(user=user).select_related("namespace", "adapter__namespace")


def possible_limits(user: User) -> list[str]:
    """Names that a token of this person may be limited to, for a form to offer: namespaces, then their newest adapters."""
    namespaces = Namespace.objects.filter(memberships__user=user, deleted_at=None).order_by("name")
    adapters = (
        Adapter.objects.alive()
        .filter(namespace__in=namespaces)
        .select_related("namespace")
        .order_by("-created_at")
    )
    return [*(namespace.name for namespace in namespaces), *(row.full_name for row in adapters[:200])]


def revoke_token(*, user: User, token_id: int) -> Token:
    """Make a token useless at once. Raises NotFound if it is not this person's."""
    token = Token.objects.filter(user=user, pk=token_id).first()
    if token is None:
        raise NotFound("You have no such token.")
    if token.revoked_at is None:
        token.revoked_at = timezone.now()
        token.save(update_fields=["revoked_at"])
    return token


def _limit(user: User, text: str) -> tuple[Namespace | None, Adapter | None]:
    """What a token is limited to: a namespace or an adapter of one, where its person is a member. Raises BadDetail."""
    if not text:
        return None, None
    owner, slash, name = text.partition("/")
    membership = (
        Membership.objects.filter(user=user, namespace__name__iexact=owner, namespace__deleted_at=None)
        .select_related("namespace")
        .first()
    )
    if membership is None:
        raise BadDetail("limit", f"You are no member of a namespace called {owner[:100]!r}.")
    if not slash:
        return membership.namespace, None
    adapter = Adapter.objects.alive().filter(namespace=membership.namespace, name__iexact=name).first()
    if adapter is None:
        raise BadDetail("limit", f"{membership.namespace.name} has no module {name[:100]!r}.")
    return None, adapter
