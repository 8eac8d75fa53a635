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
from familial.model.steps import Step, direct
from familial.model.towers.base import Seen, Tower
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


class _GridTower(Tower):
    """A tower of tokens on a fixed grid.

    Attributes:
        step: computes one block; a training may compute it otherwise (`steps`).
    """

    vision: VisionSpec
    step: Step

    def tokens(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> merged tokens (B, F/2, M, out), M in rows of merged patches."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its tokens are; define tokens")

    def forward(self, frames: Tensor) -> Tensor:
        """Frames u8 (B, F, H, W) -> (B, features)."""
        tokens = self.tokens(frames)
        return _pool(tokens.mean(dim=2), tokens.amax(dim=2))

    def sequence(
        self, frames: Tensor, index: Tensor, people: Tensor | None = None, also: list[Seen] | None = None
    ) -> Tensor:
        """As `Tower.sequence`. Windows overlap: a temporal patch that several of them see is computed once."""
        pairs = index.reshape(-1, self.vision.temporal)  # (R * F/2, 2)
        once, where = torch.unique(pairs, dim=0, return_inverse=True)  # (U, 2), (R * F/2,)
        tokens = self.tokens(frames[:, once.flatten()])  # (B, U, M, out)
        mean, peak = tokens.mean(dim=2), tokens.amax(dim=2)  # (B, U, out)
        shape = (-1, index.shape[1] // self.vision.temporal, tokens.shape[3])
        features = _pool(mean[:, where].reshape(shape), peak[:, where].reshape(shape))
        return features.reshape(len(frames), len(index), self.features)


class QwenTower(_GridTower):
    """Transformers' tower, held as `visual` under its own names, computed on a fixed grid."""

    taps: Tensor
    shares: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, config: FamilyConfig) -> None:
        super().__init__()
        if config.vision is None:
            raise CheckpointError("tower is 'qwen', but there is no vision")
        self.vision, window, self.step = config.vision, config.window, direct
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

    def tokens(self, frames: Tensor) -> Tensor:
        """As those of every tower on a grid."""
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


class _FoldedQwenTower(_GridTower):
    """The tower as engines compute it."""

    weight: Tensor
    bias: Tensor
    positions: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, tower: QwenTower) -> None:
        super().__init__()
        self.vision, self.features = tower.vision, tower.features
        self.rows, self.columns, self.visual, self.step = tower.rows, tower.columns, _Rest(tower.visual), tower.step
        buffers = dict(zip(("weight", "bias", "positions"), tower.stem(), strict=True))
        for name, value in (buffers | {"cos": tower.cos, "sin": tower.sin}).items():
            self.register_buffer(name, value.detach().clone(), persistent=False)
        self.eval()

    def tokens(self, frames: Tensor) -> Tensor:
        """As those of the tower it was made from."""
        return _run(self, frames, self.weight, self.bias, self.positions)


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
        hidden = tower.step(_block, block, hidden, tower.cos, tower.sin)
    shape = (-1, steps, rows * columns // merge**2, vision.hidden * merge**2)
    return tower.step(_merge, tower.visual.merger, hidden, shape).float()


def _block(block: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    attn, norm1, mlp, norm2 = (cast(nn.Module, getattr(block, name)) for name in ("attn", "norm1", "mlp", "norm2"))
    hidden = hidden + _attend(attn, norm1(hidden), cos, sin)
    return hidden + cast(Tensor, mlp(norm2(hidden)))


def _merge(merger: nn.Module, hidden: Tensor, shape: tuple[int, ...]) -> Tensor:
    names = ("norm", "linear_fc1", "act_fn", "linear_fc2")
    norm, first, act, second = (cast(nn.Module, getattr(merger, name)) for name in names)
    return cast(Tensor, second(act(first(norm(hidden).reshape(shape)))))


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


def _pool(over_picture: Tensor, peak: Tensor) -> Tensor:
    """Pool means and maxima over the picture (B, T, out) -> (B, 3 out): mean, maximum, and the trend of the mean.

    Mean and maximum are standardised over the features, since bases differ in scale. The trend is divided by the mean's
    standard deviation, so that it stays near zero for a still picture.
    """
    slope = torch.linspace(-1.0, 1.0, over_picture.shape[1]).to(over_picture)[:, None]
    mean, peak = over_picture.mean(dim=1), peak.amax(dim=1)
    moves = (over_picture * slope).mean(dim=1)
    centred = mean - mean.mean(dim=1, keepdim=True)
    gain = torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + _EPSILON)
    peak = peak - peak.mean(dim=1, keepdim=True)
    peak = peak * torch.rsqrt((peak * peak).mean(dim=1, keepdim=True) + _EPSILON)
    return torch.cat((centred * gain, peak, moves * gain), dim=1)
