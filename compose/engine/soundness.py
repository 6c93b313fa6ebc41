"""Modules whose change to the base is out of all proportion: one of them must not spoil a mix for everybody."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from compose.engine.bank import Bank
from compose.engine.errors import NoModules
from compose.engine.loading import Factors, LoadedBase, LoadedModule
from compose.engine.wording import first_of

# A usual module's change is a third of the base's own matrices, in the Frobenius norm. One that is so many times as
# large as they are has overwritten the base.
MOST_OF_BASE = 30.0
# A module so many times as large as the pool's median is weighed by a unit of its own.
UNUSUAL = 2.0
# What changes less than this share of the base, as an untrained module does, says nothing about what is usual.
LEAST_OF_BASE = 1e-3


@dataclass(frozen=True)
class Proportions:
    """How large the changes of a pool's modules are.

    left_out: indexes of those that take no part.
    units: (n,) the weight at which a module acts like the pool's median one: 1 for what is of a usual size, less for what
        is larger, 0 for what is left out.
    note: a sentence about what is left out; empty where nothing is.
    """

    left_out: tuple[int, ...]
    units: tuple[float, ...]
    note: str


def out_of_proportion(base: LoadedBase, bank: Bank) -> tuple[int, ...]:
    """Indexes of the modules that have overwritten the base."""
    most = MOST_OF_BASE * _size_of_base(base, bank)
    # Not "size > limit": what is not a number is out of proportion too.
    return tuple(index for index, size in enumerate(bank.change_sizes) if not size <= most)


def _size_of_base(base: LoadedBase, bank: Bank) -> float:
    """Frobenius norm of the base's own matrices that the modules change."""
    return math.sqrt(sum(base.squared_norm(path) for path in bank.targets))


def proportions(base: LoadedBase, bank: Bank) -> Proportions:
    """Raises NoModules if nothing is left."""
    whole, sizes = _size_of_base(base, bank), bank.change_sizes
    left_out = out_of_proportion(base, bank)
    sound = [size for index, size in enumerate(sizes) if index not in left_out]
    if not sound:
        raise NoModules(
            f"None of the modules can be used: {_said(bank, left_out, whole)}. Choose others for this base model."
        )
    usual = median([size for size in sound if size > LEAST_OF_BASE * whole] or [max(sound)])
    units = tuple(
        0.0 if index in left_out else usual / size if size > UNUSUAL * usual else 1.0
        for index, size in enumerate(sizes)
    )
    note = f"Left out: {_said(bank, left_out, whole)}." if left_out else ""
    return Proportions(left_out, units, note)


def _said(bank: Bank, left_out: Sequence[int], whole: float) -> str:
    named = []
    for index in left_out:
        size = bank.change_sizes[index]
        times = f"{size / whole:,.0f} times" if size < 1e12 * whole else "more than a trillion times"
        named.append(f"{bank.names[index]}, whose change is {times} as large as the base's own matrices")
    return first_of(named, most=3, separator="; ")


def without(modules: Sequence[LoadedModule], left_out: Sequence[int]) -> list[LoadedModule]:
    """The same modules, those that are left out with nothing but zeros: no product with them is too large for a number.

    They take scaling and config of the first that stays: the paper mix is scaled as its first module is.
    """
    staying = next((module for index, module in enumerate(modules) if index not in left_out), None)
    return [
        _zeros(module, staying or module) if index in left_out else module
        for index, module in enumerate(modules)
    ]


def _zeros(module: LoadedModule, like: LoadedModule) -> LoadedModule:
    factors = {
        path: Factors(
            a=torch.zeros_like(pair.a),
            b=torch.zeros_like(pair.b),
            scaling=like.factors[path].scaling if path in like.factors else 1.0,
        )
        for path, pair in module.factors.items()
    }
    return replace(module, factors=factors, config=like.config)
