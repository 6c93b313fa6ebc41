"""What holds a composition to one attempt of one worker, and what lets go of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from compose.models import Composition

Status = Composition.Status


def held(composition: Composition) -> QuerySet[Composition]:
    return Composition.objects.filter(pk=composition.pk, status=Status.RUNNING, attempt=composition.attempt)


def end() -> Combinable:
    """By the database's clock, as all that is written or asked of leases: those of workers and chores may differ."""
    return Now() + timedelta(seconds=settings.JOB_LEASE_S)


def back_in_line() -> dict[str, Any]:
    return {
        "status": Status.QUEUED,
        "lease_until": None,
        "worker": "",
        "stage": "",
        "stage_note": "",
        "step": 0,
        "steps": 0,
        "counted": "",
        "rung_at": Now(),
    }


def close(holding: QuerySet[Composition], status: str, error: str = "") -> bool:
    return bool(
        holding.update(
            status=status,
            finished_at=Now(),
            lease_until=None,
            error=error,
        )
    )
