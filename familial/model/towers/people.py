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
        batch, persons = there.shape[:2]
        x = self.drop(seen.flatten(0, 1))
        x = torch.relu(self.norms[0](self.first(x)))
        for index, (conv, norm) in enumerate(zip(self.convs, list(self.norms)[1:], strict=True)):
            x = x + torch.relu(norm(conv(x)))
            if index in (0, 1):
                x = avg_pool1d(x, 2)
        end = x[:, :, -4:].mean(dim=2)  # the last 2 s
        each = torch.cat((x.mean(dim=2), x.amax(dim=2), end), dim=1)
        each = torch.relu(self.inner(self.drop(each))).reshape(batch, persons, -1)
        share = there.mean(dim=2)  # (B, P)
        known = torch.clamp(share * 20.0, 0.0, 1.0)[:, :, None]
        most, total = (each * known).amax(dim=1), (each * known).sum(dim=1) * 0.5
        anybody = torch.stack((there.amax(dim=1).mean(dim=1), share.sum(dim=1)), dim=1)
        return torch.cat((most, total, anybody), dim=1)

    def for_export(self) -> PeopleTower:
        """A copy with the batch norms folded into the convolutions."""
        copied = copy.deepcopy(self).eval()
        norms = [cast(nn.BatchNorm1d, norm) for norm in copied.norms]
        copied.first = fuse_conv_bn_eval(copied.first, norms[0])
        convs = zip(copied.convs, norms[1:], strict=True)
        copied.convs = nn.ModuleList(fuse_conv_bn_eval(cast(nn.Conv1d, conv), norm) for conv, norm in convs)
        copied.norms = nn.ModuleList(nn.Identity() for _ in norms)
        return copied
