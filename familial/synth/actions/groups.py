"""Two or more people do something together, or nobody is there."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, direction_to, unwrapped
from familial.synth.actions.shared import approach, gather, meet, ordinary_life, separate, wait_for_each_other
from familial.synth.actor import Actor

__all__ = ["empty", "greet", "group_talk", "hand_over", "help_up", "queue", "rush", "side_by_side"]


@action("group_talk", "normal", "a group of people stand and talk", weight=1.2, people=3)
def group_talk(cast: Cast) -> Span:
    """Stand in a ring and talk with the hands, some lively; one may come late or leave."""
    rng = cast.rng
    actors = cast.actors[: int(rng.integers(3, max(4, len(cast.actors) + 1)))]
    gather(cast, actors, rng.uniform(0.55, 1.0), cast.onset)
    start = max(a.now for a in actors[:2])
    for actor in actors:
        actor.gesture(start + rng.uniform(3.0, 9.0), rng.uniform(0.2, 1.6))
        actor.go(0.3, "stand")
        if rng.random() < 0.4:
            actor.walk(cast.spot(actor, 1.0))
    return start, actors[0].now


def _shake_hands(actor: Actor, rng: Generator, quick: float) -> None:
    actor.go(quick, sho_r=45, elb_r=38, arm_r=-4, lean=6)
    for _ in range(3):
        actor.go(0.15, sho_r=52)
        actor.go(0.15, sho_r=40)


def _clap_hands(actor: Actor, rng: Generator, quick: float) -> None:
    actor.go(quick, sho_r=rng.uniform(70, 130), elb_r=rng.uniform(20, 60), lean=4, ease="fast")
    actor.go(0.2, sho_r=60)


def _embrace(actor: Actor, rng: Generator, quick: float) -> None:
    actor.go(quick + 0.2, sho=70, elb=55, arm=20, lean=10)
    for _ in range(int(rng.integers(1, 4))):
        actor.go(0.2, elb_r=80)
        actor.go(0.2, elb_r=55)


_GREETINGS = (_shake_hands, _clap_hands, _embrace)


@action("greet", "normal", "people meet, shake hands and hug", weight=1.1, people=3)
def greet(cast: Cast) -> Span:
    """Come together; two at a time shake hands, clap hands or shoulders, or embrace."""
    rng = cast.rng
    actors = cast.actors[: int(rng.integers(3, max(4, min(5, len(cast.actors)) + 1)))]
    middle = gather(cast, actors, rng.uniform(0.7, 1.0), cast.onset)
    start = max(a.now for a in actors[:2])
    for actor in actors:
        actor.hold_until(start)
    for i in range(1, len(actors)):
        one, other = actors[int(rng.integers(i))], actors[i]
        wait_for_each_other(one, other)
        quick = rng.uniform(0.2, 0.5)
        for actor, sign in ((one, 1.0), (other, -1.0)):
            _, heading, gap = direction_to(one, other)
            goal = actor.place + sign * 0.5 * max(0.0, gap - 0.6) * direction_to(one, other)[0]
            actor.go(
                0.5,
                "stand",
                x=float(goal[0]),
                y=float(goal[1]),
                yaw=unwrapped(actor, heading + (0 if sign > 0 else 180)),
            )
        gesture = _GREETINGS[int(rng.choice(len(_GREETINGS)))]
        for actor in (one, other):
            gesture(actor, rng, quick)
            actor.go(0.4, "stand")
        approach(other, middle, float(rng.uniform(0.4, 0.7)), 0.9)
    for actor in actors:
        actor.gesture(actor.now + rng.uniform(0.5, 3.0), rng.uniform(0.2, 1.2))
        actor.go(0.3, "stand")
    return start, actors[0].now


@action("hand_over", "normal", "a person gives something to another person", weight=0.7, people=2)
def hand_over(cast: Cast) -> Span:
    """Hold something out, which the other takes; do it again, or look at it together."""
    a, b = meet(cast, cast.rng.uniform(0.7, 1.0))
    start = a.now
    for _ in range(int(cast.rng.integers(1, 4))):
        a, b = (b, a) if cast.rng.random() < 0.5 else (a, b)
        wait_for_each_other(a, b)
        for actor in (a, b):
            actor.go(0.5, sho=cast.rng.uniform(45, 65), elb=cast.rng.uniform(20, 45), lean=8)
            actor.hold(0.3)
            actor.go(0.4, sho=25, elb=85 if actor is b else 15, lean=2)
        b.gesture(b.now + cast.rng.uniform(0.3, 1.5), 0.5)
    stop = max(a.now, b.now)
    separate(cast, a, b)
    return start, stop


@action("help_up", "normal", "a person helps another person to get up", weight=0.8, people=2)
def help_up(cast: Cast) -> Span:
    """Sit or crouch on the floor; the other person comes, bends down, takes the hands and pulls."""
    a, b = cast.actors[:2]
    rng = cast.rng
    ordinary_life(cast, a, cast.onset - rng.uniform(2.5, 4.0))
    a.go(0.9, "crouch", sho=20)
    if rng.random() < 0.6:
        a.go(0.7, "sit_floor")
    ordinary_life(cast, b, cast.onset - 1.5)
    approach(b, a.place, 0.75, rng.uniform(1.0, 2.2))
    wait_for_each_other(a, b)
    start = a.now
    _, heading, _ = direction_to(b, a)
    b.go(0.7, "stand", lean=50, sho=70, elb=15, knee=25, hip=15, yaw=unwrapped(b, heading))
    a.go(0.7, sho=75, elb=10, yaw=unwrapped(a, heading + 180))
    pull = float(rng.uniform(0.6, 1.2))
    a.go(pull, "stand", sho=55, elb=25, lean=15)
    b.go(pull, "stand", sho=50, elb=40, lean=5)
    for actor in (a, b):
        actor.gesture(actor.now + rng.uniform(0.5, 2.0), 0.4)
    separate(cast, a, b)
    return start, b.now


@action("side_by_side", "normal", "two people walk together", weight=0.7, people=2)
def side_by_side(cast: Cast) -> Span:
    """Walk together, arm in arm or a step apart."""
    a, b = meet(cast, cast.rng.uniform(0.45, 0.8))
    start = a.now
    for _ in range(int(cast.rng.integers(1, 4))):
        beside, goal = b.place - a.place, cast.spot(a, 1.5)
        speed = float(cast.rng.uniform(0.7, 1.4))
        a.walk(goal, speed=speed)
        b.walk(cast.in_view(goal + beside), speed=speed)
        wait_for_each_other(a, b)
    return start, a.now


@action("queue", "normal", "people stand and wait", weight=0.6, people=3)
def queue(cast: Cast) -> Span:
    """Stand in a line and move up."""
    rng, turn = cast.rng, cast.rng.uniform(0, 2 * math.pi)
    way = rng.uniform(0.5, 0.8) * np.array([math.cos(turn), math.sin(turn)])
    head = cast.stage.spots[rng.integers(len(cast.stage.spots))]
    for i, actor in enumerate(cast.actors):
        ordinary_life(cast, actor, cast.onset - rng.uniform(2.0, 4.0))
        actor.walk(cast.in_view(head + i * way))
        actor.face(math.degrees(turn) + 180)
        while actor.now < cast.onset + 4.0:
            actor.gesture(actor.now + rng.uniform(0.5, 2.5), rng.uniform(0, 0.5))
            if rng.random() < 0.4:
                actor.walk(cast.in_view(actor.place - 0.3 * way), speed=0.6)
    return cast.onset, cast.onset + 4.0


@action("rush", "normal", "people run through the room", weight=0.6, people=3)
def rush(cast: Cast) -> Span:
    """Run, one after another or at once, without harm: late, or at play."""
    for actor in cast.actors:
        ordinary_life(cast, actor, cast.onset + cast.rng.uniform(-0.5, 1.0))
    goal = cast.spot(cast.actors[0], 2.0, 9.0)
    for actor in cast.actors[: int(cast.rng.integers(2, len(cast.actors) + 1))]:
        actor.walk(cast.in_view(goal + cast.rng.normal(0, 0.6, 2)), speed=cast.rng.uniform(2.3, 4.0))
        if cast.rng.random() < 0.6:
            actor.walk(cast.spot(actor, 2.0, 9.0), speed=cast.rng.uniform(1.5, 3.8))
    return cast.onset, cast.actors[0].now


@action("empty", "normal", "the room is empty", weight=0.35, people=0)
def empty(cast: Cast) -> Span:
    return 0.0, cast.seconds
