"""The loss of every fitting module on pasted examples, without a composition: an errand for a free worker.

Which modules are measured, and in which order, is what `fit.rank_modules` says before any run. Examples and losses are
seen by who asked alone, and go after a day or when that person says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.db import transaction

from compose import errands, fit
from compose import examples as reading
from compose.engine.types import Example
from compose.errors import CandidateProblem, NoSuchAudition, TooManyAuditions
from compose.jobs import workers
from compose.models import Audition, Auditioned
from registry.models import Adapter, BaseModel, User
from registry.rights import Person, require_whole_account, require_writing_token

MAX_UNFINISHED = 2  # of one person
MAX_AN_HOUR = 30
AT_ONCE = 20  # modules that are measured in one go
Status = Audition.Status
KIND = errands.Kind(
    name="auditions",
    model=Audition,
    most_unfinished=MAX_UNFINISHED,
    most_an_hour=MAX_AN_HOUR,
    waits_at_most=timedelta(minutes=15),
    # A base model that is not on the machine yet is fetched first.
    runs_at_most=timedelta(minutes=15),
    nobody_came="No worker could take it within fifteen minutes. Ask again later.",
    worker_lost=(
        "The worker was lost twice while it measured, perhaps because the base model does not fit into its memory. "
        "Ask again later, or with fewer examples."
    ),
    took_too_long=(
        "The measurement took longer than fifteen minutes. What was measured by then is below; ask again with fewer or shorter "
        "examples."
    ),
    our_error="The measurement stopped because of an error on our side. It has been logged; try again.",
)


def ask(*, person: User, base_model: BaseModel, examples: Sequence[Example]) -> Audition:
    """Queue the measurement of the modules that fit, at most MAX_CANDIDATES, those first that most speaks for.

    One with the same examples that this person still waits for is handed back instead of a second one. Raises
    FewShotProblem, CandidateProblem where nothing fits, TooManyAuditions, Forbidden.
    """
    require_whole_account(person)
    require_writing_token(person)
    reading.check_examples(examples)
    rows = reading.as_json(examples)
    own = Audition.objects.filter(asked_by=person, base_model=base_model)
    for waiting in own.filter(status__in=[Status.WAITING, Status.RUNNING]):
        if waiting.examples == rows:
            return waiting
    fits = fit.rank_modules(
        examples=examples, base_model=base_model, person=person, limit=settings.MAX_CANDIDATES
    )
    if not fits.ranked:
        raise CandidateProblem(
            f"No module composes on {base_model.name} yet, so there is nothing to measure."
        )
    with transaction.atomic():
        KIND.require_room(person, TooManyAuditions, "measurements")
        audition = Audition.objects.create(
            asked_by=person, base_model=base_model, examples=rows, fitting=fits.fitting
        )
        Auditioned.objects.bulk_create(
            Auditioned(
                audition=audition,
                position=position,
                revision=item.adapter.head,
                fit=item.value,
                reasons=item.reasons,
            )
            for position, item in enumerate(fits.ranked)
        )
        errands.ring_after_commit(audition)
    return audition


def seen_by(person: Person, audition_id: str) -> Audition:
    """An audition of this person's own. Raises NoSuchAudition."""
    found = None
    if person is not None and person.is_authenticated:
        found = (
            Audition.objects.select_related("base_model")
            .filter(pk=audition_id, asked_by_id=person.pk)
            .exclude(examples=[])  # forgotten
            .first()
        )
    if found is None:
        raise NoSuchAudition
    return found


def forget(audition: Audition) -> None:
    """Examples and losses, at once. A worker that is at it stops at its next look.

    That there was one stays for its day: what was forgotten still counts for the most that one person may ask in an hour.
    """
    with transaction.atomic():
        Audition.objects.filter(pk=audition.pk).update(
            status=Status.FAILED, lease_until=None, examples=[], base_loss=None, error=""
        )
        audition.modules.all().delete()


def modules_of(audition: Audition, person: Person) -> list[Auditioned]:
    """Its modules that this person may still see: while it runs as they were ranked, then the lowest loss first."""
    rows = list(
        audition.modules.filter(revision__adapter__in=Adapter.objects.visible_to(person))
        .select_related("revision__adapter__namespace", "revision__adapter__task")
        .defer("revision__facts")
    )
    if audition.is_finished:
        rows.sort(key=lambda row: (row.loss is None, row.loss, row.position))
    return rows


def helpful(audition: Audition, rows: Sequence[Auditioned], limit: int) -> list[str]:
    """Full names of the modules whose loss is below the bare base model's, the lowest first, at most `limit`."""
    base = audition.base_loss
    if base is None:
        return []
    better = sorted(
        (row for row in rows if row.loss is not None and row.loss < base), key=lambda row: row.loss or 0
    )
    return [row.revision.adapter.full_name for row in better[:limit]]


def waits_for(audition: Audition) -> str:
    """Why it has not begun, in one sentence; empty once it has."""
    if audition.status != Status.WAITING:
        return ""
    if workers.idle():
        return "A worker is free and takes it in a moment."
    if workers.present():
        return "All workers are at compositions; it is measured when one is free."
    if workers.are_full():
        return "No worker has room on its disk now. It is measured when one has, within fifteen minutes or not at all."
    return "No worker is running now. It is measured when one comes, within fifteen minutes or not at all."
