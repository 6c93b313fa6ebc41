"""The search rows in memory, a numpy array for each column: how exact counts over a million adapters take milliseconds.

Every process has its own, kept in step by asking the database before each search what has changed since. What is in
here can always be read again from there.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from registry.models import AdapterText
from registry.search import backends
from registry.search.alike import Vocabulary, errors_allowed
from registry.search.query import split

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]
T = TypeVar("T")

# Column -> what holds it. Texts are kept as numbers, with the text of each in `Columns.words`.
TYPES: dict[str, Any] = {
    "is_alive": np.bool_,
    "is_public": np.bool_,
    "namespace_id": np.int32,
    "base_model_id": np.int32,
    "task_id": np.int32,
    "is_composable": np.bool_,
    "is_composed": np.bool_,
    "rank": np.int32,
    "size_bytes": np.int64,
    "published_us": np.int64,
    "updated_us": np.int64,
    "downloads": np.int64,
    "likes": np.int64,
    "score": np.float64,
    "trending": np.float64,
    "usefulness": np.float64,
    "uses": np.int32,
}
TEXTS = backends.TEXTS
FIRST_ROOM = 1024
KEPT_WORDS = 100  # masks of words that many adapters have, a byte for each adapter
WORTH_KEEPING = 2000  # adapters; the database finds fewer quickly
NAMES_KEPT_S = 10  # of base models and tasks, in the address and as people read them
KEPT_CHANGES = 10_000  # positions that changed, for masks to catch up with


@dataclass
class Words:
    """The texts of a column, each with its number; 0 is the empty one."""

    texts: list[str] = field(default_factory=lambda: [""])
    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    def number(self, text: str) -> int:
        found = self.numbers.get(text)
        if found is None:
            found = self.numbers[text] = len(self.texts)
            self.texts.append(text)
        return found


@dataclass
class Lists(Words):
    """The texts of a column that are lists, such as `de, en`, and what stands in each."""

    parts: Words = field(default_factory=Words)
    # Side by side, for every part of every text: the part's number, and the text's.
    which: array[int] = field(default_factory=lambda: array("i"))
    whose: array[int] = field(default_factory=lambda: array("i"))

    def number(self, text: str) -> int:
        is_new = text not in self.numbers
        found = super().number(text)
        if is_new:
            parts = [self.parts.number(part) for part in _each(text)]
            self.which.extend(parts)
            self.whose.extend([found] * len(parts))
        return found

    def are_about(self, text: str) -> Mask:
        """Of each text of the column, whether it is this one or has it as a part."""
        mask = np.zeros(len(self.texts), np.bool_)
        mask[np.array(self.whose)[np.array(self.which) == self.parts.numbers.get(text, -1)]] = True
        if text in self.numbers:
            mask[self.numbers[text]] = True
        return mask

    def sums_of_parts(self, sums: NDArray[np.int64]) -> list[tuple[str, int]]:
        """How often every part is there, where a text is there as often as `sums` says."""
        totals = np.bincount(np.array(self.which, np.int64), weights=sums[np.array(self.whose, np.int64)])
        return [(self.parts.texts[number], int(totals[number])) for number in np.flatnonzero(totals)]


class Columns:
    """Every adapter's search row, at some position. Hold `lock` from `refresh` to the last look at the arrays."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self.epoch = -2
        self.mark = 0
        self.size = 0
        self.version = 0  # moves with every change that was read
        self.ids = np.zeros(FIRST_ROOM, np.int64)
        self.positions = np.full(FIRST_ROOM, -1, np.int64)  # by id
        self.words = {name: Lists() if name in backends.LISTS else Words() for name in TEXTS}
        self._data = {name: np.zeros(FIRST_ROOM, kind) for name, kind in TYPES.items()}
        self._data |= {name: np.zeros(FIRST_ROOM, np.int32) for name in TEXTS}
        self._changed: list[int] = []  # ids, in the order in which their changes were read
        self._forgotten = 0  # how many of them are no longer in the list
        self._names: dict[tuple[str, int], tuple[str, str]] = {}
        self._named_at = 0.0
        self._kept: OrderedDict[tuple[str, ...], tuple[int, Mask]] = OrderedDict()
        self._vocabulary: tuple[int, Vocabulary] | None = None
        self._moved = dict.fromkeys(self._data, 0)  # column -> the version that changed it last
        self._once: dict[str, tuple[int, Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._data[name][: self.size]

    @property
    def all_ids(self) -> Positions:
        return self.ids[: self.size]

    def refresh(self) -> None:
        """Read what has changed since the last time; everything, the first time and when rows were deleted."""
        backend = backends.of(connection)
        epoch, mark = backend.now(connection)
        if epoch != self.epoch:
            self._forget()
        for batch in backend.changes(connection, self.mark):
            self._take(batch)
        self.epoch, self.mark = epoch, mark

    def at(self, ids: Positions) -> Positions:
        """The positions of those of `ids` that are known here."""
        ids = ids[(ids > 0) & (ids < len(self.positions))]
        found = self.positions[ids]
        return found[found >= 0]

    def once(self, what: str, names: Iterable[str], find: Callable[[], T]) -> T:
        """What `find` makes of the columns of these names alone, kept until one of them changes; what nobody alters."""
        newest = max(self._moved[name] for name in names)
        version, found = self._once.get(what, (-1, None))
        if version != newest:
            found = find()
            self._once[what] = (newest, found)
        return cast(T, found)

    def says(self, name: str, text: str) -> Mask:
        """Whose text in column `name` is this one; of lists, such as "de, en", one of several is enough."""
        words = self.words[name]
        mask: Mask
        if isinstance(words, Lists):
            mask = words.are_about(text)[self[name]]
        else:
            mask = self[name] == words.numbers.get(text, -1)
        return mask

    def mask_of(self, ids: Positions) -> Mask:
        mask = np.zeros(self.size, np.bool_)
        mask[self.at(ids)] = True
        return mask

    def who_has(self, words: tuple[str, ...], find: Callable[[Positions | None], Positions]) -> Mask:
        """Who has what `words` name; it is kept under them. `find` asks the database, for everybody or among some ids.

        What many have is kept, and asked again only of those that changed since: one word of a big site's names can
        match half a million rows, which no database hands over in milliseconds.
        """
        kept = self._kept.pop(words, None)
        if kept is not None and kept[0] >= self._forgotten:
            seen, mask = kept
            mask = _grown(mask, self.size) if len(mask) < self.size else mask
            changed = self._changed_since(seen)
            if len(changed):
                mask = mask.copy()
                mask[self.at(changed)] = False
                mask[self.at(find(changed))] = True
        else:
            mask = self.mask_of(find(None))
        if np.count_nonzero(mask) >= WORTH_KEEPING:
            self._kept[words] = (self._seen, mask)
            if len(self._kept) > KEPT_WORDS:
                self._kept.popitem(last=False)
        return mask

    def names(
        self, kind: str, pks: Sequence[int], read: Callable[[Sequence[int]], dict[int, tuple[str, str]]]
    ) -> dict[int, tuple[str, str]]:
        """What base models or tasks are called. `read` asks the database; a new name shows after some seconds."""
        now = time.monotonic()
        if now - self._named_at > NAMES_KEPT_S:
            self._names, self._named_at = {}, now
        names = self._names
        missing = [pk for pk in pks if (kind, pk) not in names]
        if missing:
            names.update({(kind, pk): name for pk, name in read(missing).items()})
        return {pk: names[kind, pk] for pk in pks if (kind, pk) in names}

    def words_like(self, word: str) -> dict[str, int]:
        """Words of names that this one may be a misspelling of -> how many errors away."""
        if not errors_allowed(word):
            return {}
        if self._vocabulary is None or self._vocabulary[0] < self._forgotten:
            self._vocabulary = self._seen, Vocabulary(backends.of(connection).name_words(connection))
        seen, vocabulary = self._vocabulary
        if len(changed := self._changed_since(seen)):
            names = AdapterText.objects.filter(pk__in=changed.tolist()).values_list("names", flat=True)
            vocabulary.add(other for text in names for other in split(text))
            self._vocabulary = self._seen, vocabulary
        return vocabulary.like(word)

    @property
    def _seen(self) -> int:
        """How many changes have been read so far."""
        return self._forgotten + len(self._changed)

    def _changed_since(self, seen: int) -> Positions:
        return np.unique(np.array(self._changed[seen - self._forgotten :], np.int64))

    def _note_changes(self, ids: Positions) -> None:
        self._changed += ids.tolist()
        surplus = len(self._changed) - KEPT_CHANGES
        if surplus > 0:
            self._changed = self._changed[surplus:]
            self._forgotten += surplus

    def _take(self, batch: backends.Batch) -> None:
        given = {name: self._as_kept(name, values) for name, values in batch.items() if name != "adapter_id"}
        ids = np.array(batch["adapter_id"], np.int64)
        self._make_room_for_ids(int(ids.max()))
        places = self.positions[ids]
        is_new = places < 0
        count = int(is_new.sum())
        if count:
            self._make_room(self.size + count)
            places[is_new] = np.arange(self.size, self.size + count)
            self.positions[ids] = places
            self.ids[places] = ids
            self.size += count
        elif all(np.array_equal(self._data[name][places], values) for name, values in given.items()):
            # Those of transactions that just ended are read more than once. Their texts may have changed all the same.
            self._note_changes(ids)
            return
        self.version += 1
        self._note_changes(ids)
        for name, values in given.items():
            if count or not np.array_equal(self._data[name][places], values):
                self._moved[name] = self.version
            self._data[name][places] = values

    def _as_kept(self, name: str, values: Any) -> NDArray[Any]:
        if isinstance(values, backends.Coded):
            numbers = np.array([self.words[name].number(text) for text in values.texts], np.int32)
            values = numbers[values.numbers]
        return np.asarray(values, self._data[name].dtype)

    def _make_room_for_ids(self, highest: int) -> None:
        if highest >= len(self.positions):
            room = np.full(max(highest + 1, 2 * len(self.positions)), -1, np.int64)
            room[: len(self.positions)] = self.positions
            self.positions = room

    def _make_room(self, size: int) -> None:
        if size <= len(self.ids):
            return
        size = max(size, 2 * len(self.ids))
        self.ids = _grown(self.ids, size)
        self._data = {name: _grown(array, size) for name, array in self._data.items()}


def _each(text: str) -> list[str]:
    """`de, en` -> `de` and `en`, each once."""
    return list(dict.fromkeys(part for name in text.split(",") if (part := name.strip())))


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    grown = np.zeros(size, array.dtype)
    grown[: len(array)] = array
    return grown


_shared = Columns()


def current() -> Columns:
    """The columns for one search: the process's own; in a transaction ones that are read for it alone.

    What this transaction has written may be taken back, and must not stay in what others look at.
    """
    return Columns() if connection.in_atomic_block else _shared


def forget() -> None:
    """Drop what the process knows, for a database that was swapped under it."""
    global _shared
    _shared = Columns()
