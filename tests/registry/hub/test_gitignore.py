"""Which files the rules of a .gitignore leave out: as git does."""

from __future__ import annotations

import pytest

from registry.hub.bodies import BadRequest
from registry.hub.gitignore import Rules


@pytest.mark.parametrize(
    ("text", "path", "is_left_out"),
    [
        ("notes.txt", "notes.txt", True),
        ("notes.txt", "a/b/notes.txt", True),
        ("/notes.txt", "a/notes.txt", False),
        ("a/notes.txt", "b/a/notes.txt", False),
        ("*.json", "a/adapter_config.json", True),
        ("*.json\n!adapter_config.json", "adapter_config.json", False),
        ("epoch_*", "epoch_1/README.md", True),
        ("epoch_*/\n!README.md", "epoch_1/README.md", True),
        ("epoch_*/", "epoch_1", False),
        ("runs/*", "runs/a/b.txt", True),
        ("runs/*.txt", "runs/a/b.txt", False),
        ("runs/**", "runs/a/b.txt", True),
        ("**/cache", "a/b/cache/c.txt", True),
        ("a/**/b.txt", "a/b.txt", True),
        ("a/**/b.txt", "a/x/y/b.txt", True),
        ("# all\n\n  \n", "a.txt", False),
        ("\\#a.txt", "#a.txt", True),
        ("\\!a.txt", "!a.txt", True),
        ("a\\*.txt", "ab.txt", False),
        ("a.txt   \r\nb.txt", "a.txt", True),
        ("a?.[ct]xt", "ab.txt", True),
        ("[^a].txt", "b.txt", True),
        ("", "a.txt", False),
    ],
)
def test_rules_are_read_as_git_reads_them(text: str, path: str, is_left_out: bool):
    assert Rules(text).leave_out(path) is is_left_out


def test_rules_that_take_too_long_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("registry.hub.gitignore.TIME_LIMIT_S", 0.05)
    rules = Rules("**/a*/" * 40 + "b\n" + "**/*a*/**/x\n" * 20_000)
    with pytest.raises(BadRequest, match="take too long"):
        rules.leave_out("a/" * 120 + "b.txt")
