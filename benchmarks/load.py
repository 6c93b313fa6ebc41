"""Many people at once: `python -m benchmarks.load --database postgres://…/empty`.

Fills an empty Postgres database with generated adapters, starts the web server as config/gunicorn.py has it, and asks
it for pages and API answers over `--clients` connections, as browsers do (compressed): first as fast as it answers, each
client asking again at once, then at `--rate` requests a second that arrive at random, a request's time counting from
when it should have begun. Then the same beside uploads and downloads of large files, beside clients that send a byte
a second, and beside clients that read a large file at 64 KiB a second. Prints one JSON object: requests a second, p50 and p99 in milliseconds, errors (any answer but 200, and any
broken connection), and the memory of the web processes. `--workers` and `--threads` try other settings of gunicorn,
`--front nginx` puts nginx before the site as docs/operations.md has it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
HEADERS = "HTTP/1.1\r\nHost: localhost\r\nAccept: text/html,*/*\r\nAccept-Encoding: gzip\r\n\r\n"


PARTS = ("fast", "rate", "files", "slow", "readers")


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


def addresses(adapters: list[str]) -> Iterator[str]:
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


class Client:
    """A connection that is kept, and costs little beside the server that is measured."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket: socket.socket | None = None

    def ask(self, address: str) -> int:
        """The status of the answer, once all of it is here. Raises OSError."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection((HOST, self.port), timeout=30)
            self.socket.sendall(f"GET {address} {HEADERS}".encode())
            return self._answer(self.socket)
        except OSError:
            self.close()
            raise

    def _answer(self, source: socket.socket) -> int:
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._more(source)
        head = got[:end].lower()
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if length is None:
            raise ConnectionError("an answer without a length")
        left = int(length[1]) - (len(got) - end - 4)
        while left > 0:
            left -= len(self._more(source))
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12])

    def _more(self, source: socket.socket) -> bytes:
        got = source.recv(1 << 18)
        if not got:
            raise ConnectionError("an answer that was cut")
        return got

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None


class Moments:
    """When requests begin: at once (`rate` 0), or at random moments, so many a second."""

    def __init__(self, rate: float, until: float) -> None:
        self.rate, self.until = rate, until
        self.lock = threading.Lock()
        self.random = random.Random(5)
        self.next = time.monotonic()

    def take(self) -> float | None:
        """The moment at which a request should begin, waited for; None once it is over."""
        if not self.rate:
            now = time.monotonic()
            return now if now < self.until else None
        with self.lock:
            moment = self.next
            self.next += self.random.expovariate(self.rate)
        if moment >= self.until:
            return None
        time.sleep(max(0, moment - time.monotonic()))
        return moment


def browse(port: int, asked: list[str], moments: Moments, answers: Answers) -> None:
    """One client: asks, reads the answer, asks again."""
    client = Client(port)
    for address in cycle(asked):
        moment = moments.take()
        if moment is None:
            break
        try:
            status = client.ask(address)
        except OSError as error:
            answers.errors.append(type(error).__name__)
            continue
        answers.ms.append(1000 * (time.monotonic() - moment))
        if status != 200:
            answers.errors.append(f"{status} {address}")
    client.close()


def crowd(port: int, clients: int, seconds: float, mix: Iterator[str], rate: float = 0) -> dict[str, Any]:
    """Figures of so many clients over so many seconds."""
    parts = [Answers() for _ in range(clients)]
    asked = [[next(mix) for _ in range(200)] for _ in parts]
    moments = Moments(rate, time.monotonic() + seconds)
    threads = [
        threading.Thread(target=browse, args=(port, addresses, moments, part))
        for addresses, part in zip(asked, parts, strict=True)
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
            with suppress(OSError):
                urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"The web server did not start; its log is {folder / 'web.log'}.")
            time.sleep(0.2)
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextmanager
def front(folder: Path, port: int, kind: str) -> Iterator[int]:
    """The port that clients use: the site's own, or one of nginx before it with the settings of docs/operations.md."""
    if kind == "none":
        yield port
        return
    from benchmarks.transfer import nginx

    place = folder / "nginx"
    place.mkdir()
    what = (
        f"client_max_body_size 5g; location / {{ proxy_pass http://{HOST}:{port}; proxy_request_buffering off; "
        "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }"
    )
    with nginx(place, what, "/api/health") as address:
        yield int(address.rpartition(":")[2])


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


def children_of(process: subprocess.Popen[bytes]) -> list[str]:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@contextmanager
def processor_time(process: subprocess.Popen[bytes]) -> Iterator[Callable[[int], dict[str, float]]]:
    """What the server's processes use of the processor meanwhile, in milliseconds for each of so many requests.

    Neighbours on the machine move it less than they move the clock.
    """

    def used() -> float:
        ticks = 0
        for pid in children_of(process):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return 1000 * ticks / os.sysconf("SC_CLK_TCK")

    before = used()
    yield lambda requests: {"processor_ms": round((used() - before) / max(requests, 1), 2)}


def memory_mib(process: subprocess.Popen[bytes]) -> list[float]:
    """Resident memory of the server's processes."""
    found = []
    for pid in children_of(process):
        status = Path(f"/proc/{pid}/status").read_text()
        found.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    return sorted(round(value, 1) for value in found)


def transfer(port: int, token: str, source: Path, number: int, answers: Answers) -> None:
    """Publish a large adapter and fetch its weights back; both count, and the bytes have to be the same."""
    name = f"large-{number}-{secrets.token_hex(4)}"
    weights = source / "adapter_model.safetensors"
    send = ["curl", "-sS", "-w", " %{http_code}", "-H", f"Authorization: Bearer {token}"]
    send += ["-F", f"name={name}"]
    for path in sorted(source.iterdir()):
        send += ["-F", f"files=@{path}"]
    began = time.perf_counter()
    address = f"http://{HOST}:{port}/api/v1/adapters/"
    told = subprocess.run([*send, address], capture_output=True, text=True).stdout
    answers.ms.append(1000 * (time.perf_counter() - began))
    if not told.endswith(" 201"):
        answers.errors.append(f"upload: {told[-300:]}")
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
    for number in range(1, files):
        sources.append(shutil.copytree(folder / "large", folder / f"large-{number}"))
    for source in (
        sources
    ):  # the same but for their last values, so that none is there already, nor was in an earlier run
        with (source / "adapter_model.safetensors").open("r+b") as file:
            file.seek(-32, os.SEEK_END)
            file.write(b"".join(bytes([secrets.randbelow(256), 0x3F]) for _ in range(16)))
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
    took = {"count": len(answers.ms), "errors": answers.errors, "slowest_s": round(max(answers.ms) / 1000, 1)}
    return {"files": files, "mib": mib, "transfers": took, "pages": pages}


def beside_slow_clients(
    port: int, *, slow: int, clients: int, seconds: float, mix: Iterator[str]
) -> dict[str, Any]:
    """The crowd without and beside clients that send a byte of a request each second, and come again when cut off.

    A third is slow with the lines of a request, a third with the text of a form, a third with a large file.
    """
    alone = crowd(port, clients, seconds, mix)
    over = threading.Event()
    post = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nX-Long: "
    ends = b"a" * 40 + b"\r\n\r\n"
    heads = [b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", post % 5_000 + ends, post % 100_000_000 + ends]

    def dawdle(number: int) -> None:
        over.wait(number / slow)  # not all in the same moment
        while not over.is_set():
            with socket.socket() as connection:
                try:
                    connection.connect((HOST, port))
                    connection.sendall(heads[number % 3])
                    while not over.wait(1):
                        connection.send(b"a")
                except OSError:
                    over.wait(1)

    threads = [threading.Thread(target=dawdle, args=(number,), daemon=True) for number in range(slow)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    beside = crowd(port, clients, seconds, mix)
    over.set()
    for thread in threads:
        thread.join()
    return {"slow_clients": slow, "pages_alone": alone, "pages": beside}


def beside_slow_readers(
    port: int, address: str, *, readers: int, clients: int, seconds: float, mix: Iterator[str]
) -> dict[str, Any]:
    """The crowd without and beside clients that read a large file at 64 KiB a second, and ask again when cut off."""
    alone = crowd(port, clients, seconds, mix)
    over = threading.Event()
    begun, cut = [0] * readers, [0] * readers

    def dawdle(number: int) -> None:
        over.wait(number / readers)  # not all in the same moment
        while not over.is_set():
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
                connection.settimeout(60)
                try:
                    connection.connect((HOST, port))
                    connection.sendall(f"GET {address} {HEADERS}".encode())
                    while connection.recv(64 * 1024):
                        begun[number] = 1
                        if over.wait(1):
                            return
                except OSError:
                    over.wait(1)
            cut[number] += not over.is_set()

    threads = [threading.Thread(target=dawdle, args=(number,), daemon=True) for number in range(readers)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60  # those who find no thread never begin
    while sum(begun) < readers and time.monotonic() < end:
        time.sleep(0.2)
    beside = crowd(port, clients, seconds, mix)
    told = {"slow_readers": readers, "have_begun": sum(begun), "were_cut": sum(cut)}
    over.set()
    for thread in threads:
        thread.join()
    return {**told, "pages_alone": alone, "pages": beside}


def published(port: int, folder: Path, token: str, mib: int) -> str:
    """Where a new file of so many MiB is read."""
    from benchmarks.transfer import make_adapter

    name, source = f"read-{secrets.token_hex(4)}", folder / "read"
    weights = make_adapter(source, mib)
    with weights.open("r+b") as file:
        file.seek(-32, os.SEEK_END)
        file.write(secrets.token_bytes(32))
    send = ["curl", "-fsS", "-o", os.devnull, "-H", f"Authorization: Bearer {token}", "-F", f"name={name}"]
    for path in sorted(source.iterdir()):
        send += ["-F", f"files=@{path}"]
    subprocess.run([*send, f"http://{HOST}:{port}/api/v1/adapters/"], check=True)
    return f"/bench/{name}/resolve/main/{weights.name}"


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
    parser.add_argument("--mib", type=int, default=100, help="of one file; 16 at least")
    parser.add_argument("--slow", type=int, default=500, help="clients that send a byte a second")
    parser.add_argument("--slow-readers", type=int, default=200, help="clients that read 64 KiB a second")
    parser.add_argument("--workers", type=int, default=0, help="of gunicorn; 0: as config/gunicorn.py has it")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100, help="requests a second that arrive at random")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="of what is measured")
    parser.add_argument("--front", choices=["none", "nginx"], default="none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-load-") as name:
        folder = Path(name)
        os.environ.update(environment(folder, given.database), DJANGO_SETTINGS_MODULE="config.settings")
        token, mix = prepare(given.adapters)
        told: dict[str, Any] = {"adapters": given.adapters, "clients": given.clients}
        with (
            web(folder, given.database, workers=given.workers, threads=given.threads) as (behind, process),
            front(folder, behind, given.front) as port,
        ):
            told["memory_before_mib"] = memory_mib(process)
            if "fast" in given.only:
                with processor_time(process) as spent:
                    figures = crowd(port, given.clients, given.seconds, mix)
                told["as_fast_as_answered"] = figures | spent(figures["requests"])
            if "rate" in given.only:
                with processor_time(process) as spent:
                    figures = crowd(port, given.clients, given.seconds, mix, given.rate)
                told[f"{given.rate:g}_a_second"] = figures | spent(figures["requests"])
            few = {"clients": 20, "seconds": given.seconds, "mix": mix}
            if "files" in given.only:
                told["beside_large_files"] = beside_large_files(
                    port, folder, token, files=given.files, mib=given.mib, **few
                )
            if "slow" in given.only:
                told["beside_slow_clients"] = beside_slow_clients(port, slow=given.slow, **few)
            if "readers" in given.only:
                address = published(port, folder, token, given.mib)
                told["beside_slow_readers"] = beside_slow_readers(
                    port, address, readers=given.slow_readers, **few
                )
            told["memory_after_mib"] = memory_mib(process)
    json.dump(told, sys.stdout, indent=1)
    print()


def prepare(adapters: int) -> tuple[str, Iterator[str]]:
    """Fill the database; a token to publish with, and the addresses that clients ask for."""
    import django
    from django.core.management import call_command

    django.setup()
    from benchmarks.search import fill
    from registry.accounts import create_account
    from registry.models import Adapter, User
    from registry.tokens import issue_token

    call_command("migrate", verbosity=0)
    call_command("collectstatic", verbosity=0, interactive=False)
    if not Adapter.objects.exists():
        fill(adapters)
    person = User.objects.filter(username="bench").first() or create_account(username="bench", password=None)
    _, token = issue_token(user=person, name="load", scope="write")
    shown = Adapter.objects.filter(visibility="public").order_by("pk").select_related("namespace")
    names = [adapter.full_name for adapter in shown[:2000]]
    return token, addresses(names)


if __name__ == "__main__":
    main()
