"""Finding adapters: parameters that are understood or refused, rows, order, exact counts. docs/search.md says how."""

from registry.search.finding import (
    Facet,
    FacetValue,
    Found,
    count,
    family_size,
    find,
    modules_by_base,
    rows_of,
)
from registry.search.query import SORTS, AdapterQuery, BadParameter, each_once, one_of, yes_or_no
from registry.search.related import composes_with, first_with_weights_of, revisions_with
from registry.search.tasks import (
    TASK_SORTS,
    sees_task,
    show_tasks,
    task_named,
    task_scores,
    tasks_hidden_from,
    tasks_matching,
    tasks_open_to,
    tasks_shown_to,
    visible_task,
)

__all__ = [
    "SORTS",
    "TASK_SORTS",
    "AdapterQuery",
    "BadParameter",
    "Facet",
    "FacetValue",
    "Found",
    "composes_with",
    "count",
    "each_once",
    "family_size",
    "find",
    "first_with_weights_of",
    "modules_by_base",
    "one_of",
    "revisions_with",
    "rows_of",
    "sees_task",
    "show_tasks",
    "task_named",
    "task_scores",
    "tasks_hidden_from",
    "tasks_matching",
    "tasks_open_to",
    "tasks_shown_to",
    "visible_task",
    "yes_or_no",
]
