"""Ground truth of every frame of a rendered clip beyond its label, in small: for tasks that only training has.

    RenderedClip (silhouettes, key points, tags) --truth_of--> Truth (T frames) --at--> Truth (any instants)
    Truth of a slot's frames --attribute--> which of ATTRIBUTES

Where nothing is known (a real clip, a black frame) `count` is -1, and so is every other field of that frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from familial.synth.rendered_clip import SEEN, RenderedClip
from familial.synth.tags import TAGS

__all__ = ["ATTRIBUTES", "CELLS", "POSE", "Truth", "attribute", "truth_of", "unknown"]

ATTRIBUTES = ("empty", "one", "several", "low", "running")
"""What a scene without risk may show: nobody, one person upright, two or more, one who is low (lies or crouches), one
who runs."""

CELLS = 32  # silhouettes are kept as a grid of so many cells a side
POSE = ("elevation", "descent", "nearness", "swing")
_SHOULDERS, _HIPS, _WRISTS = (5, 6), (11, 12), (9, 10)  # COCO's order
_STEP_S = 0.4  # speeds are averaged over this


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of T frames; -1 (people: 0) where nothing is known.

    POSE is what the image shows of bodies, lengths in that person's trunks. elevation: sine of the lowest trunk's angle
    against the horizon; descent: the fastest hips' way down in a second; nearness: exp(-distance) of the two nearest
    people; swing: the speed of the fastest wrist against its own hips.

    Attributes:
        count: int8 (T,) people who are seen: 0, 1, or 2 for two or more.
        tags: int8 (T, 5) whether anybody seen is what TAGS names.
        pose: float16 (T, 4) the values of POSE.
        people: uint8 (T, CELLS, CELLS) the share of each cell that shows people: 255 is all.
    """

    count: npt.NDArray[np.int8]
    tags: npt.NDArray[np.int8]
    pose: npt.NDArray[np.float16]
    people: npt.NDArray[np.uint8]

    def at(self, picked: npt.NDArray[np.int64]) -> Truth:
        """The frames `picked`, int64 (N,); unknown where that is negative."""
        found = Truth(self.count[picked], self.tags[picked], self.pose[picked], self.people[picked])
        for field in (found.count, found.tags, found.pose):
            field[picked < 0] = -1
        found.people[picked < 0] = 0
        return found

    def moved(self, view: npt.NDArray[np.float64], height: int, width: int) -> Truth:
        """The same after frames of height x width were warped by `view`, (2, 3) as OpenCV's warpAffine takes it."""
        wide, high = width / CELLS, height / CELLS
        centre = np.array([(wide - 1) / 2, (high - 1) / 2])  # of a cell's pixels: cell X lies at wide * X + centre
        scale = np.array([wide, high])
        linear = view[:, :2] * scale[None] / scale[:, None]
        shift = (view[:, :2] @ centre + view[:, 2] - centre) / scale
        small = np.concatenate((linear, shift[:, None]), axis=1)
        people = [cv2.warpAffine(cells, small, (CELLS, CELLS)) for cells in self.people]
        return Truth(self.count, self.tags, self.pose, np.stack(people).astype(np.uint8))


def attribute(truth: Truth) -> int:
    """Index into ATTRIBUTES of what most of these frames show; -1 where fewer than half are known."""
    known = truth.count >= 0
    if 2 * known.sum() < len(known):
        return -1
    count, tags = truth.count[known], truth.tags[known]
    low = np.maximum(tags[:, TAGS.index("lying")], tags[:, TAGS.index("crouching")])
    votes = [
        count == 0,
        (count == 1) & (low == 0) & (tags[:, TAGS.index("running")] == 0),
        count == 2,
        (count == 1) & (low == 1),
        (count == 1) & (low == 0) & (tags[:, TAGS.index("running")] == 1),
    ]
    return int(np.argmax([vote.sum() for vote in votes]))


def unknown(frames: int) -> Truth:
    """Truth of `frames` frames of which nothing is known."""
    return Truth(
        np.full(frames, -1, np.int8),
        np.full((frames, len(TAGS)), -1, np.int8),
        np.full((frames, len(POSE)), -1, np.float16),
        np.zeros((frames, CELLS, CELLS), np.uint8),
    )


def truth_of(clip: RenderedClip) -> Truth:
    """The truth of a rendered clip's T frames."""
    times, people = clip.times_s, len(clip.identities)
    tags = np.zeros((len(times), len(TAGS)), np.int8)
    for tag in clip.tags:
        tags[(times >= tag.start_s) & (times < tag.end_s), TAGS.index(tag.label)] = 1
    cells = [
        cv2.resize((plane > 0) * np.uint8(255), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        for plane in clip.silhouettes
    ]
    seen = (
        np.stack([(clip.silhouettes == person + 1).mean(axis=(1, 2)) > SEEN for person in range(people)], 1)
        if people
        else np.zeros((len(times), 0), bool)
    )
    return Truth(np.minimum(clip.count, 2).astype(np.int8), tags, _pose(clip, seen), np.stack(cells).astype(np.uint8))


def _pose(clip: RenderedClip, seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float16]:
    """POSE of T frames; people who are not `seen`, bool (T, P), do not count.

    A frame without people has the values of one person who is upright, still and alone.
    """
    nobody = np.array([1.0, 0.0, 0.0, 0.0])
    pose = np.tile(nobody, (len(clip.times_s), 1))
    if not seen.shape[1]:
        return pose.astype(np.float16)
    points = clip.keypoints[..., :2].astype(np.float64)  # (T, P, 17, 2)
    shoulders, hips = points[:, :, _SHOULDERS].mean(2), points[:, :, _HIPS].mean(2)
    trunk = np.hypot(*np.moveaxis(shoulders - hips, -1, 0))  # (T, P)
    own = np.maximum(np.quantile(trunk, 0.8, axis=0), 2.0)  # (P,) pixels
    rise = (hips - shoulders)[..., 1] / np.maximum(trunk, 1.0)
    down = _speed(hips[..., 1] / own, clip.times_s)
    arms = (points[:, :, _WRISTS] - hips[:, :, None]) / own[:, None, None]
    swing = np.hypot(*np.moveaxis(_speed(arms, clip.times_s), -1, 0)).max(2)
    apart = np.linalg.norm(hips[:, :, None] - hips[:, None], axis=3) / own
    both = seen[:, :, None] & seen[:, None] & ~np.eye(seen.shape[1], dtype=bool)
    pose[:, 0] = np.where(seen, rise, 1.0).min(1)
    pose[:, 1] = np.where(seen, down, 0.0).max(1)
    pose[:, 2] = np.exp(-np.where(both, apart, np.inf).min((1, 2)))
    pose[:, 3] = np.where(seen, swing, 0.0).max(1)
    return np.asarray(np.clip(pose, [-1.0, 0.0, 0.0, 0.0], [1.0, 5.0, 1.0, 10.0]), np.float16)


def _speed(values: npt.NDArray[np.float64], times_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Change a second of values (T, ...), looking back `_STEP_S`."""
    before = np.maximum(np.searchsorted(times_s, times_s - _STEP_S - 1e-6), 0)
    lasted = np.maximum(times_s - times_s[before], 1e-3)
    return np.asarray((values - values[before]) / lasted.reshape(-1, *[1] * (values.ndim - 1)))
