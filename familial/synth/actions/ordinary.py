"""One person does something ordinary: walks, sits, bends, lies down, exercises."""

from __future__ import annotations

from familial.synth.actions.base import Span, action
from familial.synth.actions.cast import Cast, bed_of, seat_gap
from familial.synth.actions.shared import begin, begin_at

__all__ = [
    "bend",
    "crouch",
    "exercise",
    "get_up",
    "jump",
    "lie_down",
    "lie_floor",
    "run",
    "sit",
    "sit_fast",
    "sit_floor",
    "stand",
    "walk",
    "wave",
]


@action("walk", "normal", "a person walks about the room", weight=1.2)
def walk(cast: Cast) -> Span:
    actor, start, _ = begin(cast)
    actor.walk(cast.spot(actor, 1.5))
    return start, actor.now


@action("stand", "normal", "a person stands and waits", weight=0.6)
def stand(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    actor.phone(start + 2 + stay)
    return start, actor.now


@action("sit", "normal", "a person sits down on a chair and stands up", weight=1.3)
def sit(cast: Cast) -> Span:
    actor, start, stay = begin_at(cast, cast.stage.seat, seat_gap(cast.actors[0]))
    rng = actor.rng
    actor.sit(stay, down=rng.uniform(0.8, 1.5), rise=bool(rng.random() < 0.5))
    actor.hold(2.0)
    return start, actor.now


@action("sit_fast", "normal", "a person drops quickly onto a chair", weight=0.6)
def sit_fast(cast: Cast) -> Span:
    actor, start, stay = begin_at(cast, cast.stage.seat, seat_gap(cast.actors[0]))
    rng = actor.rng
    actor.sit(stay, down=rng.uniform(0.4, 0.65), rise=bool(rng.random() < 0.5))
    return start, actor.now


@action("bend", "normal", "a person bends down and picks something up", weight=1.2)
def bend(cast: Cast) -> Span:
    actor, start, _ = begin(cast)
    for _ in range(int(actor.rng.integers(1, 4))):
        actor.pick_up(quick=actor.rng.uniform(0.9, 1.8))
    return start, actor.now


@action("crouch", "normal", "a person crouches and stands up", weight=1.0)
def crouch(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    actor.crouch(stay)
    return start, actor.now


@action("sit_floor", "normal", "a person sits down on the floor", weight=0.6)
def sit_floor(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    actor.go(actor.rng.uniform(0.5, 1.0), "crouch", sho=20)
    actor.go(actor.rng.uniform(0.4, 0.9), "sit_floor")
    actor.hold(stay)
    actor.go(0.8, "crouch")
    actor.go(0.9, "stand")
    return start, actor.now


@action("lie_down", "normal", "a person slowly lies down", weight=1.6)
def lie_down(cast: Cast) -> Span:
    actor, start, stay = begin_at(cast, cast.stage.couch, cast.stage.couch.half + 0.1)
    height, depth = bed_of(cast, actor)
    actor.lie_down(stay + 2.0, height=height, depth=depth, rise=bool(actor.rng.random() < 0.4))
    if actor.now < cast.seconds and actor.lies:
        actor.lie(cast.seconds + 0.5 - actor.now, still=0.5)
    return start, actor.now


@action("lie_floor", "normal", "a person slowly lies down on the floor", weight=0.7)
def lie_floor(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    actor.lie_down(stay + 2.0, rise=bool(actor.rng.random() < 0.4))
    if actor.now < cast.seconds and actor.lies:
        actor.lie(cast.seconds + 0.5 - actor.now, still=0.5)
    return start, actor.now


@action("get_up", "normal", "a person lies and then gets up", weight=0.6)
def get_up(cast: Cast) -> Span:
    actor, _, _ = begin_at(cast, cast.stage.couch, cast.stage.couch.half + 0.1, from_start=True)
    height, depth = bed_of(cast, actor)
    actor.lie_down(max(0.5, cast.onset - 3.0), height=height, depth=depth)
    return cast.onset, actor.now


@action("run", "normal", "a person runs through the room", weight=0.6)
def run(cast: Cast) -> Span:
    actor, start, _ = begin(cast)
    for _ in range(int(actor.rng.integers(1, 4))):
        actor.walk(cast.spot(actor, 2.0, 9.0), speed=actor.rng.uniform(2.3, 4.0))
    return start, actor.now


@action("jump", "normal", "a person jumps", weight=0.6)
def jump(cast: Cast) -> Span:
    actor, start, _ = begin(cast)
    actor.jump(int(actor.rng.integers(1, 5)))
    return start, actor.now


@action("exercise", "normal", "a person exercises", weight=0.9)
def exercise(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    actor.exercise(start + 2 + stay)
    return start, actor.now


@action("wave", "normal", "a person waves", weight=0.4)
def wave(cast: Cast) -> Span:
    actor, start, stay = begin(cast)
    actor.wave(start + 1.5 + stay / 2)
    return start, actor.now
