"""The rules of a .gitignore: which of the files that somebody is about to send they would rather keep.

Clients send the file along and leave the reading to the Hub. Source: git's documentation, gitignore(5).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from registry.hub.bodies import BadRequest

NAME = ".gitignore"
TIME_LIMIT_S = 2.0  # a few rules of many stars against a deep folder could take minutes
_ANY_FOLDERS = "**"
_TRAILING_BLANKS = re.compile(r"(?<!\\)[ \t]+\Z")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Rule:
    """One line: a pattern for each segment of a path, whether it is for folders alone, and whether it keeps what it fits."""

    segments: tuple[str, ...]
    is_for_folders: bool
    is_exception: bool

    def fits(self, parts: Sequence[str], *, is_folder: bool) -> bool:
        if self.is_for_folders and not is_folder:
            return False
        ends = {0}  # how many of the parts the segments so far may have taken
        for segment in self.segments:
            if segment == _ANY_FOLDERS:
                ends = set(range(min(ends), len(parts) + 1))
            else:
                ends = {end + 1 for end in ends if end < len(parts) and fnmatchcase(parts[end], segment)}
            if not ends:
                return False
        return len(parts) in ends


class Rules:
    """All lines of a .gitignore. The last one that fits decides; in a folder that is left out nothing is kept."""

    def __init__(self, text: str) -> None:
        self.rules = [rule for line in text.splitlines() if (rule := _rule(line))]
        self._folders: dict[tuple[str, ...], bool] = {}
        self._deadline = time.monotonic() + TIME_LIMIT_S

    def leave_out(self, path: str) -> bool:
        """Whether the file at `path` is to be left out. Raises BadRequest if the rules take too long."""
        parts = tuple(path.split("/"))
        for end in range(1, len(parts)):
            folder = parts[:end]
            if folder not in self._folders:
                self._folders[folder] = self._decide(folder, is_folder=True)
            if self._folders[folder]:
                return True
        return self._decide(parts, is_folder=False)

    def _decide(self, parts: Sequence[str], *, is_folder: bool) -> bool:
        for rule in reversed(self.rules):
            if time.monotonic() > self._deadline:
                raise BadRequest(f"The rules in {NAME} take too long to read. Write fewer or simpler ones.")
            if rule.fits(parts, is_folder=is_folder):
                return not rule.is_exception
        return False


def _rule(line: str) -> Rule | None:
    line = _TRAILING_BLANKS.sub("", line)
    if not line or line.startswith("#"):
        return None
    is_exception = line.startswith("!")
    pattern = line.removeprefix("!")
    segments = [
        _ESCAPED.sub(_literally, segment).replace("[^", "[!") for segment in pattern.strip("/").split("/")
    ]
    if "/" not in pattern.rstrip("/"):
        segments = [_ANY_FOLDERS, *segments]  # a name alone is meant in every folder
    if segments[-1] == _ANY_FOLDERS:
        segments.append("*")  # what is below the folder, not the folder
    return Rule(tuple(segments), pattern.endswith("/"), is_exception)


def _literally(found: re.Match[str]) -> str:
    return f"[{found[1]}]" if found[1] in "*?[" else found[1]
