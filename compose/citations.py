"""BibTeX for an adapter, and for a composed one of everybody whose module has a weight in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from compose import lineage
from compose.models import Composition
from registry.models import Adapter
from registry.rights import Person

LORAHUB = """@article{huang2023lorahub,
  title   = {LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition},
  author  = {Huang, Chengsong and Liu, Qian and Lin, Bill Yuchen and Pang, Tianyu and Du, Chao and Lin, Min},
  journal = {arXiv preprint arXiv:2307.13269},
  year    = {2023}
}"""
# What means something to TeX, and how it is written to mean itself.
_SPECIAL = {mark: f"\\{mark}" for mark in "{}&%$#_"}
_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def bibtex(adapter: Adapter, *, person: Person, site: str) -> str:
    """Entries for the adapter and, where it was composed, for the method and every module with a weight in it.

    Modules that this person may not see are left out. `site` is our address without a slash at the end.
    """
    entries = [_entry(adapter, site)]
    composition = lineage.made(adapter).composition
    if composition is None:
        return entries[0]
    parents = list(_parents(adapter, person))
    entries[0] = _entry(adapter, site, note=_made_of(composition, parents))
    return "\n\n".join([*entries, LORAHUB, *(_entry(parent, site) for parent, _ in parents)])


def _parents(adapter: Adapter, person: Person) -> Iterable[tuple[Adapter, float]]:
    offered = {
        candidate.revision.adapter_id: candidate
        for candidate in lineage.made(adapter).tried
        if candidate.mixing_weight
    }
    named = lineage.named(adapter, person)
    for pk, candidate in offered.items():
        parent = candidate.revision.adapter
        if pk in named and parent.deleted_at is None:
            yield parent, candidate.mixing_weight or 0.0


def _made_of(composition: Composition, parents: Sequence[tuple[Adapter, float]]) -> str:
    weights = ", ".join(f"{parent.full_name} ({weight:+.3f})" for parent, weight in parents)
    return f"Composed by {composition.method}, seed {composition.seed}" + (
        f", of {weights}" if weights else ""
    )


def _entry(adapter: Adapter, site: str, *, note: str = "") -> str:
    author = adapter.namespace.full_name or adapter.namespace.name
    fields = {
        "title": f"{{{_escaped(adapter.full_name)}}}",
        "author": f"{{{_escaped(author)}}}",
        "year": str(adapter.created_at.year),
        "url": f"{site}{adapter.get_absolute_url()}",
    }
    if adapter.head is not None:
        fields["version"] = adapter.head.commit
    if note:
        fields["note"] = _escaped(note)
    lines = ",\n".join(f"  {name:<7} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{_key(adapter)},\n{lines}\n}}"


def _key(adapter: Adapter) -> str:
    return re.sub(r"[^a-z0-9]+", "-", adapter.full_name.lower()).strip("-") + f"-{adapter.created_at.year}"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(letter, letter) for letter in text)
