"""What peft itself saves, in all its variants, must be accepted and understood."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from registry.adapter_config import check_config
from registry.inspection import Inspection, inspect_folder
from registry.shapes import shapes_on_meta
from registry.targets import resolve_targets
from tests.fake_adapters import fake_config, files_of

LLAMA: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 32,
}  # fmt: skip
T5: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 32}
GPT2: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 32, "n_positions": 16}
BERT: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 32,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "bert": lambda: BertForSequenceClassification(BertConfig(**BERT)),
}
BASES = {"llama": LLAMA, "t5": T5, "gpt2": GPT2, "bert": BERT | {"architectures": ["BertForMaskedLM"]}}


def inspect_saved(folder, kind: str, **options) -> Inspection:
    """Make an adapter for a tiny model with peft, save it, and inspect it against the base of that kind."""
    torch.manual_seed(0)
    model = get_peft_model(MODELS[kind](), LoraConfig(r=4, **options))
    model.save_pretrained(folder)
    base = shapes_on_meta({"model_type": kind, **BASES[kind]}).matrices
    return inspect_folder(files_of(folder), base)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"target_modules": "all-linear"}),
        ("llama", {"target_modules": r".*\.(q_proj|down_proj)"}),
        ("llama", {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers"}),
        (
            "llama",
            {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj": 2}, "use_rslora": True},
        ),
        ("llama", {"target_modules": ["q_proj"], "alpha_pattern": {r"layers\.1\..*q_proj": 3}}),
        ("llama", {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"}),
        ("llama", {}),
        ("t5", {"target_modules": ["q", "v"], "task_type": TaskType.SEQ_2_SEQ_LM}),
        ("t5", {"target_modules": ["q", "wi", "wo"], "exclude_modules": r"decoder\..*"}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
        ("gpt2", {"target_modules": ["c_attn"]}),
    ],
)
def test_plain_lora_saved_by_peft_fits_and_composes(tmp_path, kind, options):
    found = inspect_saved(tmp_path, kind, **options)
    assert found.base_fit == "fits"
    assert found.composable, found.composable_reason


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        ("llama", {"target_modules": ["q_proj"], "use_dora": True}, "DoRA"),
        ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "whole modules"),
        (
            "llama",
            {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "norm"]},
            "whole modules",
        ),
        ("llama", {"target_modules": ["q_proj", "embed_tokens"]}, "embeddings"),
        ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]}, "token embeddings"),
        ("llama", {"target_modules": ["q_proj", "lm_head"]}, "no LoRA matrices"),
        ("llama", {"target_modules": ["q_proj"], "lora_bias": True}, "bias to B"),
        ("llama", {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 3]]}, "repeats layers"),
        ("llama", {"target_modules": ["q_proj"], "init_lora_weights": "pissa"}, "changed base weights"),
        ("gpt2", {"target_modules": ["c_attn"], "bias": "lora_only"}, "biases of the base model"),
        ("gpt2", {"target_modules": ["c_attn"], "bias": "all"}, "biases of the base model"),
        ("bert", {"target_modules": ["query"], "task_type": TaskType.SEQ_CLS}, "whole modules"),
        ("bert", {"target_modules": ["query", "dense"], "task_type": TaskType.SEQ_CLS}, "whole modules"),
    ],
)
def test_variants_saved_by_peft_are_kept_with_a_reason(tmp_path, kind, options, reason):
    found = inspect_saved(tmp_path, kind, **options)
    assert not found.composable
    assert reason in found.composable_reason


PATHS = [
    f"model.layers.{layer}.{part}"
    for layer in (0, 1, 11)
    for part in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj", "mlp.experts.3.w1")
] + ["lm_head", "q_proj", "model.embed_tokens"]


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["self_attn.q_proj", "model.layers.1.mlp.down_proj", "proj"]},
        {"target_modules": ["q_proj", "w1"], "layers_to_transform": [1, 3]},
        {"target_modules": ["q_proj", "w1"], "layers_to_transform": 11, "layers_pattern": ["layers", "h"]},
        {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "blocks"},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {"target_modules": r".*layers\.(0|11)\..*proj"},
        {"target_modules": r"model\.layers\.\d+\.self_attn\.[qk]_proj|lm_head"},
        {"target_modules": r"(?!.*experts).*"},
        {
            "target_modules": ["q_proj", "down_proj"],
            "exclude_modules": ["down_proj", "layers.0.self_attn.q_proj"],
        },
        {"target_modules": ["q_proj", "lm_head"], "exclude_modules": r"model\.layers\.1\..*"},
        {"target_modules": ["q_proj", "w1", "lm_head"], "modules_to_save": ["lm_head", "experts"]},
        {"target_modules": ["q_proj", "w1"], "modules_to_save": [r"layers\.\d"]},
        {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 1, r"layers\.1\..*": 3, "k_proj": 4}},
        {
            "target_modules": ["q_proj"],
            "rank_pattern": {r".*\.q_proj": 5, "layers.0.self_attn.q_proj": 6, "^q_proj": 7},
        },
        {"target_modules": ["q_proj"], "alpha_pattern": {"mlp.down_proj": 0.5, r"1?1\.self_attn\.q_proj": 9}},
    ],
)
def test_targets_ranks_and_alphas_are_those_of_peft(options):
    ours = check_config(fake_config(**options))
    theirs: Any = LoraConfig(r=ours.r, lora_alpha=int(ours.lora_alpha), **options)
    for path, target in resolve_targets(ours, PATHS).items():
        assert target.is_targeted == bool(check_target_module_exists(theirs, path)), path
        rank_key = get_pattern_key(list(theirs.rank_pattern), path)
        alpha_key = get_pattern_key(list(theirs.alpha_pattern), path)
        assert target.rank == theirs.rank_pattern.get(rank_key, ours.r), path
        assert target.alpha == theirs.alpha_pattern.get(alpha_key, ours.lora_alpha), path
