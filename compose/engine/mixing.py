"""Adding mixed adapters to a frozen base, where every row of a batch may carry its own mixing weights.

Rows that share a mix lie next to each other. Four ways compute the same numbers, and the cheapest is taken:

* folded (paper mix): the factors are mixed first, A_g = Σ w_i A_i and B_g = Σ w_i B_i, then y += s·(x A_gᵀ) B_gᵀ;
* concatenated (exact mix): U = x A_catᵀ for all modules at once, then y += (U ∘ w·s) B_catᵀ;
* gathered (exact mix with few modules in it): the same with only the rows of A_cat and B_cat a mix uses;
* dense (exact mix over many tokens): Δ_g = B_cat diag(w·s) A_cat is formed once for the mix, then y += x Δ_gᵀ.
  For mixes of many modules in a row every module's own Δ_i is formed once, as far as there is room, and Δ_g = Σ w_i Δ_i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compose.engine import fused as fused_layers
from compose.engine import products
from compose.engine.bank import Bank, Stack, TargetBank
from compose.engine.errors import IncompatibleModule
from compose.engine.loading import LoadedBase

PAPER, EXACT = "paper", "exact"

# Numbers of a piece of a sum over all modules: 512 KiB of float32, half of what a core's second cache holds.
_PIECE = 131_072
# Copying a number costs about as much as this many multiplications with it.
_COPY = 8
# Reading a number of a module's dense change from memory costs about as much as this many multiplications. Processors that know
# shorter types multiply them many times as fast: in the time of a number about 36 with AVX512-BF16 and 72 with AMX.
_READ, _READ_SHORT = 4, 32
# Dense changes of every module, all target matrices together.
_DENSE_BYTES = 5 * 2**28
# Dense changes of a mix kept for the next token of a text that is being written, all target matrices together.
_KEPT_BYTES = 2**30

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
        self._layers = {path: base.model.get_submodule(path) for path in bank.targets}
        self._targets = {path: _in_type_of(self._layers[path], each) for path, each in bank.targets.items()}
        self._others = fused_layers.layers_of(base.model)
        self._cheaper: dict[
            Any, Callable[..., Any]
        ] = {}  # of `_others`, what is done otherwise while attached
        self._rows = 0
        self._as_released = True  # whether a single paper mix is to be rounded as the released code rounds it
        self._room = 0  # bytes left for dense changes that are kept
        self._changes: dict[str, list[tuple[int, int, int, Any]]] = {}
        self._dense: dict[str, Tensor | None] = {}
        self._dense_room = _DENSE_BYTES

    @contextmanager
    def attached(self, *, fused: bool = False) -> Iterator[Mixer]:
        """Take over the base's target matrices for the time of the block; one mixer at a time, others wait.

        `fused`: layers beside them may be done with less work, which rounds otherwise; never for a single paper mix.
        """
        with self._base.lock:
            layers, others = self._layers, self._others if fused else {}
            self._cheaper = others
            try:
                for layer, cheaper in others.items():
                    vars(layer)["forward"] = partial(self._forward_beside, layer, cheaper)
                for path, layer in layers.items():
                    # An attribute of the object, before its class's: cheaper than a hook, which torch calls in a
                    # slower way, and it may leave out the base's own product. Written past nn.Module's own setter,
                    # which looks for parameters first.
                    vars(layer)["forward"] = partial(self._forward, path, layer)
                    fused_layers.mark_adapted(layer)
                yield self
            finally:
                for layer in [*layers.values(), *others]:
                    fused_layers.restore(layer)
                self._changes = {}

    def assign(self, groups: Sequence[tuple[Mix, int]], *, once: bool = False) -> None:
        """The next batches consist of these groups in order, (mix, number of rows).

        `once`: there will be a single batch, so nothing is kept for the next.
        """
        if any(mix.kind == PAPER and not mix.is_base for mix, _ in groups):
            self._check_paper_mix()
        self._as_released = [mix.kind for mix, _ in groups] == [PAPER]
        self._rows = sum(rows for _, rows in groups)
        self._changes = {path: [] for path in self._targets}
        self._room = 0 if once else _KEPT_BYTES
        for run in _runs(groups, self._base.device):
            for path, change in self._run_changes(run).items():
                self._changes[path].append((run.start, run.stop, len(run.mixing_weights), change))

    def assign_weights(self, kind: str, weights: Tensor, *, rows: int) -> None:
        """The next batches are mixes of one kind with these weights, (groups, n), each over so many rows.

        The tensor is read anew in every forward, and nothing waits for the device: a forward may be recorded. The
        paper mix takes a single group.
        """
        groups = len(weights)
        self._rows = groups * rows
        self._as_released = kind == PAPER
        changes: dict[str, Change]
        if kind == PAPER:
            self._check_paper_mix()
            changes = self._as_peft_does(weights[0])
        else:
            # One row for each group: 1 for the base's own matrix, then the modules' weights.
            with_base = torch.cat([weights.new_ones(groups, 1), weights], dim=1).to(self._bank.whole_dtype)
            changes = {
                path: _Weighted(target, weights, with_base, partial(self._whole_matrices, path))
                for path, target in self._targets.items()
            }
        self._changes = {path: [(0, self._rows, groups, change)] for path, change in changes.items()}

    def _check_paper_mix(self) -> None:
        if self._bank.paper_problem:
            raise IncompatibleModule(
                f"These modules cannot be mixed as LoraHub does: {self._bank.paper_problem}. "
                "Leave one of them out, or use the exact mix."
            )

    def _whole_matrices(self, path: str) -> Tensor | None:
        """The base's matrix and every module's whole change to it, transposed, as far as there is room for them.

        (1 + n, in * out), so that the matrices of any mixes are one product.
        """
        if path not in self._dense:
            target, dtype = self._targets[path], self._bank.whole_dtype
            size = (1 + self._bank.size) * target.in_features * target.out_features * dtype.itemsize
            fits = self._base.device.type == "cpu" and size <= self._dense_room
            if fits:
                self._dense_room -= size
            self._dense[path] = _whole(self._layers[path], target, dtype) if fits else None
        return self._dense[path]

    def _run_changes(self, run: Run) -> dict[str, Change]:
        if run.kind == PAPER and len(run.mixing_weights) == 1:
            return self._as_peft_does(run.mixing_weights[0])
        if run.kind == PAPER:
            return {path: _folded(each, run.mixing_weights) for path, each in self._targets.items()}
        return {
            path: _Exact(each, run.mixing_weights, way=self._exact_way, keep=self._keep)
            for path, each in self._targets.items()
        }

    def _as_peft_does(self, mixing_weights: Tensor) -> dict[str, Change]:
        """Paper mix of one group, rounded at every step as the released code and PEFT round it.

        COBYLA amplifies rounding: with sums in another order its points drift from the reference's by trial 30 or so.
        """
        changes: dict[str, Change] = {}
        for stack in self._bank.stacks:
            mixed = Stack(stack.paths, tuple(_sum_in_order(block, mixing_weights) for block in stack.blocks))
            a = mixed.a  # (targets, r, in)
            b = mixed.b.transpose(1, 2).contiguous()  # (targets, out, r)
            for index, path in enumerate(stack.paths):
                target = self._targets[path]
                dtype = target.a.dtype
                changes[path] = _low_rank(a[index].to(dtype), b[index].to(dtype), target.paper_scaling)
        return changes

    def _keep(self, delta: Tensor) -> bool:
        """Whether there is room to keep a dense change for the next batch."""
        self._room -= delta.nbytes
        return self._room >= 0

    def _forward_of_base(self, layer: Any, inputs: Tensor) -> Tensor:
        """What a target does without any change."""
        return self._forward_beside(layer, self._cheaper.get(layer, type(layer).forward), inputs)

    def _forward_beside(self, layer: Any, cheaper: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a layer that is no target does."""
        if self._as_released:
            return fused_layers.as_released(layer)(layer, *args, **kwargs)
        return cheaper(layer, *args, **kwargs)

    def _forward(self, path: str, layer: Any, inputs: Tensor) -> Tensor:
        """What the layer does, with the changes of every row."""
        changes = self._changes.get(path)
        if not changes:
            return self._forward_of_base(layer, inputs)
        if path not in self._base.reading.tokens_first:
            return self._with_changes(path, layer, inputs, changes)
        rows_first = inputs.transpose(0, 1).contiguous()
        return self._with_changes(path, layer, rows_first, changes).transpose(0, 1).contiguous()

    def _with_changes(
        self, path: str, layer: Any, inputs: Tensor, changes: list[tuple[int, int, int, Any]]
    ) -> Tensor:
        # Some models flatten (rows, tokens) before a linear layer; row order is kept, so this undoes it.
        x = inputs.reshape(self._rows, -1, inputs.shape[-1])  # (rows, tokens, in)
        covers = len(changes) == 1 and changes[0][:2] == (0, self._rows)
        if self._are_all_dense(changes, x):
            if covers:
                _, _, groups, change = changes[0]
                return change.whole(x.reshape(groups, -1, x.shape[-1]), layer).view(*inputs.shape[:-1], -1)
            y = x.new_empty(*x.shape[:-1], self._targets[path].out_features)
            for start, stop, groups, change in changes:
                whole = change.whole(x[start:stop].reshape(groups, -1, x.shape[-1]), layer)
                y[start:stop] = whole.view(stop - start, y.shape[1], y.shape[2])
            return y.view(*inputs.shape[:-1], y.shape[-1])
        output = self._forward_of_base(layer, inputs)
        y = output.view(self._rows, -1, output.shape[-1])  # (rows, tokens, out)
        if covers:
            # Into the change and not into the output, which a recording keeps below the first adapted matrix.
            _, _, groups, change = changes[0]
            return change(x.reshape(groups, -1, x.shape[-1])).view(output.shape).add_(output)
        for start, stop, groups, change in changes:
            part = x[start:stop].reshape(groups, -1, x.shape[-1])
            y[start:stop] += change(part).view(stop - start, y.shape[1], y.shape[2])
        return output

    def _are_all_dense(self, changes: list[tuple[int, int, int, Any]], x: Tensor) -> bool:
        """Whether every row has its own dense matrix, so that the base's need not be multiplied as well."""
        covered = sum(stop - start for start, stop, _, _ in changes)
        return covered == self._rows and all(
            isinstance(change, _Exact | _Weighted) and change.is_whole((stop - start) // groups * x.shape[1])
            for start, stop, groups, change in changes
        )


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


def _whole(layer: Any, target: TargetBank, dtype: torch.dtype) -> Tensor:
    """W, then s_i B_i A_i of every module, transposed: (1 + n, in * out)."""
    sizes = (1 + len(target.ranks), target.in_features, target.out_features)
    found = torch.zeros(sizes, dtype=dtype, device=target.a.device)
    found[0] = _transposed(layer)
    start = 0
    for index, rank in enumerate(target.ranks):
        a, b = target.a[start : start + rank].float(), target.b[start : start + rank].float()
        found[1 + index] = a.T @ (b * target.scalings[index])
        start += rank
    return found.flatten(1)


def _in_type_of(layer: Any, target: TargetBank) -> TargetBank:
    """The target in its layer's own float type: transformers keeps T5's `wo` in float32 in a base of float16."""
    dtype = layer.weight.dtype
    return replace(target, a=target.a.to(dtype), b=target.b.to(dtype))


class _Weighted:
    """Exact mix at one target matrix, of weights that may be others in the next forward."""

    def __init__(
        self, target: TargetBank, weights: Tensor, with_base: Tensor, dense: Callable[[], Tensor | None]
    ) -> None:
        """`dense`: base and whole changes if there is room; asked for only where they are the cheaper way.

        `with_base`: the weights of the rows of `dense`, (groups, 1 + n).
        """
        self._target, self._weights, self._with_base, self._dense = target, weights, with_base, dense

    def __call__(self, x: Tensor) -> Tensor:
        """The change alone: (groups, tokens, in) -> (groups, tokens, out)."""
        target = self._target
        return _through(x, target, self._per_row().to(x.dtype))

    def _per_row(self) -> Tensor:
        """The strength of every row of the factors in every group, (groups, R) float32."""
        return (self._weights * self._target.scalings).index_select(1, self._target.owner)

    def is_whole(self, tokens: int) -> bool:
        """Whether base and change are best multiplied as one matrix of every group, of so many tokens."""
        target = self._target
        area = target.in_features * target.out_features
        in_factors = tokens * len(target.owner) * (target.in_features + target.out_features)
        is_short = target.a.dtype != torch.float32
        read = _READ_SHORT if is_short else _READ
        if in_factors > read * len(target.ranks) * area and self._dense() is not None:
            return True
        # From the factors it would be formed in float32, which costs a shorter type more than it saves.
        return target.a.device.type == "cpu" and not is_short and in_factors > len(target.owner) * area

    def whole(self, x: Tensor, layer: Any) -> Tensor:
        """What the layer gives with the change: (groups, tokens, in) -> (groups, tokens, out)."""
        dense = self._dense()
        if dense is None:
            matrices = _transposed(layer).float() + self._from_factors()
        else:
            sizes = (-1, self._target.in_features, self._target.out_features)
            matrices = products.linear(self._with_base, dense.T).view(sizes)
        y = products.grouped(x, matrices.to(x.dtype))  # matrices: (groups, in, out)
        return y if layer.bias is None else y.add_(layer.bias)

    def _from_factors(self) -> Tensor:
        """The change of every group, (groups, in, out) float32."""
        return self._target.a.float().T @ (self._per_row().unsqueeze(-1) * self._target.b.float())


def _through(x: Tensor, target: TargetBank, strengths: Tensor) -> Tensor:
    """All modules at once: (groups, tokens, in), with strengths (groups, R) of the rows -> (groups, tokens, out)."""
    return products.linear(products.linear(x, target.a) * strengths.unsqueeze(1), target.b.T)


def _transposed(layer: Any) -> Tensor:
    """(in, out) matrix of a linear layer."""
    weight: Tensor = layer.weight
    return weight.T if isinstance(layer, torch.nn.Linear) else weight


def _folded(target: TargetBank, mixing_weights: Tensor) -> Change:
    """Paper mix: a rank-r pair for every group."""
    groups, n = mixing_weights.shape
    weights = mixing_weights.to(target.a.dtype)
    a = (weights @ target.a.view(n, -1)).view(groups, -1, target.in_features)  # (groups, r, in)
    b = (weights @ target.b.view(n, -1)).view(groups, -1, target.out_features)  # (groups, r, out)
    b = b * target.paper_scaling
    return lambda x: products.grouped(products.grouped(x, a.transpose(1, 2)), b)


def _low_rank(a: Tensor, b: Tensor, scaling: float) -> Change:
    return lambda x: functional.linear(functional.linear(x[0], a), b).mul_(scaling)


def _sum_in_order(factors: Tensor, mixing_weights: Tensor) -> Tensor:
    """Σ w_i F_i over the n equal parts of the rows, added one after the other: (targets, R, k) -> (targets, R/n, k)."""
    n = len(mixing_weights)
    parts = factors.view(len(factors), n, -1)  # (targets, n, numbers)
    weights = mixing_weights.to(factors.dtype).unbind()
    total = torch.empty(len(factors), parts.shape[2], dtype=factors.dtype, device=factors.device)
    # In pieces that stay in a core's cache over all modules; every number sees the same additions.
    step = max(1, _PIECE // parts.shape[2]) if factors.device.type == "cpu" else len(factors)
    for start in range(0, len(factors), step):
        piece, part = total[start : start + step], parts[start : start + step]
        torch.mul(part[:, 0], weights[0], out=piece)
        term = torch.empty_like(piece)
        for index in range(1, n):
            piece += torch.mul(part[:, index], weights[index], out=term)
    return total.view(len(factors), factors.shape[1] // n, factors.shape[2])


class _Exact:
    """Exact mix of some groups at one target matrix; how it is computed depends on how many tokens a group has."""

    def __init__(
        self, target: TargetBank, mixing_weights: Tensor, *, way: str, keep: Callable[[Tensor], bool]
    ) -> None:
        self._target = target
        self._forced = way
        self._keep = keep
        strengths = mixing_weights * target.scalings  # (groups, n)
        self._per_row = strengths[:, target.owner].to(target.a.dtype)  # (groups, R)
        ranks = torch.tensor(target.ranks, device=strengths.device, dtype=torch.float32)
        self._widest = int(((strengths != 0).float() @ ranks).max())
        self._kept: Tensor | None = None  # (groups, in, out)

    def __call__(self, x: Tensor) -> Tensor:
        """The change alone: (groups, tokens, in) -> (groups, tokens, out)."""
        if self._widest == 0:
            return x.new_zeros(*x.shape[:-1], self._target.out_features)
        way = self._way(x.shape[1])
        if way == "concatenated":
            return _through(x, self._target, self._per_row)
        if way == "gathered":
            a, b = self._gathered()
            return products.grouped(products.grouped(x, a.transpose(1, 2)), b)
        return products.grouped(x, self._delta())

    def is_whole(self, tokens: int) -> bool:
        """Whether base and change are best multiplied as one matrix of every group."""
        # In a shorter float type the sum of both would round away much of the change.
        return self._target.a.dtype == torch.float32 and self._widest > 0 and self._way(tokens) == "dense"

    def whole(self, x: Tensor, layer: Any) -> Tensor:
        """What the layer gives with the change: (groups, tokens, in) -> (groups, tokens, out)."""
        y = products.grouped(x, self._delta() + _transposed(layer))
        return y if layer.bias is None else y.add_(layer.bias)

    def _way(self, tokens: int) -> str:
        """The cheapest by multiplications for one group; a kept dense change costs nothing to form."""
        if self._forced:
            return self._forced
        target, used, held = self._target, self._widest, len(self._target.owner)
        sides, area = target.in_features + target.out_features, target.in_features * target.out_features
        costs = {
            "concatenated": tokens * held * sides,
            # Gathering copies the rows, which a few tokens do not repay.
            "gathered": (tokens + _COPY) * used * sides,
            "dense": tokens * area + (0 if self._kept is not None else used * area),
        }
        if target.a.dtype == torch.float32:
            costs["dense"] -= tokens * area  # it takes the place of the base's own product
        return min(costs, key=lambda way: costs[way])

    def _delta(self) -> Tensor:
        if self._kept is not None:
            return self._kept
        a, b = self._gathered()
        delta = a.transpose(1, 2) @ b
        if self._keep(delta):
            self._kept = delta
        return delta

    def _gathered(self) -> tuple[Tensor, Tensor]:
        """For every group the rows of A and B in its mix, filled up with rows of strength 0: (groups, widest, ...)."""
        if self._widest == len(self._target.owner):
            return self._target.a.unsqueeze(0), self._target.b * self._per_row.unsqueeze(-1)
        order = torch.argsort((self._per_row == 0).to(torch.uint8), dim=1, stable=True)[:, : self._widest]
        strengths = self._per_row.gather(1, order)
        return self._target.a[order], self._target.b[order] * strengths.unsqueeze(-1)
