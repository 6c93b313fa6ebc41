"""What the engine refuses to load, each with its sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, ByT5Tokenizer, XLNetConfig

from compose.engine import loading
from compose.engine.errors import DoesNotFit, IncompatibleModule, OutOfMemory, UnusableBase
from compose.engine.loading import check_all_fit, check_fit, load_module
from compose.engine.types import Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection


@pytest.fixture
def module(t5: Collection, tmp_path: Path) -> Module:
    """A copy of a sound module, to be spoilt."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((t5.modules[0].path / name).read_bytes())
    return Module("spoilt", tmp_path)


def change_config(module: Module, **fields: object) -> None:
    path = module.path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_tensors(module: Module, change) -> None:
    path = module.path / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refusal(module: Module) -> str:
    with pytest.raises(IncompatibleModule) as caught:
        load_module(module)
    assert caught.value.message.startswith("The module spoilt cannot be composed: ")
    return caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"peft_type": "IA3"}, "it is of the kind IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "replaces whole layers"),
        ({"trainable_token_indices": [1, 2]}, "trains token embeddings"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "repeats layers"),
        ({"target_parameters": ["w"]}, "bare parameters"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "initialised with pissa_niter_4"),
        ({"r": 8}, "its config says rank 8"),
        ({"lora_alpha": None}, "no usable lora_alpha"),
    ],
)
def test_a_config_that_is_more_than_plain_lora_is_refused_with_its_reason(
    module: Module, fields: dict, reason: str
):
    change_config(module, **fields)
    assert reason in refusal(module)


@pytest.mark.parametrize("start", ["gaussian", "eva", "orthogonal", "mica", True, False])
def test_a_start_that_leaves_the_base_as_it_is_changes_nothing(module: Module, t5: Collection, start: object):
    change_config(module, init_lora_weights=start)
    expected = load_module(t5.modules[0]).factors
    for target, pair in load_module(module).factors.items():
        assert torch.equal(pair.a, expected[target].a)
        assert torch.equal(pair.b, expected[target].b)
        assert pair.scaling == expected[target].scaling


def first(tensors: dict[str, torch.Tensor], side: str = "A") -> str:
    return next(key for key in sorted(tensors) if f"lora_{side}" in key)


def add_magnitude(tensors):
    tensors[first(tensors).replace("lora_A.weight", "lora_magnitude_vector")] = torch.ones(16)


def add_bias(tensors):
    tensors["base_model.model.encoder.block.0.layer.0.SelfAttention.q.bias"] = torch.ones(16)


def add_embedding(tensors):
    tensors["base_model.model.shared.lora_embedding_A"] = torch.ones(4, 24)


def drop_a_side(tensors):
    del tensors[first(tensors)]


def make_a_convolution(tensors):
    for side in "AB":
        tensors[first(tensors, side)] = tensors[first(tensors, side)][:, :, None, None].contiguous()


def put_in_a_nan(tensors):
    tensors[first(tensors)][0, 0] = float("nan")


def disagree_on_the_rank(tensors):
    tensors[first(tensors, "B")] = torch.ones(16, 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (add_magnitude, "DoRA"),
        (add_bias, "carries a trained bias"),
        (add_embedding, "adapts token embeddings"),
        (drop_a_side, "is missing"),
        (make_a_convolution, "is a convolution"),
        (put_in_a_nan, "numbers that are not finite"),
        (disagree_on_the_rank, "disagree on the rank"),
        (dict.clear, "holds no LoRA matrices"),
    ],
)
def test_tensors_that_are_more_than_plain_lora_are_refused_with_their_reason(
    module: Module, change, reason: str
):
    change_tensors(module, change)
    assert reason in refusal(module)


def test_missing_and_damaged_files_are_refused(module: Module):
    (module.path / "adapter_model.safetensors").write_bytes(b"no tensors")
    assert "is damaged" in refusal(module)
    (module.path / "adapter_model.safetensors").unlink()
    assert "has no adapter_model.safetensors" in refusal(module)
    (module.path / "adapter_config.json").write_text("{")
    assert "not readable JSON" in refusal(module)
    (module.path / "adapter_config.json").write_text("[]")
    assert "not a JSON object" in refusal(module)
    (module.path / "adapter_config.json").unlink()
    assert "has no adapter_config.json" in refusal(module)


def test_a_module_for_another_base_is_refused_naming_the_matrix(t5: Collection, llama: Collection):
    base = loading.load_base(t5.base, device=torch.device("cpu"))
    with pytest.raises(IncompatibleModule, match=r"llama-module-0 does not fit .* it adapts model\.layers"):
        check_fit(load_module(llama.modules[0]), base)


def test_all_modules_that_do_not_fit_are_named_at_once(t5: Collection, llama: Collection):
    base = loading.load_base(t5.base, device=torch.device("cpu"))
    with pytest.raises(DoesNotFit) as caught:
        check_all_fit(map(load_module, (t5.modules[0], *llama.modules[:2])), base)
    assert list(caught.value.reasons) == ["llama-module-0", "llama-module-1"]
    assert caught.value.message.endswith("is not a linear matrix of the base. Leave them out.")


def test_an_expert_of_a_layer_with_a_router_is_refused(module: Module, t5: Collection):
    """It sees some of the tokens, of whichever rows, so that rows with mixes of their own cannot be told apart in it."""
    base = loading.load_base(t5.base, device=torch.device("cpu"))
    base.model.encoder.experts = torch.nn.ModuleDict({"expert_0": torch.nn.Linear(16, 16)})

    def move(tensors):
        for side in "AB":
            key = first(tensors, side)
            tensors[f"base_model.model.encoder.experts.expert_0.lora_{side}.weight"] = tensors.pop(key)

    change_tensors(module, move)
    with pytest.raises(DoesNotFit, match="an expert that sees some of the tokens only"):
        check_all_fit([load_module(module)], base)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("more_than_linear", "which does more than multiply by its matrix"),
        ("without_rows", "which sees all rows of a batch as one"),
    ],
)
def test_a_layer_that_no_mix_of_a_batch_can_change_is_refused(t5: Collection, kind: str, reason: str):
    base = loading.load_base(t5.base, device=torch.device("cpu"))
    module = load_module(t5.modules[0])
    found: dict[str, Any] = {kind: frozenset(module.factors)}
    base.reading = replace(base.reading, **found)
    with pytest.raises(DoesNotFit, match=reason):
        check_fit(module, base)


def test_a_module_of_another_size_is_refused_with_both_sizes(t5: Collection, module: Module):
    change_tensors(module, lambda tensors: tensors.update({first(tensors): torch.ones(4, 12)}))
    base = loading.load_base(t5.base, device=torch.device("cpu"))
    with pytest.raises(IncompatibleModule, match=r"is 12 by 16, the base's is 16 by 16"):
        check_fit(load_module(module), base)


def test_a_folder_without_a_base_is_refused(tmp_path: Path):
    with pytest.raises(UnusableBase, match=r"no config\.json"):
        loading.load_base(tmp_path, device=torch.device("cpu"))


def test_a_base_without_weights_is_refused(t5: Collection, tmp_path: Path):
    (tmp_path / "config.json").write_bytes((t5.base / "config.json").read_bytes())
    with pytest.raises(UnusableBase, match=r"cannot be loaded: .* in directory its folder") as caught:
        loading.load_base(tmp_path, device=torch.device("cpu"))
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("model.safetensors", lambda content: content[:-100]),
        ("config.json", lambda content: content.replace(b'"d_kv": 8', b'"d_kv": "eight"')),
    ],
)
def test_a_damaged_base_is_refused_in_words(t5: Collection, tmp_path: Path, file: str, change):
    shutil.copytree(t5.base, tmp_path / "base")
    (tmp_path / "base" / file).write_bytes(change((t5.base / file).read_bytes()))
    with pytest.raises(UnusableBase, match="cannot be loaded: "):
        loading.load_base(tmp_path / "base", device=torch.device("cpu"))


def test_a_base_of_which_weights_are_missing_is_refused(t5: Collection, tmp_path: Path):
    shutil.copytree(t5.base, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    encoder = {key: tensor for key, tensor in load_file(weights).items() if not key.startswith("decoder.")}
    save_file(encoder, weights, metadata={"format": "pt"})
    with pytest.raises(UnusableBase, match=r"its files lack the weights decoder\.block\.0.* and 26 more\.$"):
        loading.load_base(tmp_path / "base", device=torch.device("cpu"))


@pytest.mark.parametrize("is_named", [True, False])
def test_a_base_without_its_tokenizer_is_refused_naming_the_files(
    t5: Collection, tmp_path: Path, is_named: bool
):
    shutil.copytree(t5.base, tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    settings = tmp_path / "base" / "tokenizer_config.json"
    settings.unlink(missing_ok=True)
    if is_named:
        settings.write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(
        UnusableBase, match=r"its tokenizer is missing, which is in spiece\.model or tokenizer\.json"
    ):
        loading.load_base(tmp_path / "base", device=torch.device("cpu"))


def test_a_tokenizer_of_bytes_needs_no_files(t5: Collection, tmp_path: Path):
    shutil.copytree(t5.base, tmp_path / "base")
    (tmp_path / "base" / "tokenizer.json").unlink()
    ByT5Tokenizer().save_pretrained(tmp_path / "base")
    base = loading.load_base(tmp_path / "base", device=torch.device("cpu"))
    assert base.tokenizer("ab")["input_ids"] == [100, 101, 1]


@pytest.mark.parametrize("step", ["AutoModelForSeq2SeqLM.from_pretrained", "read"])
def test_a_base_that_does_not_fit_the_memory_is_told_as_that(
    t5: Collection, monkeypatch: pytest.MonkeyPatch, step: str
):
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(f"compose.engine.loading.{step}", full)
    with pytest.raises(OutOfMemory, match=r"needs more memory than the worker has\. Choose a smaller base"):
        loading.load_base(t5.base, device=torch.device("cpu"))


@pytest.mark.parametrize("is_decoder", [False, True])
def test_a_causal_head_on_an_encoder_is_refused_unless_it_reads_left_to_right(
    t5: Collection, tmp_path: Path, is_decoder: bool
):
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=24,
        max_position_embeddings=64, initializer_range=0.4, is_decoder=is_decoder,
    )  # fmt: skip
    torch.manual_seed(0)
    BertLMHeadModel(config).save_pretrained(tmp_path)
    tiny.tokenizer("causal").save_pretrained(tmp_path)
    if is_decoder:
        assert loading.load_base(tmp_path, device=torch.device("cpu")).kind == "causal"
    else:
        with pytest.raises(UnusableBase, match="a BertLMHeadModel, which reads a text in both directions"):
            loading.load_base(tmp_path, device=torch.device("cpu"))


def test_a_base_without_a_limit_of_positions_takes_as_much_as_a_t5():
    assert loading._context_tokens(XLNetConfig(), "causal") == loading.LONGEST_SEQ2SEQ_INPUT


def test_an_encoder_is_refused_since_it_generates_no_text(tmp_path: Path):
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnusableBase, match="BertForMaskedLM, which does not generate text"):
        loading.load_base(tmp_path, device=torch.device("cpu"))


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UnusableBase, match="no usable GPU"):
        loading.resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:x", "cpu:0:1"])
def test_a_device_that_we_do_not_know_is_refused(name: str):
    with pytest.raises(UnusableBase, match="choose auto, cpu or cuda"):
        loading.resolve_device(name)


def test_the_name_of_the_adapter_inside_the_keys_does_not_matter(t5: Collection, module: Module):
    def rename(tensors):
        for key in list(tensors):
            tensors[key.replace(".weight", ".default.weight").removeprefix("base_model.model.")] = (
                tensors.pop(key)
            )

    change_tensors(module, rename)
    assert set(load_module(module).factors) == set(load_module(t5.modules[0]).factors)


def test_tiny_words_are_all_in_the_vocabulary():
    ids = tiny.tokenizer("t5")(" ".join(e.input + " " + e.output for e in tiny.EXAMPLES))["input_ids"]
    assert 2 not in ids
