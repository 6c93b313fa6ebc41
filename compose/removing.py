"""What the owner of a composition may have removed: its texts at any time after its end, and all of it where nothing stands on it."""

from __future__ import annotations

from django.db import transaction

from compose import daily_limit, jobs
from compose.errors import NoSuchComposition, WrongState
from compose.models import Candidate, Composition
from registry.rights import Person
from web.database import take_for_deletion


def why_kept(composition: Composition) -> str:
    """Why the whole of it cannot be removed, in a sentence; empty where it can."""
    if not composition.is_finished:
        return "This composition has not ended. Cancel it first."
    if (adapter := composition.adapter) is not None:
        if adapter.deleted_at is None:
            return "Its adapter is published, and this is the adapter’s lineage. Delete the adapter first."
        if Candidate.objects.filter(revision__adapter=adapter).exists():
            return "Other compositions were offered what it made, and this is their lineage."
    if (until := daily_limit.counts_until(composition)) is not None:
        return (
            "It was scored on a task’s hidden rows, and counts for the day: it can be removed from "
            f"{until:%H:%M} UTC on {until:%d %B} on."
        )
    return ""


@transaction.atomic
def remove_texts(composition: Composition, actor: Person) -> None:
    """Its examples, test rows, predictions, log and the reason of a failure, now instead of FEW_SHOT_KEPT_DAYS after its end.

    Raises WrongState before its end, NoSuchComposition, Forbidden.
    """
    jobs.require_owner(composition, actor)
    if not composition.is_finished:
        raise WrongState("This composition has not ended, and needs its texts. Cancel it first.")
    jobs.forget_texts_of(composition)


@transaction.atomic
def remove(composition: Composition, actor: Person) -> None:
    """All of it. Raises WrongState where `why_kept` has a reason, NoSuchComposition, Forbidden."""
    jobs.require_owner(composition, actor)
    rows = Composition.objects.filter(pk=composition.pk)
    take_for_deletion(rows)  # of what publishes it or is made of its adapter at this moment
    held = rows.select_related("adapter").first()
    if held is None:
        raise NoSuchComposition
    if reason := why_kept(held):
        raise WrongState(reason)
    jobs.remove(rows)
