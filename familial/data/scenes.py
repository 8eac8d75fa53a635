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

from familial.data.motion import Actor, Body, Floats
from familial.data.rooms import Place, Stage

__all__ = ["CAPTIONS", "KINDS", "LABELS", "Happening", "Plan", "direct", "draw_kind", "people_needed"]

LABELS = ("normal", "fall", "fight")


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
    "crowd": _Kind("normal", 0.4, 5, "many people walk through the room"),
    "empty": _Kind("normal", 0.35, 0, "the room is empty"),
    "fall_forward": _Kind("fall", 1.2, 1, "a person falls forward and lies on the floor"),
    "fall_back": _Kind("fall", 1.2, 1, "a person falls backward and lies on the floor"),
    "fall_side": _Kind("fall", 1.2, 1, "a person falls sideways and lies on the floor"),
    "fall_trip": _Kind("fall", 1.0, 1, "a person trips while walking and falls to the floor"),
    "fall_chair": _Kind("fall", 0.9, 1, "a person falls from a chair and lies on the floor"),
    "fall_faint": _Kind("fall", 1.1, 1, "a person faints and lies on the floor"),
    "fall_slump": _Kind("fall", 0.7, 1, "a person slowly sinks to the floor and lies there"),
    "fight_punch": _Kind("fight", 1.2, 2, "people fight with fists"),
    "fight_kick": _Kind("fight", 0.9, 2, "people fight and kick"),
    "fight_push": _Kind("fight", 0.9, 2, "people fight and push each other"),
    "fight_grapple": _Kind("fight", 1.1, 2, "people fight and hold each other"),
    "fight_group": _Kind("fight", 0.8, 3, "a group of people fights"),
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
    return Plan(tuple(cast.actors), happenings, tuple(cast.lying), _TABLE[kind].caption, min(2, people_needed(kind)))


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
    if kind in ("lie_down", "get_up"):
        place, gap = cast.stage.couch, cast.stage.couch.half + 0.1
    if kind in ("sit", "sit_fast", "lie_down", "get_up"):
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
    return start, actor.now


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
                beat, sho_l=high, sho_r=high * 0.9, elb=50, side=7 * sign, twist=10 * sign, hip_l=10 + 12 * sign,
                knee_l=15 + 12 * sign, knee_r=15 - 12 * sign, hip_r=10 - 12 * sign,
                x=home[0] + 0.09 * sign, y=home[1] - 0.09 * sign,
            )  # fmt: skip
    _part(cast, a, b)
    return start, stop


_DUOS: dict[str, Callable[[_Cast, str], tuple[float, float]]] = {
    "talk": _talk, "hug": _hug, "handshake": _handshake, "point": _point, "pass": _pass, "dance": _dance,
}  # fmt: skip


# -- falls -------------------------------------------------------------------------------------------------------------

_WAYS = {"fall_forward": (0.0,), "fall_back": (180.0,), "fall_side": (90.0, -90.0), "fall_trip": (0.0,),
         "fall_chair": (0.0, 90.0, -90.0), "fall_faint": (0.0, 60.0, 90.0, -60.0, -90.0, 180.0),
         "fall_slump": (90.0, -90.0)}  # fmt: skip


def _fall(cast: _Cast, kind: str) -> tuple[float, float]:
    """The first actor falls at the onset and lies; some get up, and others may come to help."""
    actor, rng, onset = cast.actors[0], cast.actors[0].rng, cast.onset
    momentum = 0.0
    if kind == "fall_chair":
        _seated(cast, actor, onset)
    else:
        _ordinary(cast, actor, onset - rng.uniform(1.0, 2.5))
        if kind == "fall_trip" or rng.random() < 0.4:
            actor.walk(cast.spot(actor, 2.5, 7.0), until=onset, stop=False)
            momentum = actor.body.pace * (0.9 if kind == "fall_trip" else rng.uniform(0.1, 0.7))
        else:
            actor.gesture(onset, 0.3)
        actor.hold_until(onset)
    if kind in ("fall_forward", "fall_back", "fall_side", "fall_slump") and momentum == 0.0:
        actor.face(actor.yaw + rng.uniform(-25, 25), 0.3)
    way = _open_way(cast, actor, _WAYS[kind])
    style = {"fall_faint": "fold", "fall_slump": "slump"}.get(kind, "tip")
    start, impact = actor.fall(way, style=style, momentum=momentum)
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

_MOVES = {
    "fight_punch": (["punch"] * 6 + ["guard"] * 2 + ["push", "kick"]),
    "fight_kick": (["kick"] * 5 + ["punch"] * 2 + ["guard"] * 2 + ["push"]),
    "fight_push": (["push"] * 6 + ["guard", "punch", "grab"]),
    "fight_grapple": (["grab"] * 8 + ["push", "punch"]),
    "fight_group": (["punch"] * 4 + ["kick", "push", "grab", "grab", "guard"]),
}


def _fight(cast: _Cast, kind: str) -> tuple[float, float]:
    """Two or more come together and fight until near the end of the clip, or break off."""
    rng = cast.rng
    grip = kind == "fight_grapple"
    gap = rng.uniform(0.45, 0.6) if grip else rng.uniform(0.65, 0.95)
    a, b = _meet(cast, gap)
    count = 2 if kind != "fight_group" else min(len(cast.actors), int(rng.integers(3, 5)))
    fighters = [a, b, *cast.actors[2:count]]
    start = a.now
    stop = min(cast.seconds + 0.3, start + rng.uniform(4.0, 12.0))
    centre = 0.5 * (a.place + b.place)
    angles = [math.atan2(*(f.place - centre)[::-1]) for f in fighters]
    for i, other in enumerate(fighters[2:], 2):  # the others join in
        _ordinary(cast, other, start + rng.uniform(-2.0, 0.5))
        angles[i] = math.atan2(*(other.place - centre)[::-1])
        other.walk(centre + 0.7 * np.array([math.cos(angles[i]), math.sin(angles[i])]), speed=rng.uniform(1.5, 3.0))
    spin = 0.0
    while min(f.now for f in fighters) < stop:
        centre = _inside(cast, centre + rng.normal(0, 0.07, 2))
        spin = 0.7 * spin + rng.normal(0, 0.16 if grip else 0.09)
        radius = float(np.clip(0.5 * gap + rng.normal(0, 0.07), 0.2, 0.7))
        seconds = rng.uniform(0.16, 0.42)
        moves = [_MOVES[kind][rng.integers(len(_MOVES[kind]))] for _ in fighters]
        for i, fighter in enumerate(fighters):
            if fighter.now > min(f.now for f in fighters) + 0.6:
                continue
            angles[i] += spin + rng.normal(0, 0.06)
            hit = any(m in ("punch", "kick", "push") for j, m in enumerate(moves) if j != i) and rng.random() < 0.5
            way = math.degrees(angles[i]) + 180
            turn = (way - fighter.yaw + 180) % 360 - 180
            reach = radius + (0.16 if hit else -0.06 if moves[i] in ("punch", "push") else 0.0)
            goal = centre + reach * np.array([math.cos(angles[i]), math.sin(angles[i])])
            values = _blow("hit" if hit else moves[i], fighter.rng)
            values |= {"x": float(goal[0]), "y": float(goal[1]), "yaw": fighter.yaw + turn}
            fighter.go(seconds, "guard" if moves[i] != "grab" else "stand", values, ease="fast")
    end = min(stop, cast.seconds)
    for fighter in fighters:
        fighter.go(0.4, "stand")
        if rng.random() < 0.5:
            fighter.walk(cast.spot(fighter, 1.0), speed=rng.uniform(1.0, 3.0))
    return start, end


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
        return {"sho" + side: rng.uniform(75, 105), "elb" + side: rng.uniform(2, 30), "arm" + side: rng.uniform(-5, 30),
                "sho" + other: rng.uniform(10, 60), "elb" + other: 110, "twist": 32 * sign,
                "lean": rng.uniform(8, 24), "hip" + other: 25}  # fmt: skip
    if move == "kick":
        return {"hip" + side: rng.uniform(50, 100), "knee" + side: rng.uniform(5, 35), "abd" + side: rng.uniform(0, 30),
                "lean": rng.uniform(-28, -5), "arm": rng.uniform(15, 55), "hip" + other: 0, "knee" + other: 12,
                "gait": 0}  # fmt: skip
    if move == "push":
        return {"sho": rng.uniform(70, 95), "elb": rng.uniform(2, 25), "arm": 8, "lean": rng.uniform(12, 32),
                "hip" + other: 30, "knee" + other: 25}  # fmt: skip
    if move == "grab":
        return {"sho": rng.uniform(55, 95), "elb": rng.uniform(25, 80), "arm": rng.uniform(5, 25),
                "lean": rng.uniform(5, 38), "side": rng.uniform(-22, 22), "twist": rng.uniform(-30, 30),
                "knee": rng.uniform(10, 45), "hip": rng.uniform(5, 35), "nod": rng.uniform(0, 25)}  # fmt: skip
    if move == "hit":
        return {"lean": rng.uniform(-26, 12), "side": rng.uniform(-24, 24), "twist": rng.uniform(-35, 35),
                "nod": rng.uniform(-30, 20), "arm": rng.uniform(10, 60), "sho": rng.uniform(0, 60),
                "hip" + side: -15, "knee" + side: 30}  # fmt: skip
    return {"sho": rng.uniform(30, 65), "elb": rng.uniform(80, 125), "lean": rng.uniform(4, 20),
            "side": rng.uniform(-10, 10)}  # fmt: skip
