"""The frozen language models that adapters are made for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models
from django.db.models.functions import Lower
from django.urls import reverse

from registry.matrices import expand

if TYPE_CHECKING:
    from registry.models.adapters import Blob


class BaseModelQuerySet(models.QuerySet["BaseModel"]):
    def named(self, text: str) -> BaseModel | None:
        """The base model with this id or alias, in any case; None if we know none."""
        text = text.strip()
        return self.filter(models.Q(name__iexact=text) | models.Q(aliases__text__iexact=text)).first()


class BaseModel(models.Model):
    """A base model by its canonical id, with the sizes of its matrices: an upload is checked without its weights."""

    class Kind(models.TextChoices):
        HOSTED = "hosted", "hosted here"
        REFERENCED = "referenced", "referenced by its id on a hub"

    name = models.CharField(max_length=200, help_text="Canonical id, such as google/flan-t5-large.")
    kind = models.CharField(max_length=12, choices=Kind.choices, default=Kind.REFERENCED)
    architecture = models.CharField(max_length=100, blank=True, help_text="transformers' class name.")
    task_type = models.CharField(
        max_length=40, blank=True, help_text="PEFT's word: SEQ_2_SEQ_LM, CAUSAL_LM, ..."
    )
    license = models.CharField(max_length=100, blank=True)
    parameters = models.BigIntegerField(null=True)
    config = models.JSONField(default=dict, help_text="Published configuration numbers.")
    matrices = models.JSONField(default=dict, help_text="Folded: path with layer ranges -> [in, out].")
    commit = models.CharField(
        max_length=40, blank=True, help_text="Of a hosted one: names the state of its files."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    recheck_wanted_at = models.DateTimeField(
        null=True, blank=True, help_text="Since then the modules that name it wait to be compared with it."
    )
    rechecked_at = models.DateTimeField(null=True, blank=True, help_text="When they were compared last.")

    objects = BaseModelQuerySet.as_manager()

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("name"), name="base_model_name_once")]
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("base_model", args=[self.name])

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of every linear matrix by its full path; empty if they are not known."""
        return expand(self.matrices)

    @property
    def short_name(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    @property
    def is_hosted(self) -> bool:
        return self.kind == self.Kind.HOSTED


class BaseModelAlias(models.Model):
    """Another name that adapters use for a base model: an older id, a mirror, a local path."""

    base_model = models.ForeignKey(BaseModel, on_delete=models.CASCADE, related_name="aliases")
    text = models.CharField(max_length=500)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("text"), name="base_model_alias_once")]

    def __str__(self) -> str:
        return self.text


class BaseModelFile(models.Model):
    """A file of a base model that is hosted here."""

    base_model = models.ForeignKey(BaseModel, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=255)
    blob: models.ForeignKey[Blob, Blob] = models.ForeignKey(
        "registry.Blob", on_delete=models.PROTECT, related_name="+"
    )

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["base_model", "path"], name="base_model_path_once")
        ]
        ordering: ClassVar = ["path"]

    def __str__(self) -> str:
        return self.path
