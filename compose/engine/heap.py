"""Memory of a process that lives long and now and then needs much of it. Pure Python: a worker has it before torch."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Let go of models, which hold cycles, and give the system what the C library keeps of them for later.

    What is freed lies between what stays, so that glibc keeps most of it, and more with every composition.
    """
    gc.collect()
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
