"""What holds a composition to one attempt of one worker, and what lets go of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from compose.models import Composition

Status = Composition.Status


def held(composition: Composition) -> QuerySet[Composition]:
    return Composition.objects.filter(pk=composition.pk, status=Status.RUNNING, attempt=composition.attempt)


def end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.JOB_LEASE_S)


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
        "rung_at": timezone.now(),
    }


def close(holding: QuerySet[Composition], status: str, error: str = "") -> bool:
    return bool(
        holding.update(
            status=status,
            finished_at=timezone.now(),
            lease_until=None,
            error=error,
        )
    )
