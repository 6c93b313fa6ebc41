"""Parts of sentences; pure Python, so the web side may import it."""

from __future__ import annotations

from collections.abc import Iterable


def first_of(names: Iterable[object], *, most: int, separator: str = ", ") -> str:
    """`a, b, c and 4 more`: all names, or the first `most` and how many are left."""
    said = [str(name) for name in names]
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return separator.join(said[:most]) + more
