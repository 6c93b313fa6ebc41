"""All modules of a composition side by side: one A and one B per target matrix, concatenated over modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from compose.engine.loading import Factors, LoadedModule
from compose.engine.memory import told_of
from compose.engine.wording import first_of

_TOO_MANY = (
    "The modules together need more memory than the worker has. Use fewer modules or a smaller base model."
)


@dataclass(frozen=True)
class TargetBank:
    """One target matrix over n modules; R is the sum of their ranks, 0 for a module without this matrix."""

    a: Tensor  # (R, in_features)
    b: Tensor  # (R, out_features): B transposed, as stored, without the scalings
    owner: Tensor  # (R,) index of the module a row belongs to
    ranks: tuple[int, ...]  # (n,)
    scalings: Tensor  # (n,) 0 where the module has no such matrix
    # LoraHub loads the mixed factors into the first module's model, so the first module's scaling holds. A number of
    # Python's: to read one of `scalings` is to wait for the device, which no recorded forward may.
    paper_scaling: float

    @property
    def in_features(self) -> int:
        return self.a.shape[1]

    @property
    def out_features(self) -> int:
        return self.b.shape[1]


@dataclass(frozen=True)
class Stack:
    """Target matrices of one size in one block of memory, so that one operation reaches all of them.

    `blocks` are A (targets, R, in_features) and B (targets, R, out_features); of square matrices both lie in one block,
    (2 * targets, R, features).
    """

    paths: tuple[str, ...]
    blocks: tuple[Tensor, ...]

    @property
    def a(self) -> Tensor:
        """(targets, R, in_features)"""
        return self.blocks[0][: len(self.paths)]

    @property
    def b(self) -> Tensor:
        """(targets, R, out_features)"""
        return self.blocks[-1][-len(self.paths) :]

    @property
    def size_bytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)


@dataclass(frozen=True)
class Bank:
    """The modules of a composition on one device; `targets` is keyed by the dotted path in the base.

    The tensors of `targets` are views of those of `stacks`.
    """

    names: tuple[str, ...]
    targets: dict[str, TargetBank]
    stacks: tuple[Stack, ...]
    paper_problem: str  # why these modules have no paper mix; empty if they have
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def size_bytes(self) -> int:
        return sum(stack.size_bytes for stack in self.stacks)

    @property
    def whole_dtype(self) -> torch.dtype:
        """The float type in which whole changes are kept and mixed: what is multiplied in bfloat16 need not be more exact."""
        dtypes = {target.a.dtype for target in self.targets.values()}
        return torch.bfloat16 if dtypes == {torch.bfloat16} else torch.float32

    @cached_property
    def change_sizes(self) -> tuple[float, ...]:
        """Frobenius norm of each module's whole change to the base, at weight 1."""
        squares = torch.zeros(self.size, dtype=torch.float64)
        for target in self.targets.values():
            squares += _squared_sizes(target)
        return tuple(squares.clamp(min=0.0).sqrt().tolist())


def _squared_sizes(target: TargetBank) -> Tensor:
    """(n,) ‖scaling · BA‖² of each module, from the small products A·Aᵀ and B·Bᵀ."""
    found = torch.zeros(len(target.ranks), dtype=torch.float64)
    present = [index for index, rank in enumerate(target.ranks) if rank]
    ranks = [target.ranks[index] for index in present]
    if len(set(ranks)) == 1:
        a, b = (side.float().reshape(len(present), ranks[0], -1) for side in (target.a, target.b))
        products = (torch.bmm(a, a.mT) * torch.bmm(b, b.mT)).sum((1, 2)).double().cpu()
    else:
        sides = zip(target.a.float().split(ranks), target.b.float().split(ranks), strict=True)
        products = torch.stack([((a @ a.T) * (b @ b.T)).sum() for a, b in sides]).double().cpu()
    found[present] = products * target.scalings[present].double().cpu() ** 2
    return found


def build_bank(
    modules: Sequence[LoadedModule], *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Bank:
    """Concatenate the modules per target matrix, in their order. Raises OutOfMemory."""
    by_size: dict[tuple[int, int, int], list[str]] = {}
    for path in sorted({target for module in modules for target in module.factors}):
        by_size.setdefault(_size(modules, path), []).append(path)
    stacks, targets = [], {}
    for paths in by_size.values():
        with told_of(_TOO_MANY):
            stack = _stack(modules, paths, device, dtype)
        stacks.append(stack)
        for index, path in enumerate(paths):
            targets[path] = _target(modules, path, stack.a[index], stack.b[index])
    return Bank(
        names=tuple(module.name for module in modules),
        targets={path: targets[path] for path in sorted(targets)},
        stacks=tuple(stacks),
        paper_problem=paper_problem(modules),
        notes=tuple(_scaling_notes(modules)),
    )


def _holders(modules: Sequence[LoadedModule], path: str) -> list[tuple[int, Factors]]:
    """Modules with this matrix, by their index."""
    return [(index, module.factors[path]) for index, module in enumerate(modules) if path in module.factors]


def _size(modules: Sequence[LoadedModule], path: str) -> tuple[int, int, int]:
    """(R, in_features, out_features) of the target matrix."""
    factors = [each for _, each in _holders(modules, path)]
    return sum(each.rank for each in factors), factors[0].a.shape[1], factors[0].b.shape[0]


def _stack(
    modules: Sequence[LoadedModule], paths: Sequence[str], device: torch.device, dtype: torch.dtype
) -> Stack:
    rank, *widths = _size(modules, paths[0])
    count = len(paths)
    if widths[0] == widths[1]:
        widths, count = widths[:1], 2 * count
    blocks = tuple(torch.empty(count, rank, width, dtype=dtype) for width in widths)
    stack = Stack(tuple(paths), blocks)
    for index, path in enumerate(paths):
        row = 0
        for _, factors in _holders(modules, path):
            stack.a[index, row : row + factors.rank] = factors.a
            stack.b[index, row : row + factors.rank] = factors.b.T
            row += factors.rank
    return Stack(stack.paths, tuple(block.to(device) for block in blocks))


def _target(modules: Sequence[LoadedModule], path: str, a: Tensor, b: Tensor) -> TargetBank:
    scalings, ranks = [0.0] * len(modules), [0] * len(modules)
    owner: list[int] = []
    for index, factors in _holders(modules, path):
        scalings[index], ranks[index] = factors.scaling, factors.rank
        owner += [index] * factors.rank
    return TargetBank(
        a=a,
        b=b,
        owner=torch.tensor(owner, device=a.device),
        ranks=tuple(ranks),
        scalings=torch.tensor(scalings, device=a.device, dtype=torch.float32),
        paper_scaling=scalings[0],
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
    named = first_of(others, most=3)
    return [
        f"The mix uses the scaling (alpha / rank) of {first.name} for every module, as LoraHub does; "
        f"{named} had another one."
    ]
