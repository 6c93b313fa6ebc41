"""Which modules of a composition, and which task, somebody may be told by name: what is private is told to nobody else."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from django.db.models import Q

from compose.models import Composition
from registry.models import Adapter, Task
from registry.rights import Person, owns
from registry.search import sees_task

HIDDEN = "a module that is not public"


def may_be_named(ids: Collection[int], person: Person, *, is_owner: bool = False) -> set[int]:
    """Those that may be named: what this person sees, and what was public and is gone.

    `is_owner`: the person composed with them, and so knows all that are gone.
    """
    if not ids:
        return set()
    seen = Q(pk__in=Adapter.objects.visible_to(person).values("pk"))
    gone = Q(deleted_at__isnull=False)
    if not is_owner:
        gone &= Q(visibility=Adapter.Visibility.PUBLIC)
    return set(Adapter.objects.filter(seen | gone, pk__in=ids).values_list("pk", flat=True))


def named_in(composition: Composition, person: Person) -> set[int]:
    """The candidates of a composition that this person may be told by name."""
    ids = list(composition.candidates.values_list("revision__adapter_id", flat=True))
    return may_be_named(ids, person, is_owner=owns(person, composition.owner_id))


def task_of(composition: Composition, person: Person) -> Task | None:
    """The task of a composition where this person may be told of it."""
    task = composition.task
    return None if task is None or task.is_quarantined or not sees_task(person, task) else task


def name_of(adapter: Adapter, named: set[int]) -> str:
    """Its full name, or HIDDEN where it is not among those that may be named."""
    return adapter.full_name if adapter.pk in named else HIDDEN


def link_to(adapter: Adapter, named: set[int]) -> str:
    """The address of its page; "" for one that is hidden or gone."""
    return adapter.get_absolute_url() if adapter.pk in named and adapter.deleted_at is None else ""


def without_names(text: str, names: Iterable[str]) -> str:
    """A sentence in which these full names of adapters are not told, whatever revision stands behind them."""
    for name in names:
        text = re.sub(rf"(?<![\w./-]){re.escape(name)}(@[0-9a-f]+)?(?![\w/-]|\.\w)", HIDDEN, text)
    return text
