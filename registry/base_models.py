"""Base models: those of the catalogue, those that people add from a config.json, and those hosted here."""

from __future__ import annotations

from registry.models import BaseModel
from registry.weights_check import Matrices


def matrices_of(base_model: BaseModel) -> Matrices | None:
    """The (in, out) sizes of every linear matrix by its path; None if they are not known."""
    if not base_model.matrices:
        return None
    return {path: (sizes[0], sizes[1]) for path, sizes in base_model.matrices.items()}
