"""Sets of clips as environments: what helps in every set, and not in the commonest alone (V-REx).

    set and loss of each clip --a running mean for each set--> the weight of each clip's loss

V-REx (Krueger et al. 2021, "Out-of-Distribution Generalization via Risk Extrapolation", ICML) adds to the mean of the
sets' losses a multiple of their variance. Its gradient is that of a weighted mean: a set's weight grows by as much as
its loss lies above the mean of all. A step sees few clips of a set, so the losses that decide are running means.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SetWeights"]

_FOLLOW = 0.1  # of the way to the newest loss of a set


class SetWeights:
    """The weight of each clip's loss, by its set.

    Args:
        variance: multiple of the variance of the sets' losses; 0: every weight is 1.
    """

    def __init__(self, variance: float) -> None:
        self.variance = variance
        self.losses = dict[str, float]()

    def of(self, sets: Sequence[str]) -> Tensor:
        """Weights float (B,) of clips of these sets, none below 0; 1 for a set that was not seen before."""
        mean = sum(self.losses.values()) / max(1, len(self.losses))
        above = torch.tensor([self.losses.get(name, mean) - mean for name in sets])
        return torch.clamp(1.0 + 2.0 * self.variance * above, min=0.0)

    def see(self, sets: Sequence[str], losses: Tensor) -> None:
        """Follow the losses float (B,) of clips of these sets."""
        for name, loss in zip(sets, losses.detach().tolist(), strict=True):
            before = self.losses.get(name, loss)
            self.losses[name] = before + _FOLLOW * (loss - before)
