"""What the weights of a revision look like, computed once by a worker."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from registry.models.adapters import Revision


class WeightStatistics(models.Model):
    """Norm and singular values of every matrix that a revision changes; or why there are none."""

    revision = models.OneToOneField(
        Revision, primary_key=True, on_delete=models.CASCADE, related_name="weight_statistics"
    )
    matrices = models.JSONField(
        default=list, help_text='[{"path", "rank", "norm", "singular_values"}], in the order of the model.'
    )
    problem = models.CharField(max_length=300, blank=True)
    version = models.PositiveSmallIntegerField(help_text="Of the computation.")
    made_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural: ClassVar[str] = "weight statistics"

    def __str__(self) -> str:
        return f"weight statistics of {self.revision_id}"
