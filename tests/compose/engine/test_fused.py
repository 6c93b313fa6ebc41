"""Layers done with less work: the same losses, and never where `lorahub` has to round as the released code does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.activations import NewGELUActivation

from compose.engine import fused
from compose.engine.bank import build_bank
from compose.engine.loading import load_module
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.scoring import Row, Scorer, tokenise
from compose.engine.types import Example, Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_scoring import CPU, load

# Short answers to inputs of unlike length, as padding and masks have to be right too.
LONG = (
    Example(" ".join(tiny.WORDS * 2), "cat"),
    Example(" ".join(tiny.WORDS[::-1]), "the green dog"),
    Example("a bird flew over the tree", "under a tree"),
)
WEIGHTS = ((0.3, -0.2, 0.5, 0.1, 0.4, -0.6), (0.0,) * 6, (0.7, 0.1, -0.4, 0.2, 0.3, 0.1))


def sums_of(base_folder: Path, modules: tuple[Module, ...], kind: str) -> torch.Tensor:
    base = load(base_folder)
    bank = build_bank([load_module(module) for module in modules], device=CPU)
    scorer = Scorer(base, Mixer(base, bank), tokenise(base, LONG))
    mixes = [Mix(kind, vector[: len(modules)]) for vector in WEIGHTS]
    return torch.cat([scorer.row_losses([mix]).sums for mix in mixes])


def test_fused_layers_give_the_losses_of_the_layers(collection: Collection, monkeypatch: pytest.MonkeyPatch):
    found = sums_of(collection.base, collection.modules, EXACT)
    monkeypatch.setattr(fused, "FUSED", {})
    torch.testing.assert_close(
        found, sums_of(collection.base, collection.modules, EXACT), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("at_once", [1, 200, 2**19], ids=["a head at once", "two", "all heads"])
def test_attention_of_products_is_the_layers_own(
    t5: Collection, dtype: torch.dtype, near: float, at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fused, "_SCORES", at_once)
    base = load(t5.base)
    first, second = (block.layer[0].SelfAttention.to(dtype) for block in base.model.encoder.block[:2])
    x = torch.randn(3, 9, first.d_model, generator=torch.Generator().manual_seed(0)).to(dtype)
    hidden = torch.ones(3, 1, 1, 9, dtype=torch.bool)
    hidden[1, ..., 6:] = False
    for mask in (None, hidden, torch.zeros(hidden.shape, dtype=dtype).masked_fill(~hidden, -torch.inf)):
        with torch.inference_mode():
            expected, bias, _ = first(x, mask=mask)
            found, own_bias, _ = fused._attention(first, x, mask=mask)
            torch.testing.assert_close(own_bias, bias)
            torch.testing.assert_close(found, expected, rtol=near, atol=near)
            expected, _, _ = second(x, mask=mask, position_bias=bias)
            found, _, _ = fused._attention(second, x, mask=mask, position_bias=bias)
            torch.testing.assert_close(found, expected, rtol=near, atol=near)


def test_a_layer_gets_its_own_forward_back(t5: Collection):
    base = load(t5.base)
    bank = build_bank([load_module(module) for module in t5.modules], device=CPU)
    with Mixer(base, bank).attached(fused=True):
        assert any("forward" in vars(layer) for layer in base.model.modules())
        assert any(fused.is_adapted(layer) for layer in base.model.modules())
    assert not any("forward" in vars(layer) or fused.is_adapted(layer) for layer in base.model.modules())


def test_layers_are_called_by_their_own_names(collection: Collection, recwarn: pytest.WarningsRecorder):
    sums_of(collection.base, collection.modules, EXACT)
    assert [str(told.message) for told in recwarn if "T5Attention" in str(told.message)] == []


def test_a_single_paper_mix_is_rounded_as_the_layers_round(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
):
    found = sums_of(collection.base, collection.modules, PAPER)
    monkeypatch.setattr(fused, "FUSED", {})
    assert torch.equal(found, sums_of(collection.base, collection.modules, PAPER))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_in_pieces_is_the_released_one_to_the_last_bit(dtype: torch.dtype):
    x = (torch.randn(401, 1001, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    layer = NewGELUActivation()
    assert torch.equal(fused.as_released(layer)(layer, x), layer(x))


def keys_asked(base_folder: Path, modules: tuple[Module, ...]) -> int:
    """How often the input's tokens went through a decoder's K."""
    base = load(base_folder)
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    for path, layer in base.model.named_modules():
        if path.endswith("EncDecAttention.k"):
            layer.register_forward_hook(count)
    bank = build_bank([load_module(module) for module in modules], device=CPU)
    rows: list[Row] = tokenise(base, LONG)
    Scorer(base, Mixer(base, bank), rows).row_losses([Mix(EXACT, (0.5,) * len(modules))])
    return asked


def test_a_short_answer_goes_past_the_keys_of_a_long_input(t5: Collection):
    assert keys_asked(t5.base, t5.modules) == 0


def test_adapted_keys_are_asked(t5: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    modules = tiny.save_modules(t5.base, "t5", tmp_path, 3, target_modules=["k", "o"])
    assert keys_asked(t5.base, modules) == 2
    found = sums_of(t5.base, modules, EXACT)
    monkeypatch.setattr(fused, "FUSED", {})
    torch.testing.assert_close(found, sums_of(t5.base, modules, EXACT), rtol=1e-5, atol=1e-5)
