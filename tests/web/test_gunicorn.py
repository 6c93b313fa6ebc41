"""config/gunicorn.py with a real gunicorn, on a small application that answers with one of its settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT, clean_environment, free_port, wait_for

SETTINGS = """
METRICS_DIR = ""
HTTPS = True
LOG_FORMAT = {format!r}
VALUE = {value!r}
"""
APPLICATION = """
from config import settings

def application(environ, start_response):
    start_response("200 OK", [("X-Request-Id", "r1"), ("Content-Length", str(len(settings.VALUE)))])
    return [settings.VALUE.encode()]
"""


@contextmanager
def served(folder: Path, *, format: str) -> Iterator[tuple[int, subprocess.Popen[bytes], Path]]:
    """Its port, its first process, and its log."""
    (folder / "config").mkdir()
    (folder / "config" / "__init__.py").touch()  # or a PYTHONPATH with our own `config` would go before
    (folder / "config" / "settings.py").write_text(SETTINGS.format(format=format, value="old"))
    (folder / "config" / "wsgi.py").write_text(APPLICATION)
    (folder / "config" / "warming.py").write_text("def warm(application): pass\n")
    (folder / "web").symlink_to(ROOT / "web")
    port, log = free_port(), folder / "log"
    command = [sys.executable, "-m", "gunicorn", "config.wsgi", "-c", str(ROOT / "config" / "gunicorn.py")]
    # A worker that is told to go while it starts does not hear it, and is killed after this.
    command += ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5"]
    environment = {**clean_environment(), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        wait_for(lambda: ask(port) == "old", seconds=60, what="gunicorn")
        yield port, process, log
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(port: int, path: str = "/", **headers: str) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())
    return ""


def test_after_sighup_new_processes_read_the_settings_anew(tmp_path: Path):
    with served(tmp_path, format="json") as (port, process, _):
        (tmp_path / "config" / "settings.py").write_text(SETTINGS.format(format="json", value="brand new"))
        os.kill(process.pid, signal.SIGHUP)
        wait_for(lambda: ask(port) == "brand new", seconds=60, what="The new settings")


TICKET = "eyJvaWQiOiI2MjYz.1xXgzo.IgC3onKJ"
FORWARDED = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}


def test_every_line_of_the_web_server_is_an_object(tmp_path: Path):
    with served(tmp_path, format="json") as (port, _, log):
        ask(port, "/modules/%0d%22?q=words", **FORWARDED)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"gunicorn.error", "gunicorn.access"} == {line["logger"] for line in lines}
    told = next(line for line in lines if line.get("answer", {}).get("path", "").startswith("/modules"))
    assert (told["request"], told["answer"]["method"], told["answer"]["status"]) == ("r1", "GET", 200)
    assert told["answer"]["address"] == "203.0.113.9", "what our proxy saw, not what its client said"
    assert "words" not in log.read_text()


@pytest.mark.parametrize("format", ["json", "line"])
def test_the_web_server_writes_no_ticket_into_its_log(tmp_path: Path, format: str):
    with served(tmp_path, format=format) as (port, _, log):
        ask(port, f"/api/lfs/{TICKET}/parts/3", **FORWARDED)
    assert TICKET not in log.read_text()
    assert "/api/lfs/[hidden]/parts/3" in log.read_text()
    assert "203.0.113.9" in log.read_text()
