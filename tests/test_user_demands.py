"""The page about what users ask for names tests; each of them exists."""

from __future__ import annotations

import re

from tests.conftest import ROOT


def test_every_test_that_the_list_of_demands_names_exists():
    page = (ROOT / "docs/user-demands.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 50
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_demand_of_the_list_is_met_with_a_test_or_says_why_not():
    page = (ROOT / "docs/user-demands.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| ?(.*?) ?\|$", page, re.MULTILINE)
    assert len(rows) == 42
    for number, _, state, shown in rows:
        assert re.match(r"(met|partly|not)\b", state), number
        assert state.startswith("not:") or "`test_" in shown, f"{number} says {state[:6]} and shows nothing"
        assert not state.startswith(("partly", "not")) or ":" in state, f"{number} does not say why"
