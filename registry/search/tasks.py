"""Which tasks somebody is shown, and finding among them by words and in an order."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Exists, OuterRef, Q, QuerySet

from registry.models import Adapter, AdapterScore, Task
from registry.models.publication import published_at
from registry.models.tasks import TaskQuerySet
from registry.rights import Person, may_moderate, namespaces_of
from registry.search.query import words_of
from web.errors import NotFound
from web.kept_queries import KeptQuery, number_of

SCORES_SHOWN = 30
# By the name of the order: `web.pagination` takes it, of what `tasks_matching` finds.
TASK_SORTS: dict[str, tuple[str, ...]] = {"name": ("slug",), "new": ("-published", "-id")}


def tasks_matching(tasks: TaskQuerySet, words: str) -> TaskQuerySet:
    """Of these tasks those that have every word in their title, slug or description. Raises BadParameter for too many."""
    for word in words_of(words):
        tasks = tasks.filter(
            Q(title__icontains=word) | Q(slug__icontains=word) | Q(description__icontains=word)
        )
    return tasks.annotate(published=published_at())


def visible_task(person: Person, slug: str) -> Task:
    """The task with this slug if this person may see it; a moderator also what is in quarantine. Raises NotFound."""
    rows = tasks_open_to(person).select_related("base_model", "owner", "created_by")
    found = rows.filter(slug=slug).first()
    if found is None:
        raise NotFound(f"There is no task {slug[:100]!r} here.")
    return found


def tasks_open_to(person: Person) -> TaskQuerySet:
    """What this person sees who has the address: a moderator also what is in quarantine, to judge it.

    What is private is its members' alone, in quarantine too, as with adapters.
    """
    rows = tasks_shown_to(person)
    if not may_moderate(person):
        return rows
    held = Q(is_held_out=True, quarantined_at__isnull=False, is_private=False)
    return Task.objects.filter(Q(pk__in=rows.values("pk")) | held)


def tasks_shown_to(person: Person) -> TaskQuerySet:
    """Tasks with rows, tasks of nobody in particular, and those of some adapter that this person may see.

    What is private or in quarantine is shown to members of the namespace it belongs to alone. Whatever shows, counts or
    looks up tasks for somebody begins here.
    """
    # Asked for each task that is nothing else, by the index: there may be a million adapters.
    is_somebodys = Exists(Adapter.objects.visible_to(person).filter(task=OuterRef("pk")))
    found = Task.objects.filter(Q(is_held_out=True) | Q(owner=None) | Q(is_somebodys))
    return found.filter(Q(is_private=False, quarantined_at=None) | Q(owner__in=namespaces_of(person)))


def sees_task(person: Person, task: Task) -> bool:
    """Whether a task that something else names may be named to this person. Only a hidden one asks the database."""
    return not task.is_hidden or tasks_shown_to(person).filter(pk=task.pk).exists()


def _seen_among(tasks: Iterable[Task], *, person: Person) -> set[int]:
    """As `sees_task`, of many tasks: the ids of those that may be named. One query at most, none for nobody in particular."""
    tasks = list(tasks)
    hidden = {task.pk for task in tasks if task.is_hidden}
    if not hidden or person is None or not person.is_authenticated:
        return {task.pk for task in tasks} - hidden
    shown = tasks_shown_to(person).filter(pk__in=hidden).values_list("pk", flat=True)
    return {task.pk for task in tasks} - hidden | set(shown)


def task_named(slug: str, *, person: Person) -> Task | None:
    """The task with this slug where it may be named to this person; much cheaper than looking through what is shown."""
    task = Task.objects.filter(slug=slug).first()
    return task if task is not None and sees_task(person, task) else None


def tasks_hidden_from(person: Person) -> QuerySet[Task]:
    """Of the private tasks and those in quarantine those that this person is not shown."""
    # On both sides: the few hidden ones have an index, and what is shown may be a hundred thousand.
    hidden = Q(is_private=True) | Q(quarantined_at__isnull=False)
    if person is None or not person.is_authenticated:
        return Task.objects.filter(hidden).order_by()
    shown = tasks_shown_to(person).filter(hidden).order_by().values("pk")
    return Task.objects.filter(hidden).exclude(pk__in=shown).order_by()


_SCORES = KeptQuery(
    lambda adapter: (
        AdapterScore.objects.filter(adapter_id=adapter)
        .select_related("task", "task_revision")
        .defer("task_revision__few_shot", "task_revision__test")  # all rows of the task
        .order_by("-created_at", "pk")[:SCORES_SHOWN]
    ),
    number_of("adapter"),
)


def task_scores(adapter: Adapter, person: Person) -> list[AdapterScore]:
    """Its newest scores on tasks, each with `is_named`: whether this person may be told of which task."""
    found = _SCORES.rows(adapter=adapter.pk)
    seen = _seen_among((score.task for score in found if not score.task.is_quarantined), person=person)
    for score in found:
        score.is_named = score.task_id in seen  # type: ignore[attr-defined]
    return found


def show_tasks(adapters: Iterable[Adapter], *, person: Person) -> None:
    """Let those of these adapters name their private task whose task this person sees: `shown_task` is silent before.

    One query, and none where no task is private.
    """
    adapters = list(adapters)
    shown = _seen_among(
        (each.task for each in adapters if each.task is not None and each.task.is_private), person=person
    )
    for adapter in adapters:
        adapter.may_name_private_task = adapter.task_id in shown
