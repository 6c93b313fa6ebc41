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
from compose.engine.search import LoraHubSearch
from compose.engine.types import Example, Module, Request, Result, Trial
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


def test_lorahub_asks_for_the_points_the_released_package_does(replay: Replay):
    # COBYLA multiplies the last bit of a loss, in which two kinds of processor differ, by about a million in 40
    # steps. So the search is told the recorded losses here; that ours are the same, the test above shows.
    search, trials = search_of(replay), replay.record["trials"]
    for number, theirs in enumerate(trials):
        (weights,) = search.ask()
        np.testing.assert_allclose(weights, theirs["weights"], atol=1e-6)
        objective = search.objective(weights, theirs["loss"])
        assert objective == pytest.approx(theirs["objective"], rel=1e-5)
        search.tell([Trial(number, weights, theirs["loss"], theirs["objective"])])
    assert search.ask() == []


def test_lorahub_recommends_the_weights_the_released_package_does(replay: Replay):
    recorded = [
        Trial(number, tuple(trial["weights"]), trial["loss"], trial["objective"])
        for number, trial in enumerate(replay.record["trials"])
    ]
    best = search_of(replay).best(recorded)
    assert best is not None
    np.testing.assert_allclose(best.mixing_weights, replay.record["mixing_weights"], atol=1e-6)


def test_a_run_of_lorahub_goes_where_the_released_package_went(replay: Replay):
    ours, theirs = replay.result.trials, replay.record["trials"]
    assert len(ours) == len(theirs) == 40
    first_round = 1 + len(replay.modules)  # the start, then one module at a time
    for our, their in zip(ours[:first_round], theirs[:first_round], strict=True):
        np.testing.assert_allclose(our.mixing_weights, their["weights"], atol=1e-3)
        assert our.loss == pytest.approx(their["loss"], rel=1e-5)
    assert replay.result.mix == "paper"
    lowest = min(trial["objective"] for trial in theirs)
    assert min(trial.objective for trial in ours) == pytest.approx(lowest, rel=1e-3)


def search_of(replay: Replay) -> LoraHubSearch:
    return LoraHubSearch(
        modules=len(replay.modules),
        examples=len(replay.examples),
        budget=replay.record["budget"],
        seed=replay.record["seed"],
    )


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
