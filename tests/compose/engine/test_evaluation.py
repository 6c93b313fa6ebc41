"""Matching, intervals and the verdict."""

from __future__ import annotations

import pytest

from compose.engine.evaluation import exact_match_score, matches, sign_test, verdict, wilson_interval


@pytest.mark.parametrize(("written", "expected"), [(" The cat.", "the cat"), ("A.B", "ab "), ("", ".")])
def test_case_edges_and_full_stops_do_not_matter(written: str, expected: str):
    assert matches(written, expected)


def test_other_differences_do():
    assert not matches("the cat!", "the cat")


def test_the_wilson_interval_is_the_published_one():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 5) == pytest.approx((0.0, 0.4345), abs=1e-4)


def test_a_score_is_the_share_of_hits():
    score = exact_match_score("lorahub", [True, False, True, True], split="held_out")
    assert (score.value, score.n, score.split) == (0.75, 4, "held_out")
    assert score.low < 0.75 < score.high


def test_the_sign_test_looks_only_at_rows_that_differ():
    assert sign_test([True] * 9, [True] * 9) == 1.0
    assert sign_test([True] * 5 + [False], [False] * 5 + [False]) == pytest.approx(2 / 32)
    assert sign_test([True] * 10, [False] * 10) < 0.01


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


def test_few_rows_are_too_few_unless_the_difference_is_overwhelming():
    few = {"zero_shot": hits(1, 9), "lorahub": hits(3, 9)}
    assert verdict("lorahub", few, split="held_out").startswith("Too few rows to tell")
    clear = {"zero_shot": hits(0, 9), "lorahub": hits(9, 9)}
    assert verdict("lorahub", clear, split="held_out").startswith("Better")


def test_a_leave_one_out_estimate_is_called_unscored():
    said = verdict("lorahub", {"zero_shot": hits(0, 5), "lorahub": hits(5, 5)}, split="leave_one_out")
    assert said.startswith("Not scored on held-out rows")
    assert "5 of 5 rows right" in said
