"""The exact mix with weights that autograd can follow, for the one method that uses gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from compose.engine.bank import Bank, TargetBank
from compose.engine.loading import LoadedBase


@contextmanager
def attached(base: LoadedBase, bank: Bank, mixing_weights: Tensor) -> Iterator[None]:
    """Within the block the base answers with the exact mix of these weights (n,), and gradients reach them.

    Only the weights: nothing of the base or the modules is differentiated.
    """
    with base.lock:
        wanted = [parameter for parameter in base.model.parameters() if parameter.requires_grad]
        for parameter in wanted:
            parameter.requires_grad_(False)
        hooks = [
            base.model.get_submodule(path).register_forward_hook(partial(_add, target, mixing_weights))
            for path, target in bank.targets.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in wanted:
                parameter.requires_grad_(True)


def _add(
    target: TargetBank, mixing_weights: Tensor, _module: Any, args: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    strengths = (mixing_weights * target.scalings)[target.owner].to(target.a.dtype)  # (R,)
    return output + ((args[0] @ target.a.T) * strengths) @ target.b
