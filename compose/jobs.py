"""Every change of a composition's status, each one conditional UPDATE: the row count says who won.

    queued -> running -> succeeded | failed | cancelled

The row is the truth and the broker only a doorbell: a message says "look at the queue", whatever it is lost,
doubled or late. A worker holds a composition by a lease that it renews; `sweep` takes back what lost its worker.
`attempt` grows with each claim, and a worker's writes name the attempt they belong to, so that one which was given
up for dead and wakes again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from compose import candidates as choosing
from compose import examples as reading
from compose.engine import types
from compose.engine.types import Example
from compose.errors import (
    BadSetting,
    FewShotProblem,
    LeaseLost,
    NoSuchComposition,
    TooManyWaiting,
    WrongState,
)
from compose.models import Candidate, Composition, Score, Trial
from registry.models import BaseModel, Blob, Revision, Task, TaskRow, User
from registry.rights import Person
from web.errors import DomainError, Forbidden

logger = logging.getLogger(__name__)

DEFAULT_METHOD = Composition.Method.AUTO
# What each method is usually given; the engine's own numbers, which cannot be imported without torch.
USUAL_BUDGETS: dict[str, int] = {Composition.Method.LORAHUB: 40, Composition.Method.AUTO: 400}
DEFAULT_SEED = 1
MAX_SEED = 2**31 - 1
RING_AT_ONCE = 8
SHOWN_HIDDEN_ROWS = 20  # always the first, so that a task's other test rows stay hidden
Status = Composition.Status
Wish = Composition.Wish


# --- Asking for one ------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """What a request comes to, before anything is saved."""

    examples: list[Example]
    test_examples: list[Example]
    has_hidden_test: bool
    split_note: str
    candidates: list[choosing.Choice]
    candidates_note: str
    warnings: list[str] = field(default_factory=list)


def request_composition(
    *,
    owner: User,
    base_model: BaseModel,
    examples: Sequence[Example] = (),
    test_examples: Sequence[Example] = (),
    task: Task | None = None,
    title: str = "",
    candidates: Sequence[Revision] | None = None,
    method: str = DEFAULT_METHOD,
    budget: int | None = None,
    seed: int = DEFAULT_SEED,
) -> Composition:
    """Queue a composition for a worker. Raises a DomainError with the reason, and then nothing is saved.

    `budget` counts trials; None: what the method usually gets. `candidates` None: chosen automatically. Without
    `examples` a task's own few-shot rows are used; a task's hidden test rows score the result unless
    `test_examples` are given.
    """
    budget = usual_budget(method) if budget is None else budget
    check_settings(method=method, budget=budget, seed=seed, title=title)
    plan = _plan(owner, base_model, examples, test_examples, task, candidates, method, seed)
    with transaction.atomic():
        _require_room(owner)
        composition = Composition.objects.create(
            owner=owner,
            title=title.strip() or _title(task, base_model, plan.examples),
            task=task,
            base_model=base_model,
            base_commit=base_model.commit,
            method=method,
            budget=budget,
            seed=seed,
            examples=reading.as_json(plan.examples),
            test_examples=reading.as_json(plan.test_examples),
            has_hidden_test=plan.has_hidden_test,
            split_note=plan.split_note,
            candidates_note=plan.candidates_note,
            spec_sha256=_spec_sha256(plan, base_model, method, budget, seed),
            rung_at=timezone.now(),
        )
        Candidate.objects.bulk_create(
            Candidate(composition=composition, position=position, revision=revision, reason=reason)
            for position, (revision, reason) in enumerate(plan.candidates)
        )
        # After commit, or a fast worker would look for a row that is not there yet.
        transaction.on_commit(partial(ring, composition.pk))
    return composition


def dry_run(
    *,
    owner: User,
    base_model: BaseModel,
    examples: Sequence[Example] = (),
    test_examples: Sequence[Example] = (),
    task: Task | None = None,
    title: str = "",
    candidates: Sequence[Revision] | None = None,
    method: str = DEFAULT_METHOD,
    budget: int | None = None,
    seed: int = DEFAULT_SEED,
) -> dict[str, Any]:
    """What `request_composition` would do with the same arguments; saves nothing, and a refusal is a problem listed."""
    budget = usual_budget(method) if budget is None else budget
    try:
        check_settings(method=method, budget=budget, seed=seed, title=title)
        plan = _plan(owner, base_model, examples, test_examples, task, candidates, method, seed)
        _require_room(owner)
    except DomainError as error:
        return refused(error) | {"estimate": estimate(base_model, method, budget)}
    return {
        "ok": True,
        "problems": [],
        "warnings": plan.warnings,
        "candidates": [
            {"adapter": revision.adapter.full_name, "revision": revision.commit, "reason": reason}
            for revision, reason in plan.candidates
        ],
        "candidates_note": plan.candidates_note,
        "few_shot": len(plan.examples),
        "held_out": len(plan.test_examples),
        "split_note": plan.split_note,
        "queue_place": _place_of_next(owner),
        "estimate": estimate(base_model, method, budget),
    }


def refused(error: DomainError) -> dict[str, Any]:
    """The answer of `dry_run` for a request that would be refused with this error."""
    sentences = [sentence for found in error.fields.values() for sentence in found]
    return {
        "ok": False,
        "problems": sentences or [error.message],
        "warnings": [],
        "candidates": [],
        "candidates_note": "",
        "few_shot": 0,
        "held_out": 0,
        "split_note": "",
        "queue_place": None,
        "estimate": {"seconds": None, "based_on": 0},
    }


def usual_budget(method: str) -> int:
    return USUAL_BUDGETS.get(method, USUAL_BUDGETS[DEFAULT_METHOD])


def check_settings(*, method: str, budget: int, seed: int, title: str = "") -> None:
    """Raises BadSetting for a method, budget, seed or title that a composition cannot have."""
    if method not in Composition.Method.values:
        known = ", ".join(Composition.Method.values)
        raise BadSetting("method", f"There is no method {str(method)[:40]!r} here; choose one of: {known}.")
    if not 1 <= budget <= settings.MAX_BUDGET:
        raise BadSetting("budget", f"The budget is the number of trials, from 1 to {settings.MAX_BUDGET:,}.")
    if not 0 <= seed <= MAX_SEED:
        raise BadSetting("seed", f"The seed is a whole number from 0 to {MAX_SEED:,}.")
    if len(title) > 200:
        raise BadSetting("title", f"The title has {len(title)} characters; at most 200 are kept.")
    if "\x00" in title:
        raise BadSetting("title", "The title holds a NUL character; take it out.")


def estimate(base_model: BaseModel, method: str, budget: int) -> dict[str, Any]:
    """Seconds of worker time from the last compositions on this base, and from how many; None if there are none."""
    recent = Composition.objects.filter(
        base_model=base_model, method=method, status=Status.SUCCEEDED, budget__gt=0
    ).order_by("-finished_at")[:10]
    per_trial = [sum(done.result["seconds"].values()) / done.budget for done in recent if done.result]
    seconds = round(statistics.median(per_trial) * budget, 1) if per_trial else None
    return {"seconds": seconds, "based_on": len(per_trial)}


def _plan(
    owner: User,
    base_model: BaseModel,
    examples: Sequence[Example],
    test_examples: Sequence[Example],
    task: Task | None,
    candidates: Sequence[Revision] | None,
    method: str,
    seed: int,
) -> Plan:
    few_shot, test, is_hidden, note = _rows(examples, test_examples, task, seed)
    if candidates is None:
        chosen, candidates_note = choosing.choose_with_note(base_model, owner, seed, method=method)
    else:
        choosing.check(candidates, base_model, owner, method=method)
        chosen = [(revision, "picked by you") for revision in candidates]
        candidates_note = f"{len(chosen)} picked by you."
    warnings = reading.warnings(few_shot, [] if is_hidden else test)
    return Plan(few_shot, test, is_hidden, note, chosen, candidates_note, warnings)


def _rows(
    examples: Sequence[Example], test_examples: Sequence[Example], task: Task | None, seed: int
) -> tuple[list[Example], list[Example], bool, str]:
    """Few-shot rows, test rows, whether those are a task's hidden ones, and where they come from in words."""
    if not examples and task is not None:
        examples = task_rows(task, TaskRow.Split.FEW_SHOT)
        if not examples:
            raise FewShotProblem(f"The task {task.slug} has no few-shot rows of its own. Give some examples.")
    reading.check_examples(examples)
    if test_examples:
        reading.check_examples(test_examples, field="test_examples")
        return list(examples), list(test_examples), False, f"Scored on your {len(test_examples)} test rows."
    hidden = task_rows(task, TaskRow.Split.TEST) if task is not None else []
    if hidden:
        assert task is not None
        note = f"Scored on the {len(hidden)} hidden test rows of the task {task.slug}."
        return list(examples), hidden, True, note
    few_shot, held_out, note = reading.split(examples, seed)
    return few_shot, held_out, False, note


def task_rows(task: Task, split: str) -> list[Example]:
    rows = TaskRow.objects.filter(task=task, split=split).order_by("position")
    return [Example(row.input, row.output) for row in rows]


def _title(task: Task | None, base_model: BaseModel, examples: Sequence[Example]) -> str:
    """Not from an example: the title is public once the adapter is, the examples are not."""
    return task.title[:200] if task is not None else f"{len(examples)} examples on {base_model.short_name}"


def _spec_sha256(plan: Plan, base_model: BaseModel, method: str, budget: int, seed: int) -> str:
    spec = {
        "base_model": base_model.name,
        "base_commit": base_model.commit,
        "method": method,
        "budget": budget,
        "seed": seed,
        "examples": reading.as_json(plan.examples),
        "test_examples": reading.as_json(plan.test_examples),
        "candidates": choosing.names(revision for revision, _ in plan.candidates),
    }
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _require_room(owner: User) -> None:
    """Raises TooManyWaiting. Inside a transaction, so that two requests at once do not both take the last place."""
    with transaction.atomic():
        list(User.objects.select_for_update().filter(pk=owner.pk).values_list("pk"))
        waiting = Composition.objects.filter(owner=owner, status=Status.QUEUED).count()
    if waiting >= settings.MAX_WAITING_JOBS_PER_USER:
        raise TooManyWaiting(waiting)


def places_left(owner: User) -> int:
    """How many more compositions this person may queue now."""
    waiting = Composition.objects.filter(owner=owner, status=Status.QUEUED).count()
    return max(0, settings.MAX_WAITING_JOBS_PER_USER - waiting)


# --- The queue -----------------------------------------------------------------------------------------------


def ring(composition_id: str) -> None:
    """Tell a worker that something waits. A broker that is down is no failure: the sweep rings again."""
    from compose.tasks import run_composition

    try:
        run_composition.apply_async([composition_id], retry=False)
    except Exception as error:  # whatever the broker's client raises
        logger.warning("The broker could not be told about composition %s: %s", composition_id, error)


def ring_next() -> None:
    """Ring for the first in line, if anybody is: a worker that just became free goes on without waiting."""
    order = queue_order()
    if order:
        ring(order[0])


def queue_order() -> list[str]:
    """Ids of the queued compositions, who is next first.

    People take turns: each one's oldest comes before anybody's second, and what they have running counts as
    turns taken. Among equals the older comes first.
    """
    turns: dict[int, int] = {}
    for owner in Composition.objects.filter(status=Status.RUNNING).values_list("owner_id", flat=True):
        turns[owner] = turns.get(owner, 0) + 1
    line = []
    queued = Composition.objects.filter(status=Status.QUEUED).order_by("created_at", "pk")
    for place, (pk, owner) in enumerate(queued.values_list("pk", "owner_id")):
        line.append((turns.get(owner, 0), place, pk))
        turns[owner] = turns.get(owner, 0) + 1
    return [pk for _, _, pk in sorted(line)]


def queue_place(composition: Composition) -> int | None:
    """1 for the next in line; None for one that does not wait."""
    if composition.status != Status.QUEUED:
        return None
    order = queue_order()
    return order.index(composition.pk) + 1 if composition.pk in order else None


def _place_of_next(owner: User) -> int:
    """Where a composition that this person asks for now would come in."""
    own = Composition.objects.filter(owner=owner, status__in=[Status.QUEUED, Status.RUNNING]).count()
    ahead = 0
    counts: dict[int, int] = {}
    for other in Composition.objects.filter(status=Status.RUNNING).values_list("owner_id", flat=True):
        counts[other] = counts.get(other, 0) + 1
    for other in Composition.objects.filter(status=Status.QUEUED).values_list("owner_id", flat=True):
        ahead += counts.get(other, 0) <= own
        counts[other] = counts.get(other, 0) + 1
    return ahead + 1


# --- A worker's part -----------------------------------------------------------------------------------------


def claim_next(worker: str) -> Composition | None:
    """Take the first in line whose owner may have one more running; None if there is none."""
    for composition_id in queue_order():
        composition = claim(composition_id, worker)
        if composition is not None:
            return composition
    return None


def claim(composition_id: str, worker: str) -> Composition | None:
    """Take one queued composition under a lease; None if it is not queued or its owner has enough running."""
    now = timezone.now()
    with transaction.atomic():
        owner = User.objects.select_for_update().filter(compositions=composition_id).first()
        running = Composition.objects.filter(owner=owner, status=Status.RUNNING).count()
        if owner is None or running >= settings.MAX_RUNNING_JOBS_PER_USER:
            return None
        claimed = Composition.objects.filter(pk=composition_id, status=Status.QUEUED).update(
            status=Status.RUNNING,
            attempt=F("attempt") + 1,
            worker=worker[:200],
            lease_until=_lease_end(),
            heartbeat_at=now,
            started_at=Coalesce("started_at", Value(now)),
            stage="",
            stage_note="",
        )
    if not claimed:
        return None
    return Composition.objects.select_related("owner", "base_model", "task").get(pk=composition_id)


def beat(composition: Composition) -> str:
    """Renew the lease; what the owner wishes, a value of Wish. Raises LeaseLost."""
    now = timezone.now()
    if not _mine(composition).update(lease_until=_lease_end(), heartbeat_at=now):
        raise LeaseLost(composition.pk)
    return wish(composition)


def wish(composition: Composition) -> str:
    """What the owner wishes now. Raises LeaseLost."""
    found = _mine(composition).values_list("wish", flat=True).first()
    if found is None:
        raise LeaseLost(composition.pk)
    return found


def set_base_commit(composition: Composition, commit: str) -> None:
    """Pin the state of the base model that this and every later attempt uses. Raises LeaseLost."""
    composition.base_commit = commit
    if not _mine(composition).update(base_commit=commit):
        raise LeaseLost(composition.pk)


def set_stage(composition: Composition, stage: str, note: str = "", *, step: int = 0, steps: int = 0) -> None:
    """Say how far it is: `step` of `steps`, which is 0 in a stage that is not counted. Raises LeaseLost."""
    changed = _mine(composition).update(stage=stage[:20], stage_note=note[:300], step=step, steps=steps)
    if not changed:
        raise LeaseLost(composition.pk)


def set_step(composition: Composition, step: int, steps: int) -> None:
    """Raises LeaseLost."""
    if not _mine(composition).update(step=step, steps=steps):
        raise LeaseLost(composition.pk)


@transaction.atomic
def record_trials(composition: Composition, trials: Iterable[types.Trial]) -> None:
    """Keep trials, so that another attempt goes on from them; those already there stay. Raises LeaseLost."""
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
    if not _mine(composition).update(step=rows[-1].number, heartbeat_at=timezone.now()):
        raise LeaseLost(composition.pk)
    Trial.objects.bulk_create(rows, ignore_conflicts=True)


def record_trial(composition: Composition, trial: types.Trial) -> None:
    """Raises LeaseLost."""
    record_trials(composition, [trial])


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
    """Write everything a composition found, at once and only if this attempt still holds it. Raises LeaseLost."""
    predictions = result.predictions
    if composition.has_hidden_test:
        predictions = predictions[:SHOWN_HIDDEN_ROWS]
    record_trials(composition, result.trials)
    won = _mine(composition).update(
        status=Status.SUCCEEDED,
        finished_at=timezone.now(),
        lease_until=None,
        stage="",
        stage_note="",
        step=len(result.trials),
        steps=composition.budget,
        error="",
        result=_result_block(result),
        predictions=[asdict(prediction) for prediction in predictions],
        weights_blob=weights,
        config_blob=config,
    )
    if not won:
        raise LeaseLost(composition.pk)
    _keep_weights(composition, result)
    composition.scores.all().delete()
    Score.objects.bulk_create(
        Score(composition=composition, position=position, **asdict(score))
        for position, score in enumerate(result.scores)
    )


def fail(composition: Composition, message: str) -> bool:
    """End this attempt with a sentence for the owner; whether it was still ours to end."""
    return _end(_mine(composition), Status.FAILED, error=message)


def confirm_cancelled(composition: Composition) -> bool:
    """The worker obeyed the wish to cancel; whether it was still ours to end."""
    return _end(_mine(composition), Status.CANCELLED)


def release(composition: Composition) -> bool:
    """Give a composition back unfinished, since this worker is going; another goes on from its trials."""
    if _end(_mine(composition).filter(wish=Wish.CANCEL), Status.CANCELLED):
        return True
    released = bool(_mine(composition).update(**_back_in_line()))
    if released:
        transaction.on_commit(partial(ring, composition.pk))
    return released


def release_all(worker: str) -> int:
    """Give back whatever `worker` holds: how many there were. Its attempts notice that they lost the lease."""
    released = 0
    for composition in Composition.objects.filter(worker=worker[:200], status=Status.RUNNING):
        released += release(composition)
    return released


def _mine(composition: Composition) -> QuerySet[Composition]:
    return Composition.objects.filter(pk=composition.pk, status=Status.RUNNING, attempt=composition.attempt)


def _lease_end() -> Any:
    return timezone.now() + timedelta(seconds=settings.JOB_LEASE_S)


def _back_in_line() -> dict[str, Any]:
    return {
        "status": Status.QUEUED,
        "lease_until": None,
        "worker": "",
        "stage": "",
        "stage_note": "",
        "rung_at": timezone.now(),
    }


def _end(holding: QuerySet[Composition], status: str, error: str = "") -> bool:
    return bool(
        holding.update(
            status=status,
            finished_at=timezone.now(),
            lease_until=None,
            error=error,
        )
    )


def _result_block(result: types.Result) -> dict[str, Any]:
    return {
        "mix": result.mix,
        "verdict": result.verdict,
        "notes": list(result.notes),
        "loss": result.loss,
        "base_loss": result.base_loss,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "stopped_early": result.stopped_early,
        "versions": dict(result.versions),
        "trials": len(result.trials),
    }


def _keep_weights(composition: Composition, result: types.Result) -> None:
    rows = list(composition.candidates.order_by("position"))
    for row, weight, loss, attribution in zip(
        rows, result.mixing_weights, result.audition, result.attribution, strict=True
    ):
        row.mixing_weight, row.audition_loss, row.attribution = weight, loss, attribution
    Candidate.objects.bulk_update(rows, ["mixing_weight", "audition_loss", "attribution"])


# --- The owner's part ----------------------------------------------------------------------------------------


def visible_composition(person: Person, composition_id: str, *, without: Sequence[str] = ()) -> Composition:
    """Raises NoSuchComposition for what is not there and for what this person may not see.

    `without` names large fields that are fetched only if somebody asks for them.
    """
    composition = (
        Composition.objects.visible_to(person)
        .select_related("owner", "base_model", "task", "adapter", "adapter__namespace")
        .defer(*without)
        .filter(pk=composition_id)
        .first()
    )
    if composition is None:
        raise NoSuchComposition
    return composition


def require_owner(composition: Composition, actor: Person) -> None:
    """Raises NoSuchComposition, or Forbidden for one that the actor may see."""
    if actor is not None and actor.is_authenticated and composition.owner_id == actor.pk:
        return
    if Composition.objects.visible_to(actor).filter(pk=composition.pk).exists():
        raise Forbidden("Only the person who asked for this composition may do this.")
    raise NoSuchComposition


def cancel(composition: Composition, actor: Person) -> None:
    """End a queued composition now, a running one within one evaluation. Raises WrongState when it is finished."""
    require_owner(composition, actor)
    for _ in range(3):  # a worker or the sweep may change the status between the two updates
        row = Composition.objects.filter(pk=composition.pk)
        if _end(row.filter(status=Status.QUEUED), Status.CANCELLED):
            break
        if row.filter(status=Status.RUNNING).update(wish=Wish.CANCEL):
            break
        composition.refresh_from_db()
        if composition.is_finished:
            raise WrongState(
                f"This composition has already {_ended(composition)}; there is nothing to cancel."
            )
    composition.refresh_from_db()


def stop(composition: Composition, actor: Person) -> None:
    """Let a running search end now and go on with the best mix so far. Raises WrongState unless it is running."""
    require_owner(composition, actor)
    row = Composition.objects.filter(pk=composition.pk, status=Status.RUNNING)
    # A wish to cancel stays: it cannot be taken back.
    if not row.exclude(wish=Wish.CANCEL).update(wish=Wish.STOP) and not row.exists():
        composition.refresh_from_db(fields=["status"])
        if composition.status == Status.QUEUED:
            raise WrongState(
                "This composition has not started, so there is no best mix to keep. Cancel it instead."
            )
        raise WrongState(f"This composition has already {_ended(composition)}; there is nothing to stop.")
    composition.refresh_from_db()


def _ended(composition: Composition) -> str:
    return {Status.SUCCEEDED: "finished", Status.FAILED: "failed", Status.CANCELLED: "been cancelled"}.get(
        Status(composition.status), "changed"
    )


# --- The sweep -----------------------------------------------------------------------------------------------


def sweep() -> dict[str, int]:
    """Take back what lost its worker and ring for what nobody came for: how many of each."""
    now = timezone.now()
    counts = {"requeued": 0, "failed": 0, "cancelled": 0, "rung": 0}
    for composition in Composition.objects.filter(status=Status.RUNNING, lease_until__lt=now):
        outcome = _take_back(composition)
        if outcome:
            counts[outcome] += 1
    overdue = now - timedelta(seconds=settings.JOB_RING_AGAIN_S)
    for composition_id in queue_order()[:RING_AT_ONCE]:
        unheard = Composition.objects.filter(pk=composition_id, status=Status.QUEUED).filter(
            Q(rung_at__lt=overdue) | Q(rung_at=None)
        )
        if unheard.update(rung_at=now):
            ring(composition_id)
            counts["rung"] += 1
    return counts


def _take_back(composition: Composition) -> str:
    """One composition whose lease ran out: back in line, or ended. Empty if its worker was quicker."""
    # The lease again: the worker may have renewed it since we looked.
    lost = _mine(composition).filter(lease_until=composition.lease_until)
    logger.warning("Composition %s lost its worker %s", composition.pk, composition.worker)
    if composition.wish == Wish.CANCEL:
        return "cancelled" if _end(lost, Status.CANCELLED) else ""
    if composition.losses + 1 >= settings.JOB_MAX_ATTEMPTS:
        message = (
            f"The worker was lost {settings.JOB_MAX_ATTEMPTS} times while it worked on this, perhaps because the base "
            "model and the modules do not fit into its memory. Try fewer or shorter examples or fewer modules, or "
            "tell the people who run this site."
        )
        return "failed" if _end(lost, Status.FAILED, error=message) else ""
    if not lost.update(losses=F("losses") + 1, **_back_in_line()):
        return ""
    ring(composition.pk)
    return "requeued"
