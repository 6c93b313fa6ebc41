"""Ranking what was composed for a task, on the task's own hidden rows, and what others say of their modules beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery

from compose import naming
from compose.charts import METHOD_MEANINGS, method_label
from compose.engine.metrics import best_of
from compose.models import HELD_OUT, Candidate, Composition, Score
from registry.models import Adapter, AdapterScore, Task, TaskRevision
from registry.models.tasks import is_higher_better
from registry.rights import Person, owns
from web.errors import NotFound
from web.templatetags.formatting import plural

LEAVE_ONE_OUT = "leave_one_out"
BEST_SINGLE = "best_single"
SHOWN = 100
FIRST_GAINS = 100
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


class NoSuchSource(NotFound):
    """Scores of neither kind: on a page, an address that there is not."""

    def __init__(self, given: str) -> None:
        super().__init__(f"A leaderboard shows {', '.join(SOURCES)}, not {given[:40]!r}.")


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

    `source` is one of SOURCES. Raises NotFound for a revision that there is not, NoSuchSource.
    """
    if source and source not in SOURCES:
        raise NoSuchSource(source)
    revisions = list(task.revisions.order_by("-number").defer("few_shot", "test"))
    chosen = _revision(task, revisions, revision)
    is_newest = chosen is None or chosen.pk == revisions[0].pk
    hidden = _hidden(task, chosen)
    ours, verified = _verified(task, person, chosen, hidden=hidden, whole=whole)
    # What people report names no revision: it stands beside the newest.
    theirs = _reported(task, person, chosen.metric if chosen else task.metric) if is_newest else []
    wanted = {"verified": ours, "reported": theirs}.get(source, ours + theirs)
    not_read = 0 if source == "reported" else verified - sum(not entry.is_baseline for entry in ours)
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
        total=len(entries) + not_read,
        verified=verified,
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


def _verified(
    task: Task, person: Person, revision: TaskRevision | None, *, hidden: int, whole: bool
) -> tuple[list[Entry], int]:
    """Scores by this revision's metric on all its hidden rows, computed here, of compositions that this person may see.

    Equal scores share a rank and the older comes first. What a composition was compared with is a baseline, there once
    for each base model: the same model on the same rows gives the same number, and where it depends on the candidates
    (best single, uniform, LoraHub beside another method) the best one stands. Of the compositions the first SHOWN and
    those of the person, or all, and how many there are.
    """
    if revision is None:
        return [], 0
    compositions = Composition.objects.visible_to(person).filter(
        task=task, task_revision=revision, status=Composition.Status.SUCCEEDED
    )
    scores = Score.objects.filter(
        composition__in=compositions,
        composition__has_hidden_test=True,
        split=HELD_OUT,
        metric=revision.metric,
        n=hidden,
    )
    by_value = "-value" if is_higher_better(revision.metric) else "value"
    ranks, baselines, total = _order(
        scores.order_by(by_value, "composition__created_at"), person, whole=whole
    )
    found = (
        scores.select_related("composition", "composition__base_model")
        .prefetch_related(naming.published(person, "composition__adapter"))
        .defer(
            "composition__examples", "composition__test_examples", "composition__predictions", "composition__result",
            "composition__base_model__config", "composition__base_model__matrices",
        )
        .in_bulk([*ranks, *baselines])
    )  # fmt: skip
    best = [found[pk] for pk in baselines if pk in found]
    modules = _best_modules([score.composition for score in best if score.method == BEST_SINGLE], person)
    entries = [_ranked(found[pk], rank, task, person) for pk, rank in ranks.items() if pk in found]
    return entries + [_baseline(score, modules) for score in best], total


def _order(scores: QuerySet[Score], person: Person, *, whole: bool) -> tuple[dict[int, int], list[int], int]:
    """Of scores that come best first: those to be shown with their ranks, the best of each baseline, and how many
    compositions there are.

    By a few columns: there may be thousands, of which a page shows a hundred, and only those are read whole.
    """
    rows = scores.values_list(
        "pk", "value", "method", "composition__method", "composition__base_model", "composition__owner"
    )
    ranks: dict[int, int] = {}
    baselines: dict[tuple[str, int], int] = {}
    before, rank, total = None, 0, 0
    for pk, value, method, own_method, base_model, owner in rows:
        if method != own_method:
            baselines.setdefault((method, base_model), pk)
            continue
        total += 1
        before, rank = value, rank if value == before else total
        if whole or total <= SHOWN or owns(person, owner):
            ranks[pk] = rank
    return ranks, list(baselines.values()), total


def _ranked(score: Score, rank: int, task: Task, person: Person) -> Entry:
    composition = score.composition
    # Where this person may be told of it; of one that is deleted no name stays.
    adapter = composition.adapter
    is_gone = adapter is not None and adapter.deleted_at is not None
    entry = _entry(score, label=composition.title if adapter is None or is_gone else adapter.full_name)
    return replace(
        entry,
        rank=rank,
        is_mine=owns(person, composition.owner_id),
        is_published=composition.adapter_id is not None and not is_gone,
        note=_note(composition, task),
    )


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


def show_best(tasks: Sequence[Task], person: Person) -> None:
    """Give each of these tasks `best_value` and `zero_shot_value`: the best on all hidden rows of the newest revision by its
    metric, of compositions that this person may see, and what that one's base model reaches alone; or None.
    """
    newest = dict(TaskRevision.objects.filter(task__in=tasks).order_by("number").values_list("task_id", "pk"))
    ranked = Composition.objects.visible_to(person).filter(
        task_revision=OuterRef("pk"), status=Composition.Status.SUCCEEDED, board_score__isnull=False
    )
    first = Subquery(ranked.order_by("-board_score").values("pk")[:1])
    best = (
        TaskRevision.objects.filter(pk__in=newest.values())
        .annotate(best=first)
        .values_list("best", flat=True)
    )
    alone = Score.objects.filter(
        composition=OuterRef("pk"),
        method="zero_shot",
        split=HELD_OUT,
        metric=OuterRef("task_revision__metric"),
    )
    found = {
        task: values
        for task, *values in Composition.objects.filter(pk__in=list(best)).values_list(
            "task_revision__task", "board_score", Subquery(alone.values("value")[:1])
        )
    }
    for task in tasks:
        task.best_value, task.zero_shot_value = found.get(task.pk, (None, None))  # type: ignore[attr-defined]


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
    """
    ranked = compositions.filter(
        status=Composition.Status.SUCCEEDED, task__quarantined_at=None, gain__isnull=False
    ).order_by("-gain", "created_at")
    best: dict[Any, str] = {}  # by task, or by itself where there is none
    # Mostly a few are enough, which the index has at hand; but one task may have hundreds before the next task's first.
    parts = (ranked[:FIRST_GAINS], ranked[FIRST_GAINS:])
    rows = chain.from_iterable(part.values_list("pk", "task_id").iterator() for part in parts)
    for pk, task in rows:
        best.setdefault(task or pk, pk)
        if len(best) == limit:
            break
    found = (
        Composition.objects.select_related("adapter__namespace")
        .prefetch_related("scores", "candidates")
        .defer("examples", "test_examples", "predictions")
        .in_bulk(best.values())
    )
    # One that is deleted in this moment is not found any more.
    return [gain for pk in best.values() if pk in found and (gain := gain_of(found[pk])) is not None]


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
    scores = composition.on_held_out(composition.scores.all())
    ours = next((score for score in scores if score.method == composition.method), None)
    baselines = {score.method: score for score in scores if score.method != composition.method}
    if ours is None or not baselines:
        return None
    best = best_of({name: score.value for name, score in baselines.items()})
    return Gain(
        composition=composition, ours=ours, baseline=baselines[best[0]], ties=len(best), scores=scores
    )
