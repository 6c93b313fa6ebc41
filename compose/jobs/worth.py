"""What boards and the start page order compositions by, written into the row of each as it ends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now

from compose.models import HELD_OUT, Composition, Measured, Score
from registry.models import TaskRevision

AN_UPGRADE = timedelta(days=1)  # as long as workers of the version before may go on
_OWN = ("method", "metric", "gain", "board_score", "has_hidden_test")
_READ = (*_OWN, "task_revision__metric", "task_revision__test")


def gain(composition: Composition, scores: Iterable[Measured]) -> float | None:
    """Its own score less that of the best other method; None of fewer rows than a task has to hide, where one that chance
    favoured would always be the best.
    """
    values = {
        score.method: score.value
        for score in composition.on_held_out(scores)
        if score.n >= settings.MIN_TASK_HIDDEN_ROWS
    }
    own = values.pop(composition.method, None)
    return None if own is None or not values else own - max(values.values())


def board_score(composition: Composition, scores: Iterable[Measured], revision: TaskRevision) -> float | None:
    """As `compose.leaderboards` reads it from the scores."""
    wanted = (composition.method, HELD_OUT, revision.metric, len(revision.test))
    own = (score.value for score in scores if (score.method, score.split, score.metric, score.n) == wanted)
    return next(own, None)


def write_what_is_missing() -> int:
    """Of compositions that workers of the version before ended after the database was upgraded: how many."""
    ended = Composition.objects.filter(
        status=Composition.Status.SUCCEEDED, finished_at__gte=Now() - AN_UPGRADE
    )
    scored = Score.objects.filter(composition=OuterRef("pk"), split=HELD_OUT)
    missing = ended.filter(Q(gain=None) | Q(board_score=None, has_hidden_test=True)).filter(Exists(scored))
    rows = missing.select_related("task_revision").prefetch_related("scores").only(*_READ)
    written = 0
    for composition in rows.iterator(chunk_size=100):
        scores, revision = list(composition.scores.all()), composition.task_revision
        found = {
            "gain": gain(composition, scores),
            "board_score": board_score(composition, scores, revision)
            if revision is not None and composition.has_hidden_test
            else None,
        }
        if found != {"gain": composition.gain, "board_score": composition.board_score}:
            written += Composition.objects.filter(pk=composition.pk).update(**found)
    return written
