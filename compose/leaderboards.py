"""Ranking what was composed for a task, on the task's own hidden rows, and what others say of their modules beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db.models import Count, F, Max, OuterRef, QuerySet, Subquery

from compose import naming
from compose.charts import METHOD_MEANINGS, method_label
from compose.engine.metrics import best_of
from compose.models import Candidate, Composition, Score
from registry.models import Adapter, AdapterScore, Task, TaskRevision, TaskRow
from registry.models.tasks import is_higher_better
from registry.rights import Person, owns
from web.errors import NotFound
from web.templatetags.formatting import plural

HELD_OUT = "held_out"
LEAVE_ONE_OUT = "leave_one_out"
BEST_SINGLE = "best_single"
SHOWN = 100
SOURCES = ("all", "verified", "reported")


@dataclass(frozen=True)
class Entry:
    """One row of a leaderboard. `rank` is empty for baselines, which are lines to beat, and for what others report.

    `score` is what `low`, `high` and `n` may be missing of only where it was reported. `url` is where the row leads.
    """

    rank: int | None
    label: str
    value: float
    low: float | None
    high: float | None
    n: int | None
    metric: str
    method: str
    base_model: str
    url: str
    is_baseline: bool = False
    is_mine: bool = False
    is_verified: bool = True
    is_published: bool = True
    note: str = ""
    module: str = ""  # full name of the module that answered, for the best single one; `url` leads to it

    @property
    def kind(self) -> str:
        if self.is_baseline:
            return "baseline"
        return "composed" if self.is_verified else "reported"


@dataclass(frozen=True)
class Board:
    """A task's leaderboard. `entries` are the first SHOWN and those of the person who looks; `total` counts all."""

    task: Task
    revision: TaskRevision | None
    revisions: list[TaskRevision]
    hidden: int
    entries: list[Entry]
    total: int
    verified: int
    reported: int
    source: str

    @property
    def metric(self) -> str:
        """Of every entry: the revision's own; a task without rows has only what others report by its metric."""
        return self.revision.metric if self.revision is not None else self.task.metric

    @property
    def higher_is_better(self) -> bool:
        return is_higher_better(self.metric)

    @property
    def has_intervals(self) -> bool:
        return any(entry.low is not None for entry in self.entries)

    @property
    def has_row_counts(self) -> bool:
        return any(entry.n for entry in self.entries)


def board(task: Task, person: Person, *, revision: str = "", source: str = "", whole: bool = False) -> Board:
    """The leaderboard of one revision of a task, the newest unless another is named by its number.

    `source` is one of SOURCES. Raises NotFound for a revision or source that there is not.
    """
    if source and source not in SOURCES:
        raise NotFound(f"A leaderboard shows {', '.join(SOURCES)}, not {source[:40]!r}.")
    revisions = list(task.revisions.order_by("-number").defer("few_shot", "test"))
    chosen = _revision(task, revisions, revision)
    is_newest = chosen is None or chosen.pk == revisions[0].pk
    hidden = _hidden(task, chosen)
    ours = _verified(task, person, chosen, hidden=hidden)
    # What people report names no revision: it stands beside the newest.
    theirs = _reported(task, person, chosen.metric if chosen else task.metric) if is_newest else []
    wanted = {"verified": ours, "reported": theirs}.get(source, ours + theirs)
    sign = -1 if is_higher_better(chosen.metric if chosen else task.metric) else 1
    entries = sorted(wanted, key=lambda entry: (sign * entry.value, entry.is_baseline))
    shown = entries if whole else [
        entry for place, entry in enumerate(entries) if place < SHOWN or entry.is_mine
    ]  # fmt: skip
    return Board(
        task=task,
        revision=chosen,
        revisions=revisions,
        hidden=hidden,
        entries=shown,
        total=len(entries),
        verified=sum(not entry.is_baseline for entry in ours),
        reported=len(theirs),
        source=source or "all",
    )


def _revision(task: Task, revisions: Sequence[TaskRevision], number: str) -> TaskRevision | None:
    if not number:
        return revisions[0] if revisions else None
    found = next((revision for revision in revisions if str(revision.number) == number), None)
    if found is None:
        raise NotFound(f"{task.slug} has no revision {number[:20]!r}.")
    return found


def _hidden(task: Task, chosen: TaskRevision | None) -> int:
    if chosen is None:
        return 0
    return len(TaskRevision.objects.values_list("test", flat=True).get(pk=chosen.pk))


def _verified(task: Task, person: Person, revision: TaskRevision | None, *, hidden: int) -> list[Entry]:
    """Scores by this revision's metric on all its hidden rows, computed here, of compositions that this person may see.

    Equal scores share a rank and the older comes first. What a composition was compared with is a baseline, there once
    for each base model: the same model on the same rows gives the same number, and where it depends on the candidates
    (best single, uniform, LoraHub beside another method) the best one stands.
    """
    if revision is None:
        return []
    compositions = Composition.objects.visible_to(person).filter(
        task=task, task_revision=revision, status=Composition.Status.SUCCEEDED
    )
    scores = list(
        Score.objects.filter(
            composition__in=compositions,
            composition__has_hidden_test=True,
            split=HELD_OUT,
            metric=revision.metric,
            n=hidden,
        )
        .select_related("composition", "composition__owner", "composition__base_model")
        .prefetch_related(naming.published(person, "composition__adapter"))
        .defer(
            "composition__examples", "composition__test_examples", "composition__predictions", "composition__result",
            "composition__base_model__config", "composition__base_model__matrices",
        )
        .order_by("-value" if is_higher_better(revision.metric) else "value", "composition__created_at")
    )  # fmt: skip
    ours = [score for score in scores if score.method == score.composition.method]
    baselines = _best_of_each(score for score in scores if score.method != score.composition.method)
    modules = _best_modules([score.composition for score in baselines if score.method == BEST_SINGLE], person)
    return _ranked(ours, task, person) + [_baseline(score, modules) for score in baselines]


def _best_of_each(scores: Iterable[Score]) -> list[Score]:
    """The first score of each method and base model; they come best first."""
    kept: dict[tuple[str, int], Score] = {}
    for score in scores:
        kept.setdefault((score.method, score.composition.base_model_id), score)
    return list(kept.values())


def _ranked(scores: list[Score], task: Task, person: Person) -> list[Entry]:
    entries: list[Entry] = []
    for position, score in enumerate(scores, 1):
        before = entries[-1] if entries else None
        is_tie = before is not None and before.value == score.value
        composition = score.composition
        adapter = (
            composition.adapter
        )  # where this person may be told of it; of one that is deleted no name stays
        is_gone = adapter is not None and adapter.deleted_at is not None
        entry = _entry(score, label=composition.title if adapter is None or is_gone else adapter.full_name)
        entries.append(
            replace(
                entry,
                rank=before.rank if is_tie and before else position,
                is_mine=owns(person, composition.owner_id),
                is_published=composition.adapter_id is not None and not is_gone,
                note=_note(composition, task),
            )
        )
    return entries


def _note(composition: Composition, task: Task) -> str:
    how = f"{method_label(composition.method)}, at most {plural(composition.budget, 'trial,trials')}, seed {composition.seed}"
    # Honest people do well too; whoever reads the board should know it all the same.
    is_makers = task.created_by_id is not None and composition.owner_id == task.created_by_id
    return f"{how}; by the maker of the task, who knows its hidden rows" if is_makers else how


def _best_modules(compositions: Sequence[Composition], person: Person) -> dict[str, Adapter]:
    """By composition, the module that had the lowest loss on its examples, where this person may see it."""
    candidates = (
        Candidate.objects.filter(composition__in=compositions, audition_loss__isnull=False)
        .select_related("revision__adapter__namespace")
        .defer("revision__facts", "revision__warnings")
        .order_by("-audition_loss", "-position")
    )
    best = {candidate.composition_id: candidate.revision.adapter for candidate in candidates}
    seen = set(
        Adapter.objects.visible_to(person)
        .filter(pk__in=[adapter.pk for adapter in best.values()])
        .values_list("pk", flat=True)
    )
    return {composition: adapter for composition, adapter in best.items() if adapter.pk in seen}


def _baseline(score: Score, modules: dict[str, Adapter]) -> Entry:
    entry = _entry(score, label=method_label(score.method))
    note = METHOD_MEANINGS.get(score.method, "")
    module = modules.get(score.composition_id) if score.method == BEST_SINGLE else None
    if module is None:
        return replace(entry, is_baseline=True, note=note)
    return replace(entry, is_baseline=True, note=note, module=module.full_name, url=module.get_absolute_url())


def _entry(score: Score, *, label: str) -> Entry:
    return Entry(
        rank=None,
        label=label,
        value=score.value,
        low=score.low,
        high=score.high,
        n=score.n,
        metric=score.metric,
        method=score.method,
        base_model=score.composition.base_model.name,
        url=score.composition.get_absolute_url(),
    )


def _reported(task: Task, person: Person, metric: str) -> list[Entry]:
    """What others say of their modules by this metric, of those that this person may see."""
    rows = (
        AdapterScore.objects.filter(
            task=task,
            source=AdapterScore.Source.REPORTED,
            metric=metric,
            adapter__in=Adapter.objects.visible_to(person),
        )
        .select_related("adapter__namespace", "adapter__base_model")
        .defer("adapter__base_model__config", "adapter__base_model__matrices")
        .order_by("adapter_id")  # of equal ones the older first, as above
    )
    return [
        Entry(
            rank=None,
            label=row.adapter.full_name,
            value=row.value,
            low=row.low,
            high=row.high,
            n=row.n,
            metric=row.metric,
            method="module",
            base_model=row.adapter.base_model.name
            if row.adapter.base_model
            else row.adapter.base_model_label,
            url=row.adapter.get_absolute_url(),
            is_mine=owns(person, row.adapter.created_by_id),
            is_verified=False,
            note=row.note,
        )
        for row in rows
    ]


def with_best(tasks: QuerySet[Task], person: Person) -> QuerySet[Task]:
    """Tasks with `best_value` and `zero_shot_value`: the best on all hidden rows of the newest revision, or None.

    By its metric, of compositions that this person may see.
    """
    newest = TaskRevision.objects.filter(task=OuterRef("composition__task")).order_by("-number")
    hidden = (
        TaskRow.objects.filter(task=OuterRef("composition__task"), split=TaskRow.Split.TEST)
        .order_by()
        .values("task")
        .annotate(rows=Count("pk"))
    )
    scores = Score.objects.filter(
        composition__in=Composition.objects.visible_to(person).filter(status=Composition.Status.SUCCEEDED),
        composition__task=OuterRef("pk"),
        composition__has_hidden_test=True,
        composition__task_revision=Subquery(newest.values("pk")[:1]),
        n=Subquery(hidden.values("rows")),
        split=HELD_OUT,
        metric=F("composition__task_revision__metric"),
    ).order_by("-value")
    own, zero_shot = scores.filter(method=F("composition__method")), scores.filter(method="zero_shot")
    return tasks.annotate(
        best_value=Subquery(own.values("value")[:1]), zero_shot_value=Subquery(zero_shot.values("value")[:1])
    )


@dataclass(frozen=True)
class Gain:
    """A composition with its own score and the best of its baselines, all by the composition's metric.

    `baseline` is one of `ties` that are the best.
    """

    composition: Composition
    ours: Score
    baseline: Score
    ties: int
    scores: list[Score]

    @property
    def value(self) -> float:
        return self.ours.value - self.baseline.value


def best_gains(compositions: QuerySet[Composition], limit: int) -> list[Gain]:
    """Succeeded compositions by what they gained over their best baseline on held-out rows, one for each task that is not
    in quarantine.

    On as many rows as a task has to hide: of those with fewer, one that chance favoured would always be the first.
    """
    scores = Score.objects.filter(
        composition=OuterRef("pk"),
        metric=OuterRef("metric"),
        split=HELD_OUT,
        n__gte=settings.MIN_TASK_HIDDEN_ROWS,
    )
    own = scores.filter(method=OuterRef("method")).values("value")[:1]
    best_baseline = (
        scores.exclude(method=OuterRef("method"))
        .values("composition")
        .annotate(best=Max("value"))
        .values("best")
    )
    ranked = (
        compositions.filter(status=Composition.Status.SUCCEEDED, task__quarantined_at=None)
        .annotate(gain=Subquery(own) - Subquery(best_baseline))
        .filter(gain__isnull=False)
        .order_by("-gain", "created_at")
    )
    best: dict[Any, str] = {}  # by task, or by itself where there is none
    for pk, task in ranked.values_list("pk", "task_id").iterator():
        # One task may have hundreds before the next task's first.
        best.setdefault(task or pk, pk)
        if len(best) == limit:
            break
    found = (
        Composition.objects.select_related("adapter__namespace")
        .prefetch_related("scores", "candidates")
        .defer("examples", "test_examples", "predictions")
        .in_bulk(best.values())
    )
    return [gain for pk in best.values() if (gain := gain_of(found[pk])) is not None]


def estimate_of(composition: Composition) -> Score | None:
    """What an unscored composition reaches on its own examples, each left out in turn; None where that was not measured."""
    return next(
        (
            score
            for score in composition.scores.all()
            if (score.method, score.metric, score.split)
            == (composition.method, composition.metric, LEAVE_ONE_OUT)
        ),
        None,
    )


def gain_of(composition: Composition) -> Gain | None:
    """What a composition gained over its best baseline, None where it has no held-out scores."""
    scores = [
        score
        for score in composition.scores.all()
        if score.split == HELD_OUT and score.metric == composition.metric
    ]
    ours = next((score for score in scores if score.method == composition.method), None)
    baselines = {score.method: score for score in scores if score.method != composition.method}
    if ours is None or not baselines:
        return None
    best = best_of({name: score.value for name, score in baselines.items()})
    return Gain(
        composition=composition, ours=ours, baseline=baselines[best[0]], ties=len(best), scores=scores
    )
