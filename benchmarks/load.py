"""Many people at once: `python -m benchmarks.load --database postgres://…/empty`.

Fills an empty Postgres database with generated adapters, starts the web server as config/gunicorn.py has it, and asks
it for pages and API answers from `--clients` connections that each ask again as soon as they are answered. Then the same
beside uploads and downloads of large files, and beside clients that send a byte a second. Prints one JSON object:
requests a second, p50 and p99 in milliseconds, errors (any answer but 200, and any broken connection), and the memory of
the web processes. `--workers` and `--threads` try other settings of gunicorn.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"


@dataclass
class Answers:
    """What clients met: milliseconds of each answer, and everything that was not a 200."""

    ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def figures(self, seconds: float) -> dict[str, Any]:
        times = sorted(self.ms) or [float("nan")]
        return {
            "requests": len(self.ms),
            "per_second": round(len(self.ms) / seconds, 1),
            "p50_ms": round(times[len(times) // 2], 1),
            "p99_ms": round(times[int(0.99 * len(times))], 1),
            "slowest_ms": round(times[-1], 1),
            "errors": len(self.errors),
            "first_errors": sorted(set(self.errors))[:3],
        }


def addresses(adapters: list[str], bases: list[str]) -> Iterator[str]:
    """What people ask for, for ever: half browse and search, a third look at an adapter, the rest is API and others."""
    from benchmarks.search import questions

    generator = random.Random(3)
    asked = [urlencode(params) for params in questions(300)]
    while True:
        draw = generator.random()
        if draw < 0.35:
            yield f"/modules?{generator.choice(asked)}"
        elif draw < 0.65:
            yield f"/{generator.choice(adapters)}"
        elif draw < 0.85:
            yield f"/api/v1/adapters/?{generator.choice(asked)}"
        elif draw < 0.9:
            yield f"/api/v1/adapters/{generator.choice(adapters)}/"
        else:
            yield generator.choice(["/", "/status", "/base-models", "/tasks", "/docs", "/api/v1/status/"])


def browse(port: int, asked: list[str], until: float, answers: Answers) -> None:
    """One client: asks, reads the answer, asks again."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    while time.monotonic() < until:
        for address in asked:
            if time.monotonic() >= until:
                break
            began = time.perf_counter()
            try:
                connection.request("GET", address, headers={"Host": "localhost"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                answers.errors.append(type(error).__name__)
                connection.close()
                continue
            answers.ms.append(1000 * (time.perf_counter() - began))
            if answer.status != 200:
                answers.errors.append(f"{answer.status} {address}")
    connection.close()


def crowd(port: int, clients: int, seconds: float, mix: Iterator[str]) -> dict[str, Any]:
    """Figures of so many clients over so many seconds."""
    parts = [Answers() for _ in range(clients)]
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=browse, args=(port, [next(mix) for _ in range(200)], until, part))
        for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = Answers()
    for part in parts:
        together.ms += part.ms
        together.errors += part.errors
    return together.figures(seconds)


@contextmanager
def web(folder: Path, database: str, **flags: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The web server on a free port; its log is in `folder`."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "config.wsgi", "-c", "config/gunicorn.py"]
    command += ["--bind", f"{HOST}:{port}", "--access-logfile", os.devnull]
    for name, value in flags.items():
        command += [f"--{name}", str(value)] if value else []
    with (folder / "web.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(folder, database), stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"The web server did not start; its log is {folder / 'web.log'}.")
            time.sleep(0.2)
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def environment(folder: Path, database: str) -> dict[str, str]:
    return {
        **os.environ,
        "LORA_DATA_DIR": str(folder),
        "DATABASE_URL": database,
        "SECRET_KEY": "only-for-this-benchmark-" + "x" * 40,
        "THROTTLE_ANONYMOUS": "100000000/5m",
        "THROTTLE_USER": "100000000/5m",
        "OMP_NUM_THREADS": "1",
        "LOG_LEVEL": "WARNING",
    }


def memory_mib(process: subprocess.Popen[bytes]) -> list[float]:
    """Resident memory of the server's processes."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = []
    for pid in children:
        status = Path(f"/proc/{pid}/status").read_text()
        found.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    return sorted(round(value, 1) for value in found)


def transfer(port: int, token: str, source: Path, number: int, answers: Answers) -> None:
    """Publish a large adapter and fetch its weights back; both count, and the bytes have to be the same."""
    name = f"large-{number}"
    weights = source / "adapter_model.safetensors"
    send = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}"]
    send += ["-F", f"name={name}"]
    for path in sorted(source.iterdir()):
        send += ["-F", f"files=@{path}"]
    began = time.perf_counter()
    status = subprocess.run(
        [*send, f"http://{HOST}:{port}/api/v1/adapters/"], capture_output=True, text=True
    ).stdout
    answers.ms.append(1000 * (time.perf_counter() - began))
    if status != "201":
        answers.errors.append(f"upload {status}")
        return
    fetch = ["curl", "-sS", "-L", f"http://{HOST}:{port}/bench/{name}/resolve/main/{weights.name}"]
    began = time.perf_counter()
    with subprocess.Popen(fetch, stdout=subprocess.PIPE) as got:
        same = subprocess.run(["cmp", "-s", "-", str(weights)], stdin=got.stdout).returncode == 0
    answers.ms.append(1000 * (time.perf_counter() - began))
    if not same:
        answers.errors.append("download differs")


def beside_large_files(
    port: int,
    folder: Path,
    token: str,
    *,
    files: int,
    mib: int,
    clients: int,
    seconds: float,
    mix: Iterator[str],
) -> dict[str, Any]:
    from benchmarks.transfer import make_adapter

    make_adapter(folder / "large", mib)
    sources = [folder / "large"]
    for number in range(1, files):  # the same but for its last values, so that none is there already
        sources.append(shutil.copytree(folder / "large", folder / f"large-{number}"))
        with (sources[-1] / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(number.to_bytes(2, "little") * 2)
    answers = Answers()
    threads = [
        threading.Thread(target=transfer, args=(port, token, source, number, answers))
        for number, source in enumerate(sources)
    ]
    for thread in threads:
        thread.start()
    pages = crowd(port, clients, seconds, mix)
    for thread in threads:
        thread.join()
    for source in sources:
        shutil.rmtree(source)
    return {"files": files, "mib": mib, "transfers": answers.figures(seconds), "pages": pages}


def beside_slow_clients(
    port: int, *, slow: int, clients: int, seconds: float, mix: Iterator[str]
) -> dict[str, Any]:
    """Clients that send a byte of their request each second and never come to its end."""
    over = threading.Event()

    def dawdle() -> None:
        with socket.socket() as connection:
            connection.connect((HOST, port))
            for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 10_000:
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    return
                if over.wait(1):
                    return

    threads = [threading.Thread(target=dawdle, daemon=True) for _ in range(slow)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    pages = crowd(port, clients, seconds, mix)
    over.set()
    return {"slow_clients": slow, "pages": pages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--database", required=True, help="of an empty Postgres database, or one filled before"
    )
    parser.add_argument("--adapters", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--files", type=int, default=20, help="uploads, and as many downloads, beside the pages"
    )
    parser.add_argument("--mib", type=int, default=100)
    parser.add_argument("--slow", type=int, default=500, help="clients that send a byte a second")
    parser.add_argument("--workers", type=int, default=0, help="of gunicorn; 0: as config/gunicorn.py has it")
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-load-") as name:
        folder = Path(name)
        os.environ.update(environment(folder, given.database), DJANGO_SETTINGS_MODULE="config.settings")
        token, mix = prepare(given.adapters)
        told: dict[str, Any] = {"adapters": given.adapters, "clients": given.clients}
        with web(folder, given.database, workers=given.workers, threads=given.threads) as (port, process):
            crowd(port, 4, 3, mix)  # everything is imported and connected
            told["memory_before_mib"] = memory_mib(process)
            told["pages"] = crowd(port, given.clients, given.seconds, mix)
            few = {"clients": 20, "seconds": given.seconds, "mix": mix}
            if given.files:
                told["beside_large_files"] = beside_large_files(
                    port, folder, token, files=given.files, mib=given.mib, **few
                )
            if given.slow:
                told["beside_slow_clients"] = beside_slow_clients(port, slow=given.slow, **few)
            told["memory_after_mib"] = memory_mib(process)
    json.dump(told, sys.stdout, indent=1)
    print()


def prepare(adapters: int) -> tuple[str, Iterator[str]]:
    """Fill the database; a token to publish with, and the addresses that clients ask for."""
    import django
    from django.core.management import call_command

    django.setup()
    from benchmarks.search import fill
    from registry.models import Adapter, BaseModel, User
    from registry.tokens import issue_token

    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    if not Adapter.objects.exists():
        fill(adapters)
    person = User.objects.filter(username="bench").first() or User.objects.create_user("bench")
    _, token = issue_token(user=person, name="load", scope="write")
    shown = Adapter.objects.filter(visibility="public").order_by("pk").select_related("namespace")
    names = [adapter.full_name for adapter in shown[:2000]]
    return token, addresses(names, list(BaseModel.objects.values_list("name", flat=True)))


if __name__ == "__main__":
    main()
