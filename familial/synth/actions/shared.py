"""What many actions have in common: ordinary life before and after, going somewhere, meeting and parting."""

from __future__ import annotations

import math

import numpy as np

from familial.synth.actions.cast import Cast, seat_gap
from familial.synth.actor import Actor
from familial.synth.skeleton import Floats
from familial.synth.stage import Place

__all__ = [
    "approach",
    "begin",
    "begin_at",
    "gather",
    "meet",
    "ordinary_life",
    "separate",
    "wait_for_each_other",
    "walk_to_place",
]


def ordinary_life(cast: Cast, actor: Actor, until: float) -> None:
    """Fill the actor's time up to `until` seconds with what people do, and end on time."""
    rng = actor.rng
    while (left := until - actor.now) > 0.25:
        choices = ["walk"] * 7 + ["stand"] * 3 + ["talk"]
        if left > 4.0:
            choices += ["bend", "crouch", "phone", "wave", "jump", "exercise", "bend", "crouch"]
        if left > 8.0:
            choices += ["sit"] * 3
        if left > 13.0:
            choices += ["lie"]
        choice = choices[rng.integers(len(choices))]
        if choice == "walk":
            actor.walk(cast.spot(actor), until=until)
        elif choice == "stand":
            actor.hold(min(left, rng.uniform(0.5, 2.5)))
        elif choice in ("talk", "phone", "wave", "exercise"):
            does = {"talk": actor.gesture, "phone": actor.phone, "wave": actor.wave, "exercise": actor.exercise}[choice]
            does(actor.now + min(left, rng.uniform(2.0, 4.0)))
            if choice == "talk":
                actor.go(min(0.3, max(0.02, until - actor.now)), "stand")
        elif choice == "bend":
            actor.pick_up()
        elif choice == "crouch":
            actor.crouch(rng.uniform(0.5, left - 3.2))
        elif choice == "jump":
            actor.jump(int(rng.integers(1, 3)))
        elif choice == "sit" and walk_to_place(cast, actor, cast.stage.seat, until - 4.5, seat_gap(actor)):
            actor.sit(rng.uniform(0.5, max(0.6, until - actor.now - 3.2)))
        elif choice == "lie":
            actor.lie_down(rng.uniform(0.5, 3.0))


def walk_to_place(cast: Cast, actor: Actor, place: Place, until: float, gap: float) -> bool:
    """Walk to `gap` metres before `place` and turn away from it.

    Returns:
        False, and nothing is written, where there is no way or no time before `until` seconds.
    """
    front = place.front(gap)
    length = float(np.hypot(*(front - actor.place)))
    if length / (actor.body.pace * 0.85) + 2.0 > until - actor.now or not cast.stage.clear(actor.place, front):
        return False
    actor.walk(front)
    actor.face(place.yaw)
    return True


def begin(cast: Cast) -> tuple[Actor, float, float]:
    """Let the first actor live until the onset.

    Returns:
        The actor, when the action starts, and for how many seconds it may last (1 to 5).
    """
    actor = cast.actors[0]
    ordinary_life(cast, actor, cast.onset)
    return actor, actor.now, actor.rng.uniform(1.0, 5.0)


def begin_at(cast: Cast, place: Place, gap: float, *, from_start: bool = False) -> tuple[Actor, float, float]:
    """Bring the first actor to `gap` metres before `place` at about the onset; returns what `begin` does.

    With `from_start`, or where there is no way, the clip begins with the actor there.
    """
    actor, onset = cast.actors[0], cast.onset
    rng = actor.rng
    ordinary_life(cast, actor, max(0.0, onset - rng.uniform(3.0, 5.0)))
    if from_start or not walk_to_place(cast, actor, place, onset + 3.0, gap):
        actor.restart(place.front(gap), place.yaw)
        actor.hold(rng.uniform(0.0, onset) if not from_start else 0.0)
    return actor, actor.now, rng.uniform(1.0, 5.0)


def meet(cast: Cast, gap: float, pace: float | None = None) -> tuple[Actor, Actor]:
    """Bring the first two actors face to face, `gap` metres apart, at about the onset.

    Args:
        cast: The actors of the clip.
        gap: Metres.
        pace: Speed in m/s; None is what brings them there in time.
    """
    a, b = cast.actors[:2]
    # the meeting place is near the first actor, so that the meeting comes on time
    near = cast.stage.spots[np.argsort(np.hypot(*(cast.stage.spots - a.place).T))[: max(6, len(cast.stage.spots) // 3)]]
    spot = near[cast.rng.integers(len(near))]
    way = cast.rng.uniform(0, 2 * math.pi)
    half = 0.5 * gap * np.array([math.cos(way), math.sin(way)])
    for actor, sign in ((a, -1.0), (b, 1.0)):
        ordinary_life(cast, actor, cast.onset - cast.rng.uniform(2.0, 4.0))
        goal = spot + sign * half
        length = float(np.hypot(*(goal - actor.place)))
        left = max(0.8, cast.onset - actor.now)
        actor.walk(goal, speed=float(np.clip(length / left, 0.7, 2.6)) if pace is None else pace)
        back = spot - sign * half - goal
        actor.face(math.degrees(math.atan2(back[1], back[0])))
    both = max(a.now, b.now)
    for actor in (a, b):
        actor.gesture(both, 0.4)
        actor.hold_until(both)
    return a, b


def separate(cast: Cast, a: Actor, b: Actor) -> None:
    """Let both stand upright; each mostly walks away."""
    for actor in (a, b):
        actor.go(0.5, "stand")
        if cast.rng.random() < 0.7:
            actor.walk(cast.spot(actor, 1.0))


def gather(cast: Cast, actors: list[Actor], gap: float, by: float) -> Floats:
    """Bring `actors` into a ring, `gap` metres apart, facing its middle, at about `by` seconds; returns the middle."""
    rng = cast.rng
    middle = cast.stage.spots[rng.integers(len(cast.stage.spots))]
    radius, first = gap / (2 * math.sin(math.pi / max(2, len(actors)))), rng.uniform(0, 2 * math.pi)
    for i, actor in enumerate(actors):
        ordinary_life(cast, actor, by - rng.uniform(1.5, 4.0))
        turn = first + 2 * math.pi * i / len(actors) + rng.normal(0, 0.15)
        goal = middle + radius * np.array([math.cos(turn), math.sin(turn)])
        actor.walk(goal, speed=rng.uniform(0.9, 2.0))
        away = middle - actor.place
        actor.face(math.degrees(math.atan2(away[1], away[0])))
    return np.asarray(middle)


def approach(actor: Actor, point: Floats, gap: float, speed: float) -> None:
    """Walk up to `point` (2,), to within `gap` metres, and face it."""
    away = actor.place - point
    goal = point + gap * away / max(0.2, float(np.hypot(*away)))
    actor.walk(goal, speed=speed)
    away = point - actor.place
    actor.face(math.degrees(math.atan2(away[1], away[0])), 0.3)


def wait_for_each_other(*actors: Actor) -> None:
    """Let those who are behind in time hold still until all are level."""
    for actor in actors:
        actor.hold_until(max(a.now for a in actors))
