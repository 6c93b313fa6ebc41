"""Common base models by their published numbers, so that uploads for them are checked from the first day on.

`configs.json` is written by hand: ids, other names, licence, configuration numbers, the published parameter total.
`matrices.json` is computed from it by `python -m registry.catalogue.build`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from registry.matrices import expand

__all__ = ["CatalogueEntry", "entries", "expand"]

CONFIGS = Path(__file__).with_name("configs.json")
MATRICES = Path(__file__).with_name("matrices.json")


@dataclass(frozen=True)
class CatalogueEntry:
    """One base model. `matrices` are folded, see `expand`; `published_parameters` is None where no total is known."""

    name: str
    aliases: tuple[str, ...]
    license: str
    config: dict[str, Any]
    architecture: str
    task_type: str
    parameters: int
    matrices: dict[str, list[int]]
    embeddings: dict[str, list[int]] = field(default_factory=dict)
    published_parameters: int | None = None


def read_configs() -> list[dict[str, Any]]:
    """The hand-written entries, each with its full config: one that is `like` another takes that one's numbers."""
    given = json.loads(CONFIGS.read_text(encoding="utf-8"))
    by_name = {entry["name"]: entry for entry in given}
    for entry in given:
        pattern = by_name[entry["like"]] if "like" in entry else {"config": {}}
        entry["config"] = {**pattern["config"], **entry.get("config", {})}
        if "like" in entry and entry["config"] == pattern["config"]:
            entry.setdefault("parameters", pattern.get("parameters"))
    return given


@lru_cache(maxsize=1)
def entries() -> list[CatalogueEntry]:
    """All base models of the catalogue, in the order of configs.json; read once from the two files."""
    computed = json.loads(MATRICES.read_text(encoding="utf-8"))
    return [
        CatalogueEntry(
            name=given["name"],
            aliases=tuple(given.get("aliases", ())),
            license=given.get("license", ""),
            config=given["config"],
            published_parameters=given.get("parameters"),
            **computed["shapes"][computed["models"][given["name"]]],
        )
        for given in read_configs()
    ]
