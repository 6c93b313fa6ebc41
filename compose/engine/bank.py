"""All modules of a composition side by side: one A and one B per target matrix, concatenated over modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compose.engine.loading import LoadedModule


@dataclass(frozen=True)
class TargetBank:
    """One target matrix over n modules; R is the sum of their ranks, 0 for a module without this matrix."""

    a: Tensor  # (R, in_features)
    b: Tensor  # (R, out_features): B transposed, as stored, without the scalings
    owner: Tensor  # (R,) index of the module a row belongs to
    ranks: tuple[int, ...]  # (n,)
    scalings: Tensor  # (n,) 0 where the module has no such matrix

    @property
    def in_features(self) -> int:
        return self.a.shape[1]

    @property
    def out_features(self) -> int:
        return self.b.shape[1]

    @property
    def paper_scaling(self) -> float:
        """LoraHub loads the mixed factors into the first module's model, so the first module's scaling holds."""
        return float(self.scalings[0])


@dataclass(frozen=True)
class Bank:
    """The modules of a composition on one device; `targets` is keyed by the dotted path in the base."""

    names: tuple[str, ...]
    targets: dict[str, TargetBank]
    paper_problem: str  # why these modules have no paper mix; empty if they have
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def size_bytes(self) -> int:
        return sum(bank.a.nbytes + bank.b.nbytes for bank in self.targets.values())


def build_bank(
    modules: Sequence[LoadedModule], *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Bank:
    """Concatenate the modules per target matrix, in their order."""
    paths = sorted({target for module in modules for target in module.factors})
    targets = {path: _concatenate(modules, path, device, dtype) for path in paths}
    return Bank(
        names=tuple(module.name for module in modules),
        targets=targets,
        paper_problem=paper_problem(modules),
        notes=tuple(_scaling_notes(modules)),
    )


def _concatenate(
    modules: Sequence[LoadedModule], path: str, device: torch.device, dtype: torch.dtype
) -> TargetBank:
    present = [
        (index, module.factors[path]) for index, module in enumerate(modules) if path in module.factors
    ]
    scalings, ranks = [0.0] * len(modules), [0] * len(modules)
    for index, factors in present:
        scalings[index], ranks[index] = factors.scaling, factors.rank
    owner = [index for index, factors in present for _ in range(factors.rank)]
    return TargetBank(
        a=torch.cat([factors.a for _, factors in present]).to(device, dtype),
        b=torch.cat([factors.b.T for _, factors in present]).contiguous().to(device, dtype),
        owner=torch.tensor(owner, device=device),
        ranks=tuple(ranks),
        scalings=torch.tensor(scalings, device=device, dtype=torch.float32),
    )


def paper_problem(modules: Sequence[LoadedModule]) -> str:
    """Why the modules cannot be mixed as LoraHub does, A and B separately; empty if they can."""
    if not modules:
        return ""
    first = modules[0]
    for module in modules[1:]:
        if set(module.factors) != set(first.factors):
            return f"{first.name} and {module.name} adapt different matrices of the base"
        for path, factors in module.factors.items():
            if factors.rank != first.factors[path].rank:
                return (
                    f"{first.name} has rank {first.factors[path].rank} at {path}, "
                    f"{module.name} has rank {factors.rank}"
                )
    return ""


def _scaling_notes(modules: Sequence[LoadedModule]) -> list[str]:
    if paper_problem(modules):
        return []
    first = modules[0]
    others = [
        module.name
        for module in modules[1:]
        if any(module.factors[path].scaling != factors.scaling for path, factors in first.factors.items())
    ]
    if not others:
        return []
    named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return [
        f"The mix uses the scaling (alpha / rank) of {first.name} for every module, as LoraHub does; "
        f"{named} had another one."
    ]
