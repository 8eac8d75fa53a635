"""Normal life as clean codes, for alerts to be calibrated and measured on: rendered minutes, strung to hours.

    seed, kind of life --rendered_footage, a minute--> frames, people --clip_codes--> codes of the slots with a whole
        receptive field
    blocks of all kinds, by their shares of a day --strung--> codes (N, K, d), kind of each release
    codes + noise --member, chunk by chunk--> label probabilities of every event, stride 1
                  --`risk_directions`--> a score of every release for each risk

A clip is encoded once; noise is drawn as often as hours are needed. Codes are for noise to be added to; they stay in
this process. What a day holds is `DAY`: an assumption, the same in every run, and figures are given by kind as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from familial.evaluate.clip_inference import clip_codes
from familial.evaluate.footage import rendered_footage
from familial.model.code_space import risk_directions
from familial.model.family import Family
from familial.synth.actions.catalogue import BY_NAME_ALONE, KINDS, draw_kind
from familial.synth.people_clip import people_clip
from familial.synth.rendered_clip import RenderedClip
from familial.synth.setting import draw_setting
from wire.protocol.event import level_weight

__all__ = ["DAY", "ROOMS", "Block", "Kind", "Said", "Stream", "blocks_of", "everyday", "read", "risks_of", "strung"]

Floats = npt.NDArray[np.float64]

_SIZE, _FPS, _MINUTE = (120, 160), 12.0, 60.0
_RISK_S = 40.0  # seconds of a clip with a risk
_LATEST_S = 14.0  # a risk that begins later than so long before the end of its clip is drawn again
_CHUNK = 256  # events in one forward
_VISIT = 300  # releases that one kind of life lasts before another comes
_DARK = 40  # seeds looked at for one night; one in eleven is dark


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of normal life.

    Attributes:
        share: of a day.
        actions: kinds of clip that show it; empty: every normal one that is drawn and that no other row names.
        night: by the camera's own infrared light alone.
        still: one picture, held.
    """

    share: float
    actions: tuple[str, ...] = ()
    night: bool = False
    still: bool = False


# fmt: off
DAY: Mapping[str, Kind] = {
    "empty room, night": Kind(8 / 24, ("empty",), night=True),
    "empty room":        Kind(5 / 24, ("empty",)),
    "still picture":     Kind(2 / 24, ("empty", "sit", "lie_down", "stand"), still=True),
    "resting":           Kind(4 / 24, ("lie_down", "sit", "get_up", "stand")),
    "coming and going":  Kind(3 / 24, ("walk", "pass", "talk", "greet", "group_talk", "handshake", "hug", "loiter",
                                       "side_by_side", "near", "queue", "crowd", "wave", "point", "hand_over")),
    "cleaning":          Kind(1.5 / 24, ("work", "carry", "bend", "crouch", "kneel", "stumble")),
    "anything else":     Kind(0.5 / 24),
}
# fmt: on
"""What a camera's day holds."""
ROOMS = 100_000
"""How many rooms and risks there are to be drawn from: the length of a row of `data.splits`."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive releases of one clip.

    Attributes:
        kind: of life (a key of `DAY`, or the name of a set), or the label of a risk.
        codes: clean, float (S, K, d).
        source: the room or the group that it comes from.
        onset: release at which a risk begins, a fraction counting in its slot; NaN where none does.
        lying: first and last + 1 of the releases that see nothing but somebody who lies after a fall.
    """

    kind: str
    codes: Tensor
    source: str
    onset: float = float("nan")
    lying: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Hours of normal life before one camera.

    Attributes:
        codes: clean, float (N, K, d).
        kinds: the kind of each release, (N,).
    """

    codes: Tensor
    kinds: npt.NDArray[np.str_]


class Said(NamedTuple):
    """What is said of a stream of N releases, in E = N - R + 1 whole events.

    Attributes:
        labels: probabilities float64 (E, L).
        shares: of the attributes (E, A); A is 0 for the edge member, and where the family has none.
        scores: of each release for each risk, float64 (N, L - 1), in units of the noise of the family's own profile.
        noise: in them, in the same units.
    """

    labels: Floats
    shares: Floats
    scores: Floats
    noise: float = 1.0


def blocks_of(family: Family, seeds: range, rooms: int) -> Iterator[Block]:
    """Render one minute of every kind of life in each of `rooms` rooms and encode it.

    A room's nights are those of another, dark one. Of `seeds` (`data.splits`), rooms are the first, dark ones come from
    the middle, and risks from the end.
    """
    rest = _rest()
    nights = itertools.cycle(_nights(seeds, rooms))
    for number, (seed, dark) in enumerate(zip(seeds[:rooms], nights, strict=False)):
        for name, kind in DAY.items():
            actions = kind.actions or rest
            shown = actions[number % len(actions)]
            codes, _ = _whole(family, dark if kind.night else seed, shown, _MINUTE, kind.still)
            yield Block(name, codes, f"room {seed}")


def everyday() -> tuple[str, ...]:
    """Kinds of clip with people in them, for `catalogue.draw_among`: each is there as often as `DAY` shows it."""
    rows = [(kind.share, kind.actions or _rest()) for kind in DAY.values() if "empty" not in kind.actions]
    rarest = min(share / len(actions) for share, actions in rows)
    return tuple(name for share, names in rows for name in names for _ in range(round(share / len(names) / rarest)))


def _rest() -> tuple[str, ...]:
    """The normal kinds that no row of `DAY` names; those that are shown by name alone are left out on purpose."""
    named = {action for kind in DAY.values() for action in kind.actions} | set(BY_NAME_ALONE)
    return tuple(name for name, label in KINDS.items() if label == "normal" and name not in named)


def _nights(seeds: range, rooms: int) -> list[int]:
    """At most `rooms` seeds whose room is dark."""
    every = seeds[len(seeds) // 2 :][: rooms * _DARK]
    dark = (seed for seed in every if draw_setting(seed, _SIZE, 2.0, 10.0).scene.light.night)
    return list(itertools.islice(dark, rooms))


def risks_of(family: Family, seeds: range, label: str, count: int) -> Iterator[Block]:
    """Render `count` clips of a risk in rooms from the end of `seeds`, whose normal life is not shown."""
    spec = family.config.window
    left, made = iter(reversed(seeds)), 0
    while made < count:
        seed = next(left)
        kind = draw_kind(np.random.default_rng([seed, 2]), label)
        planned = people_clip(seed, kind, size=_SIZE, fps=_FPS, seconds=_RISK_S).clip  # not painted: cheap
        onset = planned.annotations[0].start_s
        if not spec.receptive_field_s < onset < _RISK_S - _LATEST_S:
            continue
        made += 1
        skipped = _skipped(family)
        codes, clip = _whole(family, seed, kind, _RISK_S)
        lying = max(((end - start, start, end) for start, end in clip.lying_s), default=(0.0, 0.0, 0.0))
        first = int(np.ceil((lying[1] + spec.receptive_field_s) / spec.slot_s)) - skipped
        last = min(int(lying[2] / spec.slot_s), int(_RISK_S / spec.slot_s)) - skipped
        steady = (first, last) if last > first else (0, 0)
        yield Block(label, codes, f"room {seed}", onset / spec.slot_s - skipped, steady)


def _skipped(family: Family) -> int:
    """Slots at a clip's beginning whose receptive field reaches back before it."""
    spec = family.config.window
    return int(np.ceil(spec.receptive_field_s / spec.slot_s))


def _whole(family: Family, seed: int, kind: str, seconds: float, still: bool = False) -> tuple[Tensor, RenderedClip]:
    """Codes float (S, K, d) of the slots whose receptive field lies wholly within a clip, and the clip."""
    footage, clip = rendered_footage(seed, kind, family.config, size=_SIZE, fps=_FPS, seconds=seconds, still=still)
    playing = int(footage.duration / family.config.window.slot_s)
    return clip_codes(family, footage)[_skipped(family) : playing], clip


def strung(blocks: Sequence[Block], slots: int, rng: np.random.Generator, shares: Mapping[str, float]) -> list[Stream]:
    """String blocks to about `slots` releases in all, one stream for each source.

    Every kind lasts as long as its share, in visits of some minutes in random order; kinds without blocks leave their
    time to the others.

    Args:
        blocks: of normal life.
        slots: releases of all streams together.
        rng: draws the order.
        shares: kind -> share of the releases.
    """
    sources = dict.fromkeys(block.source for block in blocks)
    return [
        _camera([block for block in blocks if block.source == source], max(1, slots // len(sources)), rng, shares)
        for source in sources
    ]


def _camera(own: Sequence[Block], slots: int, rng: np.random.Generator, shares: Mapping[str, float]) -> Stream:
    kinds = [name for name in shares if any(block.kind == name for block in own)]
    total = sum(shares[name] for name in kinds)
    visits = list[list[Block]]()
    for name in kinds:
        mine = [block for block in own if block.kind == name]
        visits += _visits(mine, max(1, round(slots * shares[name] / total)), rng)
    order = [block for index in rng.permutation(len(visits)) for block in visits[index]]
    names = np.repeat([block.kind for block in order], [len(block.codes) for block in order])
    return Stream(torch.cat([block.codes for block in order]), names)


def _visits(own: Sequence[Block], slots: int, rng: np.random.Generator) -> list[list[Block]]:
    """Blocks in random order, about equally often, in visits of at most `_VISIT` releases; `slots` in all."""
    visits, left = list[list[Block]](), slots
    while left > 0:
        visit, filled = list[Block](), 0
        while filled < min(left, _VISIT):
            block = own[int(rng.integers(len(own)))]
            some = block.codes[: min(left, _VISIT) - filled]
            visit.append(replace(block, codes=some))
            filled += len(some)
        visits.append(visit)
        left -= filled
    return visits


@torch.inference_mode()
def read(
    family: Family,
    codes: Tensor,
    sigma: float,
    member: str = "cloud",
    generator: torch.Generator | None = None,
    own_sigma: float | None = None,
) -> Said:
    """Add noise to a stream of clean codes and read every whole event, stride 1, as the bridge does.

    Args:
        family: whose member reads.
        codes: float (N, K, d).
        sigma: of the noise, in lattice units.
        member: "edge" or "cloud".
        generator: of the noise.
        own_sigma: of the family's own profile, where the noise is that of another; None: it is `sigma`.
    """
    releases, own = family.config.event_releases, own_sigma or sigma
    z = codes + torch.round(torch.randn(codes.shape, generator=generator) * sigma)
    weighed = z if sigma == own else torch.round(z * level_weight(own, sigma))
    events = weighed.unfold(0, releases, 1).movedim(-1, 1)  # (E, R, K, d), a view
    parts = [_read(family, events[first : first + _CHUNK], member) for first in range(0, len(events), _CHUNK)]
    labels, shares = (np.concatenate(each) for each in zip(*parts, strict=True))
    config = family.config
    directions = risk_directions(len(config.labels), config.tokens, config.width)
    return Said(labels, shares, (z.flatten(1) @ directions.T / own).double().numpy(), sigma / own)


def _read(family: Family, events: Tensor, member: str) -> tuple[Floats, Floats]:
    present = torch.ones(events.shape[:2], dtype=torch.bool)
    if member == "edge":
        logits = family.edge_logits(events, present)
        shares = logits[:, :0]
    else:
        logits, shares = family.cloud_and_attribute_logits(events, present)
    found = [np.asarray(each.double().softmax(dim=1).numpy()) for each in (logits, shares)]
    return found[0], found[1]
