"""One module out of all proportion spoils no mix: it is left out and named, or weighed by a unit of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from compose.engine import errors, run
from compose.engine.auto import AutoSearch
from compose.engine.bank import build_bank
from compose.engine.export import mixed_factors
from compose.engine.loading import load_module
from compose.engine.methods import METHODS
from compose.engine.mixing import EXACT, PAPER, Mix
from compose.engine.prepared import prepare
from compose.engine.scoring import tokenise
from compose.engine.soundness import proportions
from compose.engine.types import ExportForm, Module
from compose.engine.warm import WarmCache
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import Recorder, request_for
from tests.compose.engine.test_scoring import load, mixed_modules, peft_loss


def scaled(module: Module, folder: Path, factor: float, name: str = "huge") -> Module:
    """A copy whose whole change is so many times as large."""
    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((module.path / "adapter_config.json").read_bytes())
    side = math.sqrt(factor)
    tensors = {
        key: tensor * side for key, tensor in load_file(module.path / "adapter_model.safetensors").items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return Module(name, folder)


@pytest.mark.parametrize("unlike", [False, True])
def test_sizes_are_those_of_the_changes_themselves(collection: Collection, tmp_path: Path, unlike: bool):
    given = mixed_modules(collection, tmp_path) if unlike else collection.modules
    modules = [load_module(module) for module in given]
    sizes = build_bank(modules, device=torch.device("cpu")).change_sizes
    for index, size in enumerate(sizes):
        one = tuple(float(index == other) for other in range(len(modules)))
        changes = [b @ a for a, b in mixed_factors(modules, Mix(EXACT, one)).values()]
        assert size == pytest.approx(
            math.sqrt(sum(float(change.square().sum()) for change in changes)), rel=1e-5
        )


@pytest.mark.parametrize("factor", [1e4, 1e18, 1e36])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_module_out_of_all_proportion_is_left_out_and_named(
    t5: Collection, tmp_path: Path, name: str, factor: float
):
    huge = scaled(t5.modules[0], tmp_path / "huge", factor)
    with_it = (*t5.modules[:2], huge, *t5.modules[2:])
    observer = Recorder()
    found = run.compose(
        request_for(t5, method=name, modules=with_it, budget=30, out=tmp_path / "out"), observer=observer
    )
    [note] = [note for note in found.notes if note.startswith("Left out: ")]
    assert note.startswith("Left out: huge, whose change is ")
    assert note.endswith("times as large as the base's own matrices.")
    assert found.mixing_weights[2] == 0.0
    assert math.isnan(found.audition[2])
    assert not any(map(math.isnan, [*found.audition[:2], *found.audition[3:]]))
    assert math.isfinite(found.loss)
    plain = run.compose(request_for(t5, method=name, budget=30))
    baselines = [score for score in plain.scores if score.method in ("best_single", "uniform")]
    assert all(score in found.scores for score in baselines)
    if name == "auto":
        assert [*found.mixing_weights[:2], *found.mixing_weights[3:]] == pytest.approx(
            plain.mixing_weights, abs=1e-4
        )
    # The recipe is of all modules, and gives the bytes that were scored.
    run.export_weights(
        t5.base, with_it, found.mixing_weights, found.mix, tmp_path / "again", form=ExportForm()
    )
    written = [(tmp_path / folder / "adapter_model.safetensors").read_bytes() for folder in ("out", "again")]
    assert written[0] == written[1]


def changed(module: Module, folder: Path, *, alpha: float | None = None, **options: Any) -> Module:
    """A copy with another alpha, or with its tensors changed by `of`."""
    folder.mkdir()
    config = json.loads((module.path / "adapter_config.json").read_text())
    config["lora_alpha"] = alpha or config["lora_alpha"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    of = options.get("of", lambda key, tensor: tensor)
    tensors = {
        key: of(key, tensor) for key, tensor in load_file(module.path / "adapter_model.safetensors").items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return Module(folder.name, folder)


@pytest.mark.parametrize("name", sorted(METHODS))
@pytest.mark.parametrize("alpha", [1e6, 1e300])
def test_an_alpha_out_of_all_proportion_spoils_no_mix_wherever_it_stands(
    t5: Collection, tmp_path: Path, name: str, alpha: float
):
    huge = changed(t5.modules[0], tmp_path / "huge", alpha=alpha)
    request = request_for(t5, method=name, modules=(huge, *t5.modules[1:]), budget=30, out=tmp_path / "out")
    found = run.compose(request)
    assert any(note.startswith("Left out: huge, whose change is ") for note in found.notes)
    assert found.mixing_weights[0] == 0.0
    # What was searched is what is written, whoever would have lent the mix its scaling.
    base = load(t5.base)
    composed = PeftModel.from_pretrained(tiny.new_model("t5"), tmp_path / "out").eval()
    assert found.loss == pytest.approx(peft_loss(composed, base, tokenise(base, tiny.EXAMPLES)), rel=1e-4)
    run.export_weights(t5.base, request.modules, found.mixing_weights, found.mix, tmp_path / "again")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_paper_mix_is_scaled_as_the_first_module_that_takes_part(t5: Collection, tmp_path: Path):
    huge = changed(t5.modules[0], tmp_path / "huge", alpha=1e6)
    weights = (0.4, -0.3, 0.2)
    losses = []
    for modules, vector in (
        ((huge, *t5.modules[1:4]), (0.0, *weights)),
        ((*t5.modules[1:4], huge), (*weights, 0.0)),
    ):
        prepared = prepare(request_for(t5, modules=modules), WarmCache(), torch.float32)
        losses += prepared.scorer.losses([Mix(PAPER, vector)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_numbers_beyond_float32_are_left_out_and_not_refused(t5: Collection, tmp_path: Path):
    huge = changed(t5.modules[0], tmp_path / "huge", of=lambda key, tensor: tensor.double() * 1e300)
    found = run.compose(request_for(t5, method="auto", modules=(*t5.modules, huge), budget=10))
    assert found.notes[0].startswith("Left out: huge, whose change is more than a trillion times")


def test_the_loss_of_a_module_out_of_proportion_is_its_own(t5: Collection, tmp_path: Path):
    alone = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    huge, beyond = (
        scaled(t5.modules[0], tmp_path / str(factor), factor, name=str(factor)) for factor in (1e4, 1e38)
    )
    base_loss, expected = run.score(t5.base, t5.modules[:1], tiny.EXAMPLES, [[0.0], [1.0]], "exact")
    sound, own, no_number = run.score(t5.base, (t5.modules[0], huge, beyond), tiny.EXAMPLES, alone, "exact")
    assert sound == pytest.approx(expected, rel=1e-5)
    assert own == pytest.approx(run.score(t5.base, [huge], tiny.EXAMPLES, [[1.0]], "exact")[0], rel=1e-5)
    assert own != pytest.approx(base_loss, rel=1e-3)
    assert not math.isfinite(no_number) or no_number != pytest.approx(base_loss, rel=1e-3)


def test_untrained_modules_do_not_say_what_is_usual(t5: Collection, tmp_path: Path):
    untrained = [
        changed(
            t5.modules[index],
            tmp_path / f"untrained-{index}",
            of=lambda key, tensor: torch.zeros_like(tensor) if "lora_B" in key else tensor,
        )
        for index in range(3)
    ]
    given = [load_module(module) for module in (*untrained, *t5.modules[:2])]
    bank = build_bank(given, device=torch.device("cpu"))
    assert proportions(load(t5.base), bank).units == (1.0,) * 5
    nothing = build_bank(given[:3], device=torch.device("cpu"))
    assert proportions(load(t5.base), nothing).units == (1.0,) * 3


def test_where_nothing_is_left_that_is_said(t5: Collection, tmp_path: Path):
    huge = [scaled(t5.modules[i], tmp_path / str(i), 1e6, name=f"huge-{i}") for i in range(2)]
    with pytest.raises(errors.NoModules, match="None of the modules can be used: huge-0, whose change is"):
        run.compose(request_for(t5, modules=tuple(huge)))


@pytest.mark.parametrize("factor", [5.0, 20.0, 60.0])
def test_a_large_module_is_weighed_by_a_unit_of_its_own(t5: Collection, tmp_path: Path, factor: float):
    large = scaled(t5.modules[0], tmp_path / "large", factor, name="large")
    given = [load_module(module) for module in (*t5.modules, large)]
    bank = build_bank(given, device=torch.device("cpu"))
    units = proportions(load(t5.base), bank).units
    assert units[:-1] == (1.0,) * 6
    assert units[-1] * bank.change_sizes[-1] == pytest.approx(float(np.median(bank.change_sizes)))


def test_a_search_in_units_is_the_search_of_modules_of_one_size():
    """The same function of the mix, told through weights of which one counts tenths."""
    targets = np.array([0.4, -0.2, 0.3])

    def loss(mix: np.ndarray) -> float:
        return 1.0 + float(((mix - targets) ** 2).sum())

    def starts(units: tuple[float, ...]) -> tuple[np.ndarray, list[float]]:
        search = AutoSearch(audition=(1.5, 2.0, 1.2), base_loss=1.29, budget=60, units=units)
        weights = np.array(search.ask())
        mixes = weights / np.array(units or (1.0, 1.0, 1.0))
        return mixes, [search.objective(tuple(w), loss(mix)) for w, mix in zip(weights, mixes, strict=True)]

    plain, in_units = starts(()), starts((1.0, 0.1, 1.0))
    assert in_units[0] == pytest.approx(plain[0])
    assert in_units[1] == pytest.approx(plain[1])
    # The best single module is tried as it is, at weight 1.
    single = AutoSearch(audition=(1.5, 1.1, 1.2), base_loss=1.29, budget=60, units=(1.0, 0.1, 1.0)).ask()[1]
    assert single == (0.0, 1.0, 0.0)


def test_of_many_modules_what_is_left_out_is_not_even_screened(t5: Collection, tmp_path: Path):
    huge = scaled(t5.modules[0], tmp_path / "huge", 1e9)
    many = [tiny.save_module(t5.base, "t5", tmp_path / f"m{i}", seed=100 + i) for i in range(34)]
    found = run.compose(request_for(t5, method="auto", modules=(huge, *many), budget=200))
    assert found.mixing_weights[0] == 0.0
    assert all(trial.mixing_weights[0] == 0.0 for trial in found.trials)
