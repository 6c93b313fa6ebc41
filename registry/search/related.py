"""Looking things up from another thing: what an adapter composes with, where a file is."""

from __future__ import annotations

import re
from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery

from registry.models import Adapter, BaseModel, Revision, RevisionFile
from registry.rights import Person, sees_adapter
from registry.search.query import BadParameter
from web.kept_queries import KeptForGuests, text_of


def composes_with(adapter: Adapter, *, person: Person) -> QuerySet[Adapter]:
    """The other adapters that this person may see and this adapter can be composed with."""
    if not adapter.is_composable or adapter.is_quarantined or adapter.base_model is None:
        return Adapter.objects.none()
    family = Adapter.objects.visible_to(person).composable_with(adapter.base_model)
    return family.exclude(pk=adapter.pk).select_related("namespace", "task")


def fits_of(base_model: BaseModel, *, listed: int, person: Person) -> dict[str, int]:
    """Of the `listed` adapters for it that this person sees, how many came to which `Revision.BaseFit`.

    What can be composed fits, and is most of them: only the others are looked at.
    """
    others = Adapter.objects.visible_to(person).listed().filter(base_model=base_model, is_composable=False)
    unlike = others.exclude(head=None).exclude(head__base_fit=Revision.BaseFit.FITS).order_by()
    counts = dict.fromkeys(Revision.BaseFit.values, 0)
    counts |= dict(unlike.values_list("head__base_fit").annotate(Count("pk")))
    return counts | {Revision.BaseFit.FITS.value: max(listed - sum(counts.values()), 0)}


def revisions_with(sha256: str, *, person: Person) -> QuerySet[Revision]:
    """Revisions that this person may see and that have a file with this hash, or weights with this tensor hash.

    The tensor hash is of names, shapes and values alone, so it finds the same weights in another file. Each has
    `path`, the file's, or None where only the tensors are meant. Raises BadParameter.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise BadParameter("sha256", "A sha256 is 64 hex digits.")
    sha256 = sha256.lower()
    files = RevisionFile.objects.filter(blob__sha256=sha256).order_by()
    same_weights = Revision.objects.filter(tensor_sha256=sha256).order_by()
    own = files.filter(revision=OuterRef("pk")).order_by("path")
    return (
        Revision.objects.filter(sees_adapter(person, "adapter"))
        # Two lists of ids, each by its index; with "or" every revision there is would be looked at.
        .filter(pk__in=files.values("revision").union(same_weights.values("pk")))
        .annotate(path=Subquery(own.values("path")[:1]))
        .select_related("adapter__namespace")
        .defer("facts")
    )


def first_with_weights_of(revision: Revision, *, person: Person) -> Adapter | None:
    """Whose weights these are too: the adapter of which this person sees the first version with the same tensors.

    None where that is its own, or where it has no weights.
    """
    if not revision.tensor_sha256:
        return None
    found = _FIRST.rows(person, tensor_sha256=revision.tensor_sha256)
    return None if not found or found[0].adapter_id == revision.adapter_id else found[0].adapter


def _first_of(*, person: Person, tensor_sha256: Any) -> QuerySet[Revision]:
    visible = Adapter.objects.visible_to(person)
    alike = Revision.objects.filter(tensor_sha256=tensor_sha256, adapter__in=visible)
    return alike.select_related("adapter__namespace").defer("facts").order_by("created_at", "pk")[:1]


_FIRST = KeptForGuests(_first_of, text_of("tensor_sha256"))
