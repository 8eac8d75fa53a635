"""What the tracks of a window say about bodies, a part of the graph. Nothing is learned.

    tracks (B, F, P, VALUES) --in units of each body's size, about its hips--> features (B, P, FEATURES, F)

Of every track and frame: the pose, how sure the network is, box and torso, where in the picture; how centre, torso, box
and limbs changed over 1/8 to 2 s; and what the nearest other person is to it: how far, coming closer or not, hands and
feet at the other's head and body. A missing frame has features of 0, and a change across a gap is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from wire.people.decode import JOINTS
from wire.people.packed import BOX, SCORE, UNIT

__all__ = ["FEATURES", "pose_features"]

_LAGS = (2, 4, 8, 16)  # frames
_QUICK = (1, 2)  # frames, for hands and feet
_HEAD, _SHOULDERS, _HIPS = (0, 1, 2, 3, 4), (5, 6), (11, 12)
_LIMBS = (9, 10, 15, 16, 0)  # wrists, ankles, nose
_SMOOTH = (1.0, 2.0, 3.0, 2.0, 1.0)
_LIMIT = 4.0  # of every feature
_TINY = 1e-3
_FAR = 6.0  # body sizes, as far as another person counts

FEATURES = 3 * JOINTS + 11 + 2 + len(_LAGS) * 6 + len(_QUICK) * 2 * len(_LIMBS) + 12
"""Features of a track in a frame."""


def pose_features(people: Tensor) -> tuple[Tensor, Tensor]:
    """Describe bodies.

    Args:
        people: float (B, F, P, VALUES), tracks as `wire.people.tracks` forms them.

    Returns:
        Features float (B, P, FEATURES, F), and float (B, P, F): 1 where the track is seen, else 0.
    """
    rows = people.permute(0, 2, 3, 1) * (1.0 / UNIT)  # (B, P, VALUES, F)
    score = rows[:, :, SCORE]
    there = torch.clamp(score * 1e3, 0.0, 1.0)  # (B, P, F)
    y, x, sure = (rows[:, :, axis : 3 * JOINTS : 3] for axis in range(3))  # (B, P, 17, F)
    weight = torch.clamp(sure * 4.0 - 0.3, 0.0, 1.0) * there[:, :, None]
    top, left, bottom, right = rows[:, :, BOX].unbind(2)
    high, wide = bottom - top, right - left
    size = _size(high, wide, there)  # (B, P, 1)
    middle = _middle(y, x, weight, (top + bottom) / 2, (left + right) / 2)  # (B, P, 2, F)
    shoulders = _mean_place(y, x, weight, _SHOULDERS, middle)
    torso = (shoulders - middle) / size[:, :, None]
    pose = _pose(y, x, weight, middle, size)
    box = torch.stack((high, wide), dim=2) / size[:, :, None]
    level = (high - wide) / (high + wide + _TINY)
    edge = [torch.clamp(1.0 - value * 40.0, 0.0, 1.0) for value in (left, top, 1.0 - right)]
    where = torch.stack((middle[:, :, 0], middle[:, :, 1], bottom, *edge, level, score, size.expand_as(score)), dim=2)
    smooth, seen = _smooth(torch.cat((middle / size[:, :, None], torso, box), dim=2), there)
    moved = [_change(smooth, seen, lag) for lag in _LAGS]
    limbs = torch.cat((_joints(y, _LIMBS), _joints(x, _LIMBS)), dim=2) / size[:, :, None]
    limb_weight = torch.cat((_joints(weight, _LIMBS),) * 2, dim=2)
    quick = [_limb_change(limbs, limb_weight, lag) for lag in _QUICK]
    others = _others(y, x, weight, middle, size, there)
    found = torch.cat((pose, where, box, torso, *moved, *quick, others), dim=2) * there[:, :, None]
    return torch.clamp(found, -_LIMIT, _LIMIT), there


def _joints(values: Tensor, joints: tuple[int, ...]) -> Tensor:
    """Some joints of (B, P, 17, F), by indices that a graph stores in its file."""
    return values.index_select(2, torch.tensor(joints, device=values.device))


def _size(high: Tensor, wide: Tensor, there: Tensor) -> Tensor:
    """The body's size over the window: root mean square of the box's diagonal, (B, P, 1)."""
    squares = ((high * high + wide * wide) * there).sum(dim=2, keepdim=True)
    return torch.sqrt(squares / torch.clamp(there.sum(dim=2, keepdim=True), min=1.0) + 1e-4)


def _middle(y: Tensor, x: Tensor, weight: Tensor, box_y: Tensor, box_x: Tensor) -> Tensor:
    """The middle of the hips where they are seen, drawn to that of the box where they are not: (B, P, 2, F)."""
    own = _joints(weight, _HIPS)
    total = own.sum(dim=2) + 0.1
    middle_y = ((_joints(y, _HIPS) * own).sum(dim=2) + 0.1 * box_y) / total
    middle_x = ((_joints(x, _HIPS) * own).sum(dim=2) + 0.1 * box_x) / total
    return torch.stack((middle_y, middle_x), dim=2)


def _mean_place(y: Tensor, x: Tensor, weight: Tensor, joints: tuple[int, ...], otherwise: Tensor) -> Tensor:
    """Mean place of some joints, drawn to `otherwise` (B, P, 2, F) where they are not seen."""
    own = _joints(weight, joints)
    total = own.sum(dim=2) + 0.05
    places = [(_joints(each, joints) * own).sum(dim=2) for each in (y, x)]
    return (torch.stack(places, dim=2) + 0.05 * otherwise) / total[:, :, None]


def _pose(y: Tensor, x: Tensor, weight: Tensor, middle: Tensor, size: Tensor) -> Tensor:
    """Joints about the hips in units of the size, and how sure each is: (B, P, 51, F)."""
    scale = size[:, :, None]
    return torch.cat(((y - middle[:, :, :1]) / scale * weight, (x - middle[:, :, 1:]) / scale * weight, weight), dim=2)


def _smooth(values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, P, V, F) averaged over neighbouring frames that are there, and where any is (B, P, 1, F)."""
    kernel = torch.tensor(_SMOOTH, device=values.device, dtype=values.dtype)[None, None]
    reach = len(_SMOOTH) // 2
    shape = values.shape
    weight = conv1d(there.reshape(-1, 1, shape[3]), kernel, padding=reach).reshape(*shape[:2], 1, shape[3])
    total = conv1d((values * there[:, :, None]).reshape(-1, 1, shape[3]), kernel, padding=reach).reshape(shape)
    return total / torch.clamp(weight, min=_TINY), torch.clamp(weight, 0.0, 1.0)


def _before(values: Tensor, lag: int) -> Tensor:
    """Values (..., F) `lag` frames earlier, zeros before the window."""
    return pad(values, (lag, 0))[..., : values.shape[-1]]


def _change(values: Tensor, seen: Tensor, lag: int) -> Tensor:
    """Change over `lag` frames where both are seen, (B, P, V, F)."""
    return (values - _before(values, lag)) * (seen * _before(seen, lag)) * 2.0


def _limb_change(values: Tensor, weight: Tensor, lag: int) -> Tensor:
    return (values - _before(values, lag)) * (weight * _before(weight, lag)) * 4.0


def _others(y: Tensor, x: Tensor, weight: Tensor, middle: Tensor, size: Tensor, there: Tensor) -> Tensor:
    """What the nearest other person is to each track: (B, P, 12, F)."""
    count = there.shape[1]
    both = (size[:, :, None] + size[:, None]) / 2  # (B, P, P, 1)
    apart = middle[:, :, None] - middle[:, None]  # (B, P, P, 2, F)
    away = torch.sqrt((apart * apart).sum(dim=3) + 1e-6) / both  # (B, P, P, F)
    another = 1.0 - torch.eye(count, device=there.device, dtype=there.dtype)[None, :, :, None]
    pair = there[:, :, None] * there[:, None] * another  # (B, P, P, F)
    away = torch.clamp(away, max=_FAR) * pair + _FAR * (1.0 - pair)
    share = torch.softmax(-4.0 * away, dim=2) * pair  # (B, P, P, F); all zero where nobody else is there
    head, body = (_mean_place(y, x, weight, joints, middle) for joints in (_HEAD, _SHOULDERS))
    chest = (body + middle) / 2
    found = [away, _ratio(size).expand_as(away)]
    found += [(apart[:, :, :, 0] / both), torch.abs(apart[:, :, :, 1]) / both]
    for limbs in ((9, 10), (15, 16)):
        for target in (head, chest):
            found.append(_nearest_limb(y, x, weight, limbs, target, both))
    closer = [away - _before(away, lag) * (_before(pair, lag) > 0) - away * (_before(pair, lag) <= 0) for lag in (2, 4)]
    limb = [found[4] - _before(found[4], 2) * (_before(pair, 2) > 0) - found[4] * (_before(pair, 2) <= 0)]
    values = torch.stack((*found, *closer, *limb), dim=2)  # (B, P, 11, P, F)
    near = (values * share[:, :, None]).sum(dim=3)  # (B, P, 11, F)
    return torch.cat((near, share.sum(dim=2)[:, :, None]), dim=2)


def _ratio(size: Tensor) -> Tensor:
    """How much larger each body is than each other one, (B, P, P, 1)."""
    return torch.log(size[:, :, None] / size[:, None])


def _nearest_limb(y: Tensor, x: Tensor, weight: Tensor, limbs: tuple[int, ...], target: Tensor, both: Tensor) -> Tensor:
    """Distance of each track's nearest hand or foot to each other one's head or chest, at most 2: (B, P, P, F)."""
    distances = []
    for limb in limbs:
        dy = y[:, :, None, limb] - target[:, None, :, 0]
        dx = x[:, :, None, limb] - target[:, None, :, 1]
        sure = weight[:, :, None, limb]
        distance = torch.clamp(torch.sqrt(dy * dy + dx * dx + 1e-6) / both, max=2.0)
        distances.append(distance * sure + 2.0 * (1.0 - sure))
    return torch.minimum(distances[0], distances[1])
