"""Scores that somebody else measured: a table of modules and tasks, kept as self-reported with who says so."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from registry import commits, task_sets
from registry.models import Adapter, AdapterScore, BaseModel, Namespace, Task, User
from registry.publishing import find_by_name
from web.errors import DomainError

METRIC = "exact_match"  # a table names none


class BadTable(DomainError):
    code = "bad_table"


@dataclass(frozen=True)
class Reported:
    """One cell of a table: `value` is 0 to 1."""

    module: str
    task: str
    value: float


@dataclass(frozen=True)
class Outcome:
    scores: int
    modules: int
    made: int
    tasks: int
    unknown: list[str]


def read_table(path: Path, *, in_percent: bool) -> list[Reported]:
    """The cells of a CSV whose first column is `module` and whose other columns are tasks; empty cells are left out.

    Raises BadTable, naming line and column of what is no number from 0 to 1 (or 100).
    """
    most = 100.0 if in_percent else 1.0
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    if not rows or rows[0][:1] != ["module"] or len(rows[0]) < 2:
        raise BadTable("The first line must name the columns: module, and then a task each.")
    tasks = [name.strip() for name in rows[0][1:]]
    if len(set(tasks)) != len(tasks) or "" in tasks:
        raise BadTable("Each column must name another task.")
    found = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise BadTable(f"Line {number} has {len(row)} columns; the first line has {len(rows[0])}.")
        for task, text in zip(tasks, row[1:], strict=True):
            if text.strip():
                found.append(Reported(row[0].strip(), task, _share(text, most, f"Line {number}, {task}")))
    return found


def _share(text: str, most: float, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadTable(f"{where}: {text[:20]!r} is no number.") from None
    if not (math.isfinite(value) and 0 <= value <= most):
        raise BadTable(f"{where}: {text[:20]!r} is not between 0 and {most:g}.")
    return value / most


@transaction.atomic
def keep(
    cells: Iterable[Reported],
    *,
    by: User,
    note: str,
    task_prefix: str = "",
    base_model: str = "",
    make_missing: bool = False,
) -> Outcome:
    """Keep these scores as reported by somebody; those that are there are brought up to date.

    A task's slug is `task_prefix` and the column's name with dashes; one that there is not is made, without rows.
    A module that there is not is named in `unknown`; with `make_missing` its name is entered without any files,
    where `by` may publish.
    """
    cells = list(cells)
    modules = {name: _module(name, by, base_model, make_missing) for name in dict.fromkeys(cell.module for cell in cells)}  # fmt: skip
    known = {name: _task(task_prefix, name) for name in dict.fromkeys(cell.task for cell in cells)}
    rows = [
        AdapterScore(
            adapter=adapter, task=known[cell.task], source=AdapterScore.Source.REPORTED, metric=METRIC,
            value=cell.value, note=note[:300], reported_by=by,
        )
        for cell in cells
        if (adapter := modules[cell.module][0]) is not None
    ]  # fmt: skip
    AdapterScore.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["task", "adapter", "source", "metric"],
        update_fields=["value", "note", "reported_by"],
        batch_size=500,
    )
    return Outcome(
        scores=len(rows),
        modules=sum(adapter is not None for adapter, _ in modules.values()),
        made=sum(is_new for _, is_new in modules.values()),
        tasks=len(known),
        unknown=[name for name, (adapter, _) in modules.items() if adapter is None],
    )


def _module(name: str, by: User, base_model: str, make_missing: bool) -> tuple[Adapter | None, bool]:
    namespace_name, _, adapter_name = name.partition("/")
    namespace = Namespace.objects.filter(name__iexact=namespace_name).first()
    found = find_by_name(namespace, adapter_name) if namespace and adapter_name else None
    if found is not None or not make_missing or namespace is None:
        return found, False
    adapter = commits.create_adapter(author=by, namespace=namespace, name=adapter_name)
    adapter.base_model = BaseModel.objects.named(base_model) if base_model else None
    adapter.base_model_label = base_model
    adapter.save(update_fields=["base_model", "base_model_label"])
    return adapter, True


def _task(prefix: str, name: str) -> Task:
    slug = task_sets.slug_of(f"{prefix}{name}".replace("_", "-"))
    title = name.replace("_", " ").strip().capitalize()
    task, _ = Task.objects.get_or_create(slug=slug, defaults={"title": title, "metric": METRIC})
    if task.is_private:
        raise BadTable(
            f"The task {slug} is private. Scores of others stand beside tasks that everybody sees."
        )
    return task
