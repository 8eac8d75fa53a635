"""What the family is trained for: verdicts that survive the noise, from codes that use the ball well.

release_loss   how surely one noisy release tells its label's pole in the ball       (tower, desensitizer)
weak_loss      the same where only the event's label is known                        (tower, desensitizer)
event_loss     the label at both exits and the caption's words, from noisy releases  (lifter, backbone)
size_loss      code energy as a share of C^2: bits that no verdict needs should not leave
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .vocabulary import PAD

__all__ = [
    "clean_loss",
    "event_loss",
    "pole_plane",
    "poles",
    "release_logits",
    "release_loss",
    "rounded_gaussian",
    "size_loss",
    "weak_loss",
]

_ANGLES = (
    0.0,
    150.0,
    255.0,
)  # degrees of normal, fall, fight: normal and fall are told apart first (distance 1.93 C)
_GAIN = 1.0  # logit of a code at its own pole
_PLANE = 5  # seed of the plane in which the poles lie


def pole_plane(tokens: int, width: int) -> Tensor:
    """Two orthonormal directions (K, d, 2) of no particular orientation, the same for every family.

    A plane along the axes would round all coordinates alike and trip the norm guard; a random one does not.
    """
    drawn = torch.randn(
        tokens * width, 2, generator=torch.Generator().manual_seed(_PLANE), dtype=torch.float64
    )
    directions: Tensor = torch.linalg.qr(drawn)[0]
    return directions.float().reshape(tokens, width, 2)


def poles(labels: int, tokens: int, width: int, radius: float) -> Tensor:
    """One code per label, float (L, K, d) of norm `radius`: points of a circle in `pole_plane`.

    All norms are equal, so the likelihood of a label given a noisy release is linear in z.
    """
    angles = _ANGLES if labels == len(_ANGLES) else tuple(360.0 * index / labels for index in range(labels))
    circle = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])
    return radius * torch.einsum("kdp,lp->lkd", pole_plane(tokens, width), circle)


def rounded_gaussian(like: Tensor, sigma: float) -> Tensor:
    """Noise for training, float in whole numbers, shape of `like`. The device draws from the exact table instead."""
    return torch.round(torch.randn_like(like) * sigma)


def release_logits(z: Tensor, label_poles: Tensor, sigma: float) -> Tensor:
    """log P(z | label) up to a constant, float (B, L), for z float (B, K, d) = pole + Gaussian noise of `sigma`."""
    return z.flatten(1) @ label_poles.flatten(1).T / (sigma * sigma)


def clean_loss(x: Tensor, labels: Tensor, label_poles: Tensor) -> Tensor:
    """Cross-entropy of the labels int64 (B,) given x float (B, K, d) without noise: what a fresh tower learns first.

    The gain is low on purpose: a window that is 87 % sure belongs at its pole. What makes one window unsure makes its
    neighbours unsure of the same, so eight cautious codes add no evidence, they only drown in the noise.
    """
    radius = label_poles.flatten(1).norm(dim=1)
    return cross_entropy(_GAIN * (x.flatten(1) @ label_poles.flatten(1).T) / (radius * radius), labels)


def release_loss(code: Tensor, labels: Tensor, label_poles: Tensor, sigma: float, draws: int = 4) -> Tensor:
    """Cross-entropy of the labels int64 (B,) given noisy codes: code float (B, K, d), `draws` fresh draws for each."""
    code, labels = code.repeat(draws, 1, 1), labels.repeat(draws)
    return cross_entropy(release_logits(code + rounded_gaussian(code, sigma), label_poles, sigma), labels)


def weak_loss(
    code: Tensor, event: Tensor, labels: Tensor, label_poles: Tensor, sigma: float, draws: int = 4
) -> Tensor:
    """Cross-entropy where only the event's label is known: some release shows it.

    code float (B, K, d); event int64 (B,) names the event of each release; labels int64 (E,). Per event and label, the
    log-mean of the releases' likelihood ratios against label 0.
    """
    total = code.new_zeros(())
    for _ in range(draws):
        logits = release_logits(code + rounded_gaussian(code, sigma), label_poles, sigma)
        ratios = logits - logits[:, :1]
        pooled = [
            torch.logsumexp(ratios[event == index], dim=0) - math.log(int((event == index).sum()))
            for index in range(len(labels))
        ]
        total = total + cross_entropy(torch.stack(pooled), labels)
    return total / draws


def event_loss(
    edge: Tensor, cloud: Tensor, words: Tensor, labels: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of the edge exit, the cloud exit and the caption.

    edge, cloud float (B, L); words float (B, W, V), the logits after each word; labels int64 (B,); targets int64
    (B, W).
    """
    caption = cross_entropy(words.flatten(0, 1), targets.flatten(), ignore_index=PAD)
    return cross_entropy(edge, labels), cross_entropy(cloud, labels), caption


def size_loss(x: Tensor, clip_norm: int) -> Tensor:
    """Mean of |x|^2 / C^2, x float (B, K, d): proportional to the bits that a release can reveal."""
    return (x * x).sum(dim=(1, 2)).mean() / (clip_norm * clip_norm)
