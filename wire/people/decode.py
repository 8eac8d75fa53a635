"""People in one frame, from the person network's heads. NumPy alone, no state: one frame in, at most six people out.

    frame (H, W, 3) --perceive.onnx--> heads (1, C, H/4, W/4) --decode--> People: 6 x 17 key points, box, score
    peaks of `centres` -> where people are          `regression` at a peak -> where each of its joints should be
    `heat`, weighted by the distance from there     its largest cell plus `joint_offsets` -> where the joint is

This is what the original network does behind its heads, in the same order (CenterNet: Zhou et al. 2019,
arXiv:1904.07850, with MoveNet's weighting). Indices that come from pixels stay out of the graph this way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wire.errors import CameraError, EngineError

__all__ = ["FOUND", "HEADS", "JOINTS", "MOST_ENLARGED", "PEOPLE", "STRIDE", "People", "Placement", "decode", "place"]

HEADS: Mapping[str, int] = {
    "centres": 1,
    "centre_offsets": 2,
    "sizes": 2,
    "heat": 17,
    "joint_offsets": 34,
    "regression": 34,
}
"""Output of the graph -> its channels. Pairs are y, x; of 34 channels, two for each joint."""
STRIDE = 4
"""Pixels of the frame for one cell of a head, each way."""
PEOPLE, JOINTS = 6, 17
FOUND = 0.2
"""A person of this score counts as found."""
MOST_ENLARGED = 2.0
"""A camera's picture is enlarged to the network's size at most so much: from half of its sides."""

_SPREAD = 0.300048828125  # of the weighting, in the shorter side; the original holds 0.3 in float16
_SEEN = 0.126953125  # joints of a lower score do not count towards a person's
_LARGEST = 1e4  # of any number of a head; cells and probabilities are far smaller
_NEIGHBOURS = 2  # cells each way within which a centre must be the largest
_REBUILD = "build it again: python -m export.perceive"

_Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class People:
    """The people of one frame, best centre first; always PEOPLE rows, of which many may be nobody: see `scores`.

    Attributes:
        keypoints: (6, 17, 3) y, x and score, in COCO's order. y and x in units of the frame's sides; a joint outside
            of the frame is beyond 0 or 1.
        boxes: (6, 4) top, left, bottom, right, in the same units, cut at the frame's edge.
        scores: (6,) 0 to 1.
    """

    keypoints: _Array
    boxes: _Array
    scores: _Array

    @property
    def found(self) -> int:
        """How many people have a score of FOUND or more."""
        return int((self.scores >= FOUND).sum())

    def within(self, placement: Placement) -> People:
        """The same people in units of the picture that was placed, without the margin."""
        rows, columns = placement.share
        sides = np.array([rows, columns], np.float32)
        keypoints = self.keypoints.copy()
        keypoints[..., :2] /= sides
        return People(keypoints, (self.boxes / np.tile(sides, 2)).astype(np.float32), self.scores)


@dataclass(frozen=True, slots=True)
class Placement:
    """How a picture lies in the network's frame: top left, with a black margin.

    Attributes:
        rows: Of the resized picture, pixels.
        columns: The same.
        share: rows and columns as shares of the frame's sides.
    """

    rows: int
    columns: int
    share: tuple[float, float]


def place(
    height: int, width: int, frame: tuple[int, int] = (192, 256), most_enlarged: float = MOST_ENLARGED
) -> Placement:
    """Place a picture of `height` x `width` in the network's frame, without changing its proportions.

    Args:
        height: Of the picture, pixels.
        width: The same.
        frame: Height and width of the network's frame.
        most_enlarged: A picture that would have to be enlarged more is refused.

    Raises:
        CameraError: The picture is too small: people in it would be of too few pixels.
    """
    if height < 1 or width < 1:
        raise CameraError(f"the camera's picture is {width}x{height}: there is nothing in it")
    scale = min(frame[0] / height, frame[1] / width)
    if scale > most_enlarged:
        least = f"{round(frame[1] / most_enlarged)}x{round(frame[0] / most_enlarged)}"
        raise CameraError(
            f"the camera's picture is {width}x{height}, too small for the person network; one side must reach that "
            f"of {least}: choose a larger mode of the camera"
        )
    rows, columns = max(1, min(frame[0], round(height * scale))), max(1, min(frame[1], round(width * scale)))
    return Placement(rows, columns, (rows / frame[0], columns / frame[1]))


def decode(heads: Mapping[str, npt.NDArray[np.float32]]) -> People:
    """Read people from the heads of one frame.

    Args:
        heads: HEADS -> float32 (1, C, h, w); h x w is the same for all.

    Raises:
        EngineError: A head is missing, has another shape or type, or holds NaN or a number that is too large.
    """
    maps = _checked(heads)
    centres = maps["centres"][0]
    height, width = centres.shape
    rows, columns = np.divmod(_peaks(centres), width)
    weight = centres[rows, columns] * _is_peak(centres)[rows, columns]
    boxes = _boxes(maps, rows, columns)
    near_y, near_x = _nearness(maps["regression"], rows, columns)
    inside_y, inside_x = _inside(boxes, height, width)
    at_y, at_x = _joints(maps["heat"], near_y * inside_y[:, None], near_x * inside_x[:, None])
    scores = _scores(maps["heat"], near_y, near_x, inside_y, inside_x, at_y, at_x)
    joint = np.arange(JOINTS)
    keypoints = np.empty((PEOPLE, JOINTS, 3), np.float32)
    keypoints[..., 0] = (at_y + maps["joint_offsets"][2 * joint, at_y, at_x]) / height
    keypoints[..., 1] = (at_x + maps["joint_offsets"][2 * joint + 1, at_y, at_x]) / width
    keypoints[..., 2] = scores
    seen = scores > _SEEN
    mean = np.where(seen, scores, 0).sum(1) / np.maximum(seen.sum(1), 1)
    sides = np.array([height, width] * 2, np.float32)
    return People(keypoints, np.clip(boxes / sides, 0, 1).astype(np.float32), (weight * mean).astype(np.float32))


def _checked(heads: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, _Array]:
    """HEADS -> (C, h, w)."""
    cells = heads["centres"].shape[2:] if "centres" in heads else ()
    for name, count in HEADS.items():
        value = heads.get(name)
        if value is None:
            raise EngineError(f"perceive: head {name!r} is missing; {_REBUILD}")
        if value.dtype != np.float32 or value.shape != (1, count, *cells) or value.ndim != 4:
            raise EngineError(
                f"perceive: head {name!r} is {value.dtype} {value.shape}, not float32 (1, {count}, h, w); {_REBUILD}"
            )
        if not np.abs(value).max() <= _LARGEST:  # NaN is not
            raise EngineError(f"perceive: head {name!r} holds NaN or more than {_LARGEST:g}; {_REBUILD}")
    if cells[0] * cells[1] < PEOPLE:
        raise EngineError(f"perceive: the heads have {cells[0]} x {cells[1]} cells, fewer than {PEOPLE}; {_REBUILD}")
    return {name: heads[name][0] for name in HEADS}


def _is_peak(centres: _Array) -> npt.NDArray[np.bool_]:
    """Where a cell is the largest of its neighbourhood."""
    around = np.pad(centres, _NEIGHBOURS, constant_values=-np.inf)
    sides = 2 * _NEIGHBOURS + 1
    largest = np.lib.stride_tricks.sliding_window_view(around, sides, 0).max(-1)
    largest = np.lib.stride_tricks.sliding_window_view(largest, sides, 1).max(-1)
    found: npt.NDArray[np.bool_] = centres >= largest - np.float32(1e-6)
    return found


def _peaks(centres: _Array) -> npt.NDArray[np.intp]:
    """Cells of the PEOPLE largest peaks, largest first; of equal ones the first."""
    found: npt.NDArray[np.intp] = np.argsort(-np.where(_is_peak(centres), centres, 0).ravel(), kind="stable")[:PEOPLE]
    return found


def _boxes(maps: Mapping[str, _Array], rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> _Array:
    """(6, 4) top, left, bottom, right in cells, cut at the edge."""
    _, height, width = maps["centres"].shape
    centre = np.stack([rows, columns], 1) + maps["centre_offsets"][:, rows, columns].T
    half = np.maximum(maps["sizes"][:, rows, columns].T, 0) / 2
    limit = np.array([height, width] * 2, np.float32)
    cut: _Array = np.clip(np.concatenate([centre - half, centre + half], 1), 0, limit).astype(np.float32)
    return cut


def _nearness(regression: _Array, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> tuple[_Array, _Array]:
    """(6, 17, h) and (6, 17, w): their product weights a cell by its distance from where the joint should be."""
    _, height, width = regression.shape
    should = regression[:, rows, columns].T.reshape(PEOPLE, JOINTS, 2)
    spread = np.float32(min(height, width) * _SPREAD)
    near = []
    for axis, (start, count) in enumerate(((rows, height), (columns, width))):
        distance = np.arange(count, dtype=np.float32) - (start[:, None] + should[..., axis])[..., None]
        near.append(np.exp(-(distance * distance) / spread).astype(np.float32))
    return near[0], near[1]


def _inside(boxes: _Array, height: int, width: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(6, h) and (6, w): which rows and columns lie in a person's box."""
    y, x = np.arange(height), np.arange(width)
    return (y >= boxes[:, :1]) & (y < boxes[:, 2:3]), (x >= boxes[:, 1:2]) & (x < boxes[:, 3:])


def _joints(heat: _Array, near_y: _Array, near_x: _Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(6, 17) rows and columns of the cell with the largest weighted heat; 0, 0 where all of them are 0."""
    _, height, width = heat.shape
    cells = np.empty((PEOPLE, JOINTS), np.intp)
    weighted = np.empty_like(heat)
    for person in range(PEOPLE):
        np.multiply(heat, near_y[person][:, :, None], out=weighted)
        weighted *= near_x[person][:, None, :]
        cells[person] = weighted.reshape(JOINTS, height * width).argmax(1)
    rows, columns = np.divmod(cells, width)
    return rows, columns


def _scores(
    heat: _Array,
    near_y: _Array,
    near_x: _Array,
    inside_y: npt.NDArray[np.bool_],
    inside_x: npt.NDArray[np.bool_],
    at_y: npt.NDArray[np.intp],
    at_x: npt.NDArray[np.intp],
) -> _Array:
    """(6, 17) score of each joint: the largest weighted heat that any person has at its cell, as in the original."""
    joint = np.arange(JOINTS)
    best = np.zeros((PEOPLE, JOINTS), np.float32)
    for person in range(PEOPLE):
        near = near_y[person][joint, at_y] * near_x[person][joint, at_x]
        here = inside_y[person][at_y] & inside_x[person][at_x]
        best = np.maximum(best, heat[joint, at_y, at_x] * near * here)
    return best.astype(np.float32)
