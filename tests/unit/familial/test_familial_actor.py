"""Actors: they stand on the floor, keep their proportions, and fall as bodies do."""

from __future__ import annotations

import numpy as np
import pytest

from familial.synth.actor import Actor
from familial.synth.body import Body, draw_body, radii
from familial.synth.kinematics import perform
from familial.synth.skeleton import JOINT, Floats


def body_and_actor(seed: int) -> tuple[Body, Actor]:
    rng = np.random.default_rng(seed)
    body = draw_body(rng, seed)
    return body, Actor(body, rng, (0.0, 0.0), 30.0)


def height_of(joints: Floats, name: str) -> Floats:
    return np.asarray(joints[:, JOINT[name], 2])


def ticks(actor: Actor, start: float = 0.0) -> Floats:
    return np.arange(start, actor.now, 0.04)


@pytest.mark.parametrize("seed", range(4))
def test_walkers_stand_on_the_floor(seed: int) -> None:
    body, actor = body_and_actor(seed)
    actor.walk(np.array([3.0, 1.0]))
    actor.pick_up()
    actor.crouch(1.0)
    joints = perform(actor, ticks(actor))
    bottom = (joints[..., 2] - radii(body))[:, [JOINT[n] for n in ("toe_l", "toe_r", "heel_l", "heel_r")]]
    assert np.abs(bottom.min(1)).max() < 0.02
    away = perform(actor, np.array([actor.now]))[0, 0, :2] - (3.0, 1.0)
    assert np.hypot(*away) < 0.4


def test_limbs_keep_their_length() -> None:
    body, actor = body_and_actor(3)
    actor.walk(np.array([2.0, 0.0]), speed=3.0)
    actor.fall(70.0, momentum=1.0)
    joints = perform(actor, ticks(actor))
    thigh = np.linalg.norm(joints[:, JOINT["hip_l"]] - joints[:, JOINT["knee_l"]], axis=-1)
    assert np.abs(thigh / (0.245 * body.height) - 1).max() < 0.02


@pytest.mark.parametrize("style", ["tip", "fold", "slump"])
@pytest.mark.parametrize("way", [0.0, 90.0, 140.0, 180.0])
def test_a_fall_ends_flat_on_the_floor(style: str, way: float) -> None:
    for seed in range(3):
        _, actor = body_and_actor(seed)
        actor.hold(1.0)
        onset, impact = actor.fall(way, style=style)
        actor.lie(2.0)
        before, after = perform(actor, np.array([onset])), perform(actor, ticks(actor, impact + 0.3))
        assert 0.4 < impact - onset < 3.5
        assert height_of(after, "pelvis").max() < 0.5 * height_of(before, "pelvis")[0]
        assert height_of(after, "head").max() < 0.62
        flat = after[:, JOINT["head"], :2] - after[:, JOINT["pelvis"], :2]
        assert np.hypot(*flat.T).min() > 0.3


def test_a_toppling_body_speeds_up() -> None:
    _, actor = body_and_actor(1)
    onset, impact = actor.fall(0.0)
    fall = height_of(perform(actor, np.linspace(onset, impact, 5)), "head")
    drops = -np.diff(fall)
    assert drops[0] < 0.5 * drops[2]
