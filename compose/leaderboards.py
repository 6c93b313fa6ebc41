"""Ranking what was composed for a task, on the task's own hidden rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import F, Max, OuterRef, QuerySet, Subquery

from compose.charts import METHOD_MEANINGS, method_label
from compose.models import Composition, Score
from registry.models import Task
from registry.rights import Person

HELD_OUT = "held_out"
BASELINES = ("zero_shot", "best_single", "uniform", "in_context")


@dataclass(frozen=True)
class Entry:
    """One row of a leaderboard. `rank` is empty for baselines: they are lines to beat, not competitors.

    `composition` made the number; for a baseline it is one of those that measured it.
    """

    rank: int | None
    label: str
    score: Score
    composition: Composition
    is_baseline: bool
    is_mine: bool
    note: str = ""


def leaderboard(task: Task, person: Person) -> list[Entry]:
    """Composed adapters and baselines for `task`, best first.

    Counted are scores that we computed on all of the task's hidden rows, of compositions that this person may
    see. Equal scores share a rank and the older comes first. A baseline is there once: the same model on the same rows
    gives the same number, and where it depends on the candidates (best single, uniform) the best one stands.
    """
    hidden = task.rows.filter(split="test").count()
    scores = list(
        Score.objects.filter(
            composition__in=Composition.objects.visible_to(person).filter(
                task=task, status=Composition.Status.SUCCEEDED
            ),
            composition__has_hidden_test=True,
            split=HELD_OUT,
            n=hidden,
        )
        .select_related(
            "composition", "composition__owner", "composition__base_model", "composition__adapter__namespace"
        )
        .defer("composition__examples", "composition__test_examples", "composition__predictions")
        .order_by("-value", "composition__created_at")
    )
    ours = [score for score in scores if score.method == score.composition.method]
    baselines = _best_of_each(score for score in scores if score.method in BASELINES)
    entries = _ranked(ours, person) + [_baseline(score) for score in baselines]
    return sorted(entries, key=lambda entry: (-entry.score.value, entry.is_baseline))


def _best_of_each(scores: Iterable[Score]) -> list[Score]:
    """The first score of each method and base model; they come best first."""
    kept: dict[tuple[str, int], Score] = {}
    for score in scores:
        kept.setdefault((score.method, score.composition.base_model_id), score)
    return list(kept.values())


def _ranked(scores: list[Score], person: Person) -> list[Entry]:
    entries: list[Entry] = []
    for position, score in enumerate(scores, 1):
        before = entries[-1] if entries else None
        is_tie = before is not None and before.score.value == score.value
        composition = score.composition
        entries.append(
            Entry(
                rank=before.rank if is_tie and before else position,
                label=composition.adapter.full_name if composition.adapter else composition.title,
                score=score,
                composition=composition,
                is_baseline=False,
                is_mine=person is not None and composition.owner_id == person.pk,
                note=f"{method_label(composition.method)}, {composition.budget} trials, seed {composition.seed}",
            )
        )
    return entries


def _baseline(score: Score) -> Entry:
    return Entry(
        rank=None,
        label=method_label(score.method),
        score=score,
        composition=score.composition,
        is_baseline=True,
        is_mine=False,
        note=METHOD_MEANINGS.get(score.method, ""),
    )


def with_best(tasks: QuerySet[Task], person: Person) -> QuerySet[Task]:
    """Tasks with `best_value`: the best held-out score of a composition this person may see, or None."""
    own = Score.objects.filter(
        composition__in=Composition.objects.visible_to(person).filter(status=Composition.Status.SUCCEEDED),
        composition__task=OuterRef("pk"),
        composition__has_hidden_test=True,
        method=F("composition__method"),
        split=HELD_OUT,
    ).order_by("-value")
    zero_shot = Score.objects.filter(
        composition__in=Composition.objects.visible_to(person).filter(status=Composition.Status.SUCCEEDED),
        composition__task=OuterRef("pk"),
        composition__has_hidden_test=True,
        method="zero_shot",
        split=HELD_OUT,
    ).order_by("-value")
    return tasks.annotate(
        best_value=Subquery(own.values("value")[:1]), zero_shot_value=Subquery(zero_shot.values("value")[:1])
    )


@dataclass(frozen=True)
class Gain:
    """A composition with its own score and the best of its baselines."""

    composition: Composition
    ours: Score
    baseline: Score
    scores: list[Score]

    @property
    def value(self) -> float:
        return self.ours.value - self.baseline.value


def best_gains(compositions: QuerySet[Composition], limit: int) -> list[Gain]:
    """Succeeded compositions by what they gained over their best baseline on held-out rows, one for each task."""
    own = Score.objects.filter(composition=OuterRef("pk"), method=OuterRef("method"), split=HELD_OUT).values(
        "value"
    )[:1]
    best_baseline = (
        Score.objects.filter(composition=OuterRef("pk"), split=HELD_OUT)
        .exclude(method=OuterRef("method"))
        .values("composition")
        .annotate(best=Max("value"))
        .values("best")
    )
    found = (
        compositions.filter(status=Composition.Status.SUCCEEDED)
        .annotate(gain=Subquery(own) - Subquery(best_baseline))
        .filter(gain__isnull=False)
        .select_related("adapter__namespace", "base_model", "task", "owner")
        .prefetch_related("scores", "candidates")
        .defer("examples", "test_examples", "predictions")
        .order_by("-gain", "created_at")
    )
    gains: list[Gain] = []
    tasks: set[int] = set()
    for composition in found[: 4 * limit]:
        if composition.task_id in tasks:
            continue
        if composition.task_id:
            tasks.add(composition.task_id)
        gain = gain_of(composition)
        if gain is not None and len(gains) < limit:
            gains.append(gain)
    return gains


def gain_of(composition: Composition) -> Gain | None:
    """What a composition gained over its best baseline, None where it has no held-out scores."""
    scores = [score for score in composition.scores.all() if score.split == HELD_OUT]
    ours = next((score for score in scores if score.method == composition.method), None)
    baselines = [score for score in scores if score.method != composition.method]
    if ours is None or not baselines:
        return None
    return Gain(
        composition=composition,
        ours=ours,
        baseline=max(baselines, key=lambda score: score.value),
        scores=scores,
    )
