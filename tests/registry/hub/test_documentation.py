"""docs/hub-protocol.md says what is served, and by which tests one sees it: each of them has to be there."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "hub-protocol.md"
HERE = ROOT / "tests" / "registry" / "hub"


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`((?:\.\./)?test_\w+\.py)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > 30
    missing = [
        f"{file}::{name}"
        for file, name in named
        if name
        not in {
            node.name
            for node in ast.parse((HERE / file).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
    ]
    assert missing == []


def test_every_line_of_the_pages_tables_names_a_test():
    rows = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "---" not in line and "| shown by |" not in line
    ]
    assert rows
    assert [row for row in rows if "::test_" not in row] == []
