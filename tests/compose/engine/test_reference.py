"""Method `lorahub` against trials recorded from the PyPI package lorahub 0.1.0 (benchmarks/record_reference.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from compose.engine import loading, run
from compose.engine.types import Example, Request
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection

RECORD = json.loads((Path(__file__).parent / "data" / "reference_tiny_t5.json").read_text())


@pytest.fixture(scope="module")
def result(t5: Collection, tmp_path_factory: pytest.TempPathFactory):
    assert [module.name for module in t5.modules] == RECORD["modules"]
    out = tmp_path_factory.mktemp("reference")
    examples = tuple(Example(**row) for row in RECORD["examples"])
    request = Request(
        base=t5.base,
        modules=t5.modules,
        examples=examples,
        budget=RECORD["budget"],
        seed=RECORD["seed"],
        out=out,
    )
    return run.compose(request), out


def test_lorahub_evaluates_the_points_the_released_package_does(result):
    composed, _ = result
    assert len(composed.trials) == len(RECORD["trials"]) == 40
    for ours, theirs in zip(composed.trials, RECORD["trials"], strict=True):
        np.testing.assert_allclose(ours.mixing_weights, theirs["weights"], atol=1e-3)
        assert ours.loss == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours.objective == pytest.approx(theirs["objective"], rel=1e-5)


def test_lorahub_recommends_the_weights_the_released_package_does(result):
    composed, _ = result
    assert composed.mix == "paper"
    np.testing.assert_allclose(composed.mixing_weights, RECORD["mixing_weights"], atol=1e-3)


def test_the_composed_adapter_has_the_logits_of_the_released_packages_model(result, t5: Collection):
    _, out = result
    model = PeftModel.from_pretrained(tiny.new_model("t5").eval(), out).eval()
    tokenizer = loading.load_base(t5.base, device=torch.device("cpu")).tokenizer
    example = RECORD["examples"][0]
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor([tokenizer(example["input"])["input_ids"]]),
            labels=torch.tensor([tokenizer(example["output"])["input_ids"]]),
        ).logits[0]
    np.testing.assert_allclose(logits[:, :16], RECORD["logits"], atol=1e-3)


def test_the_recorded_weights_give_the_recorded_losses(t5: Collection):
    examples = [Example(**row) for row in RECORD["examples"]]
    weights = [trial["weights"] for trial in RECORD["trials"]]
    losses = run.score(t5.base, t5.modules, examples, weights, "paper")
    assert losses == pytest.approx([trial["loss"] for trial in RECORD["trials"]], rel=1e-5)
