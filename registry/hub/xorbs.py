"""The binary formats of the Xet protocol, as far as a client's upload needs them: xorbs, shards and their hashes.

A xorb is a row of packed chunks; a shard says which chunks of which xorbs make which file, and its sha256. Lengths
come from strangers: each is checked before anything of that size is made.

Chunks are unpacked while a xorb arrives, when the client is busy with its next one: once the shard comes, everybody
waits for us.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import lz4.frame

from web.errors import DomainError

MAX_CHUNK_BYTES = 128 * 1024
MAX_PACKED_BYTES = 2 * MAX_CHUNK_BYTES  # far more than LZ4 can add
MAX_XORB_BYTES = 72 * 1024**2  # packed or not: clients put up to 64 MiB of chunks into one
MAX_XORB_CHUNKS = 64 * 1024  # they stop at 8,192
MAX_SHARD_BYTES = 32 * 1024**2
MAX_CHUNKS = 200_000
MAX_FILES = 1000  # of one shard; clients ask about as many at a time
PIECE_BYTES = 1024**2
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
    """A xorb that lies on disk unpacked: the bytes of its chunks, where each of them ends, and how many there are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        count, self._ends = array("I"), array("I")
        with path.open("rb") as file:
            file.seek(-count.itemsize, os.SEEK_END)
            count.fromfile(file, 1)
            file.seek(-count.itemsize * (count[0] + 1), os.SEEK_END)
            self._ends.fromfile(file, count[0])

    def size_bytes(self, first: int, end: int) -> int:
        """How long chunks `first` to `end` (not included) are together. Raises BadXet if they are not there."""
        if not 0 <= first < end <= len(self._ends):
            raise BadXet(f"The xorb has {len(self._ends)} chunks; {first} to {end} are asked for.")
        return self._ends[end - 1] - self._start(first)

    def pieces(self, first: int, end: int) -> Iterator[bytes]:
        """The bytes of these chunks, in pieces of at most 1 MiB."""
        left = self.size_bytes(first, end)
        with self.path.open("rb") as file:
            file.seek(self._start(first))
            while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                yield piece

    def _start(self, chunk: int) -> int:
        return self._ends[chunk - 1] if chunk else 0


def write_unpacked(packed: Iterable[bytes], file: BinaryIO) -> int:
    """Write the xorb whose packed bytes come in these pieces as `Xorb` reads it. Returns how many bytes came.

    Raises BadXet if it is none, or larger than any that a client makes.
    """
    ends = array("I")
    came = place = 0
    rest = b""
    for piece in packed:
        came += len(piece)
        data = memoryview(rest + piece)
        used = 0
        for start, scheme, size, length in _whole_chunks(data):
            used = start + size
            place += length
            if place > MAX_XORB_BYTES or len(ends) == MAX_XORB_CHUNKS:
                raise BadXet("The xorb is larger than one may be.")
            file.write(unpack(scheme, data[start:used], length))
            ends.append(place)
        rest = bytes(data[used:])
    if rest:
        raise BadXet("The xorb ends inside of a chunk.")
    ends.append(len(ends))
    file.write(ends.tobytes())
    return came


def _whole_chunks(data: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """(start of its data, scheme, packed length, raw length) of every chunk that is there whole."""
    place = 0
    while place + _CHUNK_HEADER <= len(data):
        scheme, size, length = _header(data[place : place + _CHUNK_HEADER])
        place += _CHUNK_HEADER
        if place + size > len(data):
            return
        yield place, scheme, size, length
        place += size


def _header(raw: memoryview) -> tuple[int, int, int]:
    """(scheme, packed length, raw length) of a chunk."""
    if raw[0] != 0:
        raise BadXet("The xorb has a chunk that cannot be read.")
    packed = int.from_bytes(raw[1:4], "little")
    length = int.from_bytes(raw[5:8], "little")
    if (
        raw[4] not in (RAW, LZ4, GROUPED_LZ4)
        or not 0 < length <= MAX_CHUNK_BYTES
        or packed > MAX_PACKED_BYTES
    ):
        raise BadXet("The xorb has a chunk of an unknown kind or size.")
    return raw[4], packed, length


def unpack(scheme: int, packed: bytes | memoryview, length: int) -> bytes | memoryview:
    """The `length` raw bytes of a chunk. Raises BadXet."""
    found: bytes | memoryview
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


def ungroup(grouped: bytes | memoryview) -> memoryview:
    """Bytes 0, 4, 8, …, then 1, 5, 9, … and so on, put back in their order."""
    import numpy as np  # here: a process that only serves pages never loads it

    length = len(grouped)
    source = np.frombuffer(grouped, np.uint8)
    found = np.empty(length, np.uint8)
    place = 0
    for first in range(4):
        size = (length - first + 3) // 4
        found[first::4] = source[place : place + size]
        place += size
    return found.data


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
        if chunks > MAX_CHUNKS or len(files) == MAX_FILES:
            raise BadXet("The shard describes more than any upload here can have.")
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
