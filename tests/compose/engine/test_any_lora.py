"""Whatever LoRAs are mixed: rank, alpha, rsLoRA, patterns, float type and targets drawn at random, against dense changes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import save_file

from compose.engine import loading, run
from compose.engine.bank import build_bank
from compose.engine.loading import LoadedBase, load_module
from compose.engine.mixing import EXACT, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from compose.engine.types import Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_scoring import peft_loss

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Drawn:
    """A LoRA as chance made it; `special` are the rank and alpha of one matrix that a pattern names."""

    rank: int
    alpha: int
    rslora: bool
    targets: tuple[str, ...]
    special: tuple[int, int] | None
    dtype: torch.dtype
    seed: int


def loras(family: str) -> st.SearchStrategy[Drawn]:
    names = tiny.TARGETS[family]
    return st.builds(
        Drawn,
        rank=st.integers(1, 9),
        alpha=st.integers(1, 40),
        rslora=st.booleans(),
        targets=st.sampled_from([tuple(names), (names[0],), (names[1],)]),
        special=st.none() | st.tuples(st.integers(1, 12), st.integers(1, 40)),
        dtype=st.sampled_from(DTYPES),
        seed=st.integers(0, 2**20),
    )


@cache
def base_of(folder: Path) -> LoadedBase:
    return loading.load_base(folder, device=CPU)


def save(drawn: Drawn, base: LoadedBase, folder: Path) -> tuple[Module, dict[str, torch.Tensor]]:
    """The LoRA as a PEFT folder, and by hand the change it makes to every matrix, (out, in)."""
    generator = torch.Generator().manual_seed(drawn.seed)
    paths = [
        path
        for path, layer in base.model.named_modules()
        if path.rsplit(".", 1)[-1] in drawn.targets and loading.linear_shape(base.model, path)
    ]
    tensors, changes = {}, {}
    for path in paths:
        shape = loading.linear_shape(base.model, path)
        assert shape is not None
        is_special = drawn.special is not None and path == paths[0]
        rank, alpha = drawn.special if is_special and drawn.special else (drawn.rank, drawn.alpha)
        a = (torch.randn(rank, shape[0], generator=generator) * 0.1).to(drawn.dtype)
        b = (torch.randn(shape[1], rank, generator=generator) * 0.1).to(drawn.dtype)
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
        scaling = alpha / (math.sqrt(rank) if drawn.rslora else rank)
        changes[path] = scaling * (b.double() @ a.double())
    config: dict[str, Any] = {
        "peft_type": "LORA", "r": drawn.rank, "lora_alpha": drawn.alpha, "use_rslora": drawn.rslora,
        "target_modules": list(drawn.targets), "bias": "none", "lora_dropout": 0.0,
        "task_type": "SEQ_2_SEQ_LM" if base.kind == "seq2seq" else "CAUSAL_LM",
        "base_model_name_or_path": "tiny", "fan_in_fan_out": base.model.config.model_type == "gpt2",
    }  # fmt: skip
    if drawn.special is not None:
        config["rank_pattern"] = {paths[0]: drawn.special[0]}
        config["alpha_pattern"] = {paths[0]: drawn.special[1]}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return Module(folder.name, folder), changes


def loss_with(
    collection: Collection, base: LoadedBase, changes: list[tuple[float, dict[str, torch.Tensor]]]
) -> float:
    """Loss of the examples by the model itself, its matrices changed by hand."""
    model = tiny.auto_class(collection.family).from_pretrained(collection.base).eval()
    for weight, change in changes:
        for path, delta in change.items():
            layer = model.get_submodule(path)
            delta = (weight * delta).float()
            layer.weight.data += delta if isinstance(layer, torch.nn.Linear) else delta.T
    return peft_loss(model, base, tokenise(base, tiny.EXAMPLES))


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
def test_any_mix_of_any_loras_is_the_sum_of_their_dense_changes(family: str, request: pytest.FixtureRequest):
    collection: Collection = request.getfixturevalue(family)
    base = base_of(collection.base)

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        drawn=st.lists(loras(family), min_size=1, max_size=4),
        weights=st.lists(st.sampled_from([-1.3, -0.4, 0.0, 0.6, 1.0]), min_size=4, max_size=4),
    )
    def holds(drawn: list[Drawn], weights: list[float]) -> None:
        with TemporaryDirectory() as scratch:
            saved = [save(each, base, Path(scratch) / f"lora-{i}") for i, each in enumerate(drawn)]
            modules = [load_module(module) for module, _ in saved]
            used = weights[: len(saved)]
            scorer = Scorer(base, Mixer(base, build_bank(modules, device=CPU)), tokenise(base, tiny.EXAMPLES))
            by_hand = loss_with(
                collection, base, [(w, change) for w, (_, change) in zip(used, saved, strict=True)]
            )
            assert scorer.losses([Mix(EXACT, tuple(used))])[0] == pytest.approx(by_hand, rel=2e-5)

            # And written out, read by PEFT, it is the same again.
            out = Path(scratch) / "out"
            run.export_weights(collection.base, [module for module, _ in saved], used, EXACT, out)
            model = tiny.auto_class(family).from_pretrained(collection.base)
            exported = PeftModel.from_pretrained(model, out).eval()
            assert peft_loss(exported, base, tokenise(base, tiny.EXAMPLES)) == pytest.approx(
                by_hand, rel=2e-5
            )

    holds()


@pytest.mark.parametrize("family", ["t5", "llama", "gpt2"])
def test_any_one_lora_at_weight_one_has_pefts_own_loss(family: str, request: pytest.FixtureRequest):
    collection: Collection = request.getfixturevalue(family)
    base = base_of(collection.base)

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(drawn=loras(family))
    def holds(drawn: Drawn) -> None:
        with TemporaryDirectory() as scratch:
            module, _ = save(drawn, base, Path(scratch) / "lora")
            bank = build_bank([load_module(module)], device=CPU)
            scorer = Scorer(base, Mixer(base, bank), tokenise(base, tiny.EXAMPLES))
            model = tiny.auto_class(family).from_pretrained(collection.base)
            theirs = peft_loss(
                PeftModel.from_pretrained(model, module.path).eval(), base, tokenise(base, tiny.EXAMPLES)
            )
            assert scorer.losses([Mix(EXACT, (1.0,))])[0] == pytest.approx(theirs, rel=2e-5)

    holds()
