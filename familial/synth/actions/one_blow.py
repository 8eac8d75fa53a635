"""Fights of a single act: two stand and wait, then one strikes, kicks, pushes or slaps the other once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from familial.synth.actions.aim import aimed, stand_to_reach
from familial.synth.actions.base import Span, action
from familial.synth.actions.blow_styles import KICKS, PUNCHES, PUSHES, SLAPS, Blow, blow_of
from familial.synth.actions.cast import Cast
from familial.synth.actions.opposite import after_it, face_off, go_up_to
from familial.synth.actions.reactions import brace, recover, take
from familial.synth.actor import Actor
from familial.synth.kinematics import posed, present
from familial.synth.skeleton import JOINT, Floats

__all__ = ["hit_behind", "kick_lying", "one_kick", "one_punch", "one_push", "one_slap", "strike"]

_PEAK = 2.2  # of the easing "fast": its speed at first against the mean
_FLESH = {"head": 0.1, "chin": 0.06, "belly": 0.12, "chest": 0.11, "pelvis": 0.11}  # metres about a joint of the target


@action("one_punch", "fight", "a person hits another person", weight=1.6, people=2)
def one_punch(cast: Cast) -> Span:
    return _one_act(cast, PUNCHES, (5, 5, 4, 5, 3, 2, 3), (0.8, 2.2))


@action("one_kick", "fight", "a person kicks another person", weight=1.4, people=2)
def one_kick(cast: Cast) -> Span:
    return _one_act(cast, KICKS, (5, 3, 3, 4, 2, 4), (0.9, 2.4))


@action("one_push", "fight", "a person pushes another person away", weight=1.4, people=2)
def one_push(cast: Cast) -> Span:
    return _one_act(cast, PUSHES, (7, 2, 1), (0.7, 2.2))


@action("one_slap", "fight", "a person slaps another person", weight=0.8, people=2)
def one_slap(cast: Cast) -> Span:
    return _one_act(cast, SLAPS, (4, 1), (0.7, 1.8))


@action("hit_behind", "fight", "a person comes from behind and hits another person", weight=0.8, people=2)
def hit_behind(cast: Cast) -> Span:
    """The other walks or runs away unaware; one catches up and strikes or pushes the back or the head."""
    rng = cast.rng
    one, other = face_off(cast, float(rng.uniform(1.2, 2.4)))
    start = one.now
    flees = rng.random() < 0.5
    speed = float(rng.uniform(2.3, 3.6) if flees else rng.uniform(0.8, 1.4))
    lead = float(rng.uniform(0.9, 1.6))
    other.walk(cast.spot(other, 1.5, 6.0), speed=speed, until=start + lead, stop=False)
    heading = other.yaw
    style = str(rng.choice(["cross", "swing", "overhand", "two_hands", "front"]))
    blow = blow_of(style, rng)
    place, yaw, angles = _stance(one, other, blow, heading)
    away = float(np.hypot(*(place - one.place)))
    one.walk(place, speed=float(np.clip(away / max(0.4, lead - 0.7), 0.9, 4.5)))
    one.face(yaw, 0.1)
    hit = one.now + blow.windup_s + 0.25
    if other.now < hit:  # who is late is waited for, a step at a time
        _amble(cast, other, hit)
    place, yaw, angles = _stance(one, other, blow, other.yaw)
    _land(one, blow, angles, place, yaw)
    one.hold_until(other.now)
    other.hold_until(one.now)
    ahead = np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
    _thrown_forward(cast, other, ahead)
    _withdraw(one, blow)
    stop = max(one.now, other.now)
    after_it(cast, one, other)
    _lie_on(cast, other)
    return start, min(stop, cast.seconds)


@action("kick_lying", "fight", "a person kicks another person on the floor", weight=0.8, people=2)
def kick_lying(cast: Cast) -> Span:
    """Push the other down, step up, and kick or stamp on them a few times; the other curls up."""
    rng = cast.rng
    one, other = face_off(cast, float(rng.uniform(0.7, 1.6)))
    start = one.now
    strike(cast, one, other, blow_of("two_hands", rng), reaction="down")
    _curl(other, 0.5)
    for _ in range(int(rng.integers(1, 5))):
        blow = blow_of("low" if rng.random() < 0.6 else "stamp", rng)
        place, yaw, angles = _over(one, other, blow, str(rng.choice(["belly", "chest", "pelvis", "head"])))
        go_up_to(one, place, yaw, float(rng.uniform(1.2, 2.2)))
        contact = _land(one, blow, angles, place, yaw)
        other.hold_until(contact)
        _curl(other, float(rng.uniform(0.2, 0.5)))
        _withdraw(one, blow)
    stop = one.now
    after_it(cast, one)
    _lie_on(cast, other)
    return start, min(stop, cast.seconds)


def strike(cast: Cast, one: Actor, other: Actor, blow: Blow, *, reaction: str = "") -> float:
    """One blow of `one`, who steps up for it, and what it does to `other`; returns the time of contact in seconds.

    `reaction` is a style of `reactions.take`; drawn where empty.
    """
    place, yaw, angles = _stance(one, other, blow)
    go_up_to(one, place, yaw, float(cast.rng.uniform(1.2, 3.0)))
    contact = _land(one, blow, angles, place, yaw)
    brace(other, contact)
    along = other.place - one.place
    along = along / max(0.1, float(np.hypot(*along)))
    where = _where(blow)
    took = take(cast, other, along, where, reaction)
    _withdraw(one, blow)
    if took not in ("down", "cover"):
        recover(other, where)
    return contact


def _one_act(cast: Cast, styles: tuple[str, ...], odds: tuple[float, ...], gaps: tuple[float, float]) -> Span:
    rng = cast.rng
    one, other = face_off(cast, float(rng.uniform(*gaps)))
    start = one.now
    p = np.array(odds, dtype=float)
    for _ in range(1 + int(rng.random() < 0.15)):  # rarely once more
        one.hold_until(other.now)
        strike(cast, one, other, blow_of(str(rng.choice(styles, p=p / p.sum())), rng))
        if other.lies:
            break
    stop = max(one.now, other.now)
    after_it(cast, one, other)
    _lie_on(cast, other)
    return start, min(stop, cast.seconds)


def _where(blow: Blow) -> str:
    if blow.joint in ("hand",) or blow.target.startswith("shoulder") or blow.joint.startswith("shoulder"):
        return "push"
    if blow.target.startswith("knee"):
        return "leg"
    return "head" if blow.target in ("head", "chin") or blow.target.startswith("ear") else "body"


def _stance(
    one: Actor, other: Actor, blow: Blow, heading: float | None = None
) -> tuple[Floats, float, dict[str, float]]:
    """Where `one` has to stand, facing where, with which angles, so that the blow meets `other` as they stand now."""
    small = one.body.height < 0.8 * other.body.height  # a child does not reach an adult's head
    target = present(other)[JOINT["belly" if small else blow.target]]
    way = target[:2] - one.place
    if heading is None:
        heading = math.degrees(math.atan2(way[1], way[0]))
    unit = np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
    before = target[:2] - _FLESH.get(blow.target, 0.06) * other.body.height / 1.75 * unit
    aim = aimed(one, blow.pose, blow.strike, blow.joint, blow.channel, float(target[2]))
    place, yaw = stand_to_reach(one, aim, before, heading)
    return place, yaw, aim.angles


def _over(one: Actor, other: Actor, blow: Blow, name: str) -> tuple[Floats, float, dict[str, float]]:
    """What `_stance` gives, for the joint `name` of somebody who lies: from the side on which `one` stands."""
    body = present(other)
    target, along = body[JOINT[name]], (body[JOINT["head"]] - body[JOINT["pelvis"]])[:2]
    across = np.array([-along[1], along[0]]) / max(0.1, float(np.hypot(*along)))
    way = across if float(across @ (target[:2] - one.place)) > 0 else -across
    heading = math.degrees(math.atan2(way[1], way[0])) + float(one.rng.uniform(-35, 35))
    aim = aimed(one, blow.pose, blow.strike, blow.joint, blow.channel, float(target[2]) + 0.08)
    place, yaw = stand_to_reach(one, aim, target[:2] - 0.12 * way, heading)
    return place, yaw, aim.angles


def _land(one: Actor, blow: Blow, angles: dict[str, float], place: Floats, yaw: float) -> float:
    """Wind up and strike; returns the time of contact."""
    there = {"x": float(place[0]), "y": float(place[1]), "yaw": yaw}
    if blow.strike.get("pin") == 1.0:  # a leg: the last step comes first, then the body stays over the other foot
        if float(np.hypot(*(place - one.place))) > 0.02:
            one.go(0.2, "guard", there)
        one.go(0.02, "guard", there, pin=1.0)
    else:
        back = 0.8 * one.place + 0.2 * place
        there_before = there | {"x": float(back[0]), "y": float(back[1])}
    before = there if blow.strike.get("pin") == 1.0 else there_before
    one.go(blow.windup_s, blow.pose, dict(blow.windup) | before)
    one.go(_strike_s(one, blow, angles | there), blow.pose, angles | there, ease="fast")
    return one.now


def _strike_s(one: Actor, blow: Blow, target: Mapping[str, float]) -> float:
    """Seconds in which the limb gets from where it is to the target posture, at the blow's speed."""
    ends = posed(np.stack([one.target(), one.target(blow.pose, target)]), one.body)
    sides = (blow.joint,) if blow.joint in JOINT else (blow.joint + "_l", blow.joint + "_r")
    far = max(float(np.linalg.norm(ends[1, JOINT[name]] - ends[0, JOINT[name]])) for name in sides)
    return float(np.clip(_PEAK * far / blow.speed, 0.1, 0.6))


def _withdraw(one: Actor, blow: Blow) -> None:
    """Take the limb back and stand on both feet."""
    rng = one.rng
    one.hold(float(rng.uniform(0.02, 0.12)))
    if blow.strike.get("pin") == 1.0:
        one.go(float(rng.uniform(0.18, 0.3)), "stand", dict(blow.windup))
        one.go(float(rng.uniform(0.2, 0.35)), "guard", pin=1.0)
        one.go(0.02, "guard")
    one.go(float(rng.uniform(0.25, 0.6)), "guard" if rng.random() < 0.4 else "stand")


def _thrown_forward(cast: Cast, other: Actor, ahead: Floats) -> None:
    """Be struck in the back: pitch forward and catch oneself, or fall on the hands."""
    rng = other.rng
    if rng.random() < 0.3:
        other.fall(float(rng.uniform(-25, 25)), momentum=float(rng.uniform(0.3, 1.0)))
        return
    far = float(rng.uniform(0.4, 1.2))
    arms = {"sho": float(rng.uniform(40, 90)), "arm": float(rng.uniform(10, 40)), "nod": -18.0}
    first, last = cast.in_view(other.place + 0.5 * far * ahead), cast.in_view(other.place + far * ahead)
    step = {"x": float(first[0]), "y": float(first[1])}
    other.go(0.3, "stand", arms | step, ease="fast", lean=float(rng.uniform(28, 55)))
    other.go(0.35, "stand", {"x": float(last[0]), "y": float(last[1])}, lean=20.0, sho=40.0)
    recover(other, "head")
    other.face(other.yaw + 180, 0.6)


def _amble(cast: Cast, other: Actor, until: float) -> None:
    """Walk on straight ahead at ease until `until` seconds."""
    way = math.radians(other.yaw)
    goal = other.place + 4.0 * np.array([math.cos(way), math.sin(way)])
    other.walk(cast.in_view(goal), speed=0.9, until=until, stop=False)
    other.hold_until(until)


def _curl(other: Actor, seconds: float) -> None:
    """Draw the knees up and shield the head, lying."""
    rng = other.rng
    knee = float(rng.uniform(50, 100))
    arms = {"sho_l": float(rng.uniform(60, 120)), "sho_r": float(rng.uniform(60, 120))}
    arms |= {"elb_l": float(rng.uniform(80, 130)), "elb_r": float(rng.uniform(80, 130))}
    other.go(seconds, None, arms, hip=0.8 * knee, knee=knee, nod=float(rng.uniform(5, 28)), curl=18.0)


def _lie_on(cast: Cast, other: Actor) -> None:
    """Stay down, or get up after a while."""
    if not other.lies:
        return
    if other.rng.random() < 0.5:
        other.lie(max(0.1, cast.seconds + 0.5 - other.now), still=0.4)
    else:
        other.lie(float(other.rng.uniform(0.5, 2.5)), still=0.2)
        other.get_up()
