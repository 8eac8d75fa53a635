"""The losses of stages 1 and 2, and the parts that only training has.

x (B, R, K, d) of a batch --window_losses--> is the code at its label's class prototype?          stages 1 and 2
what the tower saw        --TrainingHeads.body_losses--> what rendered clips know of bodies       stages 1 and 2
x --noisy_events--> z (N, R, K, d) --event_losses--> both exits, attributes, the caption          stage 2
                                  `--TrainingHeads.adversary_loss--> are two events of one scene? stage 2
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.batches import SampleBatch, SequenceBatch
from familial.data.events import LabelledClip
from familial.model.code_space import rounded_gaussian
from familial.model.desensitizer import ASIDE
from familial.model.family import Family
from familial.model.towers.base import Seen
from familial.model.towers.fused import FusedTower
from familial.model.towers.motion import SnippetTower
from familial.model.vocabulary import FIRST_LABEL
from familial.train.adversary import ReidentificationAdversary
from familial.train.attributes import attribute_loss, attribute_prototypes, share_loss
from familial.train.body_tasks import Bodies
from familial.train.losses import clean_loss, event_loss, size_loss, weak_logits_loss, weak_loss

__all__ = ["NOTHING", "TrainingHeads", "captions_of", "event_losses", "noisy_events", "window_losses"]

NOTHING = "nothing unusual happens"
"""The caption of an event that does not show what its clip is about."""

_FAR = 4.0  # of a code before the soft bound: beyond 0.97 of the radius
_NOW = 3.0  # weight of what happens now, relative to the other tasks on single snippets


def window_losses(
    family: Family, x: Tensor, batch: SequenceBatch, label_prototypes: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Return the losses of single windows.

    Args:
        family: in training.
        x: features before rounding, float (B, R, K, d).
        batch: of B sequences; labels count where they are known, else the sequence's own where that is known.
        label_prototypes: float (L, K, d).
        weights: float (L,), of each label.
    """
    labels, weak = torch.as_tensor(batch.labels), torch.as_tensor(batch.weak)  # (B, R), (B,)
    known, hidden = labels >= 0, weak >= 0
    losses = {"size": 0.002 * size_loss(x.flatten(0, 1), family.config.clip_norm)}
    if bool(known.any()):
        losses["clean"] = clean_loss(x[known], labels[known], label_prototypes, weights)
    if bool(hidden.any()):
        losses["weak"] = hidden.float().mean() * weak_loss(x[hidden], weak[hidden], label_prototypes)
    config, attributes = family.config, torch.as_tensor(batch.attributes)
    quiet = (labels == 0) & (attributes >= 0)
    if config.attributes and bool(quiet.any()):
        directions = attribute_prototypes(len(config.attributes), config.rank, config.tokens, config.width)
        radius = ASIDE * (config.clip_norm - 1.0)
        losses["attribute"] = 0.3 * attribute_loss(x[quiet], attributes[quiet], directions, radius)
    return losses


def noisy_events(code: Tensor, samples: SampleBatch, sigma: float) -> tuple[Tensor, Tensor]:
    """Return z float (N, R, K, d) with fresh noise, and present bool (N, R), of codes float (B, R, K, d).

    The releases that arrived are moved to the event's end, with zeros before them.
    """
    count = code.shape[1]
    sequence, last = torch.as_tensor(samples.sequence), torch.as_tensor(samples.last)  # (N,)
    length = last - torch.as_tensor(samples.first) + 1
    place = last[:, None] - torch.arange(count - 1, -1, -1)  # (N, R): which release comes to each place
    present = torch.arange(count - 1, -1, -1) < length[:, None]
    chosen = code[sequence[:, None], place.clamp(min=0)]  # (N, R, K, d)
    return (chosen + rounded_gaussian(chosen, sigma)) * present[:, :, None, None], present


def captions_of(clips: Sequence[LabelledClip], batch: SequenceBatch, samples: SampleBatch) -> list[str]:
    """Return each sample's caption: the clip's where the event shows what it is about, else that of nothing."""
    of_sample = zip(batch.clip[samples.sequence].tolist(), samples.labels.tolist(), strict=True)
    return [clips[index].caption if label == clips[index].label else NOTHING for index, label in of_sample]


def event_losses(
    family: Family,
    z: Tensor,
    present: Tensor,
    samples: SampleBatch,
    batch: SequenceBatch,
    weights: Tensor,
    sentences: Sequence[str],
) -> dict[str, Tensor]:
    """Return the losses of both exits on noisy events.

    Args:
        family: in training.
        z: float (N, R, K, d).
        present: bool (N, R).
        samples: of N events.
        batch: that they are from.
        weights: float (N,).
        sentences: the captions.
    """
    config, labels = family.config, torch.as_tensor(samples.labels)
    captions = torch.tensor([family.vocabulary.encode(text, config.caption_words) for text in sentences])  # (N, W)
    words = torch.cat((labels[:, None] + FIRST_LABEL, captions[:, :-1]), dim=1)
    edge, cloud, following, attributes = family.both_exits(z, present, words)
    at_edge, at_cloud, caption = event_loss(edge, cloud, following, labels, captions, weights)
    losses = {"edge": at_edge, "cloud": at_cloud, "caption": 0.05 * caption}
    if config.attributes:
        losses["shares"] = 0.2 * share_loss(attributes, torch.as_tensor(samples.shares(batch, len(config.attributes))))
    return losses


def _keep(kept: list[Tensor], module: nn.Module, inputs: Any, output: Tensor) -> None:
    """A forward hook."""
    if module.training:
        kept[:] = [output]


class TrainingHeads(nn.Module):
    """Modules that are thrown away after training: heads for bodies, where the tower has snippets; the adversary."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        tower = family.tower
        labels = len(family.config.labels)
        self.bodies = Bodies(tower, labels) if isinstance(tower, SnippetTower) else None
        self.people = nn.Linear(tower.people.features, labels) if isinstance(tower, FusedTower) else None
        self.reid_adversary = ReidentificationAdversary(family.config.n, family.config.sigma)
        self._people, self._length = list[Tensor](), list[Tensor]()
        if isinstance(tower, FusedTower):
            family.desensitizer.outer.register_forward_hook(partial(_keep, self._length))
            tower.people.register_forward_hook(partial(_keep, self._people))

    def tower_losses(self, batch: SequenceBatch, weights: Tensor) -> dict[str, Tensor]:
        """Return the losses on what was computed on the way to the last codes.

        For a fused tower alone. "people": the label by the people tower's features alone, so that it learns even where
        motion is surer. "far": codes far beyond the rim, where the soft bound lets no gradient through.

        Args:
            batch: of B sequences of R releases, as `family.sequence_features` saw it just now.
            weights: float (L,), of each label.
        """
        if self.people is None:
            return {}
        length, seen = self._length.pop().norm(dim=1), self._people.pop().float()
        logits = self.people(seen).reshape(*batch.labels.shape, -1)  # (B, R, L)
        labels, hidden = torch.as_tensor(batch.labels), torch.as_tensor(batch.weak)
        losses = {"far": 0.02 * torch.relu(length - _FAR).square().mean(), "people": weak_logits_loss(logits, hidden)}
        if bool((labels >= 0).any()):
            known = cross_entropy(logits[labels >= 0], labels[labels >= 0], weight=weights, label_smoothing=0.02)
            losses["people"] = losses["people"] + known
        return losses

    def body_losses(self, seen: Sequence[Seen], batch: SequenceBatch, weight: float) -> dict[str, Tensor]:
        """Return the losses of what is known of bodies, where anything is."""
        if self.bodies is None or not seen:
            return {}
        losses = self.bodies(seen[0], torch.as_tensor(batch.now), batch.truth)
        return {name: weight * loss * (_NOW if name == "now" else 1.0) for name, loss in losses.items()}

    def adversary_loss(
        self, z: Tensor, present: Tensor, samples: SampleBatch, batch: SequenceBatch, weight: float
    ) -> tuple[Tensor, float]:
        """Return the adversary's loss, and the share that it links right beyond chance."""
        attributes = np.where(samples.labels == 0, batch.attributes[samples.sequence, samples.last], -1)
        kind = torch.as_tensor(samples.labels * 100 + attributes)
        sequence = torch.as_tensor(samples.sequence)
        found: tuple[Tensor, float] = self.reid_adversary(z, present, sequence, kind, weight)
        return found
