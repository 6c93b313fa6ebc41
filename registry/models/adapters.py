"""Adapters, their immutable revisions, and the bytes behind them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import models
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone

from registry.models.accounts import Membership, Namespace, User
from registry.models.base_models import BaseModel
from registry.models.publication import published_at
from registry.models.tasks import Task
from web.kept_queries import KeptQuery, number_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser


class Blob(models.Model):
    """Bytes named by their sha256, stored once, kept while a revision or a result refers to them."""

    sha256 = models.CharField(max_length=64, unique=True)
    git_sha1 = models.CharField(
        max_length=40, blank=True, help_text="git's blob id of the content; empty for files above 32 MiB."
    )
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    last_stored_at = models.DateTimeField(
        default=timezone.now,
        help_text="When somebody last sent these bytes; the sweep waits a day from then.",
    )

    def __str__(self) -> str:
        return self.sha256


class AdapterQuerySet(models.QuerySet["Adapter"]):
    def alive(self) -> AdapterQuerySet:
        return self.filter(deleted_at=None)

    def visible_to(self, user: User | AnonymousUser | None) -> AdapterQuerySet:
        """What this person may see: everything public, and what is private in namespaces they belong to.

        By a limited token they see of the latter only what the token is for. `registry.rights` says the rest.
        """
        public = models.Q(visibility=Adapter.Visibility.PUBLIC, quarantined_at=None)
        if user is None or not user.is_authenticated:
            return self.alive().filter(public)
        own = models.Q(namespace_id__in=Membership.objects.filter(user_id=user.pk).values("namespace_id"))
        token = getattr(user, "acting_token", None)
        if token is not None and token.namespace_id is not None:
            own &= models.Q(namespace_id=token.namespace_id)
        if token is not None and token.adapter_id is not None:
            own &= models.Q(pk=token.adapter_id)
        return self.alive().filter(public | own)

    def not_for_everybody(self) -> AdapterQuerySet:
        """What is private or in quarantine: of a namespace's hundred thousand mostly few, which have an index of their own."""
        return self.filter(
            models.Q(visibility=Adapter.Visibility.PRIVATE) | models.Q(quarantined_at__isnull=False)
        )

    def listed(self) -> AdapterQuerySet:
        """Those in lists that are not of one namespace: they have weights (`registry.search.find`)."""
        return self.filter(rank__isnull=False)

    def composable_with(self, base_model: BaseModel) -> AdapterQuerySet:
        """Adapters of one composition family: plain LoRA whose matrices fit this base model."""
        return self.alive().filter(base_model=base_model, is_composable=True, quarantined_at=None)

    def newest_first(self) -> AdapterQuerySet:
        return self.order_by(published_at().desc(), models.F("id").desc())


class Adapter(models.Model):
    """`namespace/name`: a LoRA module that somebody trained, or an adapter composed here.

    `head` is the revision of branch main; rank, size and the like repeat its facts, so that lists and filters
    read one table. A deleted adapter stays as a tombstone: what was made from it keeps its lineage, and its name
    is not handed out again.
    """

    class Kind(models.TextChoices):
        MODULE = "module", "LoRA module"
        COMPOSED = "composed", "composed adapter"

    class Visibility(models.TextChoices):
        PUBLIC = "public"
        PRIVATE = "private"

    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT, related_name="adapters")
    name = models.CharField(max_length=96)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.MODULE)
    visibility = models.CharField(max_length=8, choices=Visibility.choices, default=Visibility.PUBLIC)
    first_public_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Since then it is new to everybody; being hidden for a while changes nothing.",
    )
    renewed_at = models.DateTimeField(
        default=timezone.now,
        help_text="When its newest version was new: no version of it is newer than this.",
    )
    description = models.CharField(max_length=500, blank=True)
    license = models.CharField(max_length=100, blank=True)
    language = models.CharField(max_length=40, blank=True)
    tags = models.JSONField(default=list, blank=True)
    task = models.ForeignKey(Task, null=True, blank=True, on_delete=models.SET_NULL, related_name="adapters")
    base_model = models.ForeignKey(
        BaseModel, null=True, blank=True, on_delete=models.PROTECT, related_name="adapters"
    )
    base_model_label = models.CharField(
        max_length=500, blank=True, help_text="What the uploader or the config calls it."
    )
    head = models.ForeignKey("Revision", null=True, blank=True, on_delete=models.PROTECT, related_name="+")

    dataset = models.CharField(
        max_length=300, blank=True, help_text="What it was trained on: a data set's name or address."
    )
    dataset_revision = models.CharField(max_length=100, blank=True, help_text="Which state of it.")
    training = models.CharField(max_length=300, blank=True, help_text="Epochs, learning rate and the like.")
    leakage = models.CharField(
        max_length=500, blank=True, help_text="What of it the base model, or a test set, may have seen."
    )
    prompt_template = models.CharField(
        max_length=1000,
        blank=True,
        help_text="The prompt it was trained with; {input} is where the text goes.",
    )

    rank = models.PositiveIntegerField(null=True, blank=True, help_text="The largest of its ranks.")
    parameters = models.BigIntegerField(null=True, blank=True, help_text="Numbers in its LoRA matrices.")
    size_bytes = models.BigIntegerField(default=0)
    is_composable = models.BooleanField(default=False)
    best_score = models.FloatField(null=True, blank=True, help_text="0 to 1, measured here on held-out rows.")
    best_score_metric = models.CharField(max_length=40, default="exact_match")
    downloads = models.PositiveBigIntegerField(default=0)
    likes = models.PositiveIntegerField(default=0)

    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True, blank=True)
    quarantined_at = models.DateTimeField(null=True, blank=True)
    quarantine_reason = models.CharField(
        max_length=500,
        blank=True,
        help_text="Shown to those who may change it: what is wrong, and what to do.",
    )

    objects = AdapterQuerySet.as_manager()
    composes_with: int  # where `registry.search` counted it
    may_name_private_task = False  # `registry.search.show_tasks` sets it, for the person who looks

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint("namespace", Lower("name"), name="adapter_name_once"),
            models.CheckConstraint(
                condition=models.Q(visibility="private") | models.Q(first_public_at__isnull=False),
                name="adapter_public_since",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["-created_at", "-id"], name="adapter_newest"),
            models.Index(published_at().desc(), models.F("id").desc(), name="adapter_published"),
            models.Index(fields=["-renewed_at", "-id"], name="adapter_renewed"),
            models.Index(fields=["namespace", "-renewed_at", "-id"], name="adapter_renewed_in"),
            models.Index(fields=["-downloads", "-id"], name="adapter_most_downloaded"),
            models.Index(fields=["base_model", "is_composable"], name="adapter_family"),
        ]

    def __str__(self) -> str:
        return self.full_name

    def get_absolute_url(self) -> str:
        return reverse("adapter", args=[self.namespace.name, self.name])

    @property
    def full_name(self) -> str:
        return f"{self.namespace.name}/{self.name}"

    @property
    def published_at(self) -> datetime:
        """When it was new: when everybody could first see it, or when it was made where only its members can."""
        return self.first_public_at or self.created_at

    def set_visibility(self, visibility: str) -> None:
        """For the caller to save."""
        self.visibility = visibility
        if not self.is_private and self.first_public_at is None:
            self.first_public_at = self.renewed_at = timezone.now()

    @property
    def is_private(self) -> bool:
        return self.visibility == self.Visibility.PRIVATE

    @property
    def is_quarantined(self) -> bool:
        return self.quarantined_at is not None

    @property
    def shown_task(self) -> Task | None:
        """Its task, unless moderators have hidden that; a private one only where `show_tasks` was asked first."""
        if self.task is None or self.task.is_quarantined:
            return None
        return self.task if self.may_name_private_task or not self.task.is_private else None

    @property
    def is_composed(self) -> bool:
        return self.kind == self.Kind.COMPOSED


class Revision(models.Model):
    """An immutable commit of an adapter: who, when, why, and the exact bytes of every file.

    `facts` is what `inspection` read from config and tensor header. `base_fit` says whether the matrices were
    compared with the base model's: an unknown base leaves them unchecked until it is known.
    """

    class BaseFit(models.TextChoices):
        FITS = "fits"
        UNCHECKED = "unchecked"
        DIFFERS = "differs"

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="revisions")
    commit = models.CharField(max_length=40)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="children"
    )
    author = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    message = models.CharField(max_length=500)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField()

    facts = models.JSONField(default=dict)
    warnings = models.JSONField(default=list)
    is_composable = models.BooleanField(default=False)
    composable_reason = models.CharField(max_length=500, blank=True, help_text="Why not, when it is not.")
    base_fit = models.CharField(max_length=10, choices=BaseFit.choices, default=BaseFit.UNCHECKED)
    tensor_sha256 = models.CharField(
        max_length=64, blank=True, db_index=True, help_text="Of the weights alone, whatever file holds them."
    )
    size_bytes = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["adapter", "commit"], name="revision_commit_once")
        ]
        ordering: ClassVar = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.adapter_id}@{self.commit[:8]}"

    @property
    def published_at(self) -> datetime:
        """When it was new: when it was made, or when everybody could first see it if it was the newest one then."""
        if self.pk != self.adapter.head_id or self.adapter.first_public_at is None:
            return self.created_at
        return max(self.created_at, self.adapter.first_public_at)

    @property
    def as_news(self) -> str:
        """What a list of what is new says of it: of a first version what the adapter is, of others what has changed."""
        if self.parent_id is None:
            return self.adapter.description or self.message
        return f"New version: {self.message}"

    def files_by_path(self) -> list[RevisionFile]:
        """Each with its blob; where they were fetched for many revisions at once, those."""
        fetched = getattr(self, "_prefetched_objects_cache", {}).get("files")
        if fetched is not None:
            return list(fetched)
        files = _FILES_OF.rows(revision=self.pk)
        for file in files:
            file.revision = self
        return files

    @property
    def short_commit(self) -> str:
        return self.commit[:8]

    def fact(self, name: str, default: Any = None) -> Any:
        return self.facts.get(name, default)


class RevisionFile(models.Model):
    """Path to blob: one line of a revision's manifest."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=255)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="revision_files")
    is_lfs = models.BooleanField(default=False, help_text="Weights: the Hub's clients know them by sha256.")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["revision", "path"], name="revision_path_once")
        ]
        ordering: ClassVar = ["path"]

    def __str__(self) -> str:
        return self.path


_FILES_OF = KeptQuery(
    lambda revision: RevisionFile.objects.filter(revision_id=revision).select_related("blob"),
    number_of("revision"),
)


class Ref(models.Model):
    """A name for a revision: branch (moves) or tag (stays)."""

    class Kind(models.TextChoices):
        BRANCH = "branch"
        TAG = "tag"

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="refs")
    kind = models.CharField(max_length=6, choices=Kind.choices, default=Kind.BRANCH)
    name = models.CharField(max_length=255)
    revision = models.ForeignKey(Revision, on_delete=models.PROTECT, related_name="refs")

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["adapter", "name"], name="ref_name_once")]
        ordering: ClassVar = ["kind", "name"]

    def __str__(self) -> str:
        return self.name


class FormerName(models.Model):
    """A name that an adapter had before it was moved: it leads to the adapter and is not handed out again."""

    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT, related_name="former_names")
    name = models.CharField(max_length=96)
    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="former_names")
    moved_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint("namespace", Lower("name"), name="former_name_once")]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Like(models.Model):
    """Somebody likes an adapter; `Adapter.likes` counts them."""

    adapter = models.ForeignKey(Adapter, on_delete=models.CASCADE, related_name="likings")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="likings")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["adapter", "user"], name="like_once")]

    def __str__(self) -> str:
        return f"{self.user} likes {self.adapter_id}"


class SentBlob(models.Model):
    """Somebody sent these bytes and has not put them into a revision yet: they may, others may not even ask.

    It keeps the blob from the sweep, and is itself swept after a day.
    """

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sent_blobs")
    blob = models.ForeignKey(Blob, on_delete=models.CASCADE, related_name="senders")
    sent_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "blob"], name="sent_blob_once")]

    def __str__(self) -> str:
        return f"{self.blob_id} by {self.user_id}"


class Download(models.Model):
    """One client fetched weights of one revision; repeated fetches of the same client that day do not count again."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="fetches")
    client_sha256 = models.CharField(
        max_length=64, help_text="Of address, agent and a daily secret: counts, does not identify."
    )
    day = models.DateField()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["revision", "client_sha256", "day"], name="download_counted_once")
        ]
        indexes: ClassVar = [models.Index(fields=["revision", "day"], name="download_days")]

    def __str__(self) -> str:
        return f"{self.revision_id} on {self.day}"
