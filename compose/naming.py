"""Which modules of a composition, and which task, somebody may be told by name: what is private is told to nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import cache

from django.db.models import Prefetch, Q

from compose.models import Candidate, Composition
from registry.models import Adapter, FormerName, Task
from registry.rights import Person, owns, sees_adapter
from registry.search import sees_task, tasks_shown_to

HIDDEN = "a module that is not public"
_FULL_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def may_be_named(ids: Collection[int], person: Person, *, is_owner: bool = False) -> set[int]:
    """Those that may be named: what this person sees, and what was public and is gone.

    `is_owner`: the person composed with them, and so knows all that are gone.
    """
    if not ids:
        return set()
    seen = sees_adapter(person, "pk")
    gone = Q(deleted_at__isnull=False)
    if not is_owner:
        gone &= Q(visibility=Adapter.Visibility.PUBLIC)
    return set(Adapter.objects.filter(seen | gone, pk__in=ids).values_list("pk", flat=True))


def named_in(composition: Composition, person: Person) -> set[int]:
    """The candidates of a composition that this person may be told by name."""
    ids = list(composition.candidates.values_list("revision__adapter_id", flat=True))
    return may_be_named(ids, person, is_owner=owns(person, composition.owner_id))


def published(person: Person, at: str = "adapter") -> Prefetch[str]:
    """Of compositions that this person may see, the adapters they became: None for one that is hidden from them, as an
    organisation's that they left. `adapter_id` still says that there is one.
    """
    told = sees_adapter(person, "pk") | Q(deleted_at__isnull=False)
    return Prefetch(at, queryset=Adapter.objects.filter(told).select_related("namespace"))


def told_tasks(person: Person) -> Prefetch[str]:
    """Of compositions the tasks that this person may be told of, as `task_of` says of one; None for the others."""
    private = tasks_shown_to(person).filter(is_private=True).order_by()
    told = Q(is_private=False) | Q(pk__in=private.values("pk"))
    return Prefetch("task", queryset=Task.objects.filter(told, quarantined_at=None))


def task_of(composition: Composition, person: Person) -> Task | None:
    """The task of a composition where this person may be told of it."""
    task = composition.task
    return None if task is None or task.is_quarantined or not sees_task(person, task) else task


def title_of(composition: Composition, person: Person) -> str:
    """Its title; for others than its owner never the name of a task in quarantine, which stands there if no other was given."""
    task = composition.task
    is_told = task is None or not task.is_quarantined or owns(person, composition.owner_id)
    if is_told or not is_named_after_task(composition):
        return composition.title
    return f"Composition {composition.pk}"


def is_named_after_task(composition: Composition) -> bool:
    """Whether its title is that of its task, as it is unless another was given."""
    task = composition.task
    return task is not None and composition.title.casefold() == task.title[:200].casefold()


def name_of(adapter: Adapter, named: set[int]) -> str:
    """Its full name, or HIDDEN where it is not among those that may be named."""
    return adapter.full_name if adapter.pk in named else HIDDEN


def link_to(adapter: Adapter, named: set[int]) -> str:
    """The address of its page; "" for one that is hidden or gone."""
    return adapter.get_absolute_url() if adapter.pk in named and adapter.deleted_at is None else ""


def without_hidden(candidates: Iterable[Candidate], named: set[int]) -> Callable[[str], str]:
    """What takes the names of those that are not among `named` out of a sentence, those of before a move too: a sentence keeps
    the names of its day.

    The database is asked once, and only where a sentence names something that no candidate is called now.
    """
    adapters = {candidate.revision.adapter for candidate in candidates}
    now = {adapter.full_name.lower() for adapter in adapters}
    hidden = {adapter.pk: adapter.full_name for adapter in adapters if adapter.pk not in named}

    @cache
    def former() -> list[str]:
        rows = FormerName.objects.filter(adapter__in=hidden).values_list("namespace__name", "name")
        return [f"{namespace}/{name}" for namespace, name in rows]

    def tell(sentence: str) -> str:
        told = without_names(sentence, hidden.values())
        others = (name.rstrip(".").lower() for name in _FULL_NAME.findall(told))
        return without_names(told, former()) if hidden and not now.issuperset(others) else told

    return tell


def without_names(text: str, names: Iterable[str]) -> str:
    """A sentence in which these full names of adapters are not told, in any case and whatever revision stands behind them."""
    for name in names:
        pattern = rf"(?<![\w./-]){re.escape(name)}(@[0-9a-f]+)?(?![\w/-]|\.\w)"
        text = re.sub(pattern, HIDDEN, text, flags=re.IGNORECASE)
    return text
