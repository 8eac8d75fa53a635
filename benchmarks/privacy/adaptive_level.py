"""`python -m benchmarks.adaptive_level`: falls found with the adaptive privacy level, against fixed profiles.

    codes of hours of normal life, falls put in ──noise of each release's level──► z ──classifier──► risk of each event
           (ideal, rendered, real)                    ▲ chosen from past z by the rule

Four devices see the same: one at the engine's profile, one at `strict`, one at a fixed profile that spends
as much in an hour as the adaptive level is allowed to, and one with the adaptive level. For each device: S^2 certified
per event and per release of a lasting stream, S^2 that was spent, and the share of falls found where normal life raises
so many false alarms an hour. Ideal codes are classified by their exact likelihood, codes of a family by its edge
member, weighted by level. The ratio is the adaptive level's share of falls found over that of the fixed profile at the
same certified hour, on ideal codes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one
from wire.privacy.certificate import PROFILES, sigma_for
from wire.privacy.level_rule import AdaptiveLevel, LevelRule
from wire.protocol.event import level_weight

if TYPE_CHECKING:
    from familial.model.family import Family

__all__ = ["COMMAND", "Device", "F64", "Reader", "World"]

_BLOCK = 10  # slots within which alarms count as one
_WARM = 60  # slots before anything is counted: a stream begins with its budget spent
_LATE = 2  # slots after the last code of a fall in which an alarm still counts

F64 = npt.NDArray[np.float64]
Reader = Callable[[F64], F64]
"""Weighted releases (T, n) of a stream -> risk (T,) of the event that ends at each slot."""


@dataclass(frozen=True, slots=True)
class Device:
    """How a device chooses the noise of its releases.

    Attributes:
        name: as the table has it.
        sigmas: noise of each level in lattice units, most noise first.
        rule: chooses the level of each release; None where one level is kept.
    """

    name: str
    sigmas: tuple[Fraction, ...]
    rule: LevelRule | None = None


@dataclass(frozen=True, slots=True)
class World:
    """What the devices see.

    Attributes:
        name: as the table has it.
        clip_norm: C of the codes, lattice units.
        releases: of an event.
        sigma: the noise that the classifier expects.
        directions: of the level rule.
        normal: streams of codes (T, n) with nothing to find.
        falls: streams with one fall, and its first and last slot.
        reader: the classifier.
        alarms: false alarms an hour at which the falls found are counted.
    """

    name: str
    clip_norm: int
    releases: int
    sigma: Fraction
    directions: Sequence[Sequence[int]]
    normal: Sequence[F64]
    falls: Sequence[tuple[F64, int, int]]
    reader: Reader
    alarms: float


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser, "whose codes are read (default: checkpoints/nano)")
    parser.add_argument("--rendered", type=int, default=60, metavar="N", help="held-out rendered clips; 0: none")
    parser.add_argument("--data", type=Path, metavar="MANIFEST.csv", help="real clips, read set by set")
    parser.add_argument("--sets", nargs="+", default=["rooms", "upfall"], metavar="SET")
    parser.add_argument("--streams", type=at_least_one, default=150, help="normal streams, and falls, of each kind")
    parser.add_argument("--seed", type=int, default=0)


def _measure(args: argparse.Namespace) -> Report:
    rng = np.random.default_rng(args.seed)
    worlds = [_ideal(releases, 4 * args.streams, rng) for releases in (4, 8)]
    if args.rendered or args.data:
        worlds += _of_family(args, rng)
    rows = [["codes", "device", "event", "lasting", "spent", "falls found", "at alarms/h"]]
    figures: dict[str, Any] = {}
    for world in worlds:
        found = figures[world.name] = {}
        for device in _devices(world):
            made = found[device.name] = _play_world(world, device, rng)
            cells = [f"{made[key]:.3g}" for key in ("event_S2", "lasting_S2", "spent_S2", "found", "alarms_per_hour")]
            rows.append([world.name, device.name, *cells])
    first = figures[worlds[0].name]
    ratio = first["adaptive_level"]["found"] / first["fixed, same hour"]["found"]
    notes = [
        "event: S^2 certified for an event; lasting: S^2 certified for as many releases of a lasting stream;",
        "spent: S^2 spent on as many releases of normal life, on average",
    ]
    return Report(ratio, figures, rows, notes, page_rows=[row for row in rows if not row[0].endswith("clips")])


def _devices(world: World) -> list[Device]:
    """The fixed profiles and the adaptive level between them, around the noise that the classifier was trained at."""
    clip_norm, releases = world.clip_norm, world.releases
    by_name = {name: sigma_for(clip_norm, shift, releases) for name, shift in PROFILES.items()}
    sigmas = tuple(sorted({*by_name.values(), world.sigma}, reverse=True))
    level = sigmas.index(world.sigma)
    rule = LevelRule.around(world.directions, clip_norm, sigmas, level, releases)
    lasting = AdaptiveLevel(rule, clip_norm, sigmas, releases).most(100_000) / 100_000
    even = sigma_for(clip_norm, float(lasting * releases) ** 0.5, releases)
    return [
        Device("fixed", (world.sigma,)),
        Device("strict", (by_name["strict"],)),
        Device("fixed, same hour", (even,)),
        Device("adaptive_level", sigmas, rule),
    ]


def _play_world(world: World, device: Device, rng: np.random.Generator) -> dict[str, float]:
    """What the device is certified for, what it spent, and the share of falls that the classifier finds."""
    price = Fraction(world.clip_norm) ** 2 / device.sigmas[0] ** 2
    event, lasting = float(world.releases * price), float(world.releases * price)
    if device.rule is not None:
        adaptive_level = AdaptiveLevel(device.rule, world.clip_norm, device.sigmas, world.releases)
        event = float(adaptive_level.most(world.releases))
        lasting = float(world.releases * adaptive_level.most(86_400) / 86_400)
    spent, highest = [], []
    for codes in world.normal:
        z, costs = _play(codes, world, device, rng)
        risk = world.reader(z)[_WARM:]
        highest += risk[: len(risk) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).max(axis=1).tolist()
        spent.append(costs[_WARM:].mean())
    threshold = float(np.quantile(highest, 1.0 - world.alarms * _BLOCK / 3600.0))
    found = []
    for codes, first, last in world.falls:
        risk = world.reader(_play(codes, world, device, rng)[0])
        found.append(bool(risk[first : last + 1 + _LATE].max() > threshold))
    return {
        "event_S2": event,
        "lasting_S2": lasting,
        "spent_S2": float(world.releases * np.mean(spent)),
        "found": float(np.mean(found)),
        "alarms_per_hour": world.alarms,
        "normal_hours": len(highest) * _BLOCK / 3600.0,
        "falls": len(found),
    }


def _play(codes: F64, world: World, device: Device, rng: np.random.Generator) -> tuple[F64, F64]:
    """Releases of a stream (T, n), weighted by level as a classifier gets them, and the S^2 of each (T,)."""
    noise = rng.standard_normal(codes.shape)
    prices = [world.clip_norm**2 / float(sigma) ** 2 for sigma in device.sigmas]
    weights = [level_weight(world.sigma, sigma) for sigma in device.sigmas]
    if device.rule is None:
        z = np.rint(codes + noise * float(device.sigmas[0]))
        return z * weights[0], np.full(len(codes), prices[0])
    adaptive_level = AdaptiveLevel(device.rule, world.clip_norm, device.sigmas, world.releases)
    read, spent = np.empty_like(codes), np.empty(len(codes))
    for slot, code in enumerate(codes):
        level = adaptive_level.level
        z16 = np.rint(code + noise[slot] * float(device.sigmas[level])).astype(np.int16)
        adaptive_level.advance(level, z16)
        read[slot], spent[slot] = z16 * weights[level], prices[level]
    return read, spent


# --- ideal codes, and the classifier that knows them


def _prototypes(clip_norm: int, n: int) -> F64:
    """Codes (2, n) of norm about C of no risk and of a fall, at opposite ends."""
    direction = np.random.default_rng(1).standard_normal(n)
    prototype = np.trunc(direction / np.linalg.norm(direction) * clip_norm)
    return np.stack((prototype, -prototype))


def _ideal(seen: int, streams: int, rng: np.random.Generator) -> World:
    """Perfect codes at opposite ends of the ball; a fall shows in `seen` releases."""
    clip_norm, n, releases, sigma = 64, 64, 8, sigma_for(64, PROFILES["balanced"])
    normal, fall = _prototypes(clip_norm, n)
    falls = []
    for _ in range(streams):
        codes = np.tile(normal, (_WARM + 40, 1))
        first = int(rng.integers(_WARM, _WARM + 20))
        codes[first : first + seen] = fall
        falls.append((codes, first, first + seen - 1))
    towards = fall - normal
    reader = _likelihood(towards / float(sigma) ** 2, releases)
    life = [np.tile(normal, (_WARM + 200, 1))] * streams
    rows, name = [towards.astype(int).tolist()], f"ideal, fall in {seen} releases"
    return World(name, clip_norm, releases, sigma, rows, life, falls, reader, 1.0)


def _likelihood(weights: F64, releases: int) -> Reader:
    """The exact classifier of ideal codes: the best log-likelihood ratio over all onsets within an event."""

    def read(z: F64) -> F64:
        total = np.concatenate(([0.0], np.cumsum(z @ weights)))
        spans = [np.r_[np.full(k - 1, -np.inf), total[k:] - total[:-k]] for k in range(1, releases + 1)]
        return np.asarray(np.max(spans, axis=0))

    return read


# --- codes of a family, and its edge member


def _of_family(args: argparse.Namespace, rng: np.random.Generator) -> list[World]:
    """Worlds of held-out rendered clips and of real ones: normal clips strung together, a fall's clip put in."""
    import torch  # these load torch, which the help text does not need

    from familial.data.clips import read_manifests
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import clip_codes
    from familial.evaluate.footage import family_footage
    from familial.model import checkpoint

    torch.set_num_threads(1)
    family = checkpoint.load(args.checkpoint)
    labels, window = family.config.labels, family.config.window
    found: dict[str, list[tuple[str, F64]]] = {}
    if args.rendered:
        seeds = clip_seeds("adaptive_level", args.rendered)
        for made in rendered_clips(seeds, labels, window, processes=1):
            found.setdefault("rendered", []).append((labels[made.label], _flat(clip_codes(family, made.footage))))
    for clip in read_manifests([args.data], labels) if args.data else []:
        if clip.set in args.sets and clip.label in ("normal", "fall"):
            codes = _flat(clip_codes(family, family_footage(clip.file, family.config)))
            found.setdefault(clip.set, []).append((clip.label, codes))
    return [_strung(name, clips, family, args.streams, rng) for name, clips in found.items()]


def _flat(codes: Any) -> F64:
    return np.asarray(codes.flatten(1).numpy(), np.float64)


def _strung(
    name: str, clips: Sequence[tuple[str, F64]], family: Family, streams: int, rng: np.random.Generator
) -> World:
    from export.trace import directions

    config = family.config
    life = [codes for label, codes in clips if label == "normal"]
    fallen = [codes for label, codes in clips if label == "fall"]

    def string(length: int) -> F64:
        parts: list[F64] = []
        while sum(map(len, parts)) < length:
            parts.append(life[int(rng.integers(len(life)))])
        return np.concatenate(parts)[:length]

    falls = []
    for k in range(streams):
        fall = fallen[k % len(fallen)][:32]
        codes = np.concatenate((string(_WARM + 8), fall, string(_LATE)))
        falls.append((codes, _WARM + 8, _WARM + 7 + len(fall)))
    normal = [string(_WARM + 200) for _ in range(streams)]
    clip_norm, releases = config.clip_norm, config.event_releases
    sigma, rows = sigma_for(clip_norm, PROFILES[config.profile], releases), directions(config)
    return World(f"{name} clips", clip_norm, releases, sigma, rows, normal, falls, _member(family), 30.0)


def _member(family: Family) -> Reader:
    """The edge member: log-odds of any risk, events of as many releases as there are, at most an event's."""
    import torch

    config = family.config
    shape = (config.event_releases, config.tokens, config.width)

    @torch.inference_mode()
    def read(z: F64) -> F64:
        padded = np.concatenate((np.zeros((shape[0] - 1, z.shape[1])), np.rint(z)))
        slots = np.arange(len(z))[:, None] + np.arange(shape[0])  # of `padded`
        events = torch.from_numpy(padded[slots]).float().reshape(-1, *shape)
        logits = family.edge_logits(events, torch.from_numpy(slots >= shape[0] - 1)).double()
        return np.asarray((torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]).numpy())

    return read


COMMAND = Benchmark(
    "adaptive_level", __doc__, "the fixed profile that may spend as much in an hour", _options, _measure
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
