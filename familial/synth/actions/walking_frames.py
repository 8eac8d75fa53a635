"""Somebody with a walking frame in ordinary life: walks, turns, stops, sits down on a chair or on its seat.

All are shown by name alone (weight 0), so that what is drawn for a seed stays as it is.
"""

from __future__ import annotations

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, seat_gap
from familial.synth.actions.framed import FrameUser
from familial.synth.actions.riding import heading

__all__ = ["frame_chair", "frame_seat", "frame_turn", "frame_walk", "with_frame"]


def with_frame(cast: Cast, wheels: bool | None = None) -> FrameUser:
    """The first actor at a walking frame, somewhere in view; with wheels or without, drawn where None."""
    actor, spots = cast.actors[0], cast.stage.spots
    free = spots[cast.stage.free(spots, 0.35)]
    at = (free if len(free) else spots)[actor.rng.integers(len(free) or len(spots))]
    rolls = bool(actor.rng.random() < 0.5) if wheels is None else wheels
    return FrameUser(cast, actor, at, float(actor.rng.uniform(0, 360)), rolls)


@action("frame_walk", "normal", "a person walks slowly and holds on to something", weight=0, who="old")
def frame_walk(cast: Cast) -> Span:
    """Short, slow steps, bent over the frame, with stops."""
    user = with_frame(cast)
    actor, rng = user.actor, user.actor.rng
    user.life(cast.onset)
    start = actor.now
    for _ in range(int(rng.integers(1, 4))):
        user.walk_to(cast.spot(actor, 0.8, 4.0), cast.seconds + 0.5)
        user.rest(actor.now + float(rng.uniform(0.3, 1.5)))
    end = actor.now
    user.life(cast.seconds + 0.5)
    user.frame.hold_until(actor.now)
    return start, end


@action("frame_turn", "normal", "a person stands and holds on to something", weight=0, who="old")
def frame_turn(cast: Cast) -> Span:
    """Turn with the frame on the spot, bit by bit, and stand."""
    user = with_frame(cast)
    actor, rng = user.actor, user.actor.rng
    user.life(cast.onset)
    start = actor.now
    for _ in range(int(rng.integers(1, 3))):
        user.turn(actor.yaw + (1 if rng.random() < 0.5 else -1) * float(rng.uniform(70, 179)))
        user.rest(actor.now + float(rng.uniform(0.5, 2.0)))
    end = actor.now
    user.life(cast.seconds + 0.5)
    return start, end


@action("frame_chair", "normal", "a person walks slowly and sits down on a chair", weight=0, who="old")
def frame_chair(cast: Cast) -> Span:
    """Walk up to the chair, turn round with the frame, feel for the seat and sit; some stand up again."""
    actor, rng, seat = cast.actors[0], cast.actors[0].rng, cast.stage.seat
    front, slow = seat.front(seat_gap(actor)), float(rng.uniform(1.1, 1.8))
    way = seat.yaw + float(rng.uniform(-50, 50))
    far = float(rng.uniform(0.8, 2.0))
    while far > 0.3 and not cast.stage.clear(front + far * heading(way), front):
        far -= 0.2
    user = FrameUser(cast, actor, front + far * heading(way), way + 180.0, bool(rng.random() < 0.5))
    user.rest(max(0.5, cast.onset - far / 0.3))
    start = actor.now
    user.walk_to(front, start + 9.0)
    user.turn(seat.yaw)
    user.sit_down(float(rng.uniform(1.0, 4.0)), slow)
    return _stand_up_or_stay(cast, user, start, slow)


@action("frame_seat", "normal", "a person holds on to something and sits down", weight=0, who="old")
def frame_seat(cast: Cast) -> Span:
    """Turn round before the frame and sit on its own seat; some stand up again and turn back."""
    user = with_frame(cast, wheels=True)
    actor, rng = user.actor, user.actor.rng
    user.life(cast.onset)
    start, slow = actor.now, float(rng.uniform(1.1, 1.7))
    back = user.frame.place - 0.46 * actor.body.height / 1.75 * heading(actor.yaw)
    actor.go(0.5, None, {"x": float(back[0]), "y": float(back[1])}, lean=user.bend - 6.0)
    actor.go(
        2.2 * slow, "stand", yaw=actor.yaw + (180.0 if rng.random() < 0.5 else -180.0), lean=14, sho=-6, elb=30, arm=18
    )
    actor.go(0.7 * slow, None, hip=60, knee=79, lean=40, gait=0)
    actor.go(0.7 * slow, "sit", sway=0.5)
    user.seated(actor.now + float(rng.uniform(1.0, 5.0)))
    if rng.random() < 0.5 and actor.now < cast.seconds - 4.0:
        actor.go(0.7 * slow, None, hip=84, knee=97, lean=40, sho=-8)
        actor.go(0.9 * slow, "stand", lean=16)
        actor.go(2.2 * slow, "stand", yaw=actor.yaw + 180.0, lean=14)
        user.frame.hold_until(actor.now)
        end = actor.now
        user.life(cast.seconds + 0.5)
    else:
        end = actor.now
        user.seated(cast.seconds + 0.5)
    return start, end


def _stand_up_or_stay(cast: Cast, user: FrameUser, start: float, slow: float) -> Span:
    if user.actor.rng.random() < 0.5 and user.actor.now < cast.seconds - 3.0:
        user.rise(slow)
        end = user.actor.now
        user.life(cast.seconds + 0.5)
    else:
        end = user.actor.now
        user.seated(cast.seconds + 0.5)
    return start, end
