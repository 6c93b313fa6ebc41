"""What finding adapters reads: one narrow row and one text for each adapter, and searches that people keep.

Triggers of the database keep `SearchRow` and `AdapterText` in step with the tables they repeat (migration 0006), so
that no way of writing, not even an UPDATE by hand, can leave them behind.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from registry.models.accounts import User
from registry.models.adapters import Adapter
from registry.models.tasks import Task, TaskRevision


class SearchClock(models.Model):
    """One row. `epoch` moves when rows vanish; `number` counts changes where the database has no transaction ids."""

    epoch = models.BigIntegerField(default=0)
    number = models.BigIntegerField(default=0)
    made_by = models.CharField(
        max_length=64, blank=True, help_text="Version of the triggers that are in place."
    )

    def __str__(self) -> str:
        return f"epoch {self.epoch}, change {self.number}"


class SearchRow(models.Model):
    """The numbers by which an adapter is filtered, counted and sorted; 0, "" or -1 where there is none."""

    adapter = models.OneToOneField(
        Adapter, primary_key=True, on_delete=models.CASCADE, related_name="search_row"
    )
    is_alive = models.BooleanField()
    is_public = models.BooleanField(help_text="Alive, public and not in quarantine: everybody sees it.")
    namespace_id = models.BigIntegerField()
    base_model_id = models.BigIntegerField(default=0)
    task_id = models.BigIntegerField(default=0)
    is_composable = models.BooleanField()
    is_composed = models.BooleanField()
    rank = models.IntegerField(default=-1, help_text="-1: it has no weights yet.")
    license = models.CharField(max_length=100, blank=True)
    language = models.CharField(max_length=40, blank=True)
    tag = models.TextField(blank=True, db_default="", help_text="Its tags, as a,b.")
    targets = models.CharField(
        max_length=500, blank=True, help_text="Names of its target matrices, as k,q,v."
    )
    size_bytes = models.BigIntegerField(default=0)
    published_us = models.BigIntegerField(help_text="Microseconds since 1970.")
    updated_us = models.BigIntegerField()
    downloads = models.BigIntegerField(default=0)
    likes = models.BigIntegerField(default=0)
    score = models.FloatField(default=-1, help_text="Best held-out score, -1 where there is none.")
    trending = models.FloatField(default=0, help_text="Written by the hourly chore, see registry.standing.")
    usefulness = models.FloatField(
        default=0, help_text="Written by the hourly chore, see compose.usefulness."
    )
    uses = models.IntegerField(default=0, help_text="Compositions that gave it a weight.")
    changed_in = models.BigIntegerField(
        default=0, db_index=True, help_text="Transaction (Postgres) or change (SQLite) that wrote it last."
    )

    def __str__(self) -> str:
        return f"search row of {self.adapter_id}"


class AdapterText(models.Model):
    """The words by which an adapter is found. On Postgres with two tsvector columns beside, on SQLite with FTS5."""

    adapter = models.OneToOneField(
        Adapter, primary_key=True, on_delete=models.CASCADE, related_name="search_text"
    )
    names = models.CharField(max_length=400, help_text="Namespace and name.")
    about = models.TextField(blank=True, help_text="Description, task, base model, tags.")
    card = models.TextField(blank=True, help_text="The beginning of its README.md.")
    card_of = models.BigIntegerField(null=True, help_text="Revision whose card this is.")

    def __str__(self) -> str:
        return self.names


class SavedSearch(models.Model):
    """A search that somebody keeps: the parameters as they stand in the address."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="saved_searches")
    name = models.CharField(max_length=100)
    parameters = models.CharField(max_length=2000)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "saved searches"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["user", "name"], name="saved_search_name_once")
        ]
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class AdapterScore(models.Model):
    """What an adapter reaches on a task, and who says so: we, or somebody whose name stands beside it."""

    class Source(models.TextChoices):
        VERIFIED = "verified", "computed by this site on the hidden rows"
        REPORTED = "reported", "reported by somebody"

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="task_scores")
    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="adapter_scores")
    task_revision = models.ForeignKey(
        TaskRevision,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Whose hidden rows it was computed on; what people report names none.",
    )
    source = models.CharField(max_length=8, choices=Source.choices)
    metric = models.CharField(max_length=40, default="exact_match")
    value = models.FloatField()
    low = models.FloatField(null=True)
    high = models.FloatField(null=True)
    n = models.PositiveIntegerField(null=True, help_text="Rows it was measured on, where that is known.")
    note = models.CharField(max_length=300, blank=True, help_text="Who says so and where it was published.")
    reported_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "adapter", "source", "metric"], name="adapter_score_once")
        ]
        indexes: ClassVar = [models.Index(fields=["task", "-value", "adapter"], name="task_best_scores")]

    def __str__(self) -> str:
        return f"{self.adapter_id} on {self.task_id}: {self.value:.3f}"
