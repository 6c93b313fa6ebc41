"""Layers of a base done with less work, for scores that need not be the released code's to the last bit.

Each function takes a layer and its arguments and gives what the layer's own forward gives, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import NewGELUActivation
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

# Numbers of a piece that stays in a core's cache while several operations go over it.
_PIECE = 131_072
# Attending from H heads x queries costs less than from all keys once there are this many times fewer of them.
_FEWER = 2


def _gelu(_layer: NewGELUActivation, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def _gelu_in_pieces(layer: NewGELUActivation, x: Tensor) -> Tensor:
    """The layer's own operations in their order, over pieces that stay in a core's cache: the same to the last bit."""
    if x.device.type != "cpu" or x.numel() <= _PIECE or not x.is_contiguous():
        return NewGELUActivation.forward(layer, x)
    y = torch.empty_like(x)
    for piece, result in zip(x.view(-1).split(_PIECE), y.view(-1).split(_PIECE), strict=True):
        inner = torch.pow(piece, 3.0).mul_(0.044715).add_(piece).mul_(math.sqrt(2.0 / math.pi))
        torch.mul(piece, 0.5, out=result)
        result.mul_(inner.tanh_().add_(1.0))
    return y


def _rms_norm(layer: Any, x: Tensor) -> Tensor:
    if x.dtype != layer.weight.dtype:  # a base that keeps some layers in float32
        return cast(Tensor, type(layer).forward(layer, x))
    return functional.rms_norm(x, (x.shape[-1],), layer.weight, layer.variance_epsilon)


def _cross_attention(
    layer: T5Attention,
    hidden_states: Tensor,
    mask: Tensor | None = None,
    key_value_states: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None, None]:
    """A short answer attends to a long input: its few queries go through K and V, not the input's many tokens.

    q (W_k x) = (q W_k) x, and Σ p (W_v x) = W_v Σ p x. The second is done for all heads at once, of which each head
    then takes its own part.
    """
    rows, queries, _ = hidden_states.shape
    heads, width = layer.n_heads, layer.key_value_proj_dim
    # What is kept of earlier tokens is `cache` in transformers 5.24, and had the other name in 5.23.
    is_cached = any(others.get(name) is not None for name in ("cache", "past_key_values"))
    if (
        key_value_states is None
        or is_cached
        or "forward" in vars(layer.k)  # adapted
        or heads * queries * _FEWER > key_value_states.shape[1]
    ):
        given = {"key_value_states": key_value_states, "position_bias": position_bias, **others}
        return type(layer).forward(layer, hidden_states, mask=mask, **given)
    q = (
        layer.q(hidden_states).view(rows * queries, heads, width).transpose(0, 1)
    )  # (heads, rows * queries, width)
    q = q @ layer.k.weight.view(heads, width, -1)  # (heads, rows * queries, model)
    q = q.view(heads, rows, queries, -1).transpose(0, 1).reshape(rows, heads * queries, -1)
    scores = (q @ key_value_states.transpose(1, 2)).float().view(rows, heads, queries, -1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    attention = scores.softmax(-1).to(hidden_states.dtype).flatten(1, 2)  # (rows, heads * queries, keys)
    values = layer.v(attention @ key_value_states).view(rows, heads, queries, heads, width)
    own = values.diagonal(dim1=1, dim2=3).permute(0, 1, 3, 2)  # (rows, queries, heads, width)
    return layer.o(own.reshape(rows, queries, heads * width)), position_bias, None


FUSED: dict[type[nn.Module], Callable[..., Any]] = {
    NewGELUActivation: _gelu,
    T5LayerNorm: _rms_norm,
    LlamaRMSNorm: _rms_norm,
    T5Attention: _cross_attention,
}


def as_released(layer: nn.Module) -> Callable[..., Any]:
    """How a layer does exactly what its own forward does, if there is a cheaper way to that."""
    return _gelu_in_pieces if type(layer) is NewGELUActivation else type(layer).forward


def layers_of(model: nn.Module) -> dict[nn.Module, Callable[..., Any]]:
    """The layers that can be done with less work, and how."""
    return {layer: FUSED[type(layer)] for layer in model.modules() if type(layer) in FUSED}
