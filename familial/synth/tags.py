"""Posture labels of each person at each moment, from where the joints are: exact, and without an annotator.

    joints (T, P, J, 3) + who is seen (T, P)  ->  Tag(label, person, start_s, end_s), ...

Lying, crouching and running are read from the body itself, whatever the clip's label; smoking and loitering come from
the plan. The thresholds are shares of the body's height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from familial.synth.skeleton import JOINT, Floats

__all__ = ["TAGS", "Tag", "read_tags", "spans"]

TAGS = ("lying", "crouching", "running", "smoking", "loitering")

_LEAST_S = 0.4  # seconds; shorter spans are only passed through
_RUN = 2.0  # metres a second of the pelvis over the floor


@dataclass(frozen=True, slots=True)
class Tag:
    """From `start_s` to `end_s`, `person` (index into the clip's people) is seen and is `label`, one of TAGS."""

    label: str
    person: int
    start_s: float
    end_s: float


def read_tags(joints: Floats, heights: Sequence[float], seen: NDArray[np.bool_], times_s: Floats) -> tuple[Tag, ...]:
    """Tags of joints (T, P, J, 3) of people of `heights` metres, where they are `seen` (T, P)."""
    found: list[Tag] = []
    for person, height in enumerate(heights):
        states = _states(joints[:, person], height, times_s)
        found += [
            Tag(label, person, start, end)
            for label, holds in states.items()
            for start, end in spans(holds & seen[:, person], times_s)
        ]
    return tuple(found)


def _states(joints: Floats, height: float, times_s: Floats) -> dict[str, NDArray[np.bool_]]:
    """Per label, at which moments (T,) it holds for one person's joints (T, J, 3)."""
    neck, pelvis = joints[:, JOINT["neck"]], joints[:, JOINT["pelvis"]]
    ankles = joints[:, [JOINT["ankle_l"], JOINT["ankle_r"]]]
    knees = joints[:, [JOINT["knee_l"], JOINT["knee_r"]], 2]
    feet = ankles.mean(1)
    levels = np.stack([neck[:, 2], pelvis[:, 2], feet[:, 2]])
    lying = np.ptp(levels, axis=0) < 0.2 * height
    low = pelvis[:, 2] - ankles[..., 2].min(1)
    squats = (low < 0.18 * height) & (np.hypot(*(pelvis - feet)[:, :2].T) < 0.3 * height)
    kneels = (low < 0.31 * height) & (knees.min(1) - ankles[..., 2].min(1) < 0.06 * height)
    upright = neck[:, 2] - pelvis[:, 2] > 0.12 * height
    step = 1 if len(times_s) < 4 else max(1, round(0.25 / float(times_s[1] - times_s[0])))
    speed = np.zeros(len(times_s))
    moved = np.hypot(*(pelvis[step:, :2] - pelvis[:-step, :2]).T) / (times_s[step:] - times_s[:-step])
    speed[step // 2 : step // 2 + len(moved)] = moved
    return {
        "lying": lying,
        "crouching": (squats | kneels) & upright & ~lying,
        "running": (speed > _RUN) & upright & (low > 0.35 * height),
    }


def spans(holds: NDArray[np.bool_], times_s: Floats) -> list[tuple[float, float]]:
    """Start and end in seconds of each run of True in (T,) that lasts; gaps of a frame or two are bridged."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], holds, [False]]).astype(np.int8)))
    step = float(times_s[1] - times_s[0]) if len(times_s) > 1 else 0.0
    joined: list[tuple[float, float]] = []
    for first, last in edges.reshape(-1, 2):
        start, end = float(times_s[first]), float(times_s[last - 1]) + step
        if joined and start - joined[-1][1] < 2.5 * step:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= _LEAST_S]
