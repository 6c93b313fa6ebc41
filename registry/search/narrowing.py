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
from registry.search.columns import Columns, Mask

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


def few_named(part: str) -> list[int] | None:
    """Adapters with `part` in their full name, in whatever capitals; None where they are more than FEW, or it is too short."""
    if len(part) < SHORTEST_PART:
        return None
    # There a space stands before the name, and none in it.
    texts = AdapterText.objects.filter(names__icontains=part.replace("/", " "))
    found = list(texts.values_list("pk", flat=True)[: FEW + 1])
    return found if len(found) <= FEW else None


def few_tagged(wanted: Iterable[Tagged]) -> list[int] | None:
    """Adapters that are all of these, whether or not anybody may see them; None where they are more than FEW."""
    table = columns.current()
    with table.lock:
        table.refresh()
        mask = np.ones(table.size, np.bool_)
        for each in wanted:
            mask &= _is(each, table)
        return cast("list[int]", table.all_ids[mask].tolist()) if np.count_nonzero(mask) <= FEW else None


def _is(wanted: Tagged, table: Columns) -> Mask:
    mask = np.zeros(table.size, np.bool_)
    for name in ("tag", "license", "language"):
        if text := getattr(wanted, name):
            # As it stands too: SQLite knows small letters of ASCII alone.
            mask |= table.says(name, text) | table.says(name, text.lower())
    if wanted.base:
        mask |= _made_for(wanted.base, table)
    if wanted.dataset:
        mask |= _few_of(Adapter.objects.filter(dataset__icontains=wanted.dataset).values_list("pk"), table)
    if wanted.task_types:
        bases = BaseModel.objects.filter(task_type__in=wanted.task_types).values_list("pk", flat=True)
        mask |= np.isin(table["base_model_id"], np.fromiter(bases, np.int64))
        versions = Revision.objects.filter(facts__task_type__in=wanted.task_types).order_by()
        mask |= _few_of(versions.values_list("adapter_id"), table)
    return mask


def _few_of(ids: QuerySet[Any, tuple[int]], table: Columns) -> Mask:
    """Whom these ids mean; everybody where they are more than FEW, so that nothing is narrowed."""
    found = [pk for (pk,) in ids[: FEW + 1]]
    return table.mask_of(np.array(found, np.int64)) if len(found) <= FEW else np.ones(table.size, np.bool_)


def _made_for(name: str, table: Columns) -> Mask:
    base_model = BaseModel.objects.named(name)
    if base_model is not None:
        mask: Mask = table["base_model_id"] == base_model.pk
        return mask
    labelled = Adapter.objects.filter(base_model=None, base_model_label__iexact=name)
    return table.mask_of(np.fromiter(labelled.values_list("pk", flat=True), np.int64))
