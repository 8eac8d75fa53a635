"""Towers: frames of one window -> features. Everything here is untrusted by design; the desensitizer's core holds
the promise.

    frames u8 (B, F, H, W) --normalise, difference--> (B, 2F, H, W) --convolve--> (B, C, H/16, W/16) --pool--> (B, 2C)

A tower is an nn.Module with an attribute `features` (width of its output) and this forward. Only operations that
ONNX opset 18 and TensorRT both have: fixed strides, means and maxima over whole maps; no adaptive pooling, no
data-dependent shapes. A black frame (all pixels 0) is one that is missing: before a stream's start, or lost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from wire.errors import CheckpointError

from .config import FamilyConfig
from .preparation import GEOMETRY, moving_parts

__all__ = ["TOWERS", "MotionTower", "SnippetTower", "Tower", "make_tower", "normalise"]


class Tower(nn.Module):
    """Interface. features: width of the output. forward: frames u8 (B, F, H, W) -> (B, features)."""

    features: int

    def run(self, frames: Tensor, index: Tensor) -> Tensor:
        """A run of neighbouring windows at once: frames u8 (B, T, H, W), index int64 (R, F), where each window's frames
        lie -> (B, R, features)."""
        windows = frames[:, index].flatten(0, 1)
        return self(windows).reshape(len(frames), len(index), self.features)  # type: ignore[no-any-return]

    def for_export(self) -> Tower:
        """A copy for tracing that computes the same with fewer operations (in eval mode)."""
        return copy.deepcopy(self).eval()


def normalise(frames: Tensor) -> Tensor:
    """Frames u8 (B, F, H, W) -> float (B, F, H, W) of zero mean and unit spread per window, gaps filled.

    Mean and spread come from this window's own frames (every second pixel, missing frames left out), so that brightness
    and contrast carry nothing and no later frame is looked at. A missing frame takes the next present one's pixels: the
    start of a stream then looks like a still picture, not like a flash. Windows without any frame are all zeros.
    """
    batch, count, height, width = frames.shape
    pixels = frames.reshape(batch, count, height * width).float() * (1.0 / 255.0)
    coarse = frames[:, :, ::2, ::2].float() * (1.0 / 255.0)
    mean_of_frame = coarse.mean(dim=(2, 3))  # (B, F)
    there = torch.clamp(mean_of_frame * 1e4, 0.0, 1.0)
    share = there.mean(dim=1, keepdim=True) + 1e-4
    mean = mean_of_frame.mean(dim=1, keepdim=True) / share  # (B, 1)
    centred = coarse - mean[:, :, None, None]
    variance = ((centred * centred).mean(dim=(2, 3)) * there).mean(dim=1, keepdim=True) / share
    gain = torch.rsqrt(variance + 2e-4)[:, :, None]  # (B, 1, 1)
    # fill[i, j] = 1 where j is the first present frame from i on: present, not before i, none present between
    earlier = there @ torch.ones(count, count).triu(1).to(there.device)  # how many are present before j
    between = earlier[:, None, :] - earlier[:, :, None]
    fill = there[:, None, :] * torch.relu(1.0 - between) * torch.ones(count, count).triu(0).to(there.device)
    filled = (fill * gain) @ pixels - mean[:, :, None] * gain * fill.sum(dim=2, keepdim=True)
    return filled.reshape(batch, count, height, width)


def _views(count: int) -> Tensor:
    """(2F, F): the window's mean frame, each frame's difference from it, each frame's difference from the one before.

    What moves is a small part of the picture: differences are weighted up, the still background down.
    """
    eye, mean = torch.eye(count), torch.full((1, count), 1.0 / count)
    return torch.cat((0.5 * mean, 4.0 * (eye - mean), 4.0 * (eye[1:] - eye[:-1])))


class MotionTower(Tower):
    """Early fusion: all frames of a window are the channels of one small convolutional network.

    The first convolution (6 x 6, stride 4) reads `_views` of the frames; they are linear, so they cost nothing: they
    are folded into its weights. Then 3 x 3 convolutions that halve the map whenever the channels grow.
    Mean and maximum over the last map keep small movements in large pictures.
    """

    views: Tensor

    def __init__(self, frames: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.features = 2 * channels[-1]
        self.stem = nn.Conv2d(2 * frames, channels[0], kernel_size=6, stride=4, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels[0])
        self.register_buffer("views", _views(frames), persistent=False)
        pairs = list(zip(channels, channels[1:], strict=False))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=3, stride=2 if b > a and index < 4 else 1, padding=1, bias=False)
            for index, (a, b) in enumerate(pairs)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in pairs)

    def _stem_weight(self) -> Tensor:
        """The first convolution's weights on frames alone (C, F, 6, 6)."""
        return torch.einsum("ovhw,vf->ofhw", self.stem.weight, self.views)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> (B, features)."""
        x = nn.functional.conv2d(normalise(frames), self._stem_weight(), stride=4, padding=1)
        return self._rest(torch.relu(self.stem_norm(x)))

    def _rest(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = torch.relu(norm(conv(x)))
            x = x + y if x.shape == y.shape else y
        return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)

    def for_export(self) -> Tower:
        """A copy with differences and batch norms folded into the convolutions."""
        return _FoldedMotionTower(copy.deepcopy(self).eval())


class _FoldedMotionTower(Tower):
    """`MotionTower` as plain convolutions with biases: what the engines run."""

    def __init__(self, tower: MotionTower) -> None:
        super().__init__()
        self.features = tower.features
        weight = tower._stem_weight().detach()
        stem = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size=6, stride=4, padding=1, bias=False).eval()
        stem.weight = nn.Parameter(weight)
        self.stem = fuse_conv_bn_eval(stem, tower.stem_norm)
        pairs = zip(tower.convs, tower.norms, strict=True)
        self.convs = nn.ModuleList(
            fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)) for conv, norm in pairs
        )
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> (B, features), as the tower it was made from."""
        x = torch.relu(self.stem(normalise(frames)))
        for conv in self.convs:
            y = torch.relu(conv(x))
            x = x + y if x.shape == y.shape else y
        return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)


class SnippetTower(Tower):
    """One small convolutional network looks at snippets, alike at whatever time; then at the snippets in their order.

    frames (B, F, H, W) --8 frames, stride 4--> snippets (B*S, 8, H, W) --what moves, enlarged--> (B*S, 7, crop, crop)
        --3 x 3 convolutions, mean and maximum--> (B, S, width) --convolutions over time--> (B, 3 * width)

    Neighbouring windows share snippets: in training a run of windows is encoded at once by `snippets` and `over`.
    """

    SPAN, STRIDE = 8, 4  # frames

    def __init__(self, frames: int, channels: tuple[int, ...], crop: int, width: int, drop: float = 0.1) -> None:
        super().__init__()
        if frames < self.SPAN or (frames - self.SPAN) % self.STRIDE:
            raise CheckpointError(f"a window of {frames} frames is not made of snippets: 8, 12, 16, ... are")
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

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 or float (B, F, H, W) -> (B, features)."""
        parts = [frames[:, i * self.STRIDE : i * self.STRIDE + self.SPAN] for i in range(self.count)]
        snippets = torch.stack(parts, dim=1).flatten(0, 1)
        return self.over(self.snippets(snippets).reshape(-1, self.count, self.inner.out_features))

    def run(self, frames: Tensor, index: Tensor) -> Tensor:
        """As every tower's, with each snippet looked at once."""
        starts = torch.arange(self.count) * self.STRIDE
        spans = index[:, starts[:, None] + torch.arange(self.SPAN)]  # (R, S, 8)
        own, place = torch.unique(spans.flatten(0, 1), dim=0, return_inverse=True)  # (U, 8), (R * S,)
        seen = self.snippets(frames[:, own].flatten(0, 1)).reshape(len(frames), len(own), -1)
        windows = seen[:, place].reshape(-1, self.count, seen.shape[2])
        return self.over(windows).reshape(len(frames), len(index), self.features)

    def snippets(self, frames: Tensor) -> Tensor:
        """Snippets u8 or float (N, 8, H, W) -> (N, width)."""
        with torch.no_grad():
            x, geometry = moving_parts(frames.float(), self.crop)
        x = torch.relu(self.norms[0](self.stem(x.contiguous(memory_format=torch.channels_last))))
        for conv, norm in zip(self.convs, list(self.norms)[1:], strict=True):
            y = torch.relu(norm(conv(x)))
            x = x + y if x.shape == y.shape else y
        seen = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3)), geometry), dim=1)
        return torch.relu(self.inner(self.drop(seen)))

    def over(self, snippets: Tensor) -> Tensor:
        """Snippets of windows (B, S, width), oldest first -> (B, features)."""
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


def _qwen(config: FamilyConfig) -> Tower:
    from .qwen import QwenTower

    return QwenTower(config)


TOWERS: dict[str, Callable[[FamilyConfig], Tower]] = {
    "motion": lambda config: MotionTower(config.window.frames, config.channels),
    "snippets": lambda config: SnippetTower(config.window.frames, config.channels, config.crop, config.hidden),
    "qwen": _qwen,
}


def make_tower(config: FamilyConfig) -> Tower:
    """The tower that the config names; an unknown name raises CheckpointError."""
    if config.tower not in TOWERS:
        raise CheckpointError(f"tower is {config.tower!r}, known are {sorted(TOWERS)}")
    return TOWERS[config.tower](config)
