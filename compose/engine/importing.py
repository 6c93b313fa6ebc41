"""Importing the engine's libraries quickly, into processes that keep them to their end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def what_stays() -> Iterator[None]:
    """Import torch and its like in here: the collector waits meanwhile, and leaves alone what has come.

    It goes through hundreds of thousands of objects again and again and can let go of none: a quarter of the time.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
