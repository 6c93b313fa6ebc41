import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from registry.errors import InspectionRefused
from registry.inspection import Inspection, inspect_folder
from tests.fake_adapters import (
    TINY_MATRICES,
    fake_config,
    fake_tensors,
    files_of,
    lay_out,
    make_adapter,
    safetensors_bytes,
    to_bytes,
    write_tensors,
)

Q0 = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"
ROOT = Path(__file__).resolve().parent.parent.parent


def inspect(folder: Path, base=TINY_MATRICES) -> Inspection:
    return inspect_folder(files_of(folder), base)


def refusals(folder: Path, base=TINY_MATRICES) -> list[str]:
    with pytest.raises(InspectionRefused) as caught:
        inspect(folder, base)
    return [problem.message for problem in caught.value.problems]


def with_tensors(folder: Path, changes: Mapping[str, np.ndarray | None], **config) -> Path:
    """An adapter whose tensors are changed: a value of None takes one away."""
    make_adapter(folder, **config)
    tensors = {**fake_tensors(), **changes}
    write_tensors(
        folder / "adapter_model.safetensors",
        {name: value for name, value in tensors.items() if value is not None},
    )
    return folder


# --- A good adapter -------------------------------------------------------------------------------------------


def test_a_good_adapter_gives_its_facts(tmp_path):
    folder = make_adapter(
        tmp_path / "a", rank=2, lora_alpha=8, card="---\nlicense: mit\ntags: [lora]\n---\n# Hello\n"
    )
    found = inspect(folder)
    assert found.composable
    assert found.composable_reason == ""
    assert found.base_fit == "fits"
    assert found.warnings == []
    assert sorted(found.files) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert found.front_matter == {"license": "mit", "tags": ["lora"]}
    facts = found.facts
    assert json.loads(json.dumps(facts)) == facts
    expected = {
        "peft_type": "LORA", "rank": 2, "ranks": [2], "alpha": 8, "scaling": [4.0], "target_modules": ["q", "v"],
        "target_matrices": 4, "dtypes": ["F32"], "parameters": 4 * (2 * 8 + 6 * 2), "variants": [],
        "base_model_label": "demo/tiny-t5", "task_type": "SEQ_2_SEQ_LM", "target_names": ["q", "v"],
    }  # fmt: skip
    assert {key: facts[key] for key in expected} == expected
    assert facts["size_bytes"] == (folder / "adapter_model.safetensors").stat().st_size
    assert facts["tensors"][0] == {"name": f"{Q0}.lora_A.weight", "dtype": "F32", "shape": [2, 8]}


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_every_float_type_is_accepted(tmp_path, dtype):
    assert inspect(make_adapter(tmp_path, dtype=dtype)).facts["dtypes"] == [dtype]


def test_scaling_follows_rank_and_alpha_patterns_and_rslora(tmp_path):
    changes = {f"{Q0}.lora_A.weight": np.ones((4, 8)), f"{Q0}.lora_B.weight": np.ones((6, 4))}
    folder = with_tensors(
        tmp_path,
        changes,
        lora_alpha=4,
        use_rslora=True,
        rank_pattern={"block.0.layer.0.SelfAttention.q": 4},
        alpha_pattern={r"block\.1.*\.v": 8},
    )
    found = inspect(folder)
    assert found.composable
    assert found.facts["ranks"] == [2, 4]
    assert found.facts["scaling"] == pytest.approx(sorted({4 / 2**0.5, 4 / 4**0.5, 8 / 2**0.5}))
    assert found.facts["variants"] == ["rslora", "rank_pattern", "alpha_pattern"]


def test_the_content_hash_ignores_order_and_metadata_but_not_values_names_and_types(tmp_path):
    def hash_of(tensors, dtype="F32", metadata=None):
        folder = make_adapter(tmp_path)
        write_tensors(folder / "adapter_model.safetensors", tensors, dtype=dtype, metadata=metadata)
        return inspect(folder).facts["tensor_hash"]

    tensors = fake_tensors()
    first = hash_of(tensors)
    assert first == hash_of(dict(reversed(tensors.items())), metadata={"note": "other"})
    assert first != hash_of(fake_tensors(seed=1))
    assert first != hash_of(tensors, dtype="F64")


# --- Files ----------------------------------------------------------------------------------------------------


def test_missing_files_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert [message.split(".")[0] for message in refusals(tmp_path)] == [
        "adapter_config",
        "adapter_model",
    ]


def test_a_folder_inside_the_upload_is_pointed_at(tmp_path):
    make_adapter(tmp_path / "outputs" / "last")
    assert "There is one in the folder outputs/last" in refusals(tmp_path)[0]


def test_bad_names_are_refused_before_anything_is_read(tmp_path):
    folder = make_adapter(tmp_path)
    with pytest.raises(InspectionRefused) as caught:
        inspect_folder({**files_of(folder), "../x.txt": folder / "adapter_config.json"})
    assert "the segment “..”" in caught.value.message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "README.md"])
def test_git_lfs_pointers_are_refused_in_words(tmp_path, name):
    folder = make_adapter(tmp_path, card="x")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    messages = refusals(folder)
    assert len(messages) == 1
    assert f"{name} is a Git LFS pointer" in messages[0]
    assert "git lfs pull" in messages[0]


def test_other_files_are_left_out_with_a_warning(tmp_path):
    folder = make_adapter(tmp_path)
    (folder / "training_args.bin").write_bytes(b"PK\x03\x04")
    found = inspect(folder)
    assert sorted(found.files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert found.left_out[0]["path"] == "training_args.bin"
    assert "training_args.bin was left out." in found.warnings[0]


def test_all_problems_are_collected(tmp_path):
    folder = with_tensors(tmp_path, {f"{Q0}.lora_B.weight": None}, card="---\na: &x 1\n---\n", bias="some")
    messages = refusals(folder)
    assert any("“bias”" in message for message in messages)
    assert any("anchor or alias" in message for message in messages)


def test_a_refusal_names_the_file_and_has_fields_for_the_api(tmp_path):
    folder = make_adapter(tmp_path, r=4)
    with pytest.raises(InspectionRefused) as caught:
        inspect(folder)
    error = caught.value
    assert error.code == "adapter_refused"
    assert "(and 3 more problems)" in error.message
    assert len(error.fields["adapter_model.safetensors"]) == 4
    problem = error.problems[0].as_dict()
    assert problem["where"] == f"{Q0}.lora_A.weight"
    assert (problem["found"], problem["expected"]) == ("2", "4")


def test_more_than_five_problems_of_a_kind_are_counted(tmp_path):
    base = {f"layers.{number}.q": (8, 6) for number in range(9)}
    messages = refusals(make_adapter(tmp_path, base_matrices=base, r=4), base)
    assert len(messages) == 6
    assert messages[-1] == "Other rank: 4 more matrices."


def test_a_refusal_counts_also_what_it_does_not_list(tmp_path):
    base = {f"layers.{number}.q": (8, 6) for number in range(9)}
    with pytest.raises(InspectionRefused) as caught:
        inspect(make_adapter(tmp_path, base_matrices=base, r=4), base)
    assert "(and 8 more problems)" in caught.value.message
    assert caught.value.problems[-1].as_dict()["times"] == 4


def test_a_refusal_names_the_base_model_that_was_compared_with(tmp_path):
    folder = make_adapter(tmp_path)
    for base, words in (
        ({"layers.0.q": (4, 4)}, "The base model demo/other has no matrix"),
        ({name: (1, 1) for name in TINY_MATRICES}, "the one of the base model demo/other has 1 in, 1 out"),
    ):
        with pytest.raises(InspectionRefused) as caught:
            inspect_folder(files_of(folder), base, base_name="demo/other")
        assert words in caught.value.message


# --- Weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_values_that_are_not_finite_are_refused(tmp_path, value, dtype):
    folder = make_adapter(tmp_path)
    tensors = fake_tensors()
    tensors[f"{Q0}.lora_B.weight"][3, 1] = value
    write_tensors(folder / "adapter_model.safetensors", tensors, dtype=dtype)
    assert refusals(folder) == [
        f"Tensor {Q0}.lora_B.weight holds NaN or infinite values. Train again with a lower learning rate or in FP32; "
        "such weights would turn every answer into nothing."
    ]


@pytest.mark.parametrize(("dtype", "size"), [("I8", 1), ("I64", 8), ("BOOL", 1), ("F8_E4M3", 1)])
def test_other_dtypes_are_refused(tmp_path, dtype, size):
    folder = make_adapter(tmp_path)
    tensors = {name: (dtype, value.shape, bytes(value.size * size)) for name, value in fake_tensors().items()}
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(*lay_out(tensors)))
    assert f"has dtype {dtype}; expected F64, F32, F16 or BF16" in refusals(folder)[0]


@pytest.mark.parametrize("half", ["A", "B"])
def test_a_target_without_both_halves_is_refused(tmp_path, half):
    folder = with_tensors(tmp_path, {f"{Q0}.lora_{half}.weight": None})
    assert f"lora_{half} is missing" in refusals(folder)[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({f"{Q0}.lora_A.weight": np.ones((3, 8))}, "A of encoder.block.0.layer.0.SelfAttention.q has rank 3"),
        ({f"{Q0}.lora_B.weight": np.ones((6, 5))}, "B of encoder.block.0.layer.0.SelfAttention.q has rank 5"),
        ({f"{Q0}.lora_A.weight": np.ones(8)}, "must be two-dimensional"),
        ({f"{Q0}.lora_A.weight": np.ones((2, 8, 1))}, "must be two-dimensional"),
        ({"lora_A.weight": np.ones((2, 8))}, "does not begin with “base_model.model.”"),
        ({f"{Q0}.lora_A.default.weight": np.ones((2, 8))}, "is not named as peft saves it"),
        ({f"{Q0}.lora_C.weight": np.ones((2, 8))}, "is not named as peft saves it"),
        ({f"{Q0}.weight": np.ones((6, 8))}, "is no LoRA matrix"),
        ({f"{Q0}.bias": np.ones(6)}, "is no LoRA matrix"),
        ({"base_model.model.lm_head.weight": np.ones((9, 8))}, "is no LoRA matrix"),
        ({f"{Q0}.lora_magnitude_vector": np.ones(6)}, "“use_dora”: true"),
        ({f"{Q0}.lora_B.bias": np.ones(6)}, "“lora_bias”: true"),
    ],
)
def test_tensors_that_the_config_does_not_declare_are_refused(tmp_path, changes, words):
    messages = refusals(with_tensors(tmp_path, changes))
    assert any(words in message for message in messages)


def test_rank_pattern_decides_the_expected_rank(tmp_path):
    folder = make_adapter(tmp_path, rank_pattern={r"block\.1\..*": 4})
    assert "SelfAttention.q has rank 2 (shape [2, 8]), but the config says 4" in refusals(folder)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["q"]},
        {"target_modules": r".*\.q"},
        {"exclude_modules": ["v"]},
        {"exclude_modules": r".*\.v"},
        {"target_modules": ["q", "v"], "layers_to_transform": [0]},
        {"target_modules": ["q", "v"], "layers_to_transform": 0, "layers_pattern": "block"},
        {"target_modules": []},
    ],
)
def test_a_matrix_that_the_config_does_not_target_is_refused(tmp_path, changes):
    assert (
        "which “target_modules” of the config does not name" in refusals(make_adapter(tmp_path, **changes))[0]
    )


@pytest.mark.parametrize(
    "targets",
    ["all-linear", None, r".*SelfAttention\.(q|v)", r"(?!.*decoder).*\.(q|v)", ["q", "v", "not_there"],
     ["encoder.block.0.layer.0.SelfAttention.q", "block.1.layer.0.SelfAttention.q", "v"]],
)  # fmt: skip
def test_targets_by_pattern_name_and_path_are_understood(tmp_path, targets):
    assert inspect(make_adapter(tmp_path, target_modules=targets)).composable


def test_a_pattern_that_takes_for_ever_is_refused_in_time(tmp_path):
    base = {f"{'a' * 40}.layers.{number}.q": (8, 6) for number in range(3)}
    folder = make_adapter(tmp_path, base_matrices=base, targets=["q"], target_modules=r"(a+)+b")
    assert "takes too long to match" in refusals(folder, base)[0]


def test_weights_without_any_lora_matrix_are_refused(tmp_path):
    folder = make_adapter(tmp_path, modules_to_save=["lm_head"])
    write_tensors(folder / "adapter_model.safetensors", {"base_model.model.lm_head.weight": np.ones((2, 2))})
    assert "holds no LoRA tensors" in refusals(folder, None)[0]


def test_an_untrained_adapter_is_accepted_with_a_warning(tmp_path):
    found = inspect(make_adapter(tmp_path, trained=False, dtype="BF16"))
    assert found.composable
    assert found.warnings == ["Untrained: it changes nothing, because every B is all zero."]


# --- What is kept but cannot be composed ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        (
            {f"{name}.lora_magnitude_vector": np.ones(6)
             for name in {key.split(".lora_")[0] for key in fake_tensors()}},
            {"use_dora": True},
            "DoRA",
        ),
        ({"base_model.model.lm_head.weight": np.ones((9, 8))}, {"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"base_model.model.classifier.weight": np.ones((9, 8))}, {"task_type": "SEQ_CLS"}, "no LoRA matrices"),
        ({f"{Q0}.bias": np.ones(6)}, {"bias": "lora_only"}, "biases of the base model"),
        ({"base_model.model.norm.bias": np.ones(6)}, {"bias": "all"}, "biases of the base model"),
        ({f"{Q0}.lora_B.bias": np.ones(6)}, {"lora_bias": True}, "bias to B"),
        (
            {"base_model.model.shared.lora_embedding_A": np.ones((2, 9)),
             "base_model.model.shared.lora_embedding_B": np.ones((8, 2))},
            {"target_modules": ["q", "v", "shared"]},
            "embeddings",
        ),
        (
            {"base_model.model.embed_tokens.weight": np.ones((9, 8))},
            {"target_modules": ["q", "v", "embed_tokens"]},
            "no LoRA matrices",
        ),
        ({}, {"trainable_token_indices": [1, 2]}, "token embeddings"),
        ({}, {"init_lora_weights": "pissa"}, "changed base weights"),
        ({}, {"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
        ({}, {"use_bdlora": {"nblocks": 2}}, "block-diagonal"),
        ({}, {"alora_invocation_tokens": [5]}, "activated LoRA"),
    ],
)  # fmt: skip
def test_variants_of_lora_are_kept_with_the_reason_why_they_do_not_compose(tmp_path, changes, config, reason):
    found = inspect(with_tensors(tmp_path, changes, **config))
    assert not found.composable
    assert reason in found.composable_reason


def test_convolutions_are_kept_but_not_composable(tmp_path):
    folder = make_adapter(tmp_path, target_modules=["conv"])
    write_tensors(
        folder / "adapter_model.safetensors",
        {
            "base_model.model.conv.lora_A.weight": np.ones((2, 4, 3, 3)),
            "base_model.model.conv.lora_B.weight": np.ones((8, 2, 1, 1)),
        },
    )
    assert "convolutions" in inspect(folder, None).composable_reason


def test_the_old_joined_kind_is_kept_but_not_composable(tmp_path):
    folder = make_adapter(tmp_path, enable_lora=[True, False, True], target_modules=["query_key_value"])
    write_tensors(
        folder / "adapter_model.safetensors",
        {
            "base_model.model.h.0.query_key_value.lora_A.weight": np.ones((4, 8)),
            "base_model.model.h.0.query_key_value.lora_B.weight": np.ones((16, 2, 1)),
        },
    )
    assert "enable_lora" in inspect(folder, {"h.0.query_key_value": (8, 24)}).composable_reason


def test_an_empty_modules_to_save_changes_nothing(tmp_path):
    assert inspect(make_adapter(tmp_path, modules_to_save=[])).composable


# --- The base model -------------------------------------------------------------------------------------------


def test_without_a_known_base_the_fit_stays_unchecked(tmp_path):
    found = inspect(make_adapter(tmp_path), None)
    assert found.base_fit == "unchecked"
    assert found.composable


@pytest.mark.parametrize(
    ("label", "warning"),
    [
        (None, "names no base model"),
        ("", "names no base model"),
        ("/mnt/models/flan-t5-xxl", "by a local path (/mnt/models/flan-t5-xxl)"),
    ],
)
def test_a_missing_or_local_base_model_is_kept_and_asked_about(tmp_path, label, warning):
    found = inspect(make_adapter(tmp_path, base_model_name_or_path=label))
    assert warning in found.warnings[0]
    assert found.facts["base_model_label"] == (label or "")


def test_other_sizes_than_the_bases_are_refused_with_both(tmp_path):
    base = {**TINY_MATRICES, "encoder.block.0.layer.0.SelfAttention.q": (16, 6)}
    assert refusals(make_adapter(tmp_path), base) == [
        "encoder.block.0.layer.0.SelfAttention.q: these weights are for a matrix of 8 in, 6 out; the one of the base model has "
        "16 in, 6 out. Choose the base model that this was trained on."
    ]


def test_swapped_in_and_out_are_called_so(tmp_path):
    base = {path: (6, 8) for path in TINY_MATRICES}
    assert "(in and out are swapped)" in refusals(make_adapter(tmp_path), base)[0]


def test_a_conv1d_base_is_compared_by_what_goes_in_and_out(tmp_path):
    """GPT-2 stores c_attn as (in, out); A and B of its adapters are (r, in) and (out, r) all the same."""
    base = {"transformer.h.0.attn.c_attn": (768, 2304)}
    folder = make_adapter(tmp_path, base_matrices=base, targets=["c_attn"], fan_in_fan_out=True)
    assert inspect(folder, base).base_fit == "fits"


def test_a_matrix_that_the_base_lacks_is_refused_by_name(tmp_path):
    base = {
        path.replace("SelfAttention.q", "SelfAttention.query"): size for path, size in TINY_MATRICES.items()
    }
    messages = refusals(make_adapter(tmp_path), base)
    assert (
        "The base model has no matrix encoder.block.0.layer.0.SelfAttention.q (it has no q at all)"
        in messages[0]
    )


def test_an_adapter_trained_without_the_head_fits_but_does_not_compose(tmp_path):
    folder = make_adapter(tmp_path, task_type="FEATURE_EXTRACTION")
    found = inspect(folder, {f"model.{path}": size for path, size in TINY_MATRICES.items()})
    assert found.base_fit == "fits"
    assert "without its head" in found.composable_reason


def test_single_experts_of_a_fused_base_stay_unchecked(tmp_path):
    expert = {"layers.0.block_sparse_moe.experts.3.w1": (8, 6)}
    folder = make_adapter(tmp_path, base_matrices={**TINY_MATRICES, **expert}, targets=["q", "w1"])
    found = inspect(folder)
    assert found.base_fit == "unchecked"
    assert "single experts" in found.composable_reason


def test_single_experts_that_the_base_has_fit_but_do_not_compose(tmp_path):
    """A router sends some tokens of a batch to each, so a mix could not be told from the row's place in it."""
    base = {**TINY_MATRICES, "encoder.block.1.layer.1.mlp.experts.expert_0.wi": (8, 6)}
    folder = make_adapter(tmp_path, base_matrices=base, targets=["q", "wi"])
    found = inspect(folder, base)
    assert found.base_fit == "fits"
    assert "sees some of the tokens only" in found.composable_reason


def test_a_classifiers_head_may_be_missing_in_the_language_model(tmp_path):
    head = {"pooler.dense": (8, 6)}
    folder = make_adapter(
        tmp_path, base_matrices={**TINY_MATRICES, **head}, targets=["q", "dense"], task_type="SEQ_CLS"
    )
    assert "pooler.dense" in inspect(folder).composable_reason


# --- Memory ---------------------------------------------------------------------------------------------------

MEASURE = """
import json, resource, sys
from pathlib import Path
from registry.inspection import inspect_folder
import numpy
folder = Path(sys.argv[1])
files = {path.name: path for path in folder.iterdir()}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = inspect_folder(files)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
loaded = [name for name in ("torch", "transformers", "peft", "django") if name in sys.modules]
print(json.dumps([found.facts["size_bytes"], (after - before) * 1024, loaded]))
"""


def test_two_hundred_megabytes_are_inspected_within_64_mib_and_without_torch(tmp_path):
    width, rank = 65_536, 1_024
    path = "layers.0.q"
    rows = np.full((rank, width // 2), 0.5, dtype=np.float16)
    write_big = {
        f"base_model.model.{path}.lora_A.weight": ("F16", rows.shape, to_bytes(rows, "F16")),
        f"base_model.model.{path}.lora_B.weight": ("F16", (width, rank), b"\x00\x38" * width * rank),
    }
    header, body = lay_out(write_big)
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors_bytes(header, body))
    (tmp_path / "adapter_config.json").write_text(json.dumps(fake_config(rank=rank, targets=["q"])))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size, growth, loaded = json.loads(done.stdout)
    assert size > 200 * 1000**2
    assert growth < 64 * 1024**2
    assert loaded == []
