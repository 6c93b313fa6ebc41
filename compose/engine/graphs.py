"""Forwards of many mixes, recorded once for a shape and replayed for every round with other weights.

On a GPU a small forward is bound by the launching of its kernels; a CUDA graph launches them all at once. The number
of mixes is rounded up to a bucket there, and the places left over compute the bare base for nobody. On a CPU it is
bound by the Python around its operations, and a tape (tape.py) has none; no number is rounded, since a recording costs
little there and every place work. What may differ between replays lies in a tensor of fixed place: the mixing weights.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from compose.engine import tape
from compose.engine.memory import is_out_of_memory

logger = logging.getLogger(__name__)

# Rounding up costs work, another bucket costs a recording: powers of two, then steps of eight.
_BUCKET_STEP = 8
# What a recording keeps beside its weights lies in memory that a CPU has less use for than a GPU for a launch.
RECORDINGS_KEPT = {"cuda": 16, "cpu": 6}
_WARM_UPS = 3  # libraries choose their kernels and allocate their workspaces in the first runs
# How far the logits of a replay on a GPU may lie from the forward's own, for their largest: kernels are chosen anew there.
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
# Of the logits, so many numbers say whether a recording gives what the forward gave.
_COMPARED = 2**17


class Recording(Protocol):
    """A recorded computation; `replay` does it again on the tensors it was recorded with and gives its result."""

    def replay(self) -> Tensor: ...


Forward = Callable[[Tensor], Tensor]  # weights (groups, n) -> logits (groups * rows, ...)
# Records a computation that reads the weights, and gives its recording and its result.
Record = Callable[[Callable[[], Tensor], Tensor], tuple[Recording, Tensor]]


@dataclass
class _Entry:
    weights: Tensor  # (bucket, n), what the recording reads
    forward: Forward  # holds the other tensors it reads
    # Of its first use, which earns no recording, as the audition and the final scores come once: weights, some of the logits.
    first: tuple[Tensor, Tensor] | None = None
    recording: Recording | None = None
    fits: bool = True  # into memory as a recording, as far as is known


def bucket(mixes: int) -> int:
    """The number of mixes a recording is made for: at least `mixes`."""
    if mixes <= _BUCKET_STEP:
        return 1 << (mixes - 1).bit_length()
    return -(-mixes // _BUCKET_STEP) * _BUCKET_STEP


class Graphs:
    """Recordings of one scorer's forwards. One that fails is the last that is tried; then all is computed as usual."""

    def __init__(
        self, device: torch.device, *, record: Record | None = None, in_buckets: bool | None = None
    ) -> None:
        """`record` and `in_buckets`: None means what the device is served best by."""
        self.replays = 0
        self.is_broken = False
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._in_buckets = self._on_gpu if in_buckets is None else in_buckets
        self._record = record or (_CudaRecorder() if self._on_gpu else tape.record)
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    @staticmethod
    def for_device(device: torch.device) -> Graphs | None:
        """None where nothing can be recorded."""
        return Graphs(device) if device.type in ("cuda", "cpu") else None

    def logits(self, key: Hashable, weights: Tensor, prepared: Callable[[int], Forward]) -> Tensor | None:
        """The logits of the mixes of these weights, (groups * rows, ...), valid until the next call.

        None: compute them as usual, for good once a recording has failed.

        Args:
            key: of everything beside the weights and their number that the forward depends on.
            weights: (groups, n), on the CPU.
            prepared: makes the forward for a number of groups. The forward may neither wait for the device nor read
                anything from it; it and what it holds are kept as long as its recording.
        """
        if self.is_broken:
            return None
        size = bucket(len(weights)) if self._in_buckets else len(weights)
        key = (key, size)
        entry = self._entries.get(key)
        if entry is None:
            entry = _Entry(torch.zeros(size, weights.shape[1], device=self._device), prepared(size))
            self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > RECORDINGS_KEPT[self._device.type]:
            self._entries.popitem(last=False)
        # Zeros, the bare base, in the places left over.
        entry.weights[: len(weights)].copy_(weights, non_blocking=True)
        entry.weights[len(weights) :].zero_()
        try:
            logits = self._compute(entry)
        except RuntimeError as error:
            if is_out_of_memory(error):
                self._entries.clear()  # their memory may be what is missing; the caller makes its batches smaller
            raise
        return logits[: len(logits) // size * len(weights)]

    def _compute(self, entry: _Entry) -> Tensor:
        """What the entry's weights give: by its forward until that has earned a recording, then from this."""
        if entry.recording is not None:
            self.replays += 1
            return entry.recording.replay()
        if entry.first is not None and not torch.equal(entry.first[0], entry.weights):
            recorded = self._recorded(entry, *entry.first)
            if recorded is not None:
                return recorded
        logits = entry.forward(entry.weights)
        if entry.first is None and entry.fits:
            entry.first = entry.weights.clone(), _some(logits)
        return logits

    def _recorded(self, entry: _Entry, others: Tensor, expected: Tensor) -> Tensor | None:
        """What the entry's weights give while that is recorded; None if it cannot be.

        The recording is tried with `others`, that gave `expected`: a forward may read weights in a way nobody could follow.
        """
        entry.first = None
        try:
            recording, logits = self._record(lambda: entry.forward(entry.weights), entry.weights)
        except RuntimeError as error:
            if is_out_of_memory(error):
                entry.fits = False
            else:
                self._give_up(f"this base model cannot be recorded: {error}")
            return None
        own = entry.weights.clone()
        entry.weights.copy_(others)
        again = recording.replay()
        is_same = self._is_same(_some(again), expected)
        entry.weights.copy_(own)
        if not is_same:
            self._give_up("a recorded forward gave other numbers than the base model")
            return None
        entry.recording = recording
        # A CUDA graph writes to the same place each time.
        return recording.replay() if again.data_ptr() == logits.data_ptr() else logits

    def _is_same(self, found: Tensor, expected: Tensor) -> bool:
        most = _ROUNDING[found.dtype] * expected.nan_to_num().abs().max().item() if self._on_gpu else 0.0
        return torch.allclose(found, expected, rtol=0, atol=most, equal_nan=True)

    def _give_up(self, reason: str) -> None:
        logger.warning("Going on without recorded forwards, since %s", reason)
        self.is_broken = True
        self._entries.clear()


def _some(logits: Tensor) -> Tensor:
    """Numbers of every row and position, apart from what is overwritten later."""
    step = max(1, logits.numel() // _COMPARED) | 1
    return logits.flatten()[::step].clone()


@dataclass(frozen=True)
class _CudaRecording:
    graph: Any  # torch.cuda.CUDAGraph
    logits: Tensor  # what it writes

    def replay(self) -> Tensor:
        self.graph.replay()
        return self.logits


class _CudaRecorder:
    """Records on CUDA; all recordings share their memory, since one's logits are used up before the next replay."""

    def __init__(self) -> None:
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, forward: Callable[[], Tensor], weights: Tensor) -> tuple[Recording, Tensor]:
        # Streams are the current device's, and nothing is captured of what another one does.
        with torch.cuda.device(weights.device):
            return self._recorded(forward)

    def _recorded(self, forward: Callable[[], Tensor]) -> tuple[Recording, Tensor]:
        if self._pool is None:
            # Torch's own stream for captures is that of the device it was first asked on.
            self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                forward()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            logits = forward()
        recording = _CudaRecording(graph, logits)
        return recording, recording.replay()
