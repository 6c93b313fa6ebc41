"""What the worker that holds a composition writes into it; each write names its attempt, or raises LeaseLost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from compose.engine import types
from compose.engine.errors import Cancelled
from compose.engine.wording import first_of
from compose.errors import LeaseLost
from compose.jobs import lease, log, queue, worth
from compose.jobs.asking import hidden_note
from compose.models import Candidate, Composition, Kept, Score, Trial
from registry.models import Blob, TaskRevision
from web.database import after_commit
from web.templatetags.formatting import plural

SCORING = "evaluate"  # the stage that begins with the test rows
SHOWN_HIDDEN_ROWS = 20  # of the site's own tasks; always the first, so that the others stay hidden
MOST_ATTEMPTS = 200  # of one that is given up each time: some hours of an outage
Status = Composition.Status
Wish = Composition.Wish


def beat(composition: Composition) -> str:
    """Renew the lease; what the owner wishes, a value of Wish. Raises LeaseLost."""
    if not lease.held(composition).update(lease_until=lease.end(), heartbeat_at=Now()):
        raise LeaseLost(composition.pk)
    return wish(composition)


def wish(composition: Composition) -> str:
    """What the owner wishes now. Raises LeaseLost."""
    found = lease.held(composition).values_list("wish", flat=True).first()
    if found is None:
        raise LeaseLost(composition.pk)
    return found


def set_base_commit(composition: Composition, commit: str) -> None:
    """Pin the state of the base model that this and every later attempt uses. Raises LeaseLost."""
    composition.base_commit = commit
    if not lease.held(composition).update(base_commit=commit):
        raise LeaseLost(composition.pk)


@transaction.atomic
def set_stage(
    composition: Composition, stage: str, note: str = "", *, step: int = 0, steps: int = 0, counted: str = ""
) -> None:
    """Say how far it is: `step` of `steps` of what is `counted`; 0 in a stage that is not. Raises LeaseLost."""
    begun = {"has_begun_scoring": True} if stage == SCORING else {}
    changed = lease.held(composition).update(
        stage=stage[:20],
        stage_note=note[:300],
        step=step,
        steps=steps,
        counted=counted,
        searched_s=composition.searched_s,
        **begun,
    )
    if not changed:
        raise LeaseLost(composition.pk)
    log.stage(composition, stage, note)


def set_step(composition: Composition, step: int, steps: int, counted: str) -> None:
    """Raises LeaseLost."""
    if not lease.held(composition).update(step=step, steps=steps, counted=counted):
        raise LeaseLost(composition.pk)


@transaction.atomic
def leave_out(composition: Composition, misfits: Sequence[Candidate]) -> None:
    """Go on without candidates that turned out not to fit the base model. Raises LeaseLost."""
    modules = plural(len(misfits), "module,modules")
    # Not by their names: whoever may see the result need not know of each module.
    composition.candidates_note = (
        f"{composition.candidates_note[:240]} {modules} left out, which did not fit."
    )
    if not lease.held(composition).update(candidates_note=composition.candidates_note):
        raise LeaseLost(composition.pk)
    composition.candidates.filter(pk__in=[row.pk for row in misfits]).delete()
    for position, row in enumerate(composition.candidates.order_by("position")):
        if row.position != position:  # trials have their weights by it
            Candidate.objects.filter(pk=row.pk).update(position=position)
    names = first_of([row.revision.adapter.full_name for row in misfits], most=3)
    log.write(composition, f"Goes on without what turned out not to fit the base model: {names}.")


@transaction.atomic
def record_audition(composition: Composition, base_loss: float, losses: Sequence[float]) -> None:
    """Keep what the bare base and every module alone lose on the examples, in the candidates' order.

    Raises LeaseLost.
    """
    if not lease.held(composition).update(base_loss=base_loss):
        raise LeaseLost(composition.pk)
    rows = list(composition.candidates.select_related("revision__adapter__namespace").order_by("position"))
    for row, loss in zip(rows, losses, strict=True):
        row.audition_loss = _number(loss)
    Candidate.objects.bulk_update(rows, ["audition_loss"])
    heard = [row for row in rows if row.audition_loss is not None]
    best = min(heard, key=lambda row: row.audition_loss or 0.0, default=None)
    if best is not None:
        name = best.revision.adapter.full_name
        log.write(
            composition,
            f"The base model alone has a loss of {base_loss:.3f}, the best single module {best.audition_loss:.3f} ({name}).",
        )


@transaction.atomic
def record_trials(composition: Composition, trials: Iterable[types.Trial]) -> None:
    """Keep trials, and the time that they took, so that another attempt goes on from them. Raises LeaseLost.

    One that is there already is written over: on another machine a search may go another way than the attempt before.
    """
    rows = [
        Trial(
            composition=composition,
            number=trial.number,
            mixing_weights=list(trial.mixing_weights),
            loss=trial.loss,
            objective=trial.objective,
        )
        for trial in trials
    ]
    if not rows:
        return
    # First the row: it makes a sweep wait, so that no trial is written for an attempt that was given up.
    changed = lease.held(composition).update(
        step=rows[-1].number, heartbeat_at=Now(), searched_s=composition.searched_s
    )
    if not changed:
        raise LeaseLost(composition.pk)
    Trial.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["composition", "number"],
        update_fields=["mixing_weights", "loss", "objective"],
    )


@transaction.atomic
def keep(composition: Composition, found: Mapping[str, Any]) -> None:
    """Keep what else took long, as JSON by its key, for another attempt. Raises LeaseLost."""
    if not found:
        return
    if not lease.held(composition).update(heartbeat_at=Now()):  # first the row, as for trials
        raise LeaseLost(composition.pk)
    rows = [Kept(composition=composition, key=key, value=json.dumps(value)) for key, value in found.items()]
    Kept.objects.bulk_create(rows, ignore_conflicts=True)


def kept(composition: Composition, key: str) -> Any:
    """What an attempt kept by this key; None if nothing."""
    value = composition.kept.filter(key=key).values_list("value", flat=True).first()
    return None if value is None else json.loads(value)


def recorded_trials(composition: Composition) -> list[types.Trial]:
    """The unbroken run of trials from the first on, as the engine takes them."""
    trials: list[types.Trial] = []
    for row in composition.trials.order_by("number"):
        if row.number != len(trials) + 1:
            break
        trials.append(types.Trial(row.number, tuple(row.mixing_weights), row.loss, row.objective))
    return trials


@transaction.atomic
def finish(composition: Composition, result: types.Result, *, weights: Blob, config: Blob) -> None:
    """Write everything a composition found, at once and only if this attempt still holds it.

    Raises LeaseLost, and Cancelled where its owner wants nothing kept any more.
    """
    predictions, split_note, board_score = result.predictions, composition.split_note, None
    if composition.has_hidden_test:
        # As it is now: a private task goes with its organisation while somebody's composition for it runs.
        revision = TaskRevision.objects.select_related("task").filter(compositions=composition.pk).first()
        shown = _shown_hidden_rows(revision)
        predictions = [prediction for prediction in predictions if prediction.input in shown]
        if revision is not None:
            split_note = hidden_note(len(revision.test), scored=len(composition.test_examples))
            board_score = worth.board_score(composition, result.scores, revision)
    record_trials(composition, result.trials)
    wanted = lease.held(composition).exclude(wish=Wish.CANCEL)
    won = wanted.update(
        status=Status.SUCCEEDED,
        finished_at=Now(),
        lease_until=None,
        stage="",
        stage_note="",
        step=len(result.trials),
        steps=composition.budget,
        counted="trials",
        error="",
        result=_result_block(result),
        split_note=split_note,
        base_loss=result.base_loss,
        gain=worth.gain(composition, result.scores),
        board_score=board_score,
        predictions=[asdict(prediction) for prediction in predictions],
        weights_blob=weights,
        config_blob=config,
    )
    if not won:
        wish(composition)  # LeaseLost, unless it is still ours and only not wanted
        raise Cancelled
    # Of an earlier attempt that went further.
    composition.trials.filter(number__gt=len(result.trials)).delete()
    _keep_weights(composition, result)
    composition.scores.all().delete()
    Score.objects.bulk_create(
        Score(composition=composition, position=position, **asdict(score))
        for position, score in enumerate(result.scores)
    )
    stopped = ", stopped early" if result.stopped_early else ""
    log.write(composition, f"Done after {plural(len(result.trials), 'trial,trials')}{stopped}.")


@transaction.atomic
def fail(composition: Composition, message: str) -> bool:
    """End this attempt with a sentence for the owner; whether it was still ours to end."""
    failed = lease.close(lease.held(composition), Status.FAILED, error=message)
    if failed:
        log.write(composition, f"Failed: {message}")
    return failed


@transaction.atomic
def confirm_cancelled(composition: Composition) -> bool:
    """The worker obeyed the wish to cancel; whether it was still ours to end."""
    cancelled = lease.close(lease.held(composition), Status.CANCELLED)
    if cancelled:
        log.write(composition, log.CANCELLED)
    return cancelled


@transaction.atomic
def release(composition: Composition) -> bool:
    """Give a composition back unfinished, since this worker is going; another goes on from its trials."""
    if lease.close(lease.held(composition).filter(wish=Wish.CANCEL), Status.CANCELLED):
        log.write(composition, log.CANCELLED)
        return True
    released = bool(lease.held(composition).update(**lease.back_in_line()))
    if released:
        log.write(composition, "The worker is going and gave it back; another goes on from its trials.")
        after_commit(queue.ring, composition.pk)
    return released


@transaction.atomic
def give_up(composition: Composition, why: str) -> bool:
    """End this attempt, which met what may pass, so that another is made when the lease has run out; whether it was ours.

    No worker is lost by that. What does not pass in MOST_ATTEMPTS ends the composition with `why`.
    """
    if lease.close(lease.held(composition).filter(wish=Wish.CANCEL), Status.CANCELLED):
        log.write(composition, log.CANCELLED)
        return True
    if composition.attempt >= MOST_ATTEMPTS:
        message = f"{why} That was so at {MOST_ATTEMPTS} attempts. Ask again later, or tell the people who run this site."
        return fail(composition, message)
    said = f"{why} It is tried again within {settings.JOB_LEASE_S} seconds, from its trials on."
    given_up = bool(lease.held(composition).update(worker="", stage_note=said))
    if given_up:
        log.write(composition, said)
    return given_up


def release_all(worker: str) -> int:
    """Give back whatever `worker` holds: how many there were. Its attempts notice that they lost the lease."""
    released = 0
    for composition in Composition.objects.filter(worker=worker[:200], status=Status.RUNNING):
        released += release(composition)
    return released


def _shown_hidden_rows(revision: TaskRevision | None) -> set[str]:
    """Inputs of the hidden rows that the owner sees with the answers: a few of a site's own task, none of a person's.

    By what they ask, not by their place: where some are left out of the score, others would move up.
    """
    if revision is None or not revision.task.shows_first_hidden_rows:
        return set()
    return {row["input"] for row in revision.test[:SHOWN_HIDDEN_ROWS]}


def _result_block(result: types.Result) -> dict[str, Any]:
    return {
        "mix": result.mix,
        "precision": result.precision,
        "option_scores": asdict(result.option_scores) if result.option_scores else None,
        "exported": asdict(result.exported) if result.exported else None,
        "verdict": result.verdict,
        "notes": list(result.notes),
        "loss": result.loss,
        "base_loss": result.base_loss,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "stopped_early": result.stopped_early,
        "versions": dict(result.versions),
        "trials": len(result.trials),
    }


def _number(loss: float) -> float | None:
    """None for the loss of a module that was left out."""
    return loss if math.isfinite(loss) else None


def _keep_weights(composition: Composition, result: types.Result) -> None:
    rows = list(composition.candidates.order_by("position"))
    for row, weight, loss, attribution in zip(
        rows, result.mixing_weights, result.audition, result.attribution, strict=True
    ):
        row.mixing_weight, row.audition_loss, row.attribution = weight, _number(loss), attribution
    Candidate.objects.bulk_update(rows, ["mixing_weight", "audition_loss", "attribution"])
