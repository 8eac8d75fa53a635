"""Falls out of a wheelchair, with it, in a change of seats, and at a walking frame; nobody gets up again alone.

All are shown by name alone (weight 0), so that what is drawn for a seed stays as it is.
"""

from __future__ import annotations

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.falling import after_fall, most_open
from familial.synth.actions.framed import FrameUser
from familial.synth.actions.riding import Rider
from familial.synth.actions.walking_frames import with_frame
from familial.synth.actions.wheelchairs import beside, pivot, ride_in
from familial.synth.actor import Actor
from familial.synth.keyframes import smooth
from familial.synth.postures import sprawl
from familial.synth.skeleton import RATE

__all__ = [
    "fall_frame_back",
    "fall_frame_forward",
    "fall_frame_legs",
    "fall_frame_side",
    "fall_transfer",
    "fall_wheelchair_back",
    "fall_wheelchair_pitch",
    "fall_wheelchair_side",
    "fall_wheelchair_slide",
]


@action("fall_wheelchair_slide", "fall", "a person slowly sinks to the floor from a chair", weight=0)
def fall_wheelchair_slide(cast: Cast) -> Span:
    """Slide forward on the seat, the trunk far back, and over its edge to the floor before the wheelchair."""
    rider = ride_in(cast)
    actor, rng, k = rider.actor, rider.actor.rng, rider.actor.body.height / 1.75
    rider.life(cast.onset)
    start, n = actor.now, round(float(rng.uniform(0.7, 2.2)) * RATE)
    slack = {"hip": 68.0, "knee": 52.0, "lean": -26.0, "sho": 6.0, "elb": 24.0, "arm": 16.0, "nod": 22.0}
    rows, poses = rider.toward(n, **slack), np.repeat(rider.chair.path(0.02), n, axis=0)
    rider.ride(poses, rows, slid=0.24 * k * smooth(np.arange(1, n + 1) / n))
    down = {"nod": float(rng.uniform(8, 30)), "sho": float(rng.uniform(5, 40)), "arm": 24.0, "lean": -14.0}
    actor.go(float(rng.uniform(0.3, 0.42)), "sit_floor", down | actor.shift(0.5 * k), ease="drop", pin=0.0)
    impact = actor.now
    _left_behind(rider, start, impact, back=float(rng.uniform(0.1, 0.4)))
    actor.hold(float(rng.uniform(0.1, 0.9)))
    left = bool(rng.random() < 0.5)
    lying = sprawl("aside", left, rng)
    actor.go(float(rng.uniform(0.5, 1.1)), "aside", lying | actor.shift(0.15), flip=not left, ease="drop")
    return _lies(cast, actor, start, impact)


@action("fall_wheelchair_pitch", "fall", "a person falls from a chair and lies on the floor", weight=0)
def fall_wheelchair_pitch(cast: Cast) -> Span:
    """Pitch forward out of the wheelchair: from rest, at a sudden stop, or in bending for something."""
    rider = ride_in(cast)
    actor, rng = rider.actor, rider.actor.rng
    rider.life(max(0.3, cast.onset - 0.8))
    if rng.random() < 0.5:
        rider.move(float(rng.uniform(0.5, 0.9)), lean=float(rng.uniform(34, 60)), sho=50.0, elb=16.0, nod=8.0)
    start = actor.now
    if rng.random() < 0.6:  # onto the knees first, the feet drawn back
        back = actor.shift(-0.3 * actor.body.height / 1.75)
        actor.go(float(rng.uniform(0.35, 0.6)), "kneel", back, nod=15.0, lean=30.0, sho=50.0, ease="drop")
    _, impact = actor.fall(most_open(cast, actor, (0.0, 35.0, -35.0)))
    _left_behind(rider, start, impact, back=float(rng.uniform(0.2, 0.6)))
    return _lies(cast, actor, start, impact)


@action("fall_wheelchair_side", "fall", "a person falls sideways from a chair", weight=0)
def fall_wheelchair_side(cast: Cast) -> Span:
    """Tip over sideways together with the wheelchair."""
    rider = ride_in(cast)
    actor, rng = rider.actor, rider.actor.rng
    rider.life(cast.onset)
    left = most_open(cast, actor, (90.0, -90.0)) > 0
    sign = 1.0 if left else -1.0
    start, low = actor.now, "_l" if left else "_r"
    reach = {"side": 10.0 * sign, "arm" + low: 60.0, "sho" + low: 30.0, "elb" + low: 20.0, "nod": -6.0}
    _tip(rider, float(rng.uniform(0.65, 0.95)), 0.0, 88.0 * sign, reach)
    lying = sprawl("aside", left, rng) | {"yaw": actor.yaw + float(rng.uniform(-15, 15))}
    out = actor.shift(0.22, 0.3 * sign) | {"lift": 0.0}
    actor.go(float(rng.uniform(0.3, 0.5)), "aside", out | lying, flip=not left, pin=1.0)
    return _lies(cast, actor, start, actor.now)


@action("fall_wheelchair_back", "fall", "a person falls backward from a chair", weight=0)
def fall_wheelchair_back(cast: Cast) -> Span:
    """Tip over backward together with the wheelchair, the legs up; they slide off it to a side."""
    rider = ride_in(cast)
    actor, rng = rider.actor, rider.actor.rng
    rider.life(cast.onset)
    start = actor.now
    flung = {"sho": float(rng.uniform(40, 100)), "elb": 20.0, "arm": 30.0, "nod": 24.0, "lean": 8.0}
    _tip(rider, float(rng.uniform(0.6, 0.9)), -90.0, 0.0, flung)
    impact = actor.now
    actor.hold(float(rng.uniform(0.1, 1.0)))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    off = actor.shift(-0.3, 0.5 * sign) | {"yaw": actor.yaw + 50.0 * sign}
    actor.go(float(rng.uniform(0.6, 1.2)), "supine", sprawl("supine", True, rng) | off, pin=1.0)
    return _lies(cast, actor, start, impact)


@action("fall_transfer", "fall", "a person gets up from a chair and falls", weight=0, who="old")
def fall_transfer(cast: Cast) -> Span:
    """Out of the wheelchair towards a chair: the legs give way, balance is lost, or the seat is missed."""
    cast.onset = max(1.5, cast.onset - 2.0)  # getting up takes time
    rider, front = beside(cast, cast.stage.seat)
    actor, rng, seat = rider.actor, rider.actor.rng, cast.stage.seat
    slow = float(rng.uniform(1.0, 1.4))
    rider.get_out(slow)
    way = rng.random()
    if way < 0.4:  # sits down beside the seat
        aside = front + 0.42 * np.array([-np.sin(np.radians(seat.yaw)), np.cos(np.radians(seat.yaw))])
        pivot(actor, cast.in_view(aside), seat.yaw, 0.8 * slow)
        actor.go(0.6, hip=58.0, knee=76.0, lean=34.0, sho=24.0, gait=0.0)
        start = actor.now
        flung = {"sho": float(rng.uniform(20, 80)), "arm": float(rng.uniform(20, 60)), "elb": 20.0, "tip_f": -8.0}
        actor.go(float(rng.uniform(0.3, 0.45)), "sit_floor", flung, ease="drop", lean=-12.0)
        impact = actor.now
        left = bool(rng.random() < 0.5)
        actor.go(float(rng.uniform(0.4, 0.8)), "aside", sprawl("aside", left, rng), flip=not left, ease="drop")
    else:
        half = actor.place + 0.5 * (front - actor.place)
        by = (seat.yaw - actor.yaw + 180.0) % 360.0 - 180.0
        pivot(actor, half, actor.yaw + float(rng.uniform(0.2, 0.8)) * by, slow)
        style = "tip" if way < 0.6 else str(rng.choice(["fold", "heap", "knees"]))
        ways = {"heap": (90.0, -90.0), "knees": (0.0, 40.0, -40.0)}.get(style, (0.0, 90.0, -90.0))
        start, impact = actor.fall(most_open(cast, actor, ways), style=style)
    _left_behind(rider, start, impact, back=float(rng.uniform(0.0, 0.35)))
    return _lies(cast, actor, start, impact)


@action("fall_frame_forward", "fall", "a person walks slowly and falls forward", weight=0, who="old")
def fall_frame_forward(cast: Cast) -> Span:
    """The frame catches, or rolls away; the body goes over it or after it."""
    user = _walks_with_frame(cast)
    actor, rng = user.actor, user.actor.rng
    start, impact = _falls_from_frame(cast, user, (0.0, 20.0, -20.0), "tip", float(rng.uniform(0.1, 0.5)))
    ahead = float(rng.uniform(0.5, 0.9) if user.wheels else rng.uniform(0.15, 0.4))
    _flung(user, start, impact, ahead, aside=float(rng.uniform(0.35, 0.6)), tips=not user.wheels or rng.random() < 0.5)
    return _lies(cast, actor, start, impact)


@action("fall_frame_back", "fall", "a person walks slowly and falls backward", weight=0, who="old")
def fall_frame_back(cast: Cast) -> Span:
    """The hands slip off the grips, and the body goes over backward; the frame stays, or rolls a little."""
    user = _walks_with_frame(cast)
    start, impact = _falls_from_frame(cast, user, (180.0, 150.0, -150.0), "tip")
    _flung(user, start, impact, float(user.actor.rng.uniform(0.0, 0.3)), aside=0.0, tips=False)
    return _lies(cast, user.actor, start, impact)


@action("fall_frame_side", "fall", "a person walks slowly and falls sideways", weight=0, who="old")
def fall_frame_side(cast: Cast) -> Span:
    """Lose balance to a side, mostly in a turn; the frame tips the other way, or stays."""
    user = _walks_with_frame(cast)
    actor, rng = user.actor, user.actor.rng
    if rng.random() < 0.5:
        user.turn(actor.yaw + (1 if rng.random() < 0.5 else -1) * float(rng.uniform(25, 60)))
    start, impact = _falls_from_frame(cast, user, (90.0, -90.0), "tip")
    _flung(
        user, start, impact, float(rng.uniform(0.0, 0.2)), aside=float(rng.uniform(0.0, 0.2)), tips=rng.random() < 0.5
    )
    return _lies(cast, actor, start, impact)


@action("fall_frame_legs", "fall", "a person stands and then sinks to the floor", weight=0, who="old")
def fall_frame_legs(cast: Cast) -> Span:
    """The legs give way at the frame."""
    user = _walks_with_frame(cast)
    actor, rng = user.actor, user.actor.rng
    user.rest(actor.now + float(rng.uniform(0.3, 1.5)))
    style = str(rng.choice(["heap", "knees", "fold", "slump"]))
    ways = {"knees": (90.0, -90.0), "fold": (90.0, -90.0, 180.0)}.get(style, (90.0, -90.0))
    start, impact = _falls_from_frame(cast, user, ways, style)
    _flung(user, start, impact, float(rng.uniform(0.0, 0.25)), aside=0.0, tips=bool(rng.random() < 0.3))
    return _lies(cast, actor, start, impact)


def _walks_with_frame(cast: Cast) -> FrameUser:
    """The first actor on the way with a frame at the onset."""
    user = with_frame(cast)
    actor = user.actor
    user.life(max(0.3, cast.onset - float(actor.rng.uniform(2.0, 4.0))))
    user.walk_to(cast.spot(actor, 1.0, 4.0), cast.onset, stop=False)
    user.rest(cast.onset if actor.now < cast.onset - 0.5 else actor.now + 0.1)
    return user


def _falls_from_frame(
    cast: Cast, user: FrameUser, ways: tuple[float, ...], style: str, momentum: float = 0.0
) -> tuple[float, float]:
    """Fall with the hands slipping off the grips within a third of a second; returns onset and impact in seconds."""
    actor = user.actor
    first, grips = round(actor.now * RATE), user.frame.form.grips
    start, impact = actor.fall(most_open(cast, actor, ways), style=style, momentum=momentum)
    n = min(round(0.34 * RATE), round((impact - start) * RATE))
    held = user.frame.world(np.repeat(user.frame.path(0.02), n, axis=0), grips)
    actor.hold_grips(first, held, np.repeat(1.0 - smooth(np.arange(1, n + 1) / n)[:, None], 2, 1))
    return start, impact


def _flung(user: FrameUser, start: float, impact: float, ahead: float, *, aside: float, tips: bool) -> None:
    """Move the frame `ahead` and to a side, in metres, and tip it over, while its user falls; then it stays."""
    frame, rng = user.frame, user.actor.rng
    frame.hold_until(start + 0.08)
    sign = 1.0 if rng.random() < 0.5 else -1.0
    a = np.radians(frame.yaw)
    to = frame.place + ahead * np.array([np.cos(a), np.sin(a)]) + sign * aside * np.array([-np.sin(a), np.cos(a)])
    tip = {"tip_l": 88.0 * sign} if tips else {}
    seconds = max(0.5, impact - start)
    frame.write(frame.path(seconds, "drop" if tips else "smooth", x=float(to[0]), y=float(to[1]), **tip))


def _left_behind(rider: Rider, start: float, impact: float, back: float) -> None:
    """Have the wheelchair roll `back` metres while its rider falls from `start` to `impact`; then it stays."""
    chair = rider.chair
    chair.hold_until(start + 0.3 * (impact - start))
    a = np.radians(chair.yaw)
    x, y = chair.place - back * np.array([np.cos(a), np.sin(a)])
    chair.write(chair.path(max(0.3, 1.2 * (impact - start)), x=float(x), y=float(y)))


def _tip(rider: Rider, seconds: float, forward: float, left: float, values: dict[str, float]) -> None:
    """Tip the wheelchair over with its rider, slowly at first."""
    poses = rider.chair.path(seconds, "drop", tip_f=forward, tip_l=left)
    rider.ride(poses, rider.toward(len(poses), **values))


def _lies(cast: Cast, actor: Actor, start: float, impact: float) -> Span:
    return after_fall(cast, actor, start, impact, rises=False)
