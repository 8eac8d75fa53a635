"""Attributes of a quiet event, in training: their directions in the code space, their losses, their truth.

truth of a rendered clip --slot_shares--> share of an event for which each attribute holds
code x --attribute_loss--> towards its attribute's direction, aside of the labels' plane       (stage 1)
logits of the cloud exit --share_loss--> those shares                                          (stages 2 and 3)
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from familial.data.events import LabelledClip
from familial.model.config import FamilyConfig
from familial.model.desensitizer import code_plane
from familial.model.vocabulary import FIRST_LABEL, Vocabulary
from familial.synth.truth import ATTRIBUTES, attribute

__all__ = ["attribute_loss", "attribute_prototypes", "share_loss", "slot_shares", "with_attributes"]

_GAIN = 2.6  # logit of a code that lies as far towards its attribute as it may


def with_attributes(config: FamilyConfig) -> FamilyConfig:
    """Return `config` with attributes, whose tokens come behind those of the labels."""
    words = config.words[FIRST_LABEL + len(config.labels) :]
    special = Vocabulary.of_captions((), config.labels, ATTRIBUTES).words
    return replace(config, attributes=ATTRIBUTES, words=(*special, *words))


def attribute_prototypes(attributes: int, labels_rank: int, tokens: int, width: int) -> Tensor:
    """Return one direction for each attribute, float (A, K, d) of norm 1.

    They are a regular simplex in the directions of `desensitizer.code_plane` behind those of the labels.
    """
    corners = torch.zeros(attributes, attributes - 1)
    for k in range(1, attributes):  # Helmert's rows: each against the mean of those before
        corners[:k, k - 1], corners[k, k - 1] = 1.0 / math.sqrt(k * (k + 1)), -k / math.sqrt(k * (k + 1))
    corners = normalize(corners, dim=1)
    aside = code_plane(tokens, width, labels_rank + attributes - 1)[..., labels_rank:]
    return torch.einsum("kdp,ap->akd", aside, corners)


def attribute_loss(x: Tensor, attributes: Tensor, directions: Tensor, radius: float) -> Tensor:
    """Return the cross-entropy of attributes given codes without noise; all attributes of a batch weigh alike.

    Args:
        x: float (B, K, d).
        attributes: int64 (B,).
        directions: float (A, K, d) of norm 1.
        radius: how far a code may lie aside of the labels' plane, in lattice units.
    """
    logits = _GAIN / radius * (x.flatten(1) @ directions.flatten(1).T)  # (B, A)
    counts = torch.bincount(attributes, minlength=len(directions)).float()
    return cross_entropy(logits, attributes, weight=torch.clamp(counts.mean() / (counts + 1.0), 0.2, 3.0))


def share_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the cross-entropy of shares float (N, A) given logits (N, A).

    Rows of shares sum to 1, or to 0 where nobody knows: those have no loss.
    """
    each = -(shares * torch.log_softmax(logits, dim=1)).sum(dim=1)
    return each.sum() / torch.clamp(shares.sum(), min=1.0)


def slot_shares(
    clip: LabelledClip, slots: npt.NDArray[np.int64], slot_s: float, attributes: int
) -> npt.NDArray[np.float32]:
    """Return float32 (A,): in which share of these slots each attribute holds; zeros where nobody knows.

    Args:
        clip: with its truth, where it has one.
        slots: indices of the slots (R,), from the clip's start.
        slot_s: seconds of a slot.
        attributes: how many there are.
    """
    hits = np.zeros(attributes, np.float32)
    if clip.truth is None or not attributes:
        return hits
    times = clip.footage.times
    for slot in slots:
        shown = np.flatnonzero((times > slot * slot_s) & (times <= (slot + 1) * slot_s))
        said = attribute(clip.truth.at(shown)) if len(shown) else -1
        hits[said] += said >= 0
    return hits / max(1.0, float(hits.sum()))
