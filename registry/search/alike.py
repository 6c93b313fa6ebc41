"""Misspelt words: which words of names are a few typing errors away. The same on every database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Letters = NDArray[np.uint32]

MOST_ERRORS = 2


def errors_allowed(word: str) -> int:
    """How many letters of a word may be wrong: none of up to two, one of up to five, two of longer ones.

    Numbers have no near misses: 12346 is not 12345 misspelt.
    """
    if len(word) < 3 or word.isdigit():
        return 0
    return 1 if len(word) < 6 else MOST_ERRORS


class Vocabulary:
    """Words that can be compared with one all at once: kept by length, as arrays of letters."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        self._by_length: dict[int, set[str]] = defaultdict(set)
        self._letters: dict[int, tuple[list[str], Letters]] = {}
        self.add(words)

    def add(self, words: Iterable[str]) -> None:
        for word in words:
            kept = self._by_length[len(word)]
            if word not in kept and not word.isdigit():
                kept.add(word)
                self._letters.pop(len(word), None)

    def like(self, word: str) -> dict[str, int]:
        """Word -> how many typing errors away, for all words but this one within `errors_allowed`.

        A letter too many, too few, wrong, or two neighbours swapped is one error.
        """
        allowed = errors_allowed(word)
        found: dict[str, int] = {}
        for length in range(max(len(word) - allowed, 1), len(word) + allowed + 1) if allowed else ():
            words, letters = self._of_length(length)
            errors = _errors(word, letters, allowed)
            for place in np.flatnonzero(errors <= allowed):
                found[words[place]] = int(errors[place])
        found.pop(word, None)
        return found

    def _of_length(self, length: int) -> tuple[list[str], Letters]:
        if length not in self._letters:
            words = sorted(self._by_length.get(length, ()))
            letters = np.array(words, f"<U{length}").view(np.uint32).reshape(len(words), length)
            self._letters[length] = (words, np.ascontiguousarray(letters.T))
        return self._letters[length]


def _errors(word: str, letters: Letters, most: int) -> NDArray[np.uint8]:
    """Errors between a word and each of n others of one length, (n,); `most` + 1 stands for all that is more.

    `letters` is (length, n). Optimal string alignment, a diagonal band of the table, all words at a time.
    """
    length, count = letters.shape
    beyond = np.full(count, most + 1, np.uint8)
    # Row of the table -> column -> errors between the first letters of both; what is not in the band is beyond.
    before: dict[int, NDArray[np.uint8]] = {}
    above = {column: np.full(count, column, np.uint8) for column in range(min(most, length) + 1)}
    for row in range(1, len(word) + 1):
        now: dict[int, NDArray[np.uint8]] = {}
        if row <= most:
            now[0] = np.full(count, row, np.uint8)
        for column in range(max(row - most, 1), min(row + most, length) + 1):
            is_other = letters[column - 1] != ord(word[row - 1])
            best = above.get(column - 1, beyond) + is_other
            np.minimum(best, above.get(column, beyond) + np.uint8(1), out=best)
            np.minimum(best, now.get(column - 1, beyond) + np.uint8(1), out=best)
            if row > 1 and column > 1:
                is_swapped = (letters[column - 1] == ord(word[row - 2])) & (
                    letters[column - 2] == ord(word[row - 1])
                )
                swapped = before.get(column - 2, beyond) + np.uint8(1)
                best = np.where(is_swapped & (swapped < best), swapped, best)
            now[column] = np.minimum(best, beyond)
        before, above = above, now
    return above.get(length, beyond)
