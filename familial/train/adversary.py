"""The re-identification adversary: it learns to tell which two noised events show the same scene.

    z of events (N, R, K, d) --reversed gradient--> embedding --> which of the others, of the same label and attribute,
                                                                  is from the same sequence?

An attacker who can do that can name places and people. One adversary represents attacks on place, identity and picture
alike: all of them need what two events of one scene share beyond the label. It is given the label, so the code is not
penalised for carrying it. The reversed gradient is that of Ganin and Lempitsky, "Unsupervised Domain Adaptation by
Backpropagation", 2015.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

__all__ = ["ReidentificationAdversary"]

_SHARP = 8.0  # scale of the cosines


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is negated and scaled."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


class ReidentificationAdversary(nn.Module):
    """How well events are linked, as a loss that the adversary lowers and the code, by a reversed gradient, raises.

    Args:
        coordinates: of a code, K * d.
        sigma: of the noise, in lattice units.
        hidden: width of the embedding network.
    """

    def __init__(self, coordinates: int, sigma: float, hidden: int = 128) -> None:
        super().__init__()
        self.scale = 1.0 / sigma
        self.look = nn.Sequential(nn.Linear(2 * coordinates, hidden), nn.GELU(), nn.Linear(hidden, 32))

    def forward(
        self, z: Tensor, present: Tensor, sequence: Tensor, kind: Tensor, weight: float
    ) -> tuple[Tensor, float]:
        """Return the loss and the share linked right beyond chance, at most 1.

        Args:
            z: noised events float (N, R, K, d).
            present: bool (N, R).
            sequence: int64 (N,), the sequence that each event is from.
            kind: int64 (N,), its label and attribute: only events of one kind are compared.
            weight: of the code's gradient.

        Returns:
            Both are 0 where no event has another one of its kind from its own sequence and one from a different one.
        """
        z = cast(Tensor, _Reversed.apply(z * self.scale, weight))  # type: ignore[no-untyped-call]
        there = present.float().sum(dim=1)[:, None]  # (N, 1)
        mean = z.flatten(2).sum(dim=1) / there.sqrt()
        slope = (z.flatten(2) * torch.linspace(-1.0, 1.0, z.shape[1])[:, None]).sum(dim=1) / there.sqrt()
        seen = normalize(self.look(torch.cat((mean, slope), dim=1)), dim=1)
        alike = _SHARP * seen @ seen.T
        itself = torch.eye(len(z), dtype=torch.bool)
        candidates = (kind[:, None] == kind) & ~itself
        partners = candidates & (sequence[:, None] == sequence)
        asked = partners.any(dim=1) & (candidates & ~partners).any(dim=1)
        if not bool(asked.any()):
            return alike.sum() * 0.0, 0.0
        alike, candidates, partners = alike[asked], candidates[asked], partners[asked]
        every = torch.logsumexp(alike.masked_fill(~candidates, -1e4), dim=1)
        right = torch.logsumexp(alike.masked_fill(~partners, -1e4), dim=1)
        chance = partners.sum(dim=1) / candidates.sum(dim=1)
        best = alike.masked_fill(~candidates, -1e4).argmax(dim=1, keepdim=True)
        found = partners.gather(1, best)[:, 0].float()
        above = float(((found - chance) / (1.0 - chance)).mean())
        return (every - right + torch.log(chance)).mean(), above
