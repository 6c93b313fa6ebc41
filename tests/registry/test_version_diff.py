"""What changed between two versions, of texts of any length."""

from __future__ import annotations

import re
import time

import pytest
from django.test import Client

from registry import version_diff
from registry.models import Adapter
from tests.factories import make_adapter, make_revision, make_user

pytestmark = pytest.mark.django_db


def card_of(*lines: str) -> dict[str, bytes]:
    return {"README.md": "\n".join(lines).encode()}


def diff(before: list[str], after: list[str]) -> version_diff.Text:
    adapter = make_adapter(files=card_of(*before))
    old = Adapter.objects.get(pk=adapter.pk).head
    assert old is not None
    new = make_revision(adapter, files=card_of(*after))
    (text,) = version_diff.compare(old, new).texts
    return text


def test_a_change_far_down_is_shown_with_what_is_around_it():
    lines = [str(number) for number in range(5000)]
    text = diff(lines, [*lines[:4000], "new", *lines[4000:]])
    assert [(line.kind, line.text) for line in text.lines if line.kind != "gap"] == [
        ("same", "3998"), ("same", "3999"), ("add", "new"), ("same", "4000"), ("same", "4001"),
    ]  # fmt: skip
    assert not text.is_cut


def test_what_was_added_at_the_end_or_taken_from_there_is_shown():
    assert [(line.kind, line.text) for line in diff(["a"], ["a", "b"]).lines][-1] == ("add", "b")
    assert [(line.kind, line.text) for line in diff(["a", "b"], ["a"]).lines][-1] == ("take", "b")


def test_texts_of_which_every_other_line_differs_take_no_minutes():
    """Of 20,000 such lines a whole comparison takes a minute and more, for every visitor who asks."""
    before = [text for number in range(10_000) for text in (f"{number}", f"a{number}")]
    after = [text for number in range(10_000) for text in (f"{number}", f"b{number}")]
    began = time.monotonic()
    text = diff(before, after)
    assert time.monotonic() - began < 10
    assert text.is_cut
    assert len(text.lines) < 2 * version_diff.MAX_LINES


def test_the_list_of_versions_comes_in_pages(monkeypatch):
    monkeypatch.setattr("registry.views.versions.VERSIONS_PAGE", 2)
    adapter = make_adapter("m", owner=make_user("ada"))
    for _ in range(2):
        make_revision(adapter)
    commits = [commit[:8] for commit in adapter.revisions.order_by("pk").values_list("commit", flat=True)]
    first = Client().get("/ada/m/versions").content.decode()
    assert [commit in first for commit in commits] == [False, True, True]
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = Client().get(f"/ada/m/versions{older}").content.decode()
    assert [commit in second for commit in commits] == [True, False, False]
    assert 'rel="next"' not in second
    assert "First page" in second
    assert Client().get("/ada/m/versions?cursor=x").status_code == 400
