"""Recorded forwards: buckets, padding and fallbacks, with a recorder that needs no GPU; CUDA itself where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.utils import import_utils

from compose.engine import graphs, loading
from compose.engine.bank import build_bank
from compose.engine.graphs import Graphs, bucket
from compose.engine.loading import load_module
from compose.engine.mixing import EXACT, PAPER, Mix, Mixer
from compose.engine.scoring import Scorer, tokenise
from tests.compose.engine import tiny
from tests.compose.engine.conftest import Collection
from tests.compose.engine.test_scoring import load, many_mixes, mixed_modules, scorer_for

CPU = torch.device("cpu")


class Repeated:
    """Does on the CPU what a CUDA graph does: the same computation again, into the same place."""

    def __init__(self, forward: Callable[[], Tensor]) -> None:
        self._forward = forward
        self.logits = forward().clone()

    def replay(self) -> Tensor:
        return self.logits.copy_(self._forward())


def recorder(made: list[Repeated] | None = None) -> graphs.Record:
    def record(forward: Callable[[], Tensor], _weights: Tensor) -> tuple[Repeated, Tensor]:
        repeated = Repeated(forward)
        if made is not None:
            made.append(repeated)
        return repeated, repeated.logits

    return record


def exact_mixes(count: int, modules: int = 6, seed: int = 0) -> list[Mix]:
    vectors = torch.rand(count, modules, generator=torch.Generator().manual_seed(seed)) - 0.5
    return [Mix(EXACT, tuple(vector)) for vector in vectors.tolist()]


def graphed_scorer(collection: Collection, recorded: Graphs) -> Scorer:
    base = load(collection.base)
    bank = build_bank([load_module(module) for module in collection.modules], device=CPU)
    return Scorer(base, Mixer(base, bank), tokenise(base, tiny.EXAMPLES), graphs=recorded)


def test_buckets_hold_their_number_and_waste_little():
    assert [bucket(n) for n in (1, 2, 3, 4, 5, 8, 9, 16, 17, 41)] == [1, 2, 4, 4, 8, 8, 16, 16, 24, 48]
    assert all(n <= bucket(n) < max(2 * n, n + 8) for n in range(1, 500))


@pytest.mark.parametrize("count", [1, 3, 9])
def test_recorded_losses_are_those_of_any_forward(collection: Collection, count: int):
    recorded = Graphs(CPU, record=recorder())
    scorer = graphed_scorer(collection, recorded)
    plain = scorer_for(load(collection.base), collection.modules)
    for seed in range(4):
        mixes = exact_mixes(count, seed=seed)
        found, expected = scorer.row_losses(mixes).sums, plain.row_losses(mixes).sums
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert recorded.replays == 2  # the first use does not earn a recording, the second makes it


def test_unlike_modules_and_rows_in_parts_are_recorded_too(t5: Collection, tmp_path: Path):
    modules = mixed_modules(t5, tmp_path)
    base, recorded = load(t5.base), Graphs(CPU, record=recorder())
    bank = build_bank([load_module(module) for module in modules], device=CPU)
    rows = tokenise(base, tiny.EXAMPLES)
    scorer = Scorer(base, Mixer(base, bank), rows, tokens_per_forward=60, graphs=recorded)
    plain = scorer_for(base, modules)
    for seed in range(3):
        mixes = exact_mixes(5, modules=3, seed=seed)
        expected = plain.row_losses(mixes).sums
        torch.testing.assert_close(scorer.row_losses(mixes).sums, expected, rtol=1e-5, atol=1e-5)
    assert recorded.replays > 0


def test_one_recording_serves_all_numbers_of_its_bucket(t5: Collection):
    made: list[Repeated] = []
    scorer = graphed_scorer(t5, Graphs(CPU, record=recorder(made), in_buckets=True))
    for count in (5, 6, 7, 8, 5):
        scorer.row_losses(exact_mixes(count))
    assert len(made) == 1
    scorer.row_losses(exact_mixes(2))
    scorer.row_losses(exact_mixes(2, seed=1))
    assert len(made) == 2


def test_paper_mixes_are_computed_as_usual(t5: Collection):
    recorded = Graphs(CPU, record=recorder())
    scorer = graphed_scorer(t5, recorded)
    mixes = many_mixes(6)
    assert {mix.kind for mix in mixes} == {EXACT, PAPER}
    expected = scorer_for(load(t5.base), t5.modules).row_losses(mixes).sums
    for _ in range(3):
        torch.testing.assert_close(scorer.row_losses(mixes).sums, expected, rtol=1e-5, atol=1e-5)
    assert recorded.replays == 0


def test_a_base_that_cannot_be_recorded_is_scored_without(t5: Collection, caplog: pytest.LogCaptureFixture):
    def refuses(_forward: Callable[[], Tensor], _weights: Tensor):
        raise RuntimeError("operation not permitted when stream is capturing")

    recorded = Graphs(CPU, record=refuses)
    scorer = graphed_scorer(t5, recorded)
    plain = scorer_for(load(t5.base), t5.modules)
    for seed in range(3):
        mixes = exact_mixes(4, seed=seed)
        expected = plain.row_losses(mixes).sums
        torch.testing.assert_close(scorer.row_losses(mixes).sums, expected, rtol=1e-5, atol=1e-5)
    assert recorded.is_broken
    assert caplog.text.count("this base model cannot be recorded") == 1


def test_what_does_not_fit_the_memory_as_a_recording_is_computed_without(t5: Collection):
    tried: list[int] = []

    def narrow(forward: Callable[[], Tensor], _weights: Tensor) -> tuple[Repeated, Tensor]:
        repeated = Repeated(forward)
        tried.append(len(repeated.logits))
        if len(repeated.logits) > 2 * len(tiny.EXAMPLES):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return repeated, repeated.logits

    recorded = Graphs(CPU, record=narrow, in_buckets=True)
    scorer = graphed_scorer(t5, recorded)
    plain = scorer_for(load(t5.base), t5.modules)
    for count, replays in ((8, 0), (2, 2)):
        for seed in range(4):
            mixes = exact_mixes(count, seed=seed)
            expected = plain.row_losses(mixes).sums
            torch.testing.assert_close(scorer.row_losses(mixes).sums, expected, rtol=1e-5, atol=1e-5)
        assert recorded.replays == replays
    assert not recorded.is_broken
    assert tried == [8 * len(tiny.EXAMPLES), 2 * len(tiny.EXAMPLES)]


def test_only_so_many_recordings_are_kept(t5: Collection, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(graphs.RECORDINGS_KEPT, "cpu", 2)
    recorded = Graphs(CPU, record=recorder())
    scorer = graphed_scorer(t5, recorded)
    for count in (1, 2, 4):
        for seed in range(2):
            scorer.row_losses(exact_mixes(count, seed=seed))
    assert len(recorded._entries) == 2


def test_the_same_weights_again_earn_no_recording_that_they_could_not_try(t5: Collection):
    made: list[Repeated] = []
    scorer = graphed_scorer(t5, Graphs(CPU, record=recorder(made)))
    for _ in range(3):
        scorer.row_losses(exact_mixes(2))
    assert not made
    scorer.row_losses(exact_mixes(2, seed=1))
    assert len(made) == 1


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_recording_of_other_numbers_is_the_last(
    t5: Collection, caplog: pytest.LogCaptureFixture, on_gpu: bool
):
    class Stale(Repeated):
        def replay(self) -> Tensor:
            return self.logits  # as if nobody had seen that the forward reads the weights

    def record(forward: Callable[[], Tensor], _weights: Tensor) -> tuple[Stale, Tensor]:
        stale = Stale(forward)
        return stale, stale.logits

    recorded = Graphs(CPU, record=record)
    recorded._on_gpu = on_gpu
    scorer, plain = graphed_scorer(t5, recorded), scorer_for(load(t5.base), t5.modules)
    for seed in range(4):
        mixes = exact_mixes(2, seed=seed)
        found, expected = scorer.row_losses(mixes).sums, plain.row_losses(mixes).sums
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert recorded.is_broken
    assert caplog.text.count("gave other numbers") == 1


def test_on_a_gpu_other_rounding_is_no_other_number(t5: Collection):
    class Rounded(Repeated):
        def replay(self) -> Tensor:
            return super().replay().mul_(1 + 1e-6)

    def record(forward: Callable[[], Tensor], _weights: Tensor) -> tuple[Rounded, Tensor]:
        rounded = Rounded(forward)
        return rounded, rounded.logits

    recorded = Graphs(CPU, record=record)
    recorded._on_gpu = True
    scorer = graphed_scorer(t5, recorded)
    for seed in range(3):
        scorer.row_losses(exact_mixes(2, seed=seed))
    assert recorded.replays == 1
    assert not recorded.is_broken


class NothingWaits(TorchDispatchMode):
    """Refuses to read a number of a tensor, which is an error while a CUDA graph is captured."""

    READS = (torch.ops.aten.item, torch.ops.aten._local_scalar_dense, torch.ops.aten.is_nonzero)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in self.READS, "a number was read from the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [EXACT, PAPER])
def test_nothing_that_is_recorded_waits_for_the_device(
    collection: Collection, kind: str, monkeypatch: pytest.MonkeyPatch
):
    # As while a stream is captured: transformers then looks at no mask.
    monkeypatch.setattr(import_utils, "is_cuda_stream_capturing", lambda: True)
    made: list[Repeated] = []

    def record(forward: Callable[[], Tensor], _weights: Tensor) -> tuple[Repeated, Tensor]:
        with NothingWaits():
            made.append(Repeated(forward))
        return made[-1], made[-1].logits

    scorer = graphed_scorer(collection, Graphs(CPU, record=record))
    for seed in range(2):
        scorer.row_losses([Mix(kind, mix.mixing_weights) for mix in exact_mixes(1, seed=seed)])
    assert made


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_give_the_losses_of_the_usual_way(collection: Collection):
    device = torch.device("cuda")
    base = loading.load_base(collection.base, device=device)
    bank = build_bank([load_module(module) for module in collection.modules], device=device)
    recorded = Graphs.for_device(device)
    assert recorded is not None
    scorer = Scorer(base, Mixer(base, bank), tokenise(base, tiny.EXAMPLES), graphs=recorded)
    plain = scorer_for(load(collection.base), collection.modules)
    for seed in range(4):
        for mixes in (exact_mixes(9, seed=seed), [Mix(PAPER, exact_mixes(1, seed=seed)[0].mixing_weights)]):
            torch.testing.assert_close(
                scorer.row_losses(mixes).sums, plain.row_losses(mixes).sums, rtol=1e-3, atol=1e-3
            )
    assert recorded.replays == 4
    assert not recorded.is_broken
