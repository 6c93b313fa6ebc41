"""What one small forward tells of a base that its config does not: which way it reads, and how its layers see rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

# No length that a model cuts or fills texts to is a multiple of it, so what is per row is told from what is not.
_ROWS = 7
_TOKENS = 3
_PLAIN = (nn.Linear.forward, Conv1D.forward)
_ROUNDING = 0.02  # of the largest number


@dataclass(frozen=True)
class Reading:
    """Of linear layers by their dotted path: `tokens_first` see (tokens, rows, in), `without_rows` no rows at all, as of
    positions that all rows share; `more_than_linear` give something else than x Wᵀ + b, as a router's choice."""

    is_left_to_right: bool  # says nothing of seq2seq, whose encoders read in both directions
    tokens_first: frozenset[str]
    without_rows: frozenset[str]
    more_than_linear: frozenset[str]


def read(model: Any, *, is_seq2seq: bool) -> Reading:
    """Read texts that differ in a single token. Raises ValueError or RuntimeError where the model cannot be run."""
    shapes: dict[str, torch.Size] = {}
    more_than_linear: set[str] = set()

    def seen(path: str, layer: Any, given: tuple[Any, ...], output: Any) -> None:
        if given and isinstance(given[0], Tensor):
            shapes[path] = given[0].shape
            if type(layer).forward not in _PLAIN and not _is_product(layer, given[0], output):
                more_than_linear.add(path)

    hooks = [
        layer.register_forward_hook(partial(seen, path))
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D)
    ]
    first, other = [token for token in range(3) if token != model.config.pad_token_id][:2]
    texts = torch.full((_ROWS, _TOKENS), first, device=model.device)
    texts[-1, -1] = other
    inputs = {"input_ids": texts, "attention_mask": torch.ones_like(texts)}
    if is_seq2seq:
        inputs["decoder_input_ids"] = texts
    try:
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits.float()
    finally:
        for hook in hooks:
            hook.remove()
    before = logits[:, : _TOKENS - 1]
    return Reading(
        is_left_to_right=_is_equal(before[0], before[-1]),
        tokens_first=frozenset(path for path, shape in shapes.items() if _is_tokens_first(shape)),
        without_rows=frozenset(path for path, shape in shapes.items() if shape[:-1].numel() % _ROWS),
        more_than_linear=frozenset(more_than_linear),
    )


def _is_product(layer: Any, x: Tensor, output: Any) -> bool:
    """Whether a class of its own does what its parent does, as Falcon's."""
    plain = (nn.Linear if isinstance(layer, nn.Linear) else Conv1D).forward(layer, x)
    return isinstance(output, Tensor) and output.shape == plain.shape and _is_equal(output, plain)


def _is_equal(one: Tensor, other: Tensor) -> bool:
    """But for rounding in bfloat16, which is as large where large numbers cancel out."""
    one, other = one.float(), other.float()
    largest = other.nan_to_num(0, 0, 0).abs().max().item() if other.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=_ROUNDING * largest, equal_nan=True)


def _is_tokens_first(shape: torch.Size) -> bool:
    return len(shape) == 3 and shape[0] != _ROWS and shape[1] == _ROWS
