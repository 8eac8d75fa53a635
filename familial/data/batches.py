"""Batches: which stretches of which takes a step is trained on, balanced by label and by set, and blind to length.

takes --draw label, set, take, stream start, last slot--> Runs (frames of 8 slots, labels)     trains all
Runs + codes --draw which releases arrived--> Events                                           trains adapter, backbone
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from familial.data.events import UNKNOWN, Grid, Take, event_label, happening_now, release_label, run_frames
from familial.synth.truth import Truth, attribute
from wire.artifact.manifest import WindowSpec

__all__ = ["Readings", "Runs", "cells_of", "draw_readings", "draw_runs", "draw_take"]


@dataclass(frozen=True, slots=True)
class Runs:
    """Stretches of R consecutive slots.

    frames u8 (B, T, H, W) at the instants of a `Grid`; labels int64 (B, R), UNKNOWN where nobody can say; weak
    int64 (B,), the label that some release of the run shows, where only that is known, else UNKNOWN. answers int64
    (B, R), index into truth.ANSWERS of what a slot shows, UNKNOWN where nobody can say. now int64 (B, T), the label of
    what happens at each frame, UNKNOWN likewise; truth: of all frames, its fields with B before T. take: index of each
    run's take; start, last: seconds of the take's clock at which the stream began and the last slot ends.
    """

    frames: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    weak: npt.NDArray[np.int64]
    attributes: npt.NDArray[np.int64]
    now: npt.NDArray[np.int64]
    truth: Truth
    take: npt.NDArray[np.int64]
    start: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Readings:
    """What a reader is given of some runs: run int64 (N,); first, last int64 (N,), the releases that arrived, both
    included; labels int64 (N,) of what they show."""

    run: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def shares(self, runs: Runs, attributes: int) -> npt.NDArray[np.float32]:
        """float32 (N, answers): in which share of a reading's slots each attribute holds; zeros where a risk is
        shown or nobody knows."""
        slots = np.arange(runs.attributes.shape[1])
        read = (slots >= self.first[:, None]) & (slots <= self.last[:, None])  # (N, R)
        said = runs.attributes[self.run]
        hits = np.stack([(read & (said == index)).sum(axis=1) for index in range(attributes)], axis=1)
        shares = hits / np.maximum(hits.sum(axis=1, keepdims=True), 1) * (self.labels == 0)[:, None]
        return np.asarray(shares, np.float32)


def cells_of(takes: Sequence[Take], labels: int) -> list[dict[str, list[int]]]:
    """Per label: set -> indices of its takes."""
    cells: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(labels)]
    for index, take in enumerate(takes):
        cells[take.label][take.set].append(index)
    return cells


def draw_take(cells: Sequence[dict[str, list[int]]], shares: Sequence[float], rng: np.random.Generator) -> int:
    """Index of a take of `cells_of`: label by `shares` of those that there are, then set, then take."""
    weights = np.array([share if cell else 0.0 for share, cell in zip(shares, cells, strict=True)])
    cell = cells[int(rng.choice(len(shares), p=weights / weights.sum()))]
    sets = sorted(cell)
    members = cell[sets[int(rng.integers(len(sets)))]]
    return members[int(rng.integers(len(members)))]


def draw_runs(
    takes: Sequence[Take],
    shares: Sequence[float],
    runs: int,
    grid: Grid,
    spec: WindowSpec,
    rng: np.random.Generator,
    plain: bool = False,
) -> Runs:
    """A batch of `runs` runs: label by `shares`, then set, then take. Plain: unchanged frames.

    The run ends anywhere from the stream's first slot to where the take's last picture is nearly out of reach. Of a
    fall whose moment is unknown, the run covers what it can.
    """
    cells = cells_of(takes, len(shares))
    count, reach = len(grid.index), spec.receptive_field_s
    frames, labels, weak, attributes, now, truths, chosen, starts, lasts = [], [], [], [], [], [], [], [], []
    for _ in range(runs):
        index = draw_take(cells, shares, rng)
        take = takes[index]
        start, last, hidden = _stretch(take, spec, rng)
        ends = last - spec.slot_s * np.arange(count - 1, -1, -1)
        seen = (ends > start + spec.slot_s / 2) & (ends < take.footage.duration + reach - 0.5)
        named = [
            release_label(take, start, float(end), reach) if there else UNKNOWN
            for end, there in zip(ends, seen, strict=True)
        ]
        made, truth = run_frames(take, start, last, grid, spec, None if plain else rng)
        frames.append(made)
        truths.append(truth)
        now.append(happening_now(take, last - grid.before_s, np.asarray(made.any(axis=(1, 2)))))
        labels.append(named)
        attributes.append([attribute(truth.at(of_window[-spec.new_frames :])) for of_window in grid.index])
        weak.append(take.label if hidden else UNKNOWN)
        chosen.append(index)
        starts.append(start)
        lasts.append(last)
    known = Truth(*(np.stack([getattr(truth, name) for truth in truths]) for name in Truth.__slots__))
    return Runs(
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


def _stretch(take: Take, spec: WindowSpec, rng: np.random.Generator) -> tuple[float, float, bool]:
    """Stream start, end of the last slot, and whether all that is known of the run is that it shows the take's
    label."""
    duration, slack = take.footage.duration, max(0.0, take.footage.duration - spec.slot_s)
    if take.happenings is None and take.label == 1:
        return float(rng.uniform(0, min(0.5, slack))), float(rng.uniform(duration - 0.5, duration + 3.0)), True
    start = float(rng.uniform(0, slack if rng.random() < 0.3 else min(0.5, slack)))
    return start, float(rng.uniform(start + spec.slot_s, duration + spec.receptive_field_s - 0.9)), False


def draw_readings(
    runs: Runs, takes: Sequence[Take], spec: WindowSpec, each: int, rng: np.random.Generator, full: float = 0.4
) -> Readings:
    """`each` readings of every run, a share `full` of them of all its releases; what nobody can name is left out."""
    count = runs.labels.shape[1]
    found: list[tuple[int, int, int, int]] = []
    for run, (index, start, last) in enumerate(zip(runs.take, runs.start, runs.last, strict=True)):
        take = takes[index]
        ends = last - spec.slot_s * np.arange(count - 1, -1, -1)
        alive = np.flatnonzero(
            (ends > start + spec.slot_s / 2) & (ends < take.footage.duration + spec.receptive_field_s)
        )
        for _ in range(each if len(alive) else 0):
            low, high = int(alive[0]), int(alive[-1])
            if rng.random() >= full:
                high = int(rng.integers(low, high + 1))
                low = int(rng.integers(low, high + 1))
            label = event_label(take, start, [float(end) for end in ends[low : high + 1]], spec.receptive_field_s)
            if label != UNKNOWN:
                found.append((run, low, high, label))
    rows = np.array(found, np.int64).reshape(-1, 4)
    return Readings(rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3])
