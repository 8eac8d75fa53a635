"""Inference on a clip as device and cloud do it: clean codes, noised events, label probabilities, a verdict.

    clip -> windows, slot by slot -> clean codes (S, K, d), in this process only -> + noise -> events of 8 releases,
         stride 1 -> label probabilities of each event (E, L) -> of the clip (L,) -> its label

A clip shorter than an event is read once, with the releases that exist. Letters in shapes: S slots, K x d a code,
D noise samples, E events, R releases of an event, L labels.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from familial.data.clips import Footage, slots
from familial.data.events import Grid
from familial.data.people_views import people_at, tracks_of
from familial.model.code_space import rounded_gaussian
from familial.model.encoder import Encoder
from familial.model.family import Family
from wire.errors import CheckpointError, ConfigError
from wire.privacy.certificate import PROFILES, sigma_for

__all__ = [
    "RAREST",
    "Probabilities",
    "clip_codes",
    "clip_probabilities",
    "clip_verdict",
    "decide",
    "event_probabilities",
    "events_of",
    "first_verdicts",
    "sigma_of",
]

Probabilities = npt.NDArray[np.float64]
RAREST = 1e-6
"""Lower bound on every probability, so that no single event alone decides the odds of a clip."""

_BATCH = 512  # events in one forward pass
_SLOTS = 16  # encoded at once: neighbouring windows share frames


def sigma_of(folder: Path, family: Family, profile: str | None) -> tuple[str, Fraction]:
    """Return the profile's name and sigma, in lattice units.

    They are those of `profile` where it is given, else of the checkpoint's noise.json, else of its training profile.

    Raises:
        ConfigError: no such profile.
        CheckpointError: noise.json is damaged.
    """
    config = family.config
    if profile is not None:
        if profile not in PROFILES:
            raise ConfigError(f"--profile {profile}: known are {', '.join(PROFILES)}")
        return profile, sigma_for(config.clip_norm, PROFILES[profile], config.event_releases)
    path = folder / "noise.json"
    if not path.is_file():
        return config.profile, sigma_for(config.clip_norm, PROFILES[config.profile], config.event_releases)
    try:
        found = json.loads(path.read_text())
        return str(found["profile"]), Fraction(found["sigma"])
    except (KeyError, ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{path}: {error!r}; write it again with calibration.noise") from error


def clip_codes(family: Family, footage: Footage) -> Tensor:
    """Return the clean codes float (S, K, d) of a clip's slots.

    They are for noise to be added to and never leave the process.
    """
    spec = family.config.window
    count = slots(footage.duration, spec)
    encode, parts = Encoder(family), []
    for first in range(0, count, _SLOTS):
        grid = Grid.of(spec, min(_SLOTS, count - first))
        last = spec.slot_s * (first + len(grid.index))
        picked = spec.held(footage.times, last - grid.before_s)
        frames = np.zeros((len(picked), spec.height, spec.width), np.uint8)
        if len(footage.frames):  # a clip of people alone has none
            frames[picked >= 0] = footage.frames[picked[picked >= 0]]
        tracks = None
        if family.tower.sees_people:
            tracks = tracks_of(people_at(footage, 0.0, last - grid.before_s, spec)[None], grid.index)[0]
        parts.append(encode.sequence(frames, grid.index, tracks))
    return torch.as_tensor(np.concatenate(parts)).float()


def events_of(z: Tensor, releases: int) -> tuple[Tensor, Tensor]:
    """Cut releases (D, S, K, d) into events (D, E, R, K, d) and their presence bool (E, R).

    All whole events with stride 1, or one short one where the clip has fewer than `releases` slots.
    """
    samples, count = z.shape[:2]
    if count < releases:
        padded = torch.zeros(samples, releases, *z.shape[2:])
        padded[:, releases - count :] = z
        present = torch.arange(releases) >= releases - count
        return padded[:, None], present[None]
    stacked = torch.stack([z[:, i : i + releases] for i in range(count - releases + 1)], dim=1)
    return stacked, torch.ones(count - releases + 1, releases, dtype=torch.bool)


@torch.inference_mode()
def event_probabilities(family: Family, z: Tensor, member: str) -> Probabilities:
    """Return the label probabilities (D, E, L) of a clip's events.

    Args:
        family: whose member reads them.
        z: noised releases float (D, S, K, d) of D independent noise samples.
        member: "edge" or "cloud".
    """
    events, present = events_of(z, family.config.event_releases)
    samples, count = events.shape[:2]
    flat, there = events.flatten(0, 1), present.repeat(samples, 1)  # (D * E, R, K, d), (D * E, R)
    read = {"edge": family.edge_logits, "cloud": family.cloud_logits}[member]
    logits = torch.cat([read(flat[i : i + _BATCH], there[i : i + _BATCH]) for i in range(0, len(flat), _BATCH)])
    return np.asarray(logits.double().softmax(dim=1).reshape(samples, count, -1).cpu().numpy())


def clip_probabilities(probabilities: Probabilities) -> Probabilities:
    """Turn event probabilities (..., E, L) of one clip into label probabilities (..., L) of the clip.

    Odds of each risk against label 0, averaged over the events: what Bayes gives where the risk may be at any of them
    with equal chance. The riskiest event instead would call a clip a risk the more often, the longer it is, since every
    event is another sample of the noise.
    """
    odds = (probabilities / np.clip(probabilities[..., :1], RAREST, None)).mean(axis=-2)
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))


def clip_verdict(probabilities: Probabilities, decision_threshold: float = 0.5) -> tuple[int, float]:
    """Decide on event probabilities (E, L) of one clip: `decide` on its `clip_probabilities`."""
    return decide(clip_probabilities(probabilities), decision_threshold)


def decide(clip: Probabilities, decision_threshold: float) -> tuple[int, float]:
    """Return the label index of a clip's probabilities (L,), and that label's probability.

    The likeliest risk label if the risk, 1 - P(label 0), is at least `decision_threshold`; else label 0.
    """
    risk = 1.0 - float(clip[0])
    if risk < decision_threshold:
        return 0, 1.0 - risk
    label = 1 + int(np.argmax(clip[1:]))
    return label, float(clip[label])


def first_verdicts(
    family: Family,
    footage: Footage,
    onset_s: float,
    member: str,
    sigma: float,
    samples: int = 2000,
    label: str = "fall",
    within_s: float = 4.0,
) -> dict[str, float]:
    """Measure how soon the first event whose likeliest label is `label` ends after the onset.

    Whole events only, stride 1, from the slot that completes the first.

    Args:
        family: whose member reads the events.
        footage: the clip.
        onset_s: when it happens, seconds from the clip's start.
        member: "edge" or "cloud".
        sigma: of the noise, in lattice units.
        samples: noise samples, each of the whole clip.
        label: the one that counts.
        within_s: what counts as in time, seconds after the onset.

    Returns:
        The shares of noise samples that were `in_time`, `early` (before the onset), `late` and `never`, and the median
        `delay_s` of those in time, NaN where there is none.
    """
    clean = clip_codes(family, footage)
    index = family.config.labels.index(label)
    parts = []
    for begin in range(0, samples, 250):
        z = clean[None].expand(min(250, samples - begin), *clean.shape)
        parts.append(event_probabilities(family, z + rounded_gaussian(z, sigma), member).argmax(axis=2) == index)
    named = np.concatenate(parts)  # (D, E)
    slot = family.config.window.slot_s
    ends = slot * (np.arange(named.shape[1]) + min(family.config.event_releases, len(clean)))
    delay = np.where(named.any(axis=1), ends[named.argmax(axis=1)] - onset_s, np.inf)
    in_time = (delay >= 0) & (delay <= within_s)
    return {
        "in_time": float(in_time.mean()),
        "early": float((delay < 0).mean()),
        "late": float((np.isfinite(delay) & (delay > within_s)).mean()),
        "never": float(np.isinf(delay).mean()),
        "delay_s": float(np.median(delay[in_time])) if in_time.any() else float("nan"),
    }
