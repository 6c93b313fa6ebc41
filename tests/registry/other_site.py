"""A second site of ours as the other Hub: processes, data folder and database of its own, empty but for one account."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, clean_environment, free_port, wait_for


@dataclass(frozen=True)
class OtherSite:
    """`token` may write and is the account's named `demo`."""

    address: str
    token: str
    data_dir: Path
    log: Path

    def ask(self, path: str, token: str = "") -> dict[str, object]:
        """The JSON at a path."""
        request = urllib.request.Request(self.address + path)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.loads(response.read()))


@contextmanager
def other_site(empty_data: Path, folder: Path, **variables: str) -> Iterator[OtherSite]:
    """The site, up until the block ends; `variables` go into its environment, `empty_data` is the fixture's."""
    data = folder / "data"
    shutil.copytree(empty_data, data)
    account = empty_data.with_name("account.json")
    environment = {
        **clean_environment(),
        "LORA_DATA_DIR": str(data),
        "OMP_NUM_THREADS": "1",
        "THROTTLE_ANONYMOUS": "100000/5m",
        "THROTTLE_USER": "100000/5m",
        **variables,
    }
    port = free_port()
    log = folder / "web.log"
    command = [sys.executable, "-m", "gunicorn", "config.wsgi", "-c", "config/gunicorn.py"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", "8"]
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        wait_for(lambda: _answers(address), seconds=60, what=f"The start of the other site, see {log}:")
        yield OtherSite(address, json.loads(account.read_text())["token"], data, log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/api/health", timeout=5).close()
    except OSError:
        return False
    return True
