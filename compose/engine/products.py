"""float32 products on a processor, by the faster of the two libraries that torch has for them.

torch multiplies float32 matrices by MKL, which takes AVX2 instructions on processors of other makers even where these know
AVX-512. oneDNN, by which torch multiplies bfloat16, takes the widest there are. The machine is asked with a stopwatch.
The sums are made in another order, so what has to be the released code's to the last bit does without.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from compose.engine.stopwatch import times_faster

# Smaller products, in multiplications, are over before oneDNN has looked up how to do them.
_LEAST = 2_000_000
# A measurement near 1 could fall either way on the next try, and the last bits of the losses with it.
_FASTER_BY = 1.5
_SIZES = (512, 512, 1024)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b: (..., in) and (out, in) -> (..., out)."""
    if not _pays(x, weight, x.numel() * weight.shape[0]):
        return functional.linear(x, weight, bias)
    return _by_onednn(x, weight, bias)


def grouped(x: Tensor, matrices: Tensor) -> Tensor:
    """A matrix for every group: (groups, tokens, in) and (groups, in, out) -> (groups, tokens, out)."""
    if not _pays(x, matrices, x[0].numel() * matrices.shape[-1]):
        return x @ matrices
    if len(x) == 1:
        return _by_onednn(x, matrices[0].T, None)
    y = x.new_empty(*x.shape[:-1], matrices.shape[-1])
    for result, own, matrix in zip(y, x, matrices, strict=True):
        result.copy_(_by_onednn(own, matrix.T, None))
    return y


def _pays(x: Tensor, matrix: Tensor, multiplications: int) -> bool:
    """Whether oneDNN is to do it. It follows no gradients."""
    return (
        multiplications >= _LEAST
        and x.device.type == "cpu"
        and x.dtype == matrix.dtype == torch.float32
        and not (torch.is_grad_enabled() and (x.requires_grad or matrix.requires_grad))
        and is_onednn_faster()
    )


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # What torch's own compiler writes for a linear layer on a CPU; it promises nothing to others.
    operation: Any = torch.ops.mkldnn._linear_pointwise
    return cast(Tensor, operation(x, weight, bias, "none", [], ""))


@lru_cache
def is_onednn_faster() -> bool:
    """Whether this machine multiplies float32 clearly faster by oneDNN; measured once for each worker."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    rows, inputs, outputs = _SIZES
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    with torch.inference_mode():
        gain = times_faster(
            lambda: functional.linear(x, weight), lambda: _by_onednn(x, weight, None), device=x.device
        )
    return gain >= _FASTER_BY
