"""Where memory runs out: work in halves, and a sentence where that does not help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from compose.engine import heap
from compose.engine.errors import OutOfMemory

A = TypeVar("A")
B = TypeVar("B")


# Of torch's allocator on a CPU; of CUDA itself, which is asked past torch's for graphs; of cuBLAS for its workspace.
_MESSAGES = ("not enough memory", "can't allocate", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: its own class on a GPU, else somebody's message."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _MESSAGES)


@contextmanager
def told_of(problem: str) -> Iterator[None]:
    """Raises OutOfMemory, saying the problem, where memory runs out in what cannot be halved."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(problem) from error


def in_halves(
    work: Callable[[Sequence[A], Sequence[B]], Tensor], first: Sequence[A], second: Sequence[B], problem: str
) -> Tensor:
    """`work(first, second)`, (first, second, ...); where memory runs out, half of the first at once, then of the second.

    Raises OutOfMemory, saying the problem, where one of each is too much.
    """
    try:
        return work(first, second)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    let_go()
    if len(first) > 1:
        return torch.cat([in_halves(work, half, second, problem) for half in _halves(first)], dim=0)
    if len(second) > 1:
        return torch.cat([in_halves(work, first, half, problem) for half in _halves(second)], dim=1)
    raise OutOfMemory(problem)


def with_halving(work: Callable[[Sequence[A]], list[str]], items: Sequence[A]) -> list[str]:
    """`work(items)`, in halves where memory runs out. Raises OutOfMemory at a single item."""
    try:
        return work(items)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    let_go()
    if len(items) <= 1:
        raise OutOfMemory(
            "Generating an answer for one row needs more memory than the worker has. "
            "Use shorter rows, fewer modules or a smaller base model."
        )
    return [text for half in _halves(items) for text in with_halving(work, half)]


def _halves(items: Sequence[A]) -> tuple[Sequence[A], Sequence[A]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def let_go() -> None:
    """Give back to device and system what is held of them for later."""
    heap.give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
