"""Method `lorahub` against trials recorded from the PyPI package lorahub 0.1.0 (benchmarks/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from compose.engine import run
from compose.engine.types import Example, Module, Request, Result
from tests.compose.engine.conftest import Collection

DATA = Path(__file__).parent / "data"
DEMO = Path(__file__).resolve().parents[3] / "demo"


@dataclass
class Replay:
    """A record, and what our engine does on the same modules and examples."""

    record: dict[str, Any]
    base: Path
    modules: tuple[Module, ...]
    result: Result
    out: Path

    @property
    def examples(self) -> list[Example]:
        return [Example(**row) for row in self.record["examples"]]


@pytest.fixture(scope="module", params=["tiny", "demo"])
def replay(
    request: pytest.FixtureRequest, t5: Collection, tmp_path_factory: pytest.TempPathFactory
) -> Replay:
    record = json.loads((DATA / f"reference_{request.param}_t5.json").read_text())
    if request.param == "tiny":
        base, folders = t5.base, {module.name: module.path for module in t5.modules}
    else:
        collection = json.loads((DEMO / "collection.json").read_text())
        base = DEMO / "story-t5"
        folders = {
            Path(module["path"]).name: DEMO / module["path"]
            for module in collection["modules"]
            if module["base_model"] == "demo/story-t5"
        }
    modules = tuple(Module(name, folders[name]) for name in record["modules"])
    examples = tuple(Example(**row) for row in record["examples"])
    out = tmp_path_factory.mktemp(f"replay-{request.param}")
    result = run.compose(
        Request(
            base=base,
            modules=modules,
            examples=examples,
            test=examples[:1],
            budget=record["budget"],
            seed=record["seed"],
            out=out,
        )
    )
    return Replay(record, base, modules, result, out)


def test_the_recorded_weights_give_the_recorded_losses(replay: Replay):
    # If only this one is red for the demo, its modules were trained anew: record again, see benchmarks/README.md.
    weights = [trial["weights"] for trial in replay.record["trials"]]
    losses = run.score(replay.base, replay.modules, replay.examples, weights, "paper")
    assert losses == pytest.approx([trial["loss"] for trial in replay.record["trials"]], rel=1e-5)


def test_lorahub_evaluates_the_points_the_released_package_does(replay: Replay):
    assert len(replay.result.trials) == len(replay.record["trials"]) == 40
    for ours, theirs in zip(replay.result.trials, replay.record["trials"], strict=True):
        np.testing.assert_allclose(ours.mixing_weights, theirs["weights"], atol=1e-3)
        assert ours.loss == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours.objective == pytest.approx(theirs["objective"], rel=1e-5)


def test_lorahub_recommends_the_weights_the_released_package_does(replay: Replay):
    assert replay.result.mix == "paper"
    np.testing.assert_allclose(replay.result.mixing_weights, replay.record["mixing_weights"], atol=1e-3)


def test_the_composed_adapter_has_the_logits_of_the_released_packages_model(replay: Replay):
    base = AutoModelForSeq2SeqLM.from_pretrained(replay.base)
    model = PeftModel.from_pretrained(base, replay.out).eval()
    tokenizer = AutoTokenizer.from_pretrained(replay.base)
    example = replay.examples[0]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([tokenizer(example.input)["input_ids"]]),
            labels=torch.tensor([tokenizer(example.output)["input_ids"]]),
        ).logits[0]
    np.testing.assert_allclose(logits[:, :16], replay.record["logits"], atol=1e-3)
