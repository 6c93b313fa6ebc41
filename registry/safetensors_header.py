"""Reading the header of a safetensors file: the library's own check first, then our stricter rules.

The library reads several files that must not be kept: duplicate keys, a header that begins with a space, no tensors
at all, control characters in names. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import Problem
from registry.filenames import LFS_POINTER, show

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 20_000
MAX_NAME_LENGTH = 512
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8}
ITEM_BYTES |= {"U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
_INFO_KEYS = {"dtype", "shape", "data_offsets"}
_MAX_BYTES = 2**63 - 1
# No module of any framework has these in its name, and every page that shows a name is safer without them.
_UNWANTED = frozenset("<>&\"'`\\")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the file: `begin` and `end` are byte positions counted from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def parameters(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


class HeaderRefused(Exception):
    """Nothing more can be read from the file; holds the problems found up to there."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems[0].message)
        self.problems = list(problems)


class _DuplicateKey(ValueError):
    pass


class _TooMany(ValueError):
    pass


def read_header(path: Path, file: str) -> list[TensorInfo]:
    """The tensors of the safetensors file at `path`, in the order of their bytes; `file` is its name for people.

    Reads the header only. Raises HeaderRefused with every problem if the library or our own rules refuse the file.
    """
    refusal = _library_refusal(path)
    tensors, problems = _read_strictly(path, file)
    if problems:
        raise HeaderRefused(*problems)
    if refusal:
        raise HeaderRefused(
            Problem(
                file=file,
                message=f"The safetensors library cannot read {file}: {refusal}. Save the adapter again with "
                "peft's save_pretrained.",
                found=refusal,
                expected="a readable safetensors file",
            )
        )
    return tensors


def _library_refusal(path: Path) -> str:
    """What the safetensors library says against the file, without loading a tensor; empty if it reads it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as opened:
            opened.keys()
    # The library's Rust side also raises these for files that it cannot map or whose numbers overflow.
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        return show(str(error))[:200]
    return ""


def _read_strictly(path: Path, file: str) -> tuple[list[TensorInfo], list[Problem]]:
    size = path.stat().st_size
    header, data_start = _read_json(path, file, size)
    problems = list(_metadata_problems(header.pop("__metadata__", {}), file))
    if not header:
        problems.append(
            Problem(
                file=file,
                message=f"{file} holds no tensors. Save the adapter again after training.",
                found="no tensors",
                expected="at least one tensor",
            )
        )
    tensors: list[TensorInfo] = []
    for name, info in header.items():
        problem = _name_problem(name, file) or _info_problem(name, info, file)
        if problem:
            problems.append(problem)
        else:
            begin, end = info["data_offsets"]
            tensors.append(
                TensorInfo(name, info["dtype"], tuple(info["shape"]), data_start + begin, data_start + end)
            )
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    if not problems:
        problems = list(_offset_problems(tensors, data_start, size, file))
    return tensors, problems


def _read_json(path: Path, file: str, size: int) -> tuple[dict[str, Any], int]:
    """The header as a dict and the position where the data starts. Raises HeaderRefused."""
    with path.open("rb") as stream:
        start = stream.read(64)
        length = struct.unpack("<Q", start[:8])[0] if size >= 8 else MAX_HEADER_BYTES
        if length > min(size - 8, MAX_HEADER_BYTES):  # a good header may be 60 bytes long, which reads "<"
            _recognise_other_formats(start, size, file)
        if length > size - 8:
            raise HeaderRefused(
                Problem(
                    file=file,
                    message=f"{file} says that its header is {length:,} bytes long, but the file has only "
                    f"{size:,} bytes. The file is cut or no safetensors file; upload it again.",
                    found=f"{length} bytes",
                    expected=f"at most {max(size - 8, 0)} bytes",
                )
            )
        if length > MAX_HEADER_BYTES:
            raise HeaderRefused(
                Problem(
                    file=file,
                    message=f"The header of {file} is {length:,} bytes long; the limit is {MAX_HEADER_BYTES:,}. "
                    "Leave out long metadata.",
                    found=f"{length} bytes",
                    expected=f"at most {MAX_HEADER_BYTES} bytes",
                )
            )
        stream.seek(8)
        raw = stream.read(length)
    return _parse(raw, file), 8 + length


def _recognise_other_formats(start: bytes, size: int, file: str) -> None:
    if start.startswith(LFS_POINTER[:40]):
        found, advice = "a Git LFS pointer", "Fetch the file itself with “git lfs pull” and upload that."
    elif start.startswith(b"PK\x03\x04"):
        found, advice = (
            "a zip archive, perhaps a PyTorch file with a new name",
            ("Upload it as adapter_model.bin, or save it as safetensors."),
        )
    elif start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        found, advice = "a Python pickle", "Save the adapter as safetensors."
    elif start[:1] == b"<":
        found, advice = "a web page", "Download the file itself and upload that."
    elif size < 8:
        found, advice = f"{size} bytes", "The file is cut or empty; upload it again."
    else:
        return
    raise HeaderRefused(
        Problem(
            file=file,
            message=f"{file} is no safetensors file: it is {found}. {advice}",
            found=found,
            expected="a safetensors file",
        )
    )


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) > MAX_TENSORS + 1:
        raise _TooMany(len(result))
    if len(result) != len(pairs):
        seen: set[str] = set()
        raise _DuplicateKey(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return result


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _parse(raw: bytes, file: str) -> dict[str, Any]:
    def refused(what: str, found: str, expected: str) -> HeaderRefused:
        return HeaderRefused(
            Problem(
                file=file,
                message=f"The header of {file} {what}. Save the adapter again with peft's save_pretrained.",
                found=found,
                expected=expected,
            )
        )

    if not raw.startswith(b"{"):
        raise refused("does not begin with “{”", show(raw[:8].decode("latin-1")), "{")
    try:
        text = raw.decode("utf-8")
        decoder = json.JSONDecoder(object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
        header, end = decoder.raw_decode(text)
    except UnicodeDecodeError:
        raise refused("is not UTF-8", "other bytes", "UTF-8") from None
    except _DuplicateKey as error:
        name = show(str(error))[:MAX_NAME_LENGTH]
        raise refused(f"names “{name}” twice", f"{name} twice", "every name once") from None
    except _TooMany as error:
        raise refused(
            f"lists {int(str(error)):,} tensors; the limit is {MAX_TENSORS:,}",
            f"{error} tensors",
            f"at most {MAX_TENSORS}",
        ) from None
    except RecursionError:
        raise refused("is nested too deep", "deep nesting", "a flat JSON object") from None
    except ValueError as error:
        reason = show(str(error))[:100]
        raise refused(f"is not valid JSON ({reason})", reason, "a JSON object") from None
    if text[end:].strip(" "):
        raise refused("is followed by something else than spaces", show(text[end:][:20]), "spaces")
    if len(header) - ("__metadata__" in header) > MAX_TENSORS:
        raise refused(
            f"lists {len(header):,} tensors; the limit is {MAX_TENSORS:,}",
            f"{len(header)} tensors",
            f"at most {MAX_TENSORS}",
        )
    return header


def _metadata_problems(metadata: Any, file: str) -> Iterator[Problem]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        yield Problem(
            file=file,
            where="__metadata__",
            message=f"The metadata in the header of {file} must map texts to texts.",
            found=type(metadata).__name__ if not isinstance(metadata, dict) else "other values than texts",
            expected="texts",
        )


def _name_problem(name: str, file: str) -> Problem | None:
    shown = show(name)[:MAX_NAME_LENGTH]
    if len(name) > MAX_NAME_LENGTH:
        return Problem(
            file=file,
            where=shown,
            message=f"A tensor name in {file} is {len(name):,} characters long; the limit is {MAX_NAME_LENGTH}.",
            found=f"{len(name)} characters",
            expected=f"at most {MAX_NAME_LENGTH} characters",
        )
    if name and name.isprintable() and not _UNWANTED & set(name):
        return None
    odd = next((letter for letter in name if not letter.isprintable() or letter in _UNWANTED), "")
    found = f"the character {f'U+{ord(odd):04X}' if not odd.isprintable() else odd}" if odd else "nothing"
    return Problem(
        file=file,
        where=shown,
        message=f"The tensor name “{shown}” in {file} holds {found}. "
        "Names are the printable paths of the model's modules.",
        found=found,
        expected="printable letters, digits and dots",
    )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_BYTES


def _info_problem(name: str, info: Any, file: str) -> Problem | None:
    def problem(what: str, found: Any, expected: str) -> Problem:
        return Problem(
            file=file,
            where=name,
            message=f"Tensor {name} in {file}: {what}.",
            found=show(str(found))[:100],
            expected=expected,
        )

    if not isinstance(info, dict):
        return problem("its entry is no JSON object", type(info).__name__, "dtype, shape, data_offsets")
    missing, extra = _INFO_KEYS - set(info), set(info) - _INFO_KEYS
    if missing:
        return problem(
            f"its entry lacks {', '.join(sorted(missing))}", sorted(info), "dtype, shape, data_offsets"
        )
    if extra:
        shown = show(", ".join(sorted(extra)))[:60]
        return problem(f"its entry has the extra field {shown}", shown, "dtype, shape, data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        return problem(f"its dtype {show(str(dtype))[:20]} is unknown", dtype, "F64, F32, F16 or BF16")
    if not isinstance(shape, list) or not all(_is_size(size) for size in shape) or len(shape) > 8:
        return problem("its shape is no list of whole numbers", shape, "whole numbers")
    if 0 in shape:
        return problem(f"its shape {shape} has a zero dimension", shape, "sizes of at least 1")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(offset) for offset in offsets):
        return problem("its data_offsets are not two whole numbers", offsets, "[begin, end]")
    size = ITEM_BYTES[dtype]
    for length in shape:
        size *= length
        if size > _MAX_BYTES:
            return problem(f"its shape {shape} overflows", shape, "a size that fits the file")
    if offsets[1] - offsets[0] != size:
        return problem(
            f"{offsets[1] - offsets[0]:,} bytes do not hold {dtype} values of shape {shape}, "
            f"which take {size:,}",
            f"{offsets[1] - offsets[0]} bytes",
            f"{size} bytes",
        )
    return None


def _offset_problems(tensors: list[TensorInfo], data_start: int, size: int, file: str) -> Iterator[Problem]:
    position = data_start
    for tensor in tensors:
        if tensor.begin != position:
            kind = "overlaps the one before it" if tensor.begin < position else "leaves a gap before it"
            yield Problem(
                file=file,
                where=tensor.name,
                message=f"Tensor {tensor.name} in {file} {kind}: it begins at byte {tensor.begin - data_start:,} "
                f"of the data, {position - data_start:,} was expected.",
                found=str(tensor.begin - data_start),
                expected=str(position - data_start),
            )
            return
        position = tensor.end
    if position != size:
        yield Problem(
            file=file,
            message=f"{file} is {size:,} bytes long, but its tensors end at {position:,}. "
            + (
                "The file is cut; upload it again."
                if position > size
                else "Nothing may follow the last tensor."
            ),
            found=f"{size} bytes",
            expected=f"{position} bytes",
        )
