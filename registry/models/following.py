"""Following adapters and people, and addresses that are told what happens."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from registry.models.accounts import Namespace, User
from registry.models.adapters import Adapter


class Follow(models.Model):
    """Somebody wants to hear of new versions of an adapter, or of everything new that a namespace publishes."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="follows")
    adapter = models.ForeignKey(Adapter, null=True, on_delete=models.CASCADE, related_name="followings")
    namespace = models.ForeignKey(Namespace, null=True, on_delete=models.CASCADE, related_name="followings")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["user", "adapter"], condition=models.Q(adapter__isnull=False), name="follow_adapter_once"
            ),
            models.UniqueConstraint(
                fields=["user", "namespace"], condition=models.Q(namespace__isnull=False), name="follow_namespace_once"
            ),
            models.CheckConstraint(
                condition=models.Q(adapter__isnull=True) ^ models.Q(namespace__isnull=True), name="follow_one_thing"
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.user} follows {self.adapter or self.namespace}"


class NewsMail(models.Model):
    """Somebody wants a mail, once a day at most, of what is new of what they follow and in the searches they keep."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="news_mail")
    origin = models.CharField(
        max_length=200, help_text="The address of this site where it was asked for, for the links."
    )
    told_until = models.DateTimeField(
        default=timezone.now, db_index=True, help_text="What is newer was not told yet."
    )

    def __str__(self) -> str:
        return f"mail of what is new to {self.user}"


class Webhook(models.Model):
    """An address of a person's that is sent what happens to their namespaces, signed with a secret they share."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=500)
    events = models.JSONField(help_text="Names of registry.webhooks.EVENTS.")
    secret = models.CharField(max_length=500, help_text="Sealed, see registry.sealing.")
    is_active = models.BooleanField(default=True)
    failures = models.PositiveIntegerField(default=0, help_text="Deliveries given up in a row.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]

    def __str__(self) -> str:
        return self.url


class Delivery(models.Model):
    """One event on its way to a webhook. It stays for a while, so that it can be looked at and sent again."""

    class Status(models.TextChoices):
        WAITING = "waiting"
        DELIVERED = "delivered"
        GIVEN_UP = "given_up", "given up"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=40)
    key = models.CharField(max_length=80, help_text="Of the event: the same one is not sent twice by itself.")
    payload = models.JSONField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField(default=timezone.now)
    answered = models.PositiveSmallIntegerField(null=True, help_text="HTTP status of the last answer.")
    problem = models.CharField(max_length=300, blank=True)
    # Without what it repeats it would be the same event a second time, which there is not: it goes with that.
    replay_of = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="replays")
    created_at = models.DateTimeField(default=timezone.now)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        ordering: ClassVar = ["-created_at", "-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["webhook", "key"], condition=models.Q(replay_of=None), name="delivery_once"
            )
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["next_try_at"], condition=models.Q(status="waiting"), name="delivery_waiting"
            )
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook_id}"
