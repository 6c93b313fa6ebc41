"""The web process: cut uploads, wrong bytes, kills and restarts under clients, the same request many times at once."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from benchmarks.chaos.asking import Answer, ask, composition, raw_publish, send_cut, send_raw
from benchmarks.chaos.jobs import WORKERS, wait_until_all_ended, what_is_wrong
from benchmarks.chaos.servers import children, shared_web, web, workers
from benchmarks.chaos.stage import Outcome, Stage, Trial, at_once, token_of, world

NDJSON = "application/x-ndjson"
ENOUGH_TO_TIME = 20


def new_files(stage: Stage, name: str, **options: Any) -> dict[str, Path]:
    """A tiny adapter with weights that nobody has sent before."""
    from tests.fake_adapters import files_of, make_adapter

    return files_of(
        make_adapter(stage.folder / "sources" / name, seed=stage.generator.randrange(2**31), **options)
    )


# --- F5 ------------------------------------------------------------------------------------------------------


def cut_uploads(stage: Stage) -> Outcome:
    """uploads that end at a random byte (reset, close, half close), each sent again whole"""
    from registry import fsck
    from registry.models import Adapter

    _, people = world()
    token = token_of(people[0])
    wrong = []
    count = stage.times(300)
    port = shared_web(stage)
    for number in range(count):
        name = f"cut-{number}-{stage.generator.randrange(10**6)}"
        request = raw_publish(name, new_files(stage, name), token)
        at = stage.generator.randrange(len(request))
        send_cut(port, request[:at], stage.generator.choice(["reset", "close", "half"]))
        if Adapter.objects.filter(name=name).exists():
            wrong.append(f"{name}: half an upload is there")
        status = send_raw(port, request)
        if status != 201:
            wrong.append(f"{name}: sent again, {status}")
    time.sleep(1)
    wrong += leftovers(stage)
    wrong += [str(finding) for finding in fsck.check()]
    return Outcome(count, wrong, "0 visible, 0 temporary files, all accepted the second time, fsck clean")


def leftovers(stage: Stage) -> list[str]:
    names = [path.name for path in (stage.folder / "tmp").iterdir()]
    return [f"{len(names)} temporary files, such as {names[0]}"] if names else []


# --- F8, F9 --------------------------------------------------------------------------------------------------


class Sending:
    """Git LFS as a client speaks it, with an object of 2,560 bytes in three parts."""

    SIZE = 2560
    PART = 1000

    def __init__(self, port: int, token: str, repository: str, content: bytes) -> None:
        self.port, self.token, self.repository, self.content = port, token, repository, content
        self.oid = hashlib.sha256(content).hexdigest()

    def batch(self, *, size: int | None = None, in_parts: bool = False) -> dict[str, Any]:
        """The batch's row of the object."""
        wanted = {
            "operation": "upload",
            "transfers": ["basic", "multipart"] if in_parts else ["basic"],
            "objects": [{"oid": self.oid, "size": self.SIZE if size is None else size}],
        }
        path = f"/{self.repository}.git/info/lfs/objects/batch"
        row: dict[str, Any] = ask(self.port, "POST", path, wanted, token=self.token).json()["objects"][0]
        return row

    def put(self, href: str, content: bytes) -> int:
        return ask(self.port, "PUT", _path(href), content, Content_Type="application/octet-stream").status

    def parts(self) -> tuple[dict[int, str], Callable[[], int]]:
        """The addresses of the parts by number, and what completes them."""
        upload = self.batch(in_parts=True)["actions"]["upload"]
        hrefs = {int(number): href for number, href in upload["header"].items() if number.isdigit()}
        end = {"oid": self.oid, "parts": []}
        return hrefs, lambda: ask(self.port, "POST", _path(upload["href"]), end).status

    def part(self, number: int) -> bytes:
        return self.content[(number - 1) * self.PART : number * self.PART]

    def commit(self, **said: Any) -> Answer:
        """A commit that names the object as sent before."""
        lines: list[dict[str, Any]] = [
            {"key": "header", "value": {"summary": "Change", "description": ""}},
            {"key": "lfsFile", "value": {"path": "notes.md", "algo": "sha256", "oid": self.oid, **said}},
        ]
        body = "\n".join(json.dumps(line) for line in lines).encode()
        path = f"/api/models/{self.repository}/commit/main"
        return ask(self.port, "POST", path, body, token=self.token, Content_Type=NDJSON)


def _path(href: str) -> str:
    address = urlsplit(href)
    return address.path + (f"?{address.query}" if address.query else "")


def wrong_bytes(stage: Stage) -> Outcome:
    """other bytes or sizes than announced; parts that are missing, swapped, too short or one too many"""
    from registry.models import Blob
    from tests.factories import make_adapter

    _, people = world()
    token = token_of(people[0])
    repository = make_adapter(owner=people[0]).full_name
    kinds: dict[str, Callable[[Sending], int]] = {
        "other bytes": lambda sent: sent.put(_href(sent.batch()), sent.content[::-1]),
        "too short": lambda sent: sent.put(_href(sent.batch()), sent.content[:-1]),
        "another size announced": lambda sent: sent.put(_href(sent.batch(size=2561)), sent.content),
        "a part too short": lambda sent: sent.put(sent.parts()[0][1], sent.part(1)[:-1]),
        "a part too many": lambda sent: sent.put(
            sent.parts()[0][3].replace("/parts/3", "/parts/4"), sent.part(3)
        ),
        "parts swapped": _swapped,
        "a part missing": _missing,
        "never sent": lambda sent: sent.commit(size=sent.SIZE).status,
    }
    wrong = []
    count = stage.times(300)
    answers: Counter[int] = Counter()
    port = shared_web(stage)
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        sent = Sending(port, token, repository, stage.generator.randbytes(Sending.SIZE))
        status = kinds[kind](sent)
        answers[status] += 1
        if not 400 <= status < 500:
            wrong.append(f"{kind}: {status}")
        if Blob.objects.filter(sha256=sent.oid).exists():
            wrong.append(f"{kind}: stored all the same")
    rightly = Sending(port, token, repository, stage.generator.randbytes(Sending.SIZE))
    hrefs, complete = rightly.parts()
    told = [rightly.put(hrefs[part], rightly.part(part)) for part in (3, 1, 2, 1)] + [complete()]
    if told != [200] * 5:
        wrong.append(f"parts in any order, one of them twice: {told}")
    return Outcome(count, wrong, _counted(answers))


def _href(row: dict[str, Any]) -> str:
    return str(row["actions"]["upload"]["href"])


def _swapped(sent: Sending) -> int:
    hrefs, complete = sent.parts()
    for number, content in ((1, sent.part(2)), (2, sent.part(1)), (3, sent.part(3))):
        sent.put(hrefs[number], content)
    return complete()


def _missing(sent: Sending) -> int:
    hrefs, complete = sent.parts()
    for number in (1, 3):
        sent.put(hrefs[number], sent.part(number))
    return complete()


def _counted(answers: Counter[int]) -> str:
    return ", ".join(f"{count} × {status}" for status, count in sorted(answers.items()))


def claimed_by_hash(stage: Stage) -> Outcome:
    """somebody else's private file claimed by its hash: LFS batch, commit, and the page that finds by hash"""
    import statistics

    from tests.factories import make_adapter

    _, people = world()
    token = token_of(people[1])
    mine = make_adapter(owner=people[1]).full_name
    wrong = []
    count = stage.times(100)
    took: dict[bool, list[float]] = {True: [], False: []}
    port = shared_web(stage)
    for number in range(count + 1):  # the first is not timed: everything is new to the server then
        secret = stage.generator.randbytes(Sending.SIZE)
        make_adapter(
            owner=people[0],
            visibility="private",
            files={"adapter_model.safetensors": secret, "x.md": b"x"},
        )
        seen = {}
        contents = {True: secret, False: stage.generator.randbytes(Sending.SIZE)}
        for is_there in stage.generator.sample([True, False], 2):
            sent = Sending(port, token, mine, contents[is_there])
            began = time.perf_counter()
            row = sent.batch()
            committed = sent.commit(size=Sending.SIZE)
            page = ask(port, "GET", f"/hashes?sha256={sent.oid}")
            if number:
                took[is_there].append(time.perf_counter() - began)
            said = [committed.status, committed.content.decode(), page.status, page.content.decode()]
            seen[is_there] = (
                "upload" in row.get("actions", {}),
                [re.sub(r"request [0-9a-f]{16}", "", str(one).replace(sent.oid, "OID")) for one in said],
            )
        if not seen[True][0]:
            wrong.append("the batch said that it has it")
        if seen[True] != seen[False]:
            wrong.append("the answers differ from those for an unknown hash")
    apart = 1000 * abs(statistics.median(took[True]) - statistics.median(took[False]))
    if apart > 10 and count >= ENOUGH_TO_TIME:
        wrong.append(f"answers take {apart:.1f} ms longer or shorter")
    return Outcome(
        count, wrong, f"0 granted, answers equal to an unknown hash's, medians {apart:.1f} ms apart"
    )


# --- F11 -----------------------------------------------------------------------------------------------------


def killed_web(stage: Stage) -> Outcome:
    """the web processes killed while people ask for compositions; what was answered with 201 is then done"""
    from compose.models import Composition

    base_model, people = world()
    tokens = [token_of(person) for person in people]
    seen: list[Answer] = []
    count = stage.times(300)
    kills = 0

    def submit(port: int, over: threading.Event, first: int) -> None:
        seed = first
        while not over.is_set():
            body = composition(base_model.name, seed, budget=4)
            token = tokens[seed % len(tokens)]
            seen.append(ask(port, "POST", "/api/v1/compositions/", body, token=token, timeout_s=10))
            seed += 1
            time.sleep(0.05)  # while nobody listens

    while len([answer for answer in seen if answer.status == 201]) < count:
        over = threading.Event()
        with web(stage) as (port, process):
            threads = [
                threading.Thread(target=submit, args=(port, over, 100_000 * kills + 10_000 * number))
                for number in range(4)
            ]
            for thread in threads:
                thread.start()
            time.sleep(stage.generator.uniform(0.2, 2))
            # Sometimes the workers, which gunicorn replaces, sometimes all of it.
            doomed = children(process)
            if stage.generator.random() < 0.5:
                os.kill(process.pid, signal.SIGKILL)
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            kills += 1
            time.sleep(0.5)
            over.set()
            for thread in threads:
                thread.join()
    ids = [answer.json()["id"] for answer in seen if answer.status == 201]
    wrong = [f"{answer.status}: {answer.content[:80]!r}" for answer in seen if answer.is_ours]
    found = dict(
        Composition.objects.filter(owner__in=people, title__startswith="chaos").values_list("pk", "title")
    )
    wrong += [f"{pk}: 201 and no job" for pk in ids if pk not in found]
    made = list(Composition.objects.filter(owner__in=people, status="queued").values_list("pk", flat=True))
    with workers(stage, WORKERS) as nursery:
        wait_until_all_ended(made, seconds=60 + 2 * len(made), nursery=nursery)
    wrong += [line for pk in made for line in what_is_wrong(pk)]
    broken = sum(answer.status == 0 for answer in seen)
    note = f"{len(ids)} × 201 over {kills} kills, {broken} connections broke; all {len(made)} jobs done"
    return Outcome(len(ids), wrong, note)


# --- F18, F19 ------------------------------------------------------------------------------------------------


def same_submit_at_once(stage: Stage) -> Outcome:
    """the same composition asked for ten times at once, with an Idempotency-Key and with the page's form"""
    from compose.models import Composition

    base_model, people = world()
    wrong: list[str] = []
    rounds = stage.times(100)
    port = shared_web(stage)
    for number in range(rounds):
        person = people[number % len(people)]
        before = Composition.objects.filter(owner=person).count()
        submit = _by_key if number % 2 else _by_form
        answers = at_once([submit(port, person, base_model.name, number)] * 10)
        made = Composition.objects.filter(owner=person).count() - before
        if made != 1 or len(set(answers)) != 1 or not answers[0]:
            wrong.append(f"round {number}: {made} jobs, answers {sorted(set(answers))}")
    Composition.objects.filter(status="queued").update(status="cancelled")
    return Outcome(
        rounds,
        wrong,
        f"1 job and 10 equal answers each; {rounds // 2} by key, {rounds - rounds // 2} by form",
    )


def _by_key(port: int, person: Any, base_model: str, number: int) -> Callable[[], str]:
    token, key = token_of(person), f"chaos-{number}-{person.pk}"

    def submit() -> str:
        """The job's id; while the first request still runs, asked again as the answer says."""
        for _ in range(200):
            body = composition(base_model, number)
            answer = ask(port, "POST", "/api/v1/compositions/", body, token=token, Idempotency_Key=key)
            if answer.status != 409:
                return answer.json()["id"] if answer.status == 201 else f"status {answer.status}"
            time.sleep(0.05)
        return "always 409"

    return submit


def _by_form(port: int, person: Any, base_model: str, number: int) -> Callable[[], str]:
    cookies = signed_in(person)
    page = ask(port, "GET", "/compose", Cookie=cookies)
    cookies += f"; csrftoken={re.findall('csrftoken=([^;]+)', page.headers['set-cookie'])[0]}"
    hidden = dict(
        re.findall(r'name="(csrfmiddlewaretoken|form_token)" value="([^"]+)"', page.content.decode())
    )
    fields = {
        **hidden,
        "example_input": [f"question {row}" for row in range(5)],
        "example_output": ["answer"] * 5,
        "base_model": base_model,
        "choice": "auto",
        "method": "lorahub",
        "budget": "30",
        "seed": str(number),
        "action": "compose",
    }
    body = urlencode(fields, doseq=True).encode()

    def submit() -> str:
        """Where the answer leads."""
        kind = "application/x-www-form-urlencoded"
        answer = ask(port, "POST", "/compose", body, Cookie=cookies, Content_Type=kind)
        return answer.headers.get("location", "") or f"status {answer.status}"

    return submit


def signed_in(person: Any) -> str:
    """The cookie of a session of this person."""
    from django.conf import settings
    from django.test import Client

    client = Client()
    client.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


def same_parent_at_once(stage: Stage) -> Outcome:
    """ten commits at once on one repository, all on the same parent"""
    from registry.models import Adapter, Revision
    from tests.factories import make_adapter

    _, people = world()
    token = token_of(people[0])
    adapter = make_adapter(owner=people[0], files={"README.md": b"# Mine"}, rank=None)
    wrong: list[str] = []
    rounds = stage.times(100)
    answers: Counter[int] = Counter()
    port = shared_web(stage)
    for number in range(rounds):
        parent = Adapter.objects.select_related("head").get(pk=adapter.pk).head
        assert parent is not None
        commits = [
            partial(
                _commit, port, token, adapter.full_name, parent.commit, f"# {number} by {author}".encode()
            )
            for author in range(10)
        ]
        told = Counter(at_once(commits))
        answers += told
        if told[200] != 1 or sum(told[status] for status in (409, 412)) != 9:
            wrong.append(f"round {number}: {_counted(told)}")
        if Revision.objects.filter(adapter=adapter, parent=parent).count() != 1:
            wrong.append(f"round {number}: the history forks")
    if Revision.objects.filter(adapter=adapter).count() != rounds + 1:
        wrong.append("the history has other revisions than were committed")
    return Outcome(rounds, wrong, f"{_counted(answers)}; the history is straight")


def _commit(port: int, token: str, repository: str, parent: str, content: bytes) -> int:
    value = {"path": "README.md", "content": base64.b64encode(content).decode(), "encoding": "base64"}
    lines: list[dict[str, Any]] = [
        {"key": "header", "value": {"summary": "Change", "description": "", "parentCommit": parent}},
        {"key": "file", "value": value},
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    path = f"/api/models/{repository}/commit/main"
    return ask(port, "POST", path, body, token=token, Content_Type=NDJSON).status


# --- F38 -----------------------------------------------------------------------------------------------------


def rolling_restart(stage: Stage) -> Outcome:
    """web (SIGHUP) and workers (SIGTERM) replaced and a column added, under 20 clients and ten jobs"""
    from compose.models import Composition

    base_model, people = world()
    tokens = [token_of(person) for person in people]
    rounds = stage.times(10)
    seen: list[Answer] = []
    over = threading.Event()

    def browse(number: int) -> None:
        paths = ["/", "/modules", "/person-1", "/api/v1/adapters/", "/status", "/compose"]
        while not over.is_set():
            seen.append(ask(port, "GET", paths[number % len(paths)]))
            number += 1
            time.sleep(0.3)

    ids: list[str] = []
    with ExitStack() as stack:
        port, process = stack.enter_context(web(stage))
        nursery = stack.enter_context(workers(stage, WORKERS))
        clients = [threading.Thread(target=browse, args=(number,)) for number in range(20)]
        for client in clients:
            client.start()
        for round_ in range(rounds):
            before = set(children(process))
            _add_column(round_)
            process.send_signal(signal.SIGHUP)
            for pid in list(nursery.pids):
                os.kill(pid, signal.SIGTERM)
            for number in range(10):
                seed = 10 * round_ + number
                body = composition(base_model.name, seed)
                answer = ask(port, "POST", "/api/v1/compositions/", body, token=tokens[seed % len(tokens)])
                seen.append(answer)
                if answer.status == 201:
                    ids.append(answer.json()["id"])
            end = time.monotonic() + 60
            while before & set(children(process)) and time.monotonic() < end:
                time.sleep(0.1)
            if before & set(children(process)):
                seen.append(Answer(599, b"the old web processes did not go"))
            _drop_column(round_)
            wait_until_all_ended(ids, seconds=120, nursery=nursery)
        over.set()
        for client in clients:
            client.join()
    wrong = [
        f"{answer.status}: {answer.content[:80]!r}" for answer in seen if answer.is_ours or not answer.status
    ]
    wrong += [line for pk in ids for line in what_is_wrong(pk)]
    lost = Composition.objects.filter(pk__in=ids, losses__gt=0).count()
    note = f"{len(seen)} requests, {len(ids)} jobs, all done; {lost} counted as lost by a worker"
    return Outcome(rounds, wrong, note)


def _add_column(number: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE registry_adapter ADD COLUMN chaos_{number} integer NULL")


def _drop_column(number: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE registry_adapter DROP COLUMN chaos_{number}")


TRIALS: dict[str, Trial] = {
    "F5": cut_uploads,
    "F8": wrong_bytes,
    "F9": claimed_by_hash,
    "F11": killed_web,
    "F18": same_submit_at_once,
    "F19": same_parent_at_once,
    "F38": rolling_restart,
}
