"""Which module paths a LoRA config targets, and with which rank and alpha: peft's own rules, without peft."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.adapter_config import AdapterConfig
from registry.errors import Problem
from registry.filenames import CONFIG, show
from registry.patterns import PatternTooSlow, match_all

_LITERAL = re.compile(r"[A-Za-z0-9_\-.]*")
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Target:
    """What the config says about one module path."""

    is_targeted: bool
    rank: int
    alpha: float
    scaling: float


class PatternRefused(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def resolve_targets(config: AdapterConfig, paths: Sequence[str]) -> dict[str, Target]:
    """What `config` says about each of `paths` (module paths without `base_model.model.`).

    Source: peft 0.21, `check_target_module_exists` and `get_pattern_key`. Raises PatternRefused if a pattern of the
    config does not come to an end in time.
    """
    rules = _Rules(config, paths)
    ranks, alphas = config.rank_pattern or {}, config.alpha_pattern or {}
    targets = {}
    for path in paths:
        rank = ranks.get(rules.pattern_for(path, "rank_pattern", ranks), config.r)
        alpha = alphas.get(rules.pattern_for(path, "alpha_pattern", alphas), config.lora_alpha)
        scaling = alpha / math.sqrt(rank) if config.use_rslora else alpha / rank
        targets[path] = Target(rules.is_targeted(path), rank, alpha, scaling)
    return targets


class _Rules:
    """The config's patterns, matched once against all paths."""

    def __init__(self, config: AdapterConfig, paths: Sequence[str]) -> None:
        self.config = config
        self.matches = self._match_patterns(paths)
        self.orders = {
            key: {pattern: place for place, pattern in enumerate(getattr(config, key) or {})}
            for key in ("rank_pattern", "alpha_pattern")
        }
        targets = config.target_modules
        excluded = config.exclude_modules
        self.targets = frozenset(targets) if isinstance(targets, list) else frozenset()
        self.excluded = frozenset(excluded) if isinstance(excluded, list) else frozenset()

    def _match_patterns(self, paths: Sequence[str]) -> dict[tuple[str, str], dict[str, str | None]]:
        wanted = list(self._expressions())
        try:
            found = match_all([(pattern, expression) for _, pattern, expression in wanted], paths)
        except PatternTooSlow as error:
            key, pattern, _ = wanted[error.index]
            shown = show(pattern)[:80]
            raise PatternRefused(
                Problem(
                    file=CONFIG,
                    where=key,
                    message=f"{CONFIG}: the pattern “{shown}” in “{key}” takes too long to match. "
                    "List the module names instead.",
                    found=shown,
                    expected="a pattern that matches at once",
                )
            ) from None
        return {(key, pattern): match for (key, pattern, _), match in zip(wanted, found, strict=True)}

    def _expressions(self) -> Iterable[tuple[str, str, str]]:
        """(key, pattern, what peft matches) for every pattern that is more than a plain name."""
        config = self.config
        for key in ("target_modules", "exclude_modules"):
            value = getattr(config, key)
            if isinstance(value, str) and value != ALL_LINEAR:
                yield key, value, rf"(?:{value})\Z"
        layers = config.layers_pattern
        for pattern in [layers] if isinstance(layers, str) else layers or []:
            yield "layers_pattern", pattern, rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\."
        for key in ("rank_pattern", "alpha_pattern"):
            for pattern in getattr(config, key) or {}:
                if not _LITERAL.fullmatch(pattern):
                    yield key, pattern, rf"(.*\.)?({pattern})$"
        for pattern in config.modules_to_save or []:
            if not _LITERAL.fullmatch(pattern):
                yield "modules_to_save", pattern, rf"(^|.*\.){pattern}($|\..*)"

    def is_targeted(self, path: str) -> bool:
        config = self.config
        if self._is_excluded(path):
            return False
        if config.target_modules is None or config.target_modules == ALL_LINEAR:
            return True  # peft chooses by the base's type; what it chose is what the file holds
        if isinstance(config.target_modules, str):
            return path in self.matches["target_modules", config.target_modules]
        if path in self.targets:
            return True  # a full path is targeted whatever layers_to_transform says
        return not self.targets.isdisjoint(_endings(path)) and self._is_in_layers(path)

    def _is_excluded(self, path: str) -> bool:
        config = self.config
        if isinstance(config.exclude_modules, str):
            if path in self.matches.get(("exclude_modules", config.exclude_modules), ()):
                return True
        elif not self.excluded.isdisjoint(_endings(path)):
            return True
        return self.is_saved_whole(path)

    def is_saved_whole(self, path: str) -> bool:
        return any(
            path in self.matches["modules_to_save", name]
            if ("modules_to_save", name) in self.matches
            else holds_module(path, name)
            for name in self.config.modules_to_save or []
        )

    def _is_in_layers(self, path: str) -> bool:
        layers = self.config.layers_to_transform
        if layers is None or layers == []:
            return True
        index = self._layer_index(path)
        if index is None:
            return False
        return index == layers if isinstance(layers, int) else index in layers

    def _layer_index(self, path: str) -> int | None:
        if not self.config.layers_pattern:
            match = re.match(r".*?\.[^.]*\.(?P<idx>\d+)\.", path)
            return int(match["idx"]) if match else None
        for (key, _), found in self.matches.items():
            if key == "layers_pattern" and (index := found.get(path)):
                return int(index)
        return None

    def pattern_for(self, path: str, key: str, patterns: dict) -> str:
        """The first of `patterns` that fits `path`; the empty text if none does, which is never a usable pattern."""
        if not patterns:
            return ""
        order = self.orders[key]
        fitting = [ending for ending in _endings(path) if ending in order and _LITERAL.fullmatch(ending)]
        fitting += [pattern for (of, pattern), found in self.matches.items() if of == key and path in found]
        return min(fitting, key=order.__getitem__, default="")


def _endings(path: str) -> Iterable[str]:
    """`a.b.c`, `b.c` and `c` for the path `a.b.c`: the names by which a list may target it."""
    parts = path.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def holds_module(path: str, name: str) -> bool:
    """Whether `name` is the module at `path` or one that it lies in."""
    return f".{name}." in f".{path}."
