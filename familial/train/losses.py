"""What the family is trained for: verdicts that survive the noise, from codes that use the ball well.

clean_loss     which label's class prototype in the ball a window's code is nearest to          (tower, desensitizer)
weak_loss      the same where only the run's label is known                          (tower, desensitizer)
event_loss     the label at both exits and the caption's words, from noisy releases  (all)
answer_loss    which attribute's direction a window's code leans to             (tower, desensitizer)
share_loss     which share of an event each attribute holds for                (all)
size_loss      code energy as a share of C^2: bits that no verdict needs should not leave
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from familial.model.desensitizer import code_plane
from familial.model.vocabulary import PAD

__all__ = [
    "attribute_loss",
    "attribute_prototypes",
    "clean_loss",
    "event_loss",
    "prototypes",
    "rounded_gaussian",
    "share_loss",
    "size_loss",
    "weak_loss",
]

# degrees of normal, fall, fight: risks lie far from normal (1.92 C and 1.88 C), then from each other (1.19 C)
_ANGLES = (0.0, 147.0, 220.0)
_GAIN = 1.25  # logit of a code at its own class prototype
_ATTRIBUTE_GAIN = 2.6  # of a code that leans to its answer as far as it may


def prototypes(labels: int, tokens: int, width: int, radius: float) -> Tensor:
    """One code per label, float (L, K, d) of norm `radius`: points of a circle in `desensitizer.code_plane`.

    All norms are equal, so the likelihood of a label given a noisy release is linear in z.
    """
    angles = _ANGLES if labels == len(_ANGLES) else tuple(360.0 * index / labels for index in range(labels))
    circle = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])
    return radius * torch.einsum("kdp,lp->lkd", code_plane(tokens, width), circle)


def attribute_prototypes(attributes: int, labels_rank: int, tokens: int, width: int) -> Tensor:
    """One direction per attribute, float (A, K, d) of norm 1: a regular simplex in the directions of
    `desensitizer.code_plane` behind those of the labels."""
    corners = torch.zeros(attributes, attributes - 1)
    for k in range(1, attributes):  # Helmert's rows: each against the mean of those before
        corners[:k, k - 1], corners[k, k - 1] = 1.0 / math.sqrt(k * (k + 1)), -k / math.sqrt(k * (k + 1))
    corners = torch.nn.functional.normalize(corners, dim=1)
    aside = code_plane(tokens, width, labels_rank + attributes - 1)[..., labels_rank:]
    return torch.einsum("kdp,ap->akd", aside, corners)


def attribute_loss(x: Tensor, attributes: Tensor, directions: Tensor, reach: float) -> Tensor:
    """Cross-entropy of attributes int64 (B,) given x float (B, K, d) without noise, all answers of a batch
    weighing alike. reach: how far a code may lean aside, lattice units."""
    logits = _ATTRIBUTE_GAIN / reach * (x.flatten(1) @ directions.flatten(1).T)
    counts = torch.bincount(attributes, minlength=len(directions)).float()
    return cross_entropy(logits, attributes, weight=torch.clamp(counts.mean() / (counts + 1.0), 0.2, 3.0))


def share_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of shares float (N, A), rows that sum to 1 or, where nobody knows, to 0, given logits (N, A)."""
    each = -(shares * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return each.sum() / torch.clamp(shares.sum(), min=1.0)


def rounded_gaussian(like: Tensor, sigma: float) -> Tensor:
    """Noise for training, float in whole numbers, shape of `like`. The device draws from the exact table instead."""
    return torch.round(torch.randn_like(like) * sigma)


def clean_loss(x: Tensor, labels: Tensor, label_prototypes: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the labels int64 (B,) given x float (B, K, d) without noise, each label weighted, float (L,).

    The gain is low on purpose: a window that is 87 % sure belongs at its class prototype. What makes one window
    unsure makes its
    neighbours unsure of the same, so eight cautious codes add no evidence, they only drown in the noise.
    """
    return cross_entropy(_prototype_logits(x, label_prototypes), labels, weight=weights, label_smoothing=0.02)


def _prototype_logits(x: Tensor, label_prototypes: Tensor) -> Tensor:
    """x float (B, K, d) -> (B, L): `_GAIN` where a code lies at the label's class prototype."""
    radius = label_prototypes.flatten(1).norm(dim=1)
    logits: Tensor = _GAIN * (x.flatten(1) @ label_prototypes.flatten(1).T) / (radius * radius)
    return logits


def weak_loss(x: Tensor, labels: Tensor, label_prototypes: Tensor) -> Tensor:
    """Cross-entropy where only the run's label is known: some release shows it.

    x float (B, R, K, d); labels int64 (B,). Per run and label, the log-mean of the releases' ratios against label 0.
    """
    logits = _prototype_logits(x.flatten(0, 1), label_prototypes).reshape(*x.shape[:2], -1)
    ratios = 2.0 * (logits - logits[:, :, :1])
    return cross_entropy(torch.logsumexp(ratios, dim=1) - math.log(x.shape[1]), labels)


def event_loss(
    edge: Tensor, cloud: Tensor, words: Tensor, labels: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of the edge exit, the cloud exit and the caption.

    edge, cloud float (B, L); words float (B, W, V), the logits after each word; labels int64 (B,); targets int64
    (B, W); weights float (B,) of the two exits' terms.
    """
    exits = torch.stack([cross_entropy(logits, labels, reduction="none") for logits in (edge, cloud)])
    at_edge, at_cloud = (exits * weights).sum(dim=1) / weights.sum()
    caption = cross_entropy(words.flatten(0, 1), targets.flatten(), ignore_index=PAD)
    return at_edge, at_cloud, caption


def size_loss(x: Tensor, clip_norm: int) -> Tensor:
    """Mean of |x|^2 / C^2, x float (B, K, d): proportional to the bits that a release can reveal."""
    return (x * x).sum(dim=(1, 2)).mean() / (clip_norm * clip_norm)
