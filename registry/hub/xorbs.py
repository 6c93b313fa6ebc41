"""The binary formats of the Xet protocol, as far as a client's upload needs them: xorbs, shards and their hashes.

A xorb is a row of packed chunks; a shard says which chunks of which xorbs make which file, and its sha256. Lengths
come from strangers: each is checked before anything of that size is made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lz4.frame

from web.errors import DomainError

MAX_CHUNK_BYTES = 128 * 1024
MAX_XORB_BYTES = 72 * 1024**2  # 64 MiB of chunks and what incompressible ones add
MAX_SHARD_BYTES = 32 * 1024**2
MAX_CHUNKS = 200_000
_CHUNK_HEADER = 8
_RECORD = 48
_SHARD_TAG = b"HFRepoMetaData"
_END = b"\xff" * 32
_HAS_VERIFICATION = 1 << 31
_HAS_SHA256 = 1 << 30
RAW, LZ4, GROUPED_LZ4 = 0, 1, 2


class BadXet(DomainError):
    """400, which no client repeats."""

    code = "bad_xet"


@dataclass(frozen=True)
class Segment:
    """Chunks `first` to `end` (not included) of a xorb, together `size_bytes` long."""

    xorb: str
    size_bytes: int
    first: int
    end: int


@dataclass(frozen=True)
class XetFile:
    """One file of a shard; `sha256` is what the client says that its bytes have."""

    sha256: str
    segments: list[Segment] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)


def hash_text(raw: bytes) -> str:
    """A hash as clients write it: each group of eight bytes is a little-endian number, printed as 16 hex digits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


# --- Xorbs ---------------------------------------------------------------------------------------------------------


class Xorb:
    """The chunks of a xorb that lies on disk. Raises BadXet if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offsets = list(_offsets(path))

    def chunks(self, first: int, end: int) -> Iterator[bytes]:
        """The raw bytes of chunks `first` to `end` (not included), one after the other."""
        if not 0 <= first < end <= len(self.offsets):
            raise BadXet(f"The xorb has {len(self.offsets)} chunks; {first} to {end} are asked for.")
        with self.path.open("rb") as file:
            file.seek(self.offsets[first])
            for _ in range(first, end):
                scheme, packed, raw = _header(file.read(_CHUNK_HEADER))
                yield unpack(scheme, file.read(packed), raw)


def _offsets(path: Path) -> Iterator[int]:
    size = path.stat().st_size
    place = 0
    with path.open("rb") as file:
        while place < size:
            yield place
            _, packed, _ = _header(file.read(_CHUNK_HEADER))
            place += _CHUNK_HEADER + packed
            file.seek(place)
    if place != size:
        raise BadXet("The xorb ends inside of a chunk.")


def _header(raw: bytes) -> tuple[int, int, int]:
    """(scheme, packed length, raw length) of a chunk."""
    if len(raw) != _CHUNK_HEADER or raw[0] != 0:
        raise BadXet("The xorb has a chunk that cannot be read.")
    packed = int.from_bytes(raw[1:4], "little")
    length = int.from_bytes(raw[5:8], "little")
    if raw[4] not in (RAW, LZ4, GROUPED_LZ4) or not 0 < length <= MAX_CHUNK_BYTES:
        raise BadXet("The xorb has a chunk of an unknown kind or size.")
    return raw[4], packed, length


def unpack(scheme: int, packed: bytes, length: int) -> bytes:
    """The `length` raw bytes of a chunk. Raises BadXet."""
    if scheme == RAW:
        found = packed
    else:
        decompressor = lz4.frame.LZ4FrameDecompressor()
        try:
            # One byte more than there should be, so that too much shows.
            found = decompressor.decompress(packed, max_length=length + 1)
        except (RuntimeError, EOFError) as error:
            raise BadXet("The xorb has a chunk that is no LZ4 frame.") from error
        if scheme == GROUPED_LZ4 and len(found) == length:
            found = ungroup(found)
    if len(found) != length:
        raise BadXet(f"The xorb has a chunk of {len(found):,} bytes that says it has {length:,}.")
    return found


def ungroup(grouped: bytes) -> bytes:
    """Bytes 0, 4, 8, …, then 1, 5, 9, … and so on, put back in their order."""
    length = len(grouped)
    found = bytearray(length)
    place = 0
    for first in range(4):
        size = (length - first + 3) // 4
        found[first::4] = grouped[place : place + size]
        place += size
    return bytes(found)


# --- Shards ----------------------------------------------------------------------------------------------------------


def read_shard(raw: bytes) -> list[XetFile]:
    """The files that a shard describes. Raises BadXet."""
    if len(raw) < _RECORD or not raw.startswith(_SHARD_TAG):
        raise BadXet("The body is no shard.")
    records = _Records(raw[_RECORD:])
    files: list[XetFile] = []
    chunks = 0
    while (header := records.take()) is not None and header[:32] != _END:
        flags, count = struct.unpack_from("<II", header, 32)
        segments = [_segment(records.need()) for _ in range(records.within(count))]
        chunks += sum(segment.end - segment.first for segment in segments)
        if chunks > MAX_CHUNKS:
            raise BadXet("The shard describes more chunks than any upload here can have.")
        if flags & _HAS_VERIFICATION:
            records.skip(count)
        if not flags & _HAS_SHA256:
            raise BadXet("The shard has a file without its sha256.")
        files.append(XetFile(hash_text(records.need()[:32]), segments))
    return files


def _segment(record: bytes) -> Segment:
    _, size, first, end = struct.unpack_from("<IIII", record, 32)
    if first >= end or size > (end - first) * MAX_CHUNK_BYTES:
        raise BadXet("The shard has a segment whose size cannot be.")
    return Segment(hash_text(record[:32]), size, first, end)


class _Records:
    """The 48-byte records of a shard, one after the other."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.place = 0

    def take(self) -> bytes | None:
        found = self.raw[self.place : self.place + _RECORD]
        self.place += _RECORD
        return found if len(found) == _RECORD else None

    def need(self) -> bytes:
        found = self.take()
        if found is None:
            raise BadXet("The shard ends too early.")
        return found

    def within(self, count: int) -> int:
        """`count`, if so many records can follow."""
        if self.place + count * _RECORD > len(self.raw):
            raise BadXet("The shard ends too early.")
        return count

    def skip(self, count: int) -> None:
        self.place += self.within(count) * _RECORD
