"""Which modules a composition can draw on, and why each was taken."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from django.conf import settings
from django.db.models import Avg, Count, Q
from django.db.models.functions import Lower

from compose import naming
from compose.errors import CandidateProblem, ParentInQuarantine
from compose.models import Candidate, Composition
from registry import moving
from registry.models import Adapter, BaseModel, Ref, Revision
from registry.models.adapters import AdapterQuerySet
from registry.rights import Person, composable_for

AUTOMATIC_LIMIT = 20  # LoraHub's own number
# Methods that mix A and B apart, which only equal shapes allow.
MIXES_EQUAL_ONLY = frozenset({Composition.Method.LORAHUB})
PICKED, PINNED = "picked", "pinned"  # why a module is taken that somebody named
Choice = tuple[Revision, str]
M = TypeVar("M")


def fitting(base_model: BaseModel, person: Person) -> AdapterQuerySet:
    """Adapters this person may see that compose on `base_model`, by name."""
    return (
        Adapter.objects.visible_to(person)
        .composable_with(base_model)
        .filter(head__isnull=False)
        .select_related("namespace", "task", "head", "base_model")
        .defer("head__facts", "base_model__config", "base_model__matrices")  # there may be thousands
        .order_by("namespace__name", "name")
    )


def choose(
    base_model: BaseModel,
    person: Person,
    seed: int,
    *,
    method: str = Composition.Method.LORAHUB,
    pinned: Sequence[str] = (),
    excluded: Sequence[str] = (),
) -> tuple[list[Choice], str]:
    """The automatic candidates with the reason for each, and a sentence about how they were chosen.

    All modules that fit, or as many of them as suit the method drawn by `seed`: 20 for `lorahub`, else the most a
    composition takes. Only modules that were trained are drawn, and of those with the same weights the first published.
    `pinned` are taken whatever the draw says, and with `lorahub` the others are drawn from what has their shape;
    `excluded` are not taken. Both are names as `pick` reads them. Raises CandidateProblem when nothing fits, for a name
    that is not there, and for one that is in both.
    """
    equal_only = method in MIXES_EQUAL_ONLY
    limit = AUTOMATIC_LIMIT if equal_only else settings.MAX_CANDIDATES
    kept = pick(pinned, base_model, person) if pinned else []
    left = _left_out(excluded, kept, person)
    if equal_only and kept:
        check(kept, base_model, person, method=method)
    same_weights = {revision.tensor_sha256 or revision.commit for revision in kept}
    different = _heads(base_model, person)
    # A version that is pinned stands for its module: the newest one is not drawn beside it.
    passed_over = left | {revision.adapter.full_name for revision in kept}
    heads = [
        head for head in different if head.content not in same_weights and head.full_name not in passed_over
    ]
    if not heads and not kept:
        raise CandidateProblem(
            f"You left out every LoRA module that composes on {base_model.name}. Keep some."
            if left
            else f"There is no LoRA module here that composes on {base_model.name} and that you may see. Upload one, or "
            "choose another base model."
        )
    like, unlike = heads, 0
    if equal_only:
        like, unlike = _alike(heads, lambda head: head.likeness, _likeness(kept[0]) if kept else None)
    room = max(0, limit - len(kept))
    is_drawn = len(like) > room
    generator = random.Random(seed)  # noqa: S311 - repeatable, not secret
    drawn = generator.sample(like, room) if is_drawn else like
    others = _revisions(drawn)
    if equal_only:  # the likeness was a guess from a few facts; what is handed on agrees in every matrix
        others, differing = _alike(others, shape, shape(kept[0]) if kept else None)
        unlike += differing
    why = f"drawn by seed {seed} from {len(like)} that fit" if is_drawn else "fits the base model"
    chosen = [*((revision, PINNED) for revision in kept), *((revision, why) for revision in others)]
    if kept:
        note = f"{len(kept)} pinned" + (f" and {len(others)} more that fit." if others else ".")
    elif is_drawn:
        note = f"{len(others)} of the {len(like)} modules that fit {base_model.name}, drawn by seed {seed}."
    else:
        note = f"All {len(others)} modules that fit {base_model.name}."
    if unlike:
        note += f" {unlike} more fit the base model but differ in rank or target matrices."
    note += f" {len(left)} left out by hand." if left else ""
    if not kept and (besides := fitting(base_model, person).count() - len(different)):
        what = "is a composed adapter or a copy" if besides == 1 else "are composed adapters or copies"
        note += f" {besides} more {what}, only taken if picked."
    return chosen, note


def _left_out(names: Sequence[str], kept: Sequence[Revision], person: Person) -> set[str]:
    """Full names of the adapters to leave out. Raises CandidateProblem."""
    left: set[str] = set()
    problems: list[str] = []
    adapters = _called(names, person)
    pinned = {revision.adapter.full_name for revision in kept}
    for name in names:
        try:
            found = _named(name, adapters).adapter.full_name
        except CandidateProblem as problem:
            problems += problem.problems
            continue
        if found in pinned:
            problems.append(f"{found} is pinned and left out at once; choose one.")
        left.add(found)
    if problems:
        raise CandidateProblem(problems)
    return left


@dataclass(frozen=True)
class Experience:
    """What earlier compositions made of a module: in how many it was offered, in how many it kept a weight."""

    offered: int
    kept: int
    mean_weight: float | None


def experience_with(adapter_ids: Sequence[int], person: Person) -> dict[int, Experience]:
    """For each adapter that was ever offered, counted over the compositions that this person may see."""
    rows = (
        Candidate.objects.filter(
            revision__adapter_id__in=adapter_ids,
            composition__in=Composition.objects.visible_to(person).filter(
                status=Composition.Status.SUCCEEDED
            ),
        )
        .values("revision__adapter_id")
        .annotate(
            offered=Count("composition", distinct=True),
            kept=Count("composition", distinct=True, filter=~Q(mixing_weight=0)),
            mean_weight=Avg("mixing_weight", filter=~Q(mixing_weight=0)),
        )
    )
    return {
        row["revision__adapter_id"]: Experience(row["offered"], row["kept"], row["mean_weight"])
        for row in rows
    }


def pick(names: Sequence[str], base_model: BaseModel, person: Person) -> list[Revision]:
    """The revisions named `namespace/name` or `namespace/name@revision`, in their order.

    A revision is a commit (7 or more of its digits), a branch or a tag; without one it is the head of main. Raises
    CandidateProblem with a sentence for each name that cannot be used.
    """
    _require_few(len(names))
    revisions: list[Revision] = []
    problems: list[str] = []
    adapters = _called(names, person)
    for name in names:
        try:
            revisions.append(_named(name, adapters))
        except CandidateProblem as problem:
            problems += problem.problems
    if problems:
        raise CandidateProblem(problems)
    check(revisions, base_model, person)
    return revisions


def check(revisions: Sequence[Revision], base_model: BaseModel, person: Person, *, method: str = "") -> None:
    """Raises CandidateProblem unless this person can compose these with each other on `base_model` by `method`."""
    _require_few(len(revisions))
    problems = []
    if not revisions:
        problems.append("Pick at least one LoRA module, or leave the choice to us.")
    visible = set(
        composable_for(person)
        .filter(pk__in=[revision.adapter_id for revision in revisions])
        .values_list("pk", flat=True)
    )
    seen: dict[str, str] = {}
    for revision in revisions:
        name = revision.adapter.full_name
        if revision.adapter_id not in visible:
            problems.append(_unknown(name))
            continue
        problems += _misfits(revision, name, base_model)
        key = revision.tensor_sha256 or revision.commit
        if key in seen:
            twin = seen[key]
            problems.append(
                f"{name} is picked twice."
                if twin == name
                else f"{name} and {twin} have the same weights; pick one of them."
            )
        seen.setdefault(key, name)
    if not problems and method in MIXES_EQUAL_ONLY:
        problems += _unequal(revisions, method)
    if problems:
        raise CandidateProblem(problems)


def _require_few(picked: int) -> None:
    """Raises CandidateProblem. Before any is looked up: a script may name a hundred thousand."""
    if picked > settings.MAX_CANDIDATES:
        raise CandidateProblem(
            f"You picked {picked:,} modules; at most {settings.MAX_CANDIDATES} can be composed at once."
        )


def require_no_quarantine(revisions: Iterable[Revision], named: set[int]) -> None:
    """Raises ParentInQuarantine for what was hidden since it was chosen: nothing more is made of it.

    `named` are the adapters that who is told of it may be told by name.
    """
    for revision in revisions:
        if revision.adapter.is_quarantined:
            raise ParentInQuarantine(naming.name_of(revision.adapter, named))


def _misfits(revision: Revision, name: str, base_model: BaseModel) -> list[str]:
    adapter = revision.adapter
    if adapter.base_model_id != base_model.pk:
        made_for = (
            adapter.base_model.name if adapter.base_model else adapter.base_model_label or "another base"
        )
        return [f"{name} was made for {made_for}, not for {base_model.name}."]
    if not revision.is_composable:
        why = revision.composable_reason.rstrip(".") or "it is not plain LoRA on linear matrices"
        return [f"{name} cannot be composed: {why}."]
    return []


def _unequal(revisions: Sequence[Revision], method: str) -> list[str]:
    first = revisions[0]
    return [
        f"{revision.adapter.full_name} differs from {first.adapter.full_name} in rank or target matrices; the method "
        f"{method} mixes equal ones only."
        for revision in revisions[1:]
        if shape(revision) != shape(first)
    ]


def shape(revision: Revision) -> str:
    """What must be equal for LoraHub's mix: the names and sizes of all its tensors."""
    sizes = sorted((tensor["name"], tensor["shape"]) for tensor in revision.facts.get("tensors", ()))
    return json.dumps(sizes)


@dataclass(frozen=True)
class _Head:
    """The head of a module, without its facts: there may be many thousands."""

    revision_id: int
    content: str
    likeness: str
    full_name: str


def _heads(base_model: BaseModel, person: Person) -> list[_Head]:
    """Heads of the trained modules that fit, by name; of those with equal weights the first published."""
    rows = (
        fitting(base_model, person)
        .filter(kind=Adapter.Kind.MODULE)
        .order_by("created_at", "pk")
        .values_list(
            "head_id",
            "head__tensor_sha256",
            "head__commit",
            "namespace__name",
            "name",
            "head__facts__ranks",
            "head__facts__target_names",
            "head__facts__target_matrices",
        )
    )
    by_content: dict[str, _Head] = {}
    for pk, tensors, commit, namespace, name, *facts in rows:
        content = tensors or commit
        by_content.setdefault(content, _Head(pk, content, json.dumps(facts), f"{namespace}/{name}"))
    return sorted(by_content.values(), key=lambda head: head.full_name)


def _likeness(revision: Revision) -> str:
    """As `_Head.likeness`, of a revision at hand."""
    return json.dumps([revision.facts.get(name) for name in ("ranks", "target_names", "target_matrices")])


def _revisions(heads: Sequence[_Head]) -> list[Revision]:
    found = Revision.objects.select_related("adapter__namespace", "adapter__base_model").in_bulk(
        [head.revision_id for head in heads]
    )
    return [found[head.revision_id] for head in heads]


def _alike(members: Sequence[M], key: Callable[[M], str], wanted: str | None) -> tuple[list[M], int]:
    """Those whose `key` is `wanted`, or for None the largest family that agrees in it; and how many others there are."""
    families: dict[str, list[M]] = {}
    for member in members:
        families.setdefault(key(member), []).append(member)
    found = max(families.values(), key=len, default=[]) if wanted is None else families.get(wanted, [])
    return found, len(members) - len(found)


def named_among(adapters: AdapterQuerySet, full_names: Collection[str]) -> dict[str, Adapter]:
    """Those of these adapters that have one of these full names, which are in small letters, by it; in one query."""
    namespaces, names = ([full_name.partition("/")[place] for full_name in full_names] for place in (0, 2))
    lower = adapters.alias(lower_namespace=Lower("namespace__name"), lower_name=Lower("name"))
    found = lower.filter(lower_namespace__in=namespaces, lower_name__in=names)
    by_name = {adapter.full_name.lower(): adapter for adapter in found}
    return {name: adapter for name, adapter in by_name.items() if name in full_names}


def _called(texts: Sequence[str], person: Person) -> dict[str, Adapter]:
    """What these texts name, by the name in small letters: also by one that it had before it was moved."""
    names = {str(text).strip().partition("@")[0].lower() for text in texts}
    composable = (
        composable_for(person)
        .select_related("namespace", "base_model", "head")
        .defer("base_model__config", "base_model__matrices")
    )
    found = named_among(composable, names)
    for name in names - found.keys():
        namespace, _, own = name.partition("/")
        moved = moving.moved_from(namespace, own)
        adapter = composable.filter(pk=moved.pk).first() if moved is not None else None
        if adapter is not None:
            found[name] = adapter
    return found


def _named(text: str, adapters: Mapping[str, Adapter]) -> Revision:
    full_name, _, wanted = str(text).strip().partition("@")
    adapter = adapters.get(full_name.lower())
    if adapter is None or adapter.head is None:
        raise CandidateProblem(_unknown(full_name))
    revision = adapter.head if wanted in {"", "main"} else _revision(adapter, wanted)
    if revision is None:
        raise CandidateProblem(f"{adapter.full_name} has no revision {wanted[:60]!r}.")
    revision.adapter = adapter
    return revision


def _revision(adapter: Adapter, wanted: str) -> Revision | None:
    ref = Ref.objects.filter(adapter=adapter, name=wanted).select_related("revision").first()
    if ref is not None:
        return ref.revision
    if len(wanted) < 7:
        return None
    found = list(Revision.objects.filter(adapter=adapter, commit__startswith=wanted.lower())[:2])
    return found[0] if len(found) == 1 else None


def _unknown(name: str) -> str:
    return f"There is no LoRA module {name[:200]!r} here, or you may not see it."


def names(revisions: Iterable[Revision]) -> list[str]:
    return [f"{revision.adapter.full_name}@{revision.commit}" for revision in revisions]
