"""A RabbitMQ for the tests: a virtual host of our own on the machine's, or a server started for the run."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kombu import Connection

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
STANDARD_PORT = 5672
START_S = 60


@dataclass(frozen=True)
class Server:
    url: str
    stop: Callable[[], None]


def find_or_start(folder: Path) -> Server | None:
    """A broker whose queues are nobody else's, or None. One that is started lives in `folder`."""
    if _answers(f"amqp://guest:guest@127.0.0.1:{STANDARD_PORT}//"):
        server = _virtual_host()
        if server is not None:
            return server
    if (SCRIPTS / "rabbitmq-server").exists():
        return _start(folder)
    return None


def _answers(url: str) -> bool:
    try:
        with Connection(url, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
    except Exception:  # whatever the client raises, it is no broker for us
        return False
    return True


def _virtual_host() -> Server | None:
    """None where we may not make one: on the default one our queues could be somebody's."""
    name = f"lora-tests-{os.getpid()}"
    control = shutil.which("rabbitmqctl")
    if control is None or subprocess.run([control, "-q", "add_vhost", name], capture_output=True).returncode:
        return None
    subprocess.run([control, "-q", "set_permissions", "-p", name, "guest", ".*", ".*", ".*"], check=True)

    def stop() -> None:
        subprocess.run([control, "-q", "delete_vhost", name], check=True)

    return Server(f"amqp://guest:guest@127.0.0.1:{STANDARD_PORT}/{name}", stop)


def _start(folder: Path) -> Server | None:
    folder.mkdir(parents=True, exist_ok=True)
    user = _account()
    if user is not None:
        for path in (folder, *folder.parents[:2]):
            path.chmod(0o755)
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    port, distribution_port = _free_port(), _free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # its cookie lies there
        "RABBITMQ_NODENAME": f"lora-tests-{os.getpid()}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(SCRIPTS / "rabbitmq-server")],
            user=user,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def stop() -> None:
        os.killpg(process.pid, 15)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()

    url = f"amqp://guest:guest@127.0.0.1:{port}//"
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        if _answers(url):
            return Server(url, stop)
        time.sleep(0.5)
    if process.poll() is None:
        stop()
    return None


def _account() -> str | None:
    """Whom to run it as instead of root; None when we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("rabbitmq").pw_name
    except KeyError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
