"""What a rendered clip shows at the end of each slot, as a contour would have to say it.

LabelledClip with exact people --end of each slot--> posture, how many, moving, which way, outlines of two at most

Who is drawn is the one whose trunk is lowest, as in a fall; beside him, of several, the one who is nearest to him.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from familial.contour.outline import mirrored, radii
from familial.data.events import LabelledClip
from familial.synth.exact_people import TURNED, ExactPeople
from familial.synth.tags import TAGS
from familial.synth.truth import POSE, Truth
from wire.errors import DataError
from wire.protocol.contour import POSTURES, RAYS

__all__ = ["UNKNOWN", "Shown", "shown_by"]

UNKNOWN = -1

_BENT = 0.6  # sine of the trunk's angle above the horizon, below which a body is bent
_FALLS_S = 0.3  # into a fall, after which somebody who falls counts as lying
_MOVES, _LOOK_S = 0.25, 1.0  # body heights a second, over the second before
_POINTS = 6  # key points in sight, from which somebody is drawn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shown:
    """N moments; UNKNOWN, and NaN in outlines, where nothing is known or there is nobody.

    Attributes:
        posture: int64 (N,) index into POSTURES.
        count: int64 (N,) index into COUNTS.
        moving: int64 (N,) whether the one who is drawn moves through the picture: 0 or 1.
        way: int64 (N,) of those who move: 0 to the left, 1 to the right.
        first: float (N, RAYS) the outline of the one who is drawn, the head to the right; of several, the nearest
            other one to the right.
        second: float (N, RAYS) that of the other one.
    """

    posture: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    moving: npt.NDArray[np.int64]
    way: npt.NDArray[np.int64]
    first: Floats
    second: Floats


def shown_by(clip: LabelledClip, ends: Floats, labels: tuple[str, ...]) -> Shown:
    """Say what a rendered clip shows at the moments `ends`, seconds of its clock, within its duration.

    Raises:
        DataError: Nothing exact is known of the clip.
    """
    truth, exact = clip.truth, clip.exact
    if truth is None or exact is None:
        raise DataError(f"a clip of set {clip.set!r} has no exact people; a contour learns from rendered clips alone")
    frames = np.maximum(np.searchsorted(exact.times_s, ends + 1e-6, side="right") - 1, 0)
    before = np.maximum(np.searchsorted(exact.times_s, exact.times_s[frames] - _LOOK_S + 1e-6, side="right") - 1, 0)
    pairs = np.array([_drawn(exact, frame) for frame in frames]).reshape(-1, 2)
    count = np.where((pairs[:, 0] < 0) & (truth.count[frames] > 0), UNKNOWN, truth.count[frames]).astype(np.int64)
    moving, way = _motion(exact, frames, before, pairs[:, 0])
    first, second = _outlines(exact, frames, pairs)
    return Shown(_postures(clip, truth, frames, ends, pairs[:, 0], labels), count, moving, way, first, second)


def _drawn(exact: ExactPeople, frame: int) -> tuple[int, int]:
    """Who is drawn in a frame, and who beside him; -1 for nobody."""
    points, (top, left, bottom, right) = exact.points[frame].astype(np.float64), exact.window
    y, x = points[..., 0], points[..., 1]
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right) & (exact.visible[frame] >= TURNED)
    seen = np.flatnonzero((inside.sum(-1) >= _POINTS) & (exact.length[frame] > 0))
    if not len(seen):
        return -1, -1
    trunk = points[seen][:, (11, 12)].mean(1) - points[seen][:, (5, 6)].mean(1)
    one = int(seen[np.argmin(trunk[:, 0] / np.maximum(np.hypot(*trunk.T), 1e-3))])
    others = seen[seen != one]
    if not len(others):
        return one, -1
    hips = points[:, (11, 12)].mean(1)
    return one, int(others[np.argmin(np.hypot(*(hips[others] - hips[one]).T))])


def _postures(
    clip: LabelledClip,
    truth: Truth,
    frames: npt.NDArray[np.int64],
    ends: Floats,
    drawn: npt.NDArray[np.int64],
    labels: tuple[str, ...],
) -> npt.NDArray[np.int64]:
    tags, rise = truth.tags[frames], truth.pose[frames, POSE.index("elevation")]
    lying, crouching = tags[:, TAGS.index("lying")] > 0, tags[:, TAGS.index("crouching")] > 0
    fighting = np.zeros(len(ends), bool)
    for risk in clip.annotations or ():
        if labels[risk.label] == "fight":
            fighting |= (ends >= risk.start) & (ends <= risk.end)
        elif labels[risk.label] == "fall":
            lying |= (ends >= risk.start + _FALLS_S) & (ends <= risk.end + _FALLS_S)
    places = [POSTURES.index(name) for name in ("fighting", "lying", "bent")]
    found = np.select([fighting, lying, crouching | (rise < _BENT)], places, POSTURES.index("upright"))
    return np.where(drawn < 0, UNKNOWN, found).astype(np.int64)


def _motion(
    exact: ExactPeople, frames: npt.NDArray[np.int64], before: npt.NDArray[np.int64], drawn: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if not exact.points.shape[1]:
        return np.full(len(frames), UNKNOWN), np.full(len(frames), UNKNOWN)
    who = np.maximum(drawn, 0)
    hips = exact.points[:, :, (11, 12), 1].astype(np.float64).mean(2)  # (T, P) of x
    passed = np.maximum(exact.times_s[frames] - exact.times_s[before], 0.2)
    speed = (hips[frames, who] - hips[before, who]) / np.maximum(exact.length[frames, who], 1) / passed
    known = (drawn >= 0) & (frames > before)
    moves = known & (np.abs(speed) > _MOVES)
    return np.where(known, moves, UNKNOWN).astype(np.int64), np.where(moves, speed > 0, UNKNOWN).astype(np.int64)


def _outlines(exact: ExactPeople, frames: npt.NDArray[np.int64], pairs: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    made = [np.full((len(frames), RAYS), np.nan) for _ in range(2)]
    middle = exact.points[:, :, (5, 6, 11, 12), 1].astype(np.float64).mean(2)  # (T, P) of x
    for place, who in enumerate(pairs.T):
        there = np.flatnonzero(who >= 0)
        if not len(there):
            continue
        points = exact.points[frames[there], who[there]]
        made[place][there] = radii(points, exact.length[frames[there], who[there]])
    for row, (frame, (one, other)) in enumerate(zip(frames, pairs, strict=True)):
        if one < 0:
            continue
        body = exact.points[frame, one].astype(np.float64)
        head = body[(5, 6), 1].mean() - body[(11, 12), 1].mean()
        if (head if other < 0 else middle[frame, other] - middle[frame, one]) < 0:
            made[0][row], made[1][row] = mirrored(made[0][row]), mirrored(made[1][row])
    return made[0], made[1]
