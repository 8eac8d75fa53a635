"""Motions of one person: what is done on purpose and only looks like a fall, and the many ways to fall."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest

from familial.synth.actions.catalogue import ACTIONS, KINDS
from familial.synth.actions.plan import Plan, make_plan
from familial.synth.body import AGES, body_of, with_first
from familial.synth.camera import Camera
from familial.synth.clip import render_clip
from familial.synth.kinematics import perform
from familial.synth.moving_objects import Thing, draw_objects, fallen
from familial.synth.scene import draw_scene, plain_scene
from familial.synth.sensor import draw_sensor
from familial.synth.skeleton import JOINT, Floats
from tests.support.acting import bare_cast

SECONDS = 20.0
FALLS = [kind for kind, label in KINDS.items() if label == "fall"]
SEEDS = range(5)


@functools.cache
def acted(kind: str, seed: int) -> tuple[Plan, Floats]:
    """A plan of one person in a plain room, and joints (T, J, 3) while the action lasts, in units of the height."""
    (identity,) = with_first(ACTIONS[kind].who, [seed * 31 + 5])
    plan = make_plan(kind, [body_of(identity)], plain_scene((24, 32)).stage, np.random.default_rng(seed), SECONDS)
    shown, actor = plan.annotations[0], plan.actors[0]
    end = min(shown.end_s, SECONDS)
    return plan, perform(actor, np.arange(shown.start_s, end + 0.02, 0.02)) / actor.body.height


def high(joints: Floats, *names: str) -> Floats:
    """The height (T,) of the lowest of the named joints."""
    return np.asarray(joints[:, [JOINT[name] for name in names], 2].min(1))


def hands(joints: Floats) -> Floats:
    return high(joints, "hand_l", "hand_r")


def sinks(joints: Floats) -> float:
    """How fast the pelvis goes down at most, over a fifth of a second, in heights a second."""
    pelvis = high(joints, "pelvis")
    return float((pelvis[:-10] - pelvis[10:]).max() / 0.2)


DELIBERATE: dict[str, Callable[[Floats], bool]] = {
    "yoga": lambda j: high(j, "pelvis").min() < 0.42 and sinks(j) < 0.9,
    "push_ups": lambda j: high(j, "chest").min() < 0.38 and hands(j).min() < 0.08,
    "pray": lambda j: high(j, "head").min() < 0.22 and high(j, "pelvis").min() < 0.2,
    "floor_sit": lambda j: bool(((high(j, "pelvis") < 0.2) & (high(j, "head") > 0.33)).any()),
    "sleep_bed": lambda j: float(np.ptp(j[-1, [JOINT["neck"], JOINT["pelvis"], JOINT["ankle_l"]], 2])) < 0.25,
    "sleep_floor": lambda j: high(j, "head")[-1] < 0.3 and sinks(j) < 0.9,
    "tie_shoes": lambda j: hands(j).min() < 0.25 and high(j, "head").min() < 0.62,
    "crawl_child": lambda j: bool(((hands(j) < 0.08) & (high(j, "pelvis") < 0.42)).any()),
    "play_child": lambda j: high(j, "pelvis").min() < 0.4,
    "snatch": lambda j: hands(j).min() < 0.3 and high(j, "pelvis").min() > 0.3,
    "sweep": lambda j: high(j, "pelvis").min() > 0.25,
    "scrub": lambda j: hands(j).min() < 0.2 and high(j, "pelvis").min() < 0.4,
    "reach_low": lambda j: high(j, "head").min() < 0.62,
    "reach_up": lambda j: j[:, [JOINT["hand_l"], JOINT["hand_r"]], 2].max() > 1.02,
    "squat": lambda j: 0.08 < high(j, "pelvis").min() < 0.36,
    "drop_thing": lambda j: high(j, "pelvis").min() > 0.2,
    "slip_catch": lambda j: high(j, "pelvis").min() > 0.36,
    "unsteady": lambda j: high(j, "pelvis").min() > 0.4 and sinks(j) < 0.5,
}


@pytest.mark.parametrize("kind", list(DELIBERATE))
def test_a_deliberate_motion_looks_like_its_name(kind: str) -> None:
    for seed in SEEDS:
        plan, joints = acted(kind, seed)
        assert plan.annotations[0].label == "normal" and not plan.lying_s
        assert np.isfinite(joints).all()
        assert DELIBERATE[kind](joints), f"{kind} {seed}"


@pytest.mark.parametrize("kind", FALLS)
def test_a_fall_ends_low_at_its_annotated_time(kind: str) -> None:
    for seed in SEEDS:
        plan, _ = acted(kind, seed)
        shown, actor = plan.annotations[0], plan.actors[0]
        assert plan.lying_s[0][0] == shown.end_s
        before, after = perform(actor, np.array([shown.start_s, shown.end_s + 0.25]))[:, None] / actor.body.height
        slumps = kind in ("fall_wall", "fall_miss", "fall_wheelchair_slide", "fall_transfer")
        assert high(after, "pelvis") < 0.28, f"{kind} {seed}"
        assert high(after, "head") < (0.62 if slumps else 0.4), f"{kind} {seed}"
        assert high(before, "head") > high(after, "head") or kind == "fall_bed"


def test_falls_are_faster_than_lying_down() -> None:
    falls = [
        sinks(acted(kind, seed)[1]) for kind in ("fall_heap", "fall_run", "fall_grab", "fall_old") for seed in SEEDS
    ]
    lying = [sinks(acted(kind, seed)[1]) for kind in ("sleep_floor", "yoga", "pray", "lie_floor") for seed in SEEDS]
    assert np.median(falls) > 2.0 * np.median(lying)


@pytest.mark.parametrize("way", [0.0, 90.0, 180.0])
def test_who_struggles_comes_up_half_way_and_lies_again(way: float) -> None:
    actor = bare_cast([0.0], 3).actors[0]
    actor.fall(way)
    began = actor.now
    actor.struggle()
    joints = perform(actor, np.arange(began, actor.now, 0.02)) / actor.body.height
    heads = high(joints, "head")
    assert heads.max() > heads[0] + 0.05 and heads.max() < 0.62
    assert heads[-1] < heads[0] + 0.06
    actor.sit_up()
    seated = perform(actor, np.array([actor.now])) / actor.body.height
    assert high(seated, "pelvis") < 0.15 and high(seated, "head") > 0.3


@pytest.mark.parametrize("way", [90.0, -90.0])
def test_who_collapses_in_a_heap_does_not_rise_before_lying(way: float) -> None:
    for seed in range(4):
        actor = bare_cast([0.0], seed).actors[0]
        onset, impact = actor.fall(way, style="heap")
        pelvis = high(perform(actor, np.arange(onset, impact, 0.02)), "pelvis") / actor.body.height
        assert (pelvis - np.minimum.accumulate(pelvis)).max() < 0.16


@pytest.mark.parametrize("age", AGES)
def test_an_action_may_ask_for_a_child_or_an_old_person(age: str) -> None:
    for seed in range(20):
        people = with_first(age, [seed, seed + 100, seed + 200])
        assert body_of(people[0]).age == age
        assert len(people) == len(set(people)) == 3
        assert with_first(age, people) == people
    assert with_first("", [3, 4]) == [3, 4]


def test_the_first_person_of_a_clip_is_of_the_age_that_the_action_asks_for() -> None:
    for kind in ("crawl_child", "fall_old"):
        clip = render_clip(2, kind, size=(24, 32), fps=2.0, seconds=8.0)
        assert body_of(int(clip.identities[0])).age == ACTIONS[kind].who


def test_what_is_dropped_falls_and_stays_on_the_floor() -> None:
    plan, _ = acted("drop_thing", 1)
    assert len(plan.things) == 1
    times = np.arange(0.0, SECONDS, 0.05)
    (thing,) = fallen(np.random.default_rng(0), plan.things, times)
    low, top = thing.corners[..., 2].min(1), thing.corners[..., 2].max(1)
    before, falls = times < plan.things[0].time_s, (times >= plan.things[0].time_s) & (low > 0.01)
    assert (top[before] < -1.0).all()
    assert falls.any() and (np.diff(low[falls]) < 0).all()
    assert low[-1] == pytest.approx(0.0) and 0.02 < top[-1] < 0.4


def test_whatever_moves_has_finite_corners_and_colours() -> None:
    rng = np.random.default_rng(4)
    times = np.arange(0.0, 10.0, 0.25)
    shining = 0
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed % 6), (24, 32))
        for thing in draw_objects(rng, scene, times):
            assert len(thing.corners) == len(thing.colours) == len(times)
            assert np.isfinite(thing.corners).all() and (thing.colours >= 0).all() and (thing.colours <= 1.0).all()
            shining += thing.shines
    assert shining


def test_a_lamp_may_flicker() -> None:
    times = np.arange(0.0, 12.0, 1 / 12)
    gains = [draw_sensor(np.random.default_rng(seed), times, False).gains for seed in range(120)]
    jumps = [np.count_nonzero(np.abs(np.diff(each)) > 0.1) for each in gains]
    assert sum(each > 4 for each in jumps) > 2


def test_a_thing_lands_where_it_was_let_go() -> None:
    camera: Camera = plain_scene((24, 32)).camera
    (thing,) = fallen(np.random.default_rng(1), [Thing(1.0, (3.0, 2.5, 1.0))], np.array([0.5, 3.0]))
    assert np.abs(thing.corners[1, :, :2].mean(0) - (3.0, 2.5)).max() < 0.05
    _, depth = camera.project(thing.corners[1])
    assert (depth > 0).all()
