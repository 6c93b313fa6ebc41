"""The few adapters that a list can be of, where the database has no index for what is asked.

Lists that the database filters and sorts (`registry.hub.listing`) are walked in their order until a page is full: quick
where much fits, and through everything where next to nothing does. That is known here, from the columns in memory and from
an index of parts of names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from django.db.models import QuerySet

from registry.models import Adapter, AdapterText, BaseModel, Revision
from registry.search import columns
from registry.search.columns import Columns, Mask, Positions

FEW = 2000  # ids that a database takes in milliseconds; where more fit, a walk has a page of them soon
SHORTEST_PART = 3  # letters: the index is of three at a time


@dataclass(frozen=True)
class Tagged:
    """Adapters that have this text among their tags, or are made for, licensed under, written in, trained on what it names, or
    do one of these tasks, in peft's words, as their base model may.
    """

    tag: str
    base: str = ""
    license: str = ""
    language: str = ""
    dataset: str = ""
    task_types: Sequence[str] = ()


def few_named(parts: Iterable[str]) -> list[int] | None:
    """Adapters that have one of `parts` in their full name, in whatever capitals: one that no more than FEW have.

    None where each is in more names than that, or too short.
    """
    for part in sorted(parts, key=len, reverse=True):  # the longest is mostly in the fewest
        if len(part) < SHORTEST_PART:
            break
        # There a space stands before the name, and none in it.
        texts = AdapterText.objects.filter(names__icontains=part.replace("/", " "))
        found = list(texts.values_list("pk", flat=True)[: FEW + 1])
        if len(found) <= FEW:
            return found
    return None


def few_tagged(wanted: Iterable[Tagged]) -> list[int] | None:
    """Adapters that are all of these, whether or not anybody may see them; None where they are more than FEW."""
    # Before the lock, for which every other search of this process would wait meanwhile.
    asked = [(each, bases := _bases_of(each), _ids_of(each, bases)) for each in wanted]
    table = columns.current()
    with table.lock:
        table.refresh()
        mask = np.ones(table.size, np.bool_)
        for each, bases, ids in asked:
            if ids is not None:
                mask &= _said_of(each, table) | np.isin(table["base_model_id"], bases) | table.mask_of(ids)
        return cast("list[int]", table.all_ids[mask].tolist()) if np.count_nonzero(mask) <= FEW else None


def _bases_of(wanted: Tagged) -> list[int]:
    """Base models whose adapters are all wanted."""
    if wanted.base:
        named = BaseModel.objects.named(wanted.base)
        return [named.pk] if named is not None else []
    return list(BaseModel.objects.filter(task_type__in=wanted.task_types).values_list("pk", flat=True))


def _ids_of(wanted: Tagged, bases: list[int]) -> Positions | None:
    """Adapters that the database alone knows to be wanted; None where they are more than FEW, or have no index."""
    rows: QuerySet[Any, tuple[int]] = Adapter.objects.none().values_list("pk")
    if wanted.base and not bases:
        rows = Adapter.objects.filter(base_model=None, base_model_label__iexact=wanted.base).values_list("pk")
    elif wanted.dataset:
        if len(wanted.dataset) < SHORTEST_PART:
            return None
        rows = Adapter.objects.filter(dataset__icontains=wanted.dataset).values_list("pk")
    elif wanted.task_types:
        versions = Revision.objects.filter(facts__task_type__in=wanted.task_types).order_by()
        rows = versions.values_list("adapter_id")
    found = [pk for (pk,) in rows[: FEW + 1]]
    return np.array(found, np.int64) if len(found) <= FEW else None


def _said_of(wanted: Tagged, table: Columns) -> Mask:
    """Of which adapters a column of texts says so."""
    mask = np.zeros(table.size, np.bool_)
    for name in ("tag", "license", "language"):
        if text := getattr(wanted, name):
            # As it stands too: SQLite knows small letters of ASCII alone.
            mask |= table.says(name, text) | table.says(name, text.lower())
    return mask
