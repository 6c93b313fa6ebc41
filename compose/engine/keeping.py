"""What takes long and was done once is not done again by the next attempt at the same request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from compose.engine.types import Observer, Request

T = TypeVar("T")


class Once(Protocol):
    """`work()`, or what it gave an earlier attempt for the same `inputs`; both are JSON."""

    def __call__(self, inputs: Any, work: Callable[[], T]) -> T: ...


def once(request: Request, observer: Observer, what: str) -> Once:
    """For one kind of work. By what goes in, not by its turn: where an attempt goes another way, it is done anew."""
    modules = [module.name for module in request.modules]  # an attempt may have left some out
    return partial(_once, observer, [what, modules])


def always(inputs: Any, work: Callable[[], T]) -> T:
    """For whoever keeps nothing."""
    return work()


def _once(observer: Observer, about: list[Any], inputs: Any, work: Callable[[], T]) -> T:
    key = hashlib.sha256(json.dumps([about, inputs]).encode()).hexdigest()
    found: T | None = observer.kept(key)
    if found is None:
        found = work()
        observer.keep(key, found)
    return found
