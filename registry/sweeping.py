"""The sweep of the storage: what nobody wants any more goes, and bytes that a died process left get a row or go too."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.utils import timezone

from registry import storage
from registry.models import Blob, SentBlob

logger = logging.getLogger(__name__)

TEMP_FILES_KEPT = timedelta(hours=1)
CACHED_BLOBS_KEPT = timedelta(days=7)
UNREFERENCED_BLOBS_KEPT = timedelta(days=1)
ORPHANS_ASKED_AT_ONCE = 500
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sweep_storage() -> tuple[int, int]:
    """Remove temporary files older than an hour and blobs that nothing refers to and nobody stored for a day.

    Also copies of blobs in this machine's cache that were not used for a week. Returns how many files and blobs.
    """
    temp_files = _sweep_temp_files()
    cutoff = timezone.now() - UNREFERENCED_BLOBS_KEPT
    if storage.is_on_disk():
        for orphan in orphans(older_than=cutoff):
            adopt(orphan)
    SentBlob.objects.filter(sent_at__lt=cutoff).delete()
    stale = list(storage.unreferenced().filter(last_stored_at__lt=cutoff).values_list("pk", flat=True))
    blobs = sum(storage.remove(pk, stored_until=cutoff) for pk in stale)
    if temp_files or blobs:
        logger.info("swept %d temporary files and %d blobs", temp_files, blobs)
    return temp_files, blobs


def orphans(*, older_than: datetime) -> Iterator[StoredObject]:
    """Bytes without a row that were put before `older_than`: a process died between the two."""
    group: list[StoredObject] = []
    for found in stored_objects():
        if found.stored_at < older_than:
            group.append(found)
        if len(group) == ORPHANS_ASKED_AT_ONCE:
            yield from _without_row(group)
            group = []
    yield from _without_row(group)


def _without_row(group: list[StoredObject]) -> list[StoredObject]:
    names = [found.name.rpartition("/")[2] for found in group]
    known = Blob.objects.filter(sha256__in=names).values_list("sha256", flat=True)
    with_row = {storage.key(sha256) for sha256 in known}
    return [found for found in group if found.name not in with_row]


def adopt(orphan: StoredObject) -> None:
    """Give bytes without a row one that nobody stored for a day, so that the sweep may take them, or an upload them.

    Deleted without a row they could be those of an upload that is about to write it.
    """
    sha256 = orphan.name.rpartition("/")[2]
    if orphan.name != storage.key(sha256) or not _SHA256.fullmatch(sha256):
        return  # nothing of ours
    blob = Blob(sha256=sha256, size_bytes=orphan.size_bytes, last_stored_at=orphan.stored_at)
    digests = storage.digest_of(storage.read_range(blob, 0, orphan.size_bytes), orphan.size_bytes)
    Blob.objects.get_or_create(
        sha256=sha256,
        defaults={
            "git_sha1": digests.git_sha1,
            "size_bytes": orphan.size_bytes,
            "last_stored_at": orphan.stored_at,
        },
    )


def remove_if_unwanted(sha256: str) -> bool:
    """Remove a blob that nothing refers to and nobody stored for a day; whether it was removed."""
    blob = Blob.objects.filter(sha256=sha256).first()
    cutoff = timezone.now() - UNREFERENCED_BLOBS_KEPT
    return blob is not None and storage.remove(blob.pk, stored_until=cutoff)


@dataclass(frozen=True)
class StoredObject:
    """Bytes in the storage, whether or not they have a row."""

    name: str
    size_bytes: int
    stored_at: datetime


def stored_objects() -> Iterator[StoredObject]:
    """Everything in the storage but half-written files, in no order that one could rely on."""
    files = storage.backend()
    if not isinstance(files, FileSystemStorage):
        for found in files.bucket.objects.all():  # type: ignore[attr-defined]
            yield StoredObject(found.key, found.size, found.last_modified)
        return
    root = Path(files.location)
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                state = path.stat()
                if not name.endswith(".part"):
                    stored_at = datetime.fromtimestamp(state.st_mtime, tz=UTC)
                    yield StoredObject(path.relative_to(root).as_posix(), state.st_size, stored_at)


def _sweep_cache() -> int:
    """Copies of blobs that this machine fetched from S3 and has not used for a week."""
    limit = time.time() - CACHED_BLOBS_KEPT.total_seconds()
    count = 0
    for path in (settings.WORKER_CACHE_DIR / "blobs").glob("*/*/*"):
        with suppress(FileNotFoundError):  # a sweep beside this one was quicker
            if path.stat().st_atime < limit:
                path.unlink()
                count += 1
    return count


def _sweep_temp_files() -> int:
    """Old files in UPLOAD_TMP_DIR, and half-written ones beside the blobs and in the worker's cache."""
    limit = time.time() - TEMP_FILES_KEPT.total_seconds()
    places = [(settings.UPLOAD_TMP_DIR, "*"), (settings.WORKER_CACHE_DIR / "blobs", "**/*.part")]
    files = storage.backend()
    if isinstance(files, FileSystemStorage):
        places.append((Path(files.location), "*/*/*.part"))
    count = _sweep_cache()
    for folder, pattern in places:
        for path in folder.glob(pattern):
            try:
                if path.lstat().st_mtime >= limit:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except FileNotFoundError:
                continue
            count += 1
    return count
