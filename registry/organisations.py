"""Organisations: names that several people publish under. Who belongs to one, in which role, and who leaves.

An organisation always has an admin: whatever would take its last one away is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError, transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from registry import audit, profiles, task_sets, tombstones
from registry.accounts import NameTaken, account_named
from registry.details import BadDetail
from registry.models import Adapter, Invitation, Membership, Namespace, Task, Token, User
from registry.names import check_namespace_name
from registry.rights import require_admin, require_whole_account, require_writing_token
from web.database import keep_from_deletion
from web.errors import Conflict, DomainError, NotFound

logger = logging.getLogger(__name__)

MAX_ORGANISATIONS = 20
MAX_MEMBERS = 500  # invitations that wait are counted too


class TooManyOrganisations(Conflict):
    code = "too_many_organisations"

    def __init__(self) -> None:
        super().__init__(
            f"You are an admin of {MAX_ORGANISATIONS} organisations, which is all that one person may be."
        )


class TooManyMembers(Conflict):
    code = "too_many_members"

    def __init__(self, organisation: Namespace) -> None:
        super().__init__(
            f"{organisation.name} has {MAX_MEMBERS} members and invitations, which is all it may have."
        )


class LastAdmin(Conflict):
    code = "last_admin"

    def __init__(self, organisation: Namespace) -> None:
        super().__init__(
            f"{organisation.name} would be left without an admin. Make somebody else admin first, or delete it."
        )


class AlreadyThere(Conflict):
    code = "already_a_member"

    def __init__(self, username: str, organisation: Namespace) -> None:
        super().__init__(
            f"{username} is a member of {organisation.name} already, or has been asked.",
            fields={"username": ["A member already, or asked."]},
        )


class NoSuchPerson(DomainError):
    code = "no_such_person"

    def __init__(self, username: str) -> None:
        super().__init__(
            f"There is nobody called {username[:100]!r} here.", fields={"username": ["Nobody has this name."]}
        )


# --- The organisation itself -------------------------------------------------------------------------------


def create_organisation(*, founder: User, name: str, full_name: str = "") -> Namespace:
    """A new organisation with its founder as admin.

    Raises InvalidName, NameTaken (also for the name of one that was deleted), BadDetail, TooManyOrganisations, Forbidden.
    """
    require_writing_token(founder)
    require_whole_account(founder)
    name = name.strip()
    check_namespace_name(name, field="name")
    full_name = profiles.check("full_name", full_name)
    if _administered_by(founder).count() >= MAX_ORGANISATIONS:
        raise TooManyOrganisations
    try:
        with transaction.atomic():
            if Namespace.objects.filter(name__iexact=name).exists():
                raise NameTaken(name, field="name")
            organisation = Namespace.objects.create(
                name=name, kind=Namespace.Kind.ORGANISATION, full_name=full_name
            )
            Membership.objects.create(namespace=organisation, user=founder, role=Membership.Role.ADMIN)
            audit.record(actor=founder, action="found", subject=organisation)
    except IntegrityError as error:
        raise NameTaken(name, field="name") from error
    return organisation


def describe(organisation: Namespace, *, actor: User, **said: str) -> Namespace:
    """Change what it says of itself (`profiles.change`); the name in addresses stays. Raises Forbidden, BadDetail."""
    with _held(organisation, by=actor) as row:
        before = row.full_name
        changed = profiles.change(row, **said)
        if "full_name" in changed:
            detail = f"from {before!r} to {row.full_name!r}"
            audit.record(actor=actor, action="rename", subject=row, detail=detail)
        if others := [field for field in changed if field != "full_name"]:
            audit.record(actor=actor, action="describe", subject=row, detail=", ".join(others))
    return row


def delete_organisation(organisation: Namespace, *, actor: User) -> None:
    """Delete it with all its adapters, their texts and files, and the tasks that nobody else uses
    (`registry.task_sets.unneeded`). Tombstones stay (`registry.tombstones`).

    Raises Forbidden, Conflict while an adapter or a task of it is in quarantine.
    """
    with _held(organisation, by=actor):
        if Adapter.objects.alive().filter(namespace=organisation).exclude(quarantined_at=None).exists():
            raise Conflict(
                "An adapter of it is in quarantine, and what is to be looked into does not vanish."
            )
        if Task.objects.filter(owner=organisation).exclude(quarantined_at=None).exists():
            raise Conflict("A task of it is in quarantine, and what is to be looked into does not vanish.")
        now = timezone.now()
        task_sets.hold_users(task_sets.unneeded(organisation), modules=Q(namespace=organisation))
        adapters = tombstones.close_namespace(organisation)
        task_sets.remove_unneeded(organisation)
        members = list(
            Membership.objects.filter(namespace=organisation).values_list("user__username", flat=True)
        )
        Membership.objects.filter(namespace=organisation).delete()
        Invitation.objects.filter(namespace=organisation).delete()
        Token.objects.filter(namespace=organisation, revoked_at=None).update(revoked_at=now)
        detail = f"{adapters} adapters; members were {', '.join(sorted(members))}"
        audit.record(actor=actor, action="delete", subject=organisation, detail=detail)
    logger.info("deleted organisation %s by %s", organisation, actor)


def held_by(organisation: Namespace) -> dict[str, int]:
    """How many adapters and tasks would go with it, and how many tasks would stay."""
    going = task_sets.unneeded(organisation)
    tasks = Task.objects.filter(owner=organisation).aggregate(
        going=Count("pk", filter=Q(pk__in=going.values("pk"))), all=Count("pk")
    )
    return {
        "adapters": Adapter.objects.alive().filter(namespace=organisation).count(),
        "tasks_going": tasks["going"],
        "tasks_staying": tasks["all"] - tasks["going"],
    }


# --- Members -----------------------------------------------------------------------------------------------


def members_of(organisation: Namespace) -> QuerySet[Membership]:
    """Its members with their people, by name."""
    return Membership.objects.filter(namespace=organisation).select_related("user").order_by("user__username")


def invitations_of(organisation: Namespace) -> QuerySet[Invitation]:
    """Who has been asked and has not answered, newest first."""
    return Invitation.objects.filter(namespace=organisation).select_related("user", "invited_by")


def organisations_of(person: User) -> QuerySet[Membership]:
    """The organisations that somebody belongs to, with their role in each."""
    return (
        Membership.objects.filter(
            user=person, namespace__kind=Namespace.Kind.ORGANISATION, namespace__deleted_at=None
        )
        .select_related("namespace")
        .annotate(members=Count("namespace__memberships"))
        .order_by("namespace__name")
    )


def invitations_for(person: User) -> QuerySet[Invitation]:
    """The organisations that have asked somebody to join, newest first."""
    return Invitation.objects.filter(user=person).select_related("namespace", "invited_by")


def invite(organisation: Namespace, *, actor: User, username: str, role: str) -> Invitation:
    """Ask a person to join; they belong to it once they accept.

    Raises Forbidden, BadDetail, NoSuchPerson, AlreadyThere, TooManyMembers.
    """
    _check_role(role)
    username = username.strip().removeprefix("@")
    with _held(organisation, by=actor):
        named = account_named(username)
        found = User.objects.filter(pk=named.pk, is_active=True) if named else User.objects.none()
        keep_from_deletion(found)
        person = found.first()
        if person is None:
            raise NoSuchPerson(username)
        members = Membership.objects.filter(namespace=organisation)
        asked = Invitation.objects.filter(namespace=organisation)
        if members.filter(user=person).exists() or asked.filter(user=person).exists():
            raise AlreadyThere(person.username, organisation)
        if members.count() + asked.count() >= MAX_MEMBERS:
            raise TooManyMembers(organisation)
        invitation = Invitation.objects.create(
            namespace=organisation, user=person, role=role, invited_by=actor
        )
        audit.record(actor=actor, action="invite", subject=organisation, detail=f"{person} as {role}")
    return invitation


def withdraw_invitation(organisation: Namespace, *, actor: User, username: str) -> None:
    """Take the question back. Raises Forbidden, NotFound."""
    with _held(organisation, by=actor):
        asked = Invitation.objects.filter(namespace=organisation, user=account_named(username))
        if not asked.delete()[0]:
            raise NotFound(f"{username[:100]} has no invitation to {organisation.name}.")
        audit.record(actor=actor, action="take back invitation", subject=organisation, detail=username[:150])


def accept(organisation_name: str, *, person: User) -> Membership:
    """Join an organisation that asked. Raises NotFound, Forbidden."""
    require_writing_token(person)
    require_whole_account(person)
    organisation = _invitation(organisation_name, person).namespace
    with _held(organisation):
        invitation = _invitation(organisation_name, person)  # again: it may have been taken back meanwhile
        membership, _ = Membership.objects.get_or_create(
            namespace=invitation.namespace, user=person, defaults={"role": invitation.role}
        )
        invitation.delete()
        audit.record(actor=person, action="join", subject=membership.namespace, detail=membership.role)
    return membership


def decline(organisation_name: str, *, person: User) -> None:
    """Do not join. Raises NotFound, Forbidden."""
    require_writing_token(person)
    require_whole_account(person)
    _invitation(organisation_name, person).delete()


def change_role(organisation: Namespace, *, actor: User, username: str, role: str) -> Membership:
    """Give a member another role, at once. Raises Forbidden, BadDetail, NotFound, LastAdmin."""
    _check_role(role)
    with _held(organisation, by=actor):
        membership = _membership(organisation, username)
        if role != Membership.Role.ADMIN:
            _require_another_admin(membership)
        before, membership.role = membership.role, role
        membership.save(update_fields=["role"])
        detail = f"{membership.user} from {before} to {role}"
        audit.record(actor=actor, action="change role", subject=organisation, detail=detail)
    return membership


def remove(organisation: Namespace, *, actor: User, username: str) -> None:
    """Take a member out; anybody may take out themselves. What they published there stays.

    Raises Forbidden, NotFound, LastAdmin.
    """
    is_leaving = account_named(username) == actor
    if is_leaving:
        require_writing_token(actor)
        require_whole_account(actor)
    with _held(organisation, by=None if is_leaving else actor):
        membership = _membership(organisation, username)
        _require_another_admin(membership)
        membership.delete()
        action = "leave" if is_leaving else "remove member"
        audit.record(actor=actor, action=action, subject=organisation, detail=membership.user.username)


@contextmanager
def _held(organisation: Namespace, *, by: User | None = None) -> Iterator[Namespace]:
    """One change of an organisation at a time: two admins who leave at once would leave nobody. Its row as it is now.

    Raises Forbidden unless `by`, if it takes an admin, is one still.
    """
    with transaction.atomic():
        row = Namespace.objects.select_for_update().get(pk=organisation.pk)
        if row.deleted_at is not None:
            raise NotFound(f"There is no organisation {organisation.name!r} here.")
        if by is not None:
            require_admin(by, row)
        yield row


def _administered_by(person: User) -> QuerySet[Membership]:
    return organisations_of(person).filter(role=Membership.Role.ADMIN)


def _membership(organisation: Namespace, username: str) -> Membership:
    found = members_of(organisation).filter(user=account_named(username)).first()
    if found is None:
        raise NotFound(f"{username[:100]} is no member of {organisation.name}.")
    return found


def _require_another_admin(membership: Membership) -> None:
    others = Membership.objects.filter(
        namespace=membership.namespace, role=Membership.Role.ADMIN, user__is_active=True
    ).exclude(pk=membership.pk)
    if membership.role == Membership.Role.ADMIN and not others.exists():
        raise LastAdmin(membership.namespace)


def _invitation(organisation_name: str, person: User) -> Invitation:
    found = invitations_for(person).filter(namespace__name__iexact=organisation_name).first()
    if found is None:
        raise NotFound(f"You have no invitation from {organisation_name[:100]!r}.")
    return found


def _check_role(role: str) -> None:
    if role not in Membership.Role.values:
        raise BadDetail("role", f"A role is read, write or admin, not {role[:40]!r}.")
