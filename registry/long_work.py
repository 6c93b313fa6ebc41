"""Long work of the chores worker, one at a time in a process: its other threads are for what has to be soon.

Imports take hours, pictures of large weights many minutes; the sweep for lost jobs must not wait behind two of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_busy = threading.Lock()


@contextmanager
def alone(busy: threading.Lock = _busy) -> Iterator[bool]:
    """Whether the block may do something long: False, at once, while another thread of this process does.

    `busy`: of work that waits for none but its own kind.
    """
    is_free = busy.acquire(blocking=False)
    try:
        yield is_free
    finally:
        if is_free:
            busy.release()
