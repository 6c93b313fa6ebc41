"""The book of what people with power over others did: written once, never changed (`models.AuditEntry`)."""

from __future__ import annotations

from django.db.models import Model

from registry.models import AuditEntry, User


def record(*, actor: User | None, action: str, subject: Model, detail: str = "") -> AuditEntry:
    """Write down that `actor` (None: a command of the machine) did this to `subject`."""
    return AuditEntry.objects.create(
        actor_id=actor.pk if actor else None,
        actor_name=actor.username if actor else "the machine",
        action=action,
        subject_kind=str(subject._meta.verbose_name),
        subject_id=str(subject.pk),
        subject_name=str(subject)[:300],
        detail=detail,
    )
