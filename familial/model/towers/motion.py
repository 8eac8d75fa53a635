"""The motion tower: a small convolutional network over snippets of what moves, then over the snippets in their order.

frames (B, F, H, W) --8 frames, stride 4--> snippets (B * S, 8, H, W)
    --what moves, cropped and enlarged (`preparation`)--> (B * S, 7, crop, crop)
    --3 x 3 convolutions, mean and maximum--> (B, S, width) --convolutions over time--> (B, 3 * width)
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from familial.model.config import FamilyConfig
from familial.model.preparation import GEOMETRY, moving_parts
from familial.model.towers.base import Seen, Tower
from wire.errors import CheckpointError

__all__ = ["SnippetTower"]


class SnippetTower(Tower):
    """One convolutional network for all snippets of a window, and convolutions over their features in time.

    Neighbouring windows share snippets: `sequence` computes each snippet of a sequence once.

    Args:
        frames: of a window; `SPAN` plus a multiple of `STRIDE`.
        channels: of the convolutions, first to last; where the number changes, the map is halved.
        crop: side of the square in pixels to which the moving part of the frames is resampled.
        width: of one snippet's features.
        drop: dropout rate before the snippet's features, in training.
    """

    SPAN, STRIDE = 8, 4  # frames

    def __init__(self, frames: int, channels: tuple[int, ...], crop: int, width: int, drop: float = 0.1) -> None:
        super().__init__()
        if frames < self.SPAN or (frames - self.SPAN) % self.STRIDE:
            raise CheckpointError(
                f"window.context_frames + new_frames is {frames}, which snippets do not fill: make it 8, 12, 16, ..."
            )
        self.count, self.crop, self.features = (frames - self.SPAN) // self.STRIDE + 1, crop, 3 * width
        self.stem = nn.Conv2d(self.SPAN - 1, channels[0], kernel_size=5, stride=2, padding=2, bias=False)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=3, stride=2 if a != b else 1, padding=1, bias=False)
            for a, b in zip(channels, channels[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels)
        self.inner = nn.Linear(2 * channels[-1] + GEOMETRY, width)
        self.early = nn.Conv1d(width, width, kernel_size=3, padding=1)
        self.late = nn.Conv1d(width, width, kernel_size=3, padding=1)
        self.drop = nn.Dropout(drop)

    @classmethod
    def of_config(cls, config: FamilyConfig) -> SnippetTower:
        """A tower as wide as the backbone."""
        return cls(config.window.frames, config.channels, config.crop, config.hidden)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 or float (B, F, H, W) -> (B, features)."""
        parts = [frames[:, i * self.STRIDE : i * self.STRIDE + self.SPAN] for i in range(self.count)]
        snippets = torch.stack(parts, dim=1).flatten(0, 1)
        return self.over(self.snippets(snippets).reshape(-1, self.count, self.inner.out_features))

    def sequence(
        self, frames: Tensor, index: Tensor, people: Tensor | None = None, also: list[Seen] | None = None
    ) -> Tensor:
        """As `Tower.sequence`, with each snippet computed once."""
        starts = torch.arange(self.count) * self.STRIDE
        spans = index[:, starts[:, None] + torch.arange(self.SPAN)]  # (R, S, 8)
        own, place = torch.unique(spans.flatten(0, 1), dim=0, return_inverse=True)  # (U, 8), (R * S,)
        features, maps, geometry = self._look(frames[:, own].flatten(0, 1))
        if also is not None:
            also.append(Seen(own[:, -1], features, maps, geometry))
        seen = features.reshape(len(frames), len(own), -1)
        windows = seen[:, place].reshape(-1, self.count, seen.shape[2])
        return self.over(windows).reshape(len(frames), len(index), self.features)

    def snippets(self, frames: Tensor) -> Tensor:
        """Snippets u8 or float (N, 8, H, W) -> (N, width)."""
        return self._look(frames)[0]

    def _look(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.set_grad_enabled(frames.requires_grad and torch.is_grad_enabled()):  # nothing in it is learned
            x, geometry = moving_parts(frames.float(), self.crop)
        x = torch.relu(self.norms[0](self.stem(x.contiguous(memory_format=torch.channels_last))))
        for conv, norm in zip(self.convs, list(self.norms)[1:], strict=True):
            y = torch.relu(norm(conv(x)))
            x = x + y if x.shape == y.shape else y
        seen = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), geometry), dim=1)
        return torch.relu(self.inner(self.drop(seen))), x, geometry

    def over(self, snippets: Tensor) -> Tensor:
        """Features of the snippets of windows (B, S, width), oldest first -> (B, features)."""
        x = snippets.transpose(1, 2)
        x = x + torch.relu(self.early(x))
        x = x + torch.relu(self.late(x))
        return torch.cat((x.mean(dim=2), x.amax(dim=2), x[:, :, -1]), dim=1)

    def for_export(self) -> Tower:
        """A copy with the batch norms folded into the convolutions."""
        copied = copy.deepcopy(self).eval()
        norms = [cast(nn.BatchNorm2d, norm) for norm in copied.norms]
        copied.stem = fuse_conv_bn_eval(copied.stem, norms[0])
        convs = zip(copied.convs, norms[1:], strict=True)
        copied.convs = nn.ModuleList(fuse_conv_bn_eval(cast(nn.Conv2d, conv), norm) for conv, norm in convs)
        copied.norms = nn.ModuleList(nn.Identity() for _ in norms)
        return copied
