"""A broker that is gone, loses everything, or hands out twice: real Celery workers with the fake engine."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.chaos.asking import ask, composition
from benchmarks.chaos.jobs import ask_for, wait_until_all_ended, what_is_wrong
from benchmarks.chaos.servers import BEAT, CHORES, Valkey, celery_worker, process, valkey, web
from benchmarks.chaos.stage import BUDGET, Outcome, Stage, Trial, token_of, world

MOST_OUTAGE_S = 600
VISIBILITY_TIMEOUT_S = 5
JOB_S = 15


def no_broker(stage: Stage) -> Outcome:
    """the broker killed while people submit, started again; and emptied with everything in it"""
    base_model, people = world()
    tokens = [token_of(person) for person in people]
    wrong: list[str] = []
    slowest = 0.0
    half = stage.times(100) // 2 or 1
    outage_s = max(10.0, MOST_OUTAGE_S * min(stage.scale, 1))
    with ExitStack() as stack:
        broker = stack.enter_context(valkey(stage))
        reached = {"REDIS_URL": broker.url}
        port, _ = stack.enter_context(web(stage, **reached))
        for name in ("one", "two"):
            stack.enter_context(process(stage, name, celery_worker(name), **reached))
        stack.enter_context(process(stage, "chores", CHORES, **reached))
        stack.enter_context(process(stage, "beat", BEAT, **reached))
        wait_for_workers(2)

        def submit(count: int, first: int) -> list[str]:
            nonlocal slowest
            ids = []
            for seed in range(first, first + count):
                began = time.monotonic()
                body = composition(base_model.name, seed)
                answer = ask(port, "POST", "/api/v1/compositions/", body, token=tokens[seed % len(tokens)])
                slowest = max(slowest, time.monotonic() - began)
                if answer.status == 201:
                    ids.append(answer.json()["id"])
                else:
                    wrong.append(f"{answer.status}: {answer.content[:80]!r}")
            return ids

        submit(4, 10_000)  # not counted: each web process loads what its first request needs
        slowest = 0.0
        broker.kill()
        began = time.monotonic()
        while_gone = submit(half, 0)
        time.sleep(max(0.0, outage_s - (time.monotonic() - began)))
        broker.start()
        began = time.monotonic()
        if not wait_until_all_ended(while_gone, seconds=300):
            wrong.append("not all of what was asked without a broker was done in five minutes")
        back_s = time.monotonic() - began

        emptied = _submit_and_empty(submit, half, broker)
        began = time.monotonic()
        if not wait_until_all_ended(emptied, seconds=300):
            wrong.append("not all of what the broker forgot was done in five minutes")
        again_s = time.monotonic() - began
    if slowest > 3:
        wrong.append(f"the slowest answer took {slowest:.1f} s")
    wrong += [line for pk in [*while_gone, *emptied] for line in what_is_wrong(pk)]
    note = (
        f"gone for {outage_s:.0f} s, all done {back_s:.0f} s after its return; emptied, all done {again_s:.0f} s "
        f"later; slowest answer {slowest:.2f} s"
    )
    return Outcome(2 * half, wrong, note)


def _submit_and_empty(submit: Callable[[int, int], list[str]], count: int, broker: Valkey) -> list[str]:
    """Empty the broker in the middle of it and at its end."""
    ids = submit(count - count // 2, count)
    broker.empty()
    ids += submit(count // 2, 2 * count)
    broker.empty()
    return ids


def wait_for_workers(count: int, *, seconds: float = 120) -> None:
    """Raises TimeoutError."""
    from compose.models import Worker

    end = time.monotonic() + seconds
    while Worker.objects.filter(is_leaving=False).count() < count:
        if time.monotonic() > end:
            raise TimeoutError("The workers did not come.")
        time.sleep(0.2)


def handed_out_twice(stage: Stage) -> Outcome:
    """jobs longer than the broker's visibility timeout, which hands them out a second time"""
    base_model, people = world()
    count = stage.times(100)
    hired = min(8, count)
    names = [f"twice-{number}" for number in range(hired)]
    with ExitStack() as stack:
        broker = stack.enter_context(valkey(stage))
        slow = {"FAKE_TRIAL_S": str(JOB_S / BUDGET), "FAKE_VISIBILITY_TIMEOUT_S": str(VISIBILITY_TIMEOUT_S)}
        reached = {"REDIS_URL": broker.url, "LOG_LEVEL": "INFO"}
        for name in names:
            stack.enter_context(process(stage, name, celery_worker(name), **reached, **slow))
        stack.enter_context(process(stage, "chores", CHORES, **reached))
        stack.enter_context(process(stage, "beat", BEAT, **reached))
        wait_for_workers(hired)
        ids = [ask_for(seed, base_model, people[seed % len(people)]).pk for seed in range(count)]
        ended = wait_until_all_ended(ids, seconds=120 + 60 * count / hired)
    wrong = [] if ended else ["not all ended"]
    wrong += [line for pk in ids for line in what_is_wrong(pk)]
    twice = _delivered_more_than_once(stage, names)
    if not twice:
        wrong.append("no message came twice, so nothing was tried")
    return Outcome(count, wrong, f"one result each; {twice} messages came more than once")


def _delivered_more_than_once(stage: Stage, names: list[str]) -> int:
    received: Counter[str] = Counter()
    for name in names:
        log = (stage.folder / f"{name}.log").read_text()
        received.update(re.findall(r"run_composition\[([0-9a-f-]+)\] received", log))
    return sum(times > 1 for times in received.values())


TRIALS: dict[str, Trial] = {"F13": no_broker, "F14": handed_out_twice}
