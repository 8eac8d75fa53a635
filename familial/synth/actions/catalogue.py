"""All actions by name, and how often each is drawn.

The order of `_SUBJECTS`, and of the functions in each, is the order in which the weights are laid out when a kind is
drawn: another order gives other clips for the same seeds (then raise `RENDERER_VERSION`).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.random import Generator

from familial.synth.actions import (
    aided_falls,
    chores,
    encounters,
    fall_kinds,
    falls,
    fights,
    floor,
    floor_poses,
    friendly,
    groups,
    holds,
    housework,
    one_blow,
    ordinary,
    walking_frames,
    wheelchairs,
)
from familial.synth.actions.base import Action

__all__ = [
    "ACTIONS",
    "AIDED",
    "AIDED_TO_TRAIN",
    "BY_NAME_ALONE",
    "CAPTIONS",
    "ENCOUNTERS",
    "KINDS",
    "SHARES",
    "action_of",
    "collect",
    "draw_among",
    "draw_kind",
    "people_needed",
]

_SUBJECTS = (
    ordinary,
    encounters,
    floor,
    chores,
    groups,
    falls,
    fights,
    one_blow,
    holds,
    friendly,
    floor_poses,
    housework,
    fall_kinds,
    walking_frames,
    wheelchairs,
    aided_falls,
)

SHARES = (0.5, 0.3, 0.2)
"""The share of each of LABELS among clips whose label is drawn."""


def collect(modules: Sequence[ModuleType]) -> dict[str, Action]:
    """The actions that `modules` define, by name, in the order in which they are written.

    Raises:
        ValueError: Two actions have the same name.
    """
    found: dict[str, Action] = {}
    for module in modules:
        for each in vars(module).values():
            if isinstance(each, Action) and found.setdefault(each.name, each) is not each:
                raise ValueError(f"{module.__name__}: there are two actions {each.name!r}; rename one of them")
    return found


ACTIONS = collect(_SUBJECTS)
KINDS = {name: each.label for name, each in ACTIONS.items()}
CAPTIONS = {name: each.caption for name, each in ACTIONS.items()}
BY_NAME_ALONE = tuple(name for name, each in ACTIONS.items() if each.weight == 0)
"""Kinds that are never drawn: clips show them only where they are asked for by name. Whoever goes over all kinds and
publishes what comes of it leaves these out, so that another one changes no figure."""
AIDED = tuple(collect((walking_frames, wheelchairs, aided_falls)))
"""Kinds that show somebody in a wheelchair or at a walking frame."""
AIDED_TO_TRAIN = (*AIDED, *("wheelchair_pushed",) * 5, *("fall_wheelchair_slide",) * 3)
"""The same for `draw_among`; what is most easily taken for something else comes more often."""
ENCOUNTERS = (
    *("one_punch", "one_kick", "one_push", "one_slap", "hit_behind"),
    *("handshake", "hug", "point", "hand_over", "greet", "talk", "high_five", "pat", "lively_talk", "brush_past"),
    *("throw", "lift_up", "dance"),
)
"""Kinds that show two who meet: a single blow, or what looks a little like one."""


def action_of(kind: str) -> Action:
    """The action of `kind`.

    Raises:
        ValueError: There is none; the message lists those there are.
    """
    if kind not in ACTIONS:
        raise ValueError(f"kind is {kind!r}: use one of {', '.join(ACTIONS)}")
    return ACTIONS[kind]


def draw_kind(rng: Generator, label: str) -> str:
    """A kind of `label`, drawn by the weights of its actions."""
    names = [name for name, each in ACTIONS.items() if each.label == label and each.weight > 0]
    weights = np.array([ACTIONS[name].weight for name in names])
    return str(rng.choice(names, p=weights / weights.sum()))


def draw_among(rng: Generator, kinds: Sequence[str]) -> str:
    """One of `kinds`: a label that they have, then a kind of it, all alike; one that is there twice, twice as often."""
    labels = sorted({KINDS[kind] for kind in kinds})
    label = labels[int(rng.integers(len(labels)))]
    own = [kind for kind in kinds if KINDS[kind] == label]
    return own[int(rng.integers(len(own)))]


def people_needed(kind: str) -> int:
    """How many people `kind` needs at least; 0 means that nobody may be there."""
    return action_of(kind).people
