"""The last stage of training: the readers alone, on whole clips as they will be called, tower and codes at rest.

    clips --tower, once plain and some times changed--> codes of all slots --fresh noise--> all events of a clip
          --adapter, backbone--> odds --mean over the events--> the clip's label

Reading is cheap, so the readers see far more noise than the tower can pay for; and what they learn is what
`evaluate.clip_probabilities` asks of them: odds that are right on average over a clip whose moment nobody knows.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from familial.data.batches import cells_of, sample_clip
from familial.data.clips import Footage
from familial.data.events import LabelledClip, augment, event_label, sample_view
from familial.evaluate.report import clip_codes, events_of
from familial.model.family import Family
from familial.model.vocabulary import FIRST_LABEL, PAD
from familial.synth.truth import attribute
from familial.train.losses import rounded_gaussian, share_loss

__all__ = ["read_whole", "slot_shares"]

_MOST = 500  # clips that are read, drawn where there are more
_CHANGED = 2  # changed plays of each
_CLIPS = 24  # in a step
_EVENTS = 12  # of a clip in a step
_RATE = 4e-4


@dataclass(frozen=True, slots=True)
class _Read:
    """A clip as codes float (S, K, d), one of each play."""

    clip: LabelledClip
    plays: list[Tensor]


def read_whole(
    family: Family, clips: Sequence[LabelledClip], shares: Sequence[float], minutes: float, steps: int, seed: int
) -> None:
    """Train the readers of `family` in place for `minutes`, at most `steps` (0: no limit), labels drawn by `shares`.

    At most half of the minutes goes into codes: a slow tower makes those of fewer clips, drawn at random.
    """
    if minutes <= 0:
        return
    began, rng = time.monotonic(), np.random.default_rng([seed, 3])
    reads = list[_Read]()
    for index in rng.permutation(len(clips))[:_MOST]:
        reads.append(_encoded(family, clips[index], rng))
        if time.monotonic() - began > 30 * minutes:
            break
    cells = cells_of([read.clip for read in reads], len(shares))
    reader = copy.deepcopy(family).train()
    for part in (reader.tower, reader.desensitizer):
        part.eval().requires_grad_(False)
    learned = [
        parameter.requires_grad_(True)
        for name, parameter in reader.named_parameters()
        if not name.startswith(("tower.", "desensitizer."))
    ]
    optimiser = torch.optim.AdamW(learned, lr=_RATE, weight_decay=0.05)
    step, encoded = 0, time.monotonic()
    done = 0.0
    while done < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * done))
        loss = _loss(reader, _draw(reads, cells, shares, rng), rng)
        if not math.isfinite(loss.item()):
            print(f"readers: stopped, the loss is {loss.item()}; what was learned until then is kept", flush=True)
            break
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        step += 1
        with torch.no_grad():
            for mine, theirs in zip(family.parameters(), reader.parameters(), strict=True):
                mine.lerp_(theirs, 1.0 - min(0.99, step / (step + 10)))
        left = max(1e-3, 60 * minutes - (encoded - began))
        done = max((time.monotonic() - encoded) / left, step / steps if steps else 0.0)
    spent = (time.monotonic() - began) / 60
    print(f"readers: {step} steps on {len(reads)} whole clips in {spent:.1f} min", flush=True)


def _encoded(family: Family, clip: LabelledClip, rng: np.random.Generator) -> _Read:
    footage, plays = clip.footage, [clip_codes(family, clip.footage)]
    for _ in range(_CHANGED):
        frames = np.ascontiguousarray(footage.frames)
        changed = augment(frames, sample_view(frames.shape[1], frames.shape[2], rng), rng)
        plays.append(clip_codes(family, Footage(changed, footage.times, footage.duration)))
    return _Read(clip, plays)


def _draw(
    reads: Sequence[_Read], cells: Sequence[dict[str, list[int]]], shares: Sequence[float], rng: np.random.Generator
) -> list[tuple[LabelledClip, Tensor]]:
    """Clips of a step, each in one of its plays."""
    drawn = []
    for _ in range(_CLIPS):
        read = reads[sample_clip(cells, shares, rng)]
        drawn.append((read.clip, read.plays[int(rng.integers(len(read.plays)))]))
    return drawn


def _loss(reader: Family, drawn: Sequence[tuple[LabelledClip, Tensor]], rng: np.random.Generator) -> Tensor:
    """Of both exits: the clips' labels by their mean odds, the events' own where known; attributes; captions."""
    config = reader.config
    z, present, labels, shares, sentences, counts = [], [], [], [], [], []
    for clip, codes in drawn:
        events, there = events_of((codes + rounded_gaussian(codes, config.sigma))[None], config.event_releases)
        stride = math.ceil(len(there) / _EVENTS)
        kept = range(int(rng.integers(stride)), len(there), stride)
        z.append(events[0, kept])
        present.append(there[kept])
        counts.append(len(kept))
        for event in kept:
            slots = np.arange(event, event + int(there[event].sum()))
            ends = config.window.slot_s * (slots + 1)
            label = event_label(clip, 0.0, ends.tolist(), config.window.receptive_field_s)
            labels.append(label)
            shares.append(slot_shares(clip, slots, config.window.slot_s, len(config.attributes)) * (label == 0))
            sentences.append(clip.caption if label == clip.label else "nothing unusual happens")
    truth, there = torch.tensor(labels), torch.cat(present)
    captions = torch.tensor([reader.vocabulary.encode(text, config.caption_words) for text in sentences])
    words = torch.cat((truth.clamp(min=0)[:, None] + FIRST_LABEL, captions[:, :-1]), dim=1)
    edge, cloud, following, attributes = reader.both_exits(torch.cat(z), there, words)
    of_clips = torch.tensor([clip.label for clip, _ in drawn])
    known = truth >= 0
    loss = torch.zeros(())
    for logits in (edge, cloud):
        odds = logits - logits[:, :1]
        means = [torch.logsumexp(part, dim=0) - math.log(len(part)) for part in torch.split(odds, counts)]
        loss = loss + cross_entropy(torch.stack(means), of_clips)
        loss = loss + 0.3 * cross_entropy(logits[known], truth[known]) if bool(known.any()) else loss
    if bool(known.any()):
        told = cross_entropy(following[known].flatten(0, 1), captions[known].flatten(), ignore_index=PAD)
        loss = loss + 0.05 * told
    return loss + 0.2 * share_loss(attributes, torch.as_tensor(np.stack(shares))) if config.attributes else loss


def slot_shares(
    clip: LabelledClip, slots: npt.NDArray[np.int64], slot_s: float, attributes: int
) -> npt.NDArray[np.float32]:
    """float32 (answers,): in which share of these slots each attribute holds; zeros where nobody knows."""
    hits = np.zeros(attributes, np.float32)
    if clip.truth is None or not attributes:
        return hits
    times = clip.footage.times
    for slot in slots:
        shown = np.flatnonzero((times > slot * slot_s) & (times <= (slot + 1) * slot_s))
        said = attribute(clip.truth.at(shown)) if len(shown) else -1
        hits[said] += said >= 0
    return hits / max(1.0, float(hits.sum()))
