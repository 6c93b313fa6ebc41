import json

import pytest

from registry.adapter_config import ConfigUnreadable, check_config, is_local_path, read_config
from tests.fake_adapters import fake_config


def refusal(config: dict) -> str:
    with pytest.raises(ConfigUnreadable) as caught:
        check_config(config)
    return caught.value.problems[0].message


def refusal_of_bytes(tmp_path, raw: bytes) -> str:
    path = tmp_path / "config"
    path.write_bytes(raw)
    with pytest.raises(ConfigUnreadable) as caught:
        read_config(path)
    return caught.value.problems[0].message


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is empty"),
        (b" " * (64 * 1024 + 1), "limit is 65,536"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"r": 8}'.encode("utf-16"), "not UTF-8"),
        (b"{'r': 8}", "not valid JSON"),
        (b"[1]", "it is a list"),
        (b"7", "it is a single value"),
        (b'{"r": 8} {"r": 8}', "not valid JSON"),
        (b'{"r": 8, "r": 16}', "the key “r” twice"),
        (b'{"r": NaN}', "NaN is no JSON number"),
        (b'{"r": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested deeper than 16"),
        (b'{"a": ' + b"[" * 17 + b"]" * 17 + b"}", "nested deeper than 16"),
        (b'{"base_model_name_or_path": "a\\u0000b"}', "U+0000"),
        (b'{"task_type": "\\ud800"}', "U+D800"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1", "Git LFS pointer"),
    ],
)
def test_bytes_that_are_no_single_flat_json_object_are_refused(tmp_path, raw, words):
    assert words in refusal_of_bytes(tmp_path, raw)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"r": ...}, "lacks “r”"),
        ({"r": "8"}, '“r” is "8"; expected a whole number from 1 to 1024'),
        ({"r": 8.0}, "“r” is 8.0; expected a whole number"),
        ({"r": True}, "“r” is true; expected a whole number"),
        ({"r": 0}, "“r” is 0; expected"),
        ({"r": 1025}, "“r” is 1025; expected"),
        ({"r": None}, "“r” is null; expected"),
        ({"lora_alpha": ...}, "lacks “lora_alpha”"),
        ({"lora_alpha": 0}, "“lora_alpha” is 0; expected a finite number above 0"),
        ({"lora_alpha": -1}, "“lora_alpha” is -1; expected"),
        ({"lora_alpha": True}, "“lora_alpha” is true; expected"),
        ({"lora_alpha": 1e999}, "“lora_alpha” is not finite; expected"),
        ({"lora_alpha": "16"}, "“lora_alpha”"),
        ({"target_modules": 3}, "“target_modules” is 3; expected a list"),
        ({"target_modules": ["q", 3]}, "“target_modules” at “1” is 3; expected a list"),
        ({"modules_to_save": "lm_head"}, "“modules_to_save”"),
        ({"rank_pattern": {"q": 0}}, "“rank_pattern” at “q” is 0"),
        ({"alpha_pattern": {"q": "x"}}, "“alpha_pattern” at “q”"),
        ({"layers_to_transform": "all"}, "“layers_to_transform”"),
        ({"bias": "some"}, "“bias”"),
        ({"use_dora": "yes"}, "“use_dora”"),
        ({"lora_dropout": 2}, "“lora_dropout” is 2; expected a number from 0 to 1"),
        ({"base_model_name_or_path": ["a"]}, "“base_model_name_or_path”"),
        ({"target_modules": "(q"}, "no valid regular expression"),
        ({"exclude_modules": "*"}, "no valid regular expression"),
        ({"rank_pattern": {"[": 4}}, "no valid regular expression"),
        ({"layers_pattern": ["("]}, "no valid regular expression"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_its_key(changes, words):
    assert words in refusal(fake_config(**changes))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3", "target_modules": ["k"]}, "peft_type IA3"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 20}, "prefix tuning adds virtual tokens"),
        ({"peft_type": "LOHA", "r": 8}, "peft_type LOHA"),
        ({"peft_type": 3}, "no text"),
        ({"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}, "MLX-LM"),
        ({"config": {"reduction_factor": 16}, "model_name": "bert", "version": "3.1"}, "AdapterHub"),
        ({"r": 16, "lora_alpha": 32}, "no peft_type"),
        ({}, "no peft_type"),
    ],
)
def test_files_of_other_methods_and_programs_are_refused_by_name(config, words):
    assert words in refusal(config)


def test_all_problems_of_a_config_are_reported_at_once():
    with pytest.raises(ConfigUnreadable) as caught:
        check_config(fake_config(r=0, lora_alpha=0, bias="some"))
    assert [problem.where for problem in caught.value.problems] == ["r", "lora_alpha", "bias"]


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_version": ...},
        {"enable_lora": None, "merge_weights": False},
        {"enable_lora": [True, False, True], "fan_in_fan_out": True},
        {"target_modules": "q"},
        {"target_modules": None},
        {"target_modules": "all-linear"},
        {"target_modules": ["encoder.block.0.layer.0.SelfAttention.q", "to_out.0"]},
        {"target_modules": ["q", "q", "v"]},
        {"target_modules": r"(?!.*decoder).*\.(q|v)"},
        {"lora_alpha": 0.5},
        {"lora_alpha": 100000, "r": 1000},
        {"lora_dropout": 0},
        {"modules_to_save": []},
        {"base_model_name_or_path": ""},
        {"base_model_name_or_path": None},
        {"base_model_name_or_path": "/home/me/models/flan-t5-xxl"},
        {"init_lora_weights": "gaussian"},
        {"exclude_modules": []},
        {"layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"layers_to_transform": 3},
        {"auto_mapping": {"base_model_class": "UNet2DConditionModel", "parent_library": "os"}},
        {"megatron_core": "os.system", "megatron_config": None},
        {"a_key_from_the_future": {"nested": [1, "text", None]}},
        {"task_type": None},
        {"rank_pattern": {"q": 4}, "alpha_pattern": {"q": 0.5}},
        {"runtime_config": {"ephemeral_gpu_offload": False}, "loftq_config": {}},
    ],
)
def test_odd_but_good_configs_of_real_adapters_are_read(changes):
    assert check_config(fake_config(**changes)).peft_type == "LORA"


def test_a_config_with_windows_line_ends_and_a_trailing_newline_is_read(tmp_path):
    path = tmp_path / "config"
    path.write_bytes(json.dumps(fake_config(), indent=2).replace("\n", "\r\n").encode() + b"\r\n")
    assert read_config(path).r == 2


@pytest.mark.parametrize(
    "label", ["/mnt/models/x", "./x", "../x", "~/x", "C:\\models\\x", "C:/x", "models/a/b", "outputs/"]
)
def test_a_path_on_somebodys_machine_is_known_as_such(label):
    assert is_local_path(label)


@pytest.mark.parametrize("label", ["gpt2", "google/flan-t5-large", "meta-llama/Llama-3.1-8B", ""])
def test_an_id_is_not_taken_for_a_path(label):
    assert not is_local_path(label)
