"""Somebody in a wheelchair in ordinary life: rolls, is pushed, rests, changes seats, picks something up from the floor.

All are shown by name alone (weight 0), so that what is drawn for a seed stays as it is.
"""

from __future__ import annotations

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, seat_gap
from familial.synth.actions.riding import Rider, heading, open_spot
from familial.synth.actor import Actor
from familial.synth.skeleton import Floats
from familial.synth.stage import Place

__all__ = [
    "beside",
    "pivot",
    "ride_in",
    "wheelchair_pick_up",
    "wheelchair_pushed",
    "wheelchair_rest",
    "wheelchair_roll",
    "wheelchair_transfer",
]


def ride_in(cast: Cast, pusher: Actor | None = None) -> Rider:
    """The first actor in a wheelchair, somewhere in view with room about it."""
    actor, stage = cast.actors[0], cast.stage
    free = stage.spots[stage.free(stage.spots, 0.5)]
    spots = free if len(free) else stage.spots
    at = spots[actor.rng.integers(len(spots))]
    goal = open_spot(cast, actor, at, 0.8, 5.0)
    away = goal - at if goal is not None else stage.eye - at
    yaw = float(np.degrees(np.arctan2(away[1], away[0])) + actor.rng.uniform(-60, 60))
    return Rider(cast, actor, at, yaw, pusher)


@action("wheelchair_roll", "normal", "a person sits on a chair and gets about the room", weight=0)
def wheelchair_roll(cast: Cast) -> Span:
    return _gets_about(cast, ride_in(cast))


@action("wheelchair_pushed", "normal", "a person sits on a chair and another walks behind", weight=0, people=2)
def wheelchair_pushed(cast: Cast) -> Span:
    return _gets_about(cast, ride_in(cast, cast.actors[1]))


@action("wheelchair_rest", "normal", "a person sits on a chair and waits", weight=0)
def wheelchair_rest(cast: Cast) -> Span:
    """Sit, reach for something, sit on."""
    rider = ride_in(cast)
    rider.life(cast.onset)
    start, rng = rider.actor.now, rider.actor.rng
    for _ in range(int(rng.integers(1, 4))):
        rider.reach()
        rider.rest(rider.actor.now + float(rng.uniform(0.3, 2.0)))
    end = rider.actor.now
    rider.rest(cast.seconds + 0.5)
    return start, end


@action("wheelchair_pick_up", "normal", "a person on a chair bends down and picks something up", weight=0)
def wheelchair_pick_up(cast: Cast) -> Span:
    """Bend far down beside a wheel, once or twice, slowly or fast."""
    rider = ride_in(cast)
    rider.life(cast.onset)
    start, rng = rider.actor.now, rider.actor.rng
    for _ in range(int(rng.integers(1, 3))):
        rider.pick_up()
        rider.rest(rider.actor.now + float(rng.uniform(0.2, 1.5)))
    end = rider.actor.now
    rider.life(cast.seconds + 0.5)
    return start, end


@action("wheelchair_transfer", "normal", "a person gets up from a chair and sits down on another", weight=0, who="old")
def wheelchair_transfer(cast: Cast) -> Span:
    """Out of the wheelchair and onto a chair or a bed, slowly: stand, turn with small steps, sit; and mostly back."""
    actor, rng = cast.actors[0], cast.actors[0].rng
    couch = cast.stage.couch
    seat = couch if couch.height > 0.3 and rng.random() < 0.5 else cast.stage.seat
    rider, front = beside(cast, seat)
    start, slow = actor.now, float(rng.uniform(1.1, 1.7))
    rider.get_out(slow)
    feet = actor.place
    pivot(actor, front, seat.yaw, slow)
    stay = float(rng.uniform(1.0, 4.0))
    actor.sit(stay, down=1.3 * slow, rise=False)
    if rng.random() < 0.6 and actor.now < cast.seconds - 3.0:
        actor.go(0.7 * slow, hip=80, knee=90, lean=42, sho=10)
        actor.go(0.8 * slow, "stand", lean=actor.body.stoop + 10.0, sho=24, elb=40, knee=10)
        pivot(actor, feet, rider.chair.yaw, slow)
        rider.get_in(slow)
        end = actor.now
        rider.rest(cast.seconds + 0.5)
    else:
        end = actor.now
        actor.sit(max(0.1, cast.seconds + 0.5 - actor.now), down=0.2, rise=False)
    return start, end


def beside(cast: Cast, seat: Place) -> tuple[Rider, Floats]:
    """Bring the first actor in a wheelchair to the side of `seat` at the onset; returns where to stand before it."""
    actor, rng = cast.actors[0], cast.actors[0].rng
    gap = seat_gap(actor) if seat is cast.stage.seat else seat.half + 0.1
    front = seat.front(gap)
    reach = 0.4 * actor.body.height / 1.75  # from the wheelchair's origin to the feet of who stands up
    side = 1.0 if rng.random() < 0.5 else -1.0
    options = []
    for turn in (side, -side):
        yaw = seat.yaw + turn * float(rng.uniform(55, 95))
        at = seat.front(gap + 0.08) - reach * heading(yaw)
        options.append((cast.stage.near(at) + 2.0 * float(not cast.stage.free(at[None], 0.1)[0]), at, yaw))
    _, at, yaw = min(options, key=lambda each: each[0])
    length = float(rng.uniform(0.6, 2.2))
    while length > 0.3 and cast.stage.near(at - length * heading(yaw)) > 0.4:
        length -= 0.3
    rider = Rider(cast, actor, at - max(0.0, length) * heading(yaw), yaw)
    onset = max(0.5, cast.onset - 1.5)
    rider.rest(onset - max(0.0, length) / 0.6 - 0.7 if length > 0.3 else onset)
    if length > 0.3:
        rider.roll(length, 0.6)
    rider.rest(onset)
    return rider, front


def pivot(actor: Actor, to: Floats, yaw: float, slow: float) -> None:
    """Turn to `yaw` with small steps, bent, and so come to `to` (2,)."""
    by = (yaw - actor.yaw + 180.0) % 360.0 - 180.0
    seconds = slow * (0.6 + abs(by) / 75.0)
    actor.go(seconds, None, {"x": float(to[0]), "y": float(to[1])}, yaw=actor.yaw + by, nod=14)


def _gets_about(cast: Cast, rider: Rider) -> Span:
    """Roll from place to place for some seconds; before and after that, whatever somebody does in a wheelchair."""
    rider.life(cast.onset)
    start, until = rider.actor.now, rider.actor.now + float(rider.actor.rng.uniform(4.0, 8.0))
    _roll_about(rider, until)
    end = rider.actor.now
    rider.life(cast.seconds + 0.5)
    return start, end


def _roll_about(rider: Rider, until: float) -> None:
    """Roll from place to place with stops until `until` seconds; on the spot where there is no room."""
    rng = rider.actor.rng
    while rider.actor.now < until:
        goal = open_spot(rider.cast, rider.actor, rider.chair.place, 0.9, 4.5)
        if goal is None:
            rider.turn(rider.chair.yaw + float(rng.uniform(60, 150)) * (1 if rng.random() < 0.5 else -1))
        else:
            rider.go_to(goal, rider.cast.seconds + 0.5)
        rider.rest(rider.actor.now + float(rng.uniform(0.2, 1.0)))
