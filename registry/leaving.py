"""What an account holds here, what stands against deleting it, and taking it out.

`compose.leaving` deletes an account, since it knows all that hangs on one; this is the registry's part.
"""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.db.models import Exists, F, Func, IntegerField, OuterRef, Q, QuerySet, Subquery

from registry import audit, likes, task_sets
from registry.accounts import own_namespace
from registry.models import (
    Adapter,
    Follow,
    ImportItem,
    ImportJob,
    Like,
    Membership,
    Namespace,
    PushJob,
    Revision,
    SavedSearch,
    Task,
    Token,
    User,
    Webhook,
)
from registry.models.hub_jobs import UNFINISHED
from web.database import take_for_deletion
from web.errors import Conflict, DomainError, NotFound


class OnlyAdmin(Conflict):
    code = "last_admin"

    def __init__(self, organisations: list[Namespace]) -> None:
        names = ", ".join(organisation.name for organisation in organisations)
        super().__init__(
            f"Nobody else is admin of {names}. Make another member admin there, or delete "
            f"{'it' if len(organisations) == 1 else 'them'}; then you can delete your account."
        )
        self.organisations = organisations


class HoldsQuarantined(Conflict):
    code = "quarantined"

    def __init__(self, adapters: list[Adapter]) -> None:
        names = ", ".join(adapter.full_name for adapter in adapters)
        super().__init__(
            f"{names} {'is' if len(adapters) == 1 else 'are'} in quarantine, and what is to be looked into does not "
            "vanish. Ask the people who run this site to decide about it first."
        )


def obstacles(person: User) -> list[DomainError]:
    """Why this account cannot be deleted now; empty if it can."""
    found: list[DomainError] = []
    alone = _administered(person).filter(~Exists(_other_admins(person)))
    organisations = [membership.namespace for membership in alone.order_by("namespace__name")]
    if organisations:
        found.append(OnlyAdmin(organisations))
    quarantined = Adapter.objects.alive().filter(namespace=own_namespace(person)).exclude(quarantined_at=None)
    adapters = list(quarantined.select_related("namespace").order_by("name"))
    if adapters:
        found.append(HoldsQuarantined(adapters))
    return found


def counts(person: User) -> dict[str, int]:
    """How many of each kind of thing go with an account, in one query."""
    held: dict[str, QuerySet[Any]] = {
        "likes": Like.objects.filter(user=OuterRef("pk")),
        "follows": Follow.objects.filter(user=OuterRef("pk")),
        "searches": SavedSearch.objects.filter(user=OuterRef("pk")),
        "webhooks": Webhook.objects.filter(user=OuterRef("pk")),
        "tokens": Token.objects.usable().filter(user=OuterRef("pk")),
        "sessions": UserSession.objects.filter(user=OuterRef("pk")),
        "addresses": EmailAddress.objects.filter(user=OuterRef("pk")),
        "factors": Authenticator.objects.filter(user=OuterRef("pk")),
        "accounts": SocialAccount.objects.filter(user=OuterRef("pk")),
        "imports": ImportJob.objects.filter(owner=OuterRef("pk"), status__in=UNFINISHED),
        "pushes": PushJob.objects.filter(owner=OuterRef("pk"), status__in=UNFINISHED),
        "organisations": Membership.objects.filter(
            user=OuterRef("pk"),
            namespace__kind=Namespace.Kind.ORGANISATION,
            namespace__deleted_at=None,
        ),
        "private": Adapter.objects.alive().filter(
            namespace__name=OuterRef("username"), visibility=Adapter.Visibility.PRIVATE
        ),
    }
    found = User.objects.filter(pk=person.pk).annotate(
        **{f"held_{name}": _counted(rows) for name, rows in held.items()}
    )
    row = found.values(*(f"held_{name}" for name in held)).get()
    numbers: dict[str, int] = {name: row[f"held_{name}"] for name in held}
    # One that a command gave is a row of its own only once somebody has looked at the page of addresses.
    return numbers | {"addresses": numbers["addresses"] or int(bool(person.email))}


def _counted(rows: QuerySet[Any]) -> Subquery:
    # Not Count, by which Django would group the rows: then none would be no number instead of 0.
    number = Func(F("pk"), function="COUNT", output_field=IntegerField())
    return Subquery(rows.order_by().annotate(n=number).values("n"))


# --- Taking it out: each inside the transaction of `compose.leaving.delete_account` -----------------------------


def hold(person: User) -> None:
    """Let nobody else delete this account, and nobody write to its namespace or to an organisation that it belongs to.

    Raises NotFound where somebody was quicker, and what `obstacles` finds.
    """
    # Not the whole lock yet: a worker that is writing a result holds its row, and Postgres looks for the owner at the end.
    if User.objects.select_for_update(no_key=True).filter(pk=person.pk).first() is None:
        raise NotFound("This account is deleted already.")
    held = Q(pk__in=Membership.objects.filter(user=person).values("namespace")) | Q(
        pk=own_namespace(person).pk
    )
    take_for_deletion(Namespace.objects.filter(held))
    for obstacle in obstacles(person):
        raise obstacle


def take_imports(person: User) -> None:
    """Before modules: whoever works on one says of it, at the end, which module came of it."""
    take_for_deletion(ImportItem.objects.filter(job__in=ImportJob.objects.filter(owner=person)))


def hold_wholly(person: User) -> None:
    """From now on nobody writes to what the deletion writes to, or adds a row that points to this account.

    All of a kind at once: of two people who delete their accounts and like each other's modules each would wait for the other.
    """
    own = own_namespace(person)
    named = Q(created_by=person) | Q(pk__in=Revision.objects.filter(author=person).values("adapter"))
    liked = Q(pk__in=Like.objects.filter(user=person).values("adapter"))
    going = Task.objects.filter(owner=own, is_private=True)
    task_sets.hold_users(going, modules=Q(namespace=own) | named | liked)
    take_for_deletion(Task.objects.filter(Q(owner=own) | Q(created_by=person)))
    take_for_deletion(Webhook.objects.filter(user=person))
    # At last: whoever has written to one of these, and waits for nothing else, names the account at the end.
    take_for_deletion(User.objects.filter(pk=person.pk))


def erase(person: User, *, actor: User | None, detail: str) -> None:
    """Write down that the account is deleted, and delete it with every row that belongs to it alone.

    Where they were one of several, as the author of a version in an organisation, nobody is named from now on.
    """
    audit.record(actor=actor, action="delete account", subject=person, detail=detail)
    likes.unlike_all(person)
    for session in UserSession.objects.filter(user=person):
        session.end()
    User.objects.get(pk=person.pk).delete()


def _administered(person: User) -> QuerySet[Membership]:
    return Membership.objects.filter(
        user=person,
        role=Membership.Role.ADMIN,
        namespace__kind=Namespace.Kind.ORGANISATION,
        namespace__deleted_at=None,
    ).select_related("namespace")


def _other_admins(person: User) -> QuerySet[Membership]:
    others = Membership.objects.filter(
        namespace=OuterRef("namespace"), role=Membership.Role.ADMIN, user__is_active=True
    )
    return others.exclude(user=person)
