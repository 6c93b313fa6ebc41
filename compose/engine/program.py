"""A tape's operations as one TorchScript graph, so that Python is not asked once for each of them.

The graph is what torch's interpreter runs as it stands, without fusing or reordering: the same kernels in the same
order. It is written through torch's own bindings for graphs, which tracing and export use too and which promise
nothing to others; whoever writes a program compares what it gives, and can do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

TENSOR = torch._C.TensorType.get()


class Step(Protocol):
    """One operation: its arguments by slot or as they are, and the slots of its results."""

    @property
    def function(self) -> Any: ...  # an overload of torch.ops

    @property
    def results(self) -> list[int]: ...  # empty where the results are among the arguments

    def arguments(self, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """What the operation is called with when the slots hold these."""
        ...


class NotWritable(RuntimeError):
    """An operation that a graph cannot call."""


def write(steps: Iterable[Step], slots: int, result: int) -> Callable[[Tensor], Tensor]:
    """The steps as a function of what slot 0 holds. Raises NotWritable."""
    graph = torch._C.Graph()
    values: list[Any] = [None] * slots
    values[0] = graph.addInput("given")
    values[0].setType(TENSOR)
    try:
        for step in steps:
            _add(graph, step, values)
        graph.registerOutput(values[result])
        run = torch._C._create_function_from_graph("replay", graph)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise NotWritable(str(error)) from error

    def replay(given: Tensor) -> Tensor:
        # Nothing is to be specialised or fused: that takes seconds and rounds otherwise.
        with torch.jit.optimized_execution(False):
            done: Tensor = run(given)
        return done

    return replay


def _add(graph: Any, step: Step, values: list[Any]) -> None:
    """Call the operation, and put its results into their slots."""
    schema = step.function._schema
    args, kwargs = step.arguments(values)
    given = dict(zip([argument.name for argument in schema.arguments], args, strict=False)) | kwargs
    inputs = [
        _value(graph, given.get(argument.name, argument.default_value), argument.type)
        for argument in schema.arguments
    ]
    node = graph.insertNode(graph.create(schema.name, inputs, len(schema.returns)))
    outputs = list(node.outputs())
    for output, returned in zip(outputs, schema.returns, strict=True):
        output.setType(returned.type)
    if len(outputs) == 1 and isinstance(schema.returns[0].type, torch._C.ListType) and step.results:
        node = graph.insertNode(graph.create("prim::ListUnpack", outputs, len(step.results)))
        outputs = list(node.outputs())
        for output in outputs:
            output.setType(TENSOR)
    for slot, output in zip(step.results, outputs, strict=bool(step.results)):
        values[slot] = output


def _value(graph: Any, value: Any, kind: Any) -> Any:
    """What stands for a value in the graph: itself if it is computed there, else a constant, or a list of both."""
    if isinstance(value, torch._C.Value):
        return value
    if value is None:
        node = graph.insertNode(graph.create("prim::Constant", [], 1))
        node.output().setType(torch._C.NoneType.get())
        return node.output()
    if not isinstance(value, list | tuple):
        return graph.insertConstant(value)
    members = [_value(graph, member, kind) for member in value]
    node = graph.insertNode(graph.create("prim::ListConstruct", members, 1))
    node.output().setType(_list_type(members, kind))
    return node.output()


def _list_type(members: Sequence[Any], kind: Any) -> Any:
    """Lists of tensors, some perhaps left out, as the operation declares them; of numbers by what is in them."""
    kind = kind.getElementType() if isinstance(kind, torch._C.OptionalType) else kind
    declared = kind.getElementType() if isinstance(kind, torch._C.ListType) else None
    numbers = [member.type() for member in members if not member.type().isSubtypeOf(TENSOR)]
    if declared is not None and not (numbers and not isinstance(declared, torch._C.OptionalType)):
        return torch._C.ListType(declared)
    return torch._C.ListType(numbers[0])
