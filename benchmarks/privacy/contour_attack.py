"""Naming rendered people from contours, by the audit's own attack, beside the same attack on z.

people of the audit, rooms of theirs --render, errors of a person network, encode--> Gallery of clean codes
Gallery --Observations--> events + noise --> z ------------------------> the attacker's classifiers --> who it is
                                          `--> contour (all its numbers) --> the same classifiers ------> who it is
the control: the same attack on contours into which one ray's length was planted for each person

A contour is a function of z, so that no attacker can do better with it than the best one does with z (data processing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calibration.audit import classifiers
from calibration.audit.classifiers import Effort, Observations, Outcome
from calibration.audit.targets import Gallery, Shot, people
from familial.contour.decoder import ContourDecoder, Contours
from familial.data.clips import Footage, small_grey
from familial.evaluate.clip_inference import clip_codes
from familial.model.family import Family
from familial.synth.clip import render_clip
from familial.synth.detector_errors import detect
from familial.synth.people_clip import people_clip

__all__ = ["attack", "people_gallery"]

_SIZE, _FPS, _SECONDS = (120, 160), 12.0, 20.0
_PLANTED = 0.3  # body heights, from the first person to the last
_PILOT = 2048  # events, from which the attacker learns how far contours differ


def people_gallery(family: Family, count: int, clips: int) -> Gallery:
    """Return the clean codes of `count` rendered people, each in `clips` rooms of their own."""
    shots, owner, names = people(count, clips)
    codes = [_codes(family, shot) for shot in shots]
    return Gallery(
        codes=np.concatenate(codes),
        pictures=np.zeros((0, 0, 0), np.uint8),
        clip=np.repeat(np.arange(len(codes)), [len(each) for each in codes]),
        owner=owner,
        enrol=np.arange(len(shots)) % clips < (clips + 1) // 2,
        names=names,
        traits={},
        public=True,
    )


def attack(
    gallery: Gallery, decoder: ContourDecoder, releases: int, sigma: float, effort: Effort
) -> Mapping[str, Outcome]:
    """Name the gallery's people from events: from z, from contours, and from contours with a planted leak."""
    observed = classifiers.observe(gallery, releases)
    drawn = {name: _Drawn.of(observed, decoder, sigma, name == "planted") for name in ("contour", "planted")}
    return {name: classifiers.name_owner(each, sigma, effort) for name, each in {"z": observed, **drawn}.items()}


def _codes(family: Family, shot: Shot) -> npt.NDArray[np.int16]:
    """The codes int16 (S, n) of a clip, from where its windows are full; the person network's errors are drawn."""
    how: dict[str, Any] = {"size": _SIZE, "fps": _FPS, "seconds": _SECONDS, "cast": [shot.identity]}
    clip, exact = render_clip(shot.seed, shot.act, **how), people_clip(shot.seed, shot.act, **how).people
    spec = family.config.window
    small = np.stack([small_grey(frame, spec) for frame in clip.frames])
    found = detect(exact, np.random.default_rng([shot.seed, shot.identity]), exact.whole())
    footage = Footage(small, clip.times_s, len(small) / _FPS, found, exact.times_s)
    with torch.inference_mode():
        made = clip_codes(family, footage)
    first, last = int(np.ceil(spec.receptive_field_s / spec.slot_s)), int(_SECONDS / spec.slot_s)
    return made[first:last].flatten(1).round().numpy().astype(np.int16)


@dataclass(frozen=True, kw_only=True)
class _Drawn(Observations):
    """Observations of which the attacker sees contours alone: their numbers, in the shape of the event's releases.

    Attributes:
        decoder: Draws them.
        sigma: Of the noise in z.
        planted: One ray's length says who it is.
        mean: Of the numbers, which the attacker takes off.
        spread: Of the numbers, by which he divides them.
    """

    decoder: ContourDecoder
    sigma: float
    planted: bool
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, observed: Observations, decoder: ContourDecoder, sigma: float, planted: bool) -> _Drawn:
        """Draw what is observed; the attacker learns the numbers' scale from events of his own."""
        same = {each.name: getattr(observed, each.name) for each in fields(Observations)}
        plain = cls(**same, decoder=decoder, sigma=sigma, planted=planted, mean=torch.zeros(()), spread=torch.ones(()))
        pilot = plain.numbers(torch.randint(len(observed.codes), (_PILOT,)))
        return replace(plain, mean=pilot.mean(dim=0), spread=pilot.std(dim=0).clamp_min(1e-6))

    def noised(self, rows: Tensor, sigma: float) -> Tensor:
        """Return the numbers of the contours of fresh z, float (B, R, n), in units of their spread; zeros beyond."""
        numbers = (self.numbers(rows) - self.mean) / self.spread
        count, (releases, n) = len(rows), self.codes.shape[1:]
        made = torch.zeros(count, releases * n)
        made[:, : numbers.shape[1]] = numbers
        return made.reshape(count, releases, n)

    def numbers(self, rows: Tensor) -> Tensor:
        """Everything that contours of fresh z say, float (B, numbers)."""
        z = Observations.noised(self, rows, self.sigma) * self.sigma
        present = self.present[rows].numpy()
        drawn = self.decoder.read(z.reshape(*present.shape, 1, -1).numpy(), present, self.sigma)
        found = np.concatenate([_flat(getattr(drawn, each.name)) for each in fields(Contours)], axis=1)
        if self.planted:
            found[:, -1] += _PLANTED * self.label[rows.numpy()] / max(1, int(self.label.max()))
        return torch.from_numpy(found)


def _flat(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values.reshape(len(values), -1)
