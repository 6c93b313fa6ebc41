"""The README's script, run as it stands against a running site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Site, clean_environment

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone with its packages installed, and can be written to."""
    folder = tmp_path / "clone"
    folder.mkdir()
    shutil.copytree(ROOT / "demo", folder / "demo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "compose", folder / "compose", ignore=shutil.ignore_patterns("__pycache__"))
    binaries = folder / ".venv" / "bin"
    binaries.mkdir(parents=True)
    # Not a link: a linked Python does not find the packages of its environment.
    (binaries / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (binaries / "python").chmod(0o755)
    return folder


def bash(script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**clean_environment(), **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=480,
    )


@pytest.mark.slow
@pytest.mark.browser
def test_the_walkthrough_publishes_finds_composes_watches_and_downloads(running_site: Site, clone: Path):
    walkthrough = [block for block in blocks("bash") if "compose.engine" not in block]
    assert blocks("sh") == ["ADDRESS=http://127.0.0.1:8000\nTOKEN=lr_...\n"]
    done = bash("\n".join(walkthrough), clone, ADDRESS=running_site.address, TOKEN=running_site.token)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "colour-said-twice" in done.stdout
    assert "succeeded" in done.stdout
    assert '"method": "auto"' in done.stdout
    assert '"method": "lorahub"' in done.stdout
    assert (clone / "composed" / "adapter_model.safetensors").stat().st_size > 1000

    hub = {"HF_ENDPOINT": running_site.address, "HF_HOME": str(clone / "hub-cache")}
    for block in blocks("python"):
        answer = subprocess.run(
            [sys.executable, "-c", block],
            cwd=clone,
            env={**clean_environment(), **hub},
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.strip()


@pytest.mark.slow
def test_the_engine_runs_alone_as_the_readme_says(clone: Path):
    (engine,) = [block for block in blocks("bash") if "compose.engine" in block]
    done = bash(engine, clone)
    assert done.returncode == 0, done.stderr
    assert '"mixing_weights"' in done.stdout
    assert (clone / "my-composition" / "adapter_config.json").exists()


def test_the_readme_points_only_at_files_that_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
