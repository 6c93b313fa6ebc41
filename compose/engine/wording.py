"""Parts of sentences; pure Python, so the web side may import it."""

from __future__ import annotations

from collections.abc import Iterable

# What whoever asked for a composition can do about one that is not scored.
GIVE_TEST_ROWS = "Give test rows to know more."


def without_advice(verdict: str) -> str:
    """A verdict for those who did not ask for the composition."""
    return verdict.removesuffix(GIVE_TEST_ROWS).rstrip()


def first_of(names: Iterable[object], *, most: int, separator: str = ", ") -> str:
    """`a, b, c and 4 more`: all names, or the first `most` and how many are left."""
    said = [str(name) for name in names]
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return separator.join(said[:most]) + more
