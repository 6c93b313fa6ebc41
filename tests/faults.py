"""A disk that fails at the N-th operation, for tests: SQLite's own way of testing."""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest import mock

_ON_PATHS = ("open", "link", "replace", "rename", "mkdir", "chmod", "unlink", "remove", "fsync")


class Disk:
    """Counts what this process does to files below `folder`, and lets operation number `fails_at` fail."""

    def __init__(self, folder: Path, *, fails_at: int = 0, errno: int = 0) -> None:
        self.folder = str(folder)
        self.fails_at = fails_at
        self.errno = errno
        self.done: list[str] = []

    @property
    def has_failed(self) -> bool:
        return 0 < self.fails_at <= len(self.done)

    def step(self, name: str) -> None:
        """Raises OSError when its turn has come."""
        self.done.append(name)
        if len(self.done) == self.fails_at:
            raise OSError(self.errno, os.strerror(self.errno))

    def is_below(self, thing: object) -> bool:
        if isinstance(thing, int):  # a descriptor
            try:
                thing = Path(f"/proc/self/fd/{thing}").readlink()
            except OSError:
                return False
        return isinstance(thing, str | os.PathLike) and os.fspath(thing).startswith(self.folder)

    @contextmanager
    def at_work(self) -> Iterator[Self]:
        """All file operations of the block go through this disk."""
        patches = [mock.patch.object(os, name, self._watch(name, getattr(os, name))) for name in _ON_PATHS]
        opened = self._open(io.open)
        patches += [mock.patch.object(io, "open", opened), mock.patch.object(builtins, "open", opened)]
        patches.append(mock.patch.object(shutil, "copyfile", self._watch("copyfile", shutil.copyfile)))
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in reversed(patches):
                patch.stop()

    def _watch(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            if any(self.is_below(argument) for argument in arguments[:2]):
                self.step(name)
            return real(*arguments, **options)

        return watched

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if not self.is_below(file):
                return real(file, mode, *arguments, **options)
            self.step(f"open {mode}")
            opened = real(file, mode, *arguments, **options)
            return _File(opened, self) if set(mode) & set("wax+") else opened

        return watched


class _File:
    """A file opened for writing whose writes and whose closing are operations of the disk."""

    def __init__(self, real: Any, disk: Disk) -> None:
        self._real = real
        self._disk = disk

    def write(self, data: Any) -> Any:
        self._disk.step("write")
        return self._real.write(data)

    def close(self) -> None:
        is_open = not self._real.closed
        self._real.close()
        if is_open:  # the rest of a buffer is written here
            self._disk.step("close")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
