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
from transformers.pytorch_utils import Conv1D

from compose.engine import products

# Numbers of a piece that stays in a core's cache while several operations go over it.
_PIECE = 131_072
# Attending from H heads x queries costs less than from all keys once there are this many times fewer of them.
_FEWER = 2
# Scores of an attention that are held at once, in numbers: 2 MiB of float32.
_SCORES = 2**19
_MARK = "has_changes"
_ADDED = "with_mask"


def mark_adapted(layer: nn.Module) -> None:
    """Say that a layer's forward is another than its matrix's, until `restore`."""
    vars(layer)[_MARK] = True


def is_adapted(layer: nn.Module) -> bool:
    return _MARK in vars(layer)


def restore(layer: nn.Module) -> None:
    """Give a layer its class's own forward back."""
    vars(layer).pop("forward", None)
    vars(layer).pop(_MARK, None)


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


def _attention(
    layer: T5Attention,
    hidden_states: Tensor,
    mask: Tensor | None = None,
    key_value_states: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None, None]:
    queries = hidden_states.shape[1]
    # What is kept of earlier tokens is `cache` in transformers 5.24, and had the other name in 5.23.
    is_cached = any(others.get(name) is not None for name in ("cache", "past_key_values"))
    if key_value_states is not None and not is_cached and not is_adapted(layer.k):
        if layer.n_heads * queries * _FEWER <= key_value_states.shape[1]:
            return _cross_attention(layer, hidden_states, mask, key_value_states), position_bias, None
    elif key_value_states is None and not layer.is_decoder and hidden_states.device.type == "cpu":
        if position_bias is None:
            position_bias = _position_bias(layer, hidden_states)
        return _self_attention(layer, hidden_states, mask, position_bias), position_bias, None
    given = {"key_value_states": key_value_states, "position_bias": position_bias, **others}
    return type(layer).forward(layer, hidden_states, mask=mask, **given)


def _position_bias(layer: T5Attention, x: Tensor) -> Tensor:
    """(1, heads, tokens, tokens)."""
    tokens = x.shape[1]
    if layer.has_relative_attention_bias:
        return cast(Tensor, layer.compute_bias(tokens, tokens, device=x.device))
    return x.new_zeros(1, layer.n_heads, tokens, tokens)


def _added(position_bias: Tensor, mask: Tensor | None) -> Tensor:
    """Position bias and mask as one, made once for all layers, which hand the bias on from one to the next."""
    if mask is None:
        return position_bias
    found = getattr(position_bias, _ADDED, None)
    if found is None or found[0] is not mask:
        found = mask, _masked(position_bias, mask)
        setattr(position_bias, _ADDED, found)
    return cast(Tensor, found[1])


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """With what a mask hides as low as can be; masks of 0 and -inf are added."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


def _self_attention(layer: T5Attention, x: Tensor, mask: Tensor | None, position_bias: Tensor) -> Tensor:
    """Two products with a softmax between them, for as many rows and heads at once as stay in a core's cache.

    torch's own attention takes blocks of queries and keys instead, whose products are small, and bfloat16 apart into float32.
    """
    rows, tokens, _ = x.shape
    heads, width = layer.n_heads, layer.key_value_proj_dim
    q, k, v = (
        part(x).view(rows, tokens, heads, width).transpose(1, 2) for part in (layer.q, layer.k, layer.v)
    )
    added = _added(position_bias, mask).expand(rows, heads, tokens, tokens)
    own = x.new_empty(rows, tokens, heads, width)
    at_once = max(1, _SCORES // tokens**2)  # heads of one row or several
    many_rows, many_heads = max(1, at_once // heads), min(heads, at_once)
    for row in range(0, rows, many_rows):
        for head in range(0, heads, many_heads):
            piece = slice(row, row + many_rows), slice(head, head + many_heads)
            left, right = q[piece], k[piece].transpose(2, 3).flatten(0, 1)
            # One rounding of product and bias together.
            scores = torch.baddbmm(added[piece].flatten(0, 1), left.flatten(0, 1), right)
            attended = scores.softmax(-1).view(*left.shape[:3], tokens) @ v[piece]
            own[piece[0], :, piece[1]] = attended.transpose(1, 2)
    return cast(Tensor, layer.o(own.view(rows, tokens, heads * width)))


def _cross_attention(
    layer: T5Attention, hidden_states: Tensor, mask: Tensor | None, key_value_states: Tensor
) -> Tensor:
    """A short answer attends to a long input: its few queries go through K and V, not the input's many tokens.

    q (W_k x) = (q W_k) x, and Σ p (W_v x) = W_v Σ p x. The second is done for all heads at once, of which each head
    then takes its own part.
    """
    rows, queries, _ = hidden_states.shape
    heads, width = layer.n_heads, layer.key_value_proj_dim
    q = (
        layer.q(hidden_states).view(rows * queries, heads, width).transpose(0, 1)
    )  # (heads, rows * queries, width)
    q = q @ layer.k.weight.view(heads, width, -1)  # (heads, rows * queries, model)
    q = q.view(heads, rows, queries, -1).transpose(0, 1).reshape(rows, heads * queries, -1)
    scores = (q @ key_value_states.transpose(1, 2)).float().view(rows, heads, queries, -1)
    attention = (
        _masked(scores, mask).softmax(-1).to(hidden_states.dtype).flatten(1, 2)
    )  # (rows, heads * queries, keys)
    values = layer.v(attention @ key_value_states).view(rows, heads, queries, heads, width)
    own = values.diagonal(dim1=1, dim2=3).permute(0, 1, 3, 2)  # (rows, queries, heads, width)
    return cast(Tensor, layer.o(own.reshape(rows, queries, heads * width)))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return products.linear(x, layer.weight, layer.bias)


def _conv1d(layer: Conv1D, x: Tensor) -> Tensor:
    return products.linear(x, layer.weight.T, layer.bias)


FUSED: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Linear: _linear,
    Conv1D: _conv1d,
    NewGELUActivation: _gelu,
    T5LayerNorm: _rms_norm,
    LlamaRMSNorm: _rms_norm,
    T5Attention: _attention,
}


def as_released(layer: nn.Module) -> Callable[..., Any]:
    """How a layer does exactly what its own forward does, if there is a cheaper way to that."""
    return _gelu_in_pieces if type(layer) is NewGELUActivation else type(layer).forward


def layers_of(model: nn.Module) -> dict[nn.Module, Callable[..., Any]]:
    """The layers that can be done with less work, and how."""
    return {layer: FUSED[type(layer)] for layer in model.modules() if type(layer) in FUSED}
