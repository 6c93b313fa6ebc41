"""Charts are pure functions: what is drawn where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from django.template import Context, Template

from compose import charts
from compose.charts import Weighted


@dataclass
class FakeScore:
    method: str
    value: float
    low: float = 0.0
    high: float = 1.0
    n: int = 200
    metric: str = "exact_match"


def trials(*losses: float) -> list[SimpleNamespace]:
    return [SimpleNamespace(number=number, loss=loss) for number, loss in enumerate(losses, 1)]


def position(text: str) -> float:
    return float(text.removesuffix("%"))


def render(source: str, **context: object) -> str:
    return Template("{% load charts %}" + source).render(Context(context))


def test_our_method_comes_last_and_is_highlighted_and_the_best_baseline_is_marked():
    chart = charts.score_chart(
        [FakeScore("lorahub", 0.6), FakeScore("zero_shot", 0.1), FakeScore("uniform", 0.3)], ours="lorahub"
    )
    assert [dot.method for dot in chart.dots] == ["zero_shot", "uniform", "lorahub"]
    assert [dot.is_ours for dot in chart.dots] == [False, False, True]
    assert [dot.is_best_baseline for dot in chart.dots] == [False, True, False]
    assert chart.dots[-1].label == "Composed here"


def test_of_baselines_that_tie_each_is_marked_and_called_so():
    scores = [
        FakeScore("lorahub", 0.6), FakeScore("zero_shot", 0.2), FakeScore("uniform", 0.2), FakeScore("in_context", 0)
    ]  # fmt: skip
    chart = charts.score_chart(scores, ours="lorahub")
    assert [dot.is_best_baseline for dot in chart.dots] == [True, True, False, False]
    drawn = render("{% score_chart scores 'lorahub' exact %}", scores=scores, exact={})
    assert drawn.count("best baseline, a tie") == 2
    alone = render("{% score_chart scores 'lorahub' exact %}", scores=scores[:2], exact={})
    assert "best baseline" in alone
    assert "a tie" not in alone


def test_where_all_baselines_tie_none_is_marked():
    scores = [FakeScore("lorahub", 0.6), FakeScore("zero_shot", 0), FakeScore("uniform", 0)]
    assert "best baseline" not in render("{% score_chart scores 'lorahub' exact %}", scores=scores, exact={})


def test_a_dot_lies_inside_its_interval_and_inside_the_plot():
    dot = charts.score_chart([FakeScore("lorahub", 1.0, low=0.9, high=1.0)], ours="lorahub").dots[0]
    assert 0 < position(dot.x_low) < position(dot.x) <= position(dot.x_high) < 100


def test_the_accessible_name_of_a_score_chart_says_every_number():
    chart = charts.score_chart(
        [FakeScore("zero_shot", 0.12, 0.1, 0.2), FakeScore("lorahub", 0.6)], ours="lorahub"
    )
    assert "Zero-shot 0.12 (0.10 to 0.20)" in chart.name
    assert "Composed here 0.60" in chart.name


def test_weights_start_at_zero_to_the_right_when_they_add_and_end_there_when_they_take_away():
    chart = charts.weight_chart([Weighted("a", 1.0), Weighted("b", -0.5)])
    adds, takes = chart.bars
    assert chart.zero == adds.x
    assert position(takes.x) + position(takes.width) == pytest.approx(position(chart.zero), abs=0.02)
    assert (adds.adds, takes.adds) == (True, False)
    assert (adds.signed_weight, takes.signed_weight) == ("+1.00", "−0.50")


def test_weights_are_sorted_by_size_and_only_those_of_zero_are_left_out():
    chart = charts.weight_chart(
        [Weighted("a", 0.1), Weighted("b", -0.9), Weighted("c", 0.0, audition_loss=2.0)]
    )
    assert [bar.label for bar in chart.bars] == ["b", "a"]
    assert [bar.label for bar in chart.left_out] == ["c"]


def test_live_weights_keep_their_places():
    chart = charts.weight_chart([Weighted("a", 0.1), Weighted("b", -0.9), Weighted("c", 0.0)], is_live=True)
    assert [bar.label for bar in chart.bars] == ["a", "b", "c"]
    assert chart.zero == "50.00%"


def test_no_weight_at_all_is_a_chart_without_bars():
    assert charts.weight_chart([Weighted("a", 0.0)]).bars == []
    assert charts.weight_chart([]).bars == []


def test_the_best_so_far_never_rises():
    chart = charts.search_chart(trials(5, 3, 4, 2, 6), most=5)
    heights = [float(corner.split(",")[1]) for corner in chart.line.split()]
    assert heights == sorted(heights)  # y grows downwards
    assert (chart.best, chart.best_number) == (2, 4)


def test_an_unfinished_search_leaves_room_for_the_rest_of_its_budget():
    chart = charts.search_chart(trials(5, 4), most=40)
    assert position(chart.points[-1].x) < 15


def test_levels_name_what_is_to_be_beaten_and_do_not_cover_each_other():
    chart = charts.search_chart(trials(5, 4), most=2, base_loss=4.01, best_single=4.0)
    upper, lower = chart.levels
    assert (upper.label, lower.label) == ("base model", "best single module")
    assert position(lower.y_label) - position(upper.y_label) > 8


def test_trials_far_above_the_rest_are_drawn_at_the_edge_and_counted():
    chart = charts.search_chart(trials(*[2.0] * 19, 900.0), most=20)
    assert chart.above == 1
    assert [point.is_above for point in chart.points].count(True) == 1
    assert position(chart.points[0].y) > 5


def test_a_loss_that_is_no_number_is_not_drawn():
    chart = charts.search_chart(trials(math.nan, math.inf, 2.0), most=3)
    assert len(chart.points) == 1
    assert chart.count == 3


def test_a_search_without_trials_is_an_empty_chart():
    chart = charts.search_chart([], most=40)
    assert chart.points == []
    assert "none evaluated yet" in chart.name


def test_two_thousand_trials_stay_a_small_chart_that_keeps_every_new_best():
    losses = [10 - number / 400 if number % 100 == 0 else 11 for number in range(2000)]
    chart = charts.search_chart(trials(*losses), most=2000)
    assert len(chart.points) < charts.MAX_DRAWN_TRIALS + 25
    assert chart.drawn_every == 7
    assert (chart.best, chart.best_number) == (10 - 1900 / 400, 1901)


@pytest.mark.parametrize("top", [0.003, 0.2, 1.0, 4.7, 8.7, 19.0, 1234.0])
def test_the_axis_has_a_few_round_ticks_from_zero(top: float):
    chart = charts.search_chart(trials(top), most=1)
    labels = [tick.label for tick in chart.ticks]
    assert 3 <= len(labels) <= 8
    assert float(labels[0]) == 0
    assert len(set(labels)) == len(labels)


def test_a_drawn_chart_has_a_name_a_table_and_no_style():
    html = render(
        "{% score_chart scores 'lorahub' %}{% search_chart search %}",
        scores=[FakeScore("zero_shot", 0.1), FakeScore("lorahub", 0.6)],
        search=charts.search_chart(trials(3, 2), most=2, base_loss=3),
    )
    assert 'role="img" aria-label="Score of each method' in html
    assert "<summary>Scores as a table</summary>" in html
    assert "best baseline" in html
    assert "style=" not in html
    assert "nan" not in html.lower()


def test_a_name_with_markup_is_drawn_as_text():
    chart = charts.weight_chart([Weighted("<script>alert(1)</script>", 1.0, url="/a/b")])
    assert "<script>" not in render("{% weight_chart chart %}", chart=chart)


def test_a_sparkline_draws_the_largest_weights_only():
    spark = charts.weight_sparkline([0.1 * number for number in range(-10, 11)])
    assert len(spark.bars) == charts.MAX_SPARKS
    assert charts.weight_sparkline([]).bars == []


def test_a_sparkline_says_the_weights_that_there_are():
    assert charts.weight_sparkline([0.5, 0.0, 0.3]).name == "2 modules with a weight, from +0.30 to +0.50"
    assert charts.weight_sparkline([0.0]).name == "0 modules with a weight"


def test_a_long_mix_folds_its_smaller_weights():
    chart = charts.weight_chart([Weighted(f"m{number}", 1 - number / 100) for number in range(30)])
    assert len(chart.first_bars) == charts.MAX_OPEN_BARS
    assert len(chart.first_bars + chart.folded_bars) == 30
    assert "18 more with smaller weights" in render("{% weight_chart chart %}", chart=chart)


def test_the_live_chart_of_a_large_mix_shows_the_largest_in_their_places():
    modules = [Weighted(f"m{number}", number / 100) for number in range(200)]
    chart = charts.weight_chart(modules, is_live=True)
    assert [bar.label for bar in chart.first_bars] == [f"m{number}" for number in range(170, 200)]


def test_modules_that_look_alike_have_bars_of_their_own():
    chart = charts.weight_chart([Weighted("hidden", 0.5), Weighted("hidden", 0.5)], is_live=True)
    assert [bar.place for bar in chart.bars] == [0, 1]


def test_a_small_weight_is_printed_with_the_digits_it_needs():
    bars = charts.weight_chart([Weighted("a", 0.5), Weighted("b", -0.0004)]).bars
    assert [bar.signed_weight for bar in bars] == ["+0.50", "−0.0004"]


def test_a_number_that_is_shown_as_zero_has_no_sign():
    shown = Template("{% load formatting %}{{ value|decimals }} {{ value|signed }}")
    assert shown.render(Context({"value": -0.001})) == "0.00 0.00"
    assert shown.render(Context({"value": -0.25})) == "−0.25 −0.25"
