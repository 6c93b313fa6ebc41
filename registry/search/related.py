"""Looking things up from another thing: what an adapter composes with, where a file is, which tasks are shown."""

from __future__ import annotations

import re

from django.db.models import OuterRef, Q, QuerySet, Subquery

from registry.models import Adapter, Revision, RevisionFile, Task
from registry.rights import Person, may_moderate, namespaces_of
from registry.search.query import BadParameter
from web.errors import NotFound


def composes_with(adapter: Adapter, *, person: Person) -> QuerySet[Adapter]:
    """The other adapters that this person may see and this adapter can be composed with."""
    if not adapter.is_composable or adapter.base_model is None:
        return Adapter.objects.none()
    family = Adapter.objects.visible_to(person).composable_with(adapter.base_model)
    return family.exclude(pk=adapter.pk).select_related("namespace", "task")


def revisions_with(sha256: str, *, person: Person) -> QuerySet[Revision]:
    """Revisions that this person may see and that have a file with this hash, or weights with this tensor hash.

    The tensor hash is of names, shapes and values alone, so it finds the same weights in another file. Each has
    `path`, the file's, or None where only the tensors are meant. Raises BadParameter.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise BadParameter("sha256", "A sha256 is 64 hex digits.")
    sha256 = sha256.lower()
    files = RevisionFile.objects.filter(revision=OuterRef("pk"), blob__sha256=sha256).order_by("path")
    return (
        Revision.objects.filter(adapter__in=Adapter.objects.visible_to(person))
        .annotate(path=Subquery(files.values("path")[:1]))
        .filter(Q(path__isnull=False) | Q(tensor_sha256=sha256))
        .select_related("adapter__namespace")
    )


def visible_task(person: Person, slug: str) -> Task:
    """The task with this slug if this person may see it; a moderator also what is in quarantine. Raises NotFound."""
    rows = tasks_shown_to(person)
    if may_moderate(person):
        rows = Task.objects.filter(
            Q(pk__in=rows.values("pk")) | Q(is_held_out=True, quarantined_at__isnull=False)
        )
    found = rows.select_related("base_model", "owner", "created_by").filter(slug=slug).first()
    if found is None:
        raise NotFound(f"There is no task {slug[:100]!r} here.")
    return found


def tasks_shown_to(person: Person) -> QuerySet[Task]:
    """Tasks with rows, tasks of nobody in particular, and those of some adapter that this person may see.

    What is in quarantine is shown to members of the namespace it belongs to alone.
    """
    visible = Adapter.objects.visible_to(person).filter(task__isnull=False).order_by().values("task_id")
    found = Task.objects.filter(Q(is_held_out=True) | Q(owner=None) | Q(pk__in=visible))
    return found.filter(Q(quarantined_at=None) | Q(owner__in=namespaces_of(person)))
