"""A body of JSON lines, read in pieces: a file sent inside of a line goes to disk, whatever its size."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from web.errors import DomainError
from web.parsers import require_characters

CHUNK_BYTES = 256 * 1024
MAX_TEXT_BYTES = 64 * 1024
MAX_PLAIN_BYTES = 8 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024  # without the long texts
MAX_LINES = 10_000
_STOP_IN_TEXT = re.compile(rb'["\\]')
_STOP_OUTSIDE = re.compile(rb'["\n]')


class BadLine(DomainError):
    code = "bad_body"

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"Line {number} of the commit {why}.")


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Lines:
    """The JSON objects of a body, one a line. Texts longer than 64 KiB lie in files below `folder`; see `content`."""

    def __init__(self, stream: Readable, folder: Path) -> None:
        self.stream = stream
        self.folder = folder
        self.number = 1
        # Stands for a long text in its line; nobody can guess it, so nobody can name another's file.
        self._secret = secrets.token_hex(16)
        self._long_texts = 0
        self._untaken = 0  # long texts of the line at hand that nobody has asked for
        self._line = bytearray()
        self._text: bytearray | None = None
        self._file: BinaryIO | None = None
        self._is_escaped = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Raises BadLine, also for a long text that was not taken by `content` before the next line is asked for."""
        try:
            while chunk := self.stream.read(CHUNK_BYTES):
                for line in self._take(chunk):
                    yield from self._parsed(line)
            if self._text is not None:
                raise BadLine(self.number, "ends inside of a text")
            yield from self._parsed(bytes(self._line))
        finally:
            if self._file is not None:
                self._file.close()

    def content(self, text: Any, target: Path, *, encoding: str) -> None:
        """Write to `target` the bytes that `text`, a value of the line just read, stands for: base64 or plain."""
        if not isinstance(text, str) or encoding not in {"base64", "utf-8"}:
            raise BadLine(self.number, "has a file whose content is neither base64 nor text")
        name = text.removeprefix(f"{self._secret}-")
        is_long = name != text
        try:
            with target.open("wb") as out:
                if not is_long:
                    out.write(
                        base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
                    )
                elif encoding == "base64":
                    _decode(self.folder / name, out)
                else:
                    out.write(self._plain(self.folder / name))
        except (binascii.Error, ValueError) as error:
            raise BadLine(self.number, "has a file whose content cannot be decoded") from error
        finally:
            if is_long:
                self._untaken -= 1
                (self.folder / name).unlink(missing_ok=True)

    def _plain(self, path: Path) -> bytes:
        """A text that is not base64 is held in memory while its escapes are read; clients send none."""
        if path.stat().st_size > MAX_PLAIN_BYTES:
            raise BadLine(
                self.number, f"has more than {MAX_PLAIN_BYTES:,} bytes of plain text; send it as base64"
            )
        text: str = json.loads(b'"' + path.read_bytes() + b'"')
        return text.encode()

    def _take(self, chunk: bytes) -> Iterator[bytes]:
        """The lines that end in this chunk; the rest is kept for the next."""
        place = 0
        while place < len(chunk):
            if self._text is None:
                place = self._outside(chunk, place)
                if self._line.endswith(b"\n"):
                    line = bytes(self._line)
                    self._line.clear()
                    yield line
            else:
                place = self._inside(chunk, place)

    def _outside(self, chunk: bytes, place: int) -> int:
        found = _STOP_OUTSIDE.search(chunk, place)
        end = found.end() if found else len(chunk)
        self._line += chunk[place:end]
        if len(self._line) > MAX_LINE_BYTES:
            raise BadLine(self.number, f"has more than {MAX_LINE_BYTES:,} bytes besides its file")
        if found and found.group() == b'"':
            self._text = bytearray()
        return end

    def _inside(self, chunk: bytes, place: int) -> int:
        assert self._text is not None
        if self._is_escaped:
            self._text += chunk[place : place + 1]
            self._is_escaped = False
            return place + 1
        found = _STOP_IN_TEXT.search(chunk, place)
        end = found.start() if found else len(chunk)
        self._text += chunk[place:end]
        if len(self._text) > MAX_TEXT_BYTES:
            self._spill()
        if found is None:
            return end
        if found.group() == b"\\":
            self._text += b"\\"
            self._is_escaped = True
        else:
            self._close_text()
        return found.end()

    def _spill(self) -> None:
        assert self._text is not None
        if self._file is None:
            self._long_texts += 1
            self._untaken += 1
            self._file = (self.folder / f"text-{self._long_texts}").open("wb")
        self._file.write(self._text)
        self._text.clear()

    def _close_text(self) -> None:
        assert self._text is not None
        if self._file is not None:
            self._spill()
            self._file.close()
            self._file = None
            self._line += f"{self._secret}-text-{self._long_texts}".encode()
        else:
            self._line += self._text
        self._line += b'"'
        self._text = None

    def _parsed(self, line: bytes) -> Iterator[dict[str, Any]]:
        if line.strip():
            try:
                value = json.loads(line)
                require_characters(value)
            except UnicodeEncodeError as error:
                raise BadLine(self.number, "holds half of a surrogate pair, which is no character") from error
            except (ValueError, RecursionError) as error:
                raise BadLine(self.number, "is no JSON") from error
            if not isinstance(value, dict):
                raise BadLine(self.number, "is no JSON object")
            yield value
            if self._untaken:
                raise BadLine(
                    self.number, f"has a text of more than {MAX_TEXT_BYTES:,} bytes that is no file's content"
                )
        self.number += 1
        if self.number > MAX_LINES:
            raise BadLine(self.number, f"is one too many; {MAX_LINES - 1:,} are read")


def _decode(source: Path, out: BinaryIO) -> None:
    """Base64 from a file, in pieces that end where a group of four letters does."""
    rest = b""
    with source.open("rb") as file:
        while piece := file.read(4 * 64 * 1024):
            piece = rest + piece.replace(b"\\/", b"/")
            whole = len(piece) - len(piece) % 4
            rest = piece[whole:]
            out.write(base64.b64decode(piece[:whole], validate=True))
    out.write(base64.b64decode(rest, validate=True))
