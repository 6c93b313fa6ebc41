"""LoraHub's search beside nevergrad's own ask and tell: the same points, whichever optimiser NGOpt chooses."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import nevergrad as ng
import numpy as np
import pytest

from compose.engine.search import BOUND, LoraHubSearch
from compose.engine.types import Trial

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::nevergrad.common.errors.NevergradWarning"
)
SEED = 42


def loss(weights: np.ndarray) -> float:
    return float(((weights - 0.3) ** 2).sum() + np.sin(5 * weights).sum())


def points_of_nevergrad(modules: int, budget: int) -> list[tuple[float, ...]]:
    """As the released package asks: seeded by the numbers of numpy's global state."""
    array = ng.p.Array(init=[0] * modules, upper=[BOUND] * modules, lower=[-BOUND] * modules)
    array.random_state = np.random.RandomState(np.random.RandomState(SEED).randint(2**32, dtype=np.uint32))
    optimizer = ng.optimizers.NGOpt(parametrization=array, budget=budget)
    asked, objective = [], LoraHubSearch(modules=modules, examples=5, budget=budget, seed=SEED).objective
    for _ in range(budget):
        candidate = optimizer.ask()
        asked.append(tuple(candidate.value.tolist()))
        optimizer.tell(candidate, objective(asked[-1], loss(candidate.value)))
    return asked


@pytest.mark.parametrize(
    ("modules", "budget"),
    [
        (20, 60),
        (2, 100),  # COBYLA arrives, and begins anew
        (1, 3),
        (1, 120),  # not COBYLA
    ],
)
def test_the_points_are_those_of_nevergrad(modules: int, budget: int):
    search = LoraHubSearch(modules=modules, examples=5, budget=budget, seed=SEED)
    asked: list[tuple[float, ...]] = []
    while vectors := search.ask():
        asked += vectors
        value = loss(np.array(vectors[0]))
        search.tell([Trial(len(asked), vectors[0], value, search.objective(vectors[0], value))])
    assert asked == points_of_nevergrad(modules, budget)


@pytest.mark.parametrize(
    ("modules", "budget"),
    [
        (20, 60),
        (3, 200),  # by the clock, if it were nevergrad's choice
        (20, 2000),  # so would this be
        (2, 500),
        (3, 1600),
    ],
)
def test_the_same_seed_asks_for_the_same_points_whatever_the_budget(modules: int, budget: int):
    asked: list[list[tuple[float, ...]]] = []
    for clock in (1, 2):
        np.random.seed(clock)
        search, points = LoraHubSearch(modules=modules, examples=5, budget=budget, seed=SEED), []
        for number in range(1, 41):
            [point] = search.ask()
            points.append(point)
            value = loss(np.array(point))
            search.tell([Trial(number, point, value, search.objective(point, value))])
        asked.append(points)
    assert asked[0] == asked[1]


def test_a_search_that_is_given_up_leaves_no_thread():
    before = set(threading.enumerate())
    search = LoraHubSearch(modules=4, examples=5, budget=40, seed=SEED)
    search.ask()
    assert len(set(threading.enumerate()) - before) == 1
    del search
    gc.collect()
    end = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_a_process_that_ends_in_the_midst_of_a_search_does_not_wait_for_it():
    script = (
        "from compose.engine.search import LoraHubSearch\n"
        "search = LoraHubSearch(modules=3, examples=5, budget=40, seed=42)\n"
        "print(len(search.ask()[0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
