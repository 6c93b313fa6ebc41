"""Real clients in processes of their own, each with a fresh home, so that nothing is known from an earlier test."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.conftest import clean_environment

_PROLOGUE = """
import gc, json, os
gc.disable()  # it takes a quarter of importing torch
import huggingface_hub as hub
from huggingface_hub import errors
api = hub.HfApi()
def say(**found): print("SAID " + json.dumps(found, default=str))
def error_of(act):
    try:
        act()
    except Exception as error:
        return type(error).__name__
    return ""
def message_of(act):
    try:
        act()
    except Exception as error:
        return f"{getattr(getattr(error, 'response', None), 'status_code', '')} {error}"
    return ""
"""


def environment(site: str, home: Path, *, token: str = "", **variables: str) -> dict[str, str]:
    """The environment of a client that knows nothing but our address and, perhaps, a token."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        **{name: value for name, value in clean_environment().items() if not name.startswith("HF_")},
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": site,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        **({"HF_TOKEN": token} if token else {}),
        **variables,
    }


def run(
    code: str, site: str, home: Path, *, token: str = "", python: str = sys.executable, **variables: str
) -> dict[str, Any]:
    """What the code says with `say(...)`; it finds `hub`, `api`, `errors`, `error_of` and `message_of` ready.

    `python` is the interpreter whose huggingface_hub is asked.
    """
    program = _PROLOGUE + textwrap.dedent(code)
    done = subprocess.run(
        [python, "-c", program],
        cwd=home.parent,
        env=environment(site, home, token=token, **variables),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    said: dict[str, Any] = {"stderr": done.stderr}
    for line in done.stdout.splitlines():
        if line.startswith("SAID "):
            said |= json.loads(line.removeprefix("SAID "))
    return said


def hf(
    *arguments: str, site: str, home: Path, token: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """The `hf` command as people run it."""
    return subprocess.run(
        [Path(sys.executable).with_name("hf"), *arguments],
        cwd=home.parent,
        env=environment(site, home, token=token, **variables),
        capture_output=True,
        text=True,
        timeout=300,
    )
