"""Mistakes as SVG text: of each, what was true and what was said, and the people who were found, at some moments.

    Strip: key points as tracks (T, TRACKS, 56) --moments--> cells of one scale and place --bones--> stick figures

Places are the picture's own, cut to where people are; a cell shows at least `_NARROWEST` of the picture's larger side,
so that people who are far off look it. A colour is one person within a strip, nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calibration.audit.drawing import document, text
from wire.people.decode import JOINTS
from wire.people.packed import BOX, SCORE, UNIT, Packed

__all__ = ["Strip", "draw"]

_BONES = (  # ends in COCO's order
    *((5, 7), (7, 9), (6, 8), (8, 10)),  # arms
    *((11, 13), (13, 15), (12, 14), (14, 16)),  # legs
    *((5, 6), (11, 12), (5, 11), (6, 12)),  # trunk
)
_FACE = (0, 1, 2, 3, 4)  # nose, eyes, ears
_COLOURS = ("#0a58ca", "#b4541a", "#198754", "#7a3fb5")  # of the tracks
_PALE, _GREY, _RED = "#f4f6f8", "#4b5560", "#b02a37"
_SURE = 0.2  # a joint of a lower score is drawn thin
_LEFT, _TOP, _GAP = 20, 14, 6
_WIDE, _HIGH = 117, 88  # of a cell
_HEAD, _STEP = 42, 160  # lines above a strip's cells; from strip to strip
_NARROWEST = 0.3


@dataclass(frozen=True, slots=True)
class Strip:
    """One mistake.

    Attributes:
        label: the true one.
        said: the commonest decision.
        agreed: share of the noise samples that decide so.
        sure: mean probability of what was said.
        true: mean probability of the true label,
        clean: and without noise.
        set: name of the clip's set.
        times: float64 (T,), seconds from the clip's start.
        tracks: int16 (T, TRACKS, VALUES), the people at those times.
        moments: int64 (M,), which of the times are drawn.
    """

    label: str
    said: str
    agreed: float
    sure: float
    true: float
    clean: float
    set: str
    times: npt.NDArray[np.float64]
    tracks: Packed
    moments: npt.NDArray[np.int64]

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """Who is there, (T, TRACKS)."""
        found: npt.NDArray[np.bool_] = self.tracks[..., SCORE] > 0
        return found

    @property
    def seen(self) -> float:
        """Share of the times at which somebody is there."""
        return float(self.there.any(axis=1).mean())

    @property
    def people(self) -> int:
        """The most people at one time."""
        return int(self.there.sum(axis=1).max())

    @property
    def size(self) -> float:
        """Median of the larger side of a body's box, as a share of the picture's larger side; 0 where nobody is."""
        box = self.tracks[self.there][:, BOX].astype(np.float64) / UNIT
        return float(np.median((box[:, 2:] - box[:, :2]).max(axis=1))) if len(box) else 0.0


def draw(strips: Sequence[Strip]) -> str:
    """The picture as SVG text, a strip below the other."""
    parts = []
    for number, strip in enumerate(strips, 1):
        parts += _strip(strip, number, _TOP + _STEP * (number - 1))
    if not strips:
        parts.append(text(_LEFT, _TOP + 20, "No clip is mostly called something else.", size=15))
    height = _TOP + max(40, _STEP * len(strips))
    return document(height, parts, "the clips that are read most wrong, as the key points of the people found in them")


def _strip(strip: Strip, number: int, top: float) -> list[str]:
    right = _LEFT + len(strip.moments) * (_WIDE + _GAP) - _GAP
    said = f"{number}.  {strip.label}, called {strip.said}: P = {strip.sure:.2f}, in {100 * strip.agreed:.0f} %"
    said += " of the noise samples"
    parts = [text(_LEFT, top + 14, said, size=15), text(right, top + 14, f"set {strip.set}", "end", size=15)]
    parts.append(text(_LEFT, top + 33, _below(strip), colour=_GREY, size=12))
    corner, side = _view(strip)
    for place, moment in enumerate(strip.moments.tolist()):
        x = _LEFT + place * (_WIDE + _GAP)
        parts += _cell(strip, moment, (x, top + _HEAD), corner, side)
    return parts


def _below(strip: Strip) -> str:
    """What is known of the mistake, in a line."""
    chance = f"P({strip.label}) {strip.true:.2f}, without noise {strip.clean:.2f}"
    if not strip.people:
        return f"{chance}; nobody was found: the people tower had nothing to read"
    most = "one person" if strip.people == 1 else f"at most {strip.people} people"
    where = f"body {100 * strip.size:.0f} % of the picture's larger side"
    return f"{chance}; somebody found in {100 * strip.seen:.0f} % of frames, {most}, {where}"


def _view(strip: Strip) -> tuple[npt.NDArray[np.float64], float]:
    """Where the cells' top left is, y and x, and their width, in shares of the picture's larger side."""
    shown = strip.tracks[strip.moments][strip.there[strip.moments]]
    if not len(shown):
        return np.zeros(2), 1.0
    joints = _joints(shown).reshape(-1, 3)
    places = joints[joints[:, 2] >= _SURE, :2]
    box = shown[:, BOX].reshape(-1, 2) / UNIT
    places = places if len(places) else box
    low, high = places.min(axis=0), places.max(axis=0)
    tall, wide = (high - low) * 1.25 + 0.02
    side = max(_NARROWEST, float(wide), float(tall) * _WIDE / _HIGH)
    return np.asarray((low + high) / 2 - np.array([side * _HIGH / _WIDE, side]) / 2), side


def _joints(people: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """Rows (N, VALUES) -> y, x and score (N, 17, 3), in shares of the picture's larger side."""
    return people[..., : 3 * JOINTS].reshape(-1, JOINTS, 3).astype(np.float64) / UNIT


def _cell(
    strip: Strip, moment: int, place: tuple[float, float], corner: npt.NDArray[np.float64], side: float
) -> list[str]:
    """One moment: its people, cut at the cell's edge by an SVG viewport of its own."""
    x, y = place
    parts = [f'<svg x="{x:.1f}" y="{y:.1f}" width="{_WIDE}" height="{_HIGH}" overflow="hidden">']
    parts.append(f'<rect width="{_WIDE}" height="{_HIGH}" fill="{_PALE}"/>')
    there = strip.there[moment]
    for track in np.flatnonzero(there)[::-1].tolist():  # the surest on top
        joints = _joints(strip.tracks[moment, track])[0]
        joints[:, :2] = (joints[:, :2] - corner) * (_WIDE / side)
        parts += _figure(joints, _COLOURS[track])
    if not there.any():
        parts.append(text(_WIDE / 2, _HIGH / 2 + 4, "nobody found", "middle", _RED, 12))
    time = f"{strip.times[moment]:.1f} s"
    return [*parts, "</svg>", text(x + _WIDE / 2, y + _HIGH + 14, time, "middle", _GREY, 11)]


def _figure(joints: npt.NDArray[np.float64], colour: str) -> list[str]:
    """A body of joints (17, 3), in pixels of a cell: what is sure thick, what is not thin, and a head."""
    shoulders, hips = joints[[5, 6]].mean(axis=0), joints[[11, 12]].mean(axis=0)
    head = joints[list(_FACE)].mean(axis=0)
    sure, unsure = list[str](), list[str]()
    for one, other in [*((joints[start], joints[end]) for start, end in _BONES), (head, shoulders)]:
        lines = sure if min(one[2], other[2]) >= _SURE else unsure
        lines.append(f"M{one[1]:.1f} {one[0]:.1f}L{other[1]:.1f} {other[0]:.1f}")
    parts = [
        f'<path d="{"".join(lines)}" stroke="{colour}" stroke-width="{width:g}"/>'
        for lines, width in ((sure, 2.2), (unsure, 0.6))
        if lines
    ]
    radius = min(max(2.5, 0.2 * float(np.hypot(*(shoulders - hips)[:2]))), 14.0)
    width = 2.2 if head[2] >= _SURE else 0.6
    look = f'fill="#fff" stroke="{colour}" stroke-width="{width:g}"'
    return [*parts, f'<circle cx="{head[1]:.1f}" cy="{head[0]:.1f}" r="{radius:.1f}" {look}/>']
