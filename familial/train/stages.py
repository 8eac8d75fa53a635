"""The losses of stages 1 and 2, and the parts that only training has.

x (B, R, K, d) of a batch --window_losses--> is the code at its label's class prototype?          stages 1 and 2
what the tower saw        --TrainingHeads.body_losses--> what rendered clips know of bodies       stages 1 and 2
x --noisy_events--> z (N, R, K, d) --event_losses--> both exits, attributes, the caption          stage 2
                                  `--TrainingHeads.adversary_loss--> are two events of one scene? stage 2
`step_losses`: all of them for one batch
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from familial.data.batches import SampleBatch, SequenceBatch
from familial.data.events import LabelledClip
from familial.model.code_space import rounded_gaussian
from familial.model.desensitizer import ASIDE
from familial.model.family import Family
from familial.model.towers.base import Seen
from familial.model.towers.motion import SnippetTower
from familial.model.vocabulary import FIRST_LABEL
from familial.train.adversary import ReidentificationAdversary
from familial.train.attributes import attribute_loss, attribute_prototypes, share_loss
from familial.train.body_tasks import Bodies
from familial.train.evidence import Evidence
from familial.train.losses import clean_loss, event_loss, size_loss, weak_loss
from familial.train.sampling import BatchSource, tracks_tensor

__all__ = ["NOTHING", "TrainingHeads", "captions_of", "event_losses", "noisy_events", "step_losses", "window_losses"]

NOTHING = "nothing unusual happens"
"""The caption of an event that does not show what its clip is about."""

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


class TrainingHeads(nn.Module):
    """Modules that are thrown away after training: heads for bodies, where the tower has snippets; the adversary."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        tower = family.tower
        labels = len(family.config.labels)
        self.bodies = Bodies(tower, labels) if isinstance(tower, SnippetTower) else None
        fusion = family.desensitizer.fusion
        self.evidence = None if fusion is None else Evidence(family.desensitizer, fusion)
        self.reid_adversary = ReidentificationAdversary(family.config.n, family.config.sigma)

    def evidence_losses(self, losses: dict[str, Tensor], batch: SequenceBatch, weights: Tensor) -> dict[str, Tensor]:
        """Return `losses` of single windows; of a late fusion its towers are taught the labels, and the codes are not.

        A loss on codes that saturate would push both heads as far as they go.
        """
        if self.evidence is None:
            return losses
        kept = {name: loss for name, loss in losses.items() if name not in ("clean", "weak")}
        return kept | self.evidence.losses(batch, weights)

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


def step_losses(
    family: Family,
    heads: TrainingHeads,
    source: BatchSource,
    batch: SequenceBatch,
    step: int,
    stage: int,
    label_prototypes: Tensor,
) -> tuple[dict[str, Tensor], float]:
    """Return the losses of one step, and the share that the adversary links right.

    Args:
        family: in training.
        heads: of it.
        source: of the batch.
        batch: of B sequences.
        step: its number.
        stage: 1 or 2.
        label_prototypes: float (L, K, d).
    """
    config, seen, linked = source.train, list[Seen](), 0.0
    frames = torch.as_tensor(batch.frames)  # u8 (B, T, H, W)
    tracks = tracks_tensor(batch)
    x = family.sequence_features(frames, source.index, tracks, config.bf16, seen)  # (B, R, K, d), before rounding
    weights = source.window_weights(batch)
    losses = window_losses(family, x, batch, label_prototypes, weights)
    losses = heads.evidence_losses(losses, batch, weights)
    losses |= heads.body_losses(seen, batch, config.bodies)
    samples = source.samples(batch, config.samples_per_sequence, [config.seed, step]) if stage == 2 else None
    if samples is not None and len(samples.labels):  # none, where nothing is known of any of a few sequences
        code = family.code(x.flatten(0, 1)).reshape(x.shape)  # rounded; the gradient passes straight through
        code = code.detach() if config.freeze_motion else code
        z, present = noisy_events(code, samples, family.config.sigma)  # (N, R, K, d), (N, R)
        weights, captions = source.sample_weights(samples), captions_of(source.clips, batch, samples)
        losses |= event_losses(family, z, present, samples, batch, weights, captions)
        losses["link"], linked = heads.adversary_loss(z, present, samples, batch, config.adversary)
    return losses, linked
