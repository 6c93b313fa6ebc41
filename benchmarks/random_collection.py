"""Random bases of the shapes of real ones, with random LoRA modules and examples: folders for timing, not for answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from compose.engine.types import Example, Module

_FLAN: dict[str, Any] = {
    "vocab_size": 32_128,
    "d_kv": 64,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
_T5: dict[str, dict[str, Any]] = {
    # About the demo's base: what a forward costs here is calls, not arithmetic.
    "tiny": {
        "vocab_size": 1024, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
        "decoder_start_token_id": 0,
    },
    "small": _FLAN | {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "base": _FLAN | {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "large": _FLAN | {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
}  # fmt: skip
_LLAMA: dict[str, dict[str, Any]] = {
    # The shape of SmolLM-135M with half of its layers.
    "llama": {
        "vocab_size": 32_000, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 15,
        "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048,
    },
}  # fmt: skip
SHAPES = (*_T5, *_LLAMA)
ANSWER_WORDS = 3


def new_base(shape: str) -> PreTrainedModel:
    """A random model of the shape, always the same one."""
    torch.manual_seed(0)
    if shape in _T5:
        return T5ForConditionalGeneration(T5Config(dropout_rate=0.0, **_T5[shape]))
    return LlamaForCausalLM(LlamaConfig(**_LLAMA[shape], bos_token_id=None, eos_token_id=1, pad_token_id=0))


def save_base(folder: Path, shape: str) -> Path:
    """Base and tokenizer as a folder; a word is one token: "w17"."""
    model = new_base(shape)
    model.save_pretrained(folder)
    words = [f"w{number}" for number in range(model.config.vocab_size - 3)]
    core = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *words])}, "<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if shape in _T5:
        core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4096
    ).save_pretrained(folder)
    return folder


def save_modules(root: Path, base: PreTrainedModel, *, count: int, rank: int, seed: int = 0) -> list[Module]:
    """Random LoRAs on the query and value projections, written as PEFT writes them."""
    t5 = base.config.is_encoder_decoder
    names = ["q", "v"] if t5 else ["q_proj", "v_proj"]
    layers = {
        path: layer
        for path, layer in base.named_modules()
        if isinstance(layer, torch.nn.Linear) and path.rsplit(".", 1)[-1] in names
    }
    config = {
        "peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM" if t5 else "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
        "lora_dropout": 0.0, "target_modules": names, "bias": "none", "fan_in_fan_out": False,
        "base_model_name_or_path": "random", "inference_mode": True, "init_lora_weights": True,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    modules = []
    for number in range(count):
        folder = root / f"module-{number:03}"
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for path, layer in layers.items():
            a = torch.randn(rank, layer.in_features, generator=generator) * 0.02
            b = torch.randn(layer.out_features, rank, generator=generator) * 0.02
            tensors[f"base_model.model.{path}.lora_A.weight"] = a
            tensors[f"base_model.model.{path}.lora_B.weight"] = b
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config))
        modules.append(Module(folder.name, folder))
    return modules


def new_examples(count: int, *, tokens: int, vocabulary: int = 1000, seed: int = 0) -> list[Example]:
    """Examples whose inputs have `tokens` tokens on a T5, its closing one included, and short answers."""
    generator = torch.Generator().manual_seed(seed)

    def text(words: int) -> str:
        return " ".join(
            f"w{number}" for number in torch.randint(0, vocabulary, (words,), generator=generator)
        )

    return [Example(text(tokens - 1), text(ANSWER_WORDS)) for _ in range(count)]
