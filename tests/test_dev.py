"""The two commands, as a newcomer meets them."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import dev
from tests.conftest import ROOT, Site, clean_environment, copy_data, start_site, stop_site, wait_for

pytestmark = pytest.mark.slow


def run_up(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`dev.py up` where it refuses to start."""
    command = [sys.executable, "dev.py", "up", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=120
    )


def pids_of(site: Site) -> dict[str, int]:
    return json.loads((site.data_dir / "processes.json").read_text())


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet has ended all the same."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def sign_in(site: Site) -> str:
    """The page that a browser ends on after signing in with the login that `up` printed."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with browser.open(f"{site.address}/accounts/login/") as page:
        form = page.read().decode()
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert found is not None
    fields = {"csrfmiddlewaretoken": found[1], "login": site.username, "password": site.password}
    with browser.open(f"{site.address}/accounts/login/", urllib.parse.urlencode(fields).encode()):
        pass
    with browser.open(f"{site.address}/settings/tokens") as page:
        return page.read().decode()


def whoami(site: Site) -> dict:
    request = urllib.request.Request(
        f"{site.address}/api/v1/whoami/", headers={"Authorization": f"Bearer {site.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.fixture
def own_site(running_site: Site, tmp_path: Path) -> Iterator[Site]:
    """A site that a test may break."""
    copy_data(running_site, tmp_path / "site")
    site = start_site(tmp_path / "site")
    yield site
    if site.process.poll() is None:
        stop_site(site)


@pytest.mark.site
def test_up_ends_with_address_login_and_token_that_work(running_site: Site):
    assert running_site.address.startswith("http://127.0.0.1:")
    assert "Sign out" in sign_in(running_site)
    assert whoami(running_site)["username"] == running_site.username
    assert whoami(running_site)["token"]["scope"] == "write"


@pytest.mark.site
def test_the_demo_collection_is_there(running_site: Site):
    with urllib.request.urlopen(f"{running_site.address}/api/v1/adapters/?limit=100") as answer:
        assert len(json.load(answer)["results"]) >= 24


@pytest.mark.site
def test_a_second_up_on_the_same_data_is_refused_with_a_sentence(running_site: Site):
    done = run_up("--port", "0", "--data", str(running_site.data_dir))
    assert done.returncode == 1
    assert re.fullmatch(
        r"LoRA Commons already runs on \S+ \(process \d+\)\. Stop it first, or give another folder with --data\.",
        done.stderr.strip(),
    )


def test_a_taken_port_is_refused_with_a_sentence(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_up("--port", str(port), "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    expected = f"Port {port} is taken by another program. Choose another with --port."
    assert done.stderr.strip() == expected


@pytest.mark.parametrize("port", ["65536", "-1", "80x"])
def test_a_port_that_is_none_is_refused_with_a_sentence(tmp_path: Path, port: str):
    done = run_up(f"--port={port}", "--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert f"{port!r} is no port; ports are numbers from 0 to 65535" in done.stderr


def test_a_data_folder_that_cannot_be_one_is_refused_with_a_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    for data, reason in (("file", "File exists"), ("file/data", "Not a directory")):
        done = run_up("--port", "0", "--data", str(tmp_path / data))
        assert done.returncode == 1
        assert done.stderr.strip() == (
            f"{tmp_path / data} cannot be written ({reason}). Make room or give yourself the right to write there, "
            "or choose another folder with --data."
        )


def test_a_log_that_has_grown_is_put_aside_while_its_writer_goes_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dev, "MAX_LOG_BYTES", 1000)
    log = tmp_path / "web.log"
    command = [sys.executable, "-uc", "while input(): print('x' * 1500)"]
    with log.open("ab") as file:
        writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, text=True)
    assert writer.stdin is not None
    for _ in range(3):
        writer.stdin.write("more\n")
        writer.stdin.flush()
        wait_for(lambda: log.stat().st_size == 1501, seconds=20, what="A line")
        dev.keep_small(log)
    writer.kill()
    writer.wait()
    assert log.read_bytes() == b""
    assert log.with_suffix(".log.1").read_bytes() == b"x" * 1500 + b"\n"
    log.write_bytes(b"short")
    dev.keep_small(log)
    assert log.read_bytes() == b"short"


@pytest.mark.site
def test_the_secrets_of_a_site_are_its_owners_alone(running_site: Site):
    for name in ("demo-account.json", "secret-key", "valkey/valkey.conf", "valkey/password"):
        assert (running_site.data_dir / name).stat().st_mode & 0o077 == 0
    logs = "".join(path.read_text() for path in (running_site.data_dir / "logs").iterdir())
    assert running_site.password not in logs
    assert running_site.token not in logs


@pytest.mark.site
def test_what_dies_is_started_again_and_sigterm_stops_everything_and_the_next_up_keeps_the_data(
    own_site: Site,
):
    before = pids_of(own_site)
    for name in ("worker", "broker"):
        os.kill(before[name], signal.SIGKILL)
    wait_for(
        lambda: all(pids_of(own_site)[name] != before[name] for name in ("worker", "broker")),
        seconds=30,
        what="The restart of what died",
    )
    pids = pids_of(own_site)
    wait_for(lambda: "ready." in own_site.log("worker")[-400:], seconds=90, what="The worker's return")

    stop_site(own_site)

    assert own_site.process.stdout is not None
    said = own_site.process.stdout.read()
    assert "The worker was killed by signal 9 (SIGKILL); starting it again" in said
    assert said.strip().endswith("Stopped.")
    assert own_site.process.returncode == 0
    assert not any(is_alive(pid) for pid in (*before.values(), *pids.values()))

    again = start_site(own_site.data_dir)
    try:
        assert (again.password, again.token) == (own_site.password, own_site.token)
        assert whoami(again)["username"] == again.username
        leader, children = again.process.pid, pids_of(again)
        os.kill(leader, signal.SIGKILL)
        again.process.wait()
        wait_for(
            lambda: not any(is_alive(pid) for pid in children.values()),
            seconds=30,
            what="The end of what a killed dev.py had started",
        )
    finally:
        if again.process.poll() is None:
            stop_site(again)


def test_bytecode_that_may_not_lie_beside_the_sources_is_kept_with_the_packages(
    monkeypatch: pytest.MonkeyPatch,
):
    for told, kept in (("", None), ("1", str(dev.VENV / "bytecode"))):
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", told)
        monkeypatch.setenv("PYTHONPYCACHEPREFIX", "")  # so that it is put back afterwards, or taken away
        monkeypatch.delenv("PYTHONPYCACHEPREFIX")
        dev.keep_bytecode()
        assert "PYTHONDONTWRITEBYTECODE" not in os.environ
        assert os.environ.get("PYTHONPYCACHEPREFIX") == kept


def test_uv_is_told_in_its_own_words_what_pip_was_told(monkeypatch: pytest.MonkeyPatch):
    for name in ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    assert dev.uv_settings() == {"UV_FIND_LINKS": "/one,/two"}


def test_a_stamp_holds_only_for_the_same_files_and_only_after_success(tmp_path: Path):
    stamp, file = tmp_path / "stamps" / "work", tmp_path / "input"
    file.write_text("one")
    with pytest.raises(RuntimeError), dev.stamped(stamp, [file]):
        raise RuntimeError
    with dev.stamped(stamp, [file]) as is_current:
        assert not is_current
    with dev.stamped(stamp, [file]) as is_current:
        assert is_current
    file.write_text("two")
    with dev.stamped(stamp, [file]) as is_current:
        assert not is_current


def test_a_password_that_was_changed_is_not_shown_and_not_changed_back(db):
    from registry.management.commands.demo_account import CHANGED, local_account
    from registry.models import User

    first = local_account(username="demo", kept={})
    assert local_account(username="demo", kept=first) == first
    user = User.objects.get(username="demo")
    user.set_password("a password of my own")
    user.save(update_fields=["password"])

    assert local_account(username="demo", kept=first) == {**first, "password": CHANGED}


def test_a_revoked_token_is_replaced_and_a_lost_password_made_anew(db):
    from django.utils import timezone

    from registry.management.commands.demo_account import local_account
    from registry.models import Token, User

    first = local_account(username="demo", kept={})
    Token.objects.update(revoked_at=timezone.now())
    second = local_account(username="demo", kept=first)
    assert second["password"] == first["password"]
    assert second["token"] != first["token"]

    third = local_account(username="demo", kept={})
    assert User.objects.get(username="demo").check_password(third["password"])
