"""A forest plot as SVG in the page: how far from equality comparisons are, on one log axis, in the theme's colours.

Every ratio is turned so that less is better: left of 1 is good. A comparison is a bar from 1 to its mean, with a dot a
seed, a tick at its bound where that is not 1, and a hollow diamond at the ratio that the authors' own numbers give.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

LOW, HIGH = 1 / 6, 6
"""The ends of the axis; what lies beyond is drawn at the end, with an arrow."""
TICKS = {1 / 4: "¼", 1 / 2: "½", 1: "1", 2: "2", 4: "4"}
WIDTH, EDGE = 300, 9
"""Of the axis, and of the room for arrows at each side of it, in units of the picture."""


@dataclass(frozen=True)
class Line:
    """One comparison: a ratio a seed, and ``kind``, the class that gives it its colour."""

    values: Sequence[float]
    kind: str
    bound: float = 1.0
    authors: float | None = None
    title: str = ""
    """Said where the pointer rests on it."""
    share: float = 1.0
    """Of the height of a line."""


def across(ratio: float) -> float:
    """Return where a ratio lies, 0 to WIDTH: 0, infinity and whatever is off the axis at its ends."""
    return WIDTH * math.log(min(max(ratio, LOW), HIGH) / LOW) / math.log(HIGH / LOW)


def mean(values: Sequence[float]) -> float:
    """Return the geometric mean: 0 where one is 0, infinite where one is, nan where both are or there is none."""
    logs = [math.log(value) if value > 0 else -math.inf for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def forest(lines: Sequence[Line], *, label: str, height: float = 44) -> str:
    """The picture of some comparisons below each other, as SVG; ``label`` says it to who cannot see it."""
    shares = sum(line.share for line in lines)
    unit = min(10, (height - 4) / shares) if lines else 0  # two lines need not fill the picture
    top, drawn = (height - unit * shares) / 2, []
    for line in lines:
        drawn.append(_drawn(line, top + unit * line.share / 2, unit * line.share))
        top += unit * line.share
    grid = "".join(f"M{across(tick):.1f} 0V{height:g}" for tick in TICKS if tick != 1)
    return (
        f'<svg class="forest" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="{-EDGE} 0 {WIDTH + 2 * EDGE} {height:g}"><path class="forest-grid" d="{grid}"/>'
        f'<path class="forest-one" d="M{across(1):.1f} 0V{height:g}"/>{"".join(drawn)}</svg>'
    )


def axis(better: str, worse: str) -> str:
    """The axis of pictures below it, in words: what left of 1 means, and what right of it."""
    ticks = "".join(f'<text x="{across(tick):.1f}" y="27">{name}</text>' for tick, name in TICKS.items())
    return (
        f'<svg class="forest" role="img" aria-label="Log axis of ratios: left of 1 is {html.escape(better)}, right of '
        f'it {html.escape(worse)}." viewBox="{-EDGE} 0 {WIDTH + 2 * EDGE} 30">{ticks}'
        f'<text x="{across(1) - 6:.1f}" y="11" class="forest-left">{html.escape(better)} ←</text>'
        f'<text x="{across(1) + 6:.1f}" y="11" class="forest-right">→ {html.escape(worse)}</text></svg>'
    )


def _drawn(line: Line, y: float, room: float) -> str:
    values = [value for value in line.values if not math.isnan(value)]
    thick = min(0.75 * room, 9)
    parts = [f"<title>{html.escape(line.title)}</title>"] * bool(line.title)
    if line.authors is not None:
        x, half = across(line.authors), 6
        parts.append(
            f'<path class="forest-authors" d="M{x - half:.1f} {y:.1f}l{half} {-half}l{half} {half}l{-half} {half}Z"/>'
        )
    middle = mean(values)
    if not math.isnan(middle):
        left, right = sorted((across(1), across(middle)))
        parts.append(f'<rect x="{left:.1f}" y="{y - thick / 2:.2f}" width="{right - left:.1f}" height="{thick:.2f}"/>')
        if not LOW <= middle <= HIGH:
            x, tip, half = (-1, -EDGE + 1, 4) if middle < 1 else (WIDTH + 1, WIDTH + EDGE - 1, 4)
            parts.append(f'<path class="forest-arrow" d="M{x} {y - half:.1f}L{tip} {y:.1f}L{x} {y + half:.1f}Z"/>')
    radius = min(max(thick / 2, 1), 2.6)
    parts += [f'<circle cx="{across(value):.1f}" cy="{y:.2f}" r="{radius:.2f}"/>' for value in values]
    if line.bound != 1:
        reach = max(room / 2, 2)
        parts.append(f'<path class="forest-bound" d="M{across(line.bound):.1f} {y - reach:.1f}v{2 * reach:.1f}"/>')
    return f'<g class="{line.kind}">{"".join(parts)}</g>'
