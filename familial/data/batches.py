"""Batches: which stretches of which clips a step learns from, balanced by label and by set and blind to length.

clips --label, set, clip, stream start, last slot--> SequenceBatch: frames, people and labels of 8 slots (all parts)
SequenceBatch --which releases arrived--> SampleBatch: events of them, labelled        (adapter and backbone learn)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from familial.data.events import UNKNOWN, Grid, LabelledClip, event_label, labels_now, release_label, sequence_frames
from familial.data.people_clips import with_new_errors
from familial.data.people_views import changed_people, people_at, tracks_of
from familial.synth.truth import Truth, attribute
from wire.artifact.manifest import WindowSpec
from wire.people.packed import Packed

__all__ = ["SampleBatch", "SequenceBatch", "cells_of", "sample_clip", "sample_events", "sample_sequences"]

_NOBODY = 0.1  # of the sequences that show both: the person network finds nobody
_SHORT, _SHORT_S = 0.3, (1.8, 6.0)  # of the sequences: the film is cut to so many seconds
_BLIND = 0.35  # of them: the frames are black. Rendered frames flatter the motion tower, which real ones mislead


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """B sequences of R consecutive slots each, and what is known of them; UNKNOWN where nothing is.

    Attributes:
        frames: u8 (B, T, H, W), at the instants of a `Grid`.
        labels: int64 (B, R), of each release.
        weak: int64 (B,), the label that some release of the sequence shows, where no more than that is known.
        attributes: int64 (B, R), what each slot shows: index into `truth.ATTRIBUTES`.
        now: int64 (B, T), what happens at each frame: index of the label.
        truth: of all frames; its fields have B before T.
        clip: int64 (B,), index of each sequence's clip.
        start: float64 (B,), when the stream began, seconds of the clip's clock.
        last: float64 (B,), when the last slot ends, seconds of the clip's clock.
        tracks: int16 (B, R, F, TRACKS, VALUES), the people of each window; None for a family that sees none.
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
    tracks: Packed | None = None


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """N events: stretches of the releases of some sequences.

    Attributes:
        sequence: int64 (N,), index of the sequence.
        first: int64 (N,), the first release that arrived.
        last: int64 (N,), the last one, included.
        labels: int64 (N,), of what they show.
    """

    sequence: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def shares(self, sequences: SequenceBatch, attributes: int) -> npt.NDArray[np.float32]:
        """The share of an event's slots in which each attribute holds.

        Returns:
            float32 (N, attributes); zeros for an event that shows a risk, and where nothing is known.
        """
        slots = np.arange(sequences.attributes.shape[1])
        read = (slots >= self.first[:, None]) & (slots <= self.last[:, None])  # (N, R)
        said = sequences.attributes[self.sequence]
        hits = np.stack([(read & (said == index)).sum(axis=1) for index in range(attributes)], axis=1)
        shares = hits / np.maximum(hits.sum(axis=1, keepdims=True), 1) * (self.labels == 0)[:, None]
        return np.asarray(shares, np.float32)


def cells_of(clips: Sequence[LabelledClip], labels: int) -> list[dict[str, list[int]]]:
    """For each label: set -> indices of its clips."""
    cells: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(labels)]
    for index, clip in enumerate(clips):
        cells[clip.label][clip.set].append(index)
    return cells


def sample_clip(cells: Sequence[dict[str, list[int]]], shares: Sequence[float], rng: np.random.Generator) -> int:
    """Draw the index of a clip: a label by `shares` (of labels that have clips), then a set, then a clip of it."""
    weights = np.array([share if cell else 0.0 for share, cell in zip(shares, cells, strict=True)])
    cell = cells[int(rng.choice(len(shares), p=weights / weights.sum()))]
    sets = sorted(cell)
    members = cell[sets[int(rng.integers(len(sets)))]]
    return members[int(rng.integers(len(members)))]


def sample_sequences(
    clips: Sequence[LabelledClip],
    shares: Sequence[float],
    count: int,
    grid: Grid,
    spec: WindowSpec,
    rng: np.random.Generator,
    plain: bool = False,
    with_people: bool = False,
) -> SequenceBatch:
    """Draw a batch of sequences.

    A sequence ends anywhere from the stream's first slot to where the clip's last frame has nearly left the receptive
    field. Of a fall whose moment is unknown, it covers as much of the clip as it can.

    Args:
        clips: what is drawn from.
        shares: how often each label is drawn.
        count: B.
        grid: the instants of a sequence.
        spec: of the windows.
        rng: draws everything.
        plain: leave the frames as they are, without augmentation.
        with_people: the family sees people too.
    """
    cells, rows = cells_of(clips, len(shares)), list[dict[str, Any]]()
    for _ in range(count):
        index = sample_clip(cells, shares, rng)
        clip = clips[index] if plain or not with_people else with_new_errors(clips[index], rng)
        rows.append({"clip": index, **_sequence(clip, grid, spec, rng, plain, with_people)})
    truths = [row.pop("truth") for row in rows]
    truth = Truth(*(np.stack([getattr(each, name) for each in truths]) for name in Truth.__slots__))
    people = np.stack([row.pop("people") for row in rows]) if with_people else None
    tracks = None if people is None else tracks_of(people, grid.index)
    return SequenceBatch(
        truth=truth, tracks=tracks, **{name: np.array([row[name] for row in rows]) for name in rows[0]}
    )


def _sequence(
    clip: LabelledClip, grid: Grid, spec: WindowSpec, rng: np.random.Generator, plain: bool, with_people: bool
) -> dict[str, Any]:
    """One row of a SequenceBatch, by field, of a stretch drawn from `clip`."""
    count, receptive_field_s = len(grid.index), spec.receptive_field_s
    short = with_people and not plain and rng.random() < _SHORT
    clip, begin = _cut_short(clip, rng) if short else (clip, None)
    start, last, hidden = _stretch(clip, spec, rng, begin)
    ends = last - spec.slot_s * np.arange(count - 1, -1, -1)
    seen = (ends > start + spec.slot_s / 2) & (ends < clip.footage.duration + receptive_field_s - 0.5)
    frames, truth, view = sequence_frames(clip, start, last, grid, spec, None if plain else rng)
    people = dict[str, Packed]()
    if with_people:
        found = people_at(clip.footage, start, last - grid.before_s, spec)
        people["people"] = found if view is None else changed_people(found, view, spec.width, rng)
        if view is not None and frames.any() and found.any():
            kind = rng.random()
            people["people"][:] = 0 if kind < _NOBODY else people["people"]
            frames[:] = 0 if kind > 1.0 - _BLIND else frames
    return {
        **people,
        "frames": frames,
        "labels": [
            release_label(clip, start, float(end), receptive_field_s) if there else UNKNOWN
            for end, there in zip(ends, seen, strict=True)
        ],
        "weak": clip.label if hidden else UNKNOWN,
        "attributes": [attribute(truth.at(of_window[-spec.new_frames :])) for of_window in grid.index],
        "now": labels_now(clip, last - grid.before_s, np.asarray(frames.any(axis=(1, 2)))),
        "truth": truth,
        "start": start,
        "last": last,
    }


def _cut_short(clip: LabelledClip, rng: np.random.Generator) -> tuple[LabelledClip, float | None]:
    """The clip as if it ended after a few seconds, on its own clock, and where its stream begins; a risk stays in it.

    Films of a moment are as short as that, and a camera that was lost for a while gives as little.
    """
    if clip.annotations is None:
        return clip, None
    length, duration = rng.uniform(*_SHORT_S), clip.footage.duration
    begin = rng.uniform(0.0, max(0.0, duration - length))
    if clip.annotations:
        risk = clip.annotations[int(rng.integers(len(clip.annotations)))]
        lead = length - 1.2 if risk.sudden else 0.4 * length  # before it, at most: the risk must still be seen
        first = max(0.0, risk.start - lead)
        begin = rng.uniform(first, max(first, risk.start if risk.sudden else risk.end - length))
    end = min(duration, begin + length)
    footage, shown = clip.footage, clip.footage.times <= end
    frames = footage.frames[: int(shown.sum())] if len(footage.frames) else footage.frames
    changed = replace(footage, frames=frames, times=footage.times[shown], duration=end)
    if footage.people is not None and footage.people_times is not None:
        seen = footage.people_times <= end
        changed = replace(changed, people=footage.people[seen], people_times=footage.people_times[seen])
    return replace(clip, footage=changed), begin


def _stretch(
    clip: LabelledClip, spec: WindowSpec, rng: np.random.Generator, begin: float | None
) -> tuple[float, float, bool]:
    """Draw where the stream starts and the last slot ends, and say whether only the clip's label is known of it."""
    if begin is not None:
        end = clip.footage.duration + spec.receptive_field_s - 0.9
        return begin, float(rng.uniform(min(begin + spec.slot_s, end), end)), False
    duration, slack = clip.footage.duration, max(0.0, clip.footage.duration - spec.slot_s)
    if clip.annotations is None and clip.label == 1:
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
    """Draw which releases of each sequence arrive; what cannot be labelled is left out.

    Args:
        sequences: as `sample_sequences` drew them from `clips`.
        clips: the same clips.
        spec: of the windows.
        each: how many events to draw of each sequence.
        rng: draws.
        full: the share of events of which all releases arrive.
    """
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
