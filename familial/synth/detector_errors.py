"""What the person network would say of people whose places are known exactly: a model of its errors.

    ExactPeople --framing, quality--> seen, score --jitter, swaps, merges, ghosts--> int16 (T, 6, VALUES), as packed

Errors come in bursts: each is decided by noise that changes slowly. `ErrorRates` holds every number of the model, and
how it was obtained. NumPy alone; a clip takes a few milliseconds, so errors are drawn anew each time it is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from familial.synth.exact_people import ABSENT, SEEN, TURNED, ExactPeople, Framing
from wire.people.decode import JOINTS, PEOPLE
from wire.people.packed import BOX, LEAST, SCORE, UNIT, VALUES, Packed, nobody

__all__ = [
    "DETECTOR_VERSION",
    "POOREST",
    "RATES",
    "ErrorRates",
    "Shown",
    "detect",
    "draw_close_framing",
    "draw_framing",
]

DETECTOR_VERSION = 2
"""Raise it with any change after which the same people and random numbers give other detections."""

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]

_NEAR, _FAR, _FAR_SHARE = (0.85, 1.3), (1.3, 2.3), 0.3  # of the view against the picture's; how often it is far
_FRAME = (192, 256)  # the network's frame
_SIDES = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])  # joint -> its mirror image
_ARMS, _LEGS = slice(5, 11), slice(11, 17)
_TRUNK = 0.28  # from shoulders to hips, of the height
_COUNTS = 0.127  # joints of a lower score do not count towards a person's, as in `wire.people.decode`
_OUTSIDE = 4  # beside ABSENT .. SEEN: out of the picture


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Every number of the model, and how it was obtained.

    Log odds where nothing else is said; lengths in the body's own height; sizes in pixels of the network's frame. Of a
    pair, the first is the mean and the second the standard deviation. R: fitted on rendered frames, where the truth is
    known; C: read from the network's output on real clips, without labels; L: from real clips with labels of lying;
    H: by hand. `benchmarks.model.detector` prints R and C again, beside what the model gives.

    A joint's score is the person's quality, and what is the joint's own. A person's score is the mean of the joints'
    scores, times how sure the network is of the person's middle.
    """

    poor_share: float = 0.35  # H: of cameras: far, blurred, dark, compressed
    good: tuple[float, float] = (0.35, 0.22)  # C: quality of those who stand in view: indoor sets
    poor: tuple[float, float] = (-0.4, 0.3)  # C: the CCTV set; rendered frames lie here too
    night: float = -0.25  # R
    a_doubling: float = 0.15  # R: of the size, up to `largest`
    largest: float = 150.0  # R: what is larger is found less often where rendered, but not where real
    unseen: float = -0.4  # R: none of its key points seen
    lying: float = -1.0  # L -1.1, R -0.9: the trunk lies, or points at the camera
    lying_spread: float = 0.5  # L: some are hardly found, some well
    lying_s: float = 4.0  # H
    inverted: float = -0.3  # C
    between_people: float = 0.12  # H
    slow: float = 0.2  # C: within a person, over `slow_s`
    slow_s: float = 2.0
    fast: float = 0.17  # C
    fast_s: float = 0.3

    sure: tuple[float, float] = (2.4, 0.35)  # C: of the person's middle, at the mean quality of a good camera
    sure_of_camera: float = 1.9  # C: by quality, between cameras
    sure_of_quality: float = 1.0  # C, R: the same within a clip
    sure_a_doubling: float = 0.6  # R
    sure_unseen: float = -3.2  # R
    sure_lying: float = -0.2  # L: beyond what quality explains
    sure_night: float = -0.4  # R
    sure_fast: float = 0.45  # C
    least_seen: float = 0.2  # R: nobody is found of whom less is seen

    joints: tuple[float, ...] = (
        (-0.12, -0.1, -0.1, 0.0, 0.0, 0.48, 0.4)  # C, R: nose, eyes, ears, shoulders
        + (-0.15, -0.15, -0.45, -0.45, 0.62, 0.6, 0.0, 0.0, -0.23, -0.24)  # elbows, wrists, hips, knees, ankles
    )
    levels: tuple[float, ...] = (-1.0, -0.35, -0.12, 0.0, -0.75)  # R, H: ABSENT, HIDDEN, TURNED, SEEN, out of sight
    joint_slow: float = 0.22  # C: over `slow_s`
    joint_fast: float = 0.33  # C
    joint_s: float = 0.25  # C

    misplaced: tuple[float, ...] = (
        0.02,
        0.02,
        0.014,
        0.013,
        0.02,
    )  # R less a quarter: by level, of a joint of score 1;
    # divided by its score; over `misplaced_s`
    misplaced_s: float = 1.5  # C
    jitter: float = 0.0018  # C: the same from frame to frame
    pixels: float = 0.08  # C: of a body that stands still
    stray: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 0.2)  # R, C: a joint of score 0.45 lies elsewhere, by level
    stray_s: float = 0.3

    swap_all: tuple[float, float] = (0.008, 0.03)  # between R 0.12, 0.25 and C: face seen and upright; otherwise
    swap_arms: float = 0.008  # R
    swap_legs: float = 0.02  # R
    swap_s: float = 0.8  # C
    poor_swaps: float = 4.0  # C: times as many where the camera is poor

    merge_near: float = 0.3  # R: distance of two bodies' middles at which one may be lost
    merge: float = 0.6  # R
    merge_s: float = 0.4  # H
    borrow: float = 0.08  # H: a joint is the other's, when so near
    twice: float = 0.007  # R, C: one person is found twice
    ghosts: float = 0.05  # C: things taken for a person, a clip
    ghost_score: float = 0.12  # R, C
    margin: tuple[float, float] = (0.085, 0.06)  # C: of the box about the key points, down and across


RATES = ErrorRates()
POOREST = replace(RATES, poor_share=1.0, poor=(-0.85, 0.3))
"""H: a camera poorer than any that was seen, for training alone."""


def draw_framing(people: ExactPeople, rng: Generator) -> Framing:
    """The picture itself, or another crop of it by a wider, narrower or otherwise shaped view."""
    top, left, bottom, right = people.window
    if rng.random() < 0.25:
        return Framing(top, left, bottom - top, right - left)
    scale = rng.uniform(*(_FAR if rng.random() < _FAR_SHARE else _NEAR))
    shape = float(rng.choice([3 / 4, 9 / 16, 1.0, 0.68], p=[0.45, 0.3, 0.1, 0.15]))
    height, width = bottom - top, right - left
    wide = scale * max(width, height / shape) if shape < height / width else scale * width
    high = wide * shape
    y = top + (height - high) * rng.uniform(0.2, 0.8)
    x = left + (width - wide) * rng.uniform(0.2, 0.8)
    return Framing(y, x, high, wide)


def draw_close_framing(people: ExactPeople, rng: Generator, at_s: float) -> Framing:
    """A view about the people who are seen `at_s` seconds after the beginning, 1.1 to 2.6 times as high as one is.

    As where somebody cut a film to what happens in it, or a camera hangs near. Nobody seen then: as `draw_framing`.
    """
    at = min(int(np.searchsorted(people.times_s, at_s)), len(people.times_s) - 1)
    seen = people.points[at][people.visible[at] > 0]
    if not len(seen):
        return draw_framing(people, rng)
    top, left, bottom, right = people.window
    length = float(np.median(people.length[at]))
    y, x = seen.mean(0) + rng.normal(0, 0.15 * length, 2)
    shape = float(rng.choice([3 / 4, 9 / 16, 1.0]))
    wide = min(length * rng.uniform(1.1, 2.6) / shape, 1.2 * (right - left))
    high = wide * shape
    return Framing(y - high * rng.uniform(0.4, 0.65), x - wide * rng.uniform(0.35, 0.65), high, wide)


def detect(people: ExactPeople, rng: Generator, framing: Framing | None = None, rates: ErrorRates = RATES) -> Packed:
    """What the network would say.

    Args:
        people: P people in T frames.
        rng: Of everything that is drawn; the same gives the same.
        framing: What of the picture is shown; drawn where None.
        rates: Of the errors.

    Returns:
        int16 (T, 6, VALUES), surest first, zeros where nobody is found: as `wire.people.packed.pack` gives it.
    """
    view = draw_framing(people, rng) if framing is None else framing
    scene = Shown.of(people, view)
    noise = _Noise(people.times_s, rng)
    found, ease = _found(scene, people.night, noise, rates)
    parts = [found]
    if scene.points.shape[1]:
        _spoil(scene, found, ease, noise, rates)
        parts.append(_doubles(scene, found, noise, rates))
        found.score[_merged(scene, found, noise, rates)] = 0.0
    parts.append(_ghosts(scene, noise, rates))
    return _packed([part for part in parts if part.score.shape[1]], scene, rates)[people.shown]


@dataclass(frozen=True, slots=True)
class Shown:
    """Exact people as a framing shows them, in units of its larger side.

    points (T, P, 17, 2) y, x; level (T, P, 17); length (T, P); rise (T, P) how far the trunk
    points up, 1 for somebody who stands before a level camera; away (T, P) whether the face is turned away; sides (2,)
    the picture's height and width; pixels: of the network's frame in one unit.
    """

    points: _Floats
    level: npt.NDArray[np.int64]
    length: _Floats
    rise: _Floats
    away: _Flags
    sides: _Floats
    pixels: float

    @classmethod
    def of(cls, people: ExactPeople, view: Framing) -> Shown:
        larger = max(view.height, view.width)
        points = (people.points - np.array([view.top, view.left])) / larger
        sides = np.array([view.height, view.width]) / larger
        level = people.visible.astype(np.int64)
        top, left, bottom, right = people.window
        outside = ((points < 0) | (points >= sides)).any(-1)
        outside |= ((people.points < (top, left)) & (np.array([top, left]) > 0)).any(-1)
        outside |= ((people.points >= (bottom, right)) & (np.array([bottom, right]) < people.sides)).any(-1)
        level = np.where(outside & (level != ABSENT), _OUTSIDE, level)
        length = np.maximum(people.length / larger, 1e-3)
        trunk = points[:, :, 11:13].mean(2) - points[:, :, 5:7].mean(2)
        rise = np.clip(trunk[..., 0] / (_TRUNK * length), -1, 1)
        away = level[:, :, 0] <= TURNED
        return cls(
            points,
            level,
            length,
            rise,
            away,
            sides,
            min(_FRAME[0] / sides[0], _FRAME[1] / sides[1]),
        )


class _Noise:
    """Random numbers that change slowly, of mean 0 and variance 1, and events that they decide."""

    def __init__(self, times_s: _Floats, rng: Generator) -> None:
        self.frames, self.rng = len(times_s), rng
        self._step = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 1.0

    def smooth(self, shape: tuple[int, ...], lasts_s: float) -> _Floats:
        """(T, *shape): the same as `slow`, without its roughness from frame to frame."""
        drawn, keep = self.slow(shape, lasts_s), float(np.exp(-self._step / lasts_s))
        drawn[1:] *= (1 - keep) * (1 + keep) / np.sqrt(1 + keep * keep)  # so that the variance stays 1
        for frame in range(1, self.frames):
            drawn[frame] += keep * drawn[frame - 1]
        return drawn

    def slow(self, shape: tuple[int, ...], lasts_s: float) -> _Floats:
        """(T, *shape): each keeps its value for about `lasts_s` seconds."""
        keep = float(np.exp(-self._step / lasts_s))
        drawn = self.rng.standard_normal((self.frames, *shape))
        drawn[1:] *= np.sqrt(1 - keep * keep)
        for frame in range(1, self.frames):
            drawn[frame] += keep * drawn[frame - 1]
        return drawn

    def events(self, rate: _Floats, lasts_s: float) -> _Flags:
        """Whether something holds that holds `rate` (T, ...) of the time, in runs of about `lasts_s` seconds."""
        x = self.smooth(rate.shape[1:], lasts_s)
        # the normal distribution function by its logistic approximation (Page 1977, Applied Statistics 26)
        return np.asarray(1 / (1 + np.exp(-(1.5976 * x + 0.07056 * x**3))) < rate)


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates: points (T, N, 17, 2), joints' scores (T, N, 17) and scores (T, N)."""

    points: _Floats
    joints: _Floats
    score: _Floats


@dataclass(frozen=True, slots=True)
class _Ease:
    """Whether the camera is poor, and the joints' scores (T, P, 17) without what changes from frame to frame."""

    poor: bool
    joints: _Floats


def _sigmoid(x: _Floats) -> _Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def _found(scene: Shown, night: bool, noise: _Noise, rates: ErrorRates) -> tuple[_Found, _Ease]:
    """Scores of people and joints, at the exact places; and how hard they are to place."""
    people, rng = scene.points.shape[1], noise.rng
    poor = bool(rng.random() < rates.poor_share)
    camera = float(rng.normal(*(rates.poor if poor else rates.good))) + rates.night * night
    doublings = np.log2(np.clip(scene.length * scene.pixels, 4.0, rates.largest) / 100)
    unseen = 1 - ((scene.level == SEEN) | (scene.level == TURNED)).mean(-1)
    down = 1 - np.clip(scene.rise, 0, 1)
    own = rates.a_doubling * doublings + rates.unseen * unseen + rates.lying * down
    own += rates.inverted * np.clip(-scene.rise, 0, 1) + rates.between_people * rng.standard_normal(people)
    own += rates.lying_spread * down * noise.smooth((people,), rates.lying_s)
    own += rates.slow * noise.slow((people,), rates.slow_s) + rates.fast * noise.slow((people,), rates.fast_s)
    joints = camera + own[..., None] + np.asarray(rates.joints) + np.asarray(rates.levels)[scene.level]
    joints += rates.joint_slow * noise.slow((people, JOINTS), rates.slow_s)
    steady = _sigmoid(joints)
    joints += rates.joint_fast * noise.slow((people, JOINTS), rates.joint_s)
    sure = rng.normal(*rates.sure) + rates.sure_of_camera * (camera - rates.good[0]) + rates.sure_of_quality * own
    sure += rates.sure_a_doubling * doublings + rates.sure_unseen * unseen + rates.sure_lying * down
    sure += rates.sure_night * night + rates.sure_fast * noise.slow((people,), rates.fast_s)
    scores = _sigmoid(joints)
    counted = scores > _COUNTS
    score = np.where(counted, scores, 0).sum(-1) / np.maximum(counted.sum(-1), 1) * _sigmoid(sure)
    score[1 - unseen < rates.least_seen] = 0.0
    return _Found(scene.points.copy(), scores, score), _Ease(poor, steady)


def _spoil(scene: Shown, found: _Found, ease: _Ease, noise: _Noise, rates: ErrorRates) -> None:
    """Move joints: swaps, strays, jitter, the picture's edge. In place."""
    _swap(scene, found, rates.poor_swaps if ease.poor else 1.0, noise, rates)
    _stray(scene, found, ease, noise, rates)
    people = scene.points.shape[1]
    unsure = (scene.length[..., None] / np.maximum(ease.joints, 0.08))[..., None]
    away = np.asarray(rates.misplaced)[scene.level][..., None] * unsure
    found.points[:] += away * noise.smooth((people, JOINTS, 2), rates.misplaced_s)
    fast = noise.rng.standard_normal(found.points.shape)
    found.points[:] += (rates.jitter * unsure + rates.pixels / scene.pixels) * fast
    rim = np.minimum(np.abs(noise.slow((people, JOINTS, 2), rates.stray_s)) * 0.03 * scene.length[..., None, None], 0.1)
    inside = np.clip(found.points, rim, scene.sides - rim)
    cut = (scene.level == _OUTSIDE)[..., None]
    found.points[:] = np.where(cut, inside, np.clip(found.points, 0, scene.sides))


def _swap(scene: Shown, found: _Found, often: float, noise: _Noise, rates: ErrorRates) -> None:
    """Take left for right: all of a body, its arms, or its legs. In place."""
    hard = scene.away | (scene.rise < 0.5)
    everything = noise.events(often * np.where(hard, rates.swap_all[1], rates.swap_all[0]), rates.swap_s)
    each = np.full(everything.shape, often)
    arms = noise.events(rates.swap_arms * each, rates.swap_s) ^ everything
    legs = noise.events(rates.swap_legs * each, rates.swap_s) ^ everything
    for part, swaps in ((slice(0, 5), everything), (_ARMS, arms), (_LEGS, legs)):
        for values in (found.points, found.joints):
            other = values[:, :, _SIDES][:, :, part]
            values[:, :, part][swaps] = other[swaps]


def _stray(scene: Shown, found: _Found, ease: _Ease, noise: _Noise, rates: ErrorRates) -> None:
    """Put joints on the other side's, on another person's, or beside the body. In place."""
    often = np.clip(0.45 / np.maximum(ease.joints, 0.1), 0.4, 3.0) ** 2
    strays = noise.events(np.asarray(rates.stray)[scene.level] * often, rates.stray_s)
    offsets = noise.slow((*strays.shape[1:], 2), rates.stray_s) * 0.22 * scene.length[..., None, None]
    mirrored = found.points[:, :, _SIDES]
    which = noise.slow(strays.shape[1:], 1.0)
    found.points[:] = np.where((strays & (which > 0))[..., None], mirrored, found.points)
    found.points[:] = np.where((strays & (which <= 0))[..., None], found.points + offsets, found.points)
    found.joints[strays] *= 0.7
    nearest, apart = _nearest(scene)
    if nearest is None:
        return
    near = np.broadcast_to((apart < 2 * rates.merge_near)[..., None], strays.shape)
    borrows = noise.events(np.where(near, rates.borrow, 0.0), rates.stray_s)
    others = np.take_along_axis(scene.points, nearest[..., None, None], axis=1)
    found.points[:] = np.where(borrows[..., None], others, found.points)


def _nearest(scene: Shown) -> tuple[npt.NDArray[np.int64] | None, _Floats]:
    """The nearest other (T, P) and how far its middle is (T, P), in the larger one's length."""
    middle = scene.points[:, :, [5, 6, 11, 12]].mean(2)
    if middle.shape[1] < 2:
        return None, np.zeros(middle.shape[:2])
    apart = np.linalg.norm(middle[:, :, None] - middle[:, None], axis=-1)
    apart = apart / np.maximum(scene.length[:, :, None], scene.length[:, None])
    own = np.arange(middle.shape[1])
    apart[:, own, own] = np.inf
    return apart.argmin(2), np.asarray(apart.min(2))


def _merged(scene: Shown, found: _Found, noise: _Noise, rates: ErrorRates) -> _Flags:
    """Who (T, P) is lost because a surer person is so near."""
    nearest, apart = _nearest(scene)
    if nearest is None:
        return np.zeros(found.score.shape, bool)
    weaker = found.score < np.take_along_axis(found.score, nearest, axis=1)
    near = np.clip(2 - apart / rates.merge_near, 0, 1)
    return noise.events(rates.merge * near, rates.merge_s) & weaker


def _doubles(scene: Shown, found: _Found, noise: _Noise, rates: ErrorRates) -> _Found:
    """Second candidates for the same people: shifted, and of a low score."""
    there = noise.events(np.full(found.score.shape, rates.twice), 0.2)
    shift = noise.slow((found.score.shape[1], 1, 2), 0.3) * 0.08 * scene.length[..., None, None]
    wobble = noise.rng.standard_normal(found.points.shape) * 0.05 * scene.length[..., None, None]
    points = np.clip(found.points + shift + wobble, 0, scene.sides)
    score = found.score * noise.rng.uniform(0.2, 0.6, found.score.shape) * there
    return _Found(points, found.joints * 0.6, score)


_FIGURE = (  # y, x of a standing figure's key points, in its height from its middle
    np.array([-45, -47, -47, -46, -46, -34, -34, -18, -18, -3, -3, -2, -2, 23, 23, 46, 46]) / 100.0,
    np.array([0, 2, -2, 4, -4, 10, -10, 13, -13, 14, -14, 6, -6, 6, -6, 6, -6]) / 100.0,
)


def _ghosts(scene: Shown, noise: _Noise, rates: ErrorRates) -> _Found:
    """Things that the network takes for a person now and then: they stand still."""
    rng, count = noise.rng, int(noise.rng.poisson(rates.ghosts))
    length = float(np.median(scene.length)) if scene.length.size else 0.4
    size = np.clip(length * rng.uniform(0.4, 1.2, count), 0.05, 0.9)
    at = rng.uniform(0.15, 0.85, (count, 2)) * scene.sides
    pose = np.stack(_FIGURE, -1) * rng.uniform(0.5, 1.2, (count, 1, 2))
    pose = pose + rng.normal(0, 0.05, pose.shape)
    points = at[:, None] + pose * size[:, None, None]
    jitter = noise.slow((count, JOINTS, 2), 0.2) * 0.03 * size[:, None, None]
    score = rates.ghost_score * np.exp(0.5 * noise.slow((count,), 0.5) + 0.3 * rng.standard_normal(count))
    joints = _sigmoid(-1.2 + 0.8 * noise.slow((count, JOINTS), 0.5))
    points = np.clip(points + jitter, 0, scene.sides)
    return _Found(points, joints, np.minimum(score, 0.5))


def _packed(parts: list[_Found], scene: Shown, rates: ErrorRates) -> Packed:
    """Candidates -> int16 (T, 6, VALUES), surest first."""
    frames = len(scene.points)
    if not parts:
        return nobody(frames)
    points, joints, score = (
        np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("points", "joints", "score")
    )
    order = np.argsort(-score, axis=1, kind="stable")[:, :PEOPLE]
    every = np.arange(frames)[:, None]
    points, joints, score = points[every, order], joints[every, order], score[every, order]
    rows = np.zeros((frames, order.shape[1], VALUES))
    rows[..., : 3 * JOINTS] = np.concatenate([points, joints[..., None]], -1).reshape(*order.shape, 3 * JOINTS)
    rows[..., BOX] = _boxes(points, scene.sides, rates.margin)
    rows[..., SCORE] = score
    out = nobody(frames)
    out[:, : order.shape[1]] = np.round(np.where((score >= LEAST)[..., None], rows, 0) * UNIT)
    return out


def _boxes(points: _Floats, sides: _Floats, margin: tuple[float, float]) -> _Floats:
    """Top, left, bottom, right (T, N, 4) about the key points, cut at the picture's edge."""
    low, high = points.min(2), points.max(2)
    grow = np.asarray(margin) * np.linalg.norm(high - low, axis=-1, keepdims=True)
    low, high = low - grow, high + grow
    return np.concatenate([np.clip(low, 0, sides), np.clip(high, 0, sides)], axis=-1)
