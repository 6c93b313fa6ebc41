"""Forwards of many mixes as CUDA graphs: recorded once for a shape, replayed for every round with other weights.

A small forward on a GPU is bound by the launching of its kernels; a graph launches them all at once. What may differ
between replays has to lie in tensors of fixed places: here only the mixing weights. The number of mixes is rounded up
to a bucket, and the places left over compute the bare base for nobody.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from compose.engine.mixing import EXACT, Mix

logger = logging.getLogger(__name__)

# Rounding up costs work, another bucket costs a recording: powers of two, then steps of eight.
_BUCKET_STEP = 8
GRAPHS_KEPT = 16
_WARM_UPS = 3  # libraries choose their kernels and allocate their workspaces in the first runs
# Out of how many uses a shape earns its recording: the audition and the final scores come once.
_USES_BEFORE_RECORDING = 2


class Recording(Protocol):
    """A recorded computation; `replay` runs it again on the tensors it was recorded with."""

    def replay(self) -> None: ...


Forward = Callable[[Tensor], Tensor]  # weights (groups, n) -> logits (groups * rows, ...)
Record = Callable[[Callable[[], Tensor]], tuple[Recording, Tensor]]


@dataclass(frozen=True)
class _Entry:
    recording: Recording
    weights: Tensor  # (bucket, n), what the recording reads
    logits: Tensor  # what it writes
    forward: Forward  # holds the other tensors it reads


def bucket(mixes: int) -> int:
    """The number of mixes a recording is made for: at least `mixes`."""
    if mixes <= _BUCKET_STEP:
        return 1 << (mixes - 1).bit_length()
    return -(-mixes // _BUCKET_STEP) * _BUCKET_STEP


class Graphs:
    """Recordings of one scorer's forwards. One that fails is the last that is tried; then all is computed as usual."""

    def __init__(self, device: torch.device, *, record: Record | None = None) -> None:
        self.replays = 0
        self.is_broken = False
        self._device = device
        self._record = record or _CudaRecorder()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._uses: dict[Hashable, int] = {}

    @staticmethod
    def for_device(device: torch.device) -> Graphs | None:
        """None where there are no CUDA graphs."""
        return Graphs(device) if device.type == "cuda" and torch.cuda.is_available() else None

    def logits(
        self, key: Hashable, mixes: Sequence[Mix], prepared: Callable[[int], Forward]
    ) -> Tensor | None:
        """The logits of the mixes, (mixes * rows, ...), valid until the next call; None: compute them as usual.

        Args:
            key: of everything beside the weights and their number that the forward depends on.
            prepared: makes the forward for a number of mixes. The forward may neither wait for the device nor read
                anything from it; it and what it holds are kept as long as its recording.
        """
        if self.is_broken or any(mix.kind != EXACT for mix in mixes):
            return None
        size = bucket(len(mixes))
        entry = self._entry((key, size), size, len(mixes[0].mixing_weights), prepared)
        if entry is None:
            return None
        entry.weights.copy_(_padded(mixes, size), non_blocking=True)
        entry.recording.replay()
        self.replays += 1
        rows = len(entry.logits) // size
        return entry.logits[: rows * len(mixes)]

    def _entry(self, key: Hashable, size: int, n: int, prepared: Callable[[int], Forward]) -> _Entry | None:
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        self._uses[key] = self._uses.get(key, 0) + 1
        if self._uses[key] < _USES_BEFORE_RECORDING:
            return None
        weights, forward = torch.zeros(size, n, device=self._device), prepared(size)
        try:
            recording, logits = self._record(lambda: forward(weights))
        except torch.OutOfMemoryError:
            self._entries.clear()  # their memory may be what is missing; the caller makes its batches smaller
            raise
        except RuntimeError as error:
            logger.warning("No CUDA graph can be recorded of this base model; going on without: %s", error)
            self.is_broken = True
            self._entries.clear()
            return None
        self._entries[key] = _Entry(recording, weights, logits, forward)
        while len(self._entries) > GRAPHS_KEPT:
            self._entries.popitem(last=False)
        return self._entries[key]


def _padded(mixes: Sequence[Mix], size: int) -> Tensor:
    """(size, n) weights; zeros, the bare base, in the places left over."""
    vectors = [mix.mixing_weights for mix in mixes]
    nothing = (0.0,) * len(vectors[0])
    return torch.tensor([*vectors, *[nothing] * (size - len(vectors))], dtype=torch.float32)


class _CudaRecorder:
    """Records on CUDA; all recordings share their memory, since one's logits are used up before the next replay."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, forward: Callable[[], Tensor]) -> tuple[Recording, Tensor]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                forward()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = forward()
        return graph, logits
