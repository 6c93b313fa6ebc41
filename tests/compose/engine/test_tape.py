"""Tapes: replayed operations give the numbers of the forward they were recorded from, or recording refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compose.engine import program, tape
from compose.engine.bank import build_bank
from compose.engine.graphs import Graphs
from compose.engine.loading import load_module
from compose.engine.mixing import PAPER, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_graphs import CPU, exact_mixes
from tests.compose.engine.test_scoring import load, mixed_modules

FIXED = torch.arange(6.0).view(2, 3)


def recorded(forward: Callable[[Tensor], Tensor]) -> tuple[tape.Tape, Tensor]:
    given = torch.ones(2, 3)
    with torch.inference_mode():
        kept, result = tape.record(lambda: forward(given), given)
        assert torch.equal(result, forward(given))
        for number in range(2, 9):  # so often that it becomes a program on the way
            given.fill_(number * (-1.0) ** number)
            assert torch.equal(kept.replay(), forward(given))
    return kept, given


def in_a_new_place(given: Tensor) -> Tensor:
    place = torch.empty(4, 3)
    place[:2] = given * 2
    place[2:] = FIXED
    return place.sum(0)


@pytest.mark.parametrize(
    "forward",
    [
        lambda given: given * FIXED + 1,
        lambda given: torch.cat([given, FIXED], dim=1).view(-1).unbind()[0],
        lambda given: torch.nn.functional.dropout(given.t() @ FIXED, 0.5, training=False),
        lambda given: (given + 1).add_(FIXED).mul_(given),
        lambda given: given[torch.tensor([1, 0])] * FIXED,
        lambda given: torch.where(given > 0, given, FIXED).max(dim=1).values,
        lambda given: given.to(torch.float64).sum(dim=[0], keepdim=True, dtype=torch.float32),
        lambda given: torch.stack(given.split([1, 1]), dim=-1).clamp(min=None, max=3),
        in_a_new_place,
    ],
)
def test_a_replay_does_what_the_forward_does(forward: Callable[[Tensor], Tensor]):
    kept, _ = recorded(forward)
    assert kept.is_written


def refuse(*_args: object) -> None:
    raise program.NotWritable("not today")


@pytest.mark.parametrize("write", [refuse, lambda *_: lambda given: given + 1, lambda *_: torch.nonzero])
def test_without_a_program_or_with_a_wrong_one_a_tape_goes_on_step_by_step(monkeypatch, write):
    monkeypatch.setattr(program, "write", write)
    kept, _ = recorded(lambda given: given * FIXED)
    assert not kept.is_written


def test_what_does_not_depend_on_the_input_is_not_done_again():
    def forward(given: Tensor) -> Tensor:
        return given + (FIXED @ FIXED.t()).sum().exp().log().tanh()

    assert recorded(forward)[0].length == 1


def add_to_what_was_there(given: Tensor) -> Tensor:
    return (FIXED + 1).add_(given)


def overwrite_what_was_read(given: Tensor) -> Tensor:
    kept = FIXED.clone()
    first = given + kept
    kept.zero_()
    return first + given


def go_by_the_numbers(given: Tensor) -> Tensor:
    return given * 2 if given.sum() > 0 else given


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (add_to_what_was_there, "overwrites what was there"),
        (overwrite_what_was_read, "overwrites what was read"),
        (go_by_the_numbers, "depends on numbers"),
        (lambda given: given[given > 0], "depends on numbers"),
        (lambda given: torch.nn.functional.dropout(given, 0.5, training=True), "random"),
    ],
)
def test_what_a_list_of_operations_cannot_repeat_is_refused(forward: Callable[[Tensor], Tensor], reason: str):
    given = torch.ones(2, 3)
    with torch.inference_mode(), pytest.raises(tape.NotRecordable, match=reason):
        tape.record(lambda: forward(given), given)


def scorer_of(collection: Collection, modules: tuple, recordings: Graphs) -> Scorer:
    base = load(collection.base)
    bank = build_bank([load_module(module) for module in modules], device=CPU)
    return Scorer(base, Mixer(base, bank), tokenise(base, tiny.EXAMPLES), graphs=recordings)


def unrecorded() -> Graphs:
    recordings = Graphs(CPU)
    recordings.is_broken = True
    return recordings


@pytest.mark.parametrize("count", [1, 3, 9])
def test_every_family_of_bases_is_recorded(collection: Collection, count: int):
    recordings = Graphs(CPU)
    scorer, plain = (scorer_of(collection, collection.modules, each) for each in (recordings, unrecorded()))
    for seed in range(5):
        mixes = exact_mixes(count, seed=seed)
        found, expected = scorer.row_losses(mixes).sums, plain.row_losses(mixes).sums
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert recordings.replays == 3
    assert not recordings.is_broken


def test_paper_mixes_are_scored_to_the_last_bit_as_without(collection: Collection):
    recordings = Graphs(CPU)
    scorer, plain = (scorer_of(collection, collection.modules, each) for each in (recordings, unrecorded()))
    for seed in range(5):
        mixes = [Mix(PAPER, mix.mixing_weights) for mix in exact_mixes(1, seed=seed)]
        assert scorer.losses(mixes) == plain.losses(mixes)
    assert recordings.replays == 3


def test_unlike_modules_are_recorded(collection: Collection, tmp_path):
    modules, recordings = mixed_modules(collection, tmp_path), Graphs(CPU)
    scorer, plain = (scorer_of(collection, modules, each) for each in (recordings, unrecorded()))
    for seed in range(4):
        mixes = exact_mixes(2, modules=3, seed=seed)
        found, expected = scorer.row_losses(mixes).sums, plain.row_losses(mixes).sums
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert recordings.replays == 2


def test_mixes_of_few_modules_take_the_usual_way(t5: Collection):
    recordings = Graphs(CPU)
    scorer = scorer_of(t5, t5.modules, recordings)
    for _ in range(3):
        scorer.row_losses([Mix("exact", (0.5, 0.0, 0.0, 0.0, 0.0, 0.0))])
    assert recordings.replays == 0
