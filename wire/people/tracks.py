"""Who is who in the frames of one window. Nothing from before the window is used, and nothing is kept.

    people int16 (W, T, 6, VALUES) --frame by frame, oldest first--> tracks int16 (W, T, TRACKS, VALUES)

A person is given to the track whose last pose is nearest, in units of the body's size; a track that nobody is given to
stays open for a while, and the distance that it takes grows. The tracks with most seen of them are kept. So a release
depends on the people of its own window alone, as the certificate assumes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wire.people.decode import JOINTS
from wire.people.packed import BOX, SCORE, UNIT, Packed

__all__ = ["TRACKS", "form_tracks"]

TRACKS = 4
"""Tracks of a window."""

_OPEN = 8  # tracks that may exist at once
_NEAR = 0.45  # of the body's size: how far a pose moves from frame to frame at most
_FARTHER = 0.08  # more for each frame in which nobody was given to the track
_FORGOTTEN = 24  # frames after which a track may make room
_BEGINS = 0.15  # score with which a person begins a track
_FAR = 1e6

_Floats = npt.NDArray[np.float32]


def form_tracks(people: Packed) -> Packed:
    """Follow the people of W windows.

    Args:
        people: int16 (W, T, P, VALUES), frames oldest first, of each window on its own.

    Returns:
        int16 (W, T, TRACKS, VALUES): a row is the same person in all frames, zeros where that person is not seen;
        the longest and surest tracks first.
    """
    windows, frames = people.shape[:2]
    tracks = np.zeros((windows, frames, _OPEN, people.shape[3]), np.int16)
    state = _State(windows, people.shape[3])
    for frame in range(frames):
        state.follow(people[:, frame], tracks, frame)
    order = np.argsort(-tracks[..., SCORE].astype(np.int64).sum(axis=1), axis=1, kind="stable")[:, :TRACKS]
    return np.ascontiguousarray(np.take_along_axis(tracks, order[:, None, :, None], axis=2))


class _State:
    """The last pose of every track, and for how many frames nobody was given to it."""

    def __init__(self, windows: int, values: int) -> None:
        self.last = np.zeros((windows, _OPEN, values), np.float32)
        self.unseen = np.full((windows, _OPEN), _FORGOTTEN + 1)

    def follow(self, people: npt.NDArray[np.int16], tracks: Packed, frame: int) -> None:
        """Give the people (W, P, VALUES) of one frame to tracks, or let them begin some."""
        there = people[..., SCORE] > 0  # (W, P)
        if not there.any():
            self.unseen += 1
            return
        now = people.astype(np.float32)
        cost = _distance(self.last, now)  # (W, _OPEN, P)
        alive = self.last[..., SCORE] > 0
        reach = _NEAR + _FARTHER * np.minimum(self.unseen, _FORGOTTEN)
        cost = np.where(alive[:, :, None] & there[:, None, :] & (cost < reach[:, :, None]), cost, _FAR)
        given = self._assign(cost)  # (W, P): track, or -1
        self.unseen += 1
        rows, persons = np.nonzero(given >= 0)
        self._write(tracks, frame, rows, given[rows, persons], people[rows, persons])
        begins = there & (given < 0) & (people[..., SCORE] >= _BEGINS * UNIT)
        for row, person in zip(*np.nonzero(begins), strict=True):
            self._begin(tracks, frame, int(row), people[row, person])

    @staticmethod
    def _assign(cost: _Floats) -> npt.NDArray[np.int64]:
        """The nearest pair first, then the nearest of what is left: (W, P) the track of each person, or -1."""
        windows, _, persons = cost.shape
        given = np.full((windows, persons), -1, np.int64)
        every = np.arange(windows)
        for _ in range(persons):
            flat = cost.reshape(windows, -1).argmin(axis=1)
            track, person = np.divmod(flat, persons)
            near = cost[every, track, person] < _FAR
            if not near.any():
                break
            hit = every[near]
            given[hit, person[near]] = track[near]
            cost[hit, track[near]] = _FAR
            cost[hit, :, person[near]] = _FAR
        return given

    def _write(
        self,
        tracks: Packed,
        frame: int,
        rows: npt.NDArray[np.int64],
        chosen: npt.NDArray[np.int64],
        poses: npt.NDArray[np.int16],
    ) -> None:
        tracks[rows, frame, chosen] = poses
        self.last[rows, chosen] = poses
        self.unseen[rows, chosen] = 0

    def _begin(self, tracks: Packed, frame: int, row: int, pose: npt.NDArray[np.int16]) -> None:
        """Begin a track in an unused place, or in that of the weakest track that is long unseen."""
        weight = tracks[row, :, :, SCORE].astype(np.int64).sum(axis=0)
        weight[self.unseen[row] <= _FORGOTTEN] += 1 << 40
        chosen = int(weight.argmin())
        if self.unseen[row, chosen] <= _FORGOTTEN:
            return
        tracks[row, :, chosen] = 0
        self._write(tracks, frame, np.array([row]), np.array([chosen]), pose[None])


def _distance(last: _Floats, now: _Floats) -> _Floats:
    """(W, _OPEN, P): mean distance of the joints and the box's centre, over the larger of the two bodies' sizes."""
    a, b = last[:, :, None], now[:, None]
    weight = np.maximum(np.minimum(a[..., 2 : 3 * JOINTS : 3], b[..., 2 : 3 * JOINTS : 3]), 0)  # (W, O, P, 17)
    dy = a[..., 0 : 3 * JOINTS : 3] - b[..., 0 : 3 * JOINTS : 3]
    dx = a[..., 1 : 3 * JOINTS : 3] - b[..., 1 : 3 * JOINTS : 3]
    joints = (np.sqrt(dy * dy + dx * dx) * weight).sum(-1)
    box_a, box_b = a[..., BOX], b[..., BOX]
    middle = (box_a[..., :2] + box_a[..., 2:] - box_b[..., :2] - box_b[..., 2:]) / 2
    centre = np.sqrt((middle * middle).sum(-1))
    boxes = 0.25 * UNIT  # the boxes' centre counts as much as one joint of this score
    size = np.maximum(_size(last)[:, :, None], _size(now)[:, None])
    return np.asarray((joints + boxes * centre) / (weight.sum(-1) + boxes) / size, np.float32)


def _size(people: _Floats) -> _Floats:
    """The diagonal of the box, at least a hundredth of the picture: (W, P)."""
    box = people[..., BOX]
    sides = box[..., 2:] - box[..., :2]
    return np.asarray(np.maximum(np.sqrt((sides * sides).sum(-1)), UNIT / 100), np.float32)
