"""Jobs whose workers are killed, frozen, told to go, poisoned, and cancelled at the last moment."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from typing import Any

from benchmarks.chaos.servers import Nursery, workers
from benchmarks.chaos.stage import BUDGET, LEASE_S, Outcome, Stage, Trial, at_once, world

WORKERS = 3


def ask_for(seed: int, base_model: Any, owner: Any, text: str = "question") -> Any:
    from compose.engine.types import Example
    from tests.compose.factories import make_composition

    examples = [Example(f"{text} {number}" if text == "question" else text, "answer") for number in range(5)]
    return make_composition(owner=owner, base_model=base_model, budget=BUDGET, seed=seed, examples=examples)


def are_open(ids: list[str]) -> bool:
    from compose.models import Composition

    return Composition.objects.filter(pk__in=ids, status__in=["queued", "running"]).exists()


def wait_until_all_ended(ids: list[str], *, seconds: float, nursery: Nursery | None = None) -> bool:
    """Whether they did; a nursery is kept at its number of workers meanwhile."""
    end = time.monotonic() + seconds
    while are_open(ids):
        if time.monotonic() > end:
            return False
        if nursery is not None:
            nursery.tend(WORKERS)
        time.sleep(0.2)
    return True


def what_is_wrong(composition_id: str) -> list[str]:
    """Everything that a job which ended once, and as if nothing had happened, would not show."""
    from compose.models import Composition

    done = Composition.objects.get(pk=composition_id)
    if done.status != "succeeded":
        return [f"{done.pk} is {done.status}: {done.error[:80]}"]
    wrong = []
    generator = random.Random(done.seed)
    size = done.candidates.count()
    points = [tuple(generator.uniform(-1.5, 1.5) for _ in range(size)) for _ in range(done.budget)]
    if [tuple(trial.mixing_weights) for trial in done.trials.all()] != points:
        wrong.append(f"{done.pk} has other trials than an undisturbed run")
    best = min(points, key=_objective)
    if tuple(candidate.mixing_weight for candidate in done.candidates.all()) != best:
        wrong.append(f"{done.pk} has other weights than an undisturbed run")
    if done.scores.count() != 3 or done.weights_blob is None:
        wrong.append(f"{done.pk} has {done.scores.count()} scores")
    return wrong


def _objective(point: tuple[float, ...]) -> float:
    """The fake engine's."""
    loss = sum((weight - 1 / place) ** 2 for place, weight in enumerate(point, 1))
    return loss + 0.05 * sum(map(abs, point)) / len(point)


def kills_and_stalls(stage: Stage) -> Outcome:
    """workers killed, frozen for longer than their lease, and told to go, at random moments"""
    from compose.models import Composition

    base_model, people = world()
    ids = [ask_for(seed, base_model, people[seed % len(people)]).pk for seed in range(stage.times(300))]
    blows = {"killed": 0, "frozen": 0, "told to go": 0}
    frozen: list[tuple[float, int]] = []
    end = time.monotonic() + 60 + 5 * len(ids)
    with workers(stage, WORKERS) as nursery:
        while are_open(ids) and time.monotonic() < end:
            nursery.tend(WORKERS)
            time.sleep(stage.generator.uniform(0.1, 0.8))
            for due, pid in [one for one in frozen if one[0] < time.monotonic()]:
                frozen.remove((due, pid))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            pid = stage.generator.choice(nursery.pids)
            blow = stage.generator.choices(list(blows), [6, 2, 2])[0]
            blows[blow] += 1
            with suppress(ProcessLookupError):
                if blow == "frozen":
                    os.kill(pid, signal.SIGSTOP)
                    frozen.append((time.monotonic() + LEASE_S + 1.5, pid))
                    nursery.pids.remove(pid)
                else:
                    os.kill(pid, signal.SIGKILL if blow == "killed" else signal.SIGTERM)
    # Three losses end a job with a reason, as they should: those count apart.
    given_up = set(
        Composition.objects.filter(pk__in=ids, status="failed", losses__gte=2).values_list("pk", flat=True)
    )
    wrong = [line for pk in ids if pk not in given_up for line in what_is_wrong(pk)]
    again = Composition.objects.filter(pk__in=ids, attempt__gt=1).count()
    note = ", ".join(f"{count} × {blow}" for blow, count in blows.items())
    finished = len(ids) - len(given_up) - len(wrong)
    note = (
        f"{finished} finished once with the result of an undisturbed run, {again} ran more than once; {note}"
    )
    return Outcome(len(ids), wrong, f"{note}; {len(given_up)} lost three workers and say so")


def poison(stage: Stage) -> Outcome:
    """jobs that always kill their worker, among good ones"""
    from compose.models import Composition

    base_model, people = world()
    bad = [ask_for(n, base_model, people[n % len(people)], "die").pk for n in range(stage.times(20))]
    good = [ask_for(n, base_model, people[n % len(people)]).pk for n in range(stage.times(100))]
    with workers(stage, WORKERS) as nursery:
        wait_until_all_ended([*bad, *good], seconds=120 + 15 * len(bad), nursery=nursery)
    wrong = [line for pk in good for line in what_is_wrong(pk)]
    for pk in bad:
        done = Composition.objects.get(pk=pk)
        if (done.status, done.attempt) != ("failed", 3) or "was lost 3 times" not in done.error:
            wrong.append(f"{pk} is {done.status} after {done.attempt} attempts")
    note = f"{len(bad)} failed with the reason after three attempts, {len(good)} done"
    return Outcome(len(bad) + len(good), wrong, note)


def cancel_against_finish(stage: Stage) -> Outcome:
    """cancel against the writing of the result"""
    from compose import jobs
    from compose.engine.errors import Cancelled
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
            try:
                jobs.finish(claimed, result, **files)
            except Cancelled:
                jobs.confirm_cancelled(claimed)

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


TRIALS: dict[str, Trial] = {"F10": kills_and_stalls, "F12": poison, "F20": cancel_against_finish}
