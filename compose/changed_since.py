"""What a result is made of or scored on that is otherwise now, in sentences: for its page, and for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db.models import QuerySet

from compose.engine.wording import first_of
from compose.models import Candidate, Composition
from registry.models import Task

NAMED = 3  # modules in one sentence


def with_modules(candidates: QuerySet[Candidate]) -> QuerySet[Candidate]:
    """Each with its module as it was taken and as it is now, without what was read from their files."""
    return candidates.select_related("revision__adapter__namespace", "revision__adapter__head").defer(
        "revision__facts", "revision__warnings", "revision__adapter__head__facts", "revision__adapter__head__warnings"
    )  # fmt: skip


def changed_since(
    composition: Composition, *, task: Task | None, candidates: Sequence[Candidate], named: set[int]
) -> list[str]:
    """Nothing before there is a result. `task` where the reader may be told of it; `named` as `naming` has it.

    Of a module that the reader may not see nothing is told, not even that something happened to it.
    """
    if composition.status != Composition.Status.SUCCEEDED:
        return []
    taken = [each for each in candidates if each.mixing_weight and each.revision.adapter_id in named]
    found = [_of_the_task(composition, task), _of_the_base(composition), *_of_modules(composition, taken)]
    return [sentence for sentence in found if sentence]


def _of_the_task(composition: Composition, task: Task | None) -> str:
    numbers: dict[int | None, int] = dict(task.revisions.values_list("pk", "number")) if task else {}
    used = numbers.get(composition.task_revision_id)
    if task is None or used is None or used == max(numbers.values()):
        return ""
    return (
        f"{task.title} has other rows or another metric since: this is scored on its revision {used}, and the newest "
        f"is {max(numbers.values())}. Each has a leaderboard of its own."
    )


def _of_the_base(composition: Composition) -> str:
    base_model = composition.base_model
    if not base_model.is_hosted or composition.base_commit == base_model.commit:
        return ""
    return (
        f"The files of {base_model.name} changed since: this is made for those of then, and scored with them."
    )


def _of_modules(composition: Composition, taken: Sequence[Candidate]) -> list[str]:
    gone = [each for each in taken if each.revision.adapter.deleted_at is not None]
    renewed = [each for each in taken if each not in gone and _has_newer_weights(each, composition)]
    has = "has" if len(renewed) == 1 else "have"
    return [
        f"Deleted since: {_names(gone)}. What was made of it stays." if gone else "",
        f"{_names(renewed)} {has} newer weights since: this is made of those of then." if renewed else "",
    ]


def _has_newer_weights(candidate: Candidate, composition: Composition) -> bool:
    # A version that was picked when there was a newer one is what its owner wanted.
    head = candidate.revision.adapter.head
    return (
        head is not None
        and head.created_at > composition.created_at
        and head.tensor_sha256 != candidate.revision.tensor_sha256
    )


def _names(candidates: Iterable[Candidate]) -> str:
    return first_of((candidate.revision.adapter.full_name for candidate in candidates), most=NAMED)
