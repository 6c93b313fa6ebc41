"""Charts as numbers: pure functions from results to positions, which templates/compose/charts draws as SVG.

Positions are texts in per cent of the plot's width or height. An SVG without a viewBox then grows with its column
while dots, lines and letters keep their size, from a phone to print, and no script or style attribute is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from compose.engine.metrics import best_of, label_of
from web.templatetags.formatting import plural, signed

MAX_OPEN_BARS = 12
MAX_LIVE_BARS = 30  # of a larger mix the live page shows the largest weights
MAX_DRAWN_TRIALS = 300  # more dots than this are one smear, and cost the page 30 KB

METHOD_LABELS = {
    "zero_shot": "Zero-shot",
    "best_single": "Best single module",
    "uniform": "Uniform average",
    "in_context": "In context",
    "lorahub": "LoraHub",
    "auto": "Auto",
    "gradient": "Gradient",
}
METHOD_MEANINGS = {
    "zero_shot": "The base model alone.",
    "best_single": "The one module with the lowest loss on the examples.",
    "uniform": "All candidates with the same weight.",
    "in_context": "The base model with the examples written into its prompt.",
    "lorahub": "LoraHub as published: without gradients, A and B mixed separately; as a baseline by 40 evaluations.",
    "auto": "Our own search without gradients: probes every module beside the others, mixes exactly.",
    "gradient": "Gradient descent on the same weights, mixed exactly.",
}


class Scored(Protocol):
    """What a dot needs; compose.models.Score is one."""

    method: str
    metric: str
    value: float
    low: float
    high: float
    n: int


class Tried(Protocol):
    """What a point of the search curve needs; compose.models.Trial is one."""

    number: int
    loss: float


def method_label(method: str) -> str:
    """A method's name for people; one we do not know keeps its own."""
    return METHOD_LABELS.get(method, method.replace("_", " ").capitalize())


def percent(position: float) -> str:
    """0 to 1 as an SVG length."""
    return f"{100 * position:.2f}%"


# --- Scores: dots with intervals ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """One method: where its value and its 95 % interval lie, and what it is to the reader."""

    method: str
    label: str
    meaning: str
    value: float
    low: float
    high: float
    n: int
    is_ours: bool
    is_best_baseline: bool  # perhaps one of several that tie, but not where all do
    x: str
    x_low: str
    x_high: str
    exact: float | None = None  # by exact match, where the value is by another metric


@dataclass(frozen=True)
class Tick:
    position: str
    label: str


@dataclass(frozen=True)
class DotChart:
    """`name` says in one sentence what a person who does not see the chart should know; `metric` is a name for people."""

    dots: list[Dot]
    ticks: list[Tick]
    name: str
    metric: str

    @property
    def has_exact(self) -> bool:
        return any(dot.exact is not None for dot in self.dots)

    @property
    def has_tie(self) -> bool:
        """Whether several baselines are the best."""
        return sum(dot.is_best_baseline for dot in self.dots) > 1


def _score_x(value: float) -> str:
    # Two per cent of air at both ends, or the dots at 0 and 1 would be cut in half.
    return percent(0.02 + 0.96 * min(1.0, max(0.0, value)))


def score_chart(scores: Iterable[Scored], *, ours: str, exact: Mapping[str, float] | None = None) -> DotChart:
    """Dots from 0 to 1, baselines in the order given, then `ours` (the method that made the adapter) as the last.

    `scores` are all by one metric; `exact` says beside another one what the methods have by exact match.
    """
    given, beside = list(scores), exact or {}
    metric = label_of(given[0].metric) if given else "score"
    baselines = [score for score in given if score.method != ours]
    best = best_of({score.method: score.value for score in baselines})
    if len(best) == len(baselines) > 1:
        best = []  # none stands out
    in_order = [*baselines, *(score for score in given if score.method == ours)]
    dots = [_dot(score, ours=ours, best=best, exact=beside.get(score.method)) for score in in_order]
    ticks = [Tick(_score_x(value), f"{value:.2f}") for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    spoken = "; ".join(f"{dot.label} {dot.value:.2f} ({dot.low:.2f} to {dot.high:.2f})" for dot in dots)
    name = f"Score of each method ({metric}) with its 95 % interval: {spoken}."
    return DotChart(dots=dots, ticks=ticks, name=name, metric=metric)


def _dot(score: Scored, *, ours: str, best: Sequence[str], exact: float | None) -> Dot:
    is_ours = score.method == ours
    return Dot(
        method=score.method,
        label="Composed here" if is_ours else method_label(score.method),
        meaning=METHOD_MEANINGS.get(score.method, ""),
        value=score.value,
        low=score.low,
        high=score.high,
        n=score.n,
        is_ours=is_ours,
        is_best_baseline=score.method in best,
        x=_score_x(score.value),
        x_low=_score_x(score.low),
        x_high=_score_x(score.high),
        exact=exact,
    )


# --- Mixing weights: diverging bars -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One module: blue to the right of zero, amber to the left."""

    label: str
    url: str
    weight: float
    attribution: float | None
    audition_loss: float | None
    reason: str
    x: str
    width: str
    adds: bool
    place: int = 0  # among all modules, so that a live bar is known again and moves

    @property
    def signed_weight(self) -> str:
        return _signed_weight(self.weight)

    @property
    def signed_attribution(self) -> str:
        return "" if self.attribution is None else signed(self.attribution)


@dataclass(frozen=True)
class BarChart:
    bars: list[Bar]
    left_out: list[Bar]
    zero: str
    has_attribution: bool
    is_live: bool = False
    is_paper: bool = False  # LoraHub's own mix, in which a sign alone neither adds nor takes away

    @property
    def first_bars(self) -> list[Bar]:
        return self.bars[:MAX_OPEN_BARS] if self.folds else self.bars

    @property
    def folded_bars(self) -> list[Bar]:
        return self.bars[MAX_OPEN_BARS:] if self.folds else []

    @property
    def folds(self) -> bool:
        # A fold around one or two bars would be longer than they are.
        return not self.is_live and len(self.bars) > MAX_OPEN_BARS + 2


@dataclass(frozen=True)
class Weighted:
    """What a bar needs to know of a module."""

    label: str
    weight: float
    url: str = ""
    attribution: float | None = None
    audition_loss: float | None = None
    reason: str = ""


def weight_chart(modules: Iterable[Weighted], *, is_live: bool = False, is_paper: bool = False) -> BarChart:
    """Bars of one shared scale, longest first; modules with weight 0 apart, lowest loss alone first.

    `is_live`: every module keeps its place and the scale is symmetrical, so that bars move and rows do not.
    """
    modules = list(modules)
    if is_live:
        reach = max([abs(m.weight) for m in modules], default=0.0) or 1.0
        places = sorted(range(len(modules)), key=lambda place: -abs(modules[place].weight))[:MAX_LIVE_BARS]
        bars = [_bar(modules[place], -reach, 2 * reach, place=place) for place in sorted(places)]
        return BarChart(bars=bars, left_out=[], zero=percent(0.5), has_attribution=False, is_live=True)
    kept = sorted((m for m in modules if m.weight), key=lambda m: (-abs(m.weight), m.label))
    left_out = sorted(
        (m for m in modules if not m.weight),
        key=lambda m: (math.inf if m.audition_loss is None else m.audition_loss, m.label),
    )
    low = min([0.0, *(m.weight for m in kept)])
    high = max([0.0, *(m.weight for m in kept)])
    span = (high - low) or 1.0
    return BarChart(
        bars=[_bar(module, low, span) for module in kept],
        left_out=[_bar(module, low, span) for module in left_out],
        zero=percent(-low / span),
        has_attribution=any(module.attribution is not None for module in kept),
        is_paper=is_paper,
    )


def _signed_weight(weight: float) -> str:
    """Two decimals, and as many as it takes for one that is small and not zero."""
    digits = 2
    while weight and round(abs(weight), digits) == 0 and digits < 6:
        digits += 1
    return signed(weight, digits)


def _bar(module: Weighted, low: float, span: float, *, place: int = 0) -> Bar:
    start = min(0.0, module.weight)
    return Bar(
        label=module.label,
        url=module.url,
        weight=module.weight,
        attribution=module.attribution,
        audition_loss=module.audition_loss,
        reason=module.reason,
        x=percent((start - low) / span),
        width=percent(abs(module.weight) / span),
        adds=module.weight >= 0,
        place=place,
    )


# --- Search: best so far over faint trials ----------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    x: str
    y: str
    is_above: bool = False


@dataclass(frozen=True)
class Level:
    """A dashed line across the chart with its name at `y_label`, clear of the other lines’."""

    label: str
    value: float
    y: str
    y_label: str
    kind: str


@dataclass(frozen=True)
class SearchChart:
    """`line` is for a nested SVG of 100 by 100 that is stretched over the plot; the rest is in per cent."""

    points: list[Point]
    line: str
    levels: list[Level]
    ticks: list[Tick]
    last: Point | None
    best: float | None
    best_number: int | None
    count: int
    above: int
    drawn_every: int
    name: str
    rows: list[tuple[int, float, float]] = field(default_factory=list)


_LEFT, _TOP, _BOTTOM = 0.07, 0.06, 0.94  # the plot's own margins, as shares


def search_chart(
    trials: Sequence[Tried],
    *,
    most: int,
    base_loss: float | None = None,
    best_single: float | None = None,
) -> SearchChart:
    """Loss by trial, of `most` that there will be: each faint, the best so far as a line, the base and the best single module as levels.

    The axis reaches as high as the levels and nine trials of ten; what lies above is drawn at the upper edge and
    counted. Beyond MAX_DRAWN_TRIALS only every so-manyth trial is drawn, and each one that was a new best.
    """
    finite = [trial for trial in trials if math.isfinite(trial.loss)]
    top = _axis_top([trial.loss for trial in finite], [base_loss, best_single])
    ticks = _loss_ticks(top)
    width = max(most, len(finite), 2)
    every = max(1, math.ceil(len(finite) / MAX_DRAWN_TRIALS))
    points: list[Point] = []
    corners: list[str] = []
    rows: list[tuple[int, float, float]] = []
    best, best_number, above = math.inf, None, 0
    for order, trial in enumerate(finite):
        is_better = trial.loss < best
        if is_better:
            best, best_number = trial.loss, trial.number
        above += trial.loss > top
        x = _trial_x(trial.number, width)
        if order % every == 0 or is_better:
            points.append(Point(percent(x), percent(_loss_y(trial.loss, top)), is_above=trial.loss > top))
            corners.append(f"{100 * x:.2f},{100 * _loss_y(best, top):.2f}")
            rows.append((trial.number, trial.loss, best))
    last = None
    if finite:
        end = _trial_x(finite[-1].number, width)
        corners.append(f"{100 * end:.2f},{100 * _loss_y(best, top):.2f}")
        last = Point(percent(end), percent(_loss_y(best, top)))
    return SearchChart(
        points=points,
        line=" ".join(corners),
        levels=_levels(top, base_loss=base_loss, best_single=best_single),
        ticks=ticks,
        last=last,
        best=best if finite else None,
        best_number=best_number,
        count=len(trials),
        above=above,
        drawn_every=every,
        name=_spoken_search(finite, best, best_number, base_loss, best_single),
        rows=rows,
    )


def _axis_top(losses: list[float], levels: list[float | None]) -> float:
    usual = sorted(losses)[int(0.9 * (len(losses) - 1))] if losses else 0.0
    known = [level for level in levels if level is not None and math.isfinite(level)]
    return max([usual, *known, 1e-6]) * 1.08


def _trial_x(number: int, width: int) -> float:
    return _LEFT + (0.985 - _LEFT) * (number - 1) / (width - 1)


def _loss_y(loss: float, top: float) -> float:
    share = min(1.0, max(0.0, loss / top))
    return _BOTTOM - (_BOTTOM - _TOP) * share


def _loss_ticks(top: float) -> list[Tick]:
    """Three to six round numbers from 0 to `top`."""
    step = 10 ** math.floor(math.log10(top))
    for times in (2, 1, 0.5, 0.2, 0.1):
        if top / (step * times) >= 3:
            step *= times
            break
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    count = int(top / step + 1e-9)
    return [Tick(percent(_loss_y(i * step, top)), f"{i * step:.{digits}f}") for i in range(count + 1)]


def _levels(top: float, *, base_loss: float | None, best_single: float | None) -> list[Level]:
    named = [
        (label, value, kind)
        for label, value, kind in (
            ("base model", base_loss, "base"),
            ("best single module", best_single, "single"),
        )
        if value is not None and math.isfinite(value)
    ]
    named.sort(key=lambda item: -item[1])
    levels = []
    for order, (label, value, kind) in enumerate(named):
        y = _loss_y(value, top)
        # The upper line wears its name above, the lower one below, so that two near lines stay readable.
        shift = -0.025 if order == 0 else 0.075
        levels.append(Level(label, value, percent(y), percent(y + shift), kind))
    return levels


def _spoken_search(
    trials: Sequence[Tried],
    best: float,
    best_number: int | None,
    base_loss: float | None,
    best_single: float | None,
) -> str:
    if not trials:
        return "Loss by trial: none evaluated yet."
    parts = [f"Loss by trial: the lowest of {len(trials)} is {best:.3f}, at trial {best_number}"]
    if base_loss is not None:
        parts.append(f"the base model alone has {base_loss:.3f}")
    if best_single is not None:
        parts.append(f"the best single module {best_single:.3f}")
    return "; ".join(parts) + "."


# --- Small ones for lists ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sparkline:
    """Up to `MAX_SPARKS` mixing weights as upright bars around a zero line, in the order of size."""

    bars: list[tuple[str, str, str, bool]]  # x, y, height, adds
    zero: str
    width: str
    name: str


MAX_SPARKS = 12


def weight_sparkline(weights: Sequence[float]) -> Sparkline:
    """The largest weights of a composition in the size of a word."""
    kept = sorted((w for w in weights if w), key=lambda w: -abs(w))
    drawn = sorted(kept[:MAX_SPARKS], reverse=True)
    high = max([0.0, *drawn])
    low = min([0.0, *drawn])
    span = (high - low) or 1.0
    slot = 1 / MAX_SPARKS
    said = f", from {signed(min(kept))} to {signed(max(kept))}" if kept else ""
    bars = [
        (
            percent(order * slot),
            percent((high - max(0.0, w)) / span),
            percent(max(abs(w) / span, 0.04)),
            w >= 0,
        )
        for order, w in enumerate(drawn)
    ]
    return Sparkline(
        bars=bars,
        zero=percent(high / span),
        width=percent(slot * 0.7),
        name=f"{plural(len(kept), 'module,modules')} with a weight{said}",
    )
