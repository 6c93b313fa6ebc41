"""Which float type a search runs in: chosen once for a composition, by what this machine does faster.

bfloat16 keeps the range of float32 and a 256th of its precision: enough to tell good mixes from bad ones, not enough
for the faithful `lorahub`, nor for methods that look at small differences. What is recommended is scored again in
float32. A processor may know bfloat16 and still multiply it slower than float32 (AVX512-BF16 without AMX does), so the
machine is asked with a stopwatch and not by its name.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from compose.engine import products
from compose.engine.errors import BadInput
from compose.engine.loading import LoadedBase
from compose.engine.stopwatch import times_faster

AUTO = "auto"
_NAMED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = (AUTO, *_NAMED)
# Narrower bases are bound by calls, not by arithmetic, and gain nothing; docs/engine-performance.md.
NARROWEST_FOR_BFLOAT16 = 512
# The whole of a forward gains less than its products; and a measurement near 1 could fall either way on the next try.
FASTER_BY = 1.5
# None of today's: `lorahub` has to propose the released package's points, `gradient` takes derivatives, and `auto`
# compares the steps of a round by differences that bfloat16 rounds away. It is for who asks for it.
BEAR_BFLOAT16: frozenset[str] = frozenset()
_ROWS = 512


def named(name: str) -> torch.dtype | None:
    """The float type, None for "auto". Raises BadInput, naming those there are."""
    if name == AUTO:
        return None
    if name not in _NAMED:
        raise BadInput(f"There is no float type {name!r}; choose one of: {', '.join(NAMES)}.")
    return _NAMED[name]


def wanted(name: str, *, method: str) -> torch.dtype | None:
    """The float type a search by this method was asked to run in; None: whatever the machine does faster.

    Raises BadInput for a name there is not.
    """
    asked = named(name)
    return torch.float32 if asked is None and method not in BEAR_BFLOAT16 else asked


def for_search(base: LoadedBase) -> torch.dtype:
    """bfloat16 where this machine multiplies matrices of the base's width clearly faster in it; else float32."""
    width = getattr(base.model.config.get_text_config(), "hidden_size", 0)
    if width >= NARROWEST_FOR_BFLOAT16 and bfloat16_gain(base.device.type, width) >= FASTER_BY:
        return torch.bfloat16
    return torch.float32


@lru_cache
def bfloat16_gain(device_type: str, width: int) -> float:
    """How many times faster a product of this width is in bfloat16; measured once for each worker."""
    device = torch.device(device_type)
    x, weight = torch.randn(_ROWS, width, device=device), torch.randn(2 * width, width, device=device)
    short_x, short_weight = x.bfloat16(), weight.bfloat16()
    with torch.inference_mode():
        return times_faster(
            lambda: products.linear(x, weight), lambda: products.linear(short_x, short_weight), device=device
        )
