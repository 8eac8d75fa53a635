"""What happens: the kinds of clip, and who does what when.

    direct(kind, bodies, stage, rng, seconds) -> Plan: actors with their motion written, happenings, caption

Every plan opens with ordinary life (walking, standing, sitting, bending) and what it is named for comes at a time
spread evenly over the clip, so neither the opening nor speed alone tells the label. Rooms, cameras and light are drawn
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from familial.synth.bodies import Actor, Body, Floats
from familial.synth.scene import Place, Stage

__all__ = ["CAPTIONS", "KINDS", "LABELS", "SHARES", "Happening", "Plan", "direct", "draw_kind", "people_needed"]

LABELS = ("normal", "fall", "fight")
SHARES = (0.5, 0.3, 0.2)  # of each label, in clips whose label is drawn


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that takes place in a clip. For a fall, `start_s` is when balance is lost and `end_s` the impact."""

    label: str
    kind: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A directed clip: actors whose channels are written, what happens, where people lie after falls, a sentence."""

    actors: tuple[Actor, ...]
    happenings: tuple[Happening, ...]
    lying_s: tuple[tuple[float, float], ...]
    caption: str
    leads: int  # the first so many actors are those whom the happening is about
    props: tuple[str, ...] = ()  # what each actor carries: "", "bag" or "box"


@dataclass(frozen=True, slots=True)
class _Kind:
    label: str
    weight: float
    people: int  # at least so many
    caption: str


_TABLE: dict[str, _Kind] = {
    "walk": _Kind("normal", 1.2, 1, "a person walks about the room"),
    "stand": _Kind("normal", 0.6, 1, "a person stands and waits"),
    "sit": _Kind("normal", 1.3, 1, "a person sits down on a chair and stands up"),
    "sit_fast": _Kind("normal", 0.6, 1, "a person drops quickly onto a chair"),
    "bend": _Kind("normal", 1.2, 1, "a person bends down and picks something up"),
    "crouch": _Kind("normal", 1.0, 1, "a person crouches and stands up"),
    "sit_floor": _Kind("normal", 0.6, 1, "a person sits down on the floor"),
    "lie_down": _Kind("normal", 1.6, 1, "a person slowly lies down"),
    "lie_floor": _Kind("normal", 0.7, 1, "a person slowly lies down on the floor"),
    "get_up": _Kind("normal", 0.6, 1, "a person lies and then gets up"),
    "run": _Kind("normal", 0.6, 1, "a person runs through the room"),
    "jump": _Kind("normal", 0.6, 1, "a person jumps"),
    "exercise": _Kind("normal", 0.9, 1, "a person exercises"),
    "wave": _Kind("normal", 0.4, 1, "a person waves"),
    "talk": _Kind("normal", 0.9, 2, "two people stand and talk"),
    "hug": _Kind("normal", 1.1, 2, "two people hug"),
    "handshake": _Kind("normal", 0.9, 2, "two people shake hands"),
    "point": _Kind("normal", 0.6, 2, "a person points and another person looks"),
    "pass": _Kind("normal", 0.8, 2, "two people walk past each other"),
    "dance": _Kind("normal", 0.6, 2, "two people dance"),
    "crowd": _Kind("normal", 0.8, 5, "many people walk through the room"),
    "kneel": _Kind("normal", 0.6, 1, "a person kneels and stands up"),
    "crawl": _Kind("normal", 0.4, 1, "a person crawls on the floor"),
    "floor_exercise": _Kind("normal", 0.7, 1, "a person exercises on the floor"),
    "flop": _Kind("normal", 0.9, 1, "a person drops quickly onto a bed and lies"),
    "stumble": _Kind("normal", 0.7, 1, "a person trips while walking and walks on"),
    "carry": _Kind("normal", 0.6, 1, "a person carries something through the room"),
    "work": _Kind("normal", 0.6, 1, "a person works with the hands"),
    "smoke": _Kind("normal", 0.5, 1, "a person stands and smokes"),
    "loiter": _Kind("normal", 0.5, 1, "a person waits and walks about"),
    "near": _Kind("normal", 0.6, 1, "a person walks up to the camera"),
    "group_talk": _Kind("normal", 1.2, 3, "a group of people stand and talk"),
    "greet": _Kind("normal", 1.1, 3, "people meet, shake hands and hug"),
    "hand_over": _Kind("normal", 0.7, 2, "a person gives something to another person"),
    "help_up": _Kind("normal", 0.8, 2, "a person helps another person to get up"),
    "side_by_side": _Kind("normal", 0.7, 2, "two people walk together"),
    "queue": _Kind("normal", 0.6, 3, "people stand and wait"),
    "rush": _Kind("normal", 0.6, 3, "people run through the room"),
    "empty": _Kind("normal", 0.35, 0, "the room is empty"),
    "fall_forward": _Kind("fall", 1.2, 1, "a person falls forward and lies on the floor"),
    "fall_back": _Kind("fall", 1.2, 1, "a person falls backward and lies on the floor"),
    "fall_side": _Kind("fall", 1.2, 1, "a person falls sideways and lies on the floor"),
    "fall_trip": _Kind("fall", 1.0, 1, "a person trips while walking and falls to the floor"),
    "fall_chair": _Kind("fall", 0.9, 1, "a person falls from a chair and lies on the floor"),
    "fall_faint": _Kind("fall", 1.1, 1, "a person faints and lies on the floor"),
    "fall_slip": _Kind("fall", 0.9, 1, "a person slips while walking and falls backward"),
    "fall_knees": _Kind("fall", 0.9, 1, "a person sinks to the knees and falls to the floor"),
    "fall_bed": _Kind("fall", 0.6, 1, "a person falls from a bed and lies on the floor"),
    "fall_slump": _Kind("fall", 0.7, 1, "a person slowly sinks to the floor and lies there"),
    "fight_punch": _Kind("fight", 1.2, 2, "people fight with fists"),
    "fight_kick": _Kind("fight", 0.9, 2, "people fight and kick"),
    "fight_push": _Kind("fight", 0.9, 2, "people fight and push each other"),
    "fight_grapple": _Kind("fight", 1.1, 2, "people fight and hold each other"),
    "fight_floor": _Kind("fight", 0.8, 2, "two people fight on the floor"),
    "fight_beat": _Kind("fight", 0.8, 2, "a person beats another person"),
    "fight_chase": _Kind("fight", 0.5, 2, "a person runs after another person and they fight"),
    "fight_group": _Kind("fight", 0.9, 3, "a group of people fights"),
}

KINDS: dict[str, str] = {name: kind.label for name, kind in _TABLE.items()}
CAPTIONS: dict[str, str] = {name: kind.caption for name, kind in _TABLE.items()}


def draw_kind(rng: Generator, label: str) -> str:
    """A kind of `label`, drawn by the kinds' weights."""
    names = [n for n, k in _TABLE.items() if k.label == label]
    weights = np.array([_TABLE[n].weight for n in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def people_needed(kind: str) -> int:
    """How many people `kind` takes at least; 0 means that nobody may be there."""
    return _TABLE[kind].people


def direct(kind: str, bodies: list[Body], stage: Stage, rng: Generator, seconds: float) -> Plan:
    """Write the motion of `bodies` for a clip of `kind` that lasts `seconds`."""
    if kind == "empty":
        return Plan((), (Happening("normal", "empty", 0.0, seconds),), (), _TABLE[kind].caption, 0)
    cast = _Cast(bodies, stage, rng, seconds)
    label = KINDS[kind]
    act: Callable[[_Cast, str], tuple[float, float]]
    act = _fall if label == "fall" else _fight if label == "fight" else _DUOS.get(kind, _solo)
    start, end = act(cast, kind)
    for actor in cast.actors:
        _ordinary(cast, actor, seconds + 0.5)
    happenings = (Happening(label, kind, start, min(end, seconds)),)
    props = ["bag" if own.random() < 0.12 else "" for own in (np.random.default_rng([b.seed, 9]) for b in bodies)]
    props[0] = "box" if kind == "carry" else props[0]
    return Plan(
        tuple(cast.actors),
        happenings,
        tuple(cast.lying),
        _TABLE[kind].caption,
        min(2, people_needed(kind)),
        tuple(props),
    )


class _Cast:
    """The actors of one clip and what they share."""

    def __init__(self, bodies: list[Body], stage: Stage, rng: Generator, seconds: float) -> None:
        self.stage, self.rng, self.seconds = stage, rng, seconds
        self.onset = float(rng.uniform(2.5, seconds - 3.5))
        self.lying: list[tuple[float, float]] = []
        self.actors: list[Actor] = []
        order = rng.permutation(len(stage.spots))
        for i, body in enumerate(bodies):
            own = np.random.default_rng([int(rng.integers(1 << 31)), i])
            at = stage.spots[order[i % len(order)]] + own.uniform(-0.1, 0.1, 2)
            outside = len(stage.wings) and own.random() < 0.4
            if outside:
                at = stage.wings[own.integers(len(stage.wings))]
            actor = Actor(body, own, (float(at[0]), float(at[1])), float(own.uniform(0, 360)))
            if outside:  # comes in after a while
                actor.hold(own.exponential(0.5))
                actor.walk(self.spot(actor), until=self.onset)
            self.actors.append(actor)

    def spot(self, actor: Actor, low: float = 0.8, high: float = 6.0) -> Floats:
        """A place in view that the actor can walk to, between `low` and `high` metres off where there is one."""
        rng, spots = actor.rng, self.stage.spots
        away = np.hypot(*(spots - actor.place).T)
        good = np.flatnonzero((away > low) & (away < high))
        for i in rng.permutation(good)[:6]:
            if self.stage.clear(actor.place, spots[i]):
                return np.asarray(spots[i] + rng.uniform(-0.12, 0.12, 2))
        return np.asarray(spots[rng.integers(len(spots))])


# -- ordinary life -----------------------------------------------------------------------------------------------------


def _ordinary(cast: _Cast, actor: Actor, until: float) -> None:
    """Fill the actor's time to `until` with what people do, and end it on time."""
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
        elif choice == "sit" and _to_place(cast, actor, cast.stage.seat, until - 4.5):
            actor.sit(rng.uniform(0.5, max(0.6, until - actor.now - 3.2)))
        elif choice == "lie":
            actor.lie_down(rng.uniform(0.5, 3.0))


def _to_place(cast: _Cast, actor: Actor, place: Place, until: float, gap: float | None = None) -> bool:
    """Walk to before `place` and turn one's back to it; False where there is no way, or no time before `until`."""
    front = place.front(0.245 * actor.body.height + 0.02 if gap is None else gap)
    length = float(np.hypot(*(front - actor.place)))
    if length / (actor.body.pace * 0.85) + 2.0 > until - actor.now or not cast.stage.clear(actor.place, front):
        return False
    actor.walk(front)
    actor.face(place.yaw)
    return True


def _seated(cast: _Cast, actor: Actor, until: float) -> None:
    """Have the actor sit on the seat until `until`: from the start, or after some ordinary life."""
    seat = cast.stage.seat
    gap = 0.245 * actor.body.height + 0.02
    if actor.rng.random() < 0.5:
        _ordinary(cast, actor, until - actor.rng.uniform(5.0, 8.0))
    if actor.now == 0.0:
        actor.restart(seat.front(gap), seat.yaw)
    elif not _to_place(cast, actor, seat, until - 1.2):
        actor.walk(seat.front(gap), speed=2.0)
        actor.face(seat.yaw)
    actor.sit(max(0.4, until - actor.now - 1.1), rise=False)


def _solo(cast: _Cast, kind: str) -> tuple[float, float]:
    """One person does what the kind says at the onset; the others go on with their lives."""
    actor, rng, onset = cast.actors[0], cast.actors[0].rng, cast.onset
    place, gap = (cast.stage.seat, 0.245 * actor.body.height + 0.02)
    if kind in ("lie_down", "get_up", "flop"):
        place, gap = cast.stage.couch, cast.stage.couch.half + 0.1
    if kind in ("sit", "sit_fast", "lie_down", "get_up", "flop"):
        _ordinary(cast, actor, max(0.0, onset - rng.uniform(3.0, 5.0)))
        if kind == "get_up" or not _to_place(cast, actor, place, onset + 3.0, gap):
            # no way there: it begins there instead
            actor.restart(place.front(gap), place.yaw)
            actor.hold(rng.uniform(0.0, onset) if kind != "get_up" else 0.0)
    else:
        _ordinary(cast, actor, onset)
    start = actor.now
    stay = rng.uniform(1.0, 5.0)
    high = cast.stage.couch.height if cast.stage.couch.height > 0.3 else 0.0
    deep = max(0.0, cast.stage.couch.half + 0.1 - 0.245 * actor.body.height)
    if kind == "walk":
        actor.walk(cast.spot(actor, 1.5))
    elif kind == "stand":
        actor.phone(start + 2 + stay)
    elif kind == "sit":
        actor.sit(stay, down=rng.uniform(0.8, 1.5), rise=bool(rng.random() < 0.5))
        actor.hold(2.0)
    elif kind == "sit_fast":
        actor.sit(stay, down=rng.uniform(0.4, 0.65), rise=bool(rng.random() < 0.5))
    elif kind == "bend":
        for _ in range(int(rng.integers(1, 4))):
            actor.pick_up(quick=rng.uniform(0.9, 1.8))
    elif kind == "crouch":
        actor.crouch(stay)
    elif kind == "sit_floor":
        actor.go(rng.uniform(0.5, 1.0), "crouch", sho=20)
        actor.go(rng.uniform(0.4, 0.9), "sit_floor")
        actor.hold(stay)
        actor.go(0.8, "crouch")
        actor.go(0.9, "stand")
    elif kind in ("lie_down", "lie_floor"):
        actor.lie_down(
            stay + 2.0, height=high if kind == "lie_down" else 0.0, depth=deep, rise=bool(rng.random() < 0.4)
        )
        if actor.now < cast.seconds and actor.lies:
            actor.lie(cast.seconds + 0.5 - actor.now, still=0.5)
    elif kind == "get_up":
        actor.lie_down(max(0.5, onset - 3.0), height=high, depth=deep)
        start = onset
    elif kind == "run":
        for _ in range(int(rng.integers(1, 4))):
            actor.walk(cast.spot(actor, 2.0, 9.0), speed=rng.uniform(2.3, 4.0))
    elif kind == "jump":
        actor.jump(int(rng.integers(1, 5)))
    elif kind == "exercise":
        actor.exercise(start + 2 + stay)
    elif kind == "wave":
        actor.wave(start + 1.5 + stay / 2)
    elif kind == "crowd":
        for other in cast.actors:
            other.walk(cast.spot(other, 2.0, 9.0))
    else:
        _BUSY[kind](cast, actor, start + 1.5 + stay)
    return start, actor.now


def _kneel(cast: _Cast, actor: Actor, until: float) -> None:
    """Down on one knee or both, busy with a shoe or something on the floor, up again."""
    rng = actor.rng
    pose = str(rng.choice(["kneel", "half_kneel", "fours"]))
    actor.go(rng.uniform(0.5, 1.2), pose)
    while actor.now < until:
        actor.go(
            rng.uniform(0.3, 0.8),
            lean=rng.uniform(0, 30) if pose != "fours" else rng.uniform(-4, 4),
            sho_l=rng.uniform(20, 70) if pose != "fours" else 88,
            sho_r=rng.uniform(20, 80),
            elb_r=rng.uniform(10, 70),
            nod=rng.uniform(-10, 30),
        )
    actor.go(rng.uniform(0.7, 1.3), "stand")


def _crawl(cast: _Cast, actor: Actor, until: float) -> None:
    rng = actor.rng
    actor.go(rng.uniform(0.6, 1.0), "half_kneel")
    actor.go(rng.uniform(0.5, 0.9), "fours")
    speed, sign = rng.uniform(0.25, 0.7), 1.0
    while actor.now < until:
        sign = -sign
        beat = rng.uniform(0.35, 0.5)
        place = _inside(
            cast,
            actor.place
            + speed * beat * np.array([math.cos(math.radians(actor.yaw)), math.sin(math.radians(actor.yaw))]),
        )
        actor.go(
            beat,
            x=float(place[0]),
            y=float(place[1]),
            sho_l=88 + 18 * sign,
            sho_r=88 - 18 * sign,
            hip_l=86 - 14 * sign,
            hip_r=86 + 14 * sign,
            yaw=actor.yaw + rng.normal(0, 5),
        )
    actor.go(0.9, "half_kneel", pin=1)
    actor.go(0.9, "stand", pin=0.5)
    actor.go(0.1, "stand")


def _floor_exercise(cast: _Cast, actor: Actor, until: float) -> None:
    """Push-ups, sit-ups, or leg raises."""
    rng = actor.rng
    beat, kind = rng.uniform(0.4, 0.9), int(rng.integers(3))
    if kind == 0:
        actor.go(0.8, "half_kneel")
        actor.go(0.8, "fours")
        actor.go(0.7, "prone", sho=80, elb=5, arm=15, tip_f=72)
        while actor.now < until:
            actor.go(beat, elb=75, sho=45, tip_f=86)
            actor.go(beat, elb=5, sho=80, tip_f=72)
        actor.go(0.7, "fours")
        actor.go(0.8, "half_kneel", pin=1)
    else:
        actor.go(0.8, "crouch", sho=20)
        actor.go(0.7, "sit_floor", pin=1)
        actor.go(0.9, "supine", hip=45, knee=80)
        while actor.now < until:
            if kind == 1:
                actor.go(beat, lean=62, sho=70)
                actor.go(beat, lean=0, sho=20)
            else:
                actor.go(beat, hip=80, knee=10)
                actor.go(beat, hip=15, knee=10)
        actor.go(0.8, "sit_floor", pin=1)
        actor.go(0.8, "crouch", pin=1)
    actor.go(0.9, "stand", pin=0.5)
    actor.go(0.1, "stand")


def _flop(cast: _Cast, actor: Actor, until: float) -> None:
    """Drop onto the bed, sofa or mat that stands behind, fast, and lie there."""
    couch = cast.stage.couch
    high = couch.height if couch.height > 0.3 else 0.0
    deep = max(0.0, couch.half + 0.1 - 0.245 * actor.body.height)
    actor.lie_down(max(1.0, until - actor.now), height=high, depth=deep, rise=bool(actor.rng.random() < 0.3), quick=2.2)
    if actor.lies:
        actor.lie(max(0.1, cast.seconds + 0.5 - actor.now), still=0.4)


def _stumble(cast: _Cast, actor: Actor, until: float) -> None:
    """Trip or sway while walking, catch oneself within a step or two, and go on."""
    rng = actor.rng
    for _ in range(int(rng.integers(1, 3))):
        actor.walk(cast.spot(actor, 1.5), until=actor.now + rng.uniform(0.8, 2.0), stop=False)
        actor.go(
            rng.uniform(0.18, 0.35),
            None,
            actor.shift(rng.uniform(0.2, 0.5)),
            lean=rng.uniform(25, 55),
            arm=rng.uniform(20, 60),
            sho=rng.uniform(20, 80),
            hip_l=rng.uniform(20, 50),
            knee_l=rng.uniform(20, 50),
            side=rng.uniform(-15, 15),
            ease="fast",
        )
        actor.go(
            rng.uniform(0.2, 0.4),
            None,
            actor.shift(rng.uniform(0.1, 0.4)),
            lean=rng.uniform(5, 25),
            arm=rng.uniform(15, 40),
            side=rng.uniform(-10, 10),
        )
        actor.go(rng.uniform(0.3, 0.6), "stand")
    actor.walk(cast.spot(actor, 1.0))


def _carry(cast: _Cast, actor: Actor, until: float) -> None:
    rng = actor.rng
    actor.go(0.7, "squat_reach" if rng.random() < 0.5 else "bend")
    while actor.now < until:
        high, bend = rng.uniform(15, 45), rng.uniform(60, 95)
        actor.go(0.6, "stand", sho=high, elb=bend, arm=14, lean=rng.uniform(-8, 6))
        goal = cast.spot(actor, 1.2)
        away, far = goal - actor.place, float(np.hypot(*(goal - actor.place)))
        actor.face(math.degrees(math.atan2(away[1], away[0])))
        actor.go(far / rng.uniform(0.6, 1.1) + 0.3, x=float(goal[0]), y=float(goal[1]), ease="even")
    actor.go(0.7, "bend")
    actor.go(0.8, "stand")


def _work(cast: _Cast, actor: Actor, until: float) -> None:
    """Mop, sweep, wipe, stack, cook: bent a little, the arms in rhythm, a step now and then."""
    rng = actor.rng
    lean, beat, high = rng.uniform(5, 48), rng.uniform(0.3, 0.8), rng.uniform(30, 100)
    while actor.now < until:
        for sign in (1.0, -1.0):
            step = _inside(cast, actor.place + rng.normal(0, 0.06, 2))
            actor.go(
                beat,
                "stand",
                lean=lean + rng.uniform(-6, 6),
                sho=high + 18 * sign,
                elb=35 - 20 * sign,
                twist=20 * sign,
                nod=rng.uniform(5, 25),
                x=float(step[0]),
                y=float(step[1]),
            )
        if rng.random() < 0.25:
            actor.go(0.5, yaw=actor.yaw + rng.uniform(-60, 60))
    actor.go(0.5, "stand")


def _smoke(cast: _Cast, actor: Actor, until: float) -> None:
    """Stand, and bring a hand to the mouth and back, again and again."""
    rng = actor.rng
    s, o = ("_l", "_r") if rng.random() < 0.5 else ("_r", "_l")
    while actor.now < until + 3.0:
        actor.go(
            rng.uniform(0.4, 0.7),
            None,
            {
                "sho" + s: rng.uniform(48, 62),
                "elb" + s: rng.uniform(122, 140),
                "arm" + s: rng.uniform(-4, 8),
                "nod": rng.uniform(-2, 8),
            },
        )
        actor.hold(rng.uniform(0.5, 1.3))
        actor.go(
            rng.uniform(0.4, 0.8),
            None,
            {
                "sho" + s: rng.uniform(0, 25),
                "elb" + s: rng.uniform(20, 85),
                "sho" + o: rng.uniform(0, 20),
                "nod": rng.uniform(-18, 4),
            },
        )
        actor.hold(rng.uniform(0.3, 1.5))
        if rng.random() < 0.2:
            actor.face(actor.yaw + rng.uniform(-50, 50))
    actor.go(0.4, "stand")


def _loiter(cast: _Cast, actor: Actor, until: float) -> None:
    """Stay about one place, a few steps to and fro, looking round."""
    rng, home = actor.rng, actor.place
    while actor.now < max(until, cast.seconds - 1.0):
        actor.hold(rng.uniform(0.4, 2.0))
        actor.go(0.4, nod=rng.uniform(-8, 20), twist=rng.uniform(-35, 35))
        goal = home + rng.normal(0, 0.7, 2)
        if cast.stage.clear(actor.place, goal):
            actor.walk(_inside(cast, goal), speed=actor.body.pace * rng.uniform(0.5, 0.9))


def _near(cast: _Cast, actor: Actor, until: float) -> None:
    """Walk to where one is seen largest, and away again."""
    stage = cast.stage
    close = stage.spots[np.argsort(np.hypot(*(stage.spots - stage.eye).T))[:6]]
    actor.walk(close[actor.rng.integers(len(close))])
    if actor.rng.random() < 0.5:
        actor.gesture(until, actor.rng.uniform(0, 1))
        actor.go(0.2, "stand")
    actor.walk(cast.spot(actor, 1.5))


_BUSY: dict[str, Callable[[_Cast, Actor, float], None]] = {
    "kneel": _kneel,
    "crawl": _crawl,
    "floor_exercise": _floor_exercise,
    "flop": _flop,
    "stumble": _stumble,
    "carry": _carry,
    "work": _work,
    "smoke": _smoke,
    "loiter": _loiter,
    "near": _near,
}


# -- two people, friendly ----------------------------------------------------------------------------------------------


def _meet(cast: _Cast, gap: float, pace: float | None = None) -> tuple[Actor, Actor]:
    """Bring the first two actors face to face, `gap` metres apart, at about the onset."""
    a, b = cast.actors[:2]
    # they keep within reach of each other, so that the meeting comes on time
    near = cast.stage.spots[np.argsort(np.hypot(*(cast.stage.spots - a.place).T))[: max(6, len(cast.stage.spots) // 3)]]
    spot = near[cast.rng.integers(len(near))]
    way = cast.rng.uniform(0, 2 * math.pi)
    half = 0.5 * gap * np.array([math.cos(way), math.sin(way)])
    for actor, sign in ((a, -1.0), (b, 1.0)):
        _ordinary(cast, actor, cast.onset - cast.rng.uniform(2.0, 4.0))
        goal = spot + sign * half
        # they come from their own sides
        if (actor.place - spot) @ half * sign < 0:
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


def _part(cast: _Cast, a: Actor, b: Actor) -> None:
    for actor in (a, b):
        actor.go(0.5, "stand")
        if cast.rng.random() < 0.7:
            actor.walk(cast.spot(actor, 1.0))


def _talk(cast: _Cast, kind: str) -> tuple[float, float]:
    a, b = _meet(cast, cast.rng.uniform(0.6, 1.3))
    start = a.now
    stop = start + cast.rng.uniform(3.0, 8.0)
    for actor in (a, b):
        actor.gesture(stop, cast.rng.uniform(0.4, 1.2))
    _part(cast, a, b)
    return start, stop


def _hug(cast: _Cast, kind: str) -> tuple[float, float]:
    a, b = _meet(cast, 0.62)
    start = a.now
    stop = start + cast.rng.uniform(1.5, 5.0)
    for actor, high in ((a, 72.0), (b, 52.0)):
        actor.go(0.5, None, actor.shift(0.08), sho=high, elb=20, arm=22)
        actor.go(0.4, None, actor.shift(0.06), sho=high, elb=70, arm=20, lean=9)
        while actor.now < stop - 0.4:
            actor.go(0.22, elb_r=cast.rng.uniform(55, 85), side=cast.rng.uniform(-4, 4))
        actor.hold_until(stop)
    _part(cast, a, b)
    return start, stop


def _handshake(cast: _Cast, kind: str) -> tuple[float, float]:
    a, b = _meet(cast, 0.85)
    start = a.now
    beats = int(cast.rng.integers(3, 9))
    for actor in (a, b):
        actor.go(0.5, sho_r=42, elb_r=38, arm_r=-4, lean=8)
        for _ in range(beats):
            actor.go(0.16, sho_r=50)
            actor.go(0.16, sho_r=38)
    stop = a.now
    _part(cast, a, b)
    return start, stop


def _point(cast: _Cast, kind: str) -> tuple[float, float]:
    a, b = _meet(cast, cast.rng.uniform(0.8, 1.6))
    start, turn = a.now, cast.rng.uniform(-60, 60)
    for actor, high in ((a, 88.0), (b, 6.0)):
        actor.go(0.35, yaw=actor.yaw + turn * (1 if actor is a else -1), sho_r=high, elb_r=4, arm_r=8)
        actor.hold(cast.rng.uniform(0.8, 2.5))
        actor.gesture(start + 4.0, 0.8)
    _part(cast, a, b)
    return start, start + 4.0


def _pass(cast: _Cast, kind: str) -> tuple[float, float]:
    a, b = _meet(cast, cast.rng.uniform(2.0, 3.0))
    start = a.now
    ends = a.place, b.place
    across = ends[1] - ends[0]
    aside = 0.28 * np.array([-across[1], across[0]]) / max(0.1, float(np.hypot(*across)))
    speed = cast.rng.uniform(0.8, 2.4)
    a.walk(ends[1] + aside, speed=speed)
    b.walk(ends[0] - aside, speed=speed)
    return start, max(a.now, b.now)


def _dance(cast: _Cast, kind: str) -> tuple[float, float]:
    a, b = _meet(cast, cast.rng.uniform(0.7, 1.1))
    start, beat = a.now, cast.rng.uniform(0.35, 0.6)
    stop = start + cast.rng.uniform(4.0, 8.0)
    together = cast.rng.random() < 0.5
    for actor in (a, b):
        home, sign = actor.place, 1.0
        while actor.now < stop:
            sign = -sign
            high = 70.0 if together else cast.rng.uniform(0, 120)
            actor.go(
                beat,
                sho_l=high,
                sho_r=high * 0.9,
                elb=50,
                side=7 * sign,
                twist=10 * sign,
                hip_l=10 + 12 * sign,
                knee_l=15 + 12 * sign,
                knee_r=15 - 12 * sign,
                hip_r=10 - 12 * sign,
                x=home[0] + 0.09 * sign,
                y=home[1] - 0.09 * sign,
            )
    _part(cast, a, b)
    return start, stop


def _ring(cast: _Cast, actors: list[Actor], gap: float, by: float) -> Floats:
    """Bring `actors` into a ring about a spot, facing its middle, at about `by` seconds; returns the middle."""
    rng = cast.rng
    middle = cast.stage.spots[rng.integers(len(cast.stage.spots))]
    radius, first = gap / (2 * math.sin(math.pi / max(2, len(actors)))), rng.uniform(0, 2 * math.pi)
    for i, actor in enumerate(actors):
        _ordinary(cast, actor, by - rng.uniform(1.5, 4.0))
        turn = first + 2 * math.pi * i / len(actors) + rng.normal(0, 0.15)
        goal = middle + radius * np.array([math.cos(turn), math.sin(turn)])
        actor.walk(goal, speed=rng.uniform(0.9, 2.0))
        away = middle - actor.place
        actor.face(math.degrees(math.atan2(away[1], away[0])))
    return np.asarray(middle)


def _group_talk(cast: _Cast, kind: str) -> tuple[float, float]:
    """A ring of people who talk with their hands, some of them lively; one may come late or leave."""
    rng = cast.rng
    actors = cast.actors[: int(rng.integers(3, max(4, len(cast.actors) + 1)))]
    _ring(cast, actors, rng.uniform(0.55, 1.0), cast.onset)
    start = max(a.now for a in actors[:2])
    for actor in actors:
        actor.gesture(start + rng.uniform(3.0, 9.0), rng.uniform(0.2, 1.6))
        actor.go(0.3, "stand")
        if rng.random() < 0.4:
            actor.walk(cast.spot(actor, 1.0))
    return start, actors[0].now


def _greet(cast: _Cast, kind: str) -> tuple[float, float]:
    """People come together; two at a time shake hands, clap hands or shoulders, or embrace."""
    rng = cast.rng
    actors = cast.actors[: int(rng.integers(3, max(4, min(5, len(cast.actors)) + 1)))]
    middle = _ring(cast, actors, rng.uniform(0.7, 1.0), cast.onset)
    start = max(a.now for a in actors[:2])
    for actor in actors:
        actor.hold_until(start)
    for i in range(1, len(actors)):
        one, other = actors[int(rng.integers(i))], actors[i]
        _level(one, other)
        quick = rng.uniform(0.2, 0.5)
        for actor, sign in ((one, 1.0), (other, -1.0)):
            _, heading, gap = _way(one, other)
            goal = actor.place + sign * 0.5 * max(0.0, gap - 0.6) * _way(one, other)[0]
            actor.go(
                0.5,
                "stand",
                x=float(goal[0]),
                y=float(goal[1]),
                yaw=_turned_to(actor, heading + (0 if sign > 0 else 180)),
            )
        does = rng.choice(["shake", "clap", "embrace"])
        for actor in (one, other):
            if does == "shake":
                actor.go(quick, sho_r=45, elb_r=38, arm_r=-4, lean=6)
                for _ in range(3):
                    actor.go(0.15, sho_r=52)
                    actor.go(0.15, sho_r=40)
            elif does == "clap":
                actor.go(quick, sho_r=rng.uniform(70, 130), elb_r=rng.uniform(20, 60), lean=4, ease="fast")
                actor.go(0.2, sho_r=60)
            else:
                actor.go(quick + 0.2, sho=70, elb=55, arm=20, lean=10)
                for _ in range(int(rng.integers(1, 4))):
                    actor.go(0.2, elb_r=80)
                    actor.go(0.2, elb_r=55)
            actor.go(0.4, "stand")
        _beside(cast, other, middle, float(rng.uniform(0.4, 0.7)), 0.9)
    for actor in actors:
        actor.gesture(actor.now + rng.uniform(0.5, 3.0), rng.uniform(0.2, 1.2))
        actor.go(0.3, "stand")
    return start, actors[0].now


def _level(*actors: Actor) -> None:
    for actor in actors:
        actor.hold_until(max(a.now for a in actors))


def _hand_over(cast: _Cast, kind: str) -> tuple[float, float]:
    """One holds something out, the other takes it; they do it again, or look at it together."""
    a, b = _meet(cast, cast.rng.uniform(0.7, 1.0))
    start = a.now
    for _ in range(int(cast.rng.integers(1, 4))):
        a, b = (b, a) if cast.rng.random() < 0.5 else (a, b)
        _level(a, b)
        for actor in (a, b):
            actor.go(0.5, sho=cast.rng.uniform(45, 65), elb=cast.rng.uniform(20, 45), lean=8)
            actor.hold(0.3)
            actor.go(0.4, sho=25, elb=85 if actor is b else 15, lean=2)
        b.gesture(b.now + cast.rng.uniform(0.3, 1.5), 0.5)
    stop = max(a.now, b.now)
    _part(cast, a, b)
    return start, stop


def _help_up(cast: _Cast, kind: str) -> tuple[float, float]:
    """One sits or crouches on the floor; the other comes, bends down, takes the hands and pulls."""
    a, b = cast.actors[:2]
    rng = cast.rng
    _ordinary(cast, a, cast.onset - rng.uniform(2.5, 4.0))
    a.go(0.9, "crouch", sho=20)
    if rng.random() < 0.6:
        a.go(0.7, "sit_floor")
    _ordinary(cast, b, cast.onset - 1.5)
    _beside(cast, b, a.place, 0.75, rng.uniform(1.0, 2.2))
    _level(a, b)
    start = a.now
    _, heading, _ = _way(b, a)
    b.go(0.7, "stand", lean=50, sho=70, elb=15, knee=25, hip=15, yaw=_turned_to(b, heading))
    a.go(0.7, sho=75, elb=10, yaw=_turned_to(a, heading + 180))
    pull = float(rng.uniform(0.6, 1.2))
    a.go(pull, "stand", sho=55, elb=25, lean=15)
    b.go(pull, "stand", sho=50, elb=40, lean=5)
    for actor in (a, b):
        actor.gesture(actor.now + rng.uniform(0.5, 2.0), 0.4)
    _part(cast, a, b)
    return start, b.now


def _side_by_side(cast: _Cast, kind: str) -> tuple[float, float]:
    """Two walk together, arm in arm or a step apart."""
    a, b = _meet(cast, cast.rng.uniform(0.45, 0.8))
    start = a.now
    for _ in range(int(cast.rng.integers(1, 4))):
        beside, goal = b.place - a.place, cast.spot(a, 1.5)
        speed = float(cast.rng.uniform(0.7, 1.4))
        a.walk(goal, speed=speed)
        b.walk(_inside(cast, goal + beside), speed=speed)
        _level(a, b)
    return start, a.now


def _queue(cast: _Cast, kind: str) -> tuple[float, float]:
    """People stand in a line and move up."""
    rng, turn = cast.rng, cast.rng.uniform(0, 2 * math.pi)
    way = rng.uniform(0.5, 0.8) * np.array([math.cos(turn), math.sin(turn)])
    head = cast.stage.spots[rng.integers(len(cast.stage.spots))]
    for i, actor in enumerate(cast.actors):
        _ordinary(cast, actor, cast.onset - rng.uniform(2.0, 4.0))
        actor.walk(_inside(cast, head + i * way))
        actor.face(math.degrees(turn) + 180)
        while actor.now < cast.onset + 4.0:
            actor.gesture(actor.now + rng.uniform(0.5, 2.5), rng.uniform(0, 0.5))
            if rng.random() < 0.4:
                actor.walk(_inside(cast, actor.place - 0.3 * way), speed=0.6)
    return cast.onset, cast.onset + 4.0


def _rush(cast: _Cast, kind: str) -> tuple[float, float]:
    """Several run, one after another or at once, without harm: late, or at play."""
    for actor in cast.actors:
        _ordinary(cast, actor, cast.onset + cast.rng.uniform(-0.5, 1.0))
    goal = cast.spot(cast.actors[0], 2.0, 9.0)
    for actor in cast.actors[: int(cast.rng.integers(2, len(cast.actors) + 1))]:
        actor.walk(_inside(cast, goal + cast.rng.normal(0, 0.6, 2)), speed=cast.rng.uniform(2.3, 4.0))
        if cast.rng.random() < 0.6:
            actor.walk(cast.spot(actor, 2.0, 9.0), speed=cast.rng.uniform(1.5, 3.8))
    return cast.onset, cast.actors[0].now


_DUOS: dict[str, Callable[[_Cast, str], tuple[float, float]]] = {
    "talk": _talk,
    "hug": _hug,
    "handshake": _handshake,
    "point": _point,
    "pass": _pass,
    "dance": _dance,
    "group_talk": _group_talk,
    "greet": _greet,
    "hand_over": _hand_over,
    "help_up": _help_up,
    "side_by_side": _side_by_side,
    "queue": _queue,
    "rush": _rush,
}


# -- falls -------------------------------------------------------------------------------------------------------------

_WAYS = {
    "fall_forward": (0.0,),
    "fall_back": (180.0,),
    "fall_side": (90.0, -90.0),
    "fall_trip": (0.0,),
    "fall_chair": (0.0, 90.0, -90.0),
    "fall_faint": (0.0, 60.0, 90.0, -60.0, -90.0, 180.0),
    "fall_slip": (180.0, 150.0, -150.0),
    "fall_knees": (0.0, 40.0, -40.0),
    "fall_bed": (180.0,),
    "fall_slump": (90.0, -90.0),
}


def _fall(cast: _Cast, kind: str) -> tuple[float, float]:
    """The first actor falls at the onset and lies; some get up, and others may come to help."""
    actor, rng, onset = cast.actors[0], cast.actors[0].rng, cast.onset
    momentum = 0.0
    if kind == "fall_chair":
        _seated(cast, actor, onset)
    elif kind == "fall_bed":
        return _from_bed(cast, actor)
    else:
        _ordinary(cast, actor, onset - rng.uniform(1.0, 2.5))
        if kind in ("fall_trip", "fall_slip") or rng.random() < 0.4:
            actor.walk(cast.spot(actor, 2.5, 7.0), until=onset, stop=False)
            momentum = actor.body.pace * (0.9 if kind in ("fall_trip", "fall_slip") else rng.uniform(0.1, 0.7))
        else:
            actor.gesture(onset, 0.3)
        actor.hold_until(onset)
    if kind in ("fall_forward", "fall_back", "fall_side", "fall_slump") and momentum == 0.0:
        actor.face(actor.yaw + rng.uniform(-25, 25), 0.3)
    way = _open_way(cast, actor, _WAYS[kind])
    style = {"fall_faint": "fold", "fall_slump": "slump", "fall_slip": "slip", "fall_knees": "knees"}.get(kind, "tip")
    start, impact = actor.fall(way, style=style, momentum=momentum)
    return _after_fall(cast, actor, start, impact)


def _from_bed(cast: _Cast, actor: Actor) -> tuple[float, float]:
    """Lies on the bed from the beginning, and rolls over its edge at the onset."""
    couch, rng = cast.stage.couch, actor.rng
    high = couch.height if couch.height > 0.3 else 0.0
    deep = max(0.0, couch.half + 0.1 - 0.245 * actor.body.height)
    actor.restart(couch.front(couch.half + 0.1), couch.yaw)
    if rng.random() < 0.6:  # sits on the edge, and slides or tips off it
        actor.sit(max(0.5, cast.onset - 1.5), rise=False)
        actor.go(0.3, lean=30, nod=20)
        start, impact = actor.fall(float(rng.uniform(-70, 70)))
    else:
        actor.lie_down(max(0.3, cast.onset - 4.0), height=high, depth=deep, rise=False)
        start = actor.now
        edge = actor.shift(0.0, -(deep + rng.uniform(0.2, 0.5)))
        side = float(rng.uniform(-140, -70))
        actor.go(rng.uniform(0.35, 0.7), None, edge, spin=actor.spin + side, hip=40, knee=50, sho=60)
        actor.go(math.sqrt(2 * max(0.05, high) / 9.81), lift=0.0, ease="drop")
        impact = actor.now
        actor.go(0.4, hip_l=20, knee_l=45, sho_l=40, spin=actor.spin + rng.uniform(-20, 20))
    return _after_fall(cast, actor, start, impact)


def _after_fall(cast: _Cast, actor: Actor, start: float, impact: float) -> tuple[float, float]:
    """Lie, or get up again after a while; others may come to help."""
    rng = actor.rng
    rises = rng.random() < 0.2
    lying = actor.now
    if rises:
        actor.lie(rng.uniform(1.5, 4.0), still=0.3)
        cast.lying.append((impact, min(actor.now, cast.seconds)))
        actor.get_up()
    else:
        actor.lie(max(0.5, cast.seconds + 0.5 - lying), still=0.6)
        cast.lying.append((impact, cast.seconds))
    for other in cast.actors[1:]:
        _ordinary(cast, other, impact + rng.uniform(0.5, 2.0))
        if rng.random() < 0.35:  # comes to help
            away = other.place - actor.place
            beside = actor.place + 0.6 * away / max(0.3, float(np.hypot(*away)))
            other.walk(beside, speed=rng.uniform(1.2, 2.4))
            other.crouch(rng.uniform(1.5, 4.0))
    return start, impact


def _open_way(cast: _Cast, actor: Actor, ways: tuple[float, ...]) -> float:
    """Of the directions `ways` (degrees from the heading) the one, a little varied, with most room in view."""
    options = [float(w + actor.rng.uniform(-18, 18)) for w in ways for _ in range(3)]

    def cost(way: float) -> float:
        a = math.radians(actor.yaw + way)
        ahead = np.array([math.cos(a), math.sin(a)])
        return sum(cast.stage.near(actor.place + r * ahead) for r in (0.7, 1.4)) + float(actor.rng.uniform(0, 0.3))

    return min(options, key=cost)


# -- fights ------------------------------------------------------------------------------------------------------------

# how often a fight of a kind turns to what
_TURNS: dict[str, dict[str, float]] = {
    "fight_punch": {"blows": 7, "shove": 2, "lull": 1.5, "grapple": 1, "kick": 0.5},
    "fight_kick": {"kick": 6, "blows": 2, "shove": 1, "lull": 1.5},
    "fight_push": {"shove": 7, "blows": 1, "lull": 1.5, "grapple": 1},
    "fight_grapple": {"grapple": 8, "shove": 1, "blows": 1.5},
    "fight_floor": {"blows": 2, "grapple": 2, "shove": 1},
    "fight_beat": {"blows": 5, "kick": 2, "shove": 2},
    "fight_chase": {"chase": 3, "blows": 3, "shove": 3, "kick": 1},
    "fight_group": {"blows": 4, "kick": 2, "shove": 3, "grapple": 3, "lull": 0.7},
}


def _fight(cast: _Cast, kind: str) -> tuple[float, float]:
    """Two or more come together and fight until near the end of the clip, or break off; the others watch or step in."""
    rng = cast.rng
    a, b = _meet(cast, rng.uniform(0.5, 1.0), None if rng.random() < 0.7 else rng.uniform(1.8, 3.2))
    count = 2 if kind != "fight_group" else min(len(cast.actors), int(rng.integers(3, 6)))
    fighters = [a, b, *cast.actors[2:count]]
    start = a.now
    stop = min(cast.seconds + 0.3, start + rng.uniform(3.0, 12.0))
    for other in fighters[2:]:  # the others join in
        _ordinary(cast, other, start + rng.uniform(-2.0, 0.5))
        _beside(cast, other, 0.5 * (a.place + b.place), 0.8, rng.uniform(1.5, 3.5))
    names = list(_TURNS[kind])
    odds = np.array([_TURNS[kind][n] for n in names])
    grounded = start + rng.uniform(0.8, 3.5) if kind == "fight_floor" or rng.random() < 0.12 else math.inf
    strong = fighters[int(rng.integers(2))]
    while min(f.now for f in fighters) < stop and not any(f.lies for f in fighters):
        one, *rest = sorted(fighters, key=lambda f: f.now)
        other = min(rest, key=lambda f: float(np.hypot(*(f.place - one.place))) + 0.6 * abs(f.now - one.now))
        if kind == "fight_beat" or rng.random() < 0.3:
            one, other = (one, other) if other is not strong else (other, one)
        elif rng.random() < 0.5:
            one, other = other, one
        _together(one, other)
        if one.now > grounded:
            _on_the_floor(cast, one, other, stop)
        else:
            _EXCHANGES[str(rng.choice(names, p=odds / odds.sum()))](cast, one, other)
    for other in cast.actors[count:]:
        _bystand(cast, other, fighters, start, stop)
    for fighter in fighters:
        if fighter.lies and rng.random() < 0.6:
            fighter.lie(max(0.1, cast.seconds + 0.5 - fighter.now), still=0.4)
        elif fighter.lies:
            fighter.get_up()
        else:
            fighter.go(0.4, "stand")
            if rng.random() < 0.5:
                fighter.walk(cast.spot(fighter, 1.0), speed=rng.uniform(1.0, 3.5))
    return start, min(max(f.now for f in fighters) if stop > cast.seconds else stop, cast.seconds)


def _together(*actors: Actor) -> None:
    """Those who are ahead in time wait for nobody: those behind shift from foot to foot until all are level."""
    now = max(a.now for a in actors)
    for actor in actors:
        while now - actor.now > 0.45:
            actor.go(0.4, "guard", {k: v for k, v in _blow("guard", actor.rng).items() if not actor.lies} or None)
        actor.hold_until(now)


def _beside(cast: _Cast, actor: Actor, point: Floats, gap: float, speed: float) -> None:
    """Walk up to `point`, to within `gap` metres, and face it."""
    away = actor.place - point
    goal = point + gap * away / max(0.2, float(np.hypot(*away)))
    actor.walk(goal, speed=speed)
    away = point - actor.place
    actor.face(math.degrees(math.atan2(away[1], away[0])), 0.3)


def _bystand(cast: _Cast, actor: Actor, fighters: list[Actor], start: float, stop: float) -> None:
    """One who is there while others fight: goes on with life, watches, backs off, runs, or tries to part them."""
    rng = actor.rng
    _ordinary(cast, actor, start + rng.uniform(-1.0, 1.5))
    centre = 0.5 * (fighters[0].place + fighters[1].place)
    does = rng.choice(["life", "watch", "off", "part"], p=[0.3, 0.4, 0.15, 0.15])
    if does == "watch":
        _beside(cast, actor, centre, rng.uniform(1.3, 3.0), rng.uniform(0.8, 2.0))
        actor.gesture(max(actor.now, stop - rng.uniform(0, 2)), rng.uniform(0.1, 1.2))
        actor.go(0.3, "stand")
    elif does == "off":
        actor.walk(cast.spot(actor, 1.5), speed=rng.uniform(1.8, 3.5))
    elif does == "part":
        actor.hold(rng.uniform(0.3, 2.0))
        _beside(cast, actor, centre, 0.55, rng.uniform(1.5, 2.8))
        while actor.now < stop - 0.3:
            actor.go(rng.uniform(0.3, 0.6), "stand", _blow("grab" if rng.random() < 0.6 else "push", rng))
        actor.go(0.3, "stand")


def _way(one: Actor, other: Actor) -> tuple[Floats, float, float]:
    """Unit vector from one to the other, its heading in degrees, and the gap in metres."""
    away = other.place - one.place
    gap = float(np.hypot(*away))
    if gap < 0.05:
        away, gap = np.array([math.cos(math.radians(one.yaw)), math.sin(math.radians(one.yaw))]), 0.05
    return away / gap, math.degrees(math.atan2(away[1], away[0])), gap


def _turned_to(actor: Actor, heading: float) -> float:
    return actor.yaw + (heading - actor.yaw + 180) % 360 - 180


def _step(cast: _Cast, actor: Actor, place: Floats, heading: float) -> dict[str, float]:
    goal = _inside(cast, place)
    return {"x": float(goal[0]), "y": float(goal[1]), "yaw": _turned_to(actor, heading)}


def _blows(cast: _Cast, one: Actor, other: Actor, move: str = "punch") -> None:
    """One strikes, the other is hit, shields, ducks, steps back or strikes back."""
    rng = cast.rng
    style = rng.choice(["hit", "guard", "duck", "punch"], p=[0.4, 0.25, 0.1, 0.25])
    for _ in range(int(rng.integers(1, 5))):
        along, heading, gap = _way(one, other)
        seconds = float(rng.uniform(0.13, 0.32))
        reach = float(rng.uniform(0.4, 0.62) if move == "punch" else rng.uniform(0.65, 0.9))
        close = np.clip(gap - reach, -0.25, 0.45) * along
        back = rng.uniform(-0.05, 0.22 if style != "punch" else 0.05) * along + rng.normal(0, 0.05, 2)
        one.go(
            seconds,
            "guard" if move == "punch" else "stand",
            _blow(move, one.rng) | _step(cast, one, one.place + close, heading),
            ease="fast",
        )
        other.go(
            seconds,
            "crouch" if style == "duck" else "guard",
            _blow("guard" if style == "duck" else str(style), other.rng)
            | _step(cast, other, other.place + back, heading + 180 + rng.normal(0, 15)),
            ease="fast",
        )
        pause = float(rng.uniform(0.08, 0.3))
        one.go(pause, "guard", _blow("guard", one.rng))
        other.go(pause, "guard", _blow("guard" if rng.random() < 0.7 else "hit", other.rng))


def _kicks(cast: _Cast, one: Actor, other: Actor) -> None:
    _blows(cast, one, other, "kick")


def _shove(cast: _Cast, one: Actor, other: Actor) -> None:
    """One pushes with both hands; the other staggers back, and sometimes comes back at once."""
    rng = cast.rng
    along, heading, gap = _way(one, other)
    lunge = float(rng.uniform(0.15, 0.3))
    close = np.clip(gap - 0.45, -0.2, 0.6) * along
    one.go(lunge, "guard", _blow("push", one.rng) | _step(cast, one, one.place + close, heading), ease="fast")
    other.go(lunge, "guard", _blow("guard", other.rng))
    far, seconds = rng.uniform(0.25, 1.3), float(rng.uniform(0.35, 0.8))
    back = other.place + far * along + rng.normal(0, 0.12, 2)
    values = _blow("hit", other.rng) | _step(cast, other, back, heading + 180 + rng.normal(0, 35))
    other.go(seconds, "stand", values | {"lean": float(rng.uniform(-24, 5))}, ease="fast")
    chase = rng.random() < 0.6
    follow = one.place + (far * rng.uniform(0.4, 0.9) if chase else 0.0) * along
    one.go(seconds, "guard" if chase else "stand", _blow("guard", one.rng) | _step(cast, one, follow, heading))
    if rng.random() < 0.4:
        other.go(0.3, "stand")
        one.go(0.3, "stand", arm_l=float(rng.uniform(10, 45)), sho_r=float(rng.uniform(10, 100)), elb_r=30)


def _grapple(cast: _Cast, one: Actor, other: Actor) -> None:
    """Both hold on, pull and turn about each other."""
    rng = cast.rng
    spin, radius = rng.normal(0, 60), float(rng.uniform(0.17, 0.3))
    drift = rng.normal(0, 0.35, 2)
    centre = 0.5 * (one.place + other.place)
    _, heading, _ = _way(one, other)
    for _ in range(int(rng.integers(3, 9))):
        seconds = float(rng.uniform(0.16, 0.42))
        spin = float(np.clip(0.8 * spin + rng.normal(0, 50), -160, 160))
        heading += spin * seconds
        centre = _inside(cast, centre + drift * seconds + rng.normal(0, 0.04, 2))
        half = radius * np.array([math.cos(math.radians(heading)), math.sin(math.radians(heading))])
        for actor, sign in ((one, -1.0), (other, 1.0)):
            place = centre + sign * half
            values = _blow("grab" if rng.random() < 0.85 else "punch", actor.rng)
            values |= {"x": float(place[0]), "y": float(place[1])}
            values["yaw"] = _turned_to(actor, heading + (0 if sign < 0 else 180) + rng.normal(0, 14))
            actor.go(seconds, "stand", values)


def _lull(cast: _Cast, one: Actor, other: Actor) -> None:
    """A moment of circling, threatening and shouting."""
    rng = cast.rng
    along, heading, gap = _way(one, other)
    across = np.array([-along[1], along[0]]) * rng.normal(0, 0.25)
    seconds = float(rng.uniform(0.4, 1.0))
    for actor, sign in ((one, 1.0), (other, -1.0)):
        away = np.clip(0.9 - gap, -0.3, 0.3) * 0.5 * along
        pose, values = (
            ("guard", _blow("guard", actor.rng))
            if rng.random() < 0.6
            else ("stand", {"arm": float(rng.uniform(10, 55)), "elb": float(rng.uniform(10, 60)), "lean": 10.0})
        )
        step = _step(cast, actor, actor.place + sign * across - sign * away, heading + (0 if sign > 0 else 180))
        actor.go(seconds, pose, values | step)


def _chase(cast: _Cast, one: Actor, other: Actor) -> None:
    """The other runs, and one runs after."""
    goal = cast.spot(other, 1.5, 6.0)
    speed = float(cast.rng.uniform(2.3, 4.2))
    other.walk(goal, speed=speed)
    one.hold(float(cast.rng.uniform(0.05, 0.3)))
    along = (goal - one.place) / max(0.3, float(np.hypot(*(goal - one.place))))
    one.walk(_inside(cast, goal - 0.6 * along), speed=speed * cast.rng.uniform(0.95, 1.15))
    _, heading, _ = _way(one, other)
    other.face(heading + 180, 0.25)
    _together(one, other)


def _on_the_floor(cast: _Cast, one: Actor, other: Actor, stop: float) -> None:
    """The other is brought down; one goes on from above (kneeling, kicking or wrestling) until `stop`."""
    rng = cast.rng
    along, heading, _ = _way(one, other)
    other.go(0.2, yaw=_turned_to(other, heading + 180))
    style = rng.choice(["kneel", "stand", "wrestle"], p=[0.4, 0.25, 0.35])
    one.go(0.2, "guard", _blow("push" if style != "wrestle" else "grab", one.rng), ease="fast")
    began = other.now
    other.fall(float(rng.choice([180.0, 150.0, -150.0, 90.0, -90.0])))
    tall = 0.5 * other.body.height
    at = _inside(cast, other.place + tall * along)
    place = at - along * (0.1 if style == "wrestle" else 0.35 if style == "kneel" else 0.7)
    if style == "stand":
        one.go(0.5, "stand", _step(cast, one, place, heading))
    else:
        one.go(
            max(0.4, other.now - began - 0.2),
            "half_kneel" if style == "kneel" else "fours",
            _step(cast, one, place, heading),
        )
    while min(one.now, other.now) < stop:
        beat = float(rng.uniform(0.18, 0.45))
        if one.now <= other.now:
            if style == "stand":
                kick = _blow("kick", one.rng) | {"lean": float(rng.uniform(-5, 20))}
                one.go(beat, "stand", kick, ease="fast")
                one.go(beat, "stand")
            elif style == "kneel":
                blow = {k: v for k, v in _blow("punch", one.rng).items() if not k.startswith(("hip", "knee"))}
                one.go(beat, "half_kneel", blow | {"lean": float(rng.uniform(20, 55))}, ease="fast")
            else:
                one.go(
                    beat,
                    "fours",
                    {
                        "sho_l": float(rng.uniform(40, 120)),
                        "sho_r": float(rng.uniform(40, 120)),
                        "elb": float(rng.uniform(5, 70)),
                        "yaw": one.yaw + float(rng.normal(0, 14)),
                        "hip_l": float(rng.uniform(50, 100)),
                        "knee_l": float(rng.uniform(60, 110)),
                        "side": float(rng.uniform(-20, 20)),
                    },
                )
        else:
            knee = float(rng.uniform(10, 90))
            roll = other.spin + float(rng.normal(0, 12 if style == "wrestle" else 5))
            other.go(
                beat,
                sho_l=float(rng.uniform(10, 110)),
                sho_r=float(rng.uniform(10, 110)),
                elb_l=float(rng.uniform(20, 120)),
                elb_r=float(rng.uniform(20, 120)),
                knee_l=knee,
                hip_l=knee * 0.6,
                nod=float(rng.uniform(-15, 30)),
                spin=roll,
            )


_EXCHANGES: dict[str, Callable[[_Cast, Actor, Actor], None]] = {
    "blows": _blows,
    "kick": _kicks,
    "shove": _shove,
    "grapple": _grapple,
    "lull": _lull,
    "chase": _chase,
}


def _inside(cast: _Cast, point: Floats) -> Floats:
    """`point`, drawn back to where the camera sees it."""
    spots = cast.stage.spots
    nearest = spots[np.hypot(*(spots - point).T).argmin()]
    away = point - nearest
    length = float(np.hypot(*away))
    return point if length < 0.35 else np.asarray(nearest + away * 0.35 / length)


def _blow(move: str, rng: Generator) -> dict[str, float]:
    """Joint angles at the end of a move."""
    side, other = ("_l", "_r") if rng.random() < 0.5 else ("_r", "_l")
    sign = 1.0 if side == "_r" else -1.0
    if move == "punch":
        return {
            "sho" + side: rng.uniform(75, 105),
            "elb" + side: rng.uniform(2, 30),
            "arm" + side: rng.uniform(-5, 30),
            "sho" + other: rng.uniform(10, 60),
            "elb" + other: 110,
            "twist": 32 * sign,
            "lean": rng.uniform(8, 24),
            "hip" + other: 25,
        }
    if move == "kick":
        return {
            "hip" + side: rng.uniform(50, 100),
            "knee" + side: rng.uniform(5, 35),
            "abd" + side: rng.uniform(0, 30),
            "lean": rng.uniform(-28, -5),
            "arm": rng.uniform(15, 55),
            "hip" + other: 0,
            "knee" + other: 12,
            "gait": 0,
        }
    if move == "push":
        return {
            "sho": rng.uniform(70, 95),
            "elb": rng.uniform(2, 25),
            "arm": 8,
            "lean": rng.uniform(12, 32),
            "hip" + other: 30,
            "knee" + other: 25,
        }
    if move == "grab":
        return {
            "sho": rng.uniform(55, 95),
            "elb": rng.uniform(25, 80),
            "arm": rng.uniform(5, 25),
            "lean": rng.uniform(5, 38),
            "side": rng.uniform(-22, 22),
            "twist": rng.uniform(-30, 30),
            "knee": rng.uniform(10, 45),
            "hip": rng.uniform(5, 35),
            "nod": rng.uniform(0, 25),
        }
    if move == "hit":
        return {
            "lean": rng.uniform(-26, 12),
            "side": rng.uniform(-24, 24),
            "twist": rng.uniform(-35, 35),
            "nod": rng.uniform(-30, 20),
            "arm": rng.uniform(10, 60),
            "sho": rng.uniform(0, 60),
            "hip" + side: -15,
            "knee" + side: 30,
        }
    return {
        "sho": rng.uniform(30, 65),
        "elb": rng.uniform(80, 125),
        "lean": rng.uniform(4, 20),
        "side": rng.uniform(-10, 10),
    }
