"""The table of postures, and how limbs come to lie after a fall."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from familial.synth.body import Body
from familial.synth.skeleton import CHANNEL, CHANNELS, PAIRED, Floats

__all__ = ["LYING", "POSTURES", "STANDING", "posture_row", "set_channels", "sprawl"]

STANDING = {"arm": 7.0, "elb": 12.0, "abd": 3.0, "knee": 3.0, "hip": 1.0, "gait": 1.0, "sway": 1.0}


POSTURES: dict[str, dict[str, float]] = {
    "stand": {},
    "sit": {"hip": 84, "knee": 86, "lean": -6, "sho": 22, "elb": 55, "abd": 9, "gait": 0, "sway": 0.8},
    "sit_floor": {"hip": 130, "knee": 98, "lean": -8, "sho": 30, "elb": 40, "abd": 16, "gait": 0},
    "kneel": {"hip": 10, "knee": 100, "lean": 12, "gait": 0},
    "half_kneel": {"hip_l": 88, "knee_l": 92, "hip_r": 5, "knee_r": 95, "lean": 18, "sho": 35, "elb": 40, "gait": 0},
    "crouch": {"hip": 112, "knee": 128, "lean": 38, "sho": 55, "elb": 30, "abd": 12, "tip_f": 2, "gait": 0},
    "bend": {"hip": 10, "knee": 14, "lean": 78, "curl": 22, "sho": 74, "elb": 12, "nod": 5, "tip_f": -8, "gait": 0},
    "squat_reach": {"hip": 72, "knee": 88, "lean": 52, "curl": 15, "sho": 66, "elb": 8, "gait": 0},
    "fours": {"tip_f": 84, "hip": 86, "knee": 92, "sho": 88, "elb": 8, "nod": -25, "gait": 0, "pin": 1},
    "supine": {"tip_f": -90, "hip": 8, "knee": 12, "arm": 18, "elb": 15, "abd": 9, "gait": 0, "pin": 1, "sway": 0.25},
    "prone": {
        "tip_f": 90,
        "hip": 0,
        "knee": 8,
        "sho": 168,
        "arm": 35,
        "elb": 12,
        "abd": 10,
        "gait": 0,
        "pin": 1,
        "sway": 0.25,
    },
    "aside": {"tip_l": 90, "hip": 42, "knee": 60, "lean": 6, "sho": 55, "elb": 60, "gait": 0, "pin": 1, "sway": 0.25},
    "guard": {"sho": 48, "elb": 105, "arm": 12, "hip_l": 18, "knee_l": 22, "hip_r": -8, "knee_r": 18, "lean": 10},
}


LYING = {"supine", "prone", "aside", "fours"}


def posture_row(body: Body, posture: str, flip: bool = False) -> Floats:
    """The channels (C,) of `body` in `posture`, a key of POSTURES, at the origin; `flip` mirrors it."""
    row = np.zeros(len(CHANNELS))
    set_channels(row, STANDING)
    row[CHANNEL["lean"]] = body.stoop
    set_channels(row, POSTURES[posture])
    if posture in LYING:
        row[CHANNEL["lean"]] = POSTURES[posture].get("lean", 0.0)
    return _mirrored(row) if flip else row


def set_channels(row: Floats, values: Mapping[str, float]) -> None:
    """Write `values` into the channels (C,) in place; a name in PAIRED without its side means both sides."""
    for name, value in values.items():
        if name in PAIRED:
            row[CHANNEL[name + "_l"]] = row[CHANNEL[name + "_r"]] = value
        else:
            row[CHANNEL[name]] = value


def _mirrored(row: Floats) -> Floats:
    out = row.copy()
    for name in PAIRED:
        out[CHANNEL[name + "_l"]], out[CHANNEL[name + "_r"]] = row[CHANNEL[name + "_r"]], row[CHANNEL[name + "_l"]]
    for name in ("tip_l", "spin", "side", "twist"):
        out[CHANNEL[name]] = -row[CHANNEL[name]]
    return out


def sprawl(pose: str, left: bool, rng: Generator) -> dict[str, float]:
    """How the limbs come to lie in `pose` (on the `left` side or the right), none of them below the floor."""
    values = {"nod": rng.uniform(-10, 15), "sway": rng.uniform(0.05, 0.3)}
    if pose == "prone":
        for side in ("_l", "_r"):
            up = rng.random() < 0.6
            values |= {
                "sho" + side: rng.uniform(160, 178) if up else rng.uniform(-8, 6),
                "elb" + side: rng.uniform(0, 20),
                "arm" + side: rng.uniform(15, 75),
                "abd" + side: rng.uniform(0, 28),
                "hip" + side: rng.uniform(-4, 5),
                "knee" + side: rng.uniform(2, 30),
            }
    elif pose == "supine":
        for side in ("_l", "_r"):
            bent = rng.uniform(0, 45) if rng.random() < 0.6 else rng.uniform(0, 8)
            if rng.random() < 0.3:  # a hand on the belly
                values |= {"sho" + side: 12.0, "elb" + side: rng.uniform(85, 105), "arm" + side: 12.0}
            else:
                values |= {
                    "sho" + side: rng.uniform(-6, 4),
                    "elb" + side: rng.uniform(0, 18),
                    "arm" + side: rng.uniform(8, 95),
                }
            values |= {"abd" + side: rng.uniform(2, 25), "hip" + side: bent, "knee" + side: bent * 1.8 + 4}
    else:
        low, high = ("_l", "_r") if left else ("_r", "_l")
        values |= {
            "sho" + low: rng.uniform(10, 130),
            "arm" + low: rng.uniform(-6, 6),
            "elb" + low: rng.uniform(0, 90),
            "sho" + high: rng.uniform(10, 110),
            "arm" + high: rng.uniform(-25, 5),
            "elb" + high: rng.uniform(0, 90),
            "abd" + low: 0.0,
            "abd" + high: rng.uniform(-8, 4),
            "hip" + low: rng.uniform(5, 70),
            "hip" + high: rng.uniform(5, 70),
            "knee" + low: rng.uniform(10, 90),
            "knee" + high: rng.uniform(10, 90),
            "side": rng.uniform(-6, 0) if left else rng.uniform(0, 6),
        }
    return values
