"""Exports of a chosen rank and float type: the error that is said is the error there is, and PEFT loads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from compose.engine import run
from compose.engine.errors import BadInput
from compose.engine.loading import load_module
from compose.engine.mixing import EXACT, PAPER
from compose.engine.truncation import relative_error, truncated
from compose.engine.types import ExportForm, Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_scoring import mixed_modules

WEIGHTS = (0.5, -0.3, 0.0, 1.1, 0.2, -0.7)
FILES = ("adapter_config.json", "adapter_model.safetensors")


def dense(folder: Path) -> dict[str, torch.Tensor]:
    """The changes an adapter folder makes, read by our own loader."""
    factors = load_module(Module("written", folder)).factors
    return {path: each.scaling * each.b @ each.a for path, each in factors.items()}


def whole_error(exact: dict[str, torch.Tensor], written: dict[str, torch.Tensor]) -> float:
    difference = sum(float((written[path] - change).norm() ** 2) for path, change in exact.items())
    return float((difference / sum(float(change.norm() ** 2) for change in exact.values())) ** 0.5)


@pytest.mark.parametrize("rank", [1, 3, 7, 12, 20])
def test_a_cut_change_is_the_nearest_of_its_rank(rank: int):
    generator = torch.Generator().manual_seed(rank)
    a, b = torch.randn(12, 30, generator=generator), torch.randn(18, 12, generator=generator)
    cut_a, cut_b = truncated(a, b, rank=rank)
    assert cut_a.shape[0] == cut_b.shape[1] == min(rank, 12)
    singular = torch.linalg.svdvals((b @ a).double())
    best = float((singular[rank:].square().sum() / singular.square().sum()).sqrt())
    assert relative_error({"m": (a, b)}, {"m": (cut_a, cut_b)}) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("mix", [PAPER, EXACT])
def test_the_stated_error_is_that_of_the_dense_changes(collection: Collection, tmp_path: Path, mix: str):
    def export(folder: str, form: ExportForm):
        return run.export_weights(
            collection.base, collection.modules, WEIGHTS, mix, tmp_path / folder, form=form
        )

    whole = export("whole", ExportForm())
    assert (whole.kind, whole.rank, whole.relative_error) == (
        ("paper", 4, 0.0) if mix == PAPER else ("concatenated", 20, 0.0)
    )
    exact = dense(tmp_path / "whole")
    for name, form in {
        "cut": ExportForm(rank=3),
        "short": ExportForm(dtype="bfloat16"),
        "both": ExportForm(rank=2, dtype="float16"),
    }.items():
        told = export(name, form)
        assert told.rank == (form.rank or whole.rank)
        assert told.dtype == form.dtype
        assert 0 < told.relative_error < 1
        assert told.relative_error == pytest.approx(whole_error(exact, dense(tmp_path / name)), rel=1e-3)
        tensors = load_file(tmp_path / name / "adapter_model.safetensors").values()
        assert {str(tensor.dtype) for tensor in tensors} == {f"torch.{form.dtype}"}


def test_a_cut_adapter_gives_in_peft_and_merged_what_its_own_factors_say(t5: Collection, tmp_path: Path):
    modules = mixed_modules(t5, tmp_path)
    run.export_weights(t5.base, modules, (0.7, -0.4, 1.2), EXACT, tmp_path / "out", form=ExportForm(rank=3))
    model = tiny.new_model("t5").eval()
    by_hand = tiny.new_model("t5").eval()
    for path, change in dense(tmp_path / "out").items():
        by_hand.get_submodule(path).weight.data += change
    adapted = PeftModel.from_pretrained(model, tmp_path / "out").eval()
    ids = torch.tensor([[3, 4, 5, 6, 1]])
    with torch.inference_mode():
        expected = by_hand(input_ids=ids, labels=ids).logits
        torch.testing.assert_close(adapted(input_ids=ids, labels=ids).logits, expected, rtol=1e-4, atol=1e-4)
        merged = adapted.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        loaded = tiny.auto_class("t5").from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(loaded(input_ids=ids, labels=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_rank_above_the_mixs_own_leaves_it_as_it_is(t5: Collection, tmp_path: Path):
    for folder, form in (("plain", ExportForm()), ("roomy", ExportForm(rank=500))):
        told = run.export_weights(t5.base, t5.modules, WEIGHTS, EXACT, tmp_path / folder, form=form)
        assert told.kind == "concatenated"
    for name in FILES:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "roomy" / name).read_bytes()


def test_equal_cuts_have_equal_bytes_whatever_the_threads(t5: Collection, tmp_path: Path):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            run.export_weights(
                t5.base, t5.modules, WEIGHTS, EXACT, tmp_path / str(threads), form=ExportForm(rank=5)
            )
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for name in FILES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_cut_of_nothing_but_zeros_is_written_without_an_error(t5: Collection, tmp_path: Path):
    form = ExportForm(rank=2)
    told = run.export_weights(t5.base, t5.modules, (0.0,) * 6, EXACT, tmp_path, form=form)
    assert told.relative_error == 0
    assert all(float(change.abs().max()) == 0 for change in dense(tmp_path).values())


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (ExportForm(rank=-1), "The export rank is -1"),
        (ExportForm(rank=5000), "The export rank is 5000"),
        (ExportForm(dtype="int8"), "no float type 'int8' to export"),
    ],
)
def test_an_export_that_cannot_be_is_refused_with_a_sentence(
    t5: Collection, tmp_path: Path, form: ExportForm, sentence: str
):
    with pytest.raises(BadInput, match=sentence):
        run.export_weights(t5.base, t5.modules, WEIGHTS, EXACT, tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_numbers_too_large_for_the_float_type_are_refused(t5: Collection, tmp_path: Path):
    huge = (1e6,) + (0.0,) * 5
    with pytest.raises(BadInput, match="too large for float16"):
        run.export_weights(
            t5.base, t5.modules, huge, EXACT, tmp_path / "out", form=ExportForm(dtype="float16")
        )
    assert not (tmp_path / "out").exists()


def test_the_config_of_a_cut_names_its_rank(t5: Collection, tmp_path: Path):
    run.export_weights(t5.base, t5.modules, WEIGHTS, PAPER, tmp_path, form=ExportForm(rank=2))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (2, 2, {})
