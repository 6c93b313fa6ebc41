"""Exported adapters: PEFT loads them with the engine's numbers, and equal requests give equal bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from compose.engine import run
from compose.engine.export import target_names
from compose.engine.loading import load_module
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.scoring import tokenise
from compose.engine.types import Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_scoring import load, mixed_modules, scorer_for

WEIGHTS = (0.5, -0.3, 0.0, 1.1, 0.2, -0.7)
FILES = ("adapter_config.json", "adapter_model.safetensors")


def engine_logits(collection: Collection, modules: tuple[Module, ...], mix: Mix) -> torch.Tensor:
    scorer = scorer_for(load(collection.base), modules)
    mixer: Mixer = scorer._mixer
    with mixer.attached(), torch.inference_mode():
        mixer.assign([(mix, scorer.row_count)])
        logits, _ = scorer._logits(scorer._rows, repeats=1)
        return logits.clone()


def exported_logits(collection: Collection, folder: Path) -> torch.Tensor:
    base = load(collection.base)
    scorer = scorer_for(base, collection.modules)
    base.model = PeftModel.from_pretrained(base.model, folder).eval().get_base_model()
    with torch.inference_mode():
        return scorer._logits(tokenise(base, tiny.EXAMPLES), repeats=1)[0].clone()


@pytest.mark.parametrize("mix", [PAPER, EXACT])
def test_an_exported_mix_has_the_engines_logits_in_peft(collection: Collection, tmp_path: Path, mix: str):
    run.export_weights(collection.base, collection.modules, WEIGHTS, mix, tmp_path)
    ours = engine_logits(collection, collection.modules, Mix(mix, WEIGHTS))
    torch.testing.assert_close(exported_logits(collection, tmp_path), ours, rtol=1e-4, atol=1e-4)


def test_an_exact_mix_of_unlike_modules_has_the_engines_logits_in_peft(
    collection: Collection, tmp_path: Path
):
    modules, weights = mixed_modules(collection, tmp_path), (0.7, -0.4, 1.2)
    run.export_weights(collection.base, modules, weights, EXACT, tmp_path / "out")
    ours = engine_logits(collection, modules, Mix(EXACT, weights))
    torch.testing.assert_close(exported_logits(collection, tmp_path / "out"), ours, rtol=1e-4, atol=1e-4)


def test_a_paper_mix_of_rslora_modules_keeps_their_rank_and_patterns(t5: Collection, tmp_path: Path):
    options: dict = {"use_rslora": True, "r": 4, "rank_pattern": {".*0.*q": 2}, "alpha_pattern": {"v": 3}}
    modules = tuple(
        tiny.save_module(t5.base, "t5", tmp_path / f"m{seed}", seed=seed, **options) for seed in (1, 2)
    )
    run.export_weights(t5.base, modules, (0.5, 0.9), PAPER, tmp_path / "out")
    ours = engine_logits(t5, modules, Mix(PAPER, (0.5, 0.9)))
    torch.testing.assert_close(exported_logits(t5, tmp_path / "out"), ours, rtol=1e-4, atol=1e-4)
    exported = load_module(Module("out", tmp_path / "out"))
    ranks = {path: factors.rank for path, factors in load_module(modules[0]).factors.items()}
    assert {path: factors.rank for path, factors in exported.factors.items()} == ranks


@pytest.mark.parametrize("mix", [PAPER, EXACT])
def test_weights_that_are_all_zero_export_the_base_itself(t5: Collection, tmp_path: Path, mix: str):
    run.export_weights(t5.base, t5.modules, (0.0,) * 6, mix, tmp_path)
    base = scorer_for(load(t5.base), t5.modules)
    expected = base._logits(tokenise(load(t5.base), tiny.EXAMPLES), repeats=1)[0]
    torch.testing.assert_close(exported_logits(t5, tmp_path), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mix", [PAPER, EXACT])
def test_the_same_recipe_gives_the_same_bytes_whatever_the_threads(t5: Collection, tmp_path: Path, mix: str):
    run.export_weights(t5.base, t5.modules, WEIGHTS, mix, tmp_path / "first")
    torch.set_num_threads(2)
    try:
        run.export_weights(t5.base, t5.modules, WEIGHTS, mix, tmp_path / "second")
    finally:
        torch.set_num_threads(1)
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_config_is_sorted_and_names_the_modules_base_unless_told_otherwise(
    t5: Collection, tmp_path: Path
):
    run.export_weights(t5.base, t5.modules, WEIGHTS, PAPER, tmp_path / "own")
    run.export_weights(t5.base, t5.modules, WEIGHTS, PAPER, tmp_path / "told", "google/flan-t5-small")
    own = json.loads((tmp_path / "own" / "adapter_config.json").read_text())
    told = json.loads((tmp_path / "told" / "adapter_config.json").read_text())
    assert list(own) == sorted(own)
    assert own["base_model_name_or_path"] == "tiny/t5"
    assert told["base_model_name_or_path"] == "google/flan-t5-small"
    assert (own["r"], own["lora_alpha"], own["target_modules"]) == (4, 8, ["q", "v"])


def test_whole_paths_are_named_where_a_last_part_is_also_that_of_no_matrix():
    """As in CTRL: PEFT refuses a config whose "0" is a layer of the base too."""
    layer = torch.nn.ModuleDict({"ffn": torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())})
    model = torch.nn.ModuleDict({"h": torch.nn.ModuleList([layer])})
    assert target_names(model, ["h.0.ffn.0"]) == ["h.0.ffn.0"]


def test_the_config_names_whole_paths_where_last_parts_would_catch_too_much(t5: Collection, tmp_path: Path):
    only = tiny.save_module(
        t5.base, "t5", tmp_path / "m", seed=1, target_modules=r".*encoder.*SelfAttention\.q"
    )
    run.export_weights(t5.base, (only,), (1.0,), EXACT, tmp_path / "out")
    names = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]
    assert names == sorted(load_module(only).factors)
    ours = engine_logits(t5, (only,), Mix(EXACT, (1.0,)))
    torch.testing.assert_close(exported_logits(t5, tmp_path / "out"), ours, rtol=1e-4, atol=1e-4)
