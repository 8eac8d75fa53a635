"""Wheelchairs and walking frames: hands and hips where they belong, falls as other falls, nothing drawn anew."""

from __future__ import annotations

import functools
import hashlib
import json

import numpy as np
import pytest

from familial.evaluate import life
from familial.synth import people_clip as people_of
from familial.synth.actions.catalogue import ACTIONS, BY_NAME_ALONE, KINDS
from familial.synth.actions.plan import Plan, make_plan
from familial.synth.aids import Aid
from familial.synth.body import body_of, with_first
from familial.synth.clip import render_clip
from familial.synth.exact_people import HIDDEN
from familial.synth.kinematics import perform
from familial.synth.people_clip import people_clip
from familial.synth.scene import plain_scene
from familial.synth.skeleton import JOINT, RATE, Floats
from familial.synth.tags import read_tags
from tests.support.services import ROOT

SECONDS = 16.0
SEEDS = range(8)
FALLS = [kind for kind in BY_NAME_ALONE if KINDS[kind] == "fall"]
RIDES = ["wheelchair_roll", "wheelchair_pushed", "wheelchair_rest", "wheelchair_pick_up"]
RECORDED = "b57fd22dff51"
PLACES = [103.78, 84.62, 56.86, 47.17, 74.51, 115.45, 93.71, 65.28, 100.98, 81.01, 60.82, 63.25]  # mean pixel
NORMAL_LIFE = "4aceebe33c7e"


@functools.cache
def acted(kind: str, seed: int) -> Plan:
    people = with_first(ACTIONS[kind].who, [seed * 31 + 5, seed * 31 + 6][: ACTIONS[kind].people])
    bodies = [body_of(identity) for identity in people]
    return make_plan(kind, bodies, plain_scene((24, 32)).stage, np.random.default_rng(seed), SECONDS)


def rows_of(plan: Plan, person: int = 0) -> Floats:
    """Joints (N, J, 3) at each of the actor's rows."""
    actor = plan.actors[person]
    return perform(actor, np.linspace(1.0 / RATE, actor.now, round(actor.now * RATE)))


def poses_of(aid: Aid, count: int) -> Floats:
    poses = aid.poses()
    return poses[np.minimum(np.arange(count), len(poses) - 1)]


@pytest.mark.parametrize("kind", BY_NAME_ALONE)
def test_every_kind_can_be_planned(kind: str) -> None:
    for seed in SEEDS:
        plan = acted(kind, seed)
        shown, actor = plan.annotations[0], plan.actors[0]
        assert (shown.label, shown.kind) == (KINDS[kind], kind)
        assert 0.0 < shown.start_s < shown.end_s <= SECONDS, f"{seed}: {shown}"
        assert bool(plan.lying_s) == (KINDS[kind] == "fall")
        assert actor.now >= SECONDS and len(plan.aids) == 1
        assert plan.props[: ACTIONS[kind].people] == ("",) * ACTIONS[kind].people
        joints = perform(actor, np.arange(0.0, SECONDS, 0.1))
        assert np.isfinite(joints).all()
        steps = np.linalg.norm(np.diff(joints[:, 0], axis=0), axis=1)
        assert steps.max() < 0.65, f"{seed}: the pelvis jumps by {steps.max():.2f} m within a tenth of a second"


def test_captions_use_words_that_families_know() -> None:
    words = set(json.loads((ROOT / "checkpoints/nano/config.json").read_text())["words"])
    for kind in BY_NAME_ALONE:
        assert set(ACTIONS[kind].caption.split()) <= words, kind


@pytest.mark.parametrize("kind", ["wheelchair_roll", "wheelchair_pushed", "frame_walk", "frame_turn"])
def test_hands_are_where_they_hold(kind: str) -> None:
    for seed in SEEDS:
        plan = acted(kind, seed)
        actor = plan.actors[1 if kind == "wheelchair_pushed" else 0]
        joints = rows_of(plan, plan.actors.index(actor))
        holds, away = 0, list[float]()
        for grip in actor.grips:
            rows = slice(grip.first, grip.first + len(grip.points))
            hands = joints[rows][:, [JOINT["hand_l"], JOINT["hand_r"]]]
            full = grip.weights[: len(hands)] > 0.999
            away += np.linalg.norm(hands - grip.points[: len(hands)], axis=-1)[full].tolist()
            holds += int(full.any(1).sum())
        assert holds > (0.15 if kind == "wheelchair_roll" else 0.9) * len(joints), f"{seed}: hands hold too seldom"
        assert np.median(away) < 0.02 and np.quantile(away, 0.99) < 0.06, f"{seed}: {max(away):.3f} m"


def test_hands_that_push_go_round_at_the_wheels() -> None:
    plan = acted("wheelchair_roll", 3)
    (chair,), actor = plan.aids, plan.actors[0]
    assert chair.form.rims is not None
    joints = rows_of(plan)
    turn = np.radians(poses_of(chair, len(joints))[:, 2])
    away = joints[:, JOINT["hand_l"], :2] - poses_of(chair, len(joints))[:, :2]
    ahead = away[:, 0] * np.cos(turn) + away[:, 1] * np.sin(turn)
    grip = max(actor.grips, key=lambda each: len(each.points))
    swing = ahead[grip.first : grip.first + len(grip.points)]
    assert np.ptp(swing) > 0.25 * actor.body.height / 1.75


@pytest.mark.parametrize("kind", RIDES)
def test_hips_stay_in_the_seat(kind: str) -> None:
    for seed in SEEDS:
        plan = acted(kind, seed)
        (chair,) = plan.aids
        pelvis = rows_of(plan)[2:, JOINT["pelvis"]]
        seat = chair.world(poses_of(chair, len(pelvis) + 2)[2:], chair.form.seat[None])[:, 0]
        assert np.abs(pelvis - seat).max() < 0.04, f"{seed}: {np.abs(pelvis - seat).max(0)}"
        assert pelvis[:, 2].min() > 0.26 * plan.actors[0].body.height


@pytest.mark.parametrize("kind", RIDES)
def test_who_rides_is_upright_and_neither_lies_nor_crouches(kind: str) -> None:
    times = np.arange(0.0, SECONDS, 0.1)
    for seed in SEEDS:
        actor = acted(kind, seed).actors[0]
        tags = read_tags(perform(actor, times)[:, None], [actor.body.height], np.ones((len(times), 1), bool), times)
        assert not tags, f"{seed}: {tags}"


def slides(joints: Floats) -> float:
    """Metres a second by which the foot that stands stillest moves over the floor, where the body goes anywhere."""
    step = np.diff(joints[..., :2], axis=0) * RATE
    feet = np.hypot(*np.moveaxis(step[:, [JOINT["ankle_l"], JOINT["ankle_r"]]], -1, 0)).min(1)
    moves = np.hypot(*step[:, JOINT["pelvis"]].T) > 0.15
    return float(feet[moves].mean() / np.hypot(*step[:, JOINT["pelvis"]].T)[moves].mean())


def test_feet_slide_no_more_at_a_frame_than_in_other_walks() -> None:
    walks = [slides(rows_of(acted(kind, seed))) for kind in ("walk", "unsteady") for seed in SEEDS]
    framed = [slides(rows_of(acted("frame_walk", seed))) for seed in SEEDS]
    assert np.mean(framed) < max(walks), f"{np.mean(framed):.2f} against {np.mean(walks):.2f}"


def test_a_frame_goes_before_its_user_and_both_turn_together() -> None:
    for seed in SEEDS:
        plan = acted("frame_turn", seed)
        (frame,), actor = plan.aids, plan.actors[0]
        channels = actor.channels()[5:]
        poses = poses_of(frame, len(channels) + 5)[5:]
        assert np.abs(poses[:, 2] - channels[:, 2]).max() < 1e-6
        off = np.hypot(*(poses[:, :2] - channels[:, :2]).T) / actor.body.height
        assert off.min() > 0.2 and off.max() < 0.55
        joints = rows_of(plan)[5:]
        assert (joints[:, JOINT["shoulder_l"], 2] > joints[:, JOINT["hand_l"], 2]).all()


@pytest.mark.parametrize("kind", FALLS)
def test_after_a_fall_they_lie_on_the_floor_and_do_not_get_up(kind: str) -> None:
    low, tagged = 0, 0
    for seed in SEEDS:
        plan = acted(kind, seed)
        actor, shown = plan.actors[0], plan.annotations[0]
        times = np.arange(shown.end_s + 0.3, SECONDS, 0.1)
        joints = perform(actor, times) / actor.body.height
        pelvis = joints[:, JOINT["pelvis"], 2]
        assert pelvis.max() < 0.52 and np.median(pelvis) < 0.25, f"{seed}: {pelvis.max():.2f}"
        assert joints[:, JOINT["head"], 2].max() < 0.75, f"{seed}: {joints[:, JOINT['head'], 2].max():.2f}"
        assert joints[..., 2].min() > -0.06
        low += joints[-1, JOINT["head"], 2] < 0.5
        seen = np.ones((len(times), 1), bool)
        tagged += any(tag.label == "lying" for tag in read_tags(joints[:, None], [1.0], seen, times))
        assert plan.lying_s == ((shown.end_s, SECONDS),)
        assert shown.end_s - shown.start_s < 4.5
    assert low >= 5 and tagged >= 6, f"{low} low, {tagged} lie"


def test_a_wheelchair_tips_over_with_its_rider_and_stays_there() -> None:
    for kind, tip in (("fall_wheelchair_side", 4), ("fall_wheelchair_back", 3)):
        plan = acted(kind, 2)
        (chair,) = plan.aids
        assert abs(chair.poses()[-1, tip]) > 80.0
        corners = chair.world(chair.poses()[-1:], np.concatenate([each.corners for each in chair.form.pieces]))[0]
        assert corners[:, 2].min() == pytest.approx(0.0, abs=1e-6)
    standing = acted("fall_wheelchair_pitch", 2).aids[0].poses()
    assert not standing[:, 3:].any()


@pytest.mark.parametrize(("kind", "seed"), [("wheelchair_roll", 7), ("wheelchair_pushed", 4), ("frame_walk", 3)])
def test_aids_hide_what_is_behind_them(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = people_clip(seed, kind, fps=4.0)
    monkeypatch.setattr(people_of, "aid_objects", lambda *_: [])
    bare = people_clip(seed, kind, fps=4.0)
    hidden, before = made.people.visible == HIDDEN, bare.people.visible == HIDDEN
    assert hidden[before].all()
    people = ACTIONS[kind].people
    assert hidden[:, :people, 11:].mean() > before[:, :people, 11:].mean() + 0.03, "legs"
    assert hidden[:, :people, :5].mean() < before[:, :people, :5].mean() + 0.02, "heads"
    assert np.count_nonzero(made.clip.silhouettes) < np.count_nonzero(bare.clip.silhouettes)
    assert np.array_equal(made.people.points, bare.people.points)


def test_people_are_hidden_alike_with_and_without_a_picture() -> None:
    clip = render_clip(7, "wheelchair_roll", fps=3.0, seconds=9.0)
    made = people_clip(7, "wheelchair_roll", fps=3.0, seconds=9.0)
    assert (made.clip.keypoints[..., 2] == clip.keypoints[..., 2]).mean() > 0.85
    assert made.clip.annotations == clip.annotations and made.clip.lying_s == clip.lying_s


def test_clips_of_what_is_drawn_are_what_they_were() -> None:
    """Recorded before there were wheelchairs: whatever is shown by name alone changes nothing else."""
    told, places = [], []
    for seed in range(12):
        clip = people_clip(seed, fps=3.0, seconds=8.0).clip
        told.append([clip.caption, [(each.kind, round(each.start_s, 2)) for each in clip.annotations]])
        places.append(float(clip.keypoints[..., :2].astype(np.float64).mean()))
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12] == RECORDED
    assert places == pytest.approx(PLACES, abs=0.02)


def test_published_normal_life_shows_the_same_kinds_as_before() -> None:
    rest = life._rest()
    assert not set(rest) & set(BY_NAME_ALONE)
    assert hashlib.sha256(" ".join(rest).encode()).hexdigest()[:12] == NORMAL_LIFE
