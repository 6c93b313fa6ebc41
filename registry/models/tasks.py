"""What a module was trained on, and what a composition is for."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.db import models
from django.urls import reverse
from django.utils import timezone

from registry.models.accounts import Namespace, User
from registry.models.publication import published_at

# Metrics of which less is better; all others are shares of what is right.
LOWER_IS_BETTER = frozenset({"loss", "perplexity", "word_error_rate", "edit_distance"})


def is_higher_better(metric: str) -> bool:
    return metric not in LOWER_IS_BETTER


class TaskQuerySet(models.QuerySet["Task"]):
    def held_out(self) -> TaskQuerySet:
        """Tasks that can be composed for."""
        return self.filter(is_held_out=True, quarantined_at=None)


class Task(models.Model):
    """A task by its slug. One with few-shot and hidden test rows can be composed for and has a leaderboard."""

    slug = models.SlugField(max_length=100, unique=True)
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True)
    metric = models.CharField(max_length=40, default="exact_match")
    tags = models.JSONField(default=list, blank=True)
    base_model = models.ForeignKey(
        "registry.BaseModel",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="tasks",
        help_text="The one whose modules were made for it, where there is one.",
    )
    owner = models.ForeignKey(
        Namespace, null=True, blank=True, on_delete=models.PROTECT, related_name="tasks"
    )
    is_held_out = models.BooleanField(
        default=False, help_text="No module was trained on it; it has example and test rows."
    )
    created_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.SET_NULL, related_name="tasks_made"
    )
    source = models.CharField(max_length=300, blank=True, help_text="Where its rows are from.")
    license = models.CharField(max_length=100, blank=True, help_text="Of its rows.")
    created_at = models.DateTimeField(auto_now_add=True)
    first_public_at = models.DateTimeField(
        null=True, blank=True, default=timezone.now, help_text="Since then it is new to everybody."
    )
    quarantined_at = models.DateTimeField(null=True, blank=True)
    quarantine_reason = models.CharField(max_length=500, blank=True, help_text="For its makers to read.")
    is_private = models.BooleanField(
        default=False,
        help_text="Only members of its namespace see it; `registry.search.tasks_shown_to` is the gate.",
    )

    objects = TaskQuerySet.as_manager()

    class Meta:
        ordering: ClassVar = ["slug"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(is_private=False) | models.Q(owner__isnull=False),
                name="private_task_has_an_owner",
            ),
            models.CheckConstraint(
                condition=models.Q(is_private=True) | models.Q(first_public_at__isnull=False),
                name="task_public_since",
            ),
        ]
        indexes: ClassVar = [
            models.Index(published_at().desc(), models.F("id").desc(), name="task_published"),
            # Few at most, and every list of modules asks which.
            models.Index(
                fields=["id"],
                condition=models.Q(is_private=True) | models.Q(quarantined_at__isnull=False),
                name="task_hidden",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("task", args=[self.slug])

    @property
    def published_at(self) -> datetime:
        """When it was new: when everybody could first see it, or when it was made where only its members can."""
        return self.first_public_at or self.created_at

    @property
    def is_quarantined(self) -> bool:
        return self.quarantined_at is not None

    @property
    def is_hidden(self) -> bool:
        """Whether it is shown to members of its namespace alone, and named to nobody else."""
        return self.is_private or self.is_quarantined

    @property
    def shows_first_hidden_rows(self) -> bool:
        """Whether a result shows some of the hidden rows: those of the site's own tasks; of a person's task none."""
        return self.owner_id is None


class TaskRow(models.Model):
    """One example of a task. Rows of the test split are hidden: only our own scoring reads them."""

    class Split(models.TextChoices):
        FEW_SHOT = "few_shot"
        TEST = "test"

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="rows")
    split = models.CharField(max_length=8, choices=Split.choices)
    position = models.PositiveIntegerField()
    input = models.TextField()
    output = models.TextField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "split", "position"], name="task_row_position_once")
        ]
        ordering: ClassVar = ["task_id", "split", "position"]

    def __str__(self) -> str:
        return f"{self.task_id} {self.split} {self.position}"


class TaskRevision(models.Model):
    """What a task consisted of from a moment on: never changed. Other rows or another metric make the next one.

    A composition belongs to the revision that was the newest when it was asked for, so scores on other rows are never
    ranked against each other.
    """

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField(help_text="From 1.")
    sha256 = models.CharField(max_length=64, help_text="Of rows and metric.")
    metric = models.CharField(max_length=40)
    few_shot = models.JSONField(help_text='[{"input", "output"}]')
    test = models.JSONField(help_text="The hidden rows: only our own scoring reads them.")
    seed = models.PositiveIntegerField(
        null=True, help_text="By which the hidden rows were drawn, where they were."
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["task", "number"], name="task_revision_number_once")
        ]
        ordering: ClassVar = ["task_id", "number"]

    def __str__(self) -> str:
        return f"{self.task_id} revision {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("a revision of a task is written once and not changed")
        super().save(*args, **kwargs)
