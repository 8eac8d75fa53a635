"""People of one sequence, as a window would pick them, and changed at random for training.

clip's people --held at the instants of a grid--> int16 (T, 6, VALUES) --view, tilt, errors--> the same, other people
batch of them --each window's frames--> `form_tracks` --> int16 (B, R, F, TRACKS, VALUES)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from familial.data.clips import Footage
from wire.artifact.manifest import WindowSpec
from wire.errors import DataError
from wire.people.decode import JOINTS
from wire.people.packed import SCORE, UNIT, Packed, moved, nobody
from wire.people.tracks import form_tracks

__all__ = ["changed_people", "people_at", "tracks_of"]

_SIDES = (0.75, 1.0)  # height and width of the picture in its larger side; a camera's other proportions shift a view
_TILT, _STRETCH = 0.12, 1.1  # radians, either way; of width against height
_LOST, _GONE, _SHAKEN, _DULLED = 0.3, 0.25, 0.5, 0.3  # how often each error is made


def people_at(footage: Footage, start: float, instants: npt.NDArray[np.float64], spec: WindowSpec) -> Packed:
    """The people of a clip at some instants; nobody before the stream begins, and where no frame is.

    Args:
        footage: with people.
        start: where the stream begins, seconds of the clip's clock.
        instants: float64 (T,), seconds of the clip's clock.
        spec: of the windows.

    Returns:
        int16 (T, 6, VALUES).

    Raises:
        DataError: the clip has no people.
    """
    if footage.people is None or footage.people_times is None:
        raise DataError("people of a clip are missing: read it with the person network (--perceive FILE)")
    index = np.flatnonzero(footage.people_times >= start - 1e-6)
    picked = spec.held(footage.people_times[index], instants)
    found = nobody(len(instants))
    there = picked >= 0
    found[there] = footage.people[index[picked[there]]]
    return found


def changed_people(people: Packed, view: npt.NDArray[np.float64], side: int, rng: np.random.Generator) -> Packed:
    """People int16 (T, 6, VALUES) as another camera and a worse network would give them.

    Args:
        people: of one sequence.
        view: float (2, 3), what `sample_view` drew for the small frames.
        side: of the small frames, pixels.
        rng: draws a tilt, a stretch and errors.
    """
    made = moved(people, _tilted(_in_units(view, side), rng))
    if rng.random() < _LOST:
        made[rng.random(made.shape[:2]) < rng.uniform(0.05, 0.35)] = 0
    if rng.random() < _GONE:
        first = int(rng.integers(0, len(made)))
        made[first : first + int(rng.integers(2, 16))] = 0
    if rng.random() < _SHAKEN:
        _shake(made, rng.uniform(0.0, 0.012), rng)
    if rng.random() < _DULLED:
        factor = rng.uniform(0.6, 1.15)
        made[..., 2 : 3 * JOINTS : 3] = made[..., 2 : 3 * JOINTS : 3] * factor
        made[..., SCORE] = made[..., SCORE] * factor
    return made


def tracks_of(people: Packed, index: npt.NDArray[np.int64]) -> Packed:
    """Follow the people of every window on its own.

    Args:
        people: int16 (B, T, 6, VALUES).
        index: int64 (R, F), the place of each window's frames among the T.

    Returns:
        int16 (B, R, F, TRACKS, VALUES).
    """
    windows = people[:, index]  # (B, R, F, 6, VALUES)
    return form_tracks(windows.reshape(-1, *windows.shape[2:])).reshape(*windows.shape[:3], -1, people.shape[3])


def _in_units(view: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """A view of square frames of `side` pixels in steps of UNIT of the picture's larger side."""
    matrix = view.astype(np.float64).copy()
    matrix[0, 2] *= _SIDES[1] * UNIT / side
    matrix[1, 2] *= _SIDES[0] * UNIT / side
    return matrix


def _tilted(matrix: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`matrix`, then a small turn about the picture's middle and a stretch."""
    angle, stretch = rng.uniform(-_TILT, _TILT), _STRETCH ** rng.uniform(-1, 1)
    turn = np.array([[stretch * math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([_SIDES[1], _SIDES[0]]) * UNIT / 2
    made = np.empty((2, 3))
    made[:, :2] = turn @ matrix[:, :2]
    made[:, 2] = turn @ (matrix[:, 2] - middle) + middle
    return made


def _shake(people: Packed, amount: float, rng: np.random.Generator) -> None:
    """Move every joint of those who are there by noise of `amount` of the picture's larger side."""
    joints = people[..., : 3 * JOINTS].reshape(*people.shape[:2], JOINTS, 3)
    noise = rng.normal(0.0, amount * UNIT, (*joints.shape[:3], 2))
    joints[..., :2] += np.round(noise * (people[..., SCORE] > 0)[..., None, None]).astype(np.int16)
