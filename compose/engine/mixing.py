"""Adding mixed adapters to a frozen base, where every row of a batch may carry its own mixing weights.

Rows that share a mix lie next to each other. Three ways compute the same numbers, and the cheapest is taken:

* folded (paper mix): the factors are mixed first, A_g = Σ w_i A_i and B_g = Σ w_i B_i, then y += s·(x A_gᵀ) B_gᵀ;
* concatenated (exact mix): U = x A_catᵀ for all modules at once, then y += (U ∘ w·s) B_catᵀ;
* gathered (exact mix with few modules in it): the same with only the rows of A_cat and B_cat a mix uses;
* dense (exact mix over many rows): Δ_g = B_cat diag(w·s) A_cat is formed once for the mix, then y += x Δ_gᵀ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compose.engine.bank import Bank, TargetBank
from compose.engine.errors import IncompatibleModule
from compose.engine.loading import LoadedBase

PAPER, EXACT = "paper", "exact"

Change = Callable[[Tensor], Tensor]  # (groups, tokens, in_features) -> (groups, tokens, out_features)


@dataclass(frozen=True)
class Mix:
    """One vector of mixing weights and how it mixes.

    "exact": Σ w_i s_i B_i A_i. "paper": s_0 (Σ w_i B_i)(Σ w_j A_j), cross terms included, s_0 of the first module.
    """

    kind: str
    mixing_weights: tuple[float, ...]

    @property
    def is_base(self) -> bool:
        """Whether this is the base model, unchanged."""
        return not any(self.mixing_weights)


@dataclass(frozen=True)
class Run:
    """Neighbouring groups of rows with mixes of one kind and the same number of rows each."""

    start: int
    rows: int  # of one group
    kind: str
    mixing_weights: Tensor  # (groups, n)

    @property
    def stop(self) -> int:
        return self.start + self.rows * len(self.mixing_weights)


class Mixer:
    """Adds the mixes of a bank to a base while `attached`; `assign` says which rows carry which mix."""

    def __init__(self, base: LoadedBase, bank: Bank, *, exact_way: str = "") -> None:
        """`exact_way` forces "concatenated", "gathered" or "dense" for exact mixes; empty: whatever is cheapest."""
        self._base = base
        self._bank = bank
        self._exact_way = exact_way
        self._rows = 0
        self._changes: dict[str, list[tuple[int, int, int, Change]]] = {}

    @contextmanager
    def attached(self) -> Iterator[Mixer]:
        """Hook the base for the time of the block; one mixer at a time, others wait."""
        with self._base.lock:
            hooks = [
                self._base.model.get_submodule(path).register_forward_hook(partial(self._add, path))
                for path in self._bank.targets
            ]
            try:
                yield self
            finally:
                for hook in hooks:
                    hook.remove()
                self._changes = {}

    def assign(self, groups: Sequence[tuple[Mix, int]]) -> None:
        """The next batches consist of these groups in order, (mix, number of rows)."""
        for mix, _ in groups:
            if mix.kind == PAPER and not mix.is_base and self._bank.paper_problem:
                raise IncompatibleModule(
                    f"These modules cannot be mixed as LoraHub does: {self._bank.paper_problem}. "
                    "Leave one of them out, or use the exact mix."
                )
        self._rows = sum(rows for _, rows in groups)
        runs = _runs(groups, self._base.device)
        self._changes = {
            path: [(run.start, run.stop, len(run.mixing_weights), self._change(target, run)) for run in runs]
            for path, target in self._bank.targets.items()
        }

    def _change(self, target: TargetBank, run: Run) -> Change:
        if run.kind == PAPER:
            return _folded(target, run.mixing_weights)
        return _exact(target, run.mixing_weights, way=self._exact_way)

    def _add(self, path: str, _module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        changes = self._changes.get(path)
        if not changes:
            return output
        inputs = args[0]
        # Some models flatten (rows, tokens) before a linear layer; row order is kept, so this undoes it.
        x = inputs.reshape(self._rows, -1, inputs.shape[-1])  # (rows, tokens, in)
        y = output.view(self._rows, -1, output.shape[-1])  # (rows, tokens, out)
        for start, stop, groups, change in changes:
            part = x[start:stop].reshape(groups, -1, x.shape[-1])
            y[start:stop] += change(part).view(stop - start, y.shape[1], y.shape[2])
        return output


def _runs(groups: Sequence[tuple[Mix, int]], device: torch.device) -> list[Run]:
    """Join neighbouring groups that one batched product can do; groups of the bare base are left out."""
    runs: list[tuple[int, int, str, list[tuple[float, ...]]]] = []
    start = 0
    for mix, rows in groups:
        if not mix.is_base and rows:
            last = runs[-1] if runs else None
            if last and last[1] == rows and last[2] == mix.kind and last[0] + rows * len(last[3]) == start:
                last[3].append(mix.mixing_weights)
            else:
                runs.append((start, rows, mix.kind, [mix.mixing_weights]))
        start += rows
    return [
        Run(start, rows, kind, torch.tensor(weights, dtype=torch.float32, device=device))
        for start, rows, kind, weights in runs
    ]


def _folded(target: TargetBank, mixing_weights: Tensor) -> Change:
    """Paper mix: a rank-r pair for every group."""
    groups, n = mixing_weights.shape
    if groups == 1:
        return _as_peft_does(target, mixing_weights[0])
    weights = mixing_weights.to(target.a.dtype)
    a = (weights @ target.a.view(n, -1)).view(groups, -1, target.in_features)  # (groups, r, in)
    b = (weights @ target.b.view(n, -1)).view(groups, -1, target.out_features)  # (groups, r, out)
    b = b * target.paper_scaling
    return lambda x: x @ a.transpose(1, 2) @ b


def _as_peft_does(target: TargetBank, mixing_weights: Tensor) -> Change:
    """Paper mix of one group, operation for operation as the released code and PEFT do it.

    COBYLA amplifies rounding: with sums in another order its points drift from the reference's by trial 30 or so.
    """
    a = _sum_in_order(target.a, mixing_weights).view(-1, target.in_features)  # (r, in)
    b = _sum_in_order(target.b, mixing_weights).view(-1, target.out_features)  # (r, out)
    b = b.T.contiguous()
    scaling = target.paper_scaling
    return lambda x: functional.linear(functional.linear(x[0], a), b) * scaling


def _sum_in_order(factors: Tensor, mixing_weights: Tensor) -> Tensor:
    """Σ w_i F_i over the n equal parts of the rows, added one after the other."""
    parts = factors.view(len(mixing_weights), -1) * mixing_weights.to(factors.dtype).unsqueeze(1)
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def _exact(target: TargetBank, mixing_weights: Tensor, *, way: str) -> Change:
    strengths = mixing_weights * target.scalings  # (groups, n)
    per_row = strengths[:, target.owner].to(target.a.dtype)  # (groups, R)
    ranks = torch.tensor(target.ranks, device=strengths.device, dtype=torch.float32)
    widest = int(((strengths != 0).float() @ ranks).max())
    if widest == 0:
        return lambda x: x.new_zeros(*x.shape[:-1], target.out_features)
    way = way or _cheapest_way(target, widest=widest)
    if way == "concatenated":
        coefficients = per_row.unsqueeze(1)  # (groups, 1, R)
        return lambda x: (x @ target.a.T * coefficients) @ target.b
    a, b = _gathered(target, per_row, widest)
    if way == "gathered":
        return lambda x: x @ a.transpose(1, 2) @ b
    delta = a.transpose(1, 2) @ b  # (groups, in, out)
    return lambda x: x @ delta


def _cheapest_way(target: TargetBank, *, widest: int) -> str:
    """By the multiplications a token costs; forming the dense change is repaid by a mix's many tokens."""
    low_rank = widest * (target.in_features + target.out_features)
    if low_rank > target.in_features * target.out_features:
        return "dense"
    # Gathering copies the rows, which only pays when a mix leaves most of them out.
    return "gathered" if 2 * widest <= len(target.owner) else "concatenated"


def _gathered(target: TargetBank, per_row: Tensor, widest: int) -> tuple[Tensor, Tensor]:
    """For every group the rows of A and B in its mix, filled up with rows of strength 0: (groups, widest, ...)."""
    order = torch.argsort((per_row == 0).to(torch.uint8), dim=1, stable=True)[:, :widest]  # (groups, widest)
    strengths = per_row.gather(1, order)
    return target.a[order], target.b[order] * strengths.unsqueeze(-1)
