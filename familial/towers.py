"""Towers: frames of one window -> features. Everything here is untrusted by design; the desensitizer's core holds the promise.

    frames u8 (B, F, H, W) --normalise, difference--> (B, 2F-1, H, W) --convolutions--> (B, C, H/16, W/16) --pool--> (B, 2C)

A tower is an nn.Module with an attribute `features` (width of its output) and this forward. Only operations that ONNX opset 18
and TensorRT both have: fixed strides, means and maxima over whole maps; no adaptive pooling, no data-dependent shapes.
A black frame (all pixels 0) is one that is missing: before a stream's start, or lost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from wire.errors import CheckpointError

from .config import FamilyConfig

__all__ = ["TOWERS", "MotionTower", "Tower", "make_tower", "normalise"]


class Tower(nn.Module):
    """Interface. features: width of the output. forward: frames u8 (B, F, H, W) -> (B, features)."""

    features: int

    def for_export(self) -> Tower:
        """A copy for tracing that computes the same with fewer operations (in eval mode)."""
        return copy.deepcopy(self).eval()


def normalise(frames: Tensor) -> Tensor:
    """Frames u8 (B, F, H, W) -> (B, 2F-1, H, W): pixels of zero mean and unit spread per window, then frame differences.

    Mean and spread come from this window's own frames, missing ones left out, so that brightness and contrast carry
    nothing and no later frame is looked at. A difference with a missing frame is zero.
    """
    pixels = frames.float() * (1.0 / 255.0)
    mean_of_frame = pixels.mean(dim=(2, 3), keepdim=True)  # (B, F, 1, 1)
    there = torch.clamp(mean_of_frame * 1e4, 0.0, 1.0)
    share = there.mean(dim=1, keepdim=True) + 1e-4
    mean = mean_of_frame.mean(dim=1, keepdim=True) / share
    centred = (pixels - mean) * there
    variance = (centred * centred).mean(dim=(2, 3), keepdim=True).mean(dim=1, keepdim=True) / share
    scaled = centred * torch.rsqrt(variance + 1e-3)
    both = there[:, 1:] * there[:, :-1]
    differences = (scaled[:, 1:] - scaled[:, :-1]) * both * 2.0
    return torch.cat((scaled, differences), dim=1)


class MotionTower(Tower):
    """Early fusion: all frames of a window are the channels of one small convolutional network.

    The first convolution (6 x 6, stride 4) reads shape and motion together; then 3 x 3 convolutions that halve the map
    whenever the channels grow. Mean and maximum over the last map keep small movements in large pictures.
    """

    def __init__(self, frames: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.features = 2 * channels[-1]
        self.stem = nn.Conv2d(2 * frames - 1, channels[0], kernel_size=6, stride=4, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels[0])
        pairs = list(zip(channels, channels[1:], strict=False))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=3, stride=2 if b > a and index < 4 else 1, padding=1, bias=False)
            for index, (a, b) in enumerate(pairs)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> (B, features)."""
        x = normalise(frames)
        if self.training:
            x = x.contiguous(memory_format=torch.channels_last)
        x = torch.relu(self.stem_norm(self.stem(x)))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = torch.relu(norm(conv(x)))
            x = x + y if x.shape == y.shape else y
        return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)

    def for_export(self) -> MotionTower:
        """A copy whose batch norms are folded into the convolutions."""
        tower = copy.deepcopy(self).eval()
        tower.stem = fuse_conv_bn_eval(tower.stem, tower.stem_norm)
        tower.stem_norm = nn.Identity()  # type: ignore[assignment]  # folded into the line above
        for index, (conv, norm) in enumerate(zip(tower.convs, tower.norms, strict=True)):
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            tower.convs[index] = fuse_conv_bn_eval(conv, norm)
            tower.norms[index] = nn.Identity()
        return tower


TOWERS: dict[str, Callable[[FamilyConfig], Tower]] = {
    "motion": lambda config: MotionTower(config.window.frames, config.channels),
}


def make_tower(config: FamilyConfig) -> Tower:
    """The tower that the config names; an unknown name raises CheckpointError."""
    if config.tower not in TOWERS:
        raise CheckpointError(f"tower is {config.tower!r}, known are {sorted(TOWERS)}")
    return TOWERS[config.tower](config)
