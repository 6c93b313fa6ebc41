"""Blobs that are stored, wanted and swept at the same moment."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import partial
from typing import Any

from benchmarks.chaos.stage import Outcome, Stage, Trial, at_once


def same_blob_at_once(stage: Stage) -> Outcome:
    """eight store the same bytes at once and refer to them; then one after the other lets go"""
    from registry import storage, sweeping
    from registry.models import Blob, RevisionFile
    from tests.factories import make_revision

    wrong = []
    rounds = stage.times(100)
    revisions = [make_revision() for _ in range(8)]
    for number in range(rounds):
        content = f"the same {number} {stage.generator.random()}".encode()
        at_once([partial(storage.store_stream, [content])] * 8)
        blobs = Blob.objects.filter(size_bytes=len(content), sha256=_sha256(content))
        if blobs.count() != 1 or not storage.has_bytes(blobs[0]):
            wrong.append(f"round {number}: {blobs.count()} rows")
            continue
        blob = blobs[0]
        files = [
            RevisionFile.objects.create(revision=revision, path=f"extra {number}", blob=blob)
            for revision in revisions
        ]
        for file in files:
            age(blob)
            sweeping.sweep_storage()
            if not storage.has_bytes(blob):
                wrong.append(f"round {number}: gone while somebody wanted it")
            file.delete()
        age(blob)
        sweeping.sweep_storage()
        if storage.has_bytes(blob):
            wrong.append(f"round {number}: still there when nobody wants it")
    return Outcome(rounds, wrong, "1 blob each, kept as long as wanted, then gone")


def sweep_against_upload(stage: Stage) -> Outcome:
    """the sweep against an upload of the blob it is about to free"""
    from registry import storage, sweeping
    from registry.models import Blob

    wrong = []
    rounds = stage.times(500)
    for number in range(rounds):
        content = f"swept {number}".encode()
        age(storage.store_stream([content]))
        at_once([sweeping.sweep_storage, partial(storage.store_stream, [content])])
        blob = Blob.objects.filter(sha256=_sha256(content)).first()
        if blob is None or not storage.has_bytes(blob):
            wrong.append(f"round {number}: {'no row' if blob is None else 'row without bytes'}")
    return Outcome(rounds, wrong, "no row without bytes")


def age(blob: Any) -> None:
    """As if it had been stored two days ago."""
    from django.utils import timezone

    from registry.models import Blob

    Blob.objects.filter(pk=blob.pk).update(last_stored_at=timezone.now() - timedelta(days=2))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


TRIALS: dict[str, Trial] = {"F6": same_blob_at_once, "F7": sweep_against_upload}
