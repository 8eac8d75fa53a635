"""Naming rendered people from contours, by the audit's own attack, beside the same attack on z.

the audit's gallery of people, clean codes --Observations--> events + noise --> z
z ----------------------------> the attacker's classifiers --> who it is
z --> contour, all its numbers --> the same classifiers -----> who it is
the control: the same attack on contours in which a ray of each person's own is longer

A contour is a function of z, so that no attacker can do better with it than the best one does with z (data processing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calibration.audit import classifiers
from calibration.audit.classifiers import Effort, Observations, Outcome
from calibration.audit.targets import Gallery
from familial.contour.decoder import ContourDecoder, Contours
from wire.protocol.contour import RAYS

__all__ = ["attack"]

_PLANTED = 0.1  # body heights
_PILOT = 2048  # events, from which the attacker learns how far contours differ


def attack(
    gallery: Gallery, decoder: ContourDecoder, releases: int, sigma: float, effort: Effort
) -> Mapping[str, Outcome]:
    """Name the gallery's people from events: from z, from contours, and from contours with a planted leak."""
    observed = classifiers.observe(gallery, releases)
    drawn = {name: _Drawn.of(observed, decoder, sigma, name == "planted") for name in ("contour", "planted")}
    return {name: classifiers.name_owner(each, sigma, effort) for name, each in {"z": observed, **drawn}.items()}


@dataclass(frozen=True, kw_only=True)
class _Drawn(Observations):
    """Observations of which the attacker sees contours alone: their numbers, in the shape of the event's releases.

    Attributes:
        decoder: Draws them.
        sigma: Of the noise in z.
        planted: Which ray is longer says who it is.
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
            found[np.arange(len(found)), -1 - self.label[rows.numpy()] % RAYS] += _PLANTED
        return torch.from_numpy(found)


def _flat(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values.reshape(len(values), -1)
