"""A composition and everything it measured."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from django.db import models
from django.urls import reverse
from django.utils import timezone

from compose.engine.metrics import EXACT_MATCH
from registry import rights
from registry.models import Adapter, BaseModel, Blob, Revision, Task, TaskRevision, User

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


HELD_OUT = "held_out"


class Measured(Protocol):
    """What the rows of the table and the engine's own scores have alike."""

    @property
    def method(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def value(self) -> float: ...


S = TypeVar("S", bound=Measured)


def new_composition_id() -> str:
    """A short random id; 50 bits, so that links cannot be guessed."""
    return "".join(secrets.choice("23456789abcdefghjkmnpqrstuvwxyz") for _ in range(10))


class CompositionQuerySet(models.QuerySet["Composition"]):
    def visible_to(self, user: User | AnonymousUser | None) -> CompositionQuerySet:
        """A person's own, and those whose composed adapter they may see."""
        published = rights.sees_adapter(user, "adapter")
        if not rights.acts_as_themselves(user):
            return self.filter(published)
        return self.filter(published | models.Q(owner_id=user.pk if user else None))

    def shared_by(self, key: str) -> CompositionQuerySet:
        """The one that its owner's link opens, if there is one; none while its adapter is in quarantine."""
        return self.filter(share_key=key).filter(
            models.Q(adapter=None) | models.Q(adapter__quarantined_at=None)
        )


class Composition(models.Model):
    """A job: find mixing weights of the candidates for the few-shot examples, score them, write the adapter.

    The row is the truth, whatever the broker does. A worker holds it by a lease; `attempt` counts claims, and
    every write of a worker names the attempt it belongs to, so that one that was given up cannot finish it.
    """

    class Status(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    class Method(models.TextChoices):
        LORAHUB = "lorahub", "LoraHub"
        AUTO = "auto", "Auto"
        GRADIENT = "gradient", "Gradient"

    class Wish(models.TextChoices):
        """What its owner asked a running composition to do."""

        NONE = "", "go on"
        STOP = "stop", "stop and keep the best"
        CANCEL = "cancel", "cancel"

    id = models.CharField(primary_key=True, max_length=16, default=new_composition_id, editable=False)
    owner = models.ForeignKey(
        User,
        null=True,
        on_delete=models.CASCADE,
        related_name="compositions",
        help_text="Empty where their account is deleted and what it made is still used.",
    )
    title = models.CharField(max_length=200)
    task = models.ForeignKey(
        Task, null=True, blank=True, on_delete=models.SET_NULL, related_name="compositions"
    )
    task_revision = models.ForeignKey(
        TaskRevision,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="compositions",
        help_text="The one whose hidden rows score it.",
    )
    base_model = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="compositions")
    base_commit = models.CharField(
        max_length=40, blank=True, help_text="The base model's state that every attempt uses."
    )
    method = models.CharField(max_length=20)
    budget = models.PositiveIntegerField(
        help_text="Trials: each evaluates one vector of mixing weights on all examples."
    )
    seed = models.PositiveIntegerField()
    time_limit_s = models.PositiveIntegerField(
        default=0, help_text="After so long the search stops and keeps the best; 0: the budget alone ends it."
    )
    # The database knows this default too: a web process that an upgrade has not restarted yet adds rows without the column.
    searched_s = models.FloatField(
        default=0,
        db_default=0,
        help_text="Seconds of search by all its attempts, until they last wrote one of its trials.",
    )
    metric = models.CharField(
        max_length=40,
        default=EXACT_MATCH,
        help_text="What the result is scored by; the search knows the loss alone.",
    )
    export_rank = models.PositiveIntegerField(
        default=0, help_text="The composed adapter is cut to this rank; 0: as it is."
    )
    export_dtype = models.CharField(
        max_length=10, default="float32", help_text="Float type of the composed adapter."
    )
    examples = models.JSONField(help_text='Few-shot rows, [{"input", "output"}]: private to the owner.')
    test_examples = models.JSONField(default=list, help_text="Held-out rows, used for scoring only.")
    examples_removed_at = models.DateTimeField(
        null=True, blank=True, help_text="When its texts were removed."
    )
    has_hidden_test = models.BooleanField(
        default=False, help_text="The test rows are a task's hidden ones: never shown as a whole."
    )
    gain = models.FloatField(
        null=True,
        blank=True,
        help_text="Its own score less its best baseline's, on as many held-out rows as a task has to hide.",
    )
    board_score = models.FloatField(
        null=True,
        blank=True,
        help_text="What its task's leaderboard ranks it by: its own score on all hidden rows, by the revision's metric.",
    )
    has_begun_scoring = models.BooleanField(
        default=False,
        db_default=False,
        help_text="An attempt came to the test rows, and its progress told how many they are.",
    )
    split_note = models.CharField(
        max_length=300, blank=True, help_text="Where the held-out rows come from, in words."
    )
    candidates_note = models.CharField(
        max_length=300, blank=True, help_text="How the candidates were chosen, in words."
    )
    pinned = models.JSONField(
        default=list, blank=True, help_text="Full names that the automatic choice was told to take."
    )
    excluded = models.JSONField(
        default=list, blank=True, help_text="Full names that the automatic choice was told to leave."
    )
    is_picked = models.BooleanField(
        default=False, help_text="The owner named every candidate; nothing was chosen automatically."
    )
    spec_sha256 = models.CharField(max_length=64, help_text="Of everything that decides the result.")

    status = models.CharField(max_length=10, choices=Status.choices, default=Status.QUEUED)
    stage = models.CharField(max_length=20, blank=True)
    stage_note = models.CharField(max_length=300, blank=True)
    step = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0, help_text="Of this stage; 0 when it is not counted.")
    counted = models.CharField(
        max_length=10, blank=True, help_text="What the steps are: trials, answers, rows."
    )
    wish = models.CharField(max_length=8, choices=Wish.choices, default=Wish.NONE, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    losses = models.PositiveSmallIntegerField(default=0, help_text="How often its worker was lost.")
    known_losses = models.JSONField(
        null=True,
        blank=True,
        help_text="How far it was each time, and whether its worker was killed for memory.",
    )
    worker = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    rung_at = models.DateTimeField(null=True, blank=True, help_text="When a worker was last told about it.")
    expected_s = models.FloatField(
        null=True, help_text="Seconds of worker time it was likely to take when it was asked for."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, help_text="For the owner: what went wrong and what to do.")

    wants_email = models.BooleanField(default=False, help_text="The owner asked for a mail when it ends.")
    notice_origin = models.CharField(
        max_length=200, blank=True, help_text="Scheme and host of the site, for the link in that mail."
    )
    told_at = models.DateTimeField(null=True, blank=True, help_text="When that mail was handed on.")
    share_key = models.CharField(
        max_length=32, null=True, blank=True, unique=True, help_text="Whoever knows it may see the result."
    )

    base_loss = models.FloatField(
        null=True, help_text="Mean token loss of the bare base model on the examples, from the audition on."
    )
    result = models.JSONField(
        null=True, blank=True, help_text="Verdict, losses, notes, seconds, versions, mix."
    )
    predictions = models.JSONField(default=list, blank=True)
    weights_blob = models.ForeignKey(Blob, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    config_blob = models.ForeignKey(Blob, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    adapter = models.OneToOneField(
        Adapter,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="composition",
        help_text="The published one.",
    )

    objects = CompositionQuerySet.as_manager()

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["status", "created_at"], name="composition_queue"),
            models.Index(fields=["owner", "-created_at"], name="composition_of_owner"),
            models.Index(
                fields=["-gain", "created_at"],
                condition=models.Q(gain__isnull=False),
                name="composition_gained",
            ),
            models.Index(
                fields=["task_revision", "-board_score"],
                condition=models.Q(board_score__isnull=False),
                name="composition_best_on_task",
            ),
            models.Index(fields=["-finished_at"], name="composition_ended"),
            # Nearly always empty, so that asking for it every few seconds costs nothing.
            models.Index(
                fields=["finished_at"],
                condition=models.Q(wants_email=True, told_at__isnull=True),
                name="composition_to_tell",
            ),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=~models.Q(status="running") | models.Q(lease_until__isnull=False),
                name="running_has_a_lease",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.title} ({self.id})"

    def get_absolute_url(self) -> str:
        return reverse("composition", args=[self.id])

    def on_held_out(self, scores: Iterable[S]) -> list[S]:
        """Those of its scores that are on held-out rows, by its metric."""
        return [score for score in scores if (score.split, score.metric) == (HELD_OUT, self.metric)]

    @property
    def is_finished(self) -> bool:
        return self.status in {self.Status.SUCCEEDED, self.Status.FAILED, self.Status.CANCELLED}


class Candidate(models.Model):
    """A module offered to a composition; a weight once the search is over."""

    composition = models.ForeignKey(Composition, on_delete=models.CASCADE, related_name="candidates")
    position = models.PositiveIntegerField()
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="candidacies")
    reason = models.CharField(max_length=200, blank=True, help_text="Why it was offered.")
    audition_loss = models.FloatField(
        null=True, help_text="Mean token loss of the module alone on the examples."
    )
    mixing_weight = models.FloatField(null=True)
    attribution = models.FloatField(null=True, help_text="Rise of the loss when it is left out.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["composition", "position"], name="candidate_position_once"),
            models.UniqueConstraint(fields=["composition", "revision"], name="candidate_once"),
        ]
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return f"{self.revision} in {self.composition_id}"


class Trial(models.Model):
    """One evaluated vector of mixing weights. Recorded as it comes: a resumed search starts from these."""

    composition = models.ForeignKey(Composition, on_delete=models.CASCADE, related_name="trials")
    number = models.PositiveIntegerField(help_text="From 1.")
    mixing_weights = models.JSONField()
    loss = models.FloatField(help_text="Mean token loss on the examples.")
    objective = models.FloatField(help_text="What the search minimises: loss and penalty.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["composition", "number"], name="trial_number_once")
        ]
        ordering: ClassVar = ["number"]

    def __str__(self) -> str:
        return f"trial {self.number} of {self.composition_id}"


class Kept(models.Model):
    """Something else of a composition that took long, for its next attempt; gone soon after it has ended."""

    composition = models.ForeignKey(Composition, on_delete=models.CASCADE, related_name="kept")
    key = models.CharField(max_length=64, help_text="Of what it is and what went into it, by the engine.")
    value = models.TextField(help_text="JSON; it may quote the test rows.")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["composition", "key"], name="kept_once")]

    def __str__(self) -> str:
        return f"{self.key} of {self.composition_id}"


class Score(models.Model):
    """One number of the result block, with what is needed to believe it."""

    composition = models.ForeignKey(Composition, on_delete=models.CASCADE, related_name="scores")
    position = models.PositiveSmallIntegerField()
    method = models.CharField(max_length=30)
    metric = models.CharField(max_length=40)
    split = models.CharField(max_length=20, help_text="held_out, leave_one_out or few_shot.")
    value = models.FloatField(help_text="0 to 1.")
    low = models.FloatField(help_text="Lower end of the 95 % interval.")
    high = models.FloatField(help_text="Upper end.")
    n = models.PositiveIntegerField(help_text="Rows it was measured on.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["composition", "method", "metric", "split"], name="score_once"),
        ]
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return f"{self.method} {self.metric} {self.value:.3f}"


class RemovedTally(models.Model):
    """How many compositions of one status were removed: what counts those that ended adds them, and so never falls."""

    status = models.CharField(max_length=10, choices=Composition.Status.choices, unique=True)
    count = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.count} {self.status} and removed"


class LogLine(models.Model):
    """One thing that happened to a composition, in words for its owner."""

    composition = models.ForeignKey(Composition, on_delete=models.CASCADE, related_name="log")
    at = models.DateTimeField(default=timezone.now)
    attempt = models.PositiveSmallIntegerField(default=0)
    text = models.CharField(max_length=300)

    class Meta:
        ordering: ClassVar = ["pk"]

    def __str__(self) -> str:
        return f"{self.composition_id}: {self.text}"


class Errand(models.Model):
    """Something small that a free worker does for one person: a try-out, an audition. The row goes after a day."""

    class Status(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"

    id = models.CharField(primary_key=True, max_length=16, default=new_composition_id, editable=False)
    asked_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.WAITING)
    seconds = models.FloatField(null=True)
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    taken_at = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    losses = models.PositiveSmallIntegerField(default=0, help_text="How often its worker was lost.")
    worker = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    @property
    def is_finished(self) -> bool:
        return self.status in {self.Status.DONE, self.Status.FAILED}


class Tryout(Errand):
    """One text that a composed adapter is asked to answer."""

    composition = models.ForeignKey(Composition, on_delete=models.CASCADE, related_name="tryouts")
    text = models.TextField(help_text="What the model reads: private to who asked.")
    answers = models.JSONField(default=dict, blank=True, help_text='{"composed": ..., "zero_shot": ...}')

    class Meta:
        indexes: ClassVar = [models.Index(fields=["asked_by", "created_at"], name="tryout_of_person")]

    def __str__(self) -> str:
        return f"{self.id} on {self.composition_id}"


class Audition(Errand):
    """The loss that every fitting module has alone on a person's examples, without a composition."""

    base_model = models.ForeignKey(BaseModel, on_delete=models.CASCADE, related_name="auditions")
    examples = models.JSONField(help_text='[{"input", "output"}]: private to who asked.')
    fitting = models.PositiveIntegerField(help_text="Modules that fit the base model, measured or not.")
    base_loss = models.FloatField(null=True, help_text="Mean token loss of the bare base model, nats.")

    class Meta:
        indexes: ClassVar = [models.Index(fields=["asked_by", "created_at"], name="audition_of_person")]

    def __str__(self) -> str:
        return f"{self.id} on {self.base_model_id}"

    def get_absolute_url(self) -> str:
        return reverse("audition", args=[self.id])


class Auditioned(models.Model):
    """One module in an audition: what spoke for it before, and its loss once it is measured."""

    audition = models.ForeignKey(Audition, on_delete=models.CASCADE, related_name="modules")
    position = models.PositiveIntegerField(help_text="By what speaks for it, from 0.")
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="+")
    fit = models.FloatField(help_text="0 to 1: how much spoke for it before the measurement.")
    reasons = models.JSONField(default=list)
    loss = models.FloatField(null=True, help_text="Mean token loss of the module alone at weight 1, nats.")
    problem = models.CharField(max_length=300, blank=True, help_text="Why there is no loss.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["audition", "position"], name="auditioned_position_once"),
        ]
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return f"{self.revision_id} in {self.audition_id}"


class KeptTokenizer(models.Model):
    """The tokenizer of a base model that is not hosted here, as a worker fetched it: the web counts tokens with it."""

    base_model = models.OneToOneField(BaseModel, on_delete=models.CASCADE, related_name="kept_tokenizer")
    commit = models.CharField(max_length=40, help_text="The base model's state that it is from.")
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")

    def __str__(self) -> str:
        return f"tokenizer of {self.base_model_id} at {self.commit[:12]}"


class Worker(models.Model):
    """A process that composes, as it last said of itself."""

    name = models.CharField(max_length=200, unique=True)
    bell = models.CharField(
        max_length=200, blank=True, help_text="The broker's queue that it alone hears; none without a broker."
    )
    warm = models.JSONField(default=list, blank=True, help_text="Names of the base models it has in memory.")
    started_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField()
    is_leaving = models.BooleanField(default=False, help_text="It was told to go and takes no more.")
    is_full = models.BooleanField(
        default=False, db_default=False, help_text="It takes nothing until its disk has room again."
    )
    oom_kills = models.BigIntegerField(
        null=True, help_text="Processes that its machine's kernel killed for memory since it was started."
    )
    killed_for_memory_at = models.DateTimeField(
        null=True, help_text="When one of its name began after another that was probably killed for memory."
    )

    def __str__(self) -> str:
        return self.name
