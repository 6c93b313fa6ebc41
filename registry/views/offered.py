"""What the fields for a base model and a task complete to while somebody types."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.db.models import Model, QuerySet

from registry import search, task_sets
from registry.models import BaseModel
from registry.rights import Person

M = TypeVar("M", bound=Model)
OFFERED = 500  # of each; whatever else there is may be typed too


def names_offered(person: Person) -> dict[str, Any]:
    """For a template: `base_models` and `tasks` by name, of very many those with the most modules."""

    def by_base() -> dict[int, int]:
        return {pk: listed for pk, (listed, _) in search.modules_by_base(person=person).items()}

    def by_task() -> dict[int, int]:
        return search.modules_by_task(person=person)

    bases = _most_used(BaseModel.objects.order_by("name"), by_base)
    tasks = _most_used(search.tasks_shown_to(person).order_by("title"), by_task)
    return {"base_models": bases.values_list("name", flat=True), "tasks": task_sets.names_of(tasks)}


def _most_used(rows: QuerySet[M], counted: Callable[[], Mapping[int, int]]) -> QuerySet[M]:
    pks = list(rows.values_list("pk", flat=True))
    if len(pks) <= OFFERED:
        return rows
    counts = counted()
    return rows.filter(pk__in=heapq.nlargest(OFFERED, pks, key=lambda pk: counts.get(pk, 0)))
