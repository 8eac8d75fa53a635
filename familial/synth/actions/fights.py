"""Two or more people fight; others watch, back off, run, or step in."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast
from familial.synth.actions.fight_moves import (
    Move,
    blows,
    catch_up,
    chase,
    grapple,
    kicks,
    lull,
    on_the_floor,
    shove,
)
from familial.synth.actions.fight_poses import pose_of
from familial.synth.actions.shared import approach, meet, ordinary_life
from familial.synth.actor import Actor

__all__ = [
    "exchange",
    "fight_beat",
    "fight_chase",
    "fight_floor",
    "fight_grapple",
    "fight_group",
    "fight_kick",
    "fight_punch",
    "fight_push",
]


@action("fight_punch", "fight", "people fight with fists", weight=1.2, people=2)
def fight_punch(cast: Cast) -> Span:
    return _fight(cast, {blows: 7, shove: 2, lull: 1.5, grapple: 1, kicks: 0.5})


@action("fight_kick", "fight", "people fight and kick", weight=0.9, people=2)
def fight_kick(cast: Cast) -> Span:
    return _fight(cast, {kicks: 6, blows: 2, shove: 1, lull: 1.5})


@action("fight_push", "fight", "people fight and push each other", weight=0.9, people=2)
def fight_push(cast: Cast) -> Span:
    return _fight(cast, {shove: 7, blows: 1, lull: 1.5, grapple: 1})


@action("fight_grapple", "fight", "people fight and hold each other", weight=1.1, people=2)
def fight_grapple(cast: Cast) -> Span:
    return _fight(cast, {grapple: 8, shove: 1, blows: 1.5})


@action("fight_floor", "fight", "two people fight on the floor", weight=0.8, people=2)
def fight_floor(cast: Cast) -> Span:
    return _fight(cast, {blows: 2, grapple: 2, shove: 1}, goes_down=True)


@action("fight_beat", "fight", "a person beats another person", weight=0.8, people=2)
def fight_beat(cast: Cast) -> Span:
    return _fight(cast, {blows: 5, kicks: 2, shove: 2}, one_sided=True)


@action("fight_chase", "fight", "a person runs after another person and they fight", weight=0.5, people=2)
def fight_chase(cast: Cast) -> Span:
    return _fight(cast, {chase: 3, blows: 3, shove: 3, kicks: 1})


@action("fight_group", "fight", "a group of people fights", weight=0.9, people=3)
def fight_group(cast: Cast) -> Span:
    return _fight(cast, {blows: 4, kicks: 2, shove: 3, grapple: 3, lull: 0.7}, group=True)


def _fight(
    cast: Cast,
    moves: Mapping[Move, float],
    *,
    goes_down: bool = False,
    one_sided: bool = False,
    group: bool = False,
) -> Span:
    """Come together and fight until near the end of the clip, or break off; the others watch or step in.

    Args:
        cast: The actors of the clip.
        moves: How often each is drawn, against the others.
        goes_down: Whether the fight always goes to the floor; else it does in about one of eight.
        one_sided: Whether the same person always attacks.
        group: Whether three to five people fight; else two.
    """
    rng = cast.rng
    a, b = meet(cast, rng.uniform(0.5, 1.0), None if rng.random() < 0.7 else rng.uniform(1.8, 3.2))
    count = min(len(cast.actors), int(rng.integers(3, 6))) if group else 2
    fighters = [a, b, *cast.actors[2:count]]
    start = a.now
    stop = min(cast.seconds + 0.3, start + rng.uniform(3.0, 12.0))
    for other in fighters[2:]:  # the others join in
        ordinary_life(cast, other, start + rng.uniform(-2.0, 0.5))
        approach(other, 0.5 * (a.place + b.place), 0.8, rng.uniform(1.5, 3.5))
    floor_from = start + rng.uniform(0.8, 3.5) if goes_down or rng.random() < 0.12 else math.inf
    exchange(cast, fighters, moves, stop, floor_from, one_sided)
    for other in cast.actors[count:]:
        _bystander(cast, other, fighters, start, stop)
    for fighter in fighters:
        _after_fight(cast, fighter)
    return start, min(max(f.now for f in fighters) if stop > cast.seconds else stop, cast.seconds)


def exchange(
    cast: Cast, fighters: list[Actor], moves: Mapping[Move, float], stop: float, floor_from: float, one_sided: bool
) -> None:
    """Let two of the fighters at a time do one of `moves`, until `stop` seconds or until somebody lies."""
    rng, known = cast.rng, list(moves)
    odds = np.array([moves[move] for move in known])
    strong = fighters[int(rng.integers(2))]
    while min(f.now for f in fighters) < stop and not any(f.lies for f in fighters):
        one, *rest = sorted(fighters, key=lambda f: f.now)
        other = _nearest(one, rest)
        if one_sided or rng.random() < 0.3:
            one, other = (one, other) if other is not strong else (other, one)
        elif rng.random() < 0.5:
            one, other = other, one
        catch_up(one, other)
        if one.now > floor_from:
            on_the_floor(cast, one, other, stop)
        else:
            known[int(rng.choice(len(known), p=odds / odds.sum()))](cast, one, other)


def _nearest(one: Actor, rest: list[Actor]) -> Actor:
    """Who is nearest to `one`, in metres and a little in time."""
    return min(rest, key=lambda f: float(np.hypot(*(f.place - one.place))) + 0.6 * abs(f.now - one.now))


def _after_fight(cast: Cast, fighter: Actor) -> None:
    rng = cast.rng
    if fighter.lies and rng.random() < 0.6:
        fighter.lie(max(0.1, cast.seconds + 0.5 - fighter.now), still=0.4)
    elif fighter.lies:
        fighter.get_up()
    else:
        fighter.go(0.4, "stand")
        if rng.random() < 0.5:
            fighter.walk(cast.spot(fighter, 1.0), speed=rng.uniform(1.0, 3.5))


def _bystander(cast: Cast, actor: Actor, fighters: list[Actor], start: float, stop: float) -> None:
    """Go on with life, watch, back off, run, or try to part those who fight."""
    rng = actor.rng
    ordinary_life(cast, actor, start + rng.uniform(-1.0, 1.5))
    centre = 0.5 * (fighters[0].place + fighters[1].place)
    does = rng.choice(["life", "watch", "off", "part"], p=[0.3, 0.4, 0.15, 0.15])
    if does == "watch":
        approach(actor, centre, rng.uniform(1.3, 3.0), rng.uniform(0.8, 2.0))
        actor.gesture(max(actor.now, stop - rng.uniform(0, 2)), rng.uniform(0.1, 1.2))
        actor.go(0.3, "stand")
    elif does == "off":
        actor.walk(cast.spot(actor, 1.5), speed=rng.uniform(1.8, 3.5))
    elif does == "part":
        actor.hold(rng.uniform(0.3, 2.0))
        approach(actor, centre, 0.55, rng.uniform(1.5, 2.8))
        while actor.now < stop - 0.3:
            actor.go(rng.uniform(0.3, 0.6), "stand", pose_of("grab" if rng.random() < 0.6 else "push", rng))
        actor.go(0.3, "stand")
