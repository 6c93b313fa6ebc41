"""Kills, stalls, cuts and races, counted: `python -m benchmarks.chaos [--only F10 F12] [--scale 1] [--seed 1]`.

Real worker processes (with an engine whose objective is a distance), a real web server and a database of its own: SQLite in
a temporary folder, or an empty Postgres database by `--database`. Prints a line for each trial: what, how many, how many
went wrong, seconds. Ends with 1 if anything went wrong. The same seed draws the same moments; what the machine makes of
them differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 30
LEASE_S = 2


@dataclass
class Stage:
    """Where a trial plays: its folder, database, draws, and how large it is."""

    folder: Path
    database: str
    generator: random.Random
    scale: float

    def times(self, count: int) -> int:
        return max(2, round(count * self.scale))

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "LORA_DATA_DIR": str(self.folder),
            "DATABASE_URL": self.database,
            "SECRET_KEY": "only-for-chaos-" + "x" * 50,
            "JOB_LEASE_S": str(LEASE_S),
            "JOB_HEARTBEAT_S": "1",
            "JOB_RING_AGAIN_S": "1",
            "FAKE_TRIAL_S": "0.01",
            "MAX_WAITING_JOBS_PER_USER": "1000",
            "THROTTLE_USER": "1000000/5m",
            "THROTTLE_ANONYMOUS": "1000000/5m",
            "LOG_LEVEL": "CRITICAL",
            "OMP_NUM_THREADS": "1",
            **more,
        }


@dataclass
class Outcome:
    trials: int
    wrong: list[str]
    note: str = ""


# --- Workers -----------------------------------------------------------------------------------------------


class Nursery:
    """Forks real workers; see tests/compose/worker_nursery.py."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.compose.worker_nursery"],
            cwd=ROOT,
            env=stage.environment(REDIS_URL=""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pids: list[int] = []

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
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@contextmanager
def workers(stage: Stage, count: int) -> Iterator[Nursery]:
    nursery = Nursery(stage)
    try:
        nursery.tend(count)
        yield nursery
    finally:
        nursery.end()


def wait_until_all_ended(nursery: Nursery, jobs: list[Any], *, count: int, seconds: float) -> None:
    from compose.models import Composition

    ids = [job.pk for job in jobs]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        nursery.tend(count)
        if not Composition.objects.filter(pk__in=ids, status__in=["queued", "running"]).exists():
            return
        time.sleep(0.2)


def ask_for(seed: int, base_model: Any, owner: Any, text: str = "question") -> Any:
    from compose.engine.types import Example
    from tests.compose.factories import make_composition

    examples = [Example(f"{text} {number}" if text == "question" else text, "answer") for number in range(5)]
    return make_composition(owner=owner, base_model=base_model, budget=BUDGET, seed=seed, examples=examples)


def what_is_wrong(job: Any) -> list[str]:
    """Everything that a job which ended once, and as if nothing had happened, would not show."""
    from compose.models import Composition
    from tests import fakes

    done = Composition.objects.get(pk=job.pk)
    if done.status != "succeeded":
        return [f"{job.pk} is {done.status}: {done.error[:80]}"]
    wrong = []
    generator = random.Random(job.seed)
    size = done.candidates.count()
    points = [tuple(generator.uniform(-1.5, 1.5) for _ in range(size)) for _ in range(BUDGET)]
    if [tuple(trial.mixing_weights) for trial in done.trials.all()] != points:
        wrong.append(f"{job.pk} has other trials than an undisturbed run")
    best = min(points, key=lambda point: _objective(point))
    if tuple(candidate.mixing_weight for candidate in done.candidates.all()) != best:
        wrong.append(f"{job.pk} has other weights than an undisturbed run")
    if done.scores.count() != 3 or done.weights_blob is None:
        wrong.append(f"{job.pk} has {done.scores.count()} scores")
    assert fakes
    return wrong


def _objective(point: tuple[float, ...]) -> float:
    loss = sum((weight - 1 / place) ** 2 for place, weight in enumerate(point, 1))
    return loss + 0.05 * sum(map(abs, point)) / len(point)


def kills_and_stalls(stage: Stage) -> Outcome:
    """F10: workers killed, frozen for longer than their lease, and told to go, at random moments."""
    from compose.models import Composition

    base_model, people = world()
    jobs = [ask_for(seed, base_model, people[seed % len(people)]) for seed in range(stage.times(300))]
    blows = {"kill": 0, "freeze": 0, "term": 0}
    frozen: list[tuple[float, int]] = []
    ids = [job.pk for job in jobs]
    end = time.monotonic() + 60 + 2 * len(jobs)
    with workers(stage, 3) as nursery:
        while Composition.objects.filter(pk__in=ids, status__in=["queued", "running"]).exists():
            if time.monotonic() > end:
                break
            nursery.tend(3)
            time.sleep(stage.generator.uniform(0.1, 0.8))
            for due, pid in [one for one in frozen if one[0] < time.monotonic()]:
                frozen.remove((due, pid))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            pid = stage.generator.choice(nursery.pids)
            blow = stage.generator.choices(["kill", "freeze", "term"], [6, 2, 2])[0]
            blows[blow] += 1
            with suppress(ProcessLookupError):
                if blow == "freeze":
                    os.kill(pid, signal.SIGSTOP)
                    frozen.append((time.monotonic() + LEASE_S + 1.5, pid))
                    nursery.pids.remove(pid)
                else:
                    os.kill(pid, signal.SIGKILL if blow == "kill" else signal.SIGTERM)
        for _, pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
    # Three losses end a job with a reason, as they should: those count apart.
    given_up = Composition.objects.filter(pk__in=ids, status="failed", losses__gte=2).count()
    wrong = [
        line
        for job in jobs
        for line in what_is_wrong(job)
        if not Composition.objects.filter(pk=job.pk, status="failed", losses__gte=2).exists()
    ]
    again = Composition.objects.filter(pk__in=ids, attempt__gt=1).count()
    note = ", ".join(f"{count} × {blow}" for blow, count in blows.items())
    return Outcome(
        len(jobs), wrong, f"{note}; {again} ran more than once; {given_up} lost three workers and say so"
    )


def poison(stage: Stage) -> Outcome:
    """F12: jobs that always kill their worker, among good ones."""
    from compose.models import Composition

    base_model, people = world()
    bad = [ask_for(n, base_model, people[n % len(people)], "die") for n in range(stage.times(20))]
    good = [ask_for(n, base_model, people[n % len(people)]) for n in range(stage.times(100))]
    with workers(stage, 3) as nursery:
        wait_until_all_ended(nursery, [*bad, *good], count=3, seconds=120 + 10 * len(bad))
    wrong = [line for job in good for line in what_is_wrong(job)]
    for job in bad:
        done = Composition.objects.get(pk=job.pk)
        if (done.status, done.attempt) != ("failed", 3) or "was lost 3 times" not in done.error:
            wrong.append(f"{job.pk} is {done.status} after {done.attempt} attempts")
    return Outcome(len(bad) + len(good), wrong, f"{len(bad)} failed with a reason, {len(good)} done")


def cancel_against_finish(stage: Stage) -> Outcome:
    """F20: cancel while the result is being written."""
    from compose import jobs
    from compose.models import Composition
    from registry import storage
    from tests.compose.factories import make_result
    from web.errors import DomainError

    base_model, people = world()
    wrong, ends = [], {"succeeded": 0, "cancelled": 0}
    files = {"weights": storage.store_stream([b"w"]), "config": storage.store_stream([b"{}"])}
    for number in range(stage.times(300)):
        claimed = jobs.claim(ask_for(number, base_model, people[0]).pk, "worker")
        assert claimed
        result = make_result(candidates=claimed.candidates.count())
        together = threading.Barrier(2)

        def finish(claimed: Any = claimed, result: Any = result, together: Any = together) -> None:
            together.wait()
            if jobs.wish(claimed) == "cancel":
                jobs.confirm_cancelled(claimed)
            else:
                jobs.finish(claimed, result, **files)

        def cancel(claimed: Any = claimed, together: Any = together) -> None:
            together.wait()
            with suppress(DomainError):
                jobs.cancel(claimed, claimed.owner)

        at_once([finish, cancel])
        done = Composition.objects.get(pk=claimed.pk)
        ends[done.status] = ends.get(done.status, 0) + 1
        if (done.status == "succeeded") != (done.scores.count() > 0) or not done.is_finished:
            wrong.append(f"{done.pk} is {done.status} with {done.scores.count()} scores")
    return Outcome(sum(ends.values()), wrong, ", ".join(f"{count} {end}" for end, count in ends.items()))


# --- Storage -----------------------------------------------------------------------------------------------


def same_blob_at_once(stage: Stage) -> Outcome:
    """F6: eight store the same bytes at once; the blob stays as long as one is left, and no longer."""
    from registry import storage
    from registry.models import Blob, RevisionFile
    from tests.factories import make_revision

    wrong = []
    rounds = stage.times(100)
    for number in range(rounds):
        content = f"the same {number} {stage.generator.random()}".encode()
        at_once([partial(storage.store_stream, [content])] * 8)
        blobs = Blob.objects.filter(size_bytes=len(content), sha256=_sha256(content))
        if blobs.count() != 1 or not storage.has_bytes(blobs[0]):
            wrong.append(f"round {number}: {blobs.count()} rows")
            continue
        blob = blobs[0]
        files = [
            RevisionFile.objects.create(revision=make_revision(), path="extra", blob=blob) for _ in range(2)
        ]
        for file in files:
            age(blob)
            storage.sweep_storage()
            if not storage.has_bytes(blob):
                wrong.append(f"round {number}: gone while somebody wanted it")
            file.delete()
        age(blob)
        storage.sweep_storage()
        if storage.has_bytes(blob):
            wrong.append(f"round {number}: still there when nobody wants it")
    return Outcome(rounds, wrong)


def sweep_against_upload(stage: Stage) -> Outcome:
    """F7: the sweep is about to remove just what is being stored."""
    from registry import storage
    from registry.models import Blob

    wrong = []
    rounds = stage.times(500)
    for number in range(rounds):
        content = f"swept {number}".encode()
        age(storage.store_stream([content]))
        at_once([storage.sweep_storage, partial(storage.store_stream, [content])])
        blob = Blob.objects.filter(sha256=_sha256(content)).first()
        if blob is None or not storage.has_bytes(blob):
            wrong.append(f"round {number}: {'no row' if blob is None else 'row without bytes'}")
    return Outcome(rounds, wrong)


def age(blob: Any) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from registry.models import Blob

    Blob.objects.filter(pk=blob.pk).update(last_stored_at=timezone.now() - timedelta(days=2))


# --- The web process ---------------------------------------------------------------------------------------


def cut_uploads(stage: Stage) -> Outcome:
    """F5: uploads that end at a random byte; each is then sent again whole."""
    from benchmarks.load import web
    from registry import fsck
    from registry.models import Adapter
    from tests.fake_adapters import files_of
    from tests.fake_adapters import make_adapter as write_adapter

    _, people = world()
    token = token_of(people[0])
    wrong = []
    count = stage.times(300)
    with on_environment(stage), web(stage.folder, stage.database) as (port, _):
        for number in range(count):
            name = f"cut-{stage.generator.randrange(10**9)}"
            folder = write_adapter(stage.folder / "sources" / name, seed=number)
            request = multipart(name, files_of(folder), token)
            at = stage.generator.randrange(len(request))
            how = stage.generator.choice(["reset", "close", "half"])
            send_cut(port, request[:at], how)
            if Adapter.objects.filter(name=name).exists():
                wrong.append(f"{name}: half an upload is there")
            status = send_whole(port, request)
            if status != 201:
                wrong.append(f"{name}: sent again, {status}")
        time.sleep(1)
    leftovers = [path.name for path in (stage.folder / "tmp").iterdir()]
    if leftovers:
        wrong.append(f"{len(leftovers)} temporary files, such as {leftovers[0]}")
    wrong += [str(finding) for finding in fsck.check()]
    return Outcome(count, wrong)


def killed_web(stage: Stage) -> Outcome:
    """F11: the web server is killed while people ask for compositions; every 201 that was seen has its job."""
    from benchmarks.load import web
    from compose.models import Composition

    base_model, people = world()
    token = token_of(people[0])
    body = json.dumps(
        {
            "base_model": base_model.name,
            "examples": [{"input": f"q{n}", "output": "a"} for n in range(5)],
            "budget": 4,
        }
    ).encode()
    seen: list[str] = []
    count = stage.times(300)
    rounds = max(1, count // 30)

    def submit(port: int) -> None:
        import http.client

        for _ in range(8):
            with suppress(OSError, http.client.HTTPException, ValueError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                headers = {
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/json",
                    "Host": "localhost",
                }
                connection.request("POST", "/api/v1/compositions/", body, headers)
                answer = connection.getresponse()
                if answer.status == 201:
                    seen.append(json.loads(answer.read())["id"])
                else:
                    seen.append(f"status {answer.status}")

    for _ in range(rounds):
        with on_environment(stage), web(stage.folder, stage.database) as (port, process):
            submit_threads = [threading.Thread(target=submit, args=(port,)) for _ in range(4)]
            for thread in submit_threads:
                thread.start()
            time.sleep(stage.generator.uniform(0.3, 2))
            for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            for thread in submit_threads:
                thread.join()
    wrong = [answer for answer in seen if answer.startswith("status ") and answer[7] == "5"]
    ids = {answer for answer in seen if not answer.startswith("status ")}
    missing = ids - set(Composition.objects.filter(pk__in=ids).values_list("pk", flat=True))
    half = [job.pk for job in Composition.objects.filter(pk__in=ids) if not job.candidates.exists()]
    wrong += [f"{pk}: 201 and no job" for pk in missing] + [f"{pk}: half a job" for pk in half]
    Composition.objects.filter(owner=people[0], status="queued").update(status="cancelled")
    return Outcome(len(seen), wrong, f"{len(ids)} × 201 over {rounds} kills of both web processes")


def no_broker(stage: Stage) -> Outcome:
    """F13: nobody listens where the broker should be; compositions are taken all the same, and done later."""
    from benchmarks.load import web

    base_model, people = world()
    token = token_of(people[1])
    count = stage.times(100)
    slowest, wrong, ids = 0.0, [], []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = probe.getsockname()[1]
    from compose.models import Composition

    with (
        on_environment(stage, REDIS_URL=f"redis://127.0.0.1:{nowhere}/0"),
        web(stage.folder, stage.database) as (port, _),
    ):
        import http.client

        for number in range(count):
            body = json.dumps(
                {
                    "base_model": base_model.name,
                    "examples": [{"input": f"q{n}", "output": "a"} for n in range(5)],
                    "budget": BUDGET,
                    "seed": number,
                    "method": "lorahub",
                }
            )
            headers = {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Host": "localhost",
            }
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            began = time.monotonic()
            connection.request("POST", "/api/v1/compositions/", body, headers)
            answer = connection.getresponse()
            told = answer.read()
            slowest = max(slowest, time.monotonic() - began)
            if answer.status != 201:
                wrong.append(f"{answer.status}: {told[:80]!r}")
            else:
                ids.append(json.loads(told)["id"])
    if slowest > 3:
        wrong.append(f"the slowest answer took {slowest:.1f} s")
    jobs = list(Composition.objects.filter(pk__in=ids))
    with workers(stage, 2) as nursery:
        wait_until_all_ended(nursery, jobs, count=2, seconds=120 + len(jobs))
    left = Composition.objects.filter(pk__in=ids).exclude(status="succeeded").count()
    if left:
        wrong.append(f"{left} were not done")
    return Outcome(count, wrong, f"slowest answer {slowest:.2f} s")


def multipart(name: str, files: dict[str, Path], token: str) -> bytes:
    boundary = b"chaos"
    parts = [b'--chaos\r\nContent-Disposition: form-data; name="name"\r\n\r\n' + name.encode()]
    for path, file in files.items():
        head = f'--chaos\r\nContent-Disposition: form-data; name="files"; filename="{path}"\r\n\r\n'
        parts.append(head.encode() + file.read_bytes())
    body = b"\r\n".join(parts) + b"\r\n--" + boundary + b"--\r\n"
    head = (
        "POST /api/v1/adapters/ HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=chaos\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def send_cut(port: int, data: bytes, how: str) -> None:
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", port))
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.sendall(data)
        if how == "half":
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(10)
            with suppress(OSError):
                connection.recv(1000)


def send_whole(port: int, data: bytes) -> int:
    with socket.socket() as connection:
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port))
        connection.sendall(data)
        answer = connection.recv(1000)
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


# --- What they stand on ------------------------------------------------------------------------------------


@contextmanager
def on_environment(stage: Stage, **more: str) -> Iterator[None]:
    """The environment of the web server that starts in the block."""
    before = dict(os.environ)
    os.environ.update(stage.environment(**more))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def world() -> tuple[Any, list[Any]]:
    """A hosted base model with three modules, and some people; made once."""
    from registry import storage
    from registry.models import BaseModel, BaseModelFile, User
    from tests.compose.factories import make_modules
    from tests.factories import make_base_model, make_user

    base_model = BaseModel.objects.filter(name="demo/tiny-t5").first()
    if base_model is None:
        base_model = make_base_model(kind="hosted", commit="a" * 40)
        BaseModelFile.objects.create(
            base_model=base_model, path="config.json", blob=storage.store_stream([b"{}"])
        )
        make_modules(base_model, 3)
        for number in range(10):
            make_user(f"person-{number}")
    return base_model, list(User.objects.filter(username__startswith="person-").order_by("username"))


def token_of(person: Any) -> str:
    from registry.tokens import issue_token

    return issue_token(user=person, name="chaos", scope="write")[1]


def at_once(acts: list[Callable[[], Any]]) -> None:
    """All of them in threads of their own, with connections of their own; raises what one of them raised."""
    from django.db import connection

    def act(one: Callable[[], Any]) -> None:
        try:
            one()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        for done in [pool.submit(act, one) for one in acts]:
            done.result()


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


TRIALS: dict[str, Callable[[Stage], Outcome]] = {
    "F5": cut_uploads,
    "F6": same_blob_at_once,
    "F7": sweep_against_upload,
    "F10": kills_and_stalls,
    "F11": killed_web,
    "F12": poison,
    "F13": no_broker,
    "F20": cancel_against_finish,
}


def run(names: list[str], stage: Stage) -> bool:
    """Print a line for each trial; whether nothing went wrong."""
    clean = True
    for name in names:
        began = time.monotonic()
        outcome = TRIALS[name](stage)
        clean = clean and not outcome.wrong
        what = (TRIALS[name].__doc__ or "").partition(": ")[2].rstrip(".")
        verdict = f"{len(outcome.wrong)} wrong"
        note = f"; {outcome.note}" if outcome.note else ""
        print(
            f"{name:4} {outcome.trials:4} trials, {verdict}, {time.monotonic() - began:.0f} s: {what}{note}",
            flush=True,
        )
        for line in outcome.wrong[:5]:
            print(f"       {line}", flush=True)
    return clean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(TRIALS), default=list(TRIALS))
    parser.add_argument("--scale", type=float, default=1.0, help="1: the counts of docs/reliability.md")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="", help="of an empty Postgres database; SQLite without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lora-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        database = given.database or f"sqlite:///{folder / 'chaos.sqlite3'}"
        stage = Stage(folder, database, random.Random(given.seed), given.scale)
        os.environ.update(stage.environment(), DJANGO_SETTINGS_MODULE="config.settings")
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        return 0 if run(given.only, stage) else 1


if __name__ == "__main__":
    sys.exit(main())
