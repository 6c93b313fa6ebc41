"""The trials of benchmarks.chaos that take seconds, at their smallest: that they run, can fail, and pass."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos import __main__ as chaos
from benchmarks.chaos.disk import Filler, small_disk
from benchmarks.chaos.stage import Outcome, Stage
from tests.conftest import ROOT, clean_environment
from tests.migrated import Migrated

SHORT = ["F4", "F6", "F7", "F10", "F20"]  # those without a web server, whose start takes longer than they do


@pytest.mark.slow
def test_the_short_trials_find_nothing_wrong(migrated: Migrated, django_db_setup: None, tmp_path: Path):
    options = ["--scale", "0.01", "--seed", "3"]
    if migrated.copy_file(tmp_path / "chaos.sqlite3"):
        options += ["--database", f"sqlite:///{tmp_path / 'chaos.sqlite3'}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *options, "--trials", *SHORT],
        cwd=ROOT,
        env={**clean_environment(), "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| F")]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in SHORT]


def test_a_trial_that_finds_something_says_so_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def bad(stage: Stage) -> Outcome:
        """something that goes wrong"""
        return Outcome(3, ["round 2: gone"], "seen")

    def impossible(stage: Stage) -> Outcome:
        """something this machine lacks"""
        return Outcome(0, not_run="mounting is not allowed here")

    monkeypatch.setattr(chaos, "TRIALS", {"F1": bad, "F2": impossible})
    stage = Stage(tmp_path, "", random.Random(1), 1)
    assert not chaos.run(["F1"], stage)
    assert chaos.run(["F2"], stage)
    printed = capsys.readouterr()
    assert "| F1 | something that goes wrong | 3, " in printed.out
    assert "**1 wrong**; seen |" in printed.out
    assert "round 2: gone" in printed.err
    assert "| F2 | something this machine lacks | not run | mounting is not allowed here |" in printed.out


def test_a_small_disk_fills_to_the_byte_or_says_that_it_may_not_be_mounted(tmp_path: Path):
    with small_disk(tmp_path / "disk", 1) as made:
        if not made:
            pytest.skip("mounting is not allowed here")
        filler = Filler(tmp_path / "disk")
        filler.fill(leave=8192)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "disk" / "more").write_bytes(b"x" * 20_000)
        filler.empty()
        (tmp_path / "disk" / "more").write_bytes(b"x" * 20_000)
    assert not list((tmp_path / "disk").iterdir())
