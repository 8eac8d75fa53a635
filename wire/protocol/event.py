"""An event: the last releases of one camera in slot order, gaps marked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = ["EventSpan", "EventWindow", "level_noise", "level_weight"]


def level_weight(trained: Fraction | float, level: Fraction | float) -> float:
    """The factor by which a release of a noise level is multiplied before a decoder reads it: (trained / level)^1.5.

    Log-likelihood ratios of codes of equal norm are linear in z / sigma^2, which asks for a power of 2. A decoder that
    was trained at one sigma knows noise of that size alone, which asks for a power of 1: what is much smaller it reads
    as nothing. Between both, what it states is calibrated best at S = 1 and as well as with 2 at S = 2 (log, November
    2026). The same on every machine: a square root is rounded correctly, a power is not.

    Args:
        trained: The sigma that the decoder was trained at.
        level: The sigma of the level, in the same units.
    """
    ratio = float(trained / level)
    return ratio * math.sqrt(ratio)


def level_noise(weight: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The noise of levels with these weights, their sigma over the trained one; what `level_weight` turns into them."""
    return np.cbrt(np.square(1.0 / np.asarray(weight, np.float64)))


@dataclass(frozen=True, slots=True)
class EventSpan:
    """Which slots an event spans, and which of them have a release.

    Attributes:
        first_slot: Its first slot.
        last_slot: Its last slot.
        present: One bool for each release, oldest first.
    """

    first_slot: int
    last_slot: int
    present: tuple[bool, ...]


class EventWindow:
    """A sliding view of the last `releases` slots.

    After `push(slot, z)` the arrays describe the slots slot - releases + 1 .. slot, oldest first. They belong to the
    window and are overwritten by the next push: copy what you keep.

    Attributes:
        z: int32 (releases, K, d), each release times the weight of its level; zeros for a missing slot.
        present: bool (releases,), False for a missing slot.
        weights: float64 (releases,), those of their levels; 1 for a missing slot.
        last_slot: The newest slot; -1 before the first release.
    """

    def __init__(self, releases: int, tokens: int, width: int) -> None:
        self.z: npt.NDArray[np.int32] = np.zeros((releases, tokens, width), np.int32)
        self.present: npt.NDArray[np.bool_] = np.zeros(releases, np.bool_)
        self.weights: npt.NDArray[np.float64] = np.ones(releases)
        self.last_slot = -1

    @property
    def first_slot(self) -> int:
        """Number of the first slot that the event spans; never below 0."""
        return max(0, self.last_slot - len(self.present) + 1)

    @property
    def count(self) -> int:
        """Releases that are present."""
        return int(self.present.sum())

    @property
    def whole(self) -> bool:
        """Whether as many slots as an event spans have passed since slot 0, gaps or not."""
        return self.last_slot + 1 >= len(self.present)

    def span(self) -> EventSpan:
        """The slots of the event as it is now."""
        return EventSpan(self.first_slot, self.last_slot, tuple(self.present.tolist()))

    def push(self, slot: int, z: npt.NDArray[np.int16], weight: float = 1.0) -> None:
        """Append a release. The product is rounded to whole numbers, which is far finer than the noise at any level.

        Args:
            slot: Its slot, larger than every slot before it.
            z: Code plus noise, int16 (n,).
            weight: The weight of its level.

        Raises:
            ValueError: `slot` is not larger than the last one.
        """
        if slot <= self.last_slot:
            raise ValueError(f"slot {slot} after slot {self.last_slot}: releases are pushed in slot order")
        self._advance(slot)
        self.z[-1] = (z if weight == 1.0 else np.rint(z * weight)).reshape(self.z.shape[1:])
        self.present[-1], self.weights[-1] = True, weight

    def _advance(self, slot: int) -> None:
        size = len(self.present)
        step = min(slot - self.last_slot, size)
        self.z[: size - step] = self.z[step:]  # NumPy copies where the two overlap
        self.present[: size - step] = self.present[step:]
        self.weights[: size - step] = self.weights[step:]
        self.z[size - step :], self.present[size - step :], self.weights[size - step :] = 0, False, 1.0
        self.last_slot = slot
