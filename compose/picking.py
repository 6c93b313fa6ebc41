"""The list of modules to pick, pin or leave out on the compose form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy

from django.conf import settings
from django.db.models import Q

from compose import auditions, candidates, fit
from compose import examples as few_shot
from compose.engine.types import Example
from compose.models import Audition, Auditioned
from registry.models import Adapter, BaseModel
from registry.models.adapters import AdapterQuerySet
from registry.rights import Person
from registry.search import show_tasks, tasks_hidden_from

SHOWN = 60


def pickable(
    base_model: BaseModel | None,
    total: int,
    person: Person,
    picked: Iterable[str],
    pinned: Iterable[str],
    excluded: Iterable[str],
    *,
    words: str = "",
    examples: Sequence[Example] = (),
    audition: Audition | None = None,
) -> dict[str, object]:
    """For the template, the modules to choose from, of `total` that fit: those marked already come first, then what has
    all the `words`.

    Without words those come first that have the lowest loss in a finished audition, or that the examples most speak for;
    else they come by name, and the most downloaded ones where there are more than can be shown.
    """
    if base_model is None:
        return {"pickable": [], "pickable_count": 0, "filter": words}
    marks = {
        "picked": {_name_and_version(name) for name in picked},
        "pinned": {_name_and_version(name) for name in pinned},
        "excluded": {(_name_and_version(name)[0], "") for name in excluded},  # whatever the version
    }
    chosen = set().union(*marks.values())
    fitting = candidates.fitting(base_model, person)
    measured = auditions.modules_of(audition, person) if audition else []
    why: dict[int, list[str]] = {}
    if words:
        found = list(_with_words(fitting, words, person)[: SHOWN + 1])
    elif audition and audition.is_finished:
        found, why = _by_loss(fitting, measured)
    elif examples:
        found, why = _by_examples(base_model, person, examples)
    elif total <= SHOWN:
        found = list(fitting)
    else:  # in the order of a hundred thousand names nobody finds anything
        found = list(fitting.order_by("-downloads", "-pk")[: SHOWN + 1])
    kept = _named_among(fitting, {name for name, _ in chosen}, found, total)
    kept_ids = {adapter.pk for adapter in kept}
    adapters = kept + [adapter for adapter in found[:SHOWN] if adapter.pk not in kept_ids]
    _describe(adapters, measured, why, person)
    shown = [entry for adapter in adapters for entry in _entries(adapter, chosen)]
    return {
        "pickable": shown,
        "pickable_shown": len(adapters),
        **{
            f"{mark}_names": {entry.named for entry in shown if _name_and_version(entry.named) in names}  # type: ignore[attr-defined]
            for mark, names in marks.items()
        },
        "pickable_count": total,
        "is_ranked": bool(why),
        "pickable_more": len(found) > SHOWN,
        "filter": words,
        **_said_of(audition, measured, examples),
    }


def _named_among(
    fitting: AdapterQuerySet, names: set[str], found: Sequence[Adapter], total: int
) -> list[Adapter]:
    """Those of the `total` that fit that somebody named, in small letters, by name."""
    known = {adapter.full_name.lower(): adapter for adapter in found}
    if len(found) < total:  # else all that fit are there already
        known |= candidates.named_among(fitting, names - known.keys())
    return [known[name] for name in sorted(names & known.keys())]


def _said_of(
    audition: Audition | None, measured: Sequence[Auditioned], examples: Sequence[Example]
) -> dict[str, object]:
    """What stands above the list of the audition that measured these modules."""
    return {
        "audition": audition,
        "audition_waits": auditions.waits_for(audition) if audition else "",
        "better": auditions.helpful(audition, measured, len(measured)) if audition else [],
        "measured_count": sum(row.loss is not None for row in measured),
        "is_of_other_examples": bool(
            audition and examples and audition.examples != few_shot.as_json(examples)
        ),
    }


def _with_words(fitting: AdapterQuerySet, words: str, person: Person) -> AdapterQuerySet:
    for word in words.split():
        fitting = fitting.filter(
            Q(name__icontains=word)
            | Q(namespace__name__icontains=word)
            | Q(description__icontains=word)
            | (Q(task__title__icontains=word) & ~Q(task__in=tasks_hidden_from(person).values("pk")))
        )
    return fitting


def _by_loss(
    fitting: AdapterQuerySet, measured: Sequence[Auditioned]
) -> tuple[list[Adapter], dict[int, list[str]]]:
    """What was measured, the lowest loss first, and what spoke for each before."""
    by_id = fitting.in_bulk([row.revision.adapter_id for row in measured])
    found = [by_id[row.revision.adapter_id] for row in measured if row.revision.adapter_id in by_id]
    return found, {row.revision.adapter_id: row.reasons for row in measured}


def _by_examples(
    base_model: BaseModel, person: Person, examples: Sequence[Example]
) -> tuple[list[Adapter], dict[int, list[str]]]:
    """What the examples most speak for, and why."""
    some = examples[: settings.MAX_FEW_SHOT_EXAMPLES]
    fits = fit.rank_modules(examples=some, base_model=base_model, person=person, limit=SHOWN + 1)
    return [each.adapter for each in fits.ranked], {each.adapter.pk: each.reasons for each in fits.ranked}


def _describe(
    adapters: Sequence[Adapter],
    measured: Iterable[Auditioned],
    why: dict[int, list[str]],
    person: Person,
) -> None:
    """What the list says of each: its loss, what earlier compositions made of it, what speaks for it."""
    experience = candidates.experience_with([adapter.pk for adapter in adapters], person)
    losses = {row.revision.adapter_id: row for row in measured}
    show_tasks(adapters, person=person)
    for adapter in adapters:
        adapter.measured = losses.get(adapter.pk)  # type: ignore[attr-defined]
        adapter.experience = experience.get(adapter.pk)  # type: ignore[attr-defined]
        adapter.why = why.get(adapter.pk, [])  # type: ignore[attr-defined]


def _name_and_version(given: str) -> tuple[str, str]:
    """A module as the form names it, in small letters; without a version where it is the newest that is meant."""
    name, _, version = given.strip().partition("@")
    return name.lower(), "" if version == "main" else version


def _entries(adapter: Adapter, chosen: Iterable[tuple[str, str]]) -> list[Adapter]:
    """An adapter in the list: each version that is chosen, then the newest. `named` is what the form sends."""
    versions = sorted(version for name, version in chosen if version and name == adapter.full_name.lower())
    entries = []
    for version in (*versions, ""):
        entry = copy(adapter)
        entry.version = version  # type: ignore[attr-defined]
        entry.named = f"{adapter.full_name}@{version}" if version else adapter.full_name  # type: ignore[attr-defined]
        entries.append(entry)
    return entries
