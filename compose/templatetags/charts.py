"""Template tags that draw compose.charts: `{% score_chart scores ours=... %}` and its siblings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import template

from compose import charts
from compose.engine.metrics import METRICS, label_of

register = template.Library()


@register.inclusion_tag("compose/charts/_scores.html")
def score_chart(scores: Sequence[Any], ours: str, exact: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Dots with 95 % intervals, ours last and highlighted, the best baseline marked; table behind a toggle."""
    return {"chart": charts.score_chart(scores, ours=ours, exact=exact)}


@register.inclusion_tag("compose/charts/_mini_scores.html")
def mini_scores(scores: Sequence[Any], ours: str) -> dict[str, Any]:
    """The same in the size of a word, for lists."""
    return {"chart": charts.score_chart(scores, ours=ours)}


@register.inclusion_tag("compose/charts/_weights.html")
def weight_chart(chart: charts.BarChart) -> dict[str, Any]:
    """Diverging bars in a table: the chart is its own table."""
    return {"chart": chart}


@register.inclusion_tag("compose/charts/_search.html")
def search_chart(chart: charts.SearchChart) -> dict[str, Any]:
    """Best so far over faint trials, with the levels to beat."""
    return {"chart": chart}


@register.filter
def method_label(method: str) -> str:
    """`"best_single"|method_label` -> "Best single module"."""
    return charts.method_label(method)


@register.filter
def metric_label(name: str) -> str:
    """`"token_f1"|metric_label` -> "token F1"."""
    return label_of(name)


@register.filter
def metric_meaning(name: str) -> str:
    """One sentence about a metric; nothing about one that is not ours."""
    return METRICS[name].meaning if name in METRICS else ""


@register.inclusion_tag("compose/charts/_score_dot.html")
def score_dot(score: Any, is_baseline: bool = False) -> dict[str, Any]:
    """One score with its interval, in the size of a word."""
    chart = charts.score_chart([score], ours="" if is_baseline else score.method)
    return {"dot": chart.dots[0], "is_baseline": is_baseline}
