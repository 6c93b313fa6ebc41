"""Work between us and other Hubs: importing adapters from one, pushing an adapter to one, and where things came from."""

from __future__ import annotations

import secrets
from typing import ClassVar

from django.db import models
from django.urls import reverse
from django.utils import timezone

from registry.models.accounts import Namespace, User
from registry.models.adapters import Adapter, Revision


def new_job_id() -> str:
    """A short random id; 50 bits, so that links cannot be guessed."""
    return "".join(secrets.choice("23456789abcdefghjkmnpqrstuvwxyz") for _ in range(10))


class JobStatus(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)


class HubJob(models.Model):
    """A job between us and another Hub, done in steps by the chores worker.

    The row is the truth, whatever the broker does. A worker holds it by a lease while it does one step; `attempt`
    counts those holds, and every write of a worker names the one it belongs to. Between steps nobody holds it, and
    the job that waited longest comes next. `sealed_token` opens only with our SECRET_KEY and goes when the job ends.
    """

    id = models.CharField(primary_key=True, max_length=16, default=new_job_id, editable=False)
    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="%(class)ss")
    endpoint = models.CharField(max_length=300, help_text="Address of the other Hub.")
    status = models.CharField(max_length=10, choices=JobStatus.choices, default=JobStatus.QUEUED)
    error = models.TextField(blank=True)
    is_cancel_wanted = models.BooleanField(default=False)
    sealed_token = models.TextField(blank=True)

    worker = models.CharField(max_length=200, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    waits_since = models.DateTimeField(default=timezone.now, help_text="The end of its last step.")
    rung_at = models.DateTimeField(null=True, blank=True)

    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.pk

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def hub(self) -> str:
        """The other Hub as people call it: its address without the scheme."""
        return self.endpoint.partition("://")[2] or self.endpoint


class ImportJob(HubJob):
    """Somebody wants these adapters of another Hub in this namespace. `sources` are ids and patterns as they were given."""

    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT, related_name="imports")
    sources = models.JSONField()
    name = models.CharField(max_length=96, blank=True, help_text="Ours, where one adapter is imported.")
    source_revision = models.CharField(max_length=255, blank=True, help_text="Branch, tag or commit there.")
    visibility = models.CharField(max_length=8, choices=Adapter.Visibility.choices)
    overwrite = models.BooleanField(
        default=False, help_text="A newer commit may go on top of versions that were made here."
    )
    is_expanded = models.BooleanField(default=False, help_text="Its repositories are known.")

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["status", "waits_since"], name="import_waiting"),
            models.Index(fields=["owner", "-created_at"], name="import_of_owner"),
        ]

    def get_absolute_url(self) -> str:
        return reverse("import_detail", args=[self.pk])


class ImportItem(models.Model):
    """One repository of an import, and what became of it."""

    class Status(models.TextChoices):
        WAITING = "waiting"
        FETCHING = "fetching"
        IMPORTED = "imported"
        PRESENT = "present", "here already"
        FAILED = "failed"
        CANCELLED = "cancelled"

    job = models.ForeignKey(ImportJob, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField()
    source = models.CharField(max_length=200)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0)
    commit = models.CharField(max_length=64, blank=True)
    bytes_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0)
    fetched_bytes = models.BigIntegerField(default=0, help_text="Came over the wire; the rest was here.")
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    error = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["job", "position"], name="import_item_place_once"),
            models.UniqueConstraint(fields=["job", "source"], name="import_item_source_once"),
        ]

    def __str__(self) -> str:
        return self.source


class PushJob(HubJob):
    """Somebody wants this revision of an adapter as `target` on another Hub."""

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="pushes")
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="+")
    target = models.CharField(
        max_length=200, help_text="namespace/name there; a name alone is the token's own."
    )
    visibility = models.CharField(max_length=8, choices=Adapter.Visibility.choices)
    losses = models.PositiveSmallIntegerField(
        default=0, help_text="Workers that were lost while they held it."
    )
    stage = models.CharField(max_length=20, blank=True)
    bytes_done = models.BigIntegerField(default=0)
    bytes_total = models.BigIntegerField(default=0)
    commit = models.CharField(max_length=64, blank=True)
    url = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering: ClassVar = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["status", "waits_since"], name="push_waiting"),
            models.Index(fields=["owner", "-created_at"], name="push_of_owner"),
        ]

    def get_absolute_url(self) -> str:
        return reverse("push_detail", args=[self.pk])


class Origin(models.Model):
    """A revision is what another Hub had at one commit."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="origins")
    endpoint = models.CharField(max_length=300)
    source = models.CharField(max_length=200)
    commit = models.CharField(max_length=64)
    imported_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["revision", "endpoint", "source", "commit"], name="origin_once")
        ]

    def __str__(self) -> str:
        return f"{self.source} at {self.commit[:12]}"

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{self.source}/tree/{self.commit}"
