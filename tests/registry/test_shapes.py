import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ConfigRefused
from registry.matrices import expand, fold
from registry.shapes import check_config_bytes, compute_shapes, shapes_on_meta

TINY_GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2, "vocab_size": 16, "n_positions": 8}
TINY_T5 = {
    "model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2, "vocab_size": 32,
    "architectures": ["T5ForConditionalGeneration"],
}  # fmt: skip


def refusal(config: object) -> str:
    raw = config if isinstance(config, bytes) else json.dumps(config).encode()
    with pytest.raises(ConfigRefused) as caught:
        check_config_bytes(raw)
    return caught.value.message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "it is a list"),
        ({}, "no “model_type”"),
        ({"peft_type": "LORA", "r": 8}, "config of an adapter"),
        ({"model_type": "gpt2", "n_layer": 100_000}, "“n_layer” is 100000 in this config.json; at most 512"),
        ({"model_type": "t5", "num_hidden_layers": -1000}, "at most 512"),
        ({"model_type": "gpt2", "vocab_size": 10**9}, "at most 4,000,000"),
        ({"model_type": "llama", "intermediate_size": 10**15}, "is enormous"),
        ({"model_type": "gemma3", "text_config": {"num_hidden_layers": 9999}}, "at most 512"),
        ({"model_type": "x", "notes": "x" * 300_000}, "longer than 262,144 bytes"),
    ],
)
def test_a_config_that_is_none_or_absurd_is_refused_before_anything_is_built(config, words):
    assert words in refusal(config)


def test_sizes_are_computed_in_a_process_of_its_own():
    shapes = compute_shapes(json.dumps(TINY_GPT2 | {"architectures": ["GPT2LMHeadModel"]}).encode())
    assert (shapes.architecture, shapes.task_type) == ("GPT2LMHeadModel", "CAUSAL_LM")
    assert shapes.matrices["transformer.h.1.attn.c_attn"] == (8, 24)
    assert "transformer.h.1.attn.c_attn" in shapes.transposed
    assert shapes.matrices["lm_head"] == (8, 16)
    assert shapes.embeddings["transformer.wte"] == (16, 8)
    assert shapes.parameters == 16 * 8 + 8 * 8 + 2 * (12 * 8 * 8 + 13 * 8) + 2 * 8


def test_an_unknown_architecture_is_a_sentence():
    with pytest.raises(ConfigRefused, match=r"does not know the architecture “chatglm”\. Its own code"):
        compute_shapes(b'{"model_type": "chatglm", "auto_map": {"AutoModel": "code--x.Y"}}')


def test_a_seq2seq_model_is_known_as_such():
    shapes = shapes_on_meta(TINY_T5)
    assert shapes.task_type == "SEQ_2_SEQ_LM"
    assert shapes.matrices["decoder.block.1.layer.1.EncDecAttention.q"] == (8, 8)
    assert shapes.transposed == []


@pytest.mark.parametrize("architectures", [None, [], ["NoSuchClass"], ["os.system"], ["PreTrainedModel"], 3])
def test_without_a_usable_class_name_the_one_with_a_language_model_head_is_taken(architectures):
    assert shapes_on_meta(TINY_GPT2 | {"architectures": architectures}).architecture == "GPT2LMHeadModel"


def test_numbers_that_do_not_go_together_are_a_sentence():
    with pytest.raises(ConfigRefused, match="cannot build GPT2LMHeadModel from these numbers"):
        shapes_on_meta(TINY_GPT2 | {"n_head": 3})


def test_code_and_quantisation_named_in_the_config_are_ignored():
    odd = {
        "auto_map": {"AutoConfig": "x.Y"},
        "quantization_config": {"quant_method": "gptq"},
        "_name_or_path": "/x",
    }
    assert shapes_on_meta(TINY_T5 | odd).matrices == shapes_on_meta(TINY_T5).matrices


def test_layers_fold_to_ranges_and_back():
    matrices = {f"layers.{layer}.experts.{expert}.w": (2, 3) for layer in range(3) for expert in range(4)}
    matrices |= {"layers.3.experts.0.w": (2, 5), "head": (3, 7)}
    folded = fold(matrices)
    assert folded == {
        "layers.{0..2}.experts.{0..3}.w": [2, 3],
        "layers.3.experts.0.w": [2, 5],
        "head": [3, 7],
    }
    assert expand(folded) == matrices


PATHS = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10", "01"]), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(PATHS, st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=30))
def test_whatever_is_folded_expands_to_the_same(matrices):
    assert expand(fold(matrices)) == matrices


def test_a_folded_text_cannot_stand_for_millions():
    with pytest.raises(ValueError, match="more than 200,000"):
        expand({"a.{0..999}.b.{0..999}.c": [1, 1]})
