"""What a machine does faster, asked of the machine and not of its name."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_REPEATS = 12


def times_faster(usual: Callable[[], object], other: Callable[[], object], *, device: torch.device) -> float:
    """How many times faster `other` is than `usual`: the best of some tries of each, some tens of milliseconds in all."""
    best = {usual: float("inf"), other: float("inf")}
    for _ in range(_REPEATS):  # in turns, so that what else the machine does meets both
        for work in best:
            _wait(device)
            started = time.perf_counter()
            work()
            _wait(device)
            best[work] = min(best[work], time.perf_counter() - started)
    return best[usual] / best[other]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
