"""What strangers try against a running site: who exists, which password, what a cache between kept, what was allowed."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlencode

from benchmarks.chaos.asking import Answer, ask, composition
from benchmarks.chaos.doors import ENOUGH_TO_TIME, Sending, signed_in
from benchmarks.chaos.jobs import wait_until_all_ended
from benchmarks.chaos.servers import free_port, shared_web, valkey, wait_for_port, web, workers
from benchmarks.chaos.stage import Outcome, Stage, Trial, at_once, token_of, world

MOST_APART_MS = 10
ENOUGH_FOR_429 = 50
PASSWORD = "correct horse battery"
SECRET = b"only-her-own-eyes"


# --- F26 -----------------------------------------------------------------------------------------------------


def change_of_rights(stage: Stage) -> Outcome:
    """visibility, role, token, account and quarantine changed; the next requests, also for a download's next range"""
    from registry import moderation, publishing
    from registry.accounts import block
    from registry.models import Membership, Token
    from registry.tokens import revoke_token
    from tests.factories import make_adapter, make_organisation, make_user

    world()
    port = shared_web(stage)
    wrong: list[str] = []
    count = stage.times(100)
    root = make_user(f"root-{stage.generator.randrange(10**9)}", is_staff=True)
    for number in range(count):
        kind = ("private", "role", "token", "account", "quarantine")[number % 5]
        owner, friend = make_user(), make_user()
        lab = make_organisation(members={owner: "admin", friend: "read"})
        is_open = kind in {"private", "quarantine"}
        adapter = make_adapter(namespace=lab, visibility="public" if is_open else "private")
        token = "" if is_open else token_of(friend)
        paths = [
            f"/api/v1/adapters/{adapter.full_name}/",
            f"/{adapter.full_name}/resolve/main/adapter_model.safetensors",
        ]
        look: Callable[[str], Answer] = partial(ask, port, "GET", token=token, Range="bytes=0-1")
        before = [look(path).status for path in paths]
        if kind == "private":
            publishing.update_adapter(adapter, actor=owner, visibility="private")
        elif kind == "role":
            Membership.objects.filter(namespace=lab, user=friend).delete()
        elif kind == "token":
            revoke_token(user=friend, token_id=Token.objects.get(user=friend).pk)
        elif kind == "account":
            block(friend, moderator=None)
        else:
            moderation.quarantine(adapter, moderator=root, reason="chaos")
        after = [look(path).status for path in paths * 2]  # twice: there are two processes
        if any(status >= 300 for status in before) or any(status not in {401, 404} for status in after):
            wrong.append(f"{kind}: {before}, and then {after}")
    return Outcome(count, wrong, "obeyed by the next request of each process")


# --- F31 -----------------------------------------------------------------------------------------------------


def enumeration(stage: Stage) -> Outcome:
    """known against unknown: sign-in, reset, a private module against none (page, API, Hub)"""
    from django.conf import settings
    from django.contrib.auth.hashers import make_password
    from django.test import Client

    from registry.models import User
    from tests.factories import make_adapter, make_user

    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    count = stage.times(200)
    stem = f"k{stage.generator.randrange(10**9)}"
    # Five attempts each, so that no account comes to its limit.
    people = [make_user(f"{stem}-{number}", password=None) for number in range(count // 5 + 1)]
    User.objects.filter(pk__in=[one.pk for one in people]).update(password=make_password(PASSWORD))
    for one in people:
        User.objects.filter(pk=one.pk).update(email=f"{one.username}@example.org")
    hidden = make_adapter(owner=people[0], visibility="private", name="zq-one")

    def post(path: str, address: str, **fields: str) -> Any:
        return Client(SERVER_NAME="localhost").post(path, fields, follow=True, REMOTE_ADDR=address)

    def get(path: str, address: str) -> Any:
        return Client(SERVER_NAME="localhost").get(path, REMOTE_ADDR=address)

    def ask_for(kind: str, name: str, address: str) -> Any:
        if kind == "sign-in":
            return post("/accounts/login/", address, login=name, password="wrong")
        if kind == "reset":
            return post("/accounts/password/reset/", address, email=f"{name}@example.org")
        path = {"page": "/{}", "API": "/api/v1/adapters/{}/", "Hub": "/api/models/{}"}[kind]
        return get(path.format(f"{hidden.namespace.name}/{name}"), address)

    wrong, apart = [], {}
    for kind in ("sign-in", "reset", "page", "API", "Hub"):
        took: dict[bool, list[float]] = {True: [], False: []}
        bodies: dict[bool, str] = {}
        for number in range(count):
            for is_known in stage.generator.sample([True, False], 2):
                if kind in {"sign-in", "reset"}:
                    person = people[number // 5].username
                    name = person if is_known else person.replace("k", "u", 1)
                else:
                    name = "zq-one" if is_known else "zq-two"
                address = (
                    f"10.{number % 250}.{stage.generator.randrange(250)}.{stage.generator.randrange(250)}"
                )
                began = time.process_time()
                answer = ask_for(kind, name, address)
                took[is_known].append(1000 * (time.process_time() - began))
                text = re.sub(
                    r'name="csrfmiddlewaretoken" value="[^"]+"|request [0-9a-f]{16}',
                    "",
                    answer.content.decode(),
                )
                bodies[is_known] = f"{answer.status_code} {text.replace(name, 'NAME')}"
            if bodies[True] != bodies[False]:
                wrong.append(f"{kind}: the answers differ")
        apart[kind] = abs(statistics.median(took[True]) - statistics.median(took[False]))
        if apart[kind] > MOST_APART_MS and count >= ENOUGH_TO_TIME:
            wrong.append(f"{kind}: the medians are {apart[kind]:.1f} ms apart")
    told = ", ".join(f"{kind} {ms:.1f}" for kind, ms in apart.items())
    return Outcome(
        count,
        wrong,
        f"each known and unknown; same status and text; medians of processor time apart in ms: {told}",
    )


# --- F32 -----------------------------------------------------------------------------------------------------


def was_checked(status: int, text: str) -> bool:
    """Whether the password was looked at, and not the question refused."""
    from allauth.account.adapter import DefaultAccountAdapter

    return (
        status not in {0, 429}
        and str(DefaultAccountAdapter.error_messages["too_many_login_attempts"]) not in text
    )


def guesses(stage: Stage) -> Outcome:
    """guesses at a password: from one address, from many at one account, and fifty at the same moment"""
    from django.core.cache import cache
    from django.test import Client

    from tests.factories import make_user

    count = stage.times(1000)
    wrong: list[str] = []

    def guess(login: str, password: str, address: str, client: Any = None) -> Any:
        client = client or Client(SERVER_NAME="localhost")
        return client.post("/accounts/login/", {"login": login, "password": password}, REMOTE_ADDR=address)

    stem = f"g{stage.generator.randrange(10**9)}"
    targets = [make_user(f"{stem}-{number}", password=PASSWORD).username for number in range(3)]
    cache.clear()
    answers = [guess(targets[0], f"no {number}", "10.1.1.1") for number in range(count)]
    alone = sum(was_checked(answer.status_code, answer.content.decode()) for answer in answers)
    # The form says it first; who goes on all the same gets 429.
    is_told = count < ENOUGH_FOR_429 or (answers[-1].status_code == 429 and "Retry-After" in answers[-1])
    if alone > 10 or not is_told:
        wrong.append(f"from one address {alone} were looked at; the last is {answers[-1].status_code}")

    home = Client(SERVER_NAME="localhost")
    guess(targets[1], PASSWORD, "10.2.2.2", home)
    home.post("/accounts/logout/")
    answers = [guess(targets[1], "no", f"10.3.{n // 250}.{n % 250}") for n in range(count)]
    spread = sum(was_checked(answer.status_code, answer.content.decode()) for answer in answers)
    guess(targets[1], PASSWORD, "10.2.2.2", home)
    if spread > 10:
        wrong.append(f"from {count} addresses {spread} were looked at")
    if home.get("/settings").status_code != 200:
        wrong.append("the owner's own browser is locked out")

    with valkey(stage) as shared, web(stage, REDIS_URL=shared.url) as (port, _):
        together = at_once([partial(_guess, port, targets[2])] * 50)
    parallel = sum(together)
    if parallel > 11:
        wrong.append(f"of 50 at once {parallel} were looked at")
    note = f"looked at: {alone} of {count} from one address, {spread} of {count} from as many, {parallel} of 50 at once"
    return Outcome(2 * count + 50, wrong, f"{note}; the owner's browser gets in")


def _guess(port: int, login: str, password: str = "no") -> bool:
    page = ask(port, "GET", "/accounts/login/")
    cookie = re.findall("csrftoken=[^;]+", page.headers.get("set-cookie", ""))
    hidden = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.content.decode())
    fields = {"login": login, "password": password, "csrfmiddlewaretoken": hidden[0]}
    kind = "application/x-www-form-urlencoded"
    answer = ask(
        port, "POST", "/accounts/login/", urlencode(fields).encode(), Cookie=cookie[0], Content_Type=kind
    )
    return was_checked(answer.status, answer.content.decode(errors="replace"))


# --- F33 -----------------------------------------------------------------------------------------------------

# Keeps whatever does not say that it may not be kept: the carelessest proxy that still obeys.
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log; worker_processes 1;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  proxy_cache_path {folder}/cache keys_zone=all:10m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{web}; proxy_set_header Host localhost;
      proxy_cache all; proxy_cache_valid any 10m; add_header X-Cache $upstream_cache_status always;
    }}
  }}
}}
"""


def through_a_cache(stage: Stage) -> Outcome:
    """every address through a caching proxy, as its owner and then as nobody; also with .css and .js at the end"""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        return Outcome(0, not_run="there is no nginx on this machine")
    paths, person = _private_things()
    cookie, token = signed_in(person), token_of(person)
    wrong, shown, hits, asked = [], 0, 0, 0
    web_port, port = shared_web(stage), free_port()
    with _nginx(stage, binary, port, web_port):
        for path in paths:
            for variant in (path, f"{path.rstrip('/')}/a.css", f"{path.rstrip('/')}.js", f"{path}?v=1"):
                signs: list[dict[str, Any]] = [{"Cookie": cookie}, {"token": token}]
                for who in signs:
                    shown += SECRET in ask(port, "GET", variant, **who).content
                    answer = ask(port, "GET", variant)
                    hits += answer.headers.get("x-cache") == "HIT"
                    asked += 1
                    if SECRET in answer.content:
                        wrong.append(f"{variant}: {answer.headers.get('cache-control')}")
                    if answer.is_ours:
                        wrong.append(f"{variant}: {answer.status}")
    if shown < 10 or not hits:
        wrong.append(f"{shown} private answers and {hits} from the cache: nothing was tried")
    return Outcome(
        asked, wrong, f"0 private bytes to anybody else; {shown} private answers, {hits} from the cache"
    )


@contextmanager
def _nginx(stage: Stage, binary: str, port: int, web_port: int) -> Iterator[None]:
    folder = stage.folder / "nginx"
    folder.mkdir(exist_ok=True)
    as_root = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(as_root + NGINX.format(folder=folder, port=port, web=web_port))
    process = subprocess.Popen([binary, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _private_things() -> tuple[list[str], Any]:
    """Every address that can be asked for, about things that this person alone may see; they hold SECRET."""
    from compose.engine.types import Example
    from registry.models import Adapter, BaseModel
    from tests.compose.factories import make_composition
    from tests.factories import make_adapter, make_organisation, make_user
    from tests.test_rights_matrix import ROUTES

    world()
    secret = SECRET.decode()
    person = make_user()
    lab = make_organisation(members={person: "admin"})
    adapter = make_adapter(
        "target",
        namespace=lab,
        visibility="private",
        description=secret,
        base_model=BaseModel.objects.get(name="demo/tiny-t5"),
        files={
            "README.md": f"# {secret}".encode(),
            "adapter_config.json": b"{}",
            "adapter_model.safetensors": SECRET,
        },
    )
    assert isinstance(adapter, Adapter)
    assert adapter.head
    examples = [Example(f"{secret} {number}", "answer") for number in range(5)]
    job = make_composition(owner=person, base_model=adapter.base_model, title=secret, examples=examples)
    known = {"lab/target": adapter.full_name, "COMMIT": adapter.head.commit, "JOB": job.pk}
    paths = []
    for route in ROUTES.values():
        if "GET" in route.needs and "logout" not in route.url:
            path = route.url
            for name, value in known.items():
                path = path.replace(name, value)
            paths.append(path)
    return [*paths, f"/{lab.name}", f"/{person.username}", "/modules", "/compositions"], person


# --- F40 -----------------------------------------------------------------------------------------------------


def planted_secrets(stage: Stage) -> Outcome:
    """a password, a token, a signed address and few-shot texts planted in requests and failing jobs, logs at their most"""
    from compose.models import Composition

    base_model, people = world()
    mark = f"planted{stage.generator.randrange(10**9)}"
    token = token_of(people[0])
    planted = {"password": f"{mark}-password", "token": token, "few-shot text": f"{mark}-text"}
    logs = {"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}
    count = stage.times(20)
    ids: list[str] = []
    own = replace(stage, folder=stage.folder / "planted", servers=ExitStack())
    own.folder.mkdir()
    shutil.copytree(stage.folder / "blobs", own.folder / "blobs")
    shutil.copytree(stage.folder / "static", own.folder / "static")
    with web(own, **logs) as (port, _), workers(own, 1, **logs) as nursery:
        for number in range(count):
            _guess(port, people[0].username, planted["password"])
            ask(port, "GET", f"/settings?token={token}", token=token)
            ask(
                port,
                "POST",
                "/api/v1/compositions/",
                b"{" + token.encode(),
                token=token,
                Content_Type="application/json",
            )
            ask(port, "POST", "/api/v1/adapters/", {"name": planted["few-shot text"]}, token=token)
            ask(port, "GET", "/api/v1/adapters/", token=f"{token}x")
            sent = Sending(port, token, f"{people[0].username}/none", b"x" * Sending.SIZE)
            sent.commit(size=1)
            for trouble in ("question", "boom", "bad"):
                body = composition(base_model.name, number)
                body["examples"] += [
                    {"input": text, "output": "a"} for text in (planted["few-shot text"], trouble)
                ]
                answer = ask(port, "POST", "/api/v1/compositions/", body, token=token)
                ids += [answer.json()["id"]] if answer.status == 201 else []
        wait_until_all_ended(ids, seconds=60 + 5 * len(ids), nursery=nursery)
        told = {path: ask(port, "GET", path).content.decode() for path in ("/status", "/api/v1/status/")}
    told |= {path.name: path.read_text(errors="replace") for path in own.folder.glob("*.log")}
    rows = Composition.objects.filter(pk__in=ids)
    told["reasons and logs of jobs"] = " ".join(
        f"{row.error} {' '.join(row.log.values_list('text', flat=True))}" for row in rows
    )
    wrong = [
        f"the {what} is in {where}"
        for where, text in told.items()
        for what, one in planted.items()
        if one in text
    ]
    ended = dict(Counter(rows.values_list("status", flat=True)))
    if len(ended) < 2 or "a secret of ours" not in told["workers.log"]:
        wrong.append(f"the jobs ended as {ended}: nothing was tried")
    size = sum(map(len, told.values())) // 1000
    return Outcome(
        9 * count,
        wrong,
        f"0 in {size} kB of logs, reasons, job logs and status ({len(ids)} jobs, two thirds failing)",
    )


TRIALS: dict[str, Trial] = {
    "F26": change_of_rights,
    "F31": enumeration,
    "F32": guesses,
    "F33": through_a_cache,
    "F40": planted_secrets,
}
