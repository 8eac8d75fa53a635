"""Line charts and dot charts as SVG text, without a library or a script.

    curves + axes -> chart        values with intervals beside chance, limit and certificate -> rows_chart

Colour never carries meaning alone: every curve is named beside the chart, every outcome beside its row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Axis", "Curve", "Dot", "chart", "rows_chart"]

_WIDTH, _HEIGHT = 900, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 210, 34, 50
_INK, _PALE = "#1d2327", "#d5d9dd"
_LEGEND = "band: what the certificate allows; tick: chance; dashed tick: preset limit; dot and bar: value and interval"


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        title: what it shows.
        low: its least value.
        high: its largest value.
        ticks: values that are marked.
        labels: text of a tick, in place of its value.
    """

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    labels: Mapping[float, str] = field(default_factory=dict)

    def share(self, value: float) -> float:
        """Return the position: 0 at the low end, 1 at the high end, never outside."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def label(self, tick: float) -> str:
        """Return the text of a tick."""
        return self.labels.get(tick, f"{tick:g}")


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a dot chart: a value with its interval, chance, limit and certificate, and the outcome."""

    name: str
    value: float
    low: float
    high: float
    chance: float
    limit: float
    certificate: float
    colour: str
    outcome: str


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = _INK, size: int = 13) -> str:
    look = f'font-size="{size}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}"{dashes}/>'
    )


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" font-family="system-ui,sans-serif" '
        f'viewBox="0 0 {_WIDTH} {height:.0f}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def chart(
    curves: Sequence[Curve],
    along: Axis,
    up: Axis,
    *,
    marks: Mapping[float, str],
    levels: Mapping[float, str] | None = None,
) -> str:
    """Return a line chart.

    Args:
        curves: to draw.
        along: the horizontal axis.
        up: the vertical axis.
        marks: named positions on the horizontal axis.
        levels: named heights.
    """
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + wide * along.share(x), _TOP + high * (1.0 - up.share(y))

    parts = []
    for tick in up.ticks:
        _, y = place(along.low, tick)
        parts += [_line(_LEFT, y, _LEFT + wide, y, _PALE), _text(_LEFT - 8, y + 4, up.label(tick), "end")]
    for tick in along.ticks:
        x, _ = place(tick, up.low)
        parts.append(_line(x, _TOP + high, x, _TOP + high + 5, _INK))
        parts.append(_text(x, _TOP + high + 20, along.label(tick), "middle"))
    parts += [_text(_LEFT + wide / 2, _HEIGHT - 8, along.title, "middle"), _text(_LEFT - 60, _TOP - 18, up.title)]
    for where, name in marks.items():
        x, _ = place(where, up.low)
        parts += [_line(x, _TOP, x, _TOP + high, _INK, 1, "4 3"), _text(x + 5, _TOP + high - 8, name)]
    for where, name in (levels or {}).items():
        _, y = place(along.low, where)
        parts.append(_line(_LEFT, y, _LEFT + wide, y, _INK, 1, "4 3"))
        parts.append(_text(_LEFT + wide - 6, y - 4, name, "end", size=11))
    heights = _apart([place(*curve.points[-1])[1] for curve in curves], 16.0)
    for index, curve in enumerate(curves):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.points))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{curve.colour}" stroke-width="2"/>')
        if len(curve.points) < 12:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{curve.colour}"/>'
                for x, y in (place(*point) for point in curve.points)
            ]
        x, y = _WIDTH - _RIGHT + 12, heights[index]
        parts += [_line(x, y, x + 14, y, curve.colour, 3), _text(x + 20, y + 4, curve.name, colour=curve.colour)]
    return _svg(_HEIGHT, parts, f"{up.title} over {along.title}")


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return the heights in their order, moved down as little as possible so that they are `gap` apart."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    out, last = list(heights), -math.inf
    for index in order:
        last = out[index] = max(heights[index], last + gap)
    return out


def rows_chart(rows: Sequence[Dot], title: str, top: float) -> str:
    """Return a dot chart on a square-root scale.

    Each row has a band up to the certificate, ticks at chance and limit, and a dot with its interval.

    Args:
        rows: to draw, from the top.
        title: of the values.
        top: the largest value on the scale.
    """
    left, right, step, head = 330, 160, 22, 40
    wide = _WIDTH - left - right

    def at(value: float) -> float:
        return left + wide * math.sqrt(min(max(value, 0.0), top) / top)

    bottom = head + step * len(rows)
    ticks = [t for t in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0) if t <= top]
    parts = []
    for tick in ticks:
        parts.append(_line(at(tick), head - 6, at(tick), bottom, _PALE))
        parts.append(_text(at(tick), head - 10, f"{tick:g}", "middle", size=11))
    parts.append(_text(left - 10, head - 10, title, "end", size=11))
    for index, row in enumerate(rows):
        y = head + step * (index + 0.5)
        parts.append(
            f'<rect x="{left}" y="{y - 7:.1f}" width="{at(row.certificate) - left:.1f}" height="14" fill="#dfeaf0"/>'
        )
        parts += [
            _line(at(row.chance), y - 8, at(row.chance), y + 8, _INK, 1.5),
            _line(at(row.limit), y - 8, at(row.limit), y + 8, "#b4541a", 2, "3 2"),
            _line(at(row.low), y, at(row.high), y, row.colour, 2.5),
            f'<circle cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5" fill="{row.colour}"/>',
            _text(left - 10, y + 4, row.name, "end", size=11),
            _text(_WIDTH - right + 6, y + 4, row.outcome.partition(":")[0], colour=row.colour, size=11),
        ]
    parts.append(_text(_WIDTH - right, bottom + 20, _LEGEND, "end", size=11))
    return _svg(bottom + 30, parts, title)
