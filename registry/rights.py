"""Who may do what: the only place that decides it. Doors ask here, and pass on what is raised.

What a person may not even see is NotFound, so that its existence is not told; what they see and may not change is
Forbidden. A person who is here by a token (`User.acting_token`) may do what both they and the token may: a token that
only reads changes nothing, and one that is limited to a namespace or an adapter is worth nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import Exists, OuterRef, Q, QuerySet

from registry.models import (
    Adapter,
    BaseModelFile,
    Blob,
    Membership,
    Namespace,
    RevisionFile,
    SentBlob,
    Task,
    Token,
    User,
)
from web.errors import Forbidden, NotFound
from web.kept_queries import KeptForGuests, text_of

if TYPE_CHECKING:
    from registry.models.adapters import AdapterQuerySet

Person = User | AnonymousUser | None

WRITERS = [Membership.Role.WRITE, Membership.Role.ADMIN]


class Quarantined(Forbidden):
    code = "quarantined"

    def __init__(self, adapter: Adapter) -> None:
        why = f" They say: {adapter.quarantine_reason}" if adapter.quarantine_reason else ""
        super().__init__(
            f"{adapter.full_name} was put into quarantine by the people who run this site and cannot be changed.{why}"
        )


class NoWriter(Forbidden):
    advice = "Ask somebody who may write there, or use your own namespace."

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(
            f"You may not publish or change anything in {namespace.name!r}; you are not a member who may write."
        )


class TokenMayNot(Forbidden):
    """The person may, their token may not."""

    code = "token_may_not"


class TokenOnlyReads(TokenMayNot):
    def __init__(self) -> None:
        super().__init__("This token may only read. Make one with the scope write under Settings, Tokens.")


class TokenIsLimited(TokenMayNot):
    def __init__(self, token: Token) -> None:
        super().__init__(f"This token is limited to {token.limit}, and this is about something else.")


# --- Tokens ------------------------------------------------------------------------------------------------


def token_of(person: Person) -> Token | None:
    """The token by which this person is here; None for one who is here by a session, or a guest."""
    return getattr(person, "acting_token", None)


def require_writing_token(person: Person) -> None:
    """Raises TokenOnlyReads if the person is here by a token whose scope is not write."""
    token = token_of(person)
    if token is not None and token.scope != Token.Scope.WRITE:
        raise TokenOnlyReads


def is_limited(person: Person) -> bool:
    """Whether the person is here by a token that is limited to a namespace or an adapter."""
    token = token_of(person)
    return token is not None and token.is_limited


def require_whole_account(person: Person) -> None:
    """For what is about the person and no namespace of theirs: composing, liking. Raises TokenIsLimited."""
    token = token_of(person)
    if token is not None and token.is_limited:
        raise TokenIsLimited(token)


def hold_account(person: User) -> None:
    """Nobody deletes or blocks this account before the transaction ends, and what it asks for at once comes one after the
    other. Raises Forbidden where somebody did meanwhile.

    Not the whole lock: what others write beside it names the account at its end.
    """
    row = User.objects.select_for_update(no_key=True).filter(pk=person.pk)
    is_active = row.values_list("is_active", flat=True).first()
    if is_active is None:
        raise Forbidden("This account is deleted.")
    if not is_active:
        raise Forbidden("This account is blocked.")


def acts_as_themselves(person: Person) -> bool:
    """Whether what belongs to this person and to no namespace is open: signed in, or by a token without a limit."""
    return person is not None and person.is_authenticated and not is_limited(person)


def owns(person: Person, owner_id: int | None) -> bool:
    """Whether a thing that belongs to one person alone, such as a composition, is this person's."""
    return acts_as_themselves(person) and person is not None and person.pk == owner_id


def _is_in_reach(token: Token | None, namespace: Namespace, name: str | None) -> bool:
    """Whether a token reaches the adapter `name` of a namespace; without `name`, everything in the namespace."""
    if token is None or not token.is_limited:
        return True
    if token.namespace_id is not None:
        return token.namespace_id == namespace.pk
    only = token.adapter
    if only is None or name is None or only.namespace_id != namespace.pk:
        return False
    return only.name.lower() == name.lower()


# --- Seeing ------------------------------------------------------------------------------------------------


def sees_adapter(person: Person, at: str) -> Q:
    """Of rows that have an adapter in `at`: those whose adapter this person may see. A condition to stand beside others.

    With `in` and everything that is visible it would be the same; beside an "or" Postgres goes through that for each row.
    """
    return Q(Exists(Adapter.objects.visible_to(person).filter(pk=OuterRef(at))))


def visible_adapter(person: Person, namespace: str, name: str) -> Adapter:
    """The adapter at `namespace/name` if this person may see it. Raises NotFound.

    A moderator also sees what is in quarantine, to judge it; lists and counts do not show it to them.
    """
    found = _CALLED.rows(person, namespace=namespace, name=name)
    if not found:
        raise NotFound(f"There is no LoRA module {namespace}/{name} here, or you may not see it.")
    return found[0]


def _called(*, person: Person, namespace: Any, name: Any) -> AdapterQuerySet:
    rows = Adapter.objects.visible_to(person)
    if may_moderate(person):
        rows = Adapter.objects.alive().filter(
            Q(visibility=Adapter.Visibility.PUBLIC) | sees_adapter(person, "pk")
        )
    found = rows.filter(namespace__name__iexact=namespace, name__iexact=name)
    found = found.select_related("namespace", "base_model", "task", "head", "head__author")
    return found.defer("base_model__matrices", "base_model__config")


_CALLED = KeptForGuests(_called, text_of("namespace"), text_of("name"))


def may_read_blob(person: Person, blob: Blob) -> bool:
    """Whether this person sent these bytes lately or sees them in some adapter or base model: knowing a hash is no right."""
    if BaseModelFile.objects.filter(blob=blob).exists():
        return True
    if (
        person is not None
        and person.is_authenticated
        and SentBlob.objects.filter(blob=blob, user_id=person.pk).exists()
    ):
        return True
    visible = Adapter.objects.visible_to(person).values("pk")
    return RevisionFile.objects.filter(blob=blob, revision__adapter__in=visible).exists()


def namespaces_of(person: Person) -> QuerySet[Namespace]:
    """Those in which this person sees what others do not: as a member, by a token that is not limited elsewhere."""
    if person is None or not person.is_authenticated:
        return Namespace.objects.none()
    return _by_token(person, Namespace.objects.filter(memberships__user_id=person.pk))


def composable_for(person: Person) -> AdapterQuerySet:
    """Adapters that this person may put into a composition: those they see, but for what is in quarantine."""
    return Adapter.objects.visible_to(person).filter(quarantined_at=None)


# --- Changing ----------------------------------------------------------------------------------------------


def may_write(person: Person, namespace: Namespace, name: str | None = None) -> bool:
    """Whether this person may publish in `namespace`, or with `name` in that adapter of it."""
    if person is None or not person.is_authenticated:
        return False
    token = token_of(person)
    if token is not None and token.scope != Token.Scope.WRITE:
        return False
    return _is_in_reach(token, namespace, name) and _has_role(person, namespace, WRITERS)


def require_write(person: Person, namespace: Namespace, name: str | None = None) -> None:
    """Raises Forbidden unless this person may publish in `namespace`, or with `name` in that adapter of it."""
    if may_write(person, namespace, name):
        return
    if person is not None and person.is_authenticated and _has_role(person, namespace, WRITERS):
        require_writing_token(person)
        require_whole_account(person)
    raise NoWriter(namespace)


def may_change(person: Person, adapter: Adapter) -> bool:
    """Whether this person may change this adapter now."""
    return not adapter.is_quarantined and may_write(person, adapter.namespace, adapter.name)


def require_change(person: Person, adapter: Adapter) -> None:
    """Raises Forbidden unless this person may change this adapter; Quarantined if nobody may now."""
    require_write(person, adapter.namespace, adapter.name)
    if adapter.is_quarantined:
        raise Quarantined(adapter)


def may_take_away(person: Person, adapter: Adapter) -> bool:
    """Whether this person, who may change the adapter, may give it to another namespace."""
    return not adapter.namespace.is_organisation or is_admin(person, adapter.namespace)


def require_may_take_away(person: Person, adapter: Adapter) -> None:
    """Raises Forbidden unless this person, who may change the adapter, may give it to another namespace.

    Out of an organisation its admins alone: what is private there would be one person's, and no longer its members'.
    """
    if not may_take_away(person, adapter):
        raise Forbidden(
            f"Only an admin of {adapter.namespace.name} may move its modules to another namespace. You may give it another name there."
        )


def writable_namespaces(person: Person) -> QuerySet[Namespace]:
    """Where this person may publish new adapters, by name."""
    if person is None or not person.is_authenticated:
        return Namespace.objects.none()
    found = Namespace.objects.filter(
        deleted_at=None, memberships__user_id=person.pk, memberships__role__in=WRITERS
    )
    return _by_token(person, found.order_by("name"))


def _by_token(person: Person, found: QuerySet[Namespace]) -> QuerySet[Namespace]:
    """Those of them that this person has by the token with which they came, if they came with one."""
    token = token_of(person)
    if token is None or not token.is_limited:
        return found
    return found.filter(pk=token.namespace_id) if token.namespace_id else found.none()


def writable_namespace(person: Person, name: str, *, adapter: str | None = None) -> Namespace:
    """The namespace of this name if this person may publish in it, or may write to its `adapter`.

    Raises NotFound or Forbidden.
    """
    namespace = Namespace.objects.filter(name__iexact=name, deleted_at=None).first()
    if namespace is None:
        raise NotFound(
            f"There is no namespace {name!r}. You can publish in your own.",
            fields={"namespace": ["Unknown."]},
        )
    require_write(person, namespace, adapter)
    return namespace


def writable_adapter(person: Person, namespace: str, name: str) -> Adapter:
    """The adapter at `namespace/name` if this person may change it. Raises NotFound or Forbidden."""
    adapter = visible_adapter(person, namespace, name)
    require_change(person, adapter)
    return adapter


# --- Tasks -------------------------------------------------------------------------------------------------


def may_change_task(person: Person, task: Task) -> bool:
    """Whether this person may change this task: who made it, admins of the namespace it belongs to, and moderators.

    While it is in quarantine the moderators alone may.
    """
    if may_moderate(person):
        return True
    if task.owner is None or task.is_quarantined or person is None:
        return False
    is_maker = person.pk is not None and task.created_by_id == person.pk
    return (is_maker and may_write(person, task.owner)) or is_admin(person, task.owner)


def require_change_task(person: Person, task: Task) -> None:
    """Raises Forbidden unless this person may change this task."""
    if may_change_task(person, task):
        return
    require_writing_token(person)
    require_whole_account(person)
    if task.is_quarantined:
        raise Forbidden(
            f"{task.title} was put into quarantine by the people who run this site and cannot be changed."
        )
    raise Forbidden("Only who made this task and the admins of the organisation it belongs to may change it.")


# --- Organisations -----------------------------------------------------------------------------------------


def is_member(person: Person, namespace: Namespace) -> bool:
    """Whether this person belongs to `namespace`, in whatever role."""
    return _has_role(person, namespace, Membership.Role.values)


def is_admin(person: Person, namespace: Namespace) -> bool:
    """Whether this person decides who belongs to `namespace`; by a token only with one that is good for all they may."""
    token = token_of(person)
    if token is not None and (token.is_limited or token.scope != Token.Scope.WRITE):
        return False
    return _has_role(person, namespace, [Membership.Role.ADMIN])


def member_organisation(person: Person, name: str) -> Namespace:
    """The organisation of this name if this person is a member, whatever their role. Raises NotFound or Forbidden."""
    organisation = Namespace.objects.filter(
        name__iexact=name, kind=Namespace.Kind.ORGANISATION, deleted_at=None
    ).first()
    if organisation is None:
        raise NotFound(f"There is no organisation {name!r} here.")
    if not is_member(person, organisation):
        raise Forbidden(f"You are not a member of {organisation.name}.")
    return organisation


def member_namespace(person: Person, name: str) -> Namespace:
    """The namespace of this name if this person is a member and their token reaches all of it: their own, or an
    organisation. Raises NotFound or Forbidden."""
    namespace = Namespace.objects.filter(name__iexact=name, deleted_at=None).first()
    if namespace is None:
        raise NotFound(f"There is no namespace {name[:100]!r} here.")
    if not is_member(person, namespace):
        raise Forbidden(f"You are not a member of {namespace.name}.")
    token = token_of(person)
    if token is not None and not _is_in_reach(token, namespace, None):
        raise TokenIsLimited(token)
    return namespace


def require_admin(person: Person, organisation: Namespace) -> None:
    """Raises Forbidden unless this person is an admin of the organisation."""
    if is_admin(person, organisation):
        return
    require_writing_token(person)
    require_whole_account(person)
    raise Forbidden(f"Only an admin of {organisation.name} may do this.")


def may_moderate(person: Person) -> bool:
    """Whether this person decides about reports and quarantine: staff who are here themselves, not by a token."""
    return isinstance(person, User) and person.is_active and person.is_staff and token_of(person) is None


def require_moderator(person: Person) -> None:
    """Raises Forbidden unless this person may moderate."""
    if not may_moderate(person):
        raise Forbidden("Only the people who run this site may do this.")


def _has_role(person: Person, namespace: Namespace, roles: Sequence[str]) -> bool:
    if person is None or not person.is_authenticated or namespace.deleted_at is not None:
        return False
    # As it is now: a job of somebody who was blocked meanwhile may still be at work.
    return Membership.objects.filter(
        namespace=namespace, user_id=person.pk, user__is_active=True, role__in=roles
    ).exists()
