"""Which float type a search runs in: chosen once for a composition, by what the machine and the base model are.

A rule and no stopwatch: a composition that goes on after a crash has to choose as its first attempt did.
"""

from __future__ import annotations

from pathlib import Path

import torch

from compose.engine.errors import BadInput
from compose.engine.loading import LoadedBase

AUTO = "auto"
_NAMED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NAMES = (AUTO, *_NAMED)
# Narrower bases are bound by calls, not by arithmetic, and bfloat16 gains nothing; docs/engine-performance.md.
NARROWEST_FOR_BFLOAT16 = 512


def named(name: str) -> torch.dtype | None:
    """The float type, None for "auto". Raises BadInput, naming those there are."""
    if name == AUTO:
        return None
    if name not in _NAMED:
        raise BadInput(f"There is no float type {name!r}; choose one of: {', '.join(NAMES)}.")
    return _NAMED[name]


def for_search(base: LoadedBase) -> torch.dtype:
    """bfloat16 where the hardware multiplies it faster and the base is wide enough to feel it; else float32."""
    width = getattr(base.model.config.get_text_config(), "hidden_size", 0)
    if width >= NARROWEST_FOR_BFLOAT16 and has_fast_bfloat16(base.device):
        return torch.bfloat16
    return torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; without them it is emulated and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.exists() else []
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
