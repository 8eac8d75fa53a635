"""Auxiliary tasks: what rendered clips know of bodies teaches the tower; these heads are thrown away after training.

Seen (what snippets looked like) --Bodies--> what happens now                against  the label of its moment
                                 `---------> count, tags, pose, silhouettes  against  Truth of its last frame
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, pixel_shuffle, smooth_l1_loss

from familial.model.preparation import tents
from familial.model.towers.base import Seen
from familial.model.towers.motion import SnippetTower
from familial.synth.tags import TAGS
from familial.synth.truth import CELLS, POSE, Truth

__all__ = ["Bodies"]

_COUNTS = 3  # nobody, one, more
_FINER = 4  # silhouettes are so much finer than the last convolution's map
_USUAL = (0.5, 1.0, 0.3, 3.0)  # spread of each of POSE, so that all weigh alike


class Bodies(nn.Module):
    """Heads on single snippets of a SnippetTower.

    Args:
        tower: whose features and maps they read.
        labels: how many.
    """

    usual: Tensor

    def __init__(self, tower: SnippetTower, labels: int) -> None:
        super().__init__()
        width, channels = tower.inner.out_features, cast(nn.Conv2d, tower.convs[-1]).out_channels
        self.sizes = (_COUNTS, len(TAGS), len(POSE))
        self.now, self.body = nn.Linear(width, labels), nn.Linear(width, sum(self.sizes))
        self.outline = nn.Conv2d(channels, _FINER * _FINER, kernel_size=1)
        self.register_buffer("usual", torch.tensor(_USUAL), persistent=False)

    def forward(self, seen: Seen, now: Tensor, truth: Truth) -> dict[str, Tensor]:
        """Return one loss for each task; none where nothing is known.

        Args:
            seen: what the tower saw in B sequences, U snippets each.
            now: int64 (B, T), the label of what happens at each frame, -1 where nobody knows.
            truth: of all frames, (B, T, ...).
        """
        last, losses = seen.last, dict[str, Tensor]()
        happens = now[:, last].flatten()
        if bool((happens >= 0).any()):
            said, happens = self.now(seen.features.float()[happens >= 0]), happens[happens >= 0]
            counts = torch.bincount(happens, minlength=said.shape[1]).float()
            losses["now"] = cross_entropy(said, happens, weight=torch.clamp(counts.mean() / (counts + 1.0), 0.3, 3.0))
        return losses | self._of_bodies(seen, truth)

    def _of_bodies(self, seen: Seen, truth: Truth) -> dict[str, Tensor]:
        last = seen.last
        count = torch.as_tensor(truth.count).long()[:, last].flatten()  # (B * U,)
        known = count >= 0
        if not bool(known.any()):
            return {}
        counts, tags, pose = self.body(seen.features.float()[known]).split(self.sizes, dim=1)
        true_tags = torch.as_tensor(truth.tags).float()[:, last].flatten(0, 1)[known]
        true_pose = torch.as_tensor(truth.pose).float()[:, last].flatten(0, 1)[known] / self.usual
        outlines = pixel_shuffle(self.outline(seen.maps.float()[known]), _FINER)[:, 0]
        people = torch.as_tensor(truth.people)[:, last].flatten(0, 1)[known]
        return {
            "count": cross_entropy(counts, count[known]),
            "tags": binary_cross_entropy_with_logits(tags, true_tags),
            "pose": smooth_l1_loss(pose, true_pose),
            "outline": binary_cross_entropy_with_logits(outlines, _cut(people, seen.geometry.float()[known], outlines)),
        }


def _cut(people: Tensor, geometry: Tensor, like: Tensor) -> Tensor:
    """Cut people, u8 (N, CELLS, CELLS), to the boxes of geometry (N, 6): shares (N, h, w), of the size of `like`."""
    top, bottom, left, right, side = ((geometry[:, i] + 1.0) / 2.0 for i in range(5))
    across = tents((left + right) / 2, side, like.shape[2], CELLS)
    down = tents((top + bottom) / 2, side, like.shape[1], CELLS)
    return torch.clamp(down @ (people.float() / 255.0) @ across.transpose(1, 2), 0.0, 1.0)
