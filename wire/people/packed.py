"""People as integers: what the eye keeps of a frame, and what training reads.

    People of one frame, in units of the picture's sides --pack--> int16 (6, 56) --form_tracks (`tracks`)--> encode

A row is one person: 17 times y, x and score, then the box (top, left, bottom, right), then the person's score. Places
are in units of the picture's larger side, so that a body keeps its proportions; both they and the scores are multiples
of 1/UNIT. A row of zeros is nobody. Integers have no NaN, and one number of each kind.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wire.people.decode import JOINTS, PEOPLE, People

__all__ = ["BOX", "LEAST", "SCORE", "UNIT", "VALUES", "Packed", "mirrored", "moved", "nobody", "pack"]

Packed = npt.NDArray[np.int16]
"""People, int16 (..., 6, VALUES)."""

UNIT = 4096
"""Steps in the picture's larger side, and in a score of 1."""
LEAST = 0.1
"""A person of a lower score is not kept."""
BOX, SCORE = slice(3 * JOINTS, 3 * JOINTS + 4), 3 * JOINTS + 4
"""Where the box and the person's score are in a row."""
VALUES = SCORE + 1
"""Numbers of a row."""

_REACH = 1.5  # of the larger side: places are cut at -REACH and 1 + REACH
_SIDES = np.array([0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15])  # joint -> its mirror image, COCO


def nobody(frames: int) -> Packed:
    """Nobody in `frames` frames, int16 (frames, 6, VALUES)."""
    return np.zeros((frames, PEOPLE, VALUES), np.int16)


def pack(people: People, height: int, width: int) -> Packed:
    """Pack the people of one frame.

    Args:
        people: In units of the picture's sides (`People.within`).
        height: Of the picture, pixels.
        width: The same.

    Returns:
        int16 (6, VALUES), people of a score of LEAST or more first; then rows of zeros.
    """
    rows: Packed = nobody(1)[0]
    sides = np.array([height, width], np.float64) / max(height, width)
    there = people.scores >= LEAST
    keypoints = people.keypoints[there].astype(np.float64)
    keypoints[..., :2] *= sides
    boxes = people.boxes[there].astype(np.float64) * np.tile(sides, 2)
    flat = np.concatenate([keypoints.reshape(-1, 3 * JOINTS), boxes, people.scores[there, None]], axis=1)
    low, high = -_REACH, 1.0 + _REACH
    rows[: len(flat)] = np.round(np.clip(np.nan_to_num(flat, nan=0.0), low, high) * UNIT)
    return rows


def mirrored(people: Packed, width_share: float) -> Packed:
    """The same people in the picture's mirror image: left and right joints change places.

    Args:
        people: int16 (..., 6, VALUES).
        width_share: The picture's width as a share of its larger side.
    """
    matrix = np.array([[-1.0, 0.0, width_share * UNIT], [0.0, 1.0, 0.0]])
    return moved(people, matrix)


def moved(people: Packed, matrix: npt.NDArray[np.float64]) -> Packed:
    """People as the picture that `matrix` makes shows them.

    Args:
        people: int16 (..., 6, VALUES).
        matrix: float (2, 3), what becomes of (x, y, 1) in steps of UNIT; where it mirrors, joints change their sides.
    """
    keypoints = people[..., : 3 * JOINTS].reshape(*people.shape[:-1], JOINTS, 3)
    there = people[..., SCORE] > 0
    mirrors = np.linalg.det(matrix[:, :2]) < 0
    if mirrors:
        keypoints = keypoints[..., _SIDES, :]
    y, x = keypoints[..., 0].astype(np.float64), keypoints[..., 1].astype(np.float64)
    new_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    new_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    made = np.stack([new_y, new_x, keypoints[..., 2]], axis=-1).reshape(*people.shape[:-1], 3 * JOINTS)
    top, left, bottom, right = np.moveaxis(people[..., BOX].astype(np.float64), -1, 0)
    corners_x = matrix[0, 0] * np.stack([left, right]) + matrix[0, 1] * np.stack([top, bottom]) + matrix[0, 2]
    corners_y = matrix[1, 0] * np.stack([left, right]) + matrix[1, 1] * np.stack([top, bottom]) + matrix[1, 2]
    box = np.stack([corners_y.min(0), corners_x.min(0), corners_y.max(0), corners_x.max(0)], axis=-1)
    out = np.concatenate([made, box, people[..., SCORE:].astype(np.float64)], axis=-1)
    limited = np.clip(np.round(out), -_REACH * UNIT, (1.0 + _REACH) * UNIT)
    made_rows: Packed = np.where(there[..., None], limited, 0).astype(np.int16)
    return made_rows
