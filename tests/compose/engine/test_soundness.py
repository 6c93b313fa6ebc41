"""One module out of all proportion spoils no mix: it is left out and named, or weighed by a unit of its own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from compose.engine import errors, run
from compose.engine.auto import AutoSearch
from compose.engine.bank import build_bank
from compose.engine.export import mixed_factors
from compose.engine.loading import load_module
from compose.engine.methods import METHODS
from compose.engine.mixing import EXACT, Mix
from compose.engine.soundness import proportions
from compose.engine.types import ExportForm, Module
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_run import Recorder, request_for
from tests.compose.engine.test_scoring import load, mixed_modules


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
    single = {score.method: score for score in plain.scores}["best_single"]
    assert single in found.scores
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
