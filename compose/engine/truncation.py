"""Low-rank changes cut to a lower rank, with what the cut costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # A (rank, in_features), B (out_features, rank): the change is B·A


def truncated(a: Tensor, b: Tensor, *, rank: int) -> Pair:
    """The nearest change of at most this rank, in the Frobenius norm; the pair itself where its rank is no higher.

    Singular value decomposition of B·A without forming it: of the small product of both triangular factors. Each
    side carries the square root of the singular values.
    """
    if a.shape[0] <= rank:
        return a, b
    with one_thread():  # the bytes must not depend on how many threads a product uses
        out_basis, out_factor = torch.linalg.qr(b.double())
        in_basis, in_factor = torch.linalg.qr(a.double().T)
        u, s, vh = torch.linalg.svd(out_factor @ in_factor.T, full_matrices=False)
        kept = min(rank, len(s))
        # A pair of singular vectors may be turned round together; the largest number of each is made positive.
        largest = u[:, :kept].abs().argmax(dim=0)
        signs = torch.sign(u[largest, torch.arange(kept)])
        signs[signs == 0] = 1.0
        root = s[:kept].sqrt() * signs
        new_b = out_basis @ (u[:, :kept] * root)
        new_a = (vh[:kept] * root.unsqueeze(1)) @ in_basis.T
    return new_a.float().contiguous(), new_b.float().contiguous()


def relative_error(exact: Mapping[str, Pair], written: Mapping[str, Pair]) -> float:
    """‖written - exact‖ / ‖exact‖ over all matrices, Frobenius norm of the changes themselves; 0 for no change at all.

    The written pairs are taken as they are, rounded to their float type.
    """
    difference = whole = 0.0
    for target, (a, b) in exact.items():
        new_a, new_b = written[target]
        both_a = torch.cat([new_a.double(), a.double()])
        both_b = torch.cat([new_b.double(), -b.double()], dim=1)
        difference += _squared_norm(both_a, both_b)
        whole += _squared_norm(a.double(), b.double())
    return (difference / whole) ** 0.5 if whole else 0.0


def _squared_norm(a: Tensor, b: Tensor) -> float:
    """‖B·A‖² by the triangular factors, which loses no digits where B·A nearly cancels."""
    return float(torch.linalg.matrix_norm(torch.linalg.qr(b)[1] @ torch.linalg.qr(a.T)[1].T) ** 2)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on a single thread for the time of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
