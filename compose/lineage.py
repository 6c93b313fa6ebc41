"""Where an adapter comes from and what was made of it: its family, gathered and laid out to be drawn.

Two generations up and two down. Each row of one parent or child is cut at a few, the heaviest or newest first, and
says how many more there are; the whole lists are on a page of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db.models import Avg, Count, F, Q, QuerySet

from compose.models import Candidate, Composition
from compose.naming import HIDDEN, may_be_named
from registry.models import Adapter, Origin
from registry.models.publication import published_at
from registry.rights import Person, sees_adapter
from web.kept_queries import KeptForGuests, KeptQuery, ids_of, is_guest, number_of, text_of

MOST_NEAR = 8  # parents or children drawn
LATEST_SHOWN = 5  # compositions that a module was used in
MOST_FAR = 3  # of each parent's parents, and of each child's children
WIDTH, HEIGHT = 176, 44  # of a box, px
ACROSS, DOWN = 84, 12  # between columns and between boxes
LETTERS = 18  # of a name that a box holds


@dataclass
class Node:
    """One box. `name` is what stands on it, `title` the whole of it; x and y its top left corner, px."""

    key: str
    name: str
    owner: str = ""
    title: str = ""
    url: str = ""
    kind: str = "module"  # module, composed, origin, more, or this
    x: float = 0.0
    y: float = 0.0

    @property
    def short(self) -> str:
        return self.name if len(self.name) <= LETTERS else f"{self.name[: LETTERS - 1]}…"


@dataclass
class Edge:
    """From what is mixed to what is made of it. `weight` None: not a mix (an import, or boxes left out)."""

    parent: Node
    child: Node
    weight: float | None = None
    label_at: str = "parent"  # the end where it has room

    @property
    def path(self) -> str:
        x1, y1 = self.parent.x + WIDTH, self.parent.y + HEIGHT / 2
        x2, y2 = self.child.x, self.child.y + HEIGHT / 2
        half = (x1 + x2) / 2
        return f"M{x1:g} {y1:g}C{half:g} {y1:g} {half:g} {y2:g} {x2:g} {y2:g}"

    @property
    def stroke(self) -> str:
        return f"{1 + 3 * min(1.0, abs(self.weight or 0.0)):.1f}"

    @property
    def label_x(self) -> float:
        return self.parent.x + WIDTH + 6 if self.label_at == "parent" else self.child.x - 6

    @property
    def label_y(self) -> float:
        ends = (self.parent, self.child) if self.label_at == "parent" else (self.child, self.parent)
        here, there = (end.y + HEIGHT / 2 for end in ends)
        return here - 5 if there >= here else here + 14  # where the line does not go


@dataclass
class Family:
    """The graph of one adapter; `relations` are all there are, `lines` those of them that can be drawn."""

    this: Node
    columns: list[list[Node]] = field(default_factory=list)
    relations: list[Edge] = field(default_factory=list)
    lines: list[Edge] = field(default_factory=list)
    parents: int = 0
    children: int = 0

    @property
    def nodes(self) -> list[Node]:
        return [node for column in self.columns for node in column]

    @property
    def width(self) -> int:
        return len(self.columns) * WIDTH + (len(self.columns) - 1) * ACROSS

    @property
    def height(self) -> int:
        tallest = max((len(column) for column in self.columns), default=0)
        return tallest * HEIGHT + max(0, tallest - 1) * DOWN

    @property
    def has_weights(self) -> bool:
        return any(edge.weight is not None for edge in self.relations)

    @property
    def is_alone(self) -> bool:
        return not self.relations


def family(adapter: Adapter, person: Person, *, origin: Origin | None = None) -> Family:
    """The adapter's relatives that this person may see, laid out. Parents that are gone or hidden keep their place.

    `origin`: where the version that is shown was imported from.
    """
    this = _node(adapter)
    this.kind = "this"
    found = Family(this=this)
    near = made_of(adapter)
    far = _made_of([use.revision.adapter_id for use in near[:MOST_NEAR] if use.revision.adapter.is_composed])
    of_parents = [use.revision.adapter_id for uses in far.values() for use in uses]
    visible = named(adapter, person) | may_be_named(of_parents, person)
    drawn: dict[str, Node] = {this.key: this}
    parents = _up(found, this, near, MOST_NEAR, visible, drawn)
    found.parents = len(near)
    grandparents = []
    for pk in dict.fromkeys(use.revision.adapter_id for use in near[:MOST_NEAR]):
        if pk in visible:  # what a hidden one is made of is hidden too
            grandparents += _up(found, drawn[f"adapter-{pk}"], far.get(pk, []), MOST_FAR, visible, drawn)
    if origin is not None:
        parents.append(Node(f"origin-{origin.pk}", origin.source, owner="imported from", url=origin.url,
                            title=f"{origin.source} at {origin.commit[:12]}", kind="origin"))  # fmt: skip
        found.relations.append(Edge(parents[-1], this))

    made, counts = _made_with([adapter.pk], MOST_NEAR, person) if use_of(adapter, person).count else ({}, {})
    children = _down(found, this, made.get(adapter.pk, []), counts.get(adapter.pk, 0), drawn)
    found.children = counts.get(adapter.pk, 0)
    ids = [use.composition.adapter_id or 0 for use in made.get(adapter.pk, [])]
    made, counts = _made_with(ids, MOST_FAR, person) if ids else ({}, {})
    grandchildren = []
    for pk, node in zip(ids, list(children), strict=False):
        grandchildren += _down(found, node, made.get(pk, []), counts.get(pk, 0), drawn)
    found.columns = [column for column in (grandparents, parents, [this], children, grandchildren) if column]
    _lay_out(found)
    return found


@dataclass(frozen=True)
class Made:
    """How a composed adapter came about: its composition, and all that were tried, in their order."""

    composition: Composition | None
    tried: list[Candidate]


_COMPOSITION = KeptQuery(lambda adapter: Composition.objects.filter(adapter_id=adapter), number_of("adapter"))
_TRIED = KeptQuery(
    lambda composition: (
        Candidate.objects.filter(composition_id=composition)
        .select_related(
            "revision__adapter__namespace", "revision__adapter__created_by", "revision__adapter__head"
        )
        .defer("revision__facts", "revision__adapter__head__facts")
    ),
    text_of("composition"),
)


def made(adapter: Adapter) -> Made:
    """Read once for all that a page says about it: what it is made of, its lineage, how to cite it."""
    known: Made | None = getattr(adapter, "_made", None)
    if known is None:
        found = _COMPOSITION.rows(adapter=adapter.pk) if adapter.is_composed else []
        composition = found[0] if found else None
        tried = _TRIED.rows(composition=found[0].pk) if found else []
        known = adapter._made = Made(composition, tried)  # type: ignore[attr-defined]
    return known


def named(adapter: Adapter, person: Person) -> set[int]:
    """Of all that were tried for it those that this person may be told by name; read once for all that a page says."""
    whose = getattr(person, "pk", None)
    known: tuple[int | None, set[int]] | None = getattr(adapter, "_named", None)
    if known is None or known[0] != whose:
        ids = [candidate.revision.adapter_id for candidate in made(adapter).tried]
        known = adapter._named = (whose, may_be_named(ids, person))  # type: ignore[attr-defined]
    return known[1]


def made_of(adapter: Adapter) -> list[Candidate]:
    """The modules with a weight in this composed adapter, the heaviest first."""
    return parents(made(adapter).tried)


def parents(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those with a share in the mix, the largest weight first."""
    kept = [candidate for candidate in candidates if candidate.mixing_weight]
    return sorted(kept, key=lambda candidate: -abs(candidate.mixing_weight or 0.0))


@dataclass(frozen=True)
class Use:
    """How often an adapter was taken: compositions that `tried` it, those in whose mix it has a weight (`count`), means there."""

    tried: int = 0
    count: int = 0
    weight: float | None = None
    attribution: float | None = None


def use_of(adapter: Adapter, person: Person) -> Use:
    """In what this person may see, published or not; read once for all that a page says about it."""
    whose = getattr(person, "pk", None)
    known: tuple[int | None, Use] | None = getattr(adapter, "_use", None)
    if known is None or known[0] != whose:
        known = adapter._use = (whose, _count_uses(adapter, person))  # type: ignore[attr-defined]
    return known[1]


def _count_uses(adapter: Adapter, person: Person) -> Use:
    # Most are in none, and which of them somebody may see is a long question. A guest's page has room for both.
    if is_guest(person) and not _tried(adapter.pk).exists():
        return Use()
    counted = _COUNTED.tuples(person, adapter=adapter.pk)
    return Use(*counted[0][1:]) if counted else Use()  # in the order of `_counted`


def _counted(*, person: Person, adapter: Any) -> QuerySet[Candidate, tuple[Any, ...]]:
    """The fields of a `Use`, behind the adapter."""
    has_weight = ~Q(mixing_weight=0)
    return (
        _tried_before(adapter, person)
        .order_by()
        .values_list("revision__adapter_id")
        .annotate(
            tried=Count("composition", distinct=True),
            count=Count("composition", distinct=True, filter=has_weight),
            weight=Avg("mixing_weight", filter=has_weight),
            attribution=Avg("attribution", filter=has_weight),
        )
    )


_COUNTED = KeptForGuests(_counted, number_of("adapter"))


def uses(adapter: Adapter, person: Person) -> QuerySet[Candidate]:
    """Where it has a weight in what this person may see, published or not."""
    return _tried_before(adapter.pk, person).exclude(mixing_weight=0)


def latest_uses(adapter: Adapter, person: Person) -> list[Candidate]:
    """The newest of `uses`, each with `is_told`: whether this person may be told what came of it."""
    return _LATEST.rows(person, adapter=adapter.pk)


def _latest(*, person: Person, adapter: Any) -> QuerySet[Candidate]:
    return (
        _tried_before(adapter, person)
        .exclude(mixing_weight=0)
        .select_related("composition__adapter__namespace")
        .annotate(is_told=sees_adapter(person, "composition__adapter"))
        .defer("composition__examples", "composition__test_examples", "composition__predictions")
        .order_by("-composition__finished_at", "-pk")[:LATEST_SHOWN]
    )


_LATEST = KeptForGuests(_latest, number_of("adapter"))


def _tried(adapter: Any) -> QuerySet[Candidate]:
    return Candidate.objects.filter(revision__adapter_id=adapter).exclude(mixing_weight=None)


def _tried_before(adapter: Any, person: Person) -> QuerySet[Candidate]:
    """Where this person may see that it was tried."""
    visible = Composition.objects.visible_to(person).filter(status=Composition.Status.SUCCEEDED)
    return _tried(adapter).filter(composition__in=visible)


def made_with(adapter: Adapter, person: Person) -> QuerySet[Candidate]:
    """Where this adapter has a weight in a published one that this person may see; `published` says since when."""
    return _uses([adapter.pk], person).annotate(published=published_at("composition__adapter__"))


# --- Gathering -----------------------------------------------------------------------------------------------


def _weighted() -> QuerySet[Candidate]:
    return Candidate.objects.exclude(mixing_weight=None).exclude(mixing_weight=0)


def _made_of(ids: Sequence[int]) -> dict[int, list[Candidate]]:
    """By composed adapter, what it is made of, the heaviest first."""
    if not ids:
        return {}
    uses = _MADE_OF.rows(among=list(ids))
    found: dict[int, list[Candidate]] = {}
    for use in sorted(uses, key=lambda use: -abs(use.mixing_weight or 0.0)):
        found.setdefault(use.of, []).append(use)
    return found


_MADE_OF = KeptQuery(
    lambda among: (
        _weighted()
        .filter(composition__adapter_id__in=among)
        .select_related("revision__adapter__namespace")
        .defer("revision__facts")
        .annotate(of=F("composition__adapter_id"))
    ),
    ids_of("among"),
)


def _uses(ids: Any, person: Person) -> QuerySet[Candidate]:
    visible = Adapter.objects.visible_to(person)
    return (
        _weighted()
        .filter(revision__adapter_id__in=ids, composition__adapter__in=visible)
        .select_related("composition__adapter__namespace", "revision")
        .only(
            "mixing_weight", "attribution", "revision__adapter_id", "composition__adapter__name",
            "composition__adapter__kind", "composition__adapter__namespace__name", "composition__adapter__created_at",
            "composition__adapter__first_public_at", "composition__adapter__deleted_at",
        )
    )  # fmt: skip


def _made_with(
    ids: Sequence[int], most: int, person: Person
) -> tuple[dict[int, list[Candidate]], dict[int, int]]:
    """By adapter, the newest `most` published ones it has a weight in, and how many there are."""
    counts = dict(_MADE.tuples(person, among=list(ids)))
    found: dict[int, list[Candidate]] = {}
    if counts:
        for use in _NEWEST[most].rows(person, among=list(ids)):
            row = found.setdefault(use.revision.adapter_id, [])
            if len(row) < most and all(use.composition_id != other.composition_id for other in row):
                row.append(use)
    return found, counts


def _made_count(*, person: Person, among: Any) -> QuerySet[Candidate, tuple[int, int]]:
    made = _uses(among, person).order_by().values_list("revision__adapter_id")
    return made.annotate(Count("composition", distinct=True))


def _newest(most: int, *, person: Person, among: Any) -> QuerySet[Candidate]:
    # Enough for all of them unless a few have very many: then some boxes are counted and not drawn.
    enough = most * 40
    return _uses(among, person).order_by(published_at("composition__adapter__").desc(), "-pk")[:enough]


_MADE = KeptForGuests(_made_count, ids_of("among"))
_NEWEST = {most: KeptForGuests(partial(_newest, most), ids_of("among")) for most in (MOST_NEAR, MOST_FAR)}


# --- Drawing -------------------------------------------------------------------------------------------------


def _node(adapter: Adapter) -> Node:
    return Node(
        key=f"adapter-{adapter.pk}",
        name=adapter.name,
        owner=f"{adapter.namespace.name}, deleted" if adapter.deleted_at else adapter.namespace.name,
        title=f"{adapter.full_name}, deleted" if adapter.deleted_at else adapter.full_name,
        url="" if adapter.deleted_at else adapter.get_absolute_url(),
        kind="composed" if adapter.is_composed else "module",
    )


def _up(
    found: Family, child: Node, uses: list[Candidate], most: int, named: set[int], drawn: dict[str, Node]
) -> list[Node]:
    """New boxes for what `child` is made of, with their edges."""
    new = []
    for use in uses[:most]:
        adapter = use.revision.adapter
        node = drawn.get(f"adapter-{adapter.pk}")
        if node is None:
            is_named = adapter.pk in named
            node = _node(adapter) if is_named else Node(f"adapter-{adapter.pk}", "not public", title=HIDDEN)
            drawn[node.key] = node
            new.append(node)
        found.relations.append(Edge(node, child, use.mixing_weight))
    if len(uses) > most:
        new.append(_more(found.this, child, len(uses) - most, "parents"))
        found.relations.append(Edge(new[-1], child))
    return new


def _down(
    found: Family, parent: Node, uses: list[Candidate], count: int, drawn: dict[str, Node]
) -> list[Node]:
    """New boxes for what was made with `parent`, with their edges."""
    new = []
    for use in uses:
        adapter = use.composition.adapter
        if adapter is None:
            continue
        node = drawn.get(f"adapter-{adapter.pk}")
        if node is None:
            node = drawn[f"adapter-{adapter.pk}"] = _node(adapter)
            new.append(node)
        found.relations.append(Edge(parent, node, use.mixing_weight, label_at="child"))
    if count > len(uses):
        new.append(_more(found.this, parent, count - len(uses), "children"))
        found.relations.append(Edge(parent, new[-1]))
    return new


def _more(this: Node, of: Node, count: int, which: str) -> Node:
    whose = of if of.url else this
    said = f"and {count:,} more"
    return Node(f"more-{which}-{of.key}", said, title=said, url=f"{whose.url}/lineage#{which}", kind="more")


def _lay_out(found: Family) -> None:
    for number, column in enumerate(found.columns):
        height = len(column) * HEIGHT + (len(column) - 1) * DOWN
        top = (found.height - height) / 2
        for row, node in enumerate(column):
            node.x = number * (WIDTH + ACROSS)
            node.y = top + row * (HEIGHT + DOWN)
    # Where two that are related stand in one column, or the wrong way round, the list says it and no line does.
    found.lines = [edge for edge in found.relations if edge.parent.x < edge.child.x]
