"""Who may do what: the only place that decides it. Doors ask here, and pass on what is raised.

What a person may not even see is NotFound, so that its existence is not told; what they see and may not change is
Forbidden.
"""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser

from registry.models import (
    Adapter,
    BaseModelFile,
    Blob,
    Membership,
    Namespace,
    RevisionFile,
    SentBlob,
    User,
)
from web.errors import Forbidden, NotFound

Person = User | AnonymousUser | None


def visible_adapter(person: Person, namespace: str, name: str) -> Adapter:
    """The adapter at `namespace/name` if this person may see it. Raises NotFound."""
    adapter = (
        Adapter.objects.visible_to(person)
        .select_related("namespace", "base_model", "task", "head", "head__author")
        .filter(namespace__name__iexact=namespace, name__iexact=name)
        .first()
    )
    if adapter is None:
        raise NotFound(f"There is no LoRA module {namespace}/{name} here, or you may not see it.")
    return adapter


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


def may_write(person: Person, namespace: Namespace) -> bool:
    """Whether this person may publish in and change what is in `namespace`."""
    if person is None or not person.is_authenticated:
        return False
    return Membership.objects.filter(
        namespace=namespace, user_id=person.pk, role__in=[Membership.Role.WRITE, Membership.Role.ADMIN]
    ).exists()


def require_write(person: Person, namespace: Namespace) -> None:
    """Raises Forbidden unless this person may publish in `namespace`."""
    if not may_write(person, namespace):
        raise Forbidden(
            f"You may not publish or change anything in {namespace.name!r}; you are not a member who may write."
        )


def writable_namespace(person: Person, name: str) -> Namespace:
    """The namespace of this name if this person may publish in it. Raises NotFound or Forbidden."""
    namespace = Namespace.objects.filter(name__iexact=name).first()
    if namespace is None:
        raise NotFound(
            f"There is no namespace {name!r}. You can publish in your own.",
            fields={"namespace": ["Unknown."]},
        )
    require_write(person, namespace)
    return namespace


def writable_adapter(person: Person, namespace: str, name: str) -> Adapter:
    """The adapter at `namespace/name` if this person may change it. Raises NotFound or Forbidden."""
    adapter = visible_adapter(person, namespace, name)
    require_write(person, adapter.namespace)
    return adapter
