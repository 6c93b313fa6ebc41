"""Tasks and their rows: found by what an uploader calls them, made when new, and loaded with examples."""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.text import slugify

from registry.details import check_text
from registry.models import Adapter, AdapterScore, BaseModel, Namespace, Task, TaskRevision, TaskRow
from registry.rights import Person
from registry.search import sees_task, tasks_shown_to
from web.database import keep_from_deletion, take_for_deletion

MOST_OF_A_TITLE = 100
# Which tasks are used besides by adapters and their scores; whoever stands above this app and uses tasks adds a function.
ALSO_USED: list[Callable[[], Q]] = []
# Holds the rows that name one of these tasks and that its deletion writes to; whoever stands above this app adds a function.
HOLD_USERS_OF: list[Callable[[QuerySet[Task]], None]] = []
RESERVED_SLUGS = frozenset({"new"})  # an address below /tasks/ of its own


def task_called(
    text: str,
    *,
    owner: Namespace,
    person: Person,
    current: Task | None = None,
    base_model: BaseModel | None = None,
) -> Task | None:
    """The task with this slug or title; made, with `owner`, if there is none. None for an empty text.

    A private task that `person` does not see is as if it were not there. Several tasks may have one title: `current`, the
    adapter's own, comes first, then the one for `base_model`. Raises BadDetail for a text that can be no title.
    """
    title = check_text("task", text)
    if not title:
        return None
    if (
        current is not None
        and title.casefold() in {current.slug, current.title.casefold()}
        and (not current.is_private or sees_task(person, current))
    ):
        return current
    tasks = Task.objects.filter(Q(is_private=False) | Q(pk__in=tasks_shown_to(person).values("pk")))
    known = (
        tasks.filter(slug=title).first()
        or _titled(tasks, title, base_model)
        or tasks.filter(slug=slug_of(title)).first()
    )
    if known:
        return known
    named = {"title": title, "owner": owner}
    task, is_new = Task.objects.get_or_create(slug=slug_of(title), defaults=named)
    return task if is_new or not task.is_private else add_task(title=title, owner=owner)


def kept(task: Task, *, person: Person) -> Task | None:
    """The task as it is now, kept from deletion until this transaction ends; None if it went or was hidden from `person`."""
    same = Task.objects.filter(pk=task.pk)
    keep_from_deletion(same)
    now = same.first()
    return now if now is not None and sees_task(person, now) else None


def unnamed(tasks: QuerySet[Task], *, by: QuerySet[Adapter]) -> QuerySet[Task]:
    """Of these tasks those that none of these adapters names or has a score on."""
    scores = AdapterScore.objects.filter(task=OuterRef("pk"), adapter__in=by)
    return tasks.exclude(Exists(by.filter(task=OuterRef("pk"))) | Exists(scores))


def unneeded(namespace: Namespace) -> QuerySet[Task]:
    """What goes with a namespace: its private tasks, which nobody would see any more, and those that nobody else uses.

    The others stay, so that scores keep their meaning, and so does what is to be looked into.
    """
    tasks = Task.objects.filter(owner=namespace, quarantined_at=None)
    unused = unnamed(tasks, by=Adapter.objects.alive().exclude(namespace=namespace))
    for used in ALSO_USED:
        unused = unused.exclude(used())
    return tasks.filter(Q(is_private=True) | Q(pk__in=unused.values("pk")))


def hold_users(tasks: QuerySet[Task], *, modules: Q | None = None) -> None:
    """What names these tasks, inside the transaction that hides or deletes them and before it holds one: a worker that is writing
    what came of a composition looks for its task at the end, and is waited for. `modules` are held together with those.
    """
    for hold in HOLD_USERS_OF:
        hold(tasks)
    named = Q(task__in=tasks.values("pk"))
    take_for_deletion(Adapter.objects.filter(named if modules is None else named | modules))


def remove_unneeded(namespace: Namespace) -> None:
    """Delete what goes with a namespace, inside the transaction that closes it."""
    take_for_deletion(Task.objects.filter(owner=namespace))
    unneeded(namespace).delete()


def _titled(known: QuerySet[Task], title: str, base_model: BaseModel | None) -> Task | None:
    """The task with this title in any case; of several the one for `base_model`, then the oldest."""
    # `title` by itself as well: SQLite folds the case of Latin letters alone.
    tasks = list(known.filter(Q(title=title) | Q(title__iexact=title)).order_by("pk")[:MOST_OF_A_TITLE])
    fitting = [task for task in tasks if base_model is not None and task.base_model_id == base_model.pk]
    return next(iter(fitting or tasks), None)


def names_of(tasks: Iterable[Task]) -> list[tuple[str, str]]:
    """(what to type, what to show) for each: the title where only one of them has it, otherwise the slug."""
    tasks = list(tasks)
    times = Counter(task.title.casefold() for task in tasks)
    return [
        (task.title, "") if times[task.title.casefold()] == 1 else (task.slug, f"{task.title} ({task.slug})")
        for task in tasks
    ]


def slug_of(title: str) -> str:
    """A title as part of an address; a title without any Latin letter gets one from its hash."""
    slug = slugify(title)[:100].strip("-") or f"task-{hashlib.sha256(title.encode()).hexdigest()[:12]}"
    return f"{slug}-task" if slug in RESERVED_SLUGS else slug


def add_task(*, title: str, **fields: Any) -> Task:
    """A new task without rows. Its slug is made of the title, with a number behind it where that is taken.

    A private one has letters of chance behind it: else a number behind somebody's own slug would tell them of it.
    """
    if fields.get("is_private"):
        fields["first_public_at"] = None
    slug = f"{slug_of(title)[:90]}-{secrets.token_hex(4)}" if fields.get("is_private") else slug_of(title)
    for number in itertools.count(2):
        task, is_new = Task.objects.get_or_create(slug=slug, defaults={"title": title, **fields})
        if is_new:
            return task
        slug = f"{slug_of(title)[:90]}-{number}"
    raise AssertionError("the numbers have come to an end")


@transaction.atomic
def save_task(
    *,
    slug: str,
    title: str,
    description: str,
    base_model: BaseModel | None,
    few_shot: Sequence[dict[str, str]],
    test: Sequence[dict[str, str]],
    metric: str = "exact_match",
    tags: Sequence[str] = (),
    owner: Namespace | None = None,
    is_held_out: bool = True,
) -> Task:
    """A task with exactly these rows, {"input", "output"}, made or brought up to date; held out: nobody trained on it.

    Other rows or another metric than before make its next revision; the revisions before it stay as they were.
    """
    fields: dict[str, Any] = {
        "title": title,
        "description": description,
        "metric": metric,
        "tags": list(tags),
        "base_model": base_model,
        "owner": owner,
        "is_held_out": is_held_out,
    }
    task, _ = Task.objects.update_or_create(slug=slug, defaults=fields)
    save_rows(task, few_shot=few_shot, test=test)
    return task


@transaction.atomic
def save_rows(
    task: Task,
    *,
    few_shot: Sequence[dict[str, str]],
    test: Sequence[dict[str, str]],
    seed: int | None = None,
) -> TaskRevision | None:
    """Give a task exactly these rows; its new revision, None if it has these rows and this metric already.

    `seed` is what the hidden ones were drawn by, where they were.
    """
    Task.objects.select_for_update().get(pk=task.pk)  # one revision after the other
    for split, rows in ((TaskRow.Split.FEW_SHOT, few_shot), (TaskRow.Split.TEST, test)):
        _save_split(task, split, rows)
    return _save_revision(task, few_shot, test, seed)


def _save_revision(
    task: Task, few_shot: Sequence[dict[str, str]], test: Sequence[dict[str, str]], seed: int | None
) -> TaskRevision | None:
    rows = [[{"input": row["input"], "output": row["output"]} for row in given] for given in (few_shot, test)]
    if not any(rows):
        return None
    said = json.dumps([task.metric, *rows], sort_keys=True, separators=(",", ":"))
    sha256 = hashlib.sha256(said.encode()).hexdigest()
    newest = task.revisions.order_by("-number").first()
    if newest is not None and newest.sha256 == sha256:
        return None
    return TaskRevision.objects.create(
        task=task,
        number=newest.number + 1 if newest else 1,
        sha256=sha256,
        metric=task.metric,
        few_shot=rows[0],
        test=rows[1],
        seed=seed,
    )


def _save_split(task: Task, split: TaskRow.Split, rows: Sequence[dict[str, str]]) -> None:
    wanted = [(row["input"], row["output"]) for row in rows]
    present = task.rows.filter(split=split).order_by("position")
    if list(present.values_list("input", "output")) == wanted:
        return
    present.delete()
    TaskRow.objects.bulk_create(
        TaskRow(task=task, split=split, position=position, input=given, output=expected)
        for position, (given, expected) in enumerate(wanted)
    )
