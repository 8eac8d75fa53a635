"""The people tower: what the tracks of a window say, person by person, then over the persons.

tracks (B, F, P, 56) --`pose_features`--> (B * P, FEATURES, F)
    --convolutions over time, halved twice--> (B * P, width, F / 4)
    --mean, maximum and end--> (B, P, width) --maximum and sum over those that are seen--> (B, 2 * width + 2)
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d
from torch.nn.utils import fuse_conv_bn_eval

from familial.model.pose_features import FEATURES, pose_features

__all__ = ["PeopleTower"]

_KERNEL = 5


class PeopleTower(nn.Module):
    """One network for all tracks of a window.

    Args:
        width: of the convolutions, and of a person's features.
        drop: dropout rate on the pose and before a person's features, in training.
    """

    def __init__(self, width: int, drop: float = 0.1) -> None:
        super().__init__()
        self.features = 2 * width + 2
        self.first = nn.Conv1d(FEATURES, width, kernel_size=1, bias=False)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size=_KERNEL, padding=_KERNEL // 2, bias=False) for _ in range(4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(5))
        self.inner = nn.Linear(3 * width, width)
        self.drop = nn.Dropout(drop)

    def forward(self, people: Tensor) -> Tensor:
        """Tracks, int or float (B, F, P, VALUES) -> (B, features)."""
        seen, there = pose_features(people.float())
        each = self._seen_ones(seen, there) if self.training else self._persons(seen.flatten(0, 1))
        each = each.reshape(*there.shape[:2], -1)
        share = there.mean(dim=2)  # (B, P)
        known = torch.clamp(share * 20.0, 0.0, 1.0)[:, :, None]
        most, total = (each * known).amax(dim=1), (each * known).sum(dim=1) * 0.5
        anybody = torch.stack((there.amax(dim=1).mean(dim=1), share.sum(dim=1)), dim=1)
        return torch.cat((most, total, anybody), dim=1)

    def _persons(self, seen: Tensor) -> Tensor:
        """Features (N, FEATURES, F) of N tracks -> (N, width)."""
        x = torch.relu(self.norms[0](self.first(self.drop(seen))))
        for index, (conv, norm) in enumerate(zip(self.convs, list(self.norms)[1:], strict=True)):
            x = x + torch.relu(norm(conv(x)))
            if index in (0, 1):
                x = avg_pool1d(x, 2)
        end = x[:, :, -4:].mean(dim=2)  # the last 2 s
        each = torch.cat((x.mean(dim=2), x.amax(dim=2), end), dim=1)
        return torch.relu(self.inner(self.drop(each)))

    def _seen_ones(self, seen: Tensor, there: Tensor) -> Tensor:
        """As `_persons`, for training: tracks without anybody are not computed, and do not count in the means.

        Args:
            seen: float (B, P, FEATURES, F).
            there: float (B, P, F).

        Returns:
            float (B * P, width), zeros for the tracks that were left out; nothing reads them.
        """
        anybody = (there.amax(dim=2) > 0).flatten()
        made = seen.new_zeros(len(anybody), self.inner.out_features)
        if int(anybody.sum()) > 1:  # a mean over one is no mean
            made[anybody] = self._persons(seen.flatten(0, 1)[anybody]).to(made.dtype)
        return made

    def for_export(self) -> PeopleTower:
        """A copy with the batch norms folded into the convolutions."""
        copied = copy.deepcopy(self).eval()
        norms = [cast(nn.BatchNorm1d, norm) for norm in copied.norms]
        copied.first = fuse_conv_bn_eval(copied.first, norms[0])
        convs = zip(copied.convs, norms[1:], strict=True)
        copied.convs = nn.ModuleList(fuse_conv_bn_eval(cast(nn.Conv1d, conv), norm) for conv, norm in convs)
        copied.norms = nn.ModuleList(nn.Identity() for _ in norms)
        return copied
