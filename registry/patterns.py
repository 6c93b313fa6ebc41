"""Matching strangers' regular expressions against module paths, under a time limit.

Patterns are matched with `regex`, which stops when its time is over. peft will match them with `re`, which cannot be
stopped, so patterns that repeat something are matched with `re` too, in a throw-away process, and that result counts.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence

import regex

from registry import jail
from registry.errors import JailFailed

TIME_LIMIT_S = 2.0
_REPEATS = frozenset("*+?{")


class PatternTooSlow(Exception):
    """A pattern did not come to an end in time; `index` is its place in the list."""

    def __init__(self, index: int) -> None:
        super().__init__(f"pattern {index}")
        self.index = index


def match_all(expressions: Sequence[tuple[str, str]], paths: Sequence[str]) -> list[dict[str, str | None]]:
    """For each (pattern, wrapped expression): the paths that the expression matches, each with its `idx` group.

    The wrapped expression is what peft really matches, from the path's start; the bare pattern only decides
    whether it repeats anything. Raises PatternTooSlow.
    """
    deadline = time.monotonic() + TIME_LIMIT_S
    matches = [
        _match_in_time(expression, paths, deadline, index)
        for index, (_, expression) in enumerate(expressions)
    ]
    for index, (pattern, expression) in enumerate(expressions):
        if _REPEATS & set(pattern):
            matches[index] = _match_in_jail(expression, paths, index)
    return matches


def _match_in_time(
    expression: str, paths: Sequence[str], deadline: float, index: int
) -> dict[str, str | None]:
    compiled = regex.compile(expression)
    found: dict[str, str | None] = {}
    for path in paths:
        left = deadline - time.monotonic()
        if left <= 0:
            raise PatternTooSlow(index)
        try:
            match = compiled.match(path, timeout=left)
        except TimeoutError:
            raise PatternTooSlow(index) from None
        if match:
            found[path] = match.groupdict().get("idx")
    return found


def _match_in_jail(expression: str, paths: Sequence[str], index: int) -> dict[str, str | None]:
    question = json.dumps({"expression": expression, "paths": list(paths)}).encode()
    try:
        answer = jail.run_module(
            "registry.patterns",
            stdin=question,
            limits=jail.Limits(time_s=10, cpu_s=2, memory_bytes=512 * 1024**2, output_bytes=32 * 1024**2),
        )
    except JailFailed:
        raise PatternTooSlow(index) from None
    return json.loads(answer.stdout)


def main() -> None:
    """Read an expression and paths as JSON, write what `re` matches."""
    question = json.load(sys.stdin)
    compiled = re.compile(question["expression"])
    found = {}
    for path in question["paths"]:
        match = compiled.match(path)
        if match:
            found[path] = match.groupdict().get("idx")
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
