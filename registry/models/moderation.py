"""Complaints about adapters and tasks, and the book of what the people who run the site have done."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from registry.models.accounts import User
from registry.models.adapters import Adapter
from registry.models.tasks import Task


class Report(models.Model):
    """Somebody says that an adapter or a task should not be here. It waits in the queue until a moderator has looked at it."""

    class Reason(models.TextChoices):
        HARMFUL = "harmful", "It is harmful or made to deceive"
        MALICIOUS = "malicious", "Its files attack whoever loads them"
        RIGHTS = "rights", "It breaks a licence or somebody's rights"
        PRIVATE_DATA = "private_data", "It gives away private data"
        SPAM = "spam", "It is spam"
        OTHER = "other", "Something else"

    class Outcome(models.TextChoices):
        NONE = "", "waiting"
        QUARANTINED = "quarantined", "quarantined"
        DISMISSED = "dismissed", "dismissed"

    adapter = models.ForeignKey(
        Adapter, null=True, blank=True, on_delete=models.CASCADE, related_name="reports"
    )
    task = models.ForeignKey(Task, null=True, blank=True, on_delete=models.CASCADE, related_name="reports")
    reason = models.CharField(max_length=16, choices=Reason.choices)
    text = models.CharField(max_length=2000, blank=True)
    reporter = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="reports"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    outcome = models.CharField(max_length=12, choices=Outcome.choices, default=Outcome.NONE, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_by = models.ForeignKey(User, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        indexes: ClassVar = [models.Index(fields=["outcome", "-created_at"], name="report_queue")]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(adapter=None, task__isnull=False)
                | models.Q(adapter__isnull=False, task=None),
                name="report_is_about_one_thing",
            )
        ]

    def __str__(self) -> str:
        return f"{self.adapter or self.task}: {self.get_reason_display()}"


class WrittenForGood(TypeError):
    """Our own mistake: something tried to change or remove what was done."""

    def __init__(self) -> None:
        super().__init__("entries of the audit book are written once and neither changed nor removed")


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    def update(self, **fields: Any) -> int:
        raise WrittenForGood

    def delete(self) -> tuple[int, dict[str, int]]:
        raise WrittenForGood


class AuditEntry(models.Model):
    """One act of somebody with power over others. Names are copied, not linked, so that no entry ever changes.

    The database refuses changes as well: a trigger on both kinds (migration 0005), and on Postgres also removal.
    """

    at = models.DateTimeField(auto_now_add=True)
    actor_id = models.BigIntegerField(null=True, help_text="Empty for a command of the machine.")
    actor_name = models.CharField(max_length=150)
    action = models.CharField(max_length=60)
    subject_kind = models.CharField(max_length=60)
    subject_id = models.CharField(max_length=60)
    subject_name = models.CharField(max_length=300)
    detail = models.TextField(blank=True)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        indexes: ClassVar = [models.Index(fields=["subject_kind", "subject_id"], name="audit_subject")]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.actor_name}: {self.action} {self.subject_name}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise WrittenForGood
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise WrittenForGood
