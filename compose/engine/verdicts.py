"""From what single rows are worth to numbers with intervals, and to one plain sentence about them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from compose.engine.metrics import EXACT_MATCH, best_of, label_of, mean
from compose.engine.types import Score
from compose.engine.wording import GIVE_TEST_ROWS

# Fewer rows than this cannot separate two methods at the 5 % level unless they differ nearly everywhere.
ENOUGH_ROWS = 30

LABELS = {
    "zero_shot": "the base model alone",
    "best_single": "the best single module",
    "uniform": "the uniform average of the modules",
    "in_context": "the examples put in front of the question",
    "lorahub": "LoraHub as published",
}

_Z = 1.959964  # of a normal distribution, 95 %
_PSEUDO_ROWS = 4
_FLIPS, _FLIPS_AT_ONCE, _FLIPS_SEED = 9_999, 500, 1
_MOST_ENUMERATED = 12  # differing rows, whose 4,096 flips are all looked at


# --- Numbers -------------------------------------------------------------------------------------------------------


def score_of(method: str, metric: str, values: Sequence[float], *, split: str) -> Score:
    """The mean of the rows with its 95 % interval: Wilson's of a share of hits, `mean_interval` of other values."""
    n = len(values)
    low, high = wilson_interval(sum(values), n) if metric == EXACT_MATCH else mean_interval(values)
    return Score(method, metric, mean(values), low, high, n, split)


def wilson_interval(hits: float, n: float, z: float = _Z) -> tuple[float, float]:
    """Wilson score interval of a share, by default 95 %."""
    share = hits / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of values from 0 to 1: Wilson's, for as many hits and misses as say the same.

    The mean of n values with variance v is as certain as a share of m (1 - m) n / v hits and misses, m being the mean
    (effective sample size; Korn and Graubard 1998, Survey Methodology 24, 193-201; Wilson's interval for it: Dean and
    Pagano 2015, JSSAM 3, 484-503). So rows that are all right or all wrong get the Wilson interval itself. The variance
    of few rows is often too small by chance, and 0 where all are alike; so it is taken with four rows more of the
    largest variance that values of this mean can have, m (1 - m), much as Agresti and Coull 1998 add four to a share.

    No row is drawn, so the same rows give the same interval in any order, and the mean is always inside. A percentile
    bootstrap and Student's t cover 15 to 60 % instead of 95 where nearly all of few rows are 0; Hoeffding's and
    Bernstein's bounds always cover, and with tens of rows are so wide that they say little. Simulated coverage
    (tests/compose/engine/test_verdicts.py) is 0.92 and more for 5 rows and up. It is less, as little as 0.75, where all
    rows are worth the same but for one in twenty, and none of those is among a few tens: nothing then speaks of them.
    """
    n, middle = len(values), mean(values)
    largest = middle * (1 - middle)
    if largest <= 0:  # all 0 or all 1
        return wilson_interval(middle * n, n)
    squares = math.fsum((value - middle) ** 2 for value in values)
    variance = (squares + _PSEUDO_ROWS * largest) / (n + _PSEUDO_ROWS)
    rows = n * largest / variance
    return wilson_interval(middle * rows, rows)


# --- Comparing two methods on the same rows -----------------------------------------------------------------------


def p_value(metric: str, first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided, that two methods are as good as each other, from what the same rows are worth for both."""
    if metric == EXACT_MATCH:
        return sign_test([bool(value) for value in first], [bool(value) for value in second])
    return flip_test(first, second)


def sign_test(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact p-value (McNemar) that two methods are right equally often, on the rows where they differ."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differing = only_first + only_second
    tail = sum(math.comb(differing, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**differing)


def flip_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value that it does not matter which of two methods a row's value is from (paired permutation test).

    If it does not, each difference could as well have the other sign: the p-value is the share of all flips whose sum
    is as large as what was seen. Of hits and misses it is the sign test. It assumes no distribution, so few rows and
    lumps at 0 and 1 are no harm. All flips of up to 12 differing rows are looked at, else 9,999 drawn by a fixed
    seed, the seen one counted among them. Sources: Fisher 1935, The Design of Experiments, section 21; for means of
    such metrics: Yeh 2000, More accurate tests for the statistical significance of result differences, COLING.
    """
    pairs = zip(first, second, strict=True)
    found = np.array([a - b for a, b in pairs if a != b], dtype=np.float64)  # (differing,)
    if not found.size:
        return 1.0
    seen = abs(found.sum()) - 1e-9 * np.abs(found).sum()  # equal sums differ by rounding
    if found.size <= _MOST_ENUMERATED:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=found.size)))
        return float(np.mean(np.abs(signs @ found) >= seen))
    generator = np.random.Generator(np.random.PCG64(_FLIPS_SEED))
    as_large = 0
    for start in range(0, _FLIPS, _FLIPS_AT_ONCE):
        drawn = min(_FLIPS_AT_ONCE, _FLIPS - start)
        signs = 2.0 * generator.integers(0, 2, size=(drawn, found.size), dtype=np.int8) - 1.0
        as_large += int(np.count_nonzero(np.abs(signs @ found) >= seen))
    return (1 + as_large) / (1 + _FLIPS)


# --- In words ------------------------------------------------------------------------------------------------------


def in_words(metric: str, values: Sequence[float]) -> str:
    """`12 of 40 rows right`, or `a mean token F1 of 0.312 over 40 rows`."""
    rows = "1 row" if len(values) == 1 else f"{len(values)} rows"
    if metric == EXACT_MATCH:
        return f"{short(metric, values)} of {rows} right"
    return f"a mean {label_of(metric)} of {short(metric, values)} over {rows}"


def short(metric: str, values: Sequence[float]) -> str:
    """`12`, or `0.312`."""
    return f"{sum(values):.0f}" if metric == EXACT_MATCH else f"{mean(values):.3f}"


def verdict(
    method: str,
    values: Mapping[str, Sequence[float]],
    *,
    metric: str = EXACT_MATCH,
    split: str,
    single: str = "",
) -> str:
    """One plain sentence: is the method better than the strongest baseline on these rows?

    Where several are the strongest it names them all, and is better only where that is clear against each.

    Args:
        method: the method that ran; every other key of `values` is a baseline.
        values: for every method, what each row is worth by `metric`.
        single: name of the best single module, for the sentence.
    """
    ours = values[method]
    baselines = {name: mean(theirs) for name, theirs in values.items() if name != method}
    strongest = best_of(baselines)
    theirs = short(metric, values[strongest[0]])
    counts = f"{in_words(metric, ours)}, against {theirs} for {_label(strongest, of=len(baselines), single=single)}"
    if split != "held_out":
        return f"Not scored on held-out rows: with each example left out in turn, {counts}. {GIVE_TEST_ROWS}"
    is_more = mean(ours) > baselines[strongest[0]]
    if max(p_value(metric, ours, values[name]) for name in strongest) < 0.05:
        how = "Better" if is_more else "Worse"
    elif len(ours) >= ENOUGH_ROWS:
        how = "Not clearly better" if is_more else "No better"
    else:
        how = "Too few rows to tell"
    return f"{how}: the composed adapter gets {counts} on held-out rows."


def _label(names: Sequence[str], *, of: int, single: str) -> str:
    """`the base model alone`; of several that tie, all of them, or `every baseline`."""
    if len(names) == of > 1:
        return "every baseline"
    labels = [
        LABELS.get(name, name) + (f" ({single})" if name == "best_single" and single else "")
        for name in names
    ]
    if len(labels) == 1:
        return labels[0]
    return f"each of {', '.join(labels[:-1])} and {labels[-1]}"
