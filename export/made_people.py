"""People that nobody filmed, for comparing engines: stick figures as the person network would give them. No torch.

    figures that stand, walk, fall and lie --joints, scores, boxes--> int16 (W, F, 6, VALUES) --form_tracks--> int32

The first windows are extreme: nobody, six at once, somebody at the edge of what `pack` can store, somebody in a single
frame. Real ones are none of these; an engine must agree with torch on all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import WindowSpec
from wire.people.decode import JOINTS, PEOPLE
from wire.people.packed import BOX, SCORE, UNIT, VALUES, Packed, nobody
from wire.people.tracks import form_tracks

__all__ = ["EXTREME", "made_frames", "made_people"]

EXTREME = 4
"""So many windows of `made_people` come first that no camera gives."""

# A standing figure in COCO's order, y and x in units of its height about its hips: nose, eyes, ears, shoulders, elbows,
# wrists, hips, knees, ankles; left before right.
_FIGURE = np.array(
    [
        [-0.42, 0.0], [-0.45, 0.02], [-0.45, -0.02], [-0.44, 0.04], [-0.44, -0.04],
        [-0.32, 0.11], [-0.32, -0.11], [-0.14, 0.14], [-0.14, -0.14], [0.02, 0.15], [0.02, -0.15],
        [0.0, 0.07], [0.0, -0.07], [0.24, 0.08], [0.24, -0.08], [0.48, 0.09], [0.48, -0.09],
    ]
)  # fmt: skip
_LEAST, _MOST = -1.5, 2.5  # places that `pack` can store, in the picture's larger side
_Floats = npt.NDArray[np.float64]


def made_people(window: WindowSpec, count: int) -> npt.NDArray[np.int32]:
    """Tracks of `count` windows, int32 (count, F, TRACKS, VALUES), the same every time."""
    rng = np.random.default_rng(23)
    frames = window.frames
    made = [nobody(frames), _six(rng, frames), _extreme(frames), _once(rng, frames)]
    made += [_window(rng, frames) for _ in range(count - len(made))]
    return form_tracks(np.stack(made[:count])).astype(np.int32)


def made_frames(height: int, width: int, count: int) -> npt.NDArray[np.uint8]:
    """Frames in colour for the person network, uint8 (count, H, W, 3): extreme ones, then shapes over gradients."""
    rng = np.random.default_rng(24)
    rows, columns = np.mgrid[:height, :width]
    shape = (height, width, 3)
    made = [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), rng.integers(0, 256, shape, dtype=np.uint8)]
    for _ in range(count - len(made)):
        slope = rows * rng.uniform(-0.5, 0.5) + columns * rng.uniform(-0.5, 0.5)
        ground = rng.uniform(40, 200, 3) + slope[..., None]
        for _ in range(int(rng.integers(1, 4))):
            middle, size = rng.uniform(0.1, 0.9, 2) * (height, width), rng.uniform(0.05, 0.3, 2) * height
            inside = ((rows - middle[0]) / size[0]) ** 2 + ((columns - middle[1]) / size[1]) ** 2 < 1
            ground = np.where(inside[..., None], rng.uniform(0, 255, 3), ground)
        made.append(np.clip(ground + rng.normal(scale=4, size=shape), 0, 255).astype(np.uint8))
    return np.stack(made[:count])


def _window(rng: np.random.Generator, frames: int) -> Packed:
    """One to three figures, each in some of the frames, each with its own movement."""
    people = nobody(frames)
    for person in range(int(rng.integers(1, 4))):
        _walk(people[:, person], rng)
    return people


def _six(rng: np.random.Generator, frames: int) -> Packed:
    people = nobody(frames)
    for person in range(PEOPLE):
        _walk(people[:, person], rng)
    return people


def _extreme(frames: int) -> Packed:
    """Every number at one end of what `pack` can store, the ends exchanged in every frame."""
    ends = np.array([_LEAST, _MOST]) * UNIT
    people = nobody(frames)
    people[:, :2, : 3 * JOINTS] = ends[np.arange(3 * JOINTS) % 2]
    people[:, :2, BOX] = ends[[0, 0, 1, 1]]
    people[1::2, 1] = people[1::2, 1, ::-1]
    people[:, :2, SCORE] = UNIT
    return people


def _once(rng: np.random.Generator, frames: int) -> Packed:
    """Somebody in the last frame alone."""
    people = nobody(frames)
    _walk(people[:, 0], rng)
    people[:-1] = 0
    return people


def _walk(rows: npt.NDArray[np.int16], rng: np.random.Generator) -> None:
    """Write one figure into the frames (F, VALUES): it walks, may fall, and is lost in some frames."""
    frames = len(rows)
    height, falls = rng.uniform(0.1, 0.6), rng.random() < 0.4
    start, step = rng.uniform([0.2, 0.1], [0.6, 0.9]), rng.uniform(-0.01, 0.01, 2)
    begins, lasts = rng.integers(0, frames), int(rng.integers(3, 12))
    lost = rng.random(frames) < rng.uniform(0.0, 0.3)
    for frame in np.flatnonzero(~lost):
        angle = np.clip((frame - begins) / lasts, 0.0, 1.0) * (np.pi / 2) if falls else 0.0
        rows[frame] = _row(start + step * frame, height, float(angle), rng)


def _row(middle: _Floats, height: float, angle: float, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """A figure (VALUES,) about `middle`, turned by `angle` from upright."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = middle + _FIGURE @ turn.T * height + rng.normal(scale=0.01 * height, size=(JOINTS, 2))
    row = np.zeros(VALUES)
    row[: 3 * JOINTS] = np.concatenate([places, rng.uniform(0.05, 0.95, (JOINTS, 1))], axis=1).ravel()
    row[BOX] = np.clip(np.concatenate([places.min(0), places.max(0)]), 0.0, 1.0)
    row[SCORE] = rng.uniform(0.15, 0.9)
    return np.asarray(np.round(np.clip(row, _LEAST, _MOST) * UNIT), np.int16)
