"""Tasks that people make: rows in, some of them shown to whoever sees the task, the others hidden for scoring."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from compose import examples as reading
from compose import jobs, naming
from compose.engine.metrics import EXACT_MATCH
from compose.engine.types import Example
from compose.errors import BadSetting, FewShotProblem
from compose.jobs import DEFAULT_SEED, MAX_SEED, check_metric, check_tokens
from compose.models import Composition
from registry import audit, quotas, task_sets
from registry.details import BadDetail, check_text
from registry.models import (
    Adapter,
    BaseModel,
    Membership,
    Namespace,
    Task,
    TaskRevision,
    User,
)
from registry.rights import is_member, may_moderate, require_change_task, require_write
from web.errors import Conflict, Forbidden, NotFound
from web.templatetags.formatting import plural

logger = logging.getLogger(__name__)

LIMITS = {"title": 200, "description": 2000, "source": 300, "license": 100}
SHOWN_SHARE, MOST_SHOWN_UNASKED = 3, 20  # a third of the rows, at most twenty


class NothingNew(Conflict):
    code = "same_rows"


class TaskInUse(Conflict):
    code = "task_in_use"


@dataclass(frozen=True)
class Division:
    """What rows come to as a task, before anything is saved."""

    shown: list[Example]
    hidden: list[Example]
    seed: int
    warnings: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        """Of the rows on either side: what was looked at is what is stored."""
        sides = [reading.as_json(self.shown), reading.as_json(self.hidden)]
        return hashlib.sha256(json.dumps(sides, sort_keys=True).encode()).hexdigest()

    @property
    def note(self) -> str:
        return (
            f"Of {len(self.shown) + len(self.hidden):,} rows {len(self.shown):,} are shown, drawn by seed "
            f"{self.seed}; {len(self.hidden):,} stay hidden and score what is composed."
        )


def divide(
    rows: Sequence[Example],
    *,
    shown: int | None = None,
    seed: int = DEFAULT_SEED,
    base_model: BaseModel | None = None,
    task: Task | None = None,
) -> Division:
    """Which of the rows are shown and which stay hidden. Raises FewShotProblem and BadSetting.

    `shown` None: a third, at most MOST_SHOWN_UNASKED. With `task`, what an earlier revision showed is shown again.
    `base_model` is one that has to be able to read every row.
    """
    reading.check_examples(rows, field="rows")
    _check_size(rows)
    unknown = check_tokens(base_model, rows, field="rows") if base_model is not None else []
    wanted = min(MOST_SHOWN_UNASKED, len(rows) // SHOWN_SHARE) if shown is None else shown
    if not settings.MIN_FEW_SHOT_EXAMPLES <= wanted <= settings.MAX_FEW_SHOT_EXAMPLES:
        raise BadSetting(
            "shown",
            f"From {settings.MIN_FEW_SHOT_EXAMPLES} to {settings.MAX_FEW_SHOT_EXAMPLES} of the rows are shown, "
            f"not {wanted:,}.",
        )
    if not 0 <= seed <= MAX_SEED:
        raise BadSetting("seed", f"The seed is a whole number from 0 to {MAX_SEED:,}.")
    open_rows, hidden = reading.divide(rows, shown=wanted, seed=seed, seen=_seen(task))
    _check_sides(open_rows, hidden)
    return Division(open_rows, hidden, seed, reading.warnings(rows) + unknown)


def _check_size(rows: Sequence[Example]) -> None:
    size = sum(len(text.encode()) for row in rows for text in (row.input, row.output))
    if size > settings.MAX_TASK_BYTES:
        raise FewShotProblem(
            f"The rows have {size:,} bytes; a task holds at most {settings.MAX_TASK_BYTES:,}. Leave some rows out.",
            field="rows",
        )
    inputs = len({row.input.strip() for row in rows})
    if inputs < settings.MIN_TASK_ROWS:
        raise FewShotProblem(
            f"A task needs at least {settings.MIN_TASK_ROWS} rows with different inputs, so that some can stay "
            f"hidden; you gave {inputs}.",
            field="rows",
        )


def _check_sides(shown: Sequence[Example], hidden: Sequence[Example]) -> None:
    most, least = settings.MAX_FEW_SHOT_EXAMPLES, settings.MIN_TASK_HIDDEN_ROWS
    if len(shown) > most:
        raise FewShotProblem(
            f"{len(shown):,} rows would be shown, since they have an input in common or were shown before; at most "
            f"{most} can be. Leave some of them out.",
            field="rows",
        )
    if len(hidden) < least:
        raise FewShotProblem(
            f"{plural(len(hidden), 'row,rows')} would stay hidden; a score needs at least {least}. Show fewer rows, or "
            "give more that were not shown before.",
            field="rows",
        )


def _seen(task: Task | None) -> set[str]:
    """Inputs that some revision of the task shows or has shown."""
    if task is None:
        return set()
    shown = TaskRevision.objects.filter(task=task).values_list("few_shot", flat=True)
    return {row["input"] for rows in shown for row in rows}


def create_task(
    *,
    actor: User,
    namespace: Namespace,
    title: str,
    rows: Division,
    description: str = "",
    source: str = "",
    license: str = "",
    base_model: BaseModel | None = None,
    metric: str = EXACT_MATCH,
    is_private: bool = False,
) -> Task:
    """A task of `namespace` with its first revision; `is_private`: for its members alone.

    Raises Forbidden, BadDetail, QuotaReached and the like.
    """
    require_write(actor, namespace)
    check_metric(metric)
    said = check_said({"title": title, "description": description, "source": source, "license": license})
    with transaction.atomic():
        quotas.hold(namespace)
        require_write(actor, namespace)  # again: it may have been deleted at this moment
        quotas.require_room_for_a_task(namespace)
        task = task_sets.add_task(
            **said,
            base_model=base_model,
            metric=metric,
            owner=namespace,
            created_by=actor,
            is_held_out=True,
            is_private=is_private,
        )
        _save(task, rows)
    logger.info("%s made the task %s", actor, task.slug)
    return task


def change_task(task: Task, *, actor: User, **said: Any) -> Task:
    """Change what is said about a task: title, description, source, license, base_model, metric. Rows and slug stay.

    Another metric makes the next revision, of the same rows. Also `is_private`: it can be made public at any time, and
    private while nobody but its members has used it. Raises Forbidden, BadDetail, BadSetting, TaskInUse,
    TooManyTaskRevisions, NotFound where it was deleted meanwhile.
    """
    require_change_task(actor, task)
    texts = {name: value for name, value in said.items() if name in LIMITS}
    changes: dict[str, Any] = said | check_said(texts)
    with transaction.atomic():
        title = changes.get("title", task.title)
        _hold(task, with_users=title != task.title or bool(changes.get("is_private")))
        if changes.get("is_private") and not task.is_private:
            _require_may_become_private(task, actor)
            _forget_name(task)
        elif not task.is_private:
            _rename_what_is_named_after(task, title)
        if not changes.get("is_private", True) and task.first_public_at is None:
            changes["first_public_at"] = timezone.now()
        if changes.get("metric", task.metric) != task.metric:
            _change_metric(task, changes["metric"])
        for name, value in changes.items():
            setattr(task, name, value)
        # No more than was said: somebody else may have made it private, or changed its metric, since it was read.
        task.save(update_fields=[*changes])
        _record(task, actor, "change task")
    return task


def _change_metric(task: Task, metric: str) -> None:
    check_metric(metric)
    task.metric = metric
    newest = task.revisions.order_by("-number").first()
    if newest is not None:
        _require_revisions_left(task)
        task_sets.save_rows(task, few_shot=newest.few_shot, test=newest.test, seed=newest.seed)


def _require_may_become_private(task: Task, actor: User) -> None:
    """Raises Forbidden, TaskInUse. The caller holds the row, so that nobody composes for it meanwhile."""
    if task.owner is None or not is_member(actor, task.owner):
        raise Forbidden("Only members of the namespace that a task belongs to make it private.")
    members = Membership.objects.filter(namespace=task.owner).values("user_id")
    if Composition.objects.filter(task=task).exclude(owner__in=members).exists():
        why = f"somebody who is no member of {task.owner.name} has composed for it"
    elif not task_sets.unnamed(Task.objects.filter(pk=task.pk), by=Adapter.objects.all()).exists():
        why = "a module or a score names it"
    else:
        return
    raise TaskInUse(
        f"{task.title} stays public: {why}. Make a new private task of rows that nobody has seen.",
        fields={"visibility": ["It is used by others."]},
    )


def _forget_name(task: Task) -> None:
    """Take the name of a task that becomes private out of what its members' compositions say: they may publish it."""
    for composition in Composition.objects.filter(task=task).select_related("base_model"):
        composition.task = task
        if naming.is_named_after_task(composition):
            composition.title = jobs.untold_title(len(composition.examples), composition.base_model)
            composition.save(update_fields=["title"])


def _rename_what_is_named_after(task: Task, title: str) -> None:
    """What was composed for a public task and is named after it keeps no former name, which would stay where the task is
    hidden later."""
    # Not `task.title`: somebody may have renamed it meanwhile.
    before = Task.objects.values_list("title", flat=True).get(pk=task.pk)
    if title != before:
        # By itself as well: SQLite folds the case of Latin letters alone.
        named = Composition.objects.filter(Q(title=before) | Q(title__iexact=before), task=task)
        named.update(title=title)


def new_rows(task: Task, *, actor: User, rows: Division) -> TaskRevision:
    """The task's next revision, with a leaderboard of its own; scores on the rows before stay with those.

    Raises Forbidden, NothingNew, TooManyTaskRevisions, Conflict, NotFound where it was deleted meanwhile.
    """
    require_takes_rows(task, actor)
    with transaction.atomic():
        _hold(task)
        _require_revisions_left(task)
        task.refresh_from_db(fields=["metric"])  # somebody may have changed it since the task was read
        _require_still_hidden(rows, task)
        revision = _save(task, rows)
        if revision is None:
            raise NothingNew(f"{task.title} has these very rows already.")
        _record(task, actor, "new rows of a task")
    logger.info("%s gave the task %s revision %d", actor, task.slug, revision.number)
    return revision


def _require_still_hidden(rows: Division, task: Task) -> None:
    """Raises Conflict where a revision that was made since the rows were divided shows one of those to be hidden."""
    shown = {text.strip() for text in _seen(task)}
    if any(row.input.strip() in shown for row in rows.hidden):
        raise Conflict(
            f"{task.title} got other rows at this moment, which show some of those to be hidden. Divide yours again."
        )


def _hold(task: Task, *, with_users: bool = False) -> None:
    """Nobody else changes the task, deletes it or begins to use it; with what uses it, if asked. Raises NotFound.

    Its namespace and its users first: so take them who deletes the namespace, and a worker that writes what came of a composition.
    """
    if task.owner is not None:
        quotas.hold(task.owner)
    same = Task.objects.filter(pk=task.pk)
    if with_users:
        task_sets.hold_users(same)
    if not same.select_for_update():
        raise NotFound(f"The task {task.slug} was deleted meanwhile.")


def _require_revisions_left(task: Task) -> None:
    """Raises TooManyTaskRevisions. The caller holds the owner."""
    if task.owner is not None:
        quotas.require_task_rows_today(task.owner)


def require_takes_rows(task: Task, actor: User) -> None:
    """Raises Forbidden if the actor may not change this task, Conflict if it is none to compose for."""
    require_change_task(actor, task)
    if not task.is_held_out:
        raise Conflict(f"{task.title} is what modules were trained on. Make a new task of these rows.")


def delete_task(task: Task, *, actor: User) -> None:
    """Delete a task that nobody has used. Raises Forbidden, TaskInUse, NotFound where somebody was quicker."""
    require_change_task(actor, task)
    with transaction.atomic():
        same = Task.objects.filter(pk=task.pk)
        if not same.select_for_update():
            raise NotFound(f"The task {task.slug} is deleted already.")
        if not unused(same, by=Adapter.objects.all()).exists():
            raise TaskInUse(
                f"{task.title} is in use: somebody composed for it, or a module names it. It stays, so that their "
                "scores keep their meaning. If it should not be here, report it."
            )
        _record(task, actor, "delete task")
        name = task.slug
        task.delete()
    logger.info("%s deleted the task %s", actor, name)


def check_said(said: dict[str, Any]) -> dict[str, str]:
    """What is said about a task, as it is kept. Raises BadDetail."""
    checked = {name: check_text(name, value, limit=LIMITS[name]) for name, value in said.items()}
    if "title" in checked:
        checked["title"] = " ".join(checked["title"].split())
        if not checked["title"]:
            raise BadDetail("title", "Give the task a name.")
    return checked


def _save(task: Task, rows: Division) -> TaskRevision | None:
    return task_sets.save_rows(
        task, few_shot=reading.as_json(rows.shown), test=reading.as_json(rows.hidden), seed=rows.seed
    )


def unused(
    tasks: QuerySet[Task], *, by: QuerySet[Adapter], composed: QuerySet[Composition] | None = None
) -> QuerySet[Task]:
    """Of these tasks those that none of these compositions (None: nobody's) is for, and none of these adapters names or
    has a score on.
    """
    composed = Composition.objects.all() if composed is None else composed
    return task_sets.unnamed(tasks, by=by).exclude(Exists(composed.filter(task=OuterRef("pk"))))


def _record(task: Task, actor: User, action: str) -> None:
    """Into the book, where somebody used their power over what is not theirs."""
    if may_moderate(actor) and task.created_by_id != actor.pk:
        audit.record(actor=actor, action=action, subject=task)
