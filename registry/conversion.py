"""Converting a legacy `adapter_model.bin` to safetensors, in a throw-away process.

A .bin is a zip of a Python pickle and raw storages. `weights_only=True` keeps code from running, but a file of 1 KB may
still describe a tensor of 40 GB. So the pickle is first read with an unpickler that makes nothing but notes, and the
sizes it declares are compared with the bytes that are there, before torch copies anything.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

from registry import jail
from registry.errors import InspectionRefused, JailFailed, Problem
from registry.filenames import LEGACY_WEIGHTS

MAX_PICKLE_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 20_000
LIMITS = jail.Limits(time_s=120, cpu_s=60, memory_bytes=2048 * jail.MIB, file_bytes=1100 * jail.MIB)
_STORAGE_ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip


class ConversionRefused(Exception):
    """The .bin file is refused; the message completes “adapter_model.bin …”."""


class _Storage(NamedTuple):
    key: str
    item_bytes: int
    items: int


class _Described(NamedTuple):
    """A tensor as the pickle describes it; nothing of it exists."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def convert(source: Path, target: Path) -> list[str]:
    """Write the tensors of the torch file at `source` to the safetensors file `target`; which walls stood.

    The result must pass inspection like every other upload. Raises InspectionRefused with a sentence.
    """
    try:
        result = jail.run_module(
            "registry.conversion", str(source.absolute()), str(target.absolute()), limits=LIMITS
        )
    except JailFailed as error:
        target.unlink(missing_ok=True)
        raise InspectionRefused(
            [
                Problem(
                    file=LEGACY_WEIGHTS,
                    message=f"{LEGACY_WEIGHTS} could not be converted to safetensors. {error.message}",
                    expected="a state dict of plain tensors, saved by torch.save",
                )
            ]
        ) from None
    return result.enforced


# --- Inside the jail ---------------------------------------------------------------------------------------


def check_declared_sizes(path: Path) -> None:
    """Compare what the file's pickle declares with the bytes that are there. Raises ConversionRefused."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            storages = _check_records(archive, size)
            tensors = _read_notes(_pickle_of(archive))
    except zipfile.BadZipFile:
        raise ConversionRefused(
            "It is not a file that torch.save wrote since version 1.6. Load it with torch and save it as safetensors."
        ) from None
    _check_tensors(tensors, storages, size)


def _check_records(archive: zipfile.ZipFile, size: int) -> dict[str, int]:
    """Bytes of each storage record by its key. Raises ConversionRefused for records that unpack or overlap."""
    records = archive.infolist()
    if len(records) > MAX_TENSORS + 100:
        raise ConversionRefused(f"It has {len(records):,} records; the limit is {MAX_TENSORS:,}.")
    names = [record.filename for record in records]
    if len(set(names)) != len(names):
        raise ConversionRefused("Two of its records have the same name.")
    end = 0
    for record in sorted(records, key=lambda one: one.header_offset):
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
            raise ConversionRefused("Its records are compressed or encrypted, which torch.save never does.")
        if record.header_offset < end or record.compress_size != record.file_size:
            raise ConversionRefused("Its records overlap.")
        end = record.header_offset + record.file_size
    if end > size:
        raise ConversionRefused("Its records are longer than the file.")
    return {
        name.rpartition("/data/")[2]: record.file_size
        for name, record in zip(names, records, strict=True)
        if "/data/" in name
    }


def _pickle_of(archive: zipfile.ZipFile) -> bytes:
    found = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if len(found) != 1:
        raise ConversionRefused("It does not hold one data.pkl, as torch.save writes it.")
    if found[0].file_size > MAX_PICKLE_BYTES:
        raise ConversionRefused(
            f"Its list of tensors is {found[0].file_size:,} bytes; the limit is {MAX_PICKLE_BYTES:,}."
        )
    return archive.read(found[0])


class _NoteTaker(pickle.Unpickler):
    """Builds notes instead of objects: it resolves no global but the few that a plain state dict needs."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            return _describe
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda described, *_: described
        if module == "collections" and name == "OrderedDict":
            return OrderedDict
        if module == "torch" and name in _STORAGE_ITEM_BYTES:
            return name
        raise ConversionRefused(
            f"It holds an object of {module}.{name}"[:200] + ", not only plain tensors. Save a state dict."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(count)) if kind in _STORAGE_ITEM_BYTES:
                return _Storage(key, _STORAGE_ITEM_BYTES[kind], count)
        raise ConversionRefused("It refers to a storage that torch.save would not write.")


def _describe(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Described:
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, _Storage) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ConversionRefused("It describes a tensor in a way that torch.save would not write.")
    return _Described(storage, offset, tuple(shape), tuple(stride))


def _read_notes(raw: bytes) -> dict[str, _Described]:
    try:
        # The note taker resolves no class of anybody's; see find_class.
        state = _NoteTaker(io.BytesIO(raw)).load()
    except ConversionRefused:
        raise
    # A hostile pickle can raise nearly anything from inside the unpickler; all of it means the same.
    except Exception as error:
        raise ConversionRefused(f"Its list of tensors cannot be read ({type(error).__name__}).") from error
    if not isinstance(state, dict):
        raise ConversionRefused("It holds no state dict (names and tensors).")
    if len(state) > MAX_TENSORS:
        raise ConversionRefused(f"It holds {len(state):,} tensors; the limit is {MAX_TENSORS:,}.")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Described):
            raise ConversionRefused(
                f"“{str(name)[:100]}” in it is no plain tensor. Save the state dict alone."
            )
    return state


def _check_tensors(tensors: dict[str, _Described], storages: dict[str, int], size: int) -> None:
    total = 0
    for name, tensor in tensors.items():
        shown = name[:200]
        storage = tensor.storage
        there = storages.get(storage.key)
        if there is None or there != storage.items * storage.item_bytes:
            raise ConversionRefused(
                f"Tensor {shown} declares a storage of {storage.items * storage.item_bytes:,} bytes; "
                f"the file holds {there or 0:,}."
            )
        if len(tensor.shape) != len(tensor.stride):
            raise ConversionRefused(f"Tensor {shown} has a shape and strides that do not go together.")
        count, last = 1, tensor.offset
        for length, step in zip(tensor.shape, tensor.stride, strict=True):
            count *= length
            last += (length - 1) * step
        if count and last >= storage.items:
            raise ConversionRefused(f"Tensor {shown} reaches beyond its storage.")
        total += count * storage.item_bytes
        if total > size:
            raise ConversionRefused(
                f"Its tensors would take more than {total:,} bytes, but the file has only {size:,}."
            )


def _write_safetensors(source: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    plain = {}
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
            raise ConversionRefused(f"“{name[:100]}” in it is no plain tensor. Save the state dict alone.")
        plain[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
    save_file(plain, target, metadata={"format": "pt"})


def main(source: Path, target: Path) -> None:
    try:
        check_declared_sizes(source)
        _write_safetensors(source, target)
    except ConversionRefused as error:
        jail.refuse(str(error))
    except (RuntimeError, ValueError, pickle.UnpicklingError) as error:
        jail.refuse(f"torch cannot read it: {str(error).splitlines()[0][:200]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
