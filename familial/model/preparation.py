"""Preparation on the edge, a part of the graph: crop and enlarge what moves in a snippet. Causal; nothing is learned.

    frames (N, F, H, W) --gaps filled, contrast evened--> differences of the coarse picture --> box of what moves
                        --tent filter to (crop, crop) within the box--> differences (N, F - 1, crop, crop)
                                                                       geometry (N, 6) of the box

Training and the device use the same code. Only differences of frames are passed on, so what stands still, the place
above all, is not in them. The box depends on this snippet's frames alone and leaves the device only within the code. A
black frame (all pixels 0) is a missing one: before a stream's start, after its end, or lost.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

__all__ = ["GEOMETRY", "motion_box", "moving_parts", "tents"]

GEOMETRY = 6  # top, bottom, left, right, side, amount of motion
_CELLS = 32  # the coarse picture, in which the box is found
_NOTHING = 0.10  # differences up to here, in units of the picture's own contrast, are sensor noise
_TAILS = 0.05  # share of the motion that may lie outside the box at each side
_MARGIN, _LEAST = 1.3, 0.36  # the box is widened by this, and is at least so much of the frame
_SHARP = 1e3  # slope of the steps that count cells


def moving_parts(frames: Tensor, crop: int) -> tuple[Tensor, Tensor]:
    """Crop the moving part of each snippet.

    Args:
        frames: float (N, F, H, W), 0..255, one snippet each; H and W are multiples of 32.
        crop: side of the result, pixels.

    Returns:
        Differences of neighbouring frames float (N, F - 1, crop, crop), and the geometry float (N, 6) of the box:
        top, bottom, left, right, side, amount of motion. A snippet without any frame gives zero differences.
    """
    count, length, height, width = frames.shape
    coarse = avg_pool2d(frames, (height // _CELLS, width // _CELLS)) * (1.0 / 255.0)
    change = _changes(coarse)
    moved = (change @ coarse.flatten(2)).reshape(count, length - 1, _CELLS, _CELLS)
    box, amount = motion_box(moved)
    top, bottom, left, right = box
    side = torch.clamp(torch.maximum(bottom - top, right - left) * _MARGIN, _LEAST, 1.0)
    across, down = tents((left + right) / 2, side, crop, width), tents((top + bottom) / 2, side, crop, height)
    # One product a snippet and side, with all its frames in one operand: a product for each frame takes half as long
    # again. The boxes are the first factor, since the exporter takes a reshape between two plain products away.
    narrow = torch.bmm(across, frames.reshape(count, length * height, width).transpose(1, 2))  # (N, crop, F * H)
    small = torch.bmm(narrow.reshape(count, crop * length, height), down.transpose(1, 2))  # (N, crop * F, crop)
    cut = small.reshape(count, crop, length, crop).permute(0, 2, 3, 1).reshape(count, length, crop * crop)
    parts = torch.bmm(change * (3.0 / 255.0), cut).reshape(count, length - 1, crop, crop)
    places = (edge * 2.0 - 1.0 for edge in (top, bottom, left, right, side))
    return parts, torch.stack((*places, torch.log(amount + 1e-3) * 0.3), dim=1)


def _changes(coarse: Tensor) -> Tensor:
    """The matrix (N, F - 1, F) that turns frames into differences, divided by the contrast of coarse (N, F, h, w).

    A missing frame is replaced by the next present one, or else by the last: a stream begins and ends as a still
    picture.
    """
    length = coarse.shape[1]
    mean_of_frame = coarse.mean(dim=(2, 3))  # (N, F)
    there = torch.clamp(mean_of_frame * 1e4, 0.0, 1.0)
    share = there.mean(dim=1, keepdim=True) + 1e-4
    mean = mean_of_frame.mean(dim=1, keepdim=True) / share
    centred = coarse - mean[:, :, None, None]
    variance = ((centred * centred).mean(dim=(2, 3)) * there).mean(dim=1, keepdim=True) / share
    gain = torch.rsqrt(variance + 2e-3)[:, :, None]  # (N, 1, 1)
    ahead, behind = torch.ones(length, length).triu(0), torch.ones(length, length).tril(0)
    before = there @ torch.ones(length, length).triu(1)  # how many are present before each
    until = before + there
    # 1 where the column's frame is the first present one from the row's on; and the last present one up to it
    following = there[:, None, :] * torch.relu(1.0 - (before[:, None, :] - before[:, :, None])) * ahead
    preceding = there[:, None, :] * torch.relu(1.0 - (until[:, :, None] - until[:, None, :])) * behind
    fill = following + (1.0 - following.sum(dim=2, keepdim=True)) * preceding
    return (fill[:, 1:] - fill[:, :-1]) * gain


def motion_box(moved: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Find the box of what moves; it is the whole frame where hardly anything moves.

    At each side a share `_TAILS` of the motion may lie outside. A change of the whole picture's brightness is no
    motion.

    Args:
        moved: float (N, F - 1, h, w), differences divided by the contrast.

    Returns:
        (top, bottom, left, right) in 0..1, and the amount of motion; each (N,).
    """
    cells = moved.shape[2]
    local = moved - moved.mean(dim=(2, 3), keepdim=True)
    energy = torch.relu(local.abs() - _NOTHING).sum(dim=1)  # (N, h, w)
    energy = energy * energy / (energy + 0.3)  # a flicker counts little
    total = energy.sum(dim=(1, 2))
    edges = []
    for along in (2, 1):
        spread = energy.sum(dim=along) + (0.003 * total[:, None] + 0.03) * (1.0 / cells)
        reached = (spread / spread.sum(dim=1, keepdim=True)) @ torch.ones(cells, cells).triu(0)
        below = torch.clamp((_TAILS - reached) * _SHARP + 0.5, 0.0, 1.0).sum(dim=1)
        above = torch.clamp((reached - (1.0 - _TAILS)) * _SHARP + 0.5, 0.0, 1.0).sum(dim=1)
        edges += [below / cells, 1.0 - torch.clamp(above - 1.0, min=0.0) / cells]
    return (edges[0], edges[1], edges[2], edges[3]), total / (cells * cells)


def tents(centre: Tensor, side: Tensor, out: int, size: int) -> Tensor:
    """Weights of a tent filter that resamples `size` pixels to `out` within a box.

    The tent is as wide as a new pixel, and at least as an old one, which avoids aliasing.

    Args:
        centre: float (N,), of the box, as a share of the frame; the box is shifted to lie within the frame.
        side: float (N,), of the box, as a share of the frame.
        out: pixels after.
        size: pixels before.

    Returns:
        float (N, out, size); each row sums to 1.
    """
    centre = torch.minimum(torch.maximum(centre, side / 2), 1.0 - side / 2)
    at = (torch.arange(out, dtype=torch.float32) + 0.5) / out - 0.5
    places = (centre[:, None] + side[:, None] * at) * size - 0.5  # (N, out)
    step = torch.clamp(side * (size / out), min=1.0)[:, None, None]
    weight = torch.relu(1.0 - (places[:, :, None] - torch.arange(size, dtype=torch.float32)).abs() / step)
    return weight / weight.sum(dim=2, keepdim=True)
