"""A forward as the list of its torch operations, without the Python around them: what a CUDA graph is to a GPU.

It is recorded while the forward runs. Whatever does not depend on the given input, such as masks, position biases,
embeddings and a base's layers below the first adapted matrix, is kept as it came out; the other operations are done
again in the same order at every replay, by the same kernels, so that the numbers are the same to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from compose.engine import program

_EMPTY = {
    torch.ops.aten.empty,
    torch.ops.aten.empty_like,
    torch.ops.aten.empty_strided,
    torch.ops.aten.new_empty,
    torch.ops.aten.new_empty_strided,
}
# A program is written after this many replays, and as many more as cost what comparing it does in Python, which it saves.
_REPLAYS_BEFORE_WRITING = 4
_PYTHON_S = 6e-6  # of an operation that is done step by step
_DEPENDS_ON_NUMBERS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class NotRecordable(RuntimeError):
    """The forward does something that a list of operations cannot repeat."""


@dataclass
class _Step:
    """One operation: its arguments, where tensors among them come from, where its results go, and what is over then."""

    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    taken: list[tuple[int, int]]  # (place among the arguments, slot)
    named: list[tuple[str, int]]  # (keyword, slot)
    listed: list[tuple[int, list[tuple[int, int]]]]  # (place, (place in the list that is there, slot))
    results: list[int]  # slots; empty where the results are among the arguments
    is_single: bool
    over: list[int]  # slots nobody reads any more

    def used(self) -> set[int]:
        """The slots it reads."""
        inner = {slot for _, members in self.listed for _, slot in members}
        return {slot for _, slot in [*self.taken, *self.named]} | inner

    def do(self, values: Sequence[Any]) -> Any:
        """The operation on what the slots hold."""
        args, kwargs = self.arguments(values)
        return self.function(*args, **kwargs)

    def arguments(self, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """What the operation is called with when the slots hold these."""
        args, kwargs = self.args.copy(), self.kwargs
        for place, slot in self.taken:
            args[place] = values[slot]
        for place, members in self.listed:
            args[place] = list(args[place])
            for inner, slot in members:
                args[place][inner] = values[slot]
        if self.named:
            kwargs = kwargs | {name: values[slot] for name, slot in self.named}
        return args, kwargs


class Tape:
    """A recorded forward; `replay` does it again on what its input holds by then."""

    def __init__(self, steps: Sequence[_Step], slots: int, given: Tensor, result: int | Tensor) -> None:
        self._steps, self._slots = list(steps), slots
        self._given, self._result = given, result
        self._replays = 0
        self._shortest_s = math.inf
        self._has_tried = False
        self._program: Callable[[Tensor], Tensor] | None = None
        later = {result}
        for step in reversed(self._steps):
            used = step.used()
            step.over = sorted((used | set(step.results)) - later)
            later |= used

    @property
    def length(self) -> int:
        """The operations done at every replay."""
        return len(self._steps)

    @property
    def is_written(self) -> bool:
        """Whether replays run as a program."""
        return self._program is not None

    def replay(self) -> Tensor:
        """The result for the numbers the input holds now."""
        if self._program is not None:
            return self._program(self._given)
        started = time.perf_counter()
        result = self._step_by_step()
        self._shortest_s = min(self._shortest_s, time.perf_counter() - started)
        self._replays += 1
        if not self._has_tried and isinstance(self._result, int) and self._replays >= self._enough():
            self._has_tried = True
            self._write(self._result, result)
        return result

    def _enough(self) -> float:
        """Replays after which a program is worth writing: its check is a replay, and Python is all that it saves."""
        return _REPLAYS_BEFORE_WRITING + self._shortest_s / (_PYTHON_S * max(1, len(self._steps)))

    def _write(self, result: int, expected: Tensor) -> None:
        """From now on as a program, if there can be one and it gives the same numbers."""
        with suppress(program.NotWritable, RuntimeError):
            written = program.write(self._steps, self._slots, result)
            if torch.allclose(written(self._given), expected, rtol=0, atol=0, equal_nan=True):
                self._program = written

    def _step_by_step(self) -> Tensor:
        values: list[Any] = [None] * self._slots
        values[0] = self._given
        for step in self._steps:
            made = step.do(values)
            if step.is_single:
                values[step.results[0]] = made
            else:
                for slot, tensor in zip(step.results, made if step.results else (), strict=True):
                    values[slot] = tensor
            for slot in step.over:
                values[slot] = None
        return values[self._result] if isinstance(self._result, int) else self._result


def record(forward: Callable[[], Tensor], given: Tensor) -> tuple[Tape, Tensor]:
    """Run `forward`, which reads `given`, and keep it as a tape. Returns the tape and what the forward gave.

    Raises NotRecordable if what is done depends on numbers computed from `given`, or overwrites what it had not made.
    """
    recorder = _Recorder(given)
    random_state = torch.get_rng_state()
    with recorder:
        result = forward()
    if not torch.equal(random_state, torch.get_rng_state()):
        raise NotRecordable("it draws random numbers")
    return Tape(recorder.steps, recorder.slots, given, recorder.slot(result, otherwise=result)), result


class _Recorder(TorchDispatchMode):
    """Follows which tensors depend on the input: operations on them become steps, of others the results are kept."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.slots = 1
        self._slots = WeakIdKeyDictionary()
        self._slots[given] = 0
        # Storages by address, which stays theirs as long as a reference is held; the memory itself is not.
        self._references: dict[int, StorageWeakRef] = {}
        self._depending = {self._storage(given)}
        self._scratch: set[int] = set()  # made without content
        self._read: set[int] = set()  # not depending on the input, but read by a step

    def slot(self, tensor: Any, *, otherwise: Any = None) -> Any:
        return self._slots.get(tensor, otherwise) if isinstance(tensor, Tensor) else otherwise

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = _tensors([*args, *(kwargs or {}).values()])
        written = {self._storage(tensor) for tensor in _written(func, args, kwargs or {})}
        read = {self._storage(tensor) for tensor in tensors}
        if not read & self._depending:
            if written & self._read:
                raise NotRecordable(f"{func} overwrites what was read before")
            if func.overloadpacket in _EMPTY:
                self._scratch.add(self._storage(made))
            return made
        if written - self._depending - self._scratch:
            raise NotRecordable(f"{func} overwrites what was there before")
        by_place = func.overloadpacket is torch.ops.aten.index and not any(
            leaf.dtype in (torch.bool, torch.uint8) for leaf in tensors[1:]
        )
        if _DEPENDS_ON_NUMBERS & set(func.tags) and not by_place:
            raise NotRecordable(f"what follows {func} depends on numbers")
        self._read |= read - self._depending
        self._depending |= written
        self._add(func, args, kwargs or {}, made, bool(written))
        return made

    def _add(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], made: Any, writes: bool) -> None:
        single = isinstance(made, Tensor)
        tensors = [made] if single else tree_flatten(made)[0]
        if not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise NotRecordable(f"what follows {func} depends on numbers")
        self._depending |= {self._storage(tensor) for tensor in tensors}
        results = []
        if not (single and any(made is each for each in [*args, *kwargs.values()])):
            for tensor in tensors:
                self._slots[tensor] = self.slots
                results.append(self.slots)
                self.slots += 1
        elif not writes:
            return  # such as a dropout that does nothing, which gives what it got
        taken, listed = self._places(args), []
        for place, members in enumerate(args):
            if isinstance(members, list | tuple) and (inner := self._places(members)):
                listed.append((place, inner))
        named = [(name, slot) for name, value in kwargs.items() if (slot := self.slot(value)) is not None]
        own = [_without(value, self._slots) for value in args]
        rest = {name: value for name, value in kwargs.items() if self.slot(value) is None}
        step = _Step(func, own, rest, taken, named, listed, results, single and bool(results), [])
        self.steps.append(step)

    def _places(self, values: Sequence[Any]) -> list[tuple[int, int]]:
        slots = [(place, self.slot(value)) for place, value in enumerate(values)]
        return [(place, slot) for place, slot in slots if slot is not None]

    def _storage(self, tensor: Tensor) -> int:
        reference = StorageWeakRef(tensor.untyped_storage())
        return int(self._references.setdefault(reference.cdata, reference).cdata)


def _without(value: Any, made_anew: WeakIdKeyDictionary) -> Any:
    """The argument, with nothing held that every replay makes anew."""
    if isinstance(value, list | tuple):
        return [_without(member, made_anew) for member in value]
    return None if isinstance(value, Tensor) and value in made_anew else value


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments an operation writes to."""
    if not func._schema.is_mutable:
        return []
    arguments = func._schema.arguments
    given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | kwargs
    names = [each.name for each in arguments if each.alias_info is not None and each.alias_info.is_write]
    return _tensors(given.get(name) for name in names)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Tensors among an operation's arguments, and in lists of them."""
    found = []
    for value in values:
        members = value if isinstance(value, list | tuple) else (value,)
        found += [member for member in members if isinstance(member, Tensor)]
    return found
