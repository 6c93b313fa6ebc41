"""Whether the database and the storage agree: every row has its bytes, every bytes their hash and their row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from django.utils import timezone

from registry import storage, sweeping
from registry.models import Blob

MISSING = "missing"
WRONG_SIZE = "wrong size"
WRONG_HASH = "wrong hash"
ORPHAN = "orphan"
FOREIGN = "foreign"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `users` says what refers to the blob, as "3 revision files"; empty: nothing does."""

    kind: str
    name: str
    users: tuple[str, ...] = ()
    blob: Blob | None = None
    orphan: sweeping.StoredObject | None = None

    def __str__(self) -> str:
        wanted = f", wanted by {' and '.join(self.users)}" if self.users else ""
        return f"{self.kind}: {self.name}{wanted}"


def check(*, hashes: bool = True) -> Iterator[Finding]:
    """Everything that is wrong, as it is found. With `hashes` all bytes are read; without, only sizes are compared."""
    found = {thing.name: thing for thing in sweeping.stored_objects()}
    expected = set()
    for blob in Blob.objects.order_by("pk").iterator(chunk_size=500):
        name = storage.key(blob.sha256)
        expected.add(name)
        kind = _wrong(blob, found.get(name), hashes=hashes)
        if kind and Blob.objects.filter(pk=blob.pk).exists():  # not swept meanwhile
            yield Finding(kind, name, users(blob), blob=blob)
    for name, thing in found.items():
        if name in expected or name.startswith(storage.DAMAGED):
            continue
        sha256 = name.rpartition("/")[2]
        if storage.key(sha256) != name:
            yield Finding(FOREIGN, name, orphan=thing)
        elif not Blob.objects.filter(sha256=sha256).exists():  # not stored meanwhile
            yield Finding(ORPHAN, name, orphan=thing)


def _wrong(blob: Blob, thing: sweeping.StoredObject | None, *, hashes: bool) -> str:
    if thing is None:
        # Listed before the row was read: it may have come since.
        return "" if storage.has_bytes(blob) else MISSING
    if thing.size_bytes != blob.size_bytes:
        return WRONG_SIZE
    if not hashes:
        return ""
    sha256 = hashlib.sha256()
    try:
        for piece in storage.read_range(blob, 0, blob.size_bytes):
            sha256.update(piece)
    except (OSError, storage.BytesMissing):
        return MISSING if not storage.has_bytes(blob) else WRONG_HASH
    return "" if sha256.hexdigest() == blob.sha256 else WRONG_HASH


def users(blob: Blob) -> tuple[str, ...]:
    """What refers to a blob, counted by kind."""
    counts = []
    for relation in storage.references():
        model = relation.related_model
        count = model._default_manager.filter(**{relation.field.name: blob}).count()
        if count:
            words = model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural
            counts.append(f"{count} {words}")
    return tuple(counts)


def repair(finding: Finding) -> str:
    """What was done about it in words; empty if nothing can be done here without losing what somebody wants.

    An orphan older than a day is removed by the way of the sweep. A row without bytes that nothing refers to goes. Bytes
    with the wrong content go, so that the next upload of the right ones heals the blob: they could be served to nobody.
    """
    if finding.orphan is not None and finding.kind == ORPHAN:
        cutoff = timezone.now() - sweeping.UNREFERENCED_BLOBS_KEPT
        if finding.orphan.stored_at >= cutoff:
            return ""
        sweeping.adopt(finding.orphan)
        return "removed" if sweeping.remove_if_unwanted(finding.name.rpartition("/")[2]) else ""
    if finding.blob is None:
        return ""
    if finding.kind in {WRONG_SIZE, WRONG_HASH}:
        storage.put_aside(finding.blob)
        if not finding.users and sweeping.remove_if_unwanted(finding.blob.sha256):
            return "put aside, and its row removed: nothing wanted it"
        return "put aside; send the same file again to heal it"
    if not finding.users and sweeping.remove_if_unwanted(finding.blob.sha256):
        return "its row removed: nothing wanted it"
    return ""


def is_healed(finding: Finding) -> bool:
    """Whether nothing is left of it to worry about; bytes put aside leave a blob that somebody wants without bytes."""
    return not finding.users
