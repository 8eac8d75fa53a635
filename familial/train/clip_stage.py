"""Stage 3: adapter, backbone and exits alone, on whole clips as they will be called; tower and codes are frozen.

    clips --frozen tower, all plain, then twice augmented--> codes of all slots --fresh noise--> all events of a clip
          --adapter, backbone--> odds of events --> what the same event's codes say without noise
                                 their mean     --> the clip's label

Reading codes is cheap, so this stage sees far more noise than the tower could pay for. It learns what
`clip_inference.clip_probabilities` asks, odds that are right on average over a clip whose moment nobody knows; and what
a live verdict asks, to see through the noise that a risk has just begun. For the latter the clean codes are the teacher
(knowledge distillation, Hinton et al., 2015), not the labels of rendered events: what a code does not say, no reader
can learn from it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.batches import cells_of, sample_clip
from familial.data.clips import Footage
from familial.data.events import UNKNOWN, LabelledClip, augment, sample_view
from familial.data.people_views import changed_people
from familial.evaluate.clip_inference import clip_codes, events_of
from familial.model.code_space import prototypes, rounded_gaussian
from familial.model.family import Family
from familial.model.vocabulary import FIRST_LABEL, PAD
from familial.train.attributes import share_loss, slot_shares
from familial.train.stages import NOTHING

__all__ = ["clip_loss", "clip_stage_clips", "code_label", "train_on_clips"]

_MOST = 500  # clips, rendered or not, chosen at random where there are more; all others that are not rendered too
_PLAIN_UNTIL, _AUGMENTED_UNTIL = 0.8, 0.5  # of the time
_AUGMENTED = 2  # augmented versions of each
_CLIPS = 24  # in a step
_EVENTS = 12  # of a clip in a step
_SHOWN = 2  # clean codes of an event nearest to a risk's prototype that make it the event's label; fewer: nobody knows
_LR = 4e-4  # at most, after stages 1 and 2


@dataclass(frozen=True, slots=True)
class _EncodedClip:
    """A clip and its codes float (S, K, d), one tensor for each version of its frames."""

    clip: LabelledClip
    versions: list[Tensor]


def train_on_clips(
    family: Family,
    clips: Sequence[LabelledClip],
    shares: Sequence[float],
    seconds: float,
    steps: int,
    seed: int,
    now: Callable[[], float] = time.monotonic,
    lr: float = _LR,
    most: int = _MOST,
) -> None:
    """Train adapter, backbone and exits of `family` in place.

    Every clip is encoded as it is, of rendered ones at most `most`; what is left of the first half of the time goes
    into augmented versions.

    Args:
        family: the moving average of the weights; it is averaged on.
        clips: to train on.
        shares: how often each label is drawn.
        seconds: of wall clock, at most; 0: nothing is trained.
        steps: at most so many; 0: no limit.
        seed: of clips and noise.
        now: a clock in seconds.
        lr: highest learning rate.
        most: rendered clips, chosen at random where there are more.
    """
    if seconds <= 0:
        return
    began, rng = now(), np.random.default_rng([seed, 3])
    encoded = _encoded(family, clips, rng, lambda: (now() - began) / seconds, most)
    cells = cells_of([each.clip for each in encoded], len(shares))
    reader, parameters = _trainable_copy(family)
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    step, prepared, done = 0, now(), 0.0
    while done < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * done))
        loss = clip_loss(reader, _batch(encoded, cells, shares, rng), rng)
        if not math.isfinite(loss.item()):
            print(f"clip stage: stopped, the loss is {loss.item()}; the weights before it are kept", flush=True)
            break
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for mine, theirs in zip(family.parameters(), reader.parameters(), strict=True):
                mine.lerp_(theirs, 1.0 - min(0.99, step / (step + 10)))
        left = max(1e-3, seconds - (prepared - began))
        done = max((now() - prepared) / left, step / steps if steps else 0.0)
    print(f"clip stage: {step} steps on {len(encoded)} whole clips in {(now() - began) / 60:.1f} min", flush=True)


def _trainable_copy(family: Family) -> tuple[Family, list[Tensor]]:
    """Return a copy in training mode whose tower and desensitizer are frozen, and the parameters that are not."""
    reader = copy.deepcopy(family).train()
    for part in (reader.tower, reader.desensitizer):
        part.eval().requires_grad_(False)
    parameters = [
        parameter.requires_grad_(True)
        for name, parameter in reader.named_parameters()
        if not name.startswith(("tower.", "desensitizer."))
    ]
    return reader, parameters


def clip_stage_clips(clips: Sequence[LabelledClip], most: int = _MOST) -> list[LabelledClip]:
    """Return those of `clips` that the stage encodes: `most` of them, and all others that are not rendered."""
    return [*clips[:most], *(clip for clip in clips[most:] if clip.truth is None)]


def _encoded(
    family: Family,
    clips: Sequence[LabelledClip],
    rng: np.random.Generator,
    spent: Callable[[], float],
    most: int,
) -> list[_EncodedClip]:
    """Encode the clips: first each as it is, then augmented versions. spent: the share of the time that has gone."""
    mixed = [clips[index] for index in rng.permutation(len(clips))]
    found = list[_EncodedClip]()
    chosen = sorted(clip_stage_clips(mixed, most), key=lambda clip: clip.truth is not None)  # rendered ones last
    for clip in chosen:
        if found and spent() > _PLAIN_UNTIL:
            print(f"clip stage: time for {len(found)} of {len(chosen)} clips; give more --minutes for all", flush=True)
            break
        found.append(_EncodedClip(clip, [clip_codes(family, clip.footage)]))
    for each in found[:most]:
        if spent() > _AUGMENTED_UNTIL:
            break
        each.versions.extend(_augmented(family, each.clip.footage, rng) for _ in range(_AUGMENTED))
    return found


def _augmented(family: Family, footage: Footage, rng: np.random.Generator) -> Tensor:
    frames = np.ascontiguousarray(footage.frames)  # (T, H, W)
    view = sample_view(frames.shape[1], frames.shape[2], rng)
    people = footage.people if footage.people is None else changed_people(footage.people, view, frames.shape[2], rng)
    return clip_codes(family, replace(footage, frames=augment(frames, view, rng), people=people))


def _batch(
    encoded: Sequence[_EncodedClip],
    cells: Sequence[dict[str, list[int]]],
    shares: Sequence[float],
    rng: np.random.Generator,
) -> list[tuple[LabelledClip, Tensor]]:
    """Sample the clips of a step, each in one of its versions."""
    found = []
    for _ in range(_CLIPS):
        each = encoded[sample_clip(cells, shares, rng)]
        found.append((each.clip, each.versions[int(rng.integers(len(each.versions)))]))
    return found


@dataclass(frozen=True, slots=True)
class _Events:
    """Noisy events of the clips of a step. counts: of each clip; N is their sum.

    z float (N, R, K, d), present bool (N, R), labels int64 (N,), shares float (N, A), captions; where nobody
    knows a label, it is UNKNOWN.
    """

    z: Tensor
    present: Tensor
    labels: Tensor
    shares: Tensor
    captions: list[str]
    counts: list[int]


def _events(reader: Family, batch: Sequence[tuple[LabelledClip, Tensor]], rng: np.random.Generator) -> _Events:
    """Add noise to the codes (S, K, d) of each clip, and keep at most `_EVENTS` of its events, evenly spaced."""
    config = reader.config
    corners = prototypes(len(config.labels), config.tokens, config.width, 1.0)  # (L, K, d)
    z, present, labels, shares, captions, counts = [], [], [], [], list[str](), list[int]()
    for clip, codes in batch:
        events, there = events_of((codes + rounded_gaussian(codes, config.sigma))[None], config.event_releases)
        stride = math.ceil(len(there) / _EVENTS)
        kept = range(int(rng.integers(stride)), len(there), stride)
        z.append(events[0, kept])
        present.append(there[kept])
        counts.append(len(kept))
        for event in kept:
            slots = np.arange(event, event + int(there[event].sum()))
            label = code_label(codes[slots], corners, clip.label)
            labels.append(label)
            shares.append(slot_shares(clip, slots, config.window.slot_s, len(config.attributes)) * (label == 0))
            captions.append(clip.caption if label == clip.label else NOTHING)
    truth = torch.tensor(labels)
    return _Events(torch.cat(z), torch.cat(present), truth, torch.as_tensor(np.stack(shares)), captions, counts)


def code_label(codes: Tensor, corners: Tensor, of_clip: int) -> int:
    """Return the label that an event's clean codes say, or UNKNOWN.

    A risk needs `_SHOWN` codes nearest to its prototype; an event without one is normal, and so is every event of a
    normal clip.

    Args:
        codes: of the event's releases, float (R, K, d).
        corners: the prototypes (L, K, d).
        of_clip: the clip's label.
    """
    nearest = (codes.flatten(1) @ corners.flatten(1).T).argmax(dim=1)  # (R,)
    shown = torch.bincount(nearest, minlength=len(corners))
    shown[0] = 0
    if of_clip == 0 or not int(shown.sum()):
        return 0
    most = int(shown.argmax())
    return most if int(shown[most]) >= _SHOWN else UNKNOWN


def clip_loss(reader: Family, batch: Sequence[tuple[LabelledClip, Tensor]], rng: np.random.Generator) -> Tensor:
    """Return the loss of both exits on whole clips.

    The clips' labels by their mean odds, the events' labels and captions where their clean codes say one, attributes.

    Args:
        reader: in training.
        batch: clips and their codes float (S, K, d).
        rng: chooses the events.
    """
    config, events = reader.config, _events(reader, batch, rng)
    captions = torch.tensor([reader.vocabulary.encode(text, config.caption_words) for text in events.captions])
    words = torch.cat((events.labels.clamp(min=0)[:, None] + FIRST_LABEL, captions[:, :-1]), dim=1)
    edge, cloud, following, attributes = reader.both_exits(events.z, events.present, words)
    of_clips = torch.tensor([clip.label for clip, _ in batch])
    known = events.labels != UNKNOWN
    loss = torch.zeros(())
    for logits in (edge, cloud):
        odds = logits - logits[:, :1]  # (N, L), log odds against label 0
        means = [torch.logsumexp(part, dim=0) - math.log(len(part)) for part in torch.split(odds, events.counts)]
        loss = loss + cross_entropy(torch.stack(means), of_clips)
        loss = loss + cross_entropy(logits[known], events.labels[known]) if bool(known.any()) else loss
    if bool(known.any()):
        of_words = cross_entropy(following[known].flatten(0, 1), captions[known].flatten(), ignore_index=PAD)
        loss = loss + 0.05 * of_words
    return loss + 0.2 * share_loss(attributes, events.shares) if config.attributes else loss
