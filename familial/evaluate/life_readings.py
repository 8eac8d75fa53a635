"""What a member says of hours of normal life, and of risks behind a minute of it.

blocks of life --strung, + noise--> probabilities of every event, by camera
a minute of life, then a risk --+ noise--> the same, with the onset
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from familial.evaluate.life import Block, Said, read, strung
from familial.evaluate.lying import LYING_STILL
from familial.model.family import Family
from wire.errors import DataError

__all__ = ["Readings", "Risk", "joined", "looped", "record"]

_BEFORE = 60  # releases of normal life before a risk
_LIES_S = 180.0  # how long somebody stays on the floor
_STEADY = 4  # releases of lying that can be looped


@dataclass(frozen=True, slots=True)
class Risk:
    """What the member says of a risk behind a minute of normal life.

    Attributes:
        label: its label; LYING_STILL for a fall after which somebody stays down.
        onset: in releases, from the first.
        said: of the minute and the risk.
    """

    label: str
    onset: float
    said: Said


@dataclass(frozen=True, slots=True)
class Readings:
    """What the member says of hours of life and of risks.

    Attributes:
        normal: of each camera's hours.
        kinds: the kind of life that the last release of each event shows, one array (E,) a camera.
        risks: behind a minute of life each.
    """

    normal: Sequence[Said]
    kinds: Sequence[npt.NDArray[np.str_]]
    risks: Sequence[Risk]


def record(
    family: Family,
    sigma: float,
    blocks: Sequence[Block],
    risks: Sequence[Block],
    hours: float,
    shares: Mapping[str, float],
    member: str = "cloud",
    samples: int = 4,
    seed: int = 0,
    own_sigma: float | None = None,
) -> Readings:
    """String life together, add noise and read it all.

    Args:
        family: whose member reads.
        sigma: of the noise, in lattice units.
        blocks: of normal life.
        risks: of risks.
        hours: of normal life, all cameras together.
        shares: kind of life -> share of a day.
        member: "edge" or "cloud".
        samples: noise samples of each risk.
        seed: of order and noise.
        own_sigma: as in `life.read`.

    Raises:
        DataError: there is no normal life, or no risk.
    """
    if not blocks or not risks:
        raise DataError("normal life and risks are needed; one of them is missing")
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    releases, slot_s = family.config.event_releases, family.config.window.slot_s
    streams = strung(blocks, round(hours * 3600.0 / slot_s), rng, shares)
    normal = [
        read(family, stream.codes, sigma, member, noise, own_sigma)
        for stream in streams
        if len(stream.codes) >= releases
    ]
    kinds = [stream.kinds[releases - 1 :] for stream in streams if len(stream.codes) >= releases]
    found = list[Risk]()
    for risk in risks:
        for _ in range(samples):
            before = blocks[int(rng.integers(len(blocks)))].codes[-_BEFORE:]
            said = read(family, torch.cat((before, risk.codes)), sigma, member, noise, own_sigma)
            found.append(Risk(risk.kind, len(before) + risk.onset, said))
    return Readings(normal, kinds, found)


def joined(parts: Sequence[Readings]) -> Readings:
    """The readings of several families, each of its own cameras, as one."""
    normal, kinds, risks = ([each for part in parts for each in getattr(part, name)] for name in Readings.__slots__)
    return Readings(normal, kinds, risks)


def looped(fall: Block, slot_s: float) -> Block | None:
    """A fall after which somebody stays on the floor for minutes: its last releases, again and again."""
    first, last = fall.lying
    if last - first < _STEADY:
        return None
    again = fall.codes[first:last].repeat(int(_LIES_S / slot_s) // (last - first) + 1, 1, 1)
    return Block(LYING_STILL, torch.cat((fall.codes[:last], again)), fall.source, fall.onset)
