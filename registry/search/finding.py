"""The answer to a query: a page of adapters in an order, how many there are, and exact counts of ways to narrow it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from django.db import connection
from django.db.models import Q, Subquery
from numpy.typing import NDArray

from registry.models import Adapter, AdapterScore, BaseModel, Membership, Namespace, Task
from registry.models.tasks import is_higher_better
from registry.rights import Person
from registry.search import backends, columns
from registry.search.alike import MOST_ERRORS
from registry.search.columns import Columns, Mask, Positions
from registry.search.query import DAY_US, MEGABYTE, AdapterQuery, BadParameter, Range
from registry.search.related import composes_with
from registry.search.tasks import show_tasks, task_named, tasks_hidden_from
from web.kept_queries import KeptQuery, ids_of
from web.pagination import BadCursor, cursor_of, values_in

FACET_VALUES = 30
# Facets of sizes: megabytes, both ends as `size` takes them.
SIZE_STEPS = ("0-4", "5-19", "20-49", "50-99", "100-249", "250-999", "1000-")
SORT_COLUMNS = {
    "trending": "trending",
    "new": "published_us",
    "updated": "updated_us",
    "downloads": "downloads",
    "likes": "likes",
    "score": "score",
    "useful": "usefulness",
}
SAMPLE_STEP, SAMPLE_KEPT, SAMPLED = 50, 20, 200
FEWEST_SAMPLED = 2 * SAMPLE_STEP * SAMPLE_KEPT
ABOVE_IDS = 1 << 40
NAME_BONUS = float(1 << 40)  # beyond any number of downloads: who has the words in its name comes first


@dataclass(frozen=True)
class FacetValue:
    value: str
    label: str
    count: int
    is_chosen: bool


@dataclass(frozen=True)
class Facet:
    """One way to narrow the list. `more` counts values that are not shown, for being the rarest."""

    parameter: str
    label: str
    values: list[FacetValue]
    more: int = 0


@dataclass(frozen=True)
class Found:
    """A page of what was found. `is_similar`: nothing holds the words, so names like them were taken."""

    items: list[Adapter]
    next_cursor: str
    count: int
    facets: list[Facet] = field(default_factory=list)
    is_similar: bool = False


def find(query: AdapterQuery, *, person: Person, with_facets: bool = False) -> Found:
    """Adapters that fit the query and this person may see. Raises BadCursor, BadParameter.

    Those that have no weights yet are listed only where their namespace is asked for. Each has `composes_with`, the
    number of other adapters that it can be composed with, `listed_score`, its best on the task of `scored_on`, and no
    `facts` of its head, which may be long.
    """
    table = columns.current()
    with table.lock:
        search = _Search(query, person, table)
        positions, keys = search.page()
        ids, ties = table.all_ids[positions], search.ties()[positions]
        found = search.count()
        counts = search.facet_counts() if with_facets else {}
        families = search.families()
    items, has_more = ids[: query.limit], len(ids) > query.limit
    cursor = cursor_of([query.order, keys[query.limit - 1], int(ties[query.limit - 1])]) if has_more else ""
    rows = _rows(items.tolist(), families, person)
    for adapter in rows:
        adapter.listed_score = search.best_on_task.get(adapter.pk)  # type: ignore[attr-defined]
    return Found(
        items=rows,
        next_cursor=cursor,
        count=found,
        facets=_facets(search, counts) if with_facets else [],
        is_similar=search.is_similar,
    )


def count(query: AdapterQuery, *, person: Person) -> int:
    """How many adapters fit the query."""
    table = columns.current()
    with table.lock:
        return _Search(query, person, table).count()


def family_size(adapter: Adapter, *, person: Person) -> int:
    """How many other adapters this person may see that the adapter can be composed with."""
    if not adapter.is_composable or adapter.base_model_id is None:
        return 0
    if person is not None and person.is_authenticated:  # one query here, three by way of the columns
        return composes_with(adapter, person=person).count()
    table = columns.current()
    with table.lock:
        visible = _Search(AdapterQuery(), person, table).visible
        family = visible & table["is_composable"] & (table["base_model_id"] == adapter.base_model_id)
        return int(np.count_nonzero(family & (table.all_ids != adapter.pk)))


def families(*, person: Person) -> dict[int, int]:
    """Base model -> how many adapters for it this person sees that can be composed; those without one are left out."""
    table = columns.current()
    with table.lock:
        return _Search(AdapterQuery(), person, table).families()


def modules_by_task(*, person: Person) -> dict[int, int]:
    """Task -> how many adapters a list shows this person that were trained on it, or composed for it."""
    return _listed_by("task_id", person)


def kinds(*, person: Person) -> dict[str, int]:
    """How many modules and how many composed adapters a list shows this person."""
    listed = _listed_by("is_composed", person)
    return {Adapter.Kind.MODULE: listed.get(0, 0), Adapter.Kind.COMPOSED: listed.get(1, 0)}


def _listed_by(column: str, person: Person) -> dict[int, int]:
    table = columns.current()
    with table.lock:
        search = _Search(AdapterQuery(), person, table)
        return _how_often(table[column][search._fitting_all()])


def modules_by_base(*, person: Person) -> dict[int, tuple[int, int]]:
    """Base model -> how many adapters a list shows this person that name it, and how many of them can be composed."""
    table = columns.current()
    with table.lock:
        search = _Search(AdapterQuery(), person, table)
        listed, bases = search._fitting_all(), table["base_model_id"]
        composable = listed & table["is_composable"]
        composable[search.held] = False
        seen = np.bincount(bases[listed])
        mixable = np.bincount(bases[composable], minlength=len(seen))
    return {int(base): (int(seen[base]), int(mixable[base])) for base in np.flatnonzero(seen) if base}


def ids_everybody_sees() -> Positions:
    """Of all adapters that everybody sees, with weights or without, in rising order."""
    table = columns.current()
    with table.lock:
        table.refresh()
        return table.once("public ids", ["is_public"], lambda: np.sort(table.all_ids[table["is_public"]]))


def rows_of(ids: list[int], *, person: Person) -> list[Adapter]:
    """These adapters in this order, each with `composes_with` and without its head's `facts`, as `find` has them."""
    table = columns.current()
    with table.lock:
        families = _Search(AdapterQuery(), person, table).families()
    return _rows(ids, families, person)


class _Search:
    """One query over the columns. Every method wants the columns' lock held."""

    def __init__(self, query: AdapterQuery, person: Person, table: Columns) -> None:
        self.query = query
        self.table = table
        self.is_similar = False
        self.name_matches: NDArray[Any] | None = None  # by which relevance sorts first
        self.task_scores: NDArray[np.float64] | None = None  # the higher the better, whatever the metric
        self.is_reported: Mask | None = None  # the score there
        self.best_on_task: dict[int, Any] = {}  # rows with a value, a metric and a source
        self.base_model: BaseModel | None = None  # that is asked for, by whichever of its names
        table.refresh()
        self.sees_more = False  # than everybody does
        self.person = person
        self.held = np.empty(
            0, np.int64
        )  # places of what they see that is in quarantine, and composed by nobody
        self.visible = self._visible(person)
        self.listed = self._listed()
        self.masks = self._masks()
        self._all_fit: Mask | None = None

    def _visible(self, person: Person) -> Mask:
        mask: Mask = self.table["is_public"]
        if person is not None and person.is_authenticated:
            # Beyond what is public, a person sees only what lies in namespaces of theirs; which of it is theirs to say
            # is for `visible_to`.
            mine = Membership.objects.filter(user_id=person.pk).values("namespace_id")
            own = Adapter.objects.visible_to(person).filter(namespace_id__in=mine).not_for_everybody()
            rows = list(own.values_list("pk", "quarantined_at"))
            places = self.table.at(np.fromiter((pk for pk, _ in rows), np.int64))
            self.held = self.table.at(np.fromiter((pk for pk, held_at in rows if held_at), np.int64))
            self.sees_more = not mask[places].all()
            if self.sees_more:
                mask = mask.copy()
                mask[places] = True
        return mask

    def _masks(self) -> dict[str, Mask]:
        """Parameter -> who passes it; parameters that are left open have none."""
        query, table = self.query, self.table
        masks: dict[str, Mask] = {}
        if query.words:
            masks["q"] = self._with_words(query.words)
        if query.base:
            masks["base"] = self._made_for(query.base)
        if query.task:
            task = task_named(query.task, person=self.person)
            masks["task"] = table["task_id"] == (task.pk if task is not None else -1)
        if query.composable is not None:
            masks["composable"] = table["is_composable"] == query.composable
        if query.rank:
            masks["rank"] = _within(table["rank"], query.rank, unit=1)
        if query.size:
            masks["size"] = _within(table["size_bytes"], query.size, unit=MEGABYTE)
        if query.created:
            masks["created"] = _within(table["published_us"], query.created, unit=DAY_US)
        if query.updated:
            masks["updated"] = _within(table["updated_us"], query.updated, unit=DAY_US)
        for name in columns.TEXTS:
            if value := getattr(query, name):
                text = value if name == "targets" else value.lower()
                masks[name] = table.says(name, text)
        if query.kind:
            masks["kind"] = table["is_composed"] == (query.kind == Adapter.Kind.COMPOSED)
        masks["namespace"] = self.listed
        if query.scored_on:
            masks["scored_on"] = self._scored_on(query.scored_on)
        return masks

    def _listed(self) -> Mask:
        """Whom a list shows at all: those of the namespace that is asked for, else those that have weights."""
        if self.query.namespace:
            mask: Mask = self.table["namespace_id"] == _pk(
                Namespace.objects.filter(name__iexact=self.query.namespace)
            )
            return mask
        return self.table.once("has weights", ["rank"], lambda: self.table["rank"] >= 0)

    def _with_words(self, words: Sequence[str]) -> Mask:
        words = list(dict.fromkeys(words))
        found = self._with_each(words, names_only=False)
        shown = self.visible & self.listed
        if not (found & shown).any():
            found, self.name_matches = self._with_something_like_each(words)
            self.is_similar = bool((found & shown).any())
        elif self.query.order == "relevance":
            self.name_matches = self._with_each(words, names_only=True)
        return found

    def _with_each(self, words: Sequence[str], *, names_only: bool) -> Mask:
        """Who has words that begin with each of these, one word after the other."""
        both: Mask = np.logical_and.reduce([self._with_word(word, names_only=names_only) for word in words])
        return both

    def _with_word(self, word: str, *, names_only: bool) -> Mask:
        def ask(among: Positions | None) -> Positions:
            return backends.of(connection).with_word(connection, word, names_only=names_only, among=among)

        return self.table.who_has((f"{word}*", "name" if names_only else "text"), ask)

    def _with_something_like_each(self, words: Sequence[str]) -> tuple[Mask, NDArray[np.int8]]:
        """Who has each word, or one in its name that it may be a misspelling of; and how near they come, summed."""
        total = np.zeros(self.table.size, np.int8)
        everyone = np.ones(self.table.size, np.bool_)
        for word in words:
            nearness = np.where(self._with_word(word, names_only=False), np.int8(MOST_ERRORS + 1), np.int8(0))
            like = self.table.words_like(word)
            for errors in sorted(set(like.values())):
                others = tuple(sorted(other for other, count in like.items() if count == errors))
                np.maximum(nearness, (MOST_ERRORS + 1 - errors) * self._named(others), out=nearness)
            everyone &= nearness > 0
            total += nearness
        return everyone, total

    def _named(self, words: tuple[str, ...]) -> NDArray[np.int8]:
        """1 for who has one of these words, whole, in its name."""

        def ask(among: Positions | None) -> Positions:
            return backends.of(connection).with_any_of(connection, words, among=among)

        return self.table.who_has(words, ask).view(np.int8)

    def _made_for(self, name: str) -> Mask:
        self.base_model = BaseModel.objects.named(name)
        if self.base_model is not None:
            mask: Mask = self.table["base_model_id"] == self.base_model.pk
            return mask
        unknown = Adapter.objects.filter(base_model=None, base_model_label__iexact=name).values_list(
            "pk", flat=True
        )
        return self.table.mask_of(np.fromiter(unknown, np.int64))

    def _scored_on(self, slug: str) -> Mask:
        task = task_named(slug, person=self.person)
        if task is None:
            raise BadParameter("scored_on", f"There is no task {slug[:100]!r}.")
        # By another metric or on other rows they do not compare; what people report stands beside the newest.
        newest = task.revisions.order_by("-number").values("pk")[:1]
        on_newest = Q(task_revision=None) | Q(task_revision=Subquery(newest))
        scores = AdapterScore.objects.filter(on_newest, task=task, metric=task.metric)
        sign = 1.0 if is_higher_better(task.metric) else -1.0
        # The better last, and of equal ones those that we computed: what is kept of each adapter is its best.
        told = scores.values_list("adapter_id", "value", "metric", "source", named=True)
        rows = sorted(
            told, key=lambda score: (sign * score.value, score.source == AdapterScore.Source.VERIFIED)
        )
        self.best_on_task = {score.adapter_id: score for score in rows}
        self.task_scores = np.full(self.table.size, -np.inf)
        ids = np.fromiter(self.best_on_task, np.int64)
        values = np.fromiter((sign * score.value for score in self.best_on_task.values()), np.float64)
        reported = [score.source == AdapterScore.Source.REPORTED for score in self.best_on_task.values()]
        known = ids < len(self.table.positions)
        places = self.table.positions[ids[known]]
        self.task_scores[places[places >= 0]] = values[known][places >= 0]
        self.is_reported = np.zeros(self.table.size, bool)
        self.is_reported[places[places >= 0]] = np.array(reported, bool)[known][places >= 0]
        return np.isfinite(self.task_scores)

    def _fitting(self, *, without: str = "") -> Mask:
        mask = self.visible
        for name, other in self.masks.items():
            if name != without:
                mask = mask & other
        return mask

    def _fitting_all(self) -> Mask:
        if self._all_fit is None:
            self._all_fit = self._fitting()
        return self._all_fit

    def count(self) -> int:
        return int(np.count_nonzero(self._fitting_all()))

    def page(self) -> tuple[Positions, list[float]]:
        """Positions of one page's adapters and one more if there is one, with the values they are sorted by."""
        places = np.flatnonzero(self._fitting_all())
        keys, ties = self._keys(places), self.ties()
        if self.query.cursor:
            key, tie = _decode(self.query.cursor, self.query.order)
            behind = keys < key
            level = np.flatnonzero(keys == key)
            behind[level] = ties[places[level]] < tie
            places, keys = places[behind], keys[behind]
        first = _first(keys, ties, places, self.query.limit + 1)
        return places[first], keys[first].tolist()

    def ties(self) -> Positions:
        """Of equal keys the one with the higher number comes first: the newer one.

        By the score on a task it is as on its leaderboard: what we computed before what people report, and the older first.
        """
        ids = self.table.all_ids
        if self.query.order != "score" or self.is_reported is None:
            return ids
        return np.where(self.is_reported, ABOVE_IDS - ids, 2 * ABOVE_IDS - ids)

    def _keys(self, places: Positions) -> NDArray[Any]:
        """What the adapters at these positions are sorted by."""
        if self.query.order == "relevance":
            keys: NDArray[Any] = self.table["downloads"][places].astype(np.float64)
            return keys if self.name_matches is None else keys + NAME_BONUS * self.name_matches[places]
        if self.query.order == "score" and self.task_scores is not None:
            return self.task_scores[places]
        return self.table[SORT_COLUMNS[self.query.order]][places]

    def families(self) -> dict[int, int]:
        """Base model -> how many adapters for it this person sees that can be composed."""
        if self.sees_more:
            return self._families()
        return self.table.once("families", ["is_public", "is_composable", "base_model_id"], self._families)

    def _families(self) -> dict[int, int]:
        places = self.visible & self.table["is_composable"] & (self.table["base_model_id"] > 0)
        places[self.held] = False
        return _how_often(self.table["base_model_id"][places])

    def facet_counts(self) -> dict[str, list[tuple[Any, int]]]:
        """Parameter -> (value, how many fit it and all other parameters), for every value that somebody has."""
        if self.sees_more or self.query.namespace or set(self.masks) != {"namespace"}:
            return self._facet_counts()
        # What everybody opens the list with.
        return self.table.once("facets", ["is_public", *_FACET_COLUMNS.values()], self._facet_counts)

    def _facet_counts(self) -> dict[str, list[tuple[Any, int]]]:
        table = self.table
        counts: dict[str, list[tuple[Any, int]]] = {}
        everybody = np.flatnonzero(self._fitting_all())
        for parameter, column in _FACET_COLUMNS.items():
            places = (
                np.flatnonzero(self._fitting(without=parameter)) if parameter in self.masks else everybody
            )
            counts[parameter] = self._count_values(parameter, table[column][places])
        return counts

    def _count_values(self, parameter: str, values: NDArray[Any]) -> list[tuple[Any, int]]:
        if parameter == "size":
            starts = [int(step.split("-")[0]) * MEGABYTE for step in SIZE_STEPS]
            sums = np.bincount(np.searchsorted(starts, values, side="right") - 1, minlength=len(SIZE_STEPS))
            return [(step, int(total)) for step, total in zip(SIZE_STEPS, sums, strict=True) if total]
        if values.dtype == np.bool_:
            yes = int(np.count_nonzero(values))
            return [(value, total) for value, total in ((True, yes), (False, len(values) - yes)) if total]
        words = self.table.words.get(parameter)
        if isinstance(words, columns.Lists):
            return words.sums_of_parts(np.bincount(values, minlength=len(words.texts)))
        sums = np.bincount(np.maximum(values, 0)) if parameter == "rank" else np.bincount(values)
        kept = np.flatnonzero(sums)
        kept = kept[kept > 0]  # 0 says that there is none
        if words is not None:
            return [(words.texts[number], int(sums[number])) for number in kept]
        return [(int(value), int(sums[value])) for value in kept]


_FACET_COLUMNS = {
    "base": "base_model_id",
    "task": "task_id",
    "tag": "tag",
    "composable": "is_composable",
    "rank": "rank",
    "targets": "targets",
    "license": "license",
    "language": "language",
    "size": "size_bytes",
    "kind": "is_composed",
}
_LABELS = {
    "base": "Base model",
    "task": "Task",
    "tag": "Tag",
    "composable": "Composable",
    "rank": "Rank",
    "targets": "Target matrices",
    "license": "Licence",
    "language": "Language",
    "size": "Size",
    "kind": "Kind",
}


def _facets(search: _Search, counts: dict[str, list[tuple[Any, int]]]) -> list[Facet]:
    chosen = search.query.as_url_params()
    # What is counted is the same for everybody, and kept; what a task is called is not.
    hidden = set(tasks_hidden_from(search.person).values_list("pk", flat=True)) if counts["task"] else set()
    found = []
    for parameter, label in _LABELS.items():
        pairs = counts[parameter]
        if parameter == "task" and hidden:
            pairs = [(pk, total) for pk, total in pairs if pk not in hidden]
        wanted = chosen.get(parameter, "").casefold()
        if parameter == "base" and search.base_model is not None:
            # Chosen by another of its names: the facet shows the one that it is known by.
            wanted = search.base_model.name.casefold()
        if parameter in {"base", "task"}:
            values = _named(parameter, pairs, wanted, search.table)
        else:
            few = _most_frequent(pairs, wanted) if parameter in columns.TEXTS else pairs
            values = [(*_in_words(parameter, value), total) for value, total in few]
            if parameter not in {"rank", "size"}:
                values.sort(key=lambda item: (-item[2], item[0]))
        rows = [FacetValue(value, text, total, value.casefold() == wanted) for value, text, total in values]
        # What is chosen is always shown, be it ever so rare.
        shown = [row for place, row in enumerate(rows) if place < FACET_VALUES or row.is_chosen]
        found.append(Facet(parameter, label, shown, more=len(pairs) - len(shown)))
    return found


def _most_frequent(pairs: list[tuple[str, int]], chosen: str) -> list[tuple[str, int]]:
    """Those that are shown, and the chosen one: a big site has more tags than can be sorted in a moment."""
    most = heapq.nsmallest(FACET_VALUES, pairs, key=lambda pair: (-pair[1], pair[0]))
    if not chosen:
        return most
    return most + [pair for pair in pairs if pair[0].casefold() == chosen and pair not in most]


def _named(
    parameter: str, pairs: list[tuple[int, int]], chosen: str, table: Columns
) -> list[tuple[str, str, int]]:
    """The most frequent base models or tasks with their names, and the chosen one."""
    most = heapq.nsmallest(FACET_VALUES, ((-total, pk) for pk, total in pairs))
    names = table.names(parameter, [pk for _, pk in most], _READERS[parameter])
    values = [(*names[pk], -total) for total, pk in most if pk in names]
    if chosen and len(pairs) > len(most) and all(value.casefold() != chosen for value, _, _ in values):
        pk = _pk(
            BaseModel.objects.filter(name__iexact=chosen)
            if parameter == "base"
            else Task.objects.filter(slug=chosen)
        )
        total = dict(pairs).get(pk, 0)
        if total:
            values += [(*name, total) for name in table.names(parameter, [pk], _READERS[parameter]).values()]
    return sorted(values, key=lambda item: (-item[2], item[0]))


def _base_names(pks: Sequence[int]) -> dict[int, tuple[str, str]]:
    rows = BaseModel.objects.filter(pk__in=pks).order_by().values_list("pk", "name")
    return {pk: (name, name) for pk, name in rows}


def _task_names(pks: Sequence[int]) -> dict[int, tuple[str, str]]:
    rows = Task.objects.filter(pk__in=pks).order_by().values_list("pk", "slug", "title")
    return {pk: (slug, title) for pk, slug, title in rows}


_READERS = {"base": _base_names, "task": _task_names}


def _in_words(parameter: str, value: Any) -> tuple[str, str]:
    """A facet's value as it stands in the address, and as people read it."""
    if parameter == "composable":
        return ("yes", "Yes") if value else ("no", "No")
    if parameter == "kind":
        kind = Adapter.Kind.COMPOSED if value else Adapter.Kind.MODULE
        return kind.value, str(kind.label)
    if parameter == "size":
        low, high = value.split("-")
        if not high:
            return value, f"{int(low) // 1000} GB and more"
        return value, f"under {int(high) + 1} MB" if low == "0" else f"{low} to {int(high) + 1} MB"
    if parameter == "targets":
        return value, value.replace(",", ", ")
    return str(value), str(value)


_LISTED = KeptQuery(
    lambda among: (
        Adapter.objects.filter(pk__in=among)
        .select_related("namespace", "base_model", "task", "head")
        .defer(
            "head__facts", "head__warnings", "head__description", "base_model__matrices", "base_model__config"
        )
    ),
    ids_of("among"),
)


def _rows(ids: list[int], families: dict[int, int], person: Person) -> list[Adapter]:
    rows = {adapter.pk: adapter for adapter in _LISTED.rows(among=ids)} if ids else {}
    found = [rows[pk] for pk in ids if pk in rows]
    for adapter in found:
        is_one = adapter.is_composable and not adapter.is_quarantined
        adapter.composes_with = max(families.get(adapter.base_model_id or 0, 0) - 1, 0) if is_one else 0
    show_tasks(found, person=person)
    return found


def _how_often(values: NDArray[Any]) -> dict[int, int]:
    """Each of these numbers -> how often it is there."""
    sums = np.bincount(values)
    return {int(value): int(sums[value]) for value in np.flatnonzero(sums)}


def _first(keys: NDArray[Any], ties: Positions, places: Positions, wanted: int) -> NDArray[np.int64]:
    """Where in `keys` the `wanted` rows are that come first by (key, tie), both from high to low, in that order.

    Row i has the tie `ties[places[i]]`. Few of them are ever looked at, so they are not gathered before.
    """
    chosen = np.arange(len(keys))
    if len(keys) > max(SAMPLED * wanted, FEWEST_SAMPLED):
        # A sample says about where the first rows end; only if that was too high, all are looked at.
        sample = keys[::SAMPLE_STEP]
        bound = np.partition(sample, len(sample) - SAMPLE_KEPT)[len(sample) - SAMPLE_KEPT]
        above = np.flatnonzero(keys >= bound)
        if wanted <= len(above) < len(keys):
            return above[_first(keys[above], ties, places[above], wanted)]
    if len(keys) > 4 * wanted:
        last = np.partition(keys, len(keys) - wanted)[len(keys) - wanted]
        above, level = np.flatnonzero(keys > last), np.flatnonzero(keys == last)
        short = wanted - len(above)
        if len(level) > short:  # equal ones: those with the highest ties
            equal = ties[places[level]]
            level = level[np.argpartition(equal, len(level) - short)[len(level) - short :]]
        chosen = np.concatenate([above, level])
    order = np.lexsort((-ties[places[chosen]], -keys[chosen]))
    result: NDArray[np.int64] = chosen[order][:wanted]
    return result


def _within(values: NDArray[Any], wanted: Range, *, unit: int) -> Mask:
    """Values within a range whose numbers count `unit` each; the high end's whole unit belongs to it."""
    mask: Mask = values >= 0 if wanted.low is None else values >= wanted.low * unit
    if wanted.high is not None:
        mask = mask & (values < (wanted.high + 1) * unit)
    return mask


def _pk(rows: Any) -> int:
    """The id of the one row, or one that nothing has."""
    found = rows.values_list("pk", flat=True).first()
    return -1 if found is None else int(found)


def _decode(cursor: str, order: str) -> tuple[float, int]:
    try:
        given, key, tie = values_in(cursor)
    except (ValueError, TypeError) as error:
        raise BadCursor from error
    is_number = isinstance(key, int | float) and not isinstance(key, bool) and abs(key) < 2**62
    if given != order or not is_number or not isinstance(tie, int) or not 0 < tie < 2**62:
        raise BadCursor
    return key, tie
