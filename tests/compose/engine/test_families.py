"""Other architectures than the ones all tests run on: flattened rows, fused qkv, learned positions, tied heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BloomConfig,
    BloomForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LEDConfig,
    LEDForConditionalGeneration,
    M2M100Config,
    M2M100ForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from compose.engine import run
from compose.engine.scoring import tokenise
from compose.engine.types import Module, Request
from tests.compose.engine import tiny
from tests.compose.engine.test_scoring import load, peft_loss

VOCABULARY = {"vocab_size": len(tiny.WORDS) + 3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def opt() -> PreTrainedModel:
    config = OPTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24, word_embed_proj_dim=16,
        max_position_embeddings=64, **VOCABULARY,
    )  # fmt: skip
    return OPTForCausalLM(config)


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, **VOCABULARY))


def gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **VOCABULARY))


def gemma() -> PreTrainedModel:
    return GemmaForCausalLM(GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=8, **VOCABULARY))


def bart() -> PreTrainedModel:
    config = BartConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=128, decoder_start_token_id=1,
        forced_eos_token_id=None, **VOCABULARY,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def m2m100() -> PreTrainedModel:
    """The architecture of NLLB too."""
    config = M2M100Config(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=128, decoder_start_token_id=1, **VOCABULARY,
    )  # fmt: skip
    return M2M100ForConditionalGeneration(config)


def led() -> PreTrainedModel:
    """Its attention puts the tokens before the rows."""
    config = LEDConfig(
        d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, attention_window=[16, 16], max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64, decoder_start_token_id=1, **VOCABULARY,
    )  # fmt: skip
    return LEDForConditionalGeneration(config)


SEQ2SEQ = (bart, m2m100, led)


@pytest.mark.parametrize("make", [opt, bloom, gpt_neox, gemma, *SEQ2SEQ])
def test_modules_on_every_linear_matrix_score_compose_and_export_as_in_peft(
    make: Callable[[], PreTrainedModel], tmp_path: Path
):
    torch.manual_seed(0)
    base_folder = tmp_path / "base"
    make().save_pretrained(base_folder)
    is_seq2seq = make in SEQ2SEQ
    tiny.tokenizer("t5" if is_seq2seq else "causal").save_pretrained(base_folder)
    auto = AutoModelForSeq2SeqLM if is_seq2seq else AutoModelForCausalLM
    modules = []
    for seed in (1, 2):
        config = LoraConfig(
            r=3 + seed,
            target_modules="all-linear",
            task_type="SEQ_2_SEQ_LM" if is_seq2seq else "CAUSAL_LM",
        )
        model = get_peft_model(auto.from_pretrained(base_folder), config)
        tiny.randomise(model, seed=seed, strength=0.3)
        model.save_pretrained(tmp_path / f"module-{seed}", save_embedding_layers=False)
        modules.append(Module(f"module-{seed}", tmp_path / f"module-{seed}"))

    base = load(base_folder)
    rows = tokenise(base, tiny.EXAMPLES)
    losses = run.score(base_folder, modules, tiny.EXAMPLES, [[1.0, 0.0], [0.0, 0.0]], "exact")
    assert losses[1] == pytest.approx(peft_loss(base.model, base, rows), rel=1e-5)
    single = PeftModel.from_pretrained(auto.from_pretrained(base_folder), modules[0].path).eval()
    assert losses[0] == pytest.approx(peft_loss(single, base, rows), rel=1e-5)

    result = run.compose(
        Request(
            base=base_folder,
            modules=tuple(modules),
            examples=tiny.EXAMPLES,
            test=tiny.EXAMPLES[:1],
            method="auto",
            budget=15,
            out=tmp_path / "out",
        )
    )
    composed = PeftModel.from_pretrained(auto.from_pretrained(base_folder), tmp_path / "out").eval()
    assert result.loss == pytest.approx(peft_loss(composed, base, rows), rel=1e-4)
