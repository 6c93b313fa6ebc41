"""Since when something is new to everybody: adapters and tasks have `first_public_at`, None until then."""

from __future__ import annotations

from django.db.models.functions import Coalesce


def published_at(path: str = "") -> Coalesce:
    """`published_at` of an adapter or a task in a query; `path` leads to it, as in "composition__adapter__"."""
    return Coalesce(f"{path}first_public_at", f"{path}created_at")
