"""Tiny random bases and modules, built in seconds and saved as real folders; nothing is downloaded.

`python -m tests.compose.engine.tiny DIR` writes the T5 collection the reference trials were recorded on.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from compose.engine.types import Example, Module

TEXT = "red green blue cat dog bird sat ran flew on under over the a who what colour where is box tree"
WORDS = TEXT.split()
EXAMPLES = (
    Example("the red cat sat on the box who", "cat"),
    Example("a blue bird flew over the green tree what colour is the bird", "blue"),
    Example("the dog ran under a tree where", "under a tree"),
    Example("a green dog sat on a red box", "the green dog"),
)
TARGETS = {"t5": ["q", "v"], "llama": ["q_proj", "v_proj"], "gpt2": ["c_attn", "c_proj"]}


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    tokens = ["<pad>", "</s>", "<unk>", *WORDS]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if family == "t5":
        core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4096
    )


def new_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    vocabulary = {"vocab_size": len(WORDS) + 3, "pad_token_id": 0, "eos_token_id": 1}
    if family == "t5":
        config = T5Config(
            d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0, dropout_rate=0.0,
            initializer_factor=1.5, **vocabulary,
        )  # fmt: skip
        return T5ForConditionalGeneration(config)
    if family == "llama":
        config = LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.4, **vocabulary,
        )  # fmt: skip
        return LlamaForCausalLM(config)
    config = GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.4, bos_token_id=1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **vocabulary,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def save_base(folder: Path, family: str) -> Path:
    new_model(family).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder


def auto_class(family: str) -> Any:
    return AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM


def save_module(
    base: Path, family: str, folder: Path, *, seed: int, strength: float = 0.15, **options: Any
) -> Module:
    """A random LoRA on the base, with B of the same size as A so that it really changes the model."""
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS[family]} | options
    config = LoraConfig(task_type="SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM", **settings)
    model = get_peft_model(auto_class(family).from_pretrained(base), config)
    model.peft_config["default"].base_model_name_or_path = f"tiny/{family}"
    randomise(model, seed=seed, strength=strength)
    # "auto" would ask the Hub whether the vocabulary has changed.
    model.save_pretrained(folder, save_embedding_layers=False)
    return Module(folder.name, folder)


def randomise(model: torch.nn.Module, *, seed: int, strength: float) -> int:
    """Give all LoRA factors of a PEFT model random numbers, and say how many matrices they adapt."""
    factors = [(name, parameter) for name, parameter in model.named_parameters() if "lora_" in name]
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in factors:
        parameter.data = torch.randn(parameter.shape, generator=generator) * strength
    return len(factors) // 2


def save_modules(base: Path, family: str, root: Path, count: int, **options: Any) -> tuple[Module, ...]:
    return tuple(
        save_module(base, family, root / f"{family}-module-{i}", seed=i + 1, **options) for i in range(count)
    )


def save_collection(root: Path, family: str, modules: int) -> tuple[Path, tuple[Module, ...]]:
    base = save_base(root / f"{family}-base", family)
    return base, save_modules(base, family, root, modules)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    save_collection(folder, "t5", 6)
    rows = "".join(json.dumps(asdict(example)) + "\n" for example in EXAMPLES)
    (folder / "examples.jsonl").write_text(rows)
