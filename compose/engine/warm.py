"""Bases and modules kept in memory between jobs, up to a stated number of bytes."""

from __future__ import annotations

import gc
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from compose.engine import loading, memory
from compose.engine.bank import Bank, build_bank
from compose.engine.errors import OutOfMemory
from compose.engine.loading import LoadedBase, LoadedModule
from compose.engine.types import Module

DEFAULT_LIMIT_BYTES = 4 * 2**30


class WarmCache:
    """Least recently used bases, modules and banks, together at most `limit_bytes`.

    `loads` counts what was really read or built: "base", "module", "bank". Something larger than the limit is
    used once and not kept. Files are known by resolved path, size and modification time, so a changed file is
    loaded again, and links to the same content-addressed file share one entry.
    """

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.loads: Counter[str] = Counter()
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def size_bytes(self) -> int:
        return sum(size for _, size in self._entries.values())

    def base(self, path: Path, *, device: torch.device, dtype: torch.dtype) -> LoadedBase:
        """The loaded base; raises what `loading.load_base` raises."""
        key = ("base", _base_files(path), str(device), dtype)

        def load() -> LoadedBase:
            gc.collect()  # models hold cycles: one that was used and not kept would stand beside this one
            return loading.load_base(path, device=device, dtype=dtype)

        return self._get(key, load)

    def module(self, module: Module) -> LoadedModule:
        """The module in normal form under the name asked for; raises what `loading.load_module` raises."""
        key = ("module", _module_files(module.path))
        loaded: LoadedModule = self._get(key, lambda: loading.load_module(module))
        # The same files may come under another name.
        return LoadedModule(name=module.name, factors=loaded.factors, config=loaded.config)

    def bank(
        self,
        modules: Sequence[Module],
        loaded: Sequence[LoadedModule],
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Bank:
        """The modules concatenated on the device, in their order; `loaded` as `module` gave them.

        They are at hand: of more than fit into the limit, the first are forgotten when the last has come.
        """
        files = tuple((module.name, _module_files(module.path)) for module in modules)
        key = ("bank", files, str(device), dtype)
        return self._get(key, lambda: build_bank(loaded, device=device, dtype=dtype))

    def keeps_base(self, path: Path) -> bool:
        """Whether this base is in memory now, on whichever device. Never waits: no, while something is loaded."""
        try:
            files = _base_files(path)
        except FileNotFoundError:  # what it was read from is gone, so the next job reads another
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return any(key[0] == "base" and key[1] == files for key in self._entries)  # type: ignore[index]
        finally:
            self._lock.release()

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def _get(self, key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][0]
            value = self._load(load)
            self.loads[key[0]] += 1
            if value.size_bytes <= self.limit_bytes:
                self._entries[key] = (value, value.size_bytes)
                self._make_room()
            return value

    def _load(self, load: Callable[[], Any]) -> Any:
        if self._entries:
            with suppress(OutOfMemory):
                return load()
            # What is kept for other jobs may be what is missing. Not where it was raised: there what was begun is held.
            self._entries.clear()
            memory.let_go()
        return load()

    def _make_room(self) -> None:
        while self.size_bytes > self.limit_bytes:
            self._entries.popitem(last=False)


def _base_files(path: Path) -> Hashable:
    if not path.is_dir():
        return str(path)
    return tuple(
        _identity(file)
        for file in sorted(path.iterdir())
        if file.suffix in {".json", ".safetensors", ".bin", ".model", ".txt"}
    )


def _module_files(path: Path) -> Hashable:
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = [Path(path) / name for name in names]
    return tuple(_identity(file) if file.exists() else str(file) for file in files)


def _identity(file: Path) -> tuple[str, int, int]:
    resolved = file.resolve()
    stat = resolved.stat()
    return str(resolved), stat.st_size, stat.st_mtime_ns
