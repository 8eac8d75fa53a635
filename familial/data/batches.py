"""Batches: which stretches of which clips a step is trained on, balanced by label and by set, and blind to length.

clips --label, set, clip, stream start, last slot--> SequenceBatch (frames of 8 slots, labels)   trains all
SequenceBatch + codes --which releases arrived--> SampleBatch (first, last, label)   trains adapter, backbone
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from familial.data.events import UNKNOWN, Grid, LabelledClip, event_label, happening_now, release_label, sequence_frames
from familial.synth.truth import Truth, attribute
from wire.artifact.manifest import WindowSpec

__all__ = ["SampleBatch", "SequenceBatch", "cells_of", "sample_events", "sample_sequences", "sample_clip"]


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Stretches of R consecutive slots.

    frames u8 (B, T, H, W) at the instants of a `Grid`; labels int64 (B, R), UNKNOWN where nobody can say; weak
    int64 (B,), the label that some release of the sequence shows, where only that is known, else UNKNOWN. answers int64
    (B, R), index into truth.ANSWERS of what a slot shows, UNKNOWN where nobody can say. now int64 (B, T), the label of
    what happens at each frame, UNKNOWN likewise; truth: of all frames, its fields with B before T. clip: index of each
    sequence's clip; start, last: seconds of the clip's clock at which the stream began and the last slot ends.
    """

    frames: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    weak: npt.NDArray[np.int64]
    attributes: npt.NDArray[np.int64]
    now: npt.NDArray[np.int64]
    truth: Truth
    clip: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """What a reader is given of some sequences: sequence int64 (N,); first, last int64 (N,), the releases that
    arrived, both included; labels int64 (N,) of what they show."""

    sequence: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def shares(self, sequences: SequenceBatch, attributes: int) -> npt.NDArray[np.float32]:
        """float32 (N, answers): in which share of a reading's slots each attribute holds; zeros where a risk is
        shown or nobody knows."""
        slots = np.arange(sequences.attributes.shape[1])
        read = (slots >= self.first[:, None]) & (slots <= self.last[:, None])  # (N, R)
        said = sequences.attributes[self.sequence]
        hits = np.stack([(read & (said == index)).sum(axis=1) for index in range(attributes)], axis=1)
        shares = hits / np.maximum(hits.sum(axis=1, keepdims=True), 1) * (self.labels == 0)[:, None]
        return np.asarray(shares, np.float32)


def cells_of(clips: Sequence[LabelledClip], labels: int) -> list[dict[str, list[int]]]:
    """Per label: set -> indices of its clips."""
    cells: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(labels)]
    for index, clip in enumerate(clips):
        cells[clip.label][clip.set].append(index)
    return cells


def sample_clip(cells: Sequence[dict[str, list[int]]], shares: Sequence[float], rng: np.random.Generator) -> int:
    """Index of a clip of `cells_of`: label by `shares` of those that there are, then set, then clip."""
    weights = np.array([share if cell else 0.0 for share, cell in zip(shares, cells, strict=True)])
    cell = cells[int(rng.choice(len(shares), p=weights / weights.sum()))]
    sets = sorted(cell)
    members = cell[sets[int(rng.integers(len(sets)))]]
    return members[int(rng.integers(len(members)))]


def sample_sequences(
    clips: Sequence[LabelledClip],
    shares: Sequence[float],
    sequences: int,
    grid: Grid,
    spec: WindowSpec,
    rng: np.random.Generator,
    plain: bool = False,
) -> SequenceBatch:
    """A batch of `sequences` sequences: label by `shares`, then set, then clip. Plain: unchanged frames.

    The sequence ends anywhere from the stream's first slot to where the clip's last picture is nearly out of
    reach. Of a fall whose moment is unknown, the sequence covers what it can.
    """
    cells = cells_of(clips, len(shares))
    count, reach = len(grid.index), spec.receptive_field_s
    frames, labels, weak, attributes, now, truths, chosen, starts, lasts = [], [], [], [], [], [], [], [], []
    for _ in range(sequences):
        index = sample_clip(cells, shares, rng)
        clip = clips[index]
        start, last, hidden = _stretch(clip, spec, rng)
        ends = last - spec.slot_s * np.arange(count - 1, -1, -1)
        seen = (ends > start + spec.slot_s / 2) & (ends < clip.footage.duration + reach - 0.5)
        named = [
            release_label(clip, start, float(end), reach) if there else UNKNOWN
            for end, there in zip(ends, seen, strict=True)
        ]
        made, truth = sequence_frames(clip, start, last, grid, spec, None if plain else rng)
        frames.append(made)
        truths.append(truth)
        now.append(happening_now(clip, last - grid.before_s, np.asarray(made.any(axis=(1, 2)))))
        labels.append(named)
        attributes.append([attribute(truth.at(of_window[-spec.new_frames :])) for of_window in grid.index])
        weak.append(clip.label if hidden else UNKNOWN)
        chosen.append(index)
        starts.append(start)
        lasts.append(last)
    known = Truth(*(np.stack([getattr(truth, name) for truth in truths]) for name in Truth.__slots__))
    return SequenceBatch(
        np.stack(frames),
        np.array(labels),
        np.array(weak),
        np.array(attributes),
        np.stack(now),
        known,
        np.array(chosen),
        np.array(starts),
        np.array(lasts),
    )


def _stretch(clip: LabelledClip, spec: WindowSpec, rng: np.random.Generator) -> tuple[float, float, bool]:
    """Stream start, end of the last slot, and whether all that is known of the sequence is that it shows the clip's
    label."""
    duration, slack = clip.footage.duration, max(0.0, clip.footage.duration - spec.slot_s)
    if clip.happenings is None and clip.label == 1:
        return float(rng.uniform(0, min(0.5, slack))), float(rng.uniform(duration - 0.5, duration + 3.0)), True
    start = float(rng.uniform(0, slack if rng.random() < 0.3 else min(0.5, slack)))
    return start, float(rng.uniform(start + spec.slot_s, duration + spec.receptive_field_s - 0.9)), False


def sample_events(
    sequences: SequenceBatch,
    clips: Sequence[LabelledClip],
    spec: WindowSpec,
    each: int,
    rng: np.random.Generator,
    full: float = 0.4,
) -> SampleBatch:
    """`each` samples of every sequence, a share `full` of them of all its releases; none without a label."""
    count = sequences.labels.shape[1]
    found: list[tuple[int, int, int, int]] = []
    for sequence, (index, start, last) in enumerate(zip(sequences.clip, sequences.start, sequences.last, strict=True)):
        clip = clips[index]
        ends = last - spec.slot_s * np.arange(count - 1, -1, -1)
        alive = np.flatnonzero(
            (ends > start + spec.slot_s / 2) & (ends < clip.footage.duration + spec.receptive_field_s)
        )
        for _ in range(each if len(alive) else 0):
            low, high = int(alive[0]), int(alive[-1])
            if rng.random() >= full:
                high = int(rng.integers(low, high + 1))
                low = int(rng.integers(low, high + 1))
            label = event_label(clip, start, [float(end) for end in ends[low : high + 1]], spec.receptive_field_s)
            if label != UNKNOWN:
                found.append((sequence, low, high, label))
    rows = np.array(found, np.int64).reshape(-1, 4)
    return SampleBatch(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])
