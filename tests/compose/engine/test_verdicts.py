"""Intervals, tests and the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from compose.engine.metrics import ROUGE_L, TOKEN_F1
from compose.engine.verdicts import (
    flip_test,
    in_words,
    mean_interval,
    p_value,
    score_of,
    sign_test,
    verdict,
    wilson_interval,
)


def test_the_wilson_interval_is_the_published_one():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 5) == pytest.approx((0.0, 0.4345), abs=1e-4)


def test_a_score_by_exact_match_is_the_share_of_hits_with_wilsons_interval():
    score = score_of("lorahub", "exact_match", [1.0, 0.0, 1.0, 1.0], split="held_out")
    assert (score.value, score.n, score.split) == (0.75, 4, "held_out")
    assert (score.low, score.high) == wilson_interval(3, 4)


def test_a_score_by_another_metric_is_the_mean_of_the_rows():
    score = score_of("lorahub", TOKEN_F1, [0.2, 0.4, 0.6], split="held_out")
    assert (score.metric, score.value, score.n) == (TOKEN_F1, pytest.approx(0.4), 3)
    assert (score.low, score.high) == mean_interval([0.6, 0.2, 0.4])  # whatever the order
    assert score.low < 0.4 < score.high


@pytest.mark.parametrize(("right", "n"), [(0, 5), (2, 5), (5, 5), (17, 40)])
def test_of_hits_and_misses_the_interval_of_a_mean_is_wilsons(right: int, n: int):
    values = [1.0] * right + [0.0] * (n - right)
    assert mean_interval(values) == pytest.approx(wilson_interval(right, n))


def test_rows_that_are_all_alike_are_not_taken_for_certain():
    low, high = mean_interval([0.5] * 10)
    assert low < 0.4
    assert high > 0.6
    narrower = mean_interval([0.5] * 1000)
    assert narrower[0] > low
    assert narrower[1] < high


# What rows of a free text are worth: (mean, how n rows of `trials` simulations are drawn).
DISTRIBUTIONS = {
    "in the middle": (2 / 7, lambda draw, shape: draw.beta(2, 5, shape)),
    "nearly alike": (0.5, lambda draw, shape: draw.beta(20, 20, shape)),
    "at both ends": (0.3, lambda draw, shape: draw.beta(0.3, 0.7, shape)),
    "most nothing": (0.15, lambda draw, shape: (draw.random(shape) < 0.3) * draw.random(shape)),
    "most right": (0.9, lambda draw, shape: np.where(draw.random(shape) < 0.8, 1.0, draw.random(shape))),
}


@pytest.mark.parametrize("n", [5, 9, 30])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_interval_of_a_mean_covers_it_in_simulation(name: str, n: int):
    truth, rows = DISTRIBUTIONS[name]
    simulated = rows(np.random.Generator(np.random.PCG64(7)), (1_500, n))
    intervals = [mean_interval(values) for values in simulated.tolist()]
    assert np.mean([low <= truth <= high for low, high in intervals]) > 0.92


def test_it_covers_less_where_what_makes_the_difference_is_seldom_seen():
    draw = np.random.Generator(np.random.PCG64(7))
    simulated = np.where(draw.random((1_500, 30)) < 0.05, 1.0, 0.1)
    intervals = [mean_interval(values) for values in simulated.tolist()]
    assert 0.75 < np.mean([low <= 0.145 <= high for low, high in intervals]) < 0.92


def test_with_many_rows_it_is_hardly_wider_than_it_has_to_be():
    draw = np.random.Generator(np.random.PCG64(8))
    values = draw.beta(2, 5, 400)
    low, high = mean_interval(values.tolist())
    assert high - low < 1.1 * 2 * 1.96 * values.std() / 20


def test_the_sign_test_looks_only_at_rows_that_differ():
    assert sign_test([True] * 9, [True] * 9) == 1.0
    assert sign_test([True] * 5 + [False], [False] * 5 + [False]) == pytest.approx(2 / 32)
    assert sign_test([True] * 10, [False] * 10) < 0.01


@pytest.mark.parametrize(("only_ours", "only_theirs"), [(0, 0), (5, 0), (7, 2), (4, 4), (1, 11)])
def test_of_hits_and_misses_the_flip_test_is_the_sign_test(only_ours: int, only_theirs: int):
    ours = [1.0] * only_ours + [0.0] * only_theirs + [1.0] * 3
    theirs = [0.0] * only_ours + [1.0] * only_theirs + [1.0] * 3
    assert flip_test(ours, theirs) == pytest.approx(p_value("exact_match", ours, theirs))


def test_drawn_flips_come_near_to_all_of_them_and_are_the_same_every_time():
    ours, theirs = [1.0] * 16 + [0.0] * 5, [0.0] * 16 + [1.0] * 5
    drawn = flip_test(ours, theirs)
    assert drawn == pytest.approx(sign_test([True] * 16 + [False] * 5, [False] * 16 + [True] * 5), abs=0.005)
    assert drawn == flip_test(ours, theirs)


def test_the_flip_test_seldom_sees_what_is_not_there():
    draw = np.random.Generator(np.random.PCG64(9))
    pairs = [(draw.beta(0.5, 1, 10), draw.beta(0.5, 1, 10)) for _ in range(400)]
    assert np.mean([flip_test(ours.tolist(), theirs.tolist()) < 0.05 for ours, theirs in pairs]) < 0.075


def test_a_small_gain_on_every_row_is_clear_and_the_same_gain_among_noise_is_not():
    draw = np.random.Generator(np.random.PCG64(10))
    theirs = draw.random(20) * 0.8
    assert flip_test((theirs + 0.05).tolist(), theirs.tolist()) < 0.001
    assert flip_test(draw.permutation(theirs + 0.05).tolist(), theirs.tolist()) > 0.2


def hits(right: int, n: int) -> list[bool]:
    return [index < right for index in range(n)]


def test_the_verdict_says_better_only_where_the_difference_is_clear():
    said = verdict("lorahub", {"zero_shot": hits(2, 200), "lorahub": hits(80, 200)}, split="held_out")
    assert said == (
        "Better: the composed adapter gets 80 of 200 rows right, against 2 for the base model alone on held-out rows."
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [(81, 80, "Not clearly better"), (80, 80, "No better"), (79, 80, "No better"), (20, 80, "Worse")],
)
def test_the_verdict_says_which_it_is_where_it_is_not_better(ours: int, theirs: int, said: str):
    found = {"best_single": hits(theirs, 200), "lorahub": hits(ours, 200)}
    sentence = verdict("lorahub", found, split="held_out", single="m")
    assert sentence == (
        f"{said}: the composed adapter gets {ours} of 200 rows right, against {theirs} for the best single module (m) "
        "on held-out rows."
    )


def test_the_verdict_compares_with_the_strongest_baseline():
    found = {"zero_shot": hits(1, 50), "uniform": hits(40, 50), "lorahub": hits(20, 50)}
    assert "against 40 for the uniform average" in verdict("lorahub", found, split="held_out")


def test_of_several_strongest_baselines_the_verdict_names_all():
    found = {
        "zero_shot": hits(9, 50),
        "best_single": hits(9, 50),
        "uniform": hits(3, 50),
        "auto": hits(40, 50),
    }
    both = "against 9 for each of the base model alone and the best single module (m) on held-out rows."
    assert both in verdict("auto", found, split="held_out", single="m")
    found["uniform"] = hits(9, 50)
    assert "against 9 for every baseline on" in verdict("auto", found, split="held_out", single="m")


def test_of_several_strongest_baselines_the_verdict_has_to_hold_against_each():
    ours = hits(40, 60)
    first, last = hits(30, 60), hits(30, 60)[::-1]
    assert sign_test(ours, first) < 0.05 < sign_test(ours, last)
    for found in ({"zero_shot": first, "uniform": last}, {"zero_shot": last, "uniform": first}):
        said = verdict("auto", {**found, "in_context": hits(1, 60), "auto": ours}, split="held_out")
        assert said.startswith("Not clearly better")


def test_few_rows_are_too_few_unless_the_difference_is_overwhelming():
    few = {"zero_shot": hits(1, 9), "lorahub": hits(3, 9)}
    assert verdict("lorahub", few, split="held_out").startswith("Too few rows to tell")
    clear = {"zero_shot": hits(0, 9), "lorahub": hits(9, 9)}
    assert verdict("lorahub", clear, split="held_out").startswith("Better")


def test_a_leave_one_out_estimate_is_called_unscored():
    said = verdict("lorahub", {"zero_shot": hits(0, 5), "lorahub": hits(5, 5)}, split="leave_one_out")
    assert said.startswith("Not scored on held-out rows")
    assert "5 of 5 rows right" in said


def shares(value: float, n: int) -> list[float]:
    return [value] * n


def test_by_another_metric_the_verdict_names_it_with_both_means():
    found = {"zero_shot": shares(0.2, 40), "uniform": shares(0.41, 40), "auto": shares(0.625, 40)}
    assert verdict("auto", found, metric=TOKEN_F1, split="held_out") == (
        "Better: the composed adapter gets a mean token F1 of 0.625 over 40 rows, against 0.410 for the uniform average "
        "of the modules on held-out rows."
    )
    worse = {"zero_shot": shares(0.7, 40), "auto": shares(0.625, 40)}
    assert verdict("auto", worse, metric=ROUGE_L, split="held_out").startswith(
        "Worse: the composed adapter gets a mean ROUGE-L of 0.625"
    )


def test_by_another_metric_too_few_rows_are_too_few():
    few = {"zero_shot": shares(0.2, 5), "auto": shares(0.9, 5)}
    assert verdict("auto", few, metric=TOKEN_F1, split="held_out").startswith("Too few rows to tell")
    alike = {"zero_shot": shares(0.5, 40), "auto": shares(0.5, 40)}
    assert verdict("auto", alike, metric=TOKEN_F1, split="held_out").startswith("No better")
    said = verdict("auto", few, metric=TOKEN_F1, split="leave_one_out")
    assert said.startswith("Not scored on held-out rows")
    assert "a mean token F1 of 0.900 over 5 rows, against 0.200" in said


def test_rows_in_words():
    assert in_words("exact_match", [1.0, 0.0, 1.0]) == "2 of 3 rows right"
    assert in_words("exact_match", [1.0]) == "1 of 1 row right"
    assert in_words(ROUGE_L, [0.25, 0.5]) == "a mean ROUGE-L of 0.375 over 2 rows"
