"""What the stages of a composition after loading work with: base, modules, and the examples as tokens."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from compose.engine import loading, precision
from compose.engine.bank import Bank, build_bank
from compose.engine.errors import BadInput, NoExamples, NoModules
from compose.engine.loading import LoadedBase, LoadedModule
from compose.engine.methods import Method
from compose.engine.mixing import EXACT, PAPER, Mixer
from compose.engine.scoring import Row, Scorer, tokenise
from compose.engine.soundness import Proportions, proportions, without
from compose.engine.types import Module, Request
from compose.engine.warm import WarmCache


@dataclass
class Prepared:
    """The search may have a base and a bank of its own, in a shorter type."""

    base: LoadedBase  # float32, as is what follows
    modules: list[LoadedModule]  # what is left out is zeros, as in the banks
    bank: Bank
    mixer: Mixer
    rows: list[Row]
    scorer: Scorer
    search_bank: Bank
    search_scorer: Scorer
    dtype: torch.dtype  # of the search
    method: str  # whose search it is; any other, as what it is compared with, runs in float32
    sizes: Proportions  # of the modules

    def searching(self, method: Method, needs: str) -> tuple[Scorer, Bank]:
        """What a search by this method works with; small differences and derivatives are taken in float32."""
        if method.name == self.method and needs == "losses":
            return self.search_scorer, self.search_bank
        return self.scorer, self.bank


def prepare(request: Request, warm: WarmCache, dtype: torch.dtype | None) -> Prepared:
    """`dtype` None: what this machine does faster. Raises EngineError."""
    base, modules, rows = load(request, warm, torch.float32)
    device = base.device
    whole = warm.bank(request.modules, modules, device=device, dtype=torch.float32)
    sizes = proportions(base, whole)
    if sizes.left_out:
        modules = without(modules, sizes.left_out)

    def bank_in(dtype: torch.dtype) -> Bank:
        if sizes.left_out:
            return build_bank(modules, device=device, dtype=dtype)
        if dtype == torch.float32:
            return whole
        return warm.bank(request.modules, modules, device=device, dtype=dtype)

    bank = bank_in(torch.float32)
    mixer = Mixer(base, bank)
    scorer = Scorer(base, mixer, rows)
    chosen = dtype or precision.for_search(base)
    if chosen == torch.float32:
        return Prepared(base, modules, bank, mixer, rows, scorer, bank, scorer, chosen, request.method, sizes)
    short_base = warm.base(Path(request.base), device=device, dtype=chosen)
    short_bank = bank_in(chosen)
    short_scorer = Scorer(short_base, Mixer(short_base, short_bank), rows)
    return Prepared(
        base, modules, bank, mixer, rows, scorer, short_bank, short_scorer, chosen, request.method, sizes
    )


def load(
    request: Request, warm: WarmCache, dtype: torch.dtype
) -> tuple[LoadedBase, list[LoadedModule], list[Row]]:
    """The base in this type, the modules, all of which fit it, and the examples as tokens. Raises EngineError."""
    check_modules(request.modules)
    if not request.examples:
        raise NoExamples("There are no few-shot examples; give at least one with an input and an output.")
    device = loading.resolve_device(request.device)
    base = warm.base(Path(request.base), device=device, dtype=dtype)
    modules = [warm.module(module) for module in request.modules]
    loading.check_all_fit(modules, base)
    return base, modules, tokenise(base, request.examples)


def check_modules(modules: Sequence[Module]) -> None:
    """Raises NoModules or BadInput."""
    if not modules:
        raise NoModules("There are no modules to compose; choose at least one that fits the base model.")
    names = [module.name for module in modules]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise BadInput(f"The module {doubled} was given twice; give each module once.")


def check_weights(vector: Sequence[float], modules: Sequence[Module], what: str) -> None:
    """Raises BadInput; `what` begins its sentence."""
    if len(vector) != len(modules):
        raise BadInput(f"{what} has {len(vector)} numbers for {len(modules)} modules; give one for each.")
    # Not math.isfinite, which knows no number of a thousand digits, as JSON may hold one.
    if not all(isinstance(w, int | float) and abs(w) <= sys.float_info.max for w in vector):
        raise BadInput(f"{what} holds something that is not a finite number.")


def mix_kind(name: str) -> str:
    """Raises BadInput."""
    if name not in (PAPER, EXACT):
        raise BadInput(f"There is no mix {name!r}; choose {PAPER} or {EXACT}.")
    return name
