"""What a worker keeps on its disk for later jobs, at most WORKER_CACHE_BYTES and what the disk has room for: the longest
unused goes first.

    hub/models--owner--name/   base models of a hub, as its own client keeps them: files by content, links by commit
    blobs/                     copies of what lies in an object store (`registry.storage`)
    bases/owner--name/         links to the files of base models that are hosted here; they take no space
    jobs/                      folders of attempts and errands, for as long as they last
    held/                      locks: who works with which base model

A base model is held while a job works with it. Other processes on the same folder respect that, and one that dies lets go.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from django.conf import settings

logger = logging.getLogger(__name__)
LINKS_KEPT_S = 7 * 24 * 3600
HALF_WRITTEN_KEPT_S = 3600  # whoever still writes one has written to it since
BLOBS_IN_USE_S = 3600  # a job reads them soon after they came, or never again


@contextmanager
def holding(name: str) -> Iterator[None]:
    """Keep the base model of this name, in whichever states, until the block ends."""
    with _lock_of(_slug(name)).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def links_of(name: str) -> Path:
    """Where the states of a base model that is hosted here are laid out, each in a folder."""
    return _root() / "bases" / _slug(name)


def jobs_folder() -> Path:
    """Where attempts and errands have folders of their own for as long as they last."""
    return _made(_root() / "jobs")


def note_use(folder: Path) -> None:
    """This state of a base model is used now."""
    os.utime(folder)


@dataclass(frozen=True)
class _Kept:
    used_at: float
    remove: Callable[[], int]  # how many bytes that freed


def make_room(coming: int = 0) -> int:
    """Remove what was used longest ago until the limit is kept, also when `coming` bytes have come, and the disk has room for
    them; how many bytes went. Nothing that is in use goes.
    """
    freed = 0
    try:
        _remove_old_links()
        _remove_half_written()
        too_many = _too_many(coming)
        for kept in sorted([*_commits(), *_blobs()], key=lambda kept: kept.used_at):
            if freed >= too_many:
                break
            freed += kept.remove()
    except OSError:
        # Whose job it is has what it wanted; the next one tries again.
        logger.exception("The worker's cache could not be cleared")
    if freed:
        logger.info("Removed %d bytes from the worker's cache", freed)
    return freed


def has_room() -> bool:
    """Whether MIN_FREE_DISK_BYTES of the disk are free, after what is kept for later has made way."""
    try:
        if _free_bytes() < settings.MIN_FREE_DISK_BYTES:
            make_room()
        return _free_bytes() >= settings.MIN_FREE_DISK_BYTES
    except OSError:
        logger.exception("The worker's disk does not say how much room it has")
        return True  # whoever works there meets what is wrong, and tells


def _free_bytes() -> int:
    return shutil.disk_usage(_root()).free


def _too_many(coming: int) -> int:
    """How many bytes have to go for that."""
    missing = coming + settings.MIN_FREE_DISK_BYTES - _free_bytes()
    if not settings.WORKER_CACHE_BYTES:
        return missing
    return max(
        missing, _size(_root() / "hub") + _size(_root() / "blobs") + coming - settings.WORKER_CACHE_BYTES
    )


def _commits() -> Iterator[_Kept]:
    for repository in (_root() / "hub").glob("models--*"):
        # One that has no commit is what is left of a fetch that broke off.
        for folder in list(repository.glob("snapshots/*")) or [repository]:
            with suppress(FileNotFoundError):
                yield _Kept(folder.stat().st_mtime, partial(_remove_commit, repository, folder))


def _remove_commit(repository: Path, folder: Path) -> int:
    with _free(repository.name.removeprefix("models--")) as is_free:
        if not is_free:
            return 0
        before = _size(repository)
        shutil.rmtree(folder, ignore_errors=True)
        wanted = {link.resolve() for link in repository.glob("snapshots/*/*")}
        if not wanted:
            shutil.rmtree(repository, ignore_errors=True)
        for file in [*repository.glob("blobs/*")]:
            if file.resolve() not in wanted:
                file.unlink(missing_ok=True)
        (repository / "trees" / f"{folder.name}.json").unlink(missing_ok=True)
        return before - _size(repository)


def _blobs() -> Iterator[_Kept]:
    in_use = time.time() - BLOBS_IN_USE_S
    for path in (_root() / "blobs").glob("*/*/*"):
        with suppress(FileNotFoundError):
            state = path.stat()
            if state.st_atime < in_use:  # its use is noted there, see `storage.local_path`
                yield _Kept(state.st_atime, partial(_remove_blob, path, state.st_size))


def _remove_blob(path: Path, size_bytes: int) -> int:
    path.unlink(missing_ok=True)
    return size_bytes


def _remove_half_written() -> None:
    """What workers wrote to when they were killed. Nobody goes on with it: each fetch has files of its own."""
    limit = time.time() - HALF_WRITTEN_KEPT_S
    root = _root()
    for file in [*root.glob("hub/models--*/blobs/*.incomplete"), *root.glob("blobs/*/*/*.part")]:
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < limit:
                file.unlink()


def _remove_old_links() -> None:
    """Links to the files of base models that were not used for a week: of those in another state since, or deleted."""
    limit = time.time() - LINKS_KEPT_S
    for folder in (_root() / "bases").glob("*/*"):
        with suppress(FileNotFoundError):
            if folder.is_dir() and folder.stat().st_mtime < limit:
                with _free(folder.parent.name) as is_free:
                    if is_free:
                        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _free(slug: str) -> Iterator[bool]:
    """Whether nobody holds this base model; if so nobody can until the block ends."""
    with _lock_of(slug).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _size(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.lstat(Path(place, name)).st_size
    return size


def _root() -> Path:
    return _made(Path(settings.WORKER_CACHE_DIR))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _slug(name: str) -> str:
    return name.replace("/", "--")


def _lock_of(slug: str) -> Path:
    return _made(_root() / "held") / f"{slug}.lock"
