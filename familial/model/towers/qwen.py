"""Qwen3-VL's vision tower on a fixed grid: transformers' own weights and formulas, at shapes that a graph can hold.

    frames u8 (B, F, H, W) --2 frames a temporal patch--> (B*F/2, H, W) --convolve 16 x 16, add positions--> patches
        --blocks: attention within a temporal patch--> --merge 2 x 2--> tokens (B, F/2, M, out) --pool--> (B, 3 out)

transformers' tower takes any mixture of picture sizes, so its shapes depend on data and cannot be exported. A camera
has one size: positions and rotations are computed once, by transformers' own functions, and all temporal patches are
one batch. `QwenTower.tokens` equals the output of `Qwen3VLVisionModel` to the rounding of float32. DeepStack is off,
since its features would bypass the desensitizer.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Qwen3VLVisionConfig, Qwen3VLVisionModel
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from familial.model.config import FamilyConfig, VisionSpec
from familial.model.towers.base import Tower
from wire.errors import CheckpointError

__all__ = ["QwenTower", "vision_config"]

_EPSILON = 1e-5  # added to a variance before its root is taken


def vision_config(vision: VisionSpec) -> Any:
    """transformers' configuration of such a tower, with DeepStack off."""
    return Qwen3VLVisionConfig(
        depth=vision.depth,
        hidden_size=vision.hidden,
        intermediate_size=vision.mlp,
        num_heads=vision.heads,
        out_hidden_size=vision.out,
        num_position_embeddings=vision.positions,
        patch_size=vision.patch,
        spatial_merge_size=vision.merge,
        temporal_patch_size=vision.temporal,
        deepstack_visual_indexes=[],
    )


class QwenTower(Tower):
    """Transformers' tower, held as `visual` under its own names, computed on a fixed grid."""

    taps: Tensor
    shares: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, config: FamilyConfig) -> None:
        super().__init__()
        if config.vision is None:
            raise CheckpointError("tower is 'qwen', but there is no vision")
        self.vision, window = config.vision, config.window
        self.features = 3 * self.vision.out
        self.visual = Qwen3VLVisionModel(vision_config(self.vision))
        self.rows, self.columns = window.height // self.vision.patch, window.width // self.vision.patch
        grid = torch.tensor([[1, self.rows, self.columns]])
        taps, shares = get_vision_interpolation_indices_and_weights(
            grid,
            self.visual.num_grid_per_side,
            self.visual.interpolation_mode,
            self.visual.interpolation_align_corners,
            self.vision.merge,
        )
        places = get_vision_position_ids(grid, self.vision.merge)
        cos, sin = self.visual.rotary_pos_emb(torch.zeros(1), places)
        for name, value in (("taps", taps), ("shares", shares), ("cos", cos), ("sin", sin)):
            self.register_buffer(name, value.detach().clone(), persistent=False)

    @classmethod
    def of_config(cls, config: FamilyConfig) -> QwenTower:
        """A tower for the config's frame size, sized by its `vision`."""
        return cls(config)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> (B, features)."""
        return _pool(self.tokens(frames))

    def tokens(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> merged tokens (B, F/2, M, out), M in rows of merged patches."""
        return _run(self, frames, *self.stem())

    def stem(self) -> tuple[Tensor, Tensor, Tensor]:
        """Fold the patch convolution for grey pixels, normalised by the processor's mean and std over the colours.

        The three colours of a grey pixel are equal, so their weights are summed; the differences of their means go into
        the bias.

        Returns:
            Convolution weight (hidden, temporal, patch, patch), bias (hidden,), positions (N, hidden).
        """
        projection = self.visual.patch_embed.proj
        mean, std = torch.tensor(self.vision.mean), torch.tensor(self.vision.std)
        per_colour = (std.mean() / std)[:, None, None, None].to(projection.weight)
        offset = ((mean.mean() - mean) / std).to(projection.weight)
        weight = (projection.weight * per_colour).sum(dim=1)
        bias = projection.bias + projection.weight.sum(dim=(2, 3, 4)) @ offset
        positions = (self.visual.pos_embed.weight[self.taps] * self.shares[:, :, None]).sum(dim=1)
        return weight, bias, positions

    def for_export(self) -> Tower:
        """The tower with `stem` computed once. Blocks are shared and not copied: they may be gigabytes."""
        return _FoldedQwenTower(self)


class _FoldedQwenTower(Tower):
    """The tower as engines compute it."""

    weight: Tensor
    bias: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, tower: QwenTower) -> None:
        super().__init__()
        self.vision, self.features = tower.vision, tower.features
        self.rows, self.columns, self.visual = tower.rows, tower.columns, _Rest(tower.visual)
        buffers = dict(zip(("weight", "bias", "positions"), tower.stem(), strict=True))
        for name, value in (buffers | {"cos": tower.cos, "sin": tower.sin}).items():
            self.register_buffer(name, value.detach().clone(), persistent=False)
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> (B, features), as the tower it was made from."""
        return _pool(_run(self, frames, self.weight, self.bias, self.positions))


class _Rest(nn.Module):
    """Blocks and merger, shared with the tower they come from."""

    def __init__(self, visual: Qwen3VLVisionModel) -> None:
        super().__init__()
        self.blocks, self.merger = visual.blocks, visual.merger


_EitherTower = QwenTower | _FoldedQwenTower


def _run(tower: _EitherTower, frames: Tensor, weight: Tensor, bias: Tensor, positions: Tensor) -> Tensor:
    """Frames (B, F, H, W) -> tokens (B, F/2, M, out). Tokens lie in Qwen's order: the patches of a merge together."""
    vision, rows, columns = tower.vision, tower.rows, tower.columns
    steps, merge = frames.shape[1] // vision.temporal, vision.merge
    mean, std = sum(vision.mean) / len(vision.mean), sum(vision.std) / len(vision.std)
    pixels = frames.reshape(-1, vision.temporal, *frames.shape[2:]).float() * (1.0 / (255.0 * std)) - mean / std
    patches = nn.functional.conv2d(pixels, weight, bias, stride=vision.patch)  # (B*T, C, rows, columns)
    patches = patches.reshape(-1, vision.hidden, rows // merge, merge, columns // merge, merge)
    hidden = patches.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, vision.hidden) + positions
    for block in tower.visual.blocks:
        hidden = hidden + _attend(block.attn, block.norm1(hidden), tower.cos, tower.sin)
        hidden = hidden + block.mlp(block.norm2(hidden))
    merger = tower.visual.merger
    merged = merger.norm(hidden).reshape(-1, steps, rows * columns // merge**2, vision.hidden * merge**2)
    return cast(Tensor, merger.linear_fc2(merger.act_fn(merger.linear_fc1(merged))))


def _attend(attention: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Attention among the N patches of each temporal patch: hidden (B*T, N, C) -> (B*T, N, C)."""
    count, heads = hidden.shape[1], cast(int, attention.num_heads)
    qkv = cast(nn.Linear, attention.qkv)(hidden).reshape(-1, count, 3, heads, hidden.shape[2] // heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B*T, heads, N, D)
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    scores = torch.softmax((query * cast(float, attention.scaling)) @ key.transpose(2, 3), dim=-1)
    return cast(Tensor, cast(nn.Linear, attention.proj)((scores @ value).transpose(1, 2).reshape(hidden.shape)))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B*T, heads, N, D), rotated by the angles (N, D) of each position (rotary position embedding)."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def _pool(tokens: Tensor) -> Tensor:
    """Pool tokens (B, T, M, out) -> (B, 3 out): mean, maximum, and the trend of the mean over time.

    Mean and maximum are standardised over the features, since bases differ in scale. The trend is divided by the mean's
    standard deviation, so that it stays near zero for a still picture.
    """
    slope = torch.linspace(-1.0, 1.0, tokens.shape[1]).to(tokens)[:, None]
    over_picture = tokens.mean(dim=2)  # (B, T, out)
    mean, peak = over_picture.mean(dim=1), tokens.amax(dim=(1, 2))
    moves = (over_picture * slope).mean(dim=1)
    centred = mean - mean.mean(dim=1, keepdim=True)
    gain = torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + _EPSILON)
    peak = peak - peak.mean(dim=1, keepdim=True)
    peak = peak * torch.rsqrt((peak * peak).mean(dim=1, keepdim=True) + _EPSILON)
    return torch.cat((centred * gain, peak, moves * gain), dim=1)
