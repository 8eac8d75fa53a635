"""The desensitizer (features -> code) and the trusted core (code + noise -> z).

    features (B, F) --map--> x float (B, K, d), |x| < C --core, integers only--> mu, |mu| <= C --+ noise--> z int32

`trusted_core` is the only part of the family on which the promise rests; it holds for any x, NaN and infinity included.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ASIDE", "Z_MAX", "Desensitizer", "code_plane", "straight_through", "trusted_code", "trusted_core"]

Z_MAX = 32767  # z travels as int16
_BOUND = 16.0  # keeps the squares of the map finite in half precision
_PLANE = 5  # seed of the directions in which the class prototypes lie
ASIDE = 0.5  # of the radius: how far a code may lean out of the labels' plane; they lose 1 - cos 30 degrees at most


def code_plane(tokens: int, width: int, rank: int = 2) -> Tensor:
    """`rank` orthonormal directions (K, d, rank) of no particular orientation, the same for every family; the first two
    are the same at any rank.

    Directions along the axes would round all coordinates alike and trip the norm guard; random ones do not.
    """
    source = torch.Generator().manual_seed(_PLANE)
    counts = (rank,) if rank <= 2 else (2, rank - 2)
    with torch.device("cpu"):  # the same numbers on every device
        drawn = [torch.randn(tokens * width, count, generator=source, dtype=torch.float64) for count in counts]
        directions: Tensor = torch.linalg.qr(torch.cat(drawn, dim=1))[0]
    return directions.float().reshape(tokens, width, rank).to(torch.get_default_device())


class Desensitizer(nn.Module):
    """Pooled features -> x float (B, K, d) of norm below C - 1, so that rounding practically never trips the guard.

    The radius is soft, h / sqrt(1 + |h|^2): a window of which the network is unsure may lie near the centre.
    rank: how many directions the labels have (`code_plane`), 0 for all. The noise limits how much a release says
    whatever it is about; a narrow code has no room for much but the verdict. aside: how many more there are for further
    answers; a code may lean into those by half of the radius, which leaves the labels 0.87 of it where it does.
    """

    plane: Tensor | None

    def __init__(
        self,
        features: int,
        hidden: int,
        tokens: int,
        width: int,
        clip_norm: int,
        rank: int = 0,
        aside: int = 0,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens, self.width, self.radius, self.rank = tokens, width, float(clip_norm - 1), rank
        self.inner = nn.Linear(features, hidden)
        self.outer = nn.Linear(hidden, rank + aside or tokens * width)
        self.drop = nn.Dropout(drop)
        plane = code_plane(tokens, width, rank + aside).flatten(0, 1).T if rank else None
        self.register_buffer("plane", plane, persistent=False)
        nn.init.normal_(self.outer.weight, std=0.005)  # begin near the centre: a code at the rim hardly moves
        nn.init.zeros_(self.outer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) -> x float (B, K, d), lattice units."""
        h = self.outer(self.drop(torch.nn.functional.gelu(self.inner(self.drop(features)))))
        h = torch.clamp(h, -_BOUND, _BOUND)
        if self.plane is None or len(self.plane) == self.rank:
            x = _soft(h) * self.radius
        else:
            aside = ASIDE * _soft(h[:, self.rank :])
            along = _soft(h[:, : self.rank]) * torch.sqrt(1.0 - (aside * aside).sum(dim=1, keepdim=True))
            x = torch.cat((along, aside), dim=1) * self.radius
        if self.plane is not None:
            x = x @ self.plane
        return x.reshape(-1, self.tokens, self.width)


def _soft(h: Tensor) -> Tensor:
    """h (B, n) of any length -> the same direction, length below 1."""
    return h * torch.rsqrt(1.0 + (h * h).sum(dim=1, keepdim=True))


def trusted_code(x: Tensor, clip_norm: int) -> Tensor:
    """x float (B, K, d) -> mu int32 (B, K, d) with |mu| <= C for ANY x: steps 1 and 2 of the trusted core.

    a: rounded, b: truncated, both clipped per coordinate, which catches whatever NaN and infinity became. mu is a where
    its squared norm is at most C^2, else b where its is, else 0. Integers of 32 bits; n * C^2 < 2^31 keeps sums exact.
    """
    a = torch.round(x).to(torch.int32).clamp(-clip_norm, clip_norm)
    b = torch.trunc(x).to(torch.int32).clamp(-clip_norm, clip_norm)
    a_fits = (a * a).sum(dim=(1, 2), keepdim=True, dtype=torch.int32) <= clip_norm * clip_norm
    b_fits = (b * b).sum(dim=(1, 2), keepdim=True, dtype=torch.int32) <= clip_norm * clip_norm
    return torch.where(a_fits, a, torch.where(b_fits, b, torch.zeros_like(b)))


def trusted_core(x: Tensor, noise: Tensor, clip_norm: int) -> Tensor:
    """x float, noise int32, both (B, K, d) -> z int32 (B, K, d) in int16's range: the whole trusted core, noise
    used once."""
    return (trusted_code(x, clip_norm) + noise).clamp(-Z_MAX - 1, Z_MAX)


def straight_through(x: Tensor, clip_norm: int) -> Tensor:
    """For training: the value of `trusted_code` as float, with the gradient of the identity."""
    return x + (trusted_code(x.detach(), clip_norm).to(x.dtype) - x.detach())
