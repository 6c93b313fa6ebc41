"""What changed between two versions of an adapter: files, facts, and the lines of its config and card."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from registry import storage
from registry.filenames import CARD, CONFIG
from registry.models import Blob, Revision

MAX_TEXT_BYTES = 256 * 1024
MAX_LINES = 2000
CONTEXT = 2  # lines around a change
# Facts of an inspection worth comparing, as people call them.
FACTS = {
    "rank": "rank",
    "ranks": "ranks",
    "alpha": "alpha",
    "scaling": "scaling",
    "target_names": "target matrices",
    "target_matrices": "matrices changed",
    "dtypes": "dtypes",
    "parameters": "parameters",
    "variants": "variants",
    "peft_version": "peft",
}


@dataclass(frozen=True)
class Changed:
    """A fact or file that differs; None where it is not there. Sizes are bytes."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Line:
    """`kind`: "add", "take", "same" or "gap"."""

    kind: str
    text: str


@dataclass(frozen=True)
class Text:
    path: str
    lines: list[Line]
    is_cut: bool


@dataclass(frozen=True)
class VersionDiff:
    facts: list[Changed]
    files: list[Changed]
    texts: list[Text]
    same_weights: bool

    @property
    def is_empty(self) -> bool:
        return not (self.facts or self.files)


def compare(before: Revision, after: Revision) -> VersionDiff:
    """What `after` has that `before` has not, and the other way round."""
    old, new = _files(before), _files(after)
    differing = [path for path in sorted(old.keys() | new.keys()) if _id(old.get(path)) != _id(new.get(path))]
    return VersionDiff(
        facts=[
            Changed(words, before.fact(name), after.fact(name))
            for name, words in FACTS.items()
            if before.fact(name) != after.fact(name)
        ],
        files=[Changed(path, _size(old.get(path)), _size(new.get(path))) for path in differing],
        texts=[_text(path, old.get(path), new.get(path)) for path in differing if path in {CONFIG, CARD}],
        same_weights=bool(after.tensor_sha256) and before.tensor_sha256 == after.tensor_sha256,
    )


def _files(revision: Revision) -> dict[str, Blob]:
    return {file.path: file.blob for file in revision.files_by_path()}


def _id(blob: Blob | None) -> int | None:
    return blob.pk if blob else None


def _size(blob: Blob | None) -> int | None:
    return blob.size_bytes if blob else None


def _text(path: str, before: Blob | None, after: Blob | None) -> Text:
    """Of long texts only so many lines from the first change on: the time it takes grows with their square."""
    old, new = _read(path, before), _read(path, after)
    pairs = enumerate(zip(old, new, strict=False))
    first = next((number for number, (one, other) in pairs if one != other), min(len(old), len(new)))
    start = max(0, first - CONTEXT)
    end = start + MAX_LINES
    lines = list(_lines(old[start:end], new[start:end]))
    return Text(path, lines, is_cut=max(len(old), len(new)) > end)


def _lines(before: list[str], after: list[str]) -> Iterator[Line]:
    kinds = {"+": "add", "-": "take", " ": "same", "@": "gap"}
    for number, line in enumerate(difflib.unified_diff(before, after, lineterm="", n=CONTEXT)):
        if number >= 2:  # the two lines with file names
            kind = kinds.get(line[:1], "same")
            yield Line(kind, "…" if kind == "gap" else line[1:])


def _read(path: str, blob: Blob | None) -> list[str]:
    """A text's lines; a config with its keys in order, so that only what means something differs."""
    if blob is None or blob.size_bytes > MAX_TEXT_BYTES:
        return []
    with storage.open_blob(blob) as stream:
        text = stream.read().decode("utf-8-sig", "replace")
    if path == CONFIG:
        try:
            text = json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False)
        except ValueError:
            return text.splitlines()
    return text.splitlines()
