"""Where a hand or a foot gets to: so that a blow, a push or a handshake meets the other person.

posture + height of the target --aimed--> the limb's angles, and how far ahead and aside of the feet it ends
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from familial.synth.actions.cast import Cast, direction_to, unwrapped
from familial.synth.actions.shared import wait_for_each_other
from familial.synth.actor import Actor
from familial.synth.kinematics import posed
from familial.synth.skeleton import CHANNEL, JOINT, Floats

__all__ = ["Aim", "aimed", "join_hands", "stand_to_reach"]

_SWINGS = np.linspace(-70.0, 70.0, 29)  # degrees that are tried
_LEANS = np.array([0.0, 18.0, 36.0, -14.0])  # of the trunk, where the limb alone does not get there


@dataclass(frozen=True, slots=True)
class Aim:
    """A posture whose limb ends at the height that was asked for.

    Attributes:
        angles: The posture's angles, the limb's changed.
        reach: Metres from where the feet stand to the limb's end, over the floor.
        bearing: Its direction in degrees from where the body faces, to the left.
    """

    angles: dict[str, float]
    reach: float
    bearing: float


def aimed(actor: Actor, pose: str, angles: Mapping[str, float], joint: str, channel: str, height: float) -> Aim:
    """Change `channel` of a posture of `actor` so that `joint` comes to `height` metres above the floor.

    `joint` and `channel` with `_l` or `_r` mean one side; without it both, and the reach is that of their middle.
    With `pin` 1 among `angles` the limb's end is measured from the pelvis, which then keeps its place.
    """
    sides = (joint,) if joint in JOINT else (joint + "_l", joint + "_r")
    swung = (channel,) if channel in CHANNEL else (channel + "_l", channel + "_r")
    swings, leans = (each.ravel() for each in np.meshgrid(_SWINGS, _LEANS))
    rows = np.repeat(actor.target(pose, angles)[None], len(swings), axis=0)
    rows[:, :3] = 0.0
    for name in swung:
        rows[:, CHANNEL[name]] += swings
    rows[:, CHANNEL["lean"]] += leans
    joints = posed(rows, actor.body)
    ends = joints[:, [JOINT[name] for name in sides]].mean(axis=1)
    best = int(np.argmin(np.abs(ends[:, 2] - height) + 0.0006 * np.abs(swings) + 0.005 * np.abs(leans)))
    end = ends[best, :2] - (joints[best, JOINT["pelvis"], :2] if angles.get("pin", 0.0) == 1.0 else 0.0)
    found = dict(angles) | {name: float(rows[best, CHANNEL[name]]) for name in (*swung, "lean")}
    return Aim(found, float(np.hypot(*end)), math.degrees(math.atan2(end[1], end[0])))


def stand_to_reach(actor: Actor, aim: Aim, target: Floats, heading: float) -> tuple[Floats, float]:
    """Where the feet (2,) have to stand, and the yaw in degrees, so that the limb ends at `target` (2,).

    `heading` in degrees is the direction in which the limb goes.
    """
    way = math.radians(heading)
    place = target - aim.reach * np.array([math.cos(way), math.sin(way)])
    return place, unwrapped(actor, heading - aim.bearing)


def join_hands(
    cast: Cast,
    one: Actor,
    other: Actor,
    sides: tuple[str, str],
    arm: Mapping[str, float],
    height: float,
    seconds: float,
    ease: str = "smooth",
) -> None:
    """Step up to each other and bring a hand of each to one place between them.

    Args:
        cast: The actors of the clip.
        one: Walks up.
        other: Waits, and reaches out.
        sides: "_l" or "_r" for each: the hand.
        arm: Angles; `sho`, `arm` and `elb` are of that side.
        height: Of the place, as a share of the smaller one's height.
        seconds: How long the hands take.
        ease: As in `Actor.go`.
    """
    high = height * min(one.body.height, other.body.height)
    aims = []
    for actor, side in ((one, sides[0]), (other, sides[1])):
        angles = {name + side if name in ("sho", "arm", "elb") else name: value for name, value in arm.items()}
        aims.append(aimed(actor, "stand", angles, "hand" + side, "sho" + side, high))
    along, heading, gap = direction_to(one, other)
    spare = gap - aims[0].reach - aims[1].reach
    if spare > 0.4:
        one.walk(one.place + (spare - 0.15) * along, speed=float(cast.rng.uniform(0.8, 1.7)))
    other.hold_until(one.now)
    wait_for_each_other(one, other)
    along, heading, gap = direction_to(one, other)
    between = one.place + (aims[0].reach + 0.5 * (gap - aims[0].reach - aims[1].reach)) * along
    for actor, aim, way in ((one, aims[0], heading), (other, aims[1], heading + 180)):
        place, yaw = stand_to_reach(actor, aim, between, way)
        there = {"x": float(place[0]), "y": float(place[1]), "yaw": yaw}
        actor.go(seconds, "stand", aim.angles | there, ease=ease)
