"""What two people do to each other: blows land where they are aimed, friendly hands come slowly, spans are right."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from familial.synth.actions.aim import aimed, stand_to_reach
from familial.synth.actions.blow_styles import KICKS, PUNCHES, PUSHES, SLAPS, blow_of
from familial.synth.actions.catalogue import people_needed
from familial.synth.actions.one_blow import strike
from familial.synth.actions.plan import Plan, make_plan
from familial.synth.actor import Actor
from familial.synth.body import body_of
from familial.synth.kinematics import perform, posed, present
from familial.synth.scene import plain_scene
from familial.synth.skeleton import JOINT, Floats
from tests.support.acting import bare_cast

ENDS = [JOINT[part + side] for part in ("hand", "wrist", "toe", "ankle", "knee") for side in ("_l", "_r")]
CORE = ("head", "chest", "belly", "pelvis")
LIMBS = tuple(part + side for part in ("shoulder", "hip", "knee") for side in ("_l", "_r"))
TRUNK = [JOINT[name] for name in (*CORE, *LIMBS)]
STEP_S = 0.02
SINGLE = ("one_punch", "one_kick", "one_push", "one_slap", "hit_behind", "kick_lying")
HOLDS = ("headlock", "pull_away")


@functools.cache
def planned(kind: str, seed: int, seconds: float = 12.0) -> tuple[Plan, Floats, Floats]:
    """A plan in a plain room, with moments (T,) and joints (T, P, J, 3) while the action lasts."""
    bodies = [body_of(seed * 31 + i) for i in range(max(1, people_needed(kind)))]
    plan = make_plan(kind, bodies, plain_scene((24, 32)).stage, np.random.default_rng(seed), seconds)
    shown = plan.annotations[0]
    times = np.arange(shown.start_s, min(shown.end_s + STEP_S, seconds), STEP_S)
    return plan, times, np.stack([perform(actor, times) for actor in plan.actors], 1)


def distances(joints: Floats) -> Floats:
    """Metres (T,) from the nearest hand or foot of either of the first two to the other's body."""
    one, other = joints[:, 0], joints[:, 1]
    near = [
        np.linalg.norm(a[:, ENDS, None] - b[:, None, TRUNK], axis=-1).min((1, 2))
        for a, b in ((one, other), (other, one))
    ]
    return np.minimum(*near)


@pytest.mark.parametrize("kind", [*SINGLE, *HOLDS])
def test_a_fight_of_one_act_brings_a_hand_or_a_foot_to_the_other_while_it_is_annotated(kind: str) -> None:
    nearest = []
    for seed in range(8):
        plan, _, joints = planned(kind, seed)
        assert [each.label for each in plan.annotations] == ["fight"]
        nearest.append(distances(joints).min())
    assert max(nearest) < 0.35 and np.median(nearest) < 0.22, f"{kind}: nothing touches the other: {nearest}"


@pytest.mark.parametrize("kind", SINGLE[:4])
def test_those_who_strike_once_stand_apart_before_it(kind: str) -> None:
    gaps = [distances(planned(kind, seed)[2])[0] for seed in range(8)]
    assert np.median(gaps) > 0.4
    assert max(gaps) > 0.9


@pytest.mark.parametrize("style", [*PUNCHES, *KICKS, *PUSHES, *SLAPS])
def test_each_blow_lands_at_its_time_and_moves_the_other(style: str) -> None:
    for seed in range(3):
        cast = bare_cast([0.0, 1.6], seed)
        one, other = cast.actors
        blow = blow_of(style, cast.rng)
        contact = strike(cast, one, other, blow)
        times = np.array([contact - 0.5, contact, contact + 0.6])
        strikes, struck = perform(one, times), perform(other, times)
        sides = [blow.joint] if blow.joint in JOINT else [blow.joint + "_l", blow.joint + "_r"]
        ends = strikes[:, [JOINT[side] for side in sides], None] - struck[:, None, TRUNK]
        before, at, _ = np.linalg.norm(ends, axis=-1).min((1, 2))
        assert at < 0.3 and at < 0.75 * before, f"{style} {seed}: {before:.2f} m before, {at:.2f} m at contact"
        assert np.linalg.norm(struck[2] - struck[1], axis=-1).max() > 0.08


def test_a_limb_is_aimed_at_a_height() -> None:
    actor = bare_cast([0.0], 1).actors[0]
    for height in (0.9, 1.3, 1.6):
        aim = aimed(actor, "guard", {"sho_r": 80.0, "elb_r": 10.0, "twist": 30.0}, "hand_r", "sho_r", height)
        place, yaw = stand_to_reach(actor, aim, np.array([2.0, 1.0]), 35.0)
        row = actor.target("guard", aim.angles | {"x": float(place[0]), "y": float(place[1]), "yaw": yaw})
        hand = posed(row[None], actor.body)[0, JOINT["hand_r"]]
        assert hand == pytest.approx([2.0, 1.0, height], abs=0.06)


def test_present_is_where_perform_ends() -> None:
    actor: Actor = bare_cast([0.0], 2).actors[0]
    actor.walk(np.array([1.0, 0.5]))
    actor.go(0.4, "guard")
    away = np.linalg.norm(present(actor) - perform(actor, np.array([actor.now]))[0], axis=-1)
    assert away.max() < 0.15  # sway alone
