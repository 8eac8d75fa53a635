"""`python -m benchmarks.alert_curves --out FILE.svg`: risks found and delay over false alerts a day, from the tables.

    alert_calibration.json of each checkpoint --every threshold--> share found | delay p50, p90 of those found

A row for each checkpoint, two panels: what a budget finds, and how late it comes. A dot is where the bridge stands for
a budget of 100, 24, 10, 4 or 1 false alerts a day. Nothing is measured here: `calibration.alerts` makes the tables.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import CHECKPOINT
from benchmarks.runner import Picture
from calibration.audit.drawing import Axis, document, line, text
from familial.evaluate.sequential import AlertCalibration, OperatingPoint, ScoreLaw
from wire.errors import CheckpointError

__all__ = ["BUDGETS", "COMMAND", "draw", "tables"]

BUDGETS = (100.0, 24.0, 10.0, 4.0, 1.0)
"""False alerts a day, for each label, that have a dot."""

_GOAL = (10.0, 0.85)  # false alerts a day and share found that we ask of ourselves
_COLOURS = ("#b02a37", "#0a58ca", "#198754", "#7a3fb5", "#b4541a")
_INK, _PALE, _GREY = "#1d2327", "#d5d9dd", "#4b5560"
_LEFTS, _WIDE, _HIGH = (60, 515), 350, 190
_TOP, _STEP = 92, 316  # of the first row's panels; from row to row
_LEAST_FOUND = 0.05  # share below which a delay is that of a handful
_ALONG = Axis("", -0.3, 3.3, (0.0, 1.0, 2.0, 3.0), {0.0: "1", 1.0: "10", 2.0: "100", 3.0: "1,000"})  # decades
_FOUND = Axis("found", 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
_DELAY = Axis("delay, s", 0.0, 16.0, (0.0, 4.0, 8.0, 12.0, 16.0))

Value = Callable[[OperatingPoint], float]


@dataclass(frozen=True, slots=True)
class _Panel:
    """Where a panel lies, and its vertical axis."""

    left: float
    top: float
    up: Axis

    def place(self, point: OperatingPoint, value: Value) -> tuple[float, float]:
        """Where a point of a table lies."""
        return self.at(point.false_per_day, value(point))

    def at(self, false_per_day: float, value: float) -> tuple[float, float]:
        """The same, of two numbers."""
        along = _ALONG.share(math.log10(false_per_day))
        return self.left + _WIDE * along, self.top + _HIGH * (1.0 - self.up.share(value))


def tables(folders: Sequence[Path]) -> dict[str, AlertCalibration]:
    """Name of a checkpoint -> its table. Raises CheckpointError where one has none."""
    found = {}
    for folder in folders:
        table = AlertCalibration.read(folder)
        if table is None:
            raise CheckpointError(
                f"{folder}: no alert_calibration.json; make it: python -m calibration.alerts --checkpoint {folder}"
            )
        found[folder.name] = table
    return found


def draw(known: Mapping[str, AlertCalibration]) -> str:
    """The panels as SVG text, a row for each checkpoint."""
    parts = [text(10, 24, "What a budget of false alerts finds, and how late: every threshold of the tables", size=16)]
    for row, (name, table) in enumerate(known.items()):
        laws = {label: law for label, law in table.laws.items() if law.direction}  # the tests of an event
        top = _TOP + _STEP * row
        parts.append(text(10, top - 36, f"{name}: {table.made_of}, {table.hours:.0f} h of normal life", size=14))
        found, delay = _Panel(_LEFTS[0], top, _FOUND), _Panel(_LEFTS[1], top, _DELAY)
        parts += [*_axes(found), *_axes(delay), *_goal(found)]
        for colour, law in zip(_COLOURS, laws.values(), strict=False):
            parts += _curve(found, law, lambda point: point.found, colour)
            parts += _curve(delay, law, lambda point: point.delay_p50_s, colour)
            parts += _curve(delay, law, lambda point: point.delay_p90_s, colour, "6 4")
        parts += _legend(top + _HIGH + 54, list(laws))
    title = "share of risks found, and delay of the alert, over false alerts a day of one camera"
    return document(_TOP + _STEP * len(known) - 50, parts, title)


def _axes(panel: _Panel) -> list[str]:
    parts = [text(panel.left - 50, panel.top - 14, panel.up.title, size=12)]
    for tick in panel.up.ticks:
        _, y = panel.at(1.0, tick)
        parts.append(line(panel.left, y, panel.left + _WIDE, y, _PALE))
        parts.append(text(panel.left - 7, y + 4, panel.up.label(tick), "end", size=12))
    bottom = panel.top + _HIGH
    for tick in _ALONG.ticks:
        x, _ = panel.at(10.0**tick, panel.up.low)
        parts += [line(x, bottom, x, bottom + 5, _INK), text(x, bottom + 19, _ALONG.label(tick), "middle", size=12)]
    title = "false alerts a day, at most"
    return [*parts, text(panel.left + _WIDE, bottom + 36, title, "end", colour=_GREY, size=12)]


def _goal(panel: _Panel) -> list[str]:
    x, y = panel.at(*_GOAL)
    ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{_INK}" stroke-width="1.5"/>'
    return [ring, text(x - 11, y + 4, "goal", "end", size=12)]


def _curve(panel: _Panel, law: ScoreLaw, value: Value, colour: str, dash: str = "") -> list[str]:
    """A line through the points of a table that are within the panel, and the dots of the budgets."""
    least, most = 10.0**_ALONG.low, 10.0**_ALONG.high
    within = [point for point in law.points if least <= point.false_per_day <= most]
    drawn = [point for point in within if panel.up is _FOUND or point.found >= _LEAST_FOUND]
    line_of = " ".join("{:.1f},{:.1f}".format(*panel.place(point, value)) for point in drawn)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    parts = [f'<polyline points="{line_of}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']
    for budget in BUDGETS:
        point = law.at_most(budget)
        if point in drawn and point is not None:
            x, y = panel.place(point, value)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    return parts


def _legend(y: float, labels: Sequence[str]) -> list[str]:
    parts, x = list[str](), float(_LEFTS[0])
    for colour, label in zip(_COLOURS, labels, strict=False):
        parts += [line(x, y - 4, x + 26, y - 4, colour, 2), text(x + 33, y, label, colour=colour, size=12)]
        x += 90
    named = ", ".join(f"{budget:g}" for budget in BUDGETS)
    parts.append(text(x, y, f"dots: budgets of {named}", size=12))
    for index, (name, dash) in enumerate((("p50", ""), ("p90", "6 4"))):
        x = _LEFTS[1] + 90.0 * index
        parts += [line(x, y - 4, x + 26, y - 4, _INK, 2, dash), text(x + 33, y, name, size=12)]
    return parts


def _options(parser: argparse.ArgumentParser) -> None:
    shipped = [CHECKPOINT, CHECKPOINT.with_name("nano-research")]
    parser.add_argument(
        "--checkpoint", nargs="+", type=Path, default=shipped, metavar="DIR", help="(default: nano, nano-research)"
    )


COMMAND = Picture("alert_curves", __doc__, _options, lambda args: draw(tables(args.checkpoint)))

if __name__ == "__main__":
    sys.exit(COMMAND.main())
