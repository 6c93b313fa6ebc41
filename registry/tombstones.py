"""What is left of adapters and namespaces that were deleted: the name, which is not handed out again, and what lineage needs.

That is who published what and when, the commits with their hashes and shapes, and where it was imported from. What somebody
wrote about it and its files go; the sweep takes the bytes that nothing else refers to.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from registry.models import (
    Adapter,
    AdapterText,
    Namespace,
    Ref,
    Revision,
    RevisionFile,
    WeightStatistics,
)
from web.database import take_for_deletion

# Which files (`RevisionFile`) of a deleted adapter stay: whoever stands above this app and still needs some adds a function.
STILL_NEEDED: list[Callable[[], Q]] = []


def bury(adapters: QuerySet[Adapter]) -> int:
    """Delete these adapters and what they hold; how many were still there. Inside a transaction.

    Who composes with one is waited for, or finds it gone.
    """
    take_for_deletion(adapters)
    closed = adapters.alive().update(deleted_at=timezone.now())  # type: ignore[attr-defined]
    _clear(adapters)
    return closed


def close_namespace(namespace: Namespace) -> int:
    """Delete a namespace with its adapters, how many there were. Inside a transaction."""
    closed = bury(Adapter.objects.filter(namespace=namespace))
    Namespace.objects.filter(pk=namespace.pk).update(
        full_name="", about="", website="", deleted_at=timezone.now()
    )
    return closed


def sweep() -> int:
    """Clear what was deleted when more was kept, and let go of files that are not needed any more; how many files."""
    gone = Adapter.objects.exclude(deleted_at=None)
    with transaction.atomic():
        uncleared = gone.filter(Exists(Ref.objects.filter(adapter=OuterRef("pk"))))
        cleared = _clear(Adapter.objects.filter(pk__in=list(uncleared.values_list("pk", flat=True))))
        return cleared + _let_go_of_files(gone)


def _clear(adapters: QuerySet[Adapter]) -> int:
    adapters.update(
        description="", tags=[], dataset="", dataset_revision="", training="", leakage="", prompt_template="",
        base_model_label="",
    )  # fmt: skip
    revisions = Revision.objects.filter(adapter__in=adapters)
    AdapterText.objects.filter(adapter__in=adapters).update(card="")
    Ref.objects.filter(adapter__in=adapters).delete()
    WeightStatistics.objects.filter(revision__in=revisions).delete()
    revisions.update(message="", description="", warnings=[])
    return _let_go_of_files(adapters)


def _let_go_of_files(adapters: QuerySet[Adapter]) -> int:
    files = RevisionFile.objects.filter(revision__adapter__in=adapters)
    for still_needed in STILL_NEEDED:
        files = files.exclude(still_needed())
    return files.delete()[0]
