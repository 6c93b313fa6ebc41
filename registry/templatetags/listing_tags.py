"""Rows of a list of modules, and the ways to narrow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from html import escape
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from registry.models import Adapter, AdapterScore
from web.templatetags.formatting import count, relative

register = template.Library()

_ON = ' class="on"'
_CHOSEN = ' aria-current="true" title="Remove this filter"'
ROWS_KEPT = 4096  # about 2 kB each


@dataclass(frozen=True, slots=True)
class Row:
    """All that a row shows, so that equal rows are the same HTML."""

    url: str
    namespace: str
    name: str
    is_private: bool
    is_quarantined: bool
    is_composed: bool
    description: str
    base_model: str
    base_model_label: str
    task_slug: str
    task_title: str
    rank: int | None
    parameters: int | None
    size_bytes: int
    is_composable: bool
    composable_reason: str
    composes_with: int
    score: float | None
    score_metric: str
    is_score_reported: bool
    downloads: int
    updated_at: datetime
    updated: str  # `updated_at` in words, which change as time goes by


@register.simple_tag
def module_row(adapter: Adapter) -> SafeString:
    """The row of an adapter that has `composes_with`; rendered once while nothing in it changes."""
    task, base_model, head = adapter.shown_task, adapter.base_model, adapter.head
    listed = getattr(adapter, "listed_score", None)  # of a search that is about one task
    return _rendered(
        Row(
            url=adapter.get_absolute_url(),
            namespace=adapter.namespace.name,
            name=adapter.name,
            is_private=adapter.is_private,
            is_quarantined=adapter.is_quarantined,
            is_composed=adapter.is_composed,
            description=adapter.description,
            base_model=base_model.name if base_model else "",
            base_model_label=adapter.base_model_label,
            task_slug=task.slug if task else "",
            task_title=task.title if task else "",
            rank=adapter.rank,
            parameters=adapter.parameters,
            size_bytes=adapter.size_bytes,
            is_composable=adapter.is_composable,
            composable_reason=head.composable_reason if head and not adapter.is_composable else "",
            composes_with=adapter.composes_with,
            score=listed.value if listed else adapter.best_score,
            score_metric=listed.metric if listed else adapter.best_score_metric,
            is_score_reported=bool(listed and listed.source == AdapterScore.Source.REPORTED),
            downloads=adapter.downloads,
            updated_at=adapter.updated_at,
            updated=relative(adapter.updated_at),
        )
    )


@register.simple_tag
def facet_values(rows: Sequence[dict[str, Any]]) -> SafeString:
    """The values of a facet as items of a list.

    Not a template, and what is in it escaped by Python's own function, which Django's wraps: a page has a hundred values,
    and they took a third of its time, and then a tenth.
    """
    return mark_safe("\n".join(map(_facet_value, rows)))  # noqa: S308 - every part of it is escaped


def _facet_value(row: dict[str, Any]) -> str:
    on, chosen = (_ON, _CHOSEN) if row["is_chosen"] else ("", "")
    return (
        f'<li{on}><a href="?{escape(row["url"])}"{chosen}><span>{escape(row["label"])}</span>'
        f'<span class="num">{escape(count(row["count"]))}</span></a></li>'
    )


@lru_cache(maxsize=ROWS_KEPT)
def _rendered(row: Row) -> SafeString:
    return render_to_string("registry/_row.html", {"row": row})
