"""What the person network would say of people whose places are known exactly: a model of its errors.

    ExactPeople --framing, quality--> seen, score --jitter, swaps, merges, ghosts--> int16 (T, 6, VALUES), as packed

Errors come in bursts: each is decided by noise that changes slowly. `ErrorRates` holds every number of the model, and
how it was obtained. NumPy alone; a clip takes a few milliseconds, so errors are drawn anew each time it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from familial.synth.exact_people import ABSENT, SEEN, TURNED, ExactPeople, Framing
from wire.people.decode import JOINTS, PEOPLE
from wire.people.packed import BOX, LEAST, SCORE, UNIT, VALUES, Packed, nobody

__all__ = ["DETECTOR_VERSION", "RATES", "ErrorRates", "detect", "draw_framing"]

DETECTOR_VERSION = 1
"""Raise it with any change after which the same people and random numbers give other detections."""

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]

_FRAME = (192, 256)  # the network's frame
_SIDES = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])  # joint -> its mirror image
_ARMS, _LEGS = slice(5, 11), slice(11, 17)
_OUTSIDE = 4  # beside ABSENT .. SEEN: out of the picture


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Every number of the model. Lengths are in the body's own height, sizes in pixels of the network's frame.

    Set by hand from what was seen of the network on rendered and real clips.

    The person's score is `most` x sigmoid(quality). Quality is a sum of what follows it here.
    """

    most: float = 0.85
    at_100: float = 1.3  # a body 100 pixels high, upright, all of it seen
    a_doubling: float = 1.6  # of the size, up to `largest`
    largest: float = 140.0
    unseen: float = -3.0  # none of its key points seen
    lying: float = -1.0  # the trunk along the horizon
    inverted: float = -2.0  # the trunk upside down, besides
    moving: float = -0.25  # each own height a second
    night: float = -0.5
    between_clips: float = 0.8  # standard deviations, also below
    between_people: float = 0.35
    within: float = 0.8
    within_s: float = 0.5  # how long it lasts, seconds

    joint_levels: tuple[float, ...] = (-3.0, -1.0, -0.2, 1.0, -2.5)  # log odds: ABSENT, HIDDEN, TURNED, SEEN, outside
    joint_of_person: float = 0.45  # of the person's quality
    joint_spread: float = 0.6
    joint_s: float = 0.3

    jitter: tuple[float, ...] = (0.012,) * 5 + (0.017, 0.017, 0.022, 0.022, 0.026, 0.026, 0.02, 0.02) + (0.024,) * 4
    worse: tuple[float, ...] = (4.0, 2.8, 1.8, 1.0, 3.5)  # jitter's factor by level
    slow_share: float = 0.6  # of the jitter's variance
    slow_s: float = 0.35
    pixels: float = 0.5  # jitter of any joint, pixels
    stray: tuple[float, ...] = (0.25, 0.12, 0.05, 0.006, 0.2)  # a joint lies elsewhere, by level
    stray_s: float = 0.25

    swap_all: tuple[float, float] = (0.01, 0.12)  # left for right: face seen and upright; otherwise
    swap_arms: float = 0.012
    swap_legs: float = 0.03
    swap_s: float = 0.3

    merge_near: float = 0.3  # distance of two bodies' middles at which one may be lost
    merge: float = 0.55
    merge_s: float = 0.5
    borrow: float = 0.12  # a joint is the other's, when so near
    twice: float = 0.02  # one person is found twice
    ghosts: float = 0.25  # things taken for a person, a clip
    ghost_score: float = 0.13
    margin: tuple[float, float] = (0.08, 0.03)  # of the box over the key points: above and below, and beside


RATES = ErrorRates()


def draw_framing(people: ExactPeople, rng: Generator) -> Framing:
    """The picture itself, or another crop of it by a wider, narrower or otherwise shaped view."""
    top, left, bottom, right = people.window
    if rng.random() < 0.25:
        return Framing(top, left, bottom - top, right - left)
    scale, shape = rng.uniform(0.85, 1.3), float(rng.choice([3 / 4, 9 / 16, 1.0, 0.68], p=[0.45, 0.3, 0.1, 0.15]))
    height, width = bottom - top, right - left
    wide = scale * max(width, height / shape) if shape < height / width else scale * width
    high = wide * shape
    y = top + (height - high) * rng.uniform(0.2, 0.8)
    x = left + (width - wide) * rng.uniform(0.2, 0.8)
    return Framing(y, x, high, wide)


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
    scene = _Scene.of(people, view)
    noise = _Noise(people.times_s, rng)
    found = _found(scene, people.night, noise, rates)
    parts = [found]
    if scene.points.shape[1]:
        _spoil(scene, found, noise, rates)
        parts.append(_doubles(scene, found, noise, rates))
        found.score[_merged(scene, found, noise, rates)] = 0.0
    parts.append(_ghosts(scene, noise, rates))
    return _packed([part for part in parts if part.score.shape[1]], scene, rates)[people.shown]


@dataclass(frozen=True, slots=True)
class _Scene:
    """Exact people as a framing shows them, in units of its larger side.

    points (T, P, 17, 2) y, x; level (T, P, 17); length (T, P); upright (T, P) the sine of the trunk's angle in the
    picture; away (T, P) whether the face is turned away; sides (2,) the picture's height and width; pixels: of the
    network's frame in one unit.
    """

    points: _Floats
    level: npt.NDArray[np.int64]
    length: _Floats
    upright: _Floats
    away: _Flags
    speed: _Floats
    sides: _Floats
    pixels: float

    @classmethod
    def of(cls, people: ExactPeople, view: Framing) -> _Scene:
        larger = max(view.height, view.width)
        points = (people.points - np.array([view.top, view.left])) / larger
        sides = np.array([view.height, view.width]) / larger
        level = people.visible.astype(np.int64)
        top, left, bottom, right = people.window
        outside = ((points < 0) | (points >= sides)).any(-1)
        outside |= ((people.points < (top, left)) & (np.array([top, left]) > 0)).any(-1)
        outside |= ((people.points >= (bottom, right)) & (np.array([bottom, right]) < people.sides)).any(-1)
        level = np.where(outside & (level != ABSENT), _OUTSIDE, level)
        trunk = points[:, :, 11:13].mean(2) - points[:, :, 5:7].mean(2)
        upright = trunk[..., 0] / np.maximum(np.hypot(trunk[..., 0], trunk[..., 1]), 1e-4)
        length = np.maximum(people.length / larger, 1e-3)
        hips = points[:, :, 11:13].mean(2)
        speed = np.zeros(length.shape)
        if len(hips) > 1:
            steps = np.hypot(*np.moveaxis(np.diff(hips, axis=0), -1, 0))
            speed[1:] = steps / np.diff(people.times_s)[:, None] / length[1:]
        away = level[:, :, 0] <= TURNED
        return cls(
            points,
            level,
            length,
            upright,
            away,
            np.minimum(speed, 4.0),
            sides,
            min(_FRAME[0] / sides[0], _FRAME[1] / sides[1]),
        )


class _Noise:
    """Random numbers that change slowly, of mean 0 and variance 1, and events that they decide."""

    def __init__(self, times_s: _Floats, rng: Generator) -> None:
        self.frames, self.rng = len(times_s), rng
        self._step = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 1.0

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
        x = self.slow(rate.shape[1:], lasts_s)
        # the normal distribution function by its logistic approximation (Page 1977, Applied Statistics 26)
        return np.asarray(1 / (1 + np.exp(-(1.5976 * x + 0.07056 * x**3))) < rate)


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates: points (T, N, 17, 2), joints' scores (T, N, 17), scores (T, N), length (T, N)."""

    points: _Floats
    joints: _Floats
    score: _Floats
    length: _Floats


def _sigmoid(x: _Floats) -> _Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def _found(scene: _Scene, night: bool, noise: _Noise, rates: ErrorRates) -> _Found:
    """Scores of people and joints, at the exact places."""
    people, rng = scene.points.shape[1], noise.rng
    size = np.minimum(scene.length * scene.pixels, rates.largest)
    seen = ((scene.level == SEEN) | (scene.level == TURNED)).mean(-1)
    quality = rates.at_100 + rates.a_doubling * np.log2(np.maximum(size, 4.0) / 100)
    quality += rates.unseen * (1 - seen) + rates.lying * (1 - np.clip(scene.upright, 0, 1))
    quality += rates.inverted * np.clip(-scene.upright, 0, 1) + rates.moving * scene.speed + rates.night * night
    quality += rates.between_clips * rng.standard_normal() + rates.between_people * rng.standard_normal(people)
    quality += rates.within * noise.slow((people,), rates.within_s)
    joints = np.asarray(rates.joint_levels)[scene.level] + rates.joint_of_person * quality[..., None]
    joints += rates.joint_spread * noise.slow((people, JOINTS), rates.joint_s)
    score = rates.most * _sigmoid(quality)
    score[seen * JOINTS < 2] = 0.0
    return _Found(scene.points.copy(), _sigmoid(joints), score, scene.length)


def _spoil(scene: _Scene, found: _Found, noise: _Noise, rates: ErrorRates) -> None:
    """Move joints: swaps, strays, jitter, the picture's edge. In place."""
    _swap(scene, found, noise, rates)
    _stray(scene, found, noise, rates)
    people = scene.points.shape[1]
    spread = np.asarray(rates.jitter) * np.asarray(rates.worse)[scene.level] * scene.length[..., None]
    slow = noise.slow((people, JOINTS, 2), rates.slow_s) * np.sqrt(rates.slow_share)
    fast = noise.rng.standard_normal(slow.shape) * np.sqrt(1 - rates.slow_share)
    found.points[:] += spread[..., None] * (slow + fast)
    found.points[:] += noise.rng.standard_normal(slow.shape) * rates.pixels / scene.pixels
    rim = np.abs(noise.rng.standard_normal(slow.shape)) * 0.03 * scene.length[..., None, None]
    low, high = np.minimum(rim, 0.1), scene.sides - np.minimum(rim, 0.1)
    cut = (scene.level == _OUTSIDE)[..., None]
    found.points[:] = np.where(cut, np.clip(found.points, low, high), np.clip(found.points, 0, scene.sides))


def _swap(scene: _Scene, found: _Found, noise: _Noise, rates: ErrorRates) -> None:
    """Take left for right: all of a body, its arms, or its legs. In place."""
    hard = scene.away | (scene.upright < 0.5)
    everything = noise.events(np.where(hard, rates.swap_all[1], rates.swap_all[0]), rates.swap_s)
    each = np.ones(everything.shape)
    arms = noise.events(rates.swap_arms * each, rates.swap_s) ^ everything
    legs = noise.events(rates.swap_legs * each, rates.swap_s) ^ everything
    for part, swaps in ((slice(0, 5), everything), (_ARMS, arms), (_LEGS, legs)):
        for values in (found.points, found.joints):
            other = values[:, :, _SIDES][:, :, part]
            values[:, :, part][swaps] = other[swaps]


def _stray(scene: _Scene, found: _Found, noise: _Noise, rates: ErrorRates) -> None:
    """Put joints on the other side's, on another person's, or beside the body. In place."""
    strays = noise.events(np.asarray(rates.stray)[scene.level], rates.stray_s)
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


def _nearest(scene: _Scene) -> tuple[npt.NDArray[np.int64] | None, _Floats]:
    """The nearest other (T, P) and how far its middle is (T, P), in the larger one's length."""
    middle = scene.points[:, :, [5, 6, 11, 12]].mean(2)
    if middle.shape[1] < 2:
        return None, np.zeros(middle.shape[:2])
    apart = np.linalg.norm(middle[:, :, None] - middle[:, None], axis=-1)
    apart = apart / np.maximum(scene.length[:, :, None], scene.length[:, None])
    own = np.arange(middle.shape[1])
    apart[:, own, own] = np.inf
    return apart.argmin(2), np.asarray(apart.min(2))


def _merged(scene: _Scene, found: _Found, noise: _Noise, rates: ErrorRates) -> _Flags:
    """Who (T, P) is lost because a surer person is so near."""
    nearest, apart = _nearest(scene)
    if nearest is None:
        return np.zeros(found.score.shape, bool)
    weaker = found.score < np.take_along_axis(found.score, nearest, axis=1)
    near = np.clip(2 - apart / rates.merge_near, 0, 1)
    return noise.events(rates.merge * near, rates.merge_s) & weaker


def _doubles(scene: _Scene, found: _Found, noise: _Noise, rates: ErrorRates) -> _Found:
    """Second candidates for the same people: shifted, and of a low score."""
    there = noise.events(np.full(found.score.shape, rates.twice), 0.2)
    shift = noise.slow((found.score.shape[1], 1, 2), 0.3) * 0.08 * scene.length[..., None, None]
    wobble = noise.rng.standard_normal(found.points.shape) * 0.05 * scene.length[..., None, None]
    points = np.clip(found.points + shift + wobble, 0, scene.sides)
    score = found.score * noise.rng.uniform(0.2, 0.6, found.score.shape) * there
    return _Found(points, found.joints * 0.6, score, found.length)


_FIGURE = (  # y, x of a standing figure's key points, in its height from its middle
    np.array([-45, -47, -47, -46, -46, -34, -34, -18, -18, -3, -3, -2, -2, 23, 23, 46, 46]) / 100.0,
    np.array([0, 2, -2, 4, -4, 10, -10, 13, -13, 14, -14, 6, -6, 6, -6, 6, -6]) / 100.0,
)


def _ghosts(scene: _Scene, noise: _Noise, rates: ErrorRates) -> _Found:
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
    return _Found(points, joints, np.minimum(score, 0.5), np.broadcast_to(size, score.shape))


def _packed(parts: list[_Found], scene: _Scene, rates: ErrorRates) -> Packed:
    """Candidates -> int16 (T, 6, VALUES), surest first."""
    frames = len(scene.points)
    if not parts:
        return nobody(frames)
    points, joints, score, length = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("points", "joints", "score", "length")
    )
    order = np.argsort(-score, axis=1, kind="stable")[:, :PEOPLE]
    every = np.arange(frames)[:, None]
    points, joints, score, length = (
        points[every, order],
        joints[every, order],
        score[every, order],
        length[every, order],
    )
    rows = np.zeros((frames, order.shape[1], VALUES))
    rows[..., : 3 * JOINTS] = np.concatenate([points, joints[..., None]], -1).reshape(*order.shape, 3 * JOINTS)
    rows[..., BOX] = _boxes(points, length, scene.sides, rates.margin)
    rows[..., SCORE] = score
    out = nobody(frames)
    out[:, : order.shape[1]] = np.round(np.where((score >= LEAST)[..., None], rows, 0) * UNIT)
    return out


def _boxes(points: _Floats, length: _Floats, sides: _Floats, margin: tuple[float, float]) -> _Floats:
    """Top, left, bottom, right (T, N, 4) about the key points, cut at the picture's edge."""
    grow = np.asarray(margin) * length[..., None]
    low, high = points.min(2) - grow, points.max(2) + grow
    return np.concatenate([np.clip(low, 0, sides), np.clip(high, 0, sides)], axis=-1)
