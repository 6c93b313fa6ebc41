"""Blobs: bytes named by their sha256, stored once, on disk or in an S3-compatible store.

A blob's row is written after its bytes are in place and flushed, so a row always has its bytes. Whoever stores a
blob says so in `last_stored_at` before anything refers to it; the sweep removes only what nothing refers to and
nobody stored for a day, and holds the row while it does. So the two cannot cross.
"""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage, Storage, storages
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from registry.models import Blob
from web.disk import StorageBroken, StorageFull, failures_in_words
from web.errors import DomainError

__all__ = ["StorageBroken", "StorageFull", "failures_in_words"]  # of web.disk, for those who store
logger = logging.getLogger(__name__)

CHUNK_BYTES = 512 * 1024  # as fast as larger ones, and each transfer under way holds a few
MAX_GIT_BYTES = 32 * 1024**2  # larger files are known by their sha256 alone, as Git LFS has them
THREADED_BYTES = 256 * 1024  # below that, handing a chunk to threads takes longer than hashing it
DAMAGED = "damaged/"


class HashMismatch(DomainError):
    code = "hash_mismatch"

    def __init__(self, *, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(
            f"The bytes that arrived have the sha256 {found}, not {expected}. Send the file again."
        )


class BytesMissing(DomainError):
    """The row is there and its bytes are not: lost, or damaged and put aside. Our fault, hence the status."""

    code = "bytes_missing"
    status = 503

    def __init__(self, blob: Blob) -> None:
        logger.error("The bytes of blob %s are missing", blob.sha256)
        super().__init__(
            f"The bytes of this file (sha256 {blob.sha256[:12]}…) are lost or damaged on this server. Tell the people "
            "who run it; whoever has the file can send it again, and then it is back."
        )


@dataclass(frozen=True)
class Digests:
    """What bytes are called. `git_sha1`, git's blob id, is empty above MAX_GIT_BYTES: it costs as much as the sha256."""

    sha256: str
    git_sha1: str
    size_bytes: int


# --- Putting in ------------------------------------------------------------------------------------------


def require_free_space(size_bytes: int) -> None:
    """Raises StorageFull unless `size_bytes` can be taken and MIN_FREE_DISK_BYTES stay free."""
    if shutil.disk_usage(settings.UPLOAD_TMP_DIR).free < size_bytes + settings.MIN_FREE_DISK_BYTES:
        raise StorageFull


def temp_path() -> Path:
    """A new name in UPLOAD_TMP_DIR, from where a file is moved to its place without copying."""
    return cast(Path, settings.UPLOAD_TMP_DIR) / f"{secrets.token_hex(16)}.part"


def part_beside(place: Path) -> Path:
    """A new name next to `place`, for bytes on their way there; the sweep takes what is left under it."""
    return place.with_name(f"{place.name}.{secrets.token_hex(8)}.part")


def digest(path: Path, *, git_sha1: bool = False) -> Digests:
    """sha256 and git's blob id of a file, read once in pieces; `git_sha1` asks for the latter of a large one as well."""
    size_bytes = path.stat().st_size
    return digest_of(_pieces(path.open("rb"), 0, size_bytes), size_bytes, wants_git_sha1=git_sha1)


def digest_of(
    chunks: Iterable[bytes], size_bytes: int, *, into: BinaryIO | None = None, wants_git_sha1: bool = False
) -> Digests:
    """The digests of these bytes, which are said to be `size_bytes` long, and written to `into` if there is one.

    A thread hashes each large chunk while the next is read and the last is written: it takes as long as both.
    """
    sha256 = hashlib.sha256()
    hashes = [sha256]
    git_sha1 = None
    if wants_git_sha1 or size_bytes <= MAX_GIT_BYTES:
        git_sha1 = hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
        hashes.append(git_sha1)
    took = 0
    hashed: Future[None] | None = None
    with ThreadPoolExecutor(1, "digest") as pool:
        for chunk in chunks:
            if hashed is not None:
                hashed.result()  # so that no more than two chunks are held
            if len(chunk) < THREADED_BYTES:
                _update(hashes, chunk)
                hashed = None
            else:
                hashed = pool.submit(_update, hashes, chunk)
            if into is not None:
                into.write(chunk)
            took += len(chunk)
    return Digests(sha256.hexdigest(), git_sha1.hexdigest() if git_sha1 else "", took)


def _update(hashes: Iterable[hashlib._Hash], chunk: bytes) -> None:
    for one in hashes:
        one.update(chunk)


def store_file(path: Path, *, sha256: str | None = None, digests: Digests | None = None) -> Blob:
    """The blob with the bytes of `path`. A file below UPLOAD_TMP_DIR is moved; any other is copied and stays.

    Who has its `digests` already saves reading it again. Raises HashMismatch if `sha256` is given and differs,
    StorageFull if there is no space.
    """
    digests = digests or digest(path)
    if sha256 is not None and digests.sha256 != sha256.lower():
        raise HashMismatch(found=digests.sha256, expected=sha256.lower())
    with failures_in_words():
        return _store(path, digests)


def store_stream(
    chunks: Iterable[bytes], *, size_bytes: int | None = None, sha256: str | None = None
) -> Blob:
    """The blob with these bytes, which are never held in memory together and, where the size is told, read once.

    Raises HashMismatch if there are not `size_bytes` of them or their hash is not `sha256`, StorageFull.
    """
    path = temp_path()
    try:
        with failures_in_words(), path.open("wb") as file:
            digests = _write(chunks, file, size_bytes)
        if digests is None:
            return store_file(path, sha256=sha256)
        if size_bytes != digests.size_bytes or (sha256 or digests.sha256) != digests.sha256:
            raise HashMismatch(found=digests.sha256, expected=sha256 or f"of {size_bytes} bytes")
        with failures_in_words():
            return _store(path, digests)
    finally:
        path.unlink(missing_ok=True)


def _write(chunks: Iterable[bytes], file: BinaryIO, size_bytes: int | None) -> Digests | None:
    """Write all chunks; their digests if the size is told, which git's id needs before the first byte."""
    if size_bytes is not None:
        return digest_of(chunks, size_bytes, into=file)
    for chunk in chunks:
        file.write(chunk)
    return None


def discard(blobs: Iterable[Blob]) -> None:
    """Remove blobs that a refused request has just stored, unless something or somebody else wants them."""
    for blob in blobs:
        # Not "until then": whoever has stored the same bytes since may have a clock that is behind ours.
        _remove(blob.pk, last_stored_at=blob.last_stored_at)


def _store(path: Path, digests: Digests) -> Blob:
    _put_bytes(path, digests.sha256)
    blob = _say_stored(digests)
    # Between the two lines a sweep may have taken the old row and its bytes; from here on it cannot.
    if not backend().exists(key(digests.sha256)):
        _put_bytes(path, digests.sha256)
    if _is_ours(path):
        path.unlink(missing_ok=True)
    return blob


def _say_stored(digests: Digests) -> Blob:
    """The row of a blob whose bytes are in place; made if need be, in any case safe from the sweep for a day."""
    now = timezone.now()
    blob, created = Blob.objects.get_or_create(
        sha256=digests.sha256,
        defaults={
            "git_sha1": digests.git_sha1,
            "size_bytes": digests.size_bytes,
            "last_stored_at": now,
        },
    )
    if created:
        return blob
    if not Blob.objects.filter(pk=blob.pk).update(last_stored_at=now):
        return _say_stored(digests)  # swept between the two queries
    blob.last_stored_at = now
    return blob


def _put_bytes(path: Path, sha256: str) -> None:
    storage = backend()
    name = key(sha256)
    if not isinstance(storage, FileSystemStorage):
        if not storage.exists(name):
            with path.open("rb") as file:
                storage.save(name, File(file))
        return
    place = Path(storage.path(name))
    if place.exists():
        return
    _make_folder(place.parent)
    beside = part_beside(place)
    try:
        _link_or_copy(path, beside, may_link=_is_ours(path))
        beside.chmod(settings.FILE_UPLOAD_PERMISSIONS)
        _flush(beside)
        beside.replace(place)
        _flush(place.parent)
    finally:
        beside.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path, *, may_link: bool) -> None:
    """A second name for the bytes where the file system can, else a copy."""
    if may_link:
        try:
            target.hardlink_to(source)
            return
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES}:
                raise
    shutil.copyfile(source, target)


def _is_ours(path: Path) -> bool:
    """Whether a file lies in UPLOAD_TMP_DIR. Another's must not be linked: it may be written to later."""
    return path.resolve().is_relative_to(settings.UPLOAD_TMP_DIR.resolve())


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(path: Path) -> None:
    """Make a file's bytes, or a folder's names, outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- Taking out ------------------------------------------------------------------------------------------


def key(sha256: str) -> str:
    """A blob's name in the storage."""
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def is_away(error: BaseException) -> bool:
    """Whether this says that the object store did not answer, or could not: a moment later it may."""
    if "botocore" not in sys.modules:  # only where there is an object store
        return False
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, IncompleteReadError

    if isinstance(error, ClientError):
        return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500)
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError)


def is_on_disk() -> bool:
    return isinstance(backend(), FileSystemStorage)


def open_blob(blob: Blob) -> BinaryIO:
    """The blob's bytes, open for reading and seeking; the caller closes it. Raises BytesMissing."""
    storage = backend()
    try:
        if isinstance(storage, FileSystemStorage):
            return Path(storage.path(key(blob.sha256))).open("rb")
        return cast(BinaryIO, storage.open(key(blob.sha256), "rb"))
    except FileNotFoundError as error:
        raise BytesMissing(blob) from error


class FilePart(io.FileIO):
    """`length` bytes of a file from `start`, to be read or to be sent by the kernel, which asks only for the place."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        super().__init__(path)
        self.seek(start)
        self._left = length

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        found = super().read(wanted)
        self._left -= len(found)
        return found


def open_part(blob: Blob, start: int, length: int) -> FilePart:
    """A part of a blob that lies on disk; the caller closes it. Raises BytesMissing."""
    try:
        return FilePart(Path(backend().path(key(blob.sha256))), start, length)
    except FileNotFoundError as error:
        raise BytesMissing(blob) from error


def read_range(blob: Blob, start: int, length: int) -> Iterator[bytes]:
    """`length` bytes from `start` in pieces of at most CHUNK_BYTES, from disk or by a ranged request to S3.

    Raises BytesMissing, here and not at the first piece: an answer may still become a refusal then.
    """
    storage = backend()
    if isinstance(storage, FileSystemStorage):
        return _pieces(open_blob(blob), start, length)
    if length == 0:
        return iter(())
    bucket = storage.bucket  # type: ignore[attr-defined]
    from botocore.exceptions import ClientError  # only where there is an object store

    wanted = f"bytes={start}-{start + length - 1}"
    try:
        answer = bucket.Object(key(blob.sha256)).get(Range=wanted)
    except ClientError as error:
        if error.response["Error"]["Code"] in {"NoSuchKey", "404"}:
            raise BytesMissing(blob) from error
        raise
    return cast(Iterator[bytes], answer["Body"].iter_chunks(CHUNK_BYTES))


def require_bytes(blob: Blob) -> None:
    """Raises BytesMissing; cheap on disk, a request to S3 elsewhere."""
    if not has_bytes(blob):
        raise BytesMissing(blob)


def has_bytes(blob: Blob) -> bool:
    return backend().exists(key(blob.sha256))


def put_aside(blob: Blob) -> None:
    """Take bytes that are not the blob's out of its place; they stay in the storage, below DAMAGED."""
    storage = backend()
    name = key(blob.sha256)
    aside = f"{DAMAGED}{blob.sha256}.{secrets.token_hex(4)}"
    if isinstance(storage, FileSystemStorage):
        target = Path(storage.path(aside))
        _make_folder(target.parent)
        Path(storage.path(name)).replace(target)
        _flush(target.parent)
        return
    bucket = storage.bucket  # type: ignore[attr-defined]
    bucket.Object(aside).copy({"Bucket": bucket.name, "Key": name})
    bucket.Object(name).delete()


def signed_url(blob: Blob, *, filename: str) -> str:
    """An address at the S3 store that serves this blob as an attachment for an hour."""
    return backend().url(  # type: ignore[call-arg]
        key(blob.sha256),
        parameters={
            "ResponseContentDisposition": f'attachment; filename="{filename}"',
            "ResponseContentType": "application/octet-stream",
        },
    )


def local_path(blob: Blob, *, look: Callable[[], object] = bool) -> Path:
    """A file with the blob's bytes, for reading only. From S3 it is fetched into WORKER_CACHE_DIR, once.

    `look` is called as bytes come, and may raise to end it. Raises BytesMissing.
    """
    storage = backend()
    if isinstance(storage, FileSystemStorage):
        require_bytes(blob)
        return Path(storage.path(key(blob.sha256)))
    place = settings.WORKER_CACHE_DIR / "blobs" / key(blob.sha256)
    if place.exists() and place.stat().st_size == blob.size_bytes:
        # Its use is noted where the sweep looks, in the time of access: the time of change names its content.
        os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))
        return cast(Path, place)
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = part_beside(place)
    try:
        with beside.open("wb") as file:
            for chunk in read_range(blob, 0, blob.size_bytes):
                look()
                file.write(chunk)
        found = digest(beside).sha256
        if found != blob.sha256:
            raise HashMismatch(found=found, expected=blob.sha256)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    return cast(Path, place)


def lay_out(files: Iterable[tuple[str, Blob]], folder: Path, *, look: Callable[[], object] = bool) -> Path:
    """Put blobs under their names into `folder`, as symbolic links to be read and never written. Returns `folder`.

    `look`: see `local_path`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, blob in files:
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} leads out of the folder")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = local_path(blob, look=look).resolve()
        if target.is_symlink() and target.readlink() == source:
            continue
        target.unlink(missing_ok=True)
        target.symlink_to(source)
    return folder


def _pieces(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length > 0 and (chunk := file.read(min(CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk


def backend() -> Storage:
    return storages["blobs"]


# --- Removing ----------------------------------------------------------------------------------------------


def unreferenced() -> QuerySet[Blob]:
    """Blobs that no row of any app refers to."""
    blobs = Blob.objects.all()
    for relation in references():
        users = relation.related_model._default_manager.filter(**{relation.field.name: OuterRef("pk")})
        blobs = blobs.filter(~Exists(users))
    return blobs


def references() -> list[Any]:
    """Every relation to Blob, also those without a name on its side, which `related_objects` leaves out."""
    fields = Blob._meta.get_fields(include_hidden=True)
    return [field for field in fields if field.auto_created and not field.concrete]


def remove(pk: int, *, stored_until: object) -> bool:
    """Remove one blob if it is still unreferenced and was not stored again since. True if it was removed."""
    return _remove(pk, last_stored_at__lte=stored_until)


def _remove(pk: int, **stored: object) -> bool:
    """As `remove`, for a condition on when the blob was stored last.

    The bytes go before the row is released: someone who stores the same bytes meanwhile waits for the row, finds
    it gone and puts them anew. A crash in between leaves a row nobody refers to, and the next store heals it.
    """
    taken: tuple[Path, Path] | None = None
    try:
        with transaction.atomic():
            blob = Blob.objects.select_for_update().filter(pk=pk, **stored).first()
            if blob is None or not unreferenced().filter(pk=pk).exists():
                return False
            blob.delete()
            taken = _take_bytes(blob)
    except BaseException:
        if taken is not None:
            with suppress(OSError):
                taken[1].replace(taken[0])  # the row stays: the database could not be written, or went away
        raise
    if taken is not None:
        taken[1].unlink(missing_ok=True)
    return True


def _take_bytes(blob: Blob) -> tuple[Path, Path] | None:
    """Move a blob's bytes out of their place: the place, and where they are now; None where there is no way back.

    There they look like a half-written file, which the sweep takes if this process dies.
    """
    storage = backend()
    if not isinstance(storage, FileSystemStorage):
        storage.delete(key(blob.sha256))
        return None
    place = Path(storage.path(key(blob.sha256)))
    aside = part_beside(place)
    try:
        place.replace(aside)
        os.utime(aside)  # or a sweep beside this one would take it at once
    except FileNotFoundError:
        return None
    return place, aside
