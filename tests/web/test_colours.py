"""The colours that everything is made of can be told apart, in light and in dark (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TEXT, PICTURE = 4.5, 3.0
STYLES = (ROOT / "static/css/base.css").read_text()
SHEETS = {name: (ROOT / f"static/css/compose/{name}.css").read_text() for name in ("charts", "lineage")}
GROUNDS = ("bg", "surface", "sunken", "accent-soft", "minus-soft", "good-soft", "warn-soft")


def tokens(scheme: int) -> dict[str, str]:
    found = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", STYLES)
    return {name: colours[scheme] for name, *colours in found}


def channels(colour: str) -> list[float]:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    return [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(front: str, ground: str, opacity: float = 1.0) -> float:
    below = channels(ground)
    mixed = [opacity * f + (1 - opacity) * b for f, b in zip(channels(front), below, strict=True)]
    lighter, darker = sorted((luminance(mixed), luminance(below)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def opacity_of(sheet: str, selector: str) -> float:
    rule = re.search(re.escape(selector) + r" \{[^}]*opacity: ([.\d]+)", SHEETS[sheet])
    assert rule, selector
    return float(rule[1])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_is_readable_on_every_ground(scheme: int):
    colours = tokens(scheme)
    pairs = [
        (front, ground) for front in ("ink", "muted", "accent", "minus", "good", "warn") for ground in GROUNDS
    ]
    pairs.append(("on-accent", "accent"))
    faint = {(front, ground): contrast(colours[front], colours[ground]) for front, ground in pairs}
    assert {pair: ratio for pair, ratio in faint.items() if ratio < TEXT} == {}


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_boxes_and_pictures_stand_out(scheme: int):
    colours = tokens(scheme)
    edges = {
        ground: contrast(colours["line-strong"], colours[ground]) for ground in ("bg", "surface", "sunken")
    }
    drawn = {
        selector: contrast(colours[colour], colours["surface"], opacity_of(sheet, selector))
        for sheet, selector, colour in (
            ("charts", ".dots-interval", "muted"),
            ("charts", ".is-ours .dots-interval", "accent"),
            ("charts", ".mini-dot", "muted"),
            ("charts", ".search-trial", "muted"),
            ("lineage", ".family-line", "plus"),
            ("lineage", ".family-line", "minus"),
        )
    }
    assert {name: ratio for name, ratio in (edges | drawn).items() if ratio < PICTURE} == {}
