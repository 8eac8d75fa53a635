"""How people are dressed: parts of a body and their colours, and what is carried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.body import Body, radii
from familial.synth.skeleton import JOINT, Floats

__all__ = ["Part", "dress"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a body: the convex hull of spheres about joints, of one colour.

    Attributes:
        joints: (n,) indices into JOINTS.
        radii: (n,) metres.
        colour: (3,) BGR, 0..1.
        lit: Large enough to show a lighter side.
        stripes: (3,) the colour of stripes, where there are any.
    """

    joints: NDArray[np.int64]
    radii: Floats
    colour: Floats
    lit: bool = False
    stripes: Floats | None = None


@dataclass(frozen=True, slots=True)
class _Clothes:
    """Colours (3,) of skin and cloth, the kind of lower garment, and how wide the clothes are against the body."""

    skin: Floats
    hair: Floats
    top: Floats
    legs: Floats
    shoe: Floats
    sleeve: Floats
    trouser: Floats
    lower: str
    width: float
    stripes: Floats | None


_SKINS = np.array([[0.72, 0.80, 0.92], [0.60, 0.70, 0.88], [0.45, 0.57, 0.78], [0.30, 0.42, 0.62], [0.18, 0.26, 0.42]])


def _draw_cloth(rng: Generator, room_tone: Floats | None) -> Floats:
    if room_tone is not None:
        return np.asarray(np.clip(room_tone * rng.uniform(0.8, 1.2) + rng.normal(0, 0.03, 3), 0.03, 1))
    return np.asarray(np.clip(rng.uniform(0.04, 0.95) * (1 + 0.6 * rng.uniform(-1, 1, 3)), 0.03, 1.0))


def _draw_clothes(rng: Generator, room_tone: Floats | None) -> _Clothes:
    skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.9, 1.08)
    hair = (
        np.array([0.9, 0.92, 0.93]) * rng.uniform(0.5, 1)
        if rng.random() < 0.2
        else rng.uniform(0.02, 0.35) * np.array([0.6, 0.8, 1.0])
    )
    top, legs = _draw_cloth(rng, room_tone), _draw_cloth(rng, room_tone)
    shoe = np.full(3, rng.choice([rng.uniform(0.03, 0.2), rng.uniform(0.2, 0.95)]))
    legs = top * rng.uniform(0.85, 1.1) if rng.random() < 0.15 else legs
    sleeve, trouser = skin if rng.random() < 0.45 else top, skin if rng.random() < 0.15 else legs
    lower = str(rng.choice(["trousers", "skirt", "coat"], p=[0.74, 0.14, 0.12]))
    width = rng.uniform(1.0, 1.25)
    stripes = _draw_cloth(rng, room_tone) if rng.random() < 0.22 else None
    return _Clothes(skin, hair, top, legs, shoe, sleeve, trouser, lower, width, stripes)


def dress(body: Body, rng: Generator, room_tone: Floats | None, prop: str = "") -> tuple[Part, ...]:
    """The parts of `body` to paint, with clothes, hair and skin drawn from `rng`.

    Args:
        body: The person's build.
        rng: The person's own random numbers.
        room_tone: (3,) asks for clothes of about this colour; None for any.
        prop: What is carried: "", "bag" or "box".
    """
    size, worn = radii(body), _draw_clothes(rng, room_tone)
    parts: list[Part] = []

    def add(names: str, scale: float, colour: Floats, *, lit: bool = False, stripes: Floats | None = None) -> None:
        at = np.array([JOINT[n] for n in names.split()])
        parts.append(Part(at, size[at] * scale, np.asarray(colour), lit, stripes))

    for s in ("_l", "_r"):
        add(f"heel{s} toe{s}", 1.0, worn.shoe)
        add(f"knee{s} ankle{s}", worn.width if worn.trouser is not worn.skin else 1.0, worn.trouser)
        add(f"hip{s} knee{s}", worn.width, worn.legs, lit=True)
        add(f"shoulder{s} elbow{s}", worn.width, worn.top)
        add(f"elbow{s} wrist{s}", worn.width if worn.sleeve is not worn.skin else 1.0, worn.sleeve)
        add(f"wrist{s} hand{s}", 0.95, worn.skin)
    add("hip_l hip_r pelvis belly", 1.0, worn.legs, lit=True)
    trunk = "shoulder_l shoulder_r chest belly pelvis"
    add(trunk, 1.0 if worn.lower != "coat" else 1.08, worn.top, lit=True, stripes=worn.stripes)
    if worn.lower != "trousers":
        at = np.array([JOINT[n] for n in ("hip_l", "hip_r", "knee_l", "knee_r")])
        flare = rng.uniform(1.6, 2.4) if worn.lower == "skirt" else rng.uniform(1.5, 1.9)
        grow = np.array([1.1, 1.1, flare, flare])
        parts.append(Part(at, size[at] * grow, worn.top if worn.lower == "coat" else worn.legs, True))
    add("neck head", 0.55, worn.skin)
    add("head chin", 1.0, worn.skin, lit=True)
    if rng.random() < 0.92:
        add("crown", rng.uniform(0.96, 1.06), worn.hair)
        if rng.random() < 0.35:
            add("crown tail", 0.95, worn.hair)
    if prop:
        hands = np.array([JOINT["hand_l"], JOINT["hand_r"]] if prop == "box" else [JOINT["hand_r"]])
        radius = np.full(len(hands), 0.16 if prop == "box" else 0.13)
        parts.append(Part(hands, radius, _draw_cloth(rng, room_tone), prop == "box"))
    return tuple(parts)
