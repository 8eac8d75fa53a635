"""The losses on labels and on the size of codes.

clean_loss     the label's class prototype is the nearest to a window's code   (tower, desensitizer)
weak_loss      the same where only the sequence's label is known               (tower, desensitizer)
event_loss     the label at both exits and the words of the caption, from noisy releases   (all)
size_loss      code energy as a share of C^2, so that codes reveal no more than they need  (tower, desensitizer)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from familial.model.vocabulary import PAD

__all__ = ["clean_loss", "event_loss", "size_loss", "weak_logits_loss", "weak_loss"]

_GAIN = 1.25  # logit of a code at its own class prototype


def clean_loss(x: Tensor, labels: Tensor, label_prototypes: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy of labels given codes without noise.

    The gain is low on purpose, so that a window that is 87 % sure already lies at its class prototype. Neighbouring
    windows are unsure for the same reason: eight codes near the centre add no evidence and are lost in the noise.

    Args:
        x: float (B, K, d).
        labels: int64 (B,).
        label_prototypes: float (L, K, d).
        weights: float (L,), of each label.
    """
    return cross_entropy(_prototype_logits(x, label_prototypes), labels, weight=weights, label_smoothing=0.02)


def _prototype_logits(x: Tensor, label_prototypes: Tensor) -> Tensor:
    """Turn x float (B, K, d) into logits (B, L): `_GAIN` where a code lies at the label's class prototype."""
    radius = label_prototypes.flatten(1).norm(dim=1)
    logits: Tensor = _GAIN * (x.flatten(1) @ label_prototypes.flatten(1).T) / (radius * radius)
    return logits


def weak_loss(x: Tensor, labels: Tensor, label_prototypes: Tensor) -> Tensor:
    """Return the cross-entropy where only the sequence's label is known: some release shows it.

    For each sequence and label, the log-mean over releases of the odds against label 0.

    Args:
        x: float (B, R, K, d).
        labels: int64 (B,).
        label_prototypes: float (L, K, d).
    """
    logits = _prototype_logits(x.flatten(0, 1), label_prototypes).reshape(*x.shape[:2], -1)  # (B, R, L)
    odds = 2.0 * (logits - logits[:, :, :1])
    return cross_entropy(torch.logsumexp(odds, dim=1) - math.log(x.shape[1]), labels)


def weak_logits_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """As `weak_loss` for label logits float (B, R, L); labels int64 (B,), -1 where nothing is asked of a sequence."""
    asked = labels >= 0
    if not bool(asked.any()):
        return logits.new_zeros(())
    odds = logits[asked] - logits[asked][:, :, :1]
    mean = torch.logsumexp(odds, dim=1) - math.log(logits.shape[1])
    return asked.float().mean() * cross_entropy(mean, labels[asked])


def event_loss(
    edge: Tensor, cloud: Tensor, words: Tensor, labels: Tensor, targets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the losses of the edge exit, of the cloud exit and of the caption.

    Args:
        edge: logits float (N, L).
        cloud: logits float (N, L).
        words: float (N, W, V), the logits after each word.
        labels: int64 (N,).
        targets: int64 (N, W), the words of the caption.
        weights: float (N,), of the two exits' terms.
    """
    exits = torch.stack([cross_entropy(logits, labels, reduction="none") for logits in (edge, cloud)])  # (2, N)
    at_edge, at_cloud = (exits * weights).sum(dim=1) / weights.sum()
    caption = cross_entropy(words.flatten(0, 1), targets.flatten(), ignore_index=PAD)
    return at_edge, at_cloud, caption


def size_loss(x: Tensor, clip_norm: int) -> Tensor:
    """Return the mean of |x|^2 / C^2, x float (B, K, d): proportional to the bits that a release can reveal."""
    return (x * x).sum(dim=(1, 2)).mean() / (clip_norm * clip_norm)
