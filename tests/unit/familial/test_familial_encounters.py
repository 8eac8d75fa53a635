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
SLOW = ("hug", "handshake", "pat", "walk_arm")
HANDS = [JOINT["hand_l"], JOINT["hand_r"]]


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
    return np.asarray(np.minimum(*near))


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
        times = np.array([0.04, contact, contact + 0.6])
        strikes, struck = perform(one, times), perform(other, times)
        sides = [blow.joint] if blow.joint in JOINT else [blow.joint + "_l", blow.joint + "_r"]
        ends = strikes[:, [JOINT[side] for side in sides], None] - struck[:, None, TRUNK]
        before, at, _ = np.linalg.norm(ends, axis=-1).min((1, 2))
        assert at < 0.3 and at < 0.7 * before, f"{style} {seed}: {before:.2f} m before, {at:.2f} m at contact"
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


def hand_speeds(joints: Floats) -> Floats:
    """Metres a second (T - 1,) of the fastest hand against its own pelvis, of the first two people."""
    hands = joints[:, :2, HANDS] - joints[:, :2, :1]
    return np.asarray((np.linalg.norm(np.diff(hands, axis=0), axis=-1) / STEP_S).max((1, 2)))


def speed_at_contact(kind: str, seed: int) -> float:
    """The fastest hand or foot in the third of a second before two people are nearest."""
    _, _, joints = planned(kind, seed)
    ends = joints[:, :2, ENDS] - joints[:, :2, :1]
    speeds = (np.linalg.norm(np.diff(ends, axis=0), axis=-1) / STEP_S).max((1, 2))
    first = int(np.flatnonzero(distances(joints) < 0.35)[0])
    return float(speeds[max(0, first - 16) : first + 4].max())


@pytest.mark.parametrize("kind", SLOW)
def test_friendly_hands_come_slowly(kind: str) -> None:
    for seed in range(6):
        plan, _, joints = planned(kind, seed)
        assert plan.annotations[0].label == "normal"
        assert np.quantile(hand_speeds(joints), 0.98) < 4.5, f"{kind} {seed}: as fast as a blow"
        assert distances(joints).min() < 0.45


def test_a_punch_comes_faster_than_an_embrace() -> None:
    punches = np.median([speed_at_contact("one_punch", seed) for seed in range(8)])
    hugs = np.median([speed_at_contact("hug", seed) for seed in range(8)])
    assert punches > 1.8 * hugs


def test_hugs_last_and_are_of_different_length() -> None:
    held = [np.count_nonzero(distances(planned("hug", seed)[2]) < 0.3) * STEP_S for seed in range(12)]
    assert min(held) > 0.5
    assert max(held) > 2.0 * min(held)


@pytest.mark.parametrize("kind", ["handshake", "high_five"])
def test_two_hands_meet_in_between(kind: str) -> None:
    for seed in range(6):
        _, _, joints = planned(kind, seed)
        one, other = joints[:, 0][:, HANDS], joints[:, 1][:, HANDS]
        assert np.linalg.norm(one[:, :, None] - other[:, None], axis=-1).min() < 0.2, f"{kind} {seed}"


@pytest.mark.parametrize("kind", ["point", "throw"])
def test_who_points_or_throws_raises_an_arm_and_touches_nobody(kind: str) -> None:
    for seed in range(6):
        plan, _, joints = planned(kind, seed)
        heights = np.array([actor.body.height for actor in plan.actors])
        assert (joints[:, :, HANDS, 2].max((0, 2)) / heights).max() > 0.68
        assert distances(joints).min() > 0.1


def test_people_who_squeeze_past_come_close_without_raising_a_hand() -> None:
    for seed in range(6):
        plan, _, joints = planned("brush_past", seed)
        gap = np.linalg.norm(joints[:, 0, 0, :2] - joints[:, 1, 0, :2], axis=-1)
        assert gap.min() < 0.55
        heights = np.array([actor.body.height for actor in plan.actors])
        assert (joints[:, :, HANDS, 2].max((0, 2)) / heights).max() < 0.85


def test_who_is_lifted_up_lies_first_and_stands_at_the_end() -> None:
    for seed in range(4):
        plan, _, _ = planned("lift_up", seed, 16.0)
        shown, actor = plan.annotations[0], plan.actors[0]
        pelvis = perform(actor, np.linspace(shown.start_s, min(shown.end_s, 15.9), 200))[:, 0, 2] / actor.body.height
        assert pelvis.min() < 0.15
        assert pelvis[pelvis.argmin() :].max() > 0.45


def test_scuffles_bring_several_people_close_together_far_from_the_camera() -> None:
    for seed in range(4):
        _, _, joints = planned("scuffle", seed)
        assert joints.shape[1] >= 4
        assert distances(joints).min() < 1.0
