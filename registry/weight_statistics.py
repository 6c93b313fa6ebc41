"""What the weights of a revision look like: the norm and the singular values of every matrix that they change.

Computed by the chores worker, one matrix at a time, and kept with the revision. Of a matrix's change s·B·A only the
small factors are ever multiplied: with B = Q₁R₁ and Aᵀ = Q₂R₂ its singular values are those of s·R₁R₂ᵀ, which is rank
by rank (Golub and Van Loan, Matrix Computations, 5.4).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from django.db.models import F
from django.utils import timezone
from numpy.typing import NDArray

from registry import adapter_config, safetensors_header, storage, weights_check
from registry.filenames import CONFIG, WEIGHTS
from registry.models import Revision, WeightStatistics
from registry.targets import PatternRefused, resolve_targets

logger = logging.getLogger(__name__)

VERSION = 1
KEPT_VALUES = 64  # of the singular values of a matrix, the largest
AT_ONCE = 50
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


class NoStatistics(Exception):
    """Why there are none, in a sentence for the adapter's page."""


@dataclass(frozen=True)
class Matrix:
    """One changed matrix. `norm` is the Frobenius norm of its change, `singular_values` fall from the largest on."""

    path: str
    rank: int
    norm: float
    singular_values: list[float]


def compute_missing(limit: int = AT_ONCE, *, since: timedelta | None = None) -> int:
    """Statistics of revisions that are the newest of their adapters and have none yet; how many there were.

    With `since` only of revisions that are not older: what has just been published, without a look at everything.
    """
    wanted = Revision.objects.filter(
        pk=F("adapter__head_id"), adapter__deleted_at=None, weight_statistics=None
    ).exclude(adapter__rank=None)
    if since is not None:
        wanted = wanted.filter(created_at__gte=timezone.now() - since)
    revisions = list(wanted.order_by("-pk")[:limit])
    for revision in revisions:
        compute(revision)
    return len(revisions)


def compute_recent() -> int:
    """Of what was published within a day: the rest is looked at where somebody asks for everything."""
    return compute_missing(since=timedelta(days=1))


def compute(revision: Revision) -> WeightStatistics:
    """Compute and keep the statistics of a revision, or the sentence why there are none."""
    matrices: list[Matrix] = []
    problem = ""
    try:
        matrices = list(_matrices_of(revision))
    except NoStatistics as error:
        problem = str(error)
    except (OSError, ValueError, np.linalg.LinAlgError, safetensors_header.HeaderRefused) as error:
        logger.warning("no weight statistics of revision %s: %s", revision.pk, error)
        problem = "The weights could not be read when their statistics were to be computed."
    statistics, _ = WeightStatistics.objects.update_or_create(
        revision=revision,
        defaults={
            "matrices": [matrix.__dict__ for matrix in matrices],
            "problem": problem,
            "version": VERSION,
        },
    )
    return statistics


def _matrices_of(revision: Revision) -> Iterator[Matrix]:
    files = {file.path: file.blob for file in revision.files_by_path()}
    if CONFIG not in files or WEIGHTS not in files:
        raise NoStatistics("There are no weights in this version.")
    path = storage.local_path(files[WEIGHTS])
    tensors = safetensors_header.read_header(path, WEIGHTS)
    weights = weights_check.sort_tensors(tensors, weights_check.Problems())
    if not weights.pairs or weights.has_convolutions:
        raise NoStatistics("Pictures are drawn of plain LoRA on linear matrices only.")
    try:
        config = adapter_config.read_config(storage.local_path(files[CONFIG]))
        targets = resolve_targets(config, list(weights.pairs))
    except (adapter_config.ConfigUnreadable, PatternRefused) as error:
        raise NoStatistics("The config does not say how the weights are scaled.") from error
    for name, pair in sorted(weights.pairs.items(), key=lambda item: natural(item[0])):
        if pair.a is None or pair.b is None:
            raise NoStatistics("A matrix has only one of its two halves.")
        values = singular_values(read_tensor(path, pair.a), read_tensor(path, pair.b)) * abs(
            targets[name].scaling
        )
        yield Matrix(
            path=name,
            rank=pair.a.shape[0],
            norm=_rounded(float(np.sqrt(np.sum(values**2)))),
            singular_values=[_rounded(float(value)) for value in values[:KEPT_VALUES]],
        )


def singular_values(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The singular values of B·A, largest first: `a` is (rank, in), `b` (out, rank), the answer (rank,) or shorter."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise NoStatistics("A and B of a matrix do not fit each other.")
    left = np.linalg.qr(b).R
    right = np.linalg.qr(a.T).R
    found: NDArray[np.float64] = np.linalg.svd(left @ right.T, compute_uv=False)
    return found


def read_tensor(path: Path, tensor: safetensors_header.TensorInfo) -> NDArray[np.float64]:
    """A tensor of a safetensors file as float64."""
    with path.open("rb") as file:
        file.seek(tensor.begin)
        raw = file.read(tensor.end - tensor.begin)
    if tensor.dtype == "BF16":  # the upper half of a float32
        values: NDArray[Any] = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype in _DTYPES:
        values = np.frombuffer(raw, _DTYPES[tensor.dtype])
    else:
        raise NoStatistics(f"There are weights of the type {tensor.dtype}.")
    return values.reshape(tensor.shape).astype(np.float64)


def natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"\.", path)]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
