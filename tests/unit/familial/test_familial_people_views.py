"""People of a sequence: the very ones that a window would pick, and changed ones that are still people."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from familial.data.batches import sample_sequences
from familial.data.clips import Footage
from familial.data.events import Annotation, Grid, LabelledClip, sample_view
from familial.data.people_views import changed_people, people_at, tracks_of
from familial.model.config import nano
from wire.errors import DataError
from wire.people.packed import SCORE, UNIT, VALUES, Packed, nobody

SPEC = dataclasses.replace(nano(("<pad>", "<end>")).window, height=32, width=32)


def people_of(frames: int) -> Packed:
    """One person in each frame, whose score tells the frame's number."""
    people = nobody(frames)
    people[:, 0, :51] = UNIT // 2
    people[:, 0, 51:55] = UNIT // 4, UNIT // 4, UNIT * 3 // 4, UNIT * 3 // 4
    people[:, 0, SCORE] = 1000 + np.arange(frames)
    return people


def footage_of(seconds: float, frames: bool = True) -> Footage:
    times = np.arange(round(8 * seconds)) / 8
    grey = np.full((len(times) if frames else 0, SPEC.height, SPEC.width), 90, np.uint8)
    return Footage(grey, times, seconds, people_of(len(times)), times)


def test_a_window_sees_the_people_of_the_frames_that_it_picks() -> None:
    footage, end = footage_of(12.0), 9.0
    instants = end - np.asarray(SPEC.offsets_s)
    found = people_at(footage, 0.0, instants, SPEC)
    assert footage.people_times is not None
    picked = SPEC.pick(footage.people_times, end)
    assert found[:, 0, SCORE].tolist() == [1000 + index if index >= 0 else 0 for index in picked]


def test_nobody_is_seen_before_the_stream_begins_or_after_the_clip() -> None:
    footage = footage_of(4.0)
    found = people_at(footage, 2.0, np.array([1.0, 1.9, 2.0, 3.9, 4.3, 4.4]), SPEC)
    assert (found[:, 0, SCORE] > 0).tolist() == [False, False, True, True, True, False]


def test_a_clip_that_the_person_network_never_saw_is_refused() -> None:
    with pytest.raises(DataError, match="--perceive"):
        people_at(dataclasses.replace(footage_of(2.0), people=None), 0.0, np.zeros(1), SPEC)


def test_changed_people_are_people_and_nobody_stays_nobody() -> None:
    people = people_of(64)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        made = changed_people(people, sample_view(32, 32, rng), 32, rng)
        assert made.dtype == np.int16 and made.shape == people.shape
        assert not made[:, 1:].any() and not made[made[..., SCORE] == 0].any()
    assert not changed_people(nobody(5), sample_view(32, 32, rng), 32, rng).any()


def test_tracks_are_formed_of_each_window_alone() -> None:
    grid = Grid.of(SPEC, 3)
    people = np.stack([people_of(len(grid.before_s)), nobody(len(grid.before_s))])
    tracks = tracks_of(people, grid.index)
    assert tracks.shape[:3] == (2, 3, SPEC.frames) and tracks.shape[4] == VALUES
    assert not tracks[1].any()
    for window, index in enumerate(grid.index):
        assert tracks[0, window, :, 0, SCORE].tolist() == [1000 + place for place in index]


def test_sequences_carry_tracks_for_a_family_that_sees_people_alone() -> None:
    fall = (Annotation(1, 5.0, 6.0, True),)
    clips = [LabelledClip(footage_of(12.0, frames), 1, "a person falls", "x", fall) for frames in (True, False)]
    grid = Grid.of(SPEC, 8)
    rng = np.random.default_rng(0)
    batch = sample_sequences(clips, [0.5, 0.5], 8, grid, SPEC, rng, plain=True, with_people=True)
    assert batch.tracks is not None and batch.tracks.shape[:3] == (8, 8, SPEC.frames)
    assert batch.tracks.any(axis=(1, 2, 3, 4)).all()
    black = np.array([not clips[index].footage.frames.size for index in batch.clip])
    assert (batch.frames.any(axis=(1, 2, 3)) == ~black).all()
    assert sample_sequences(clips, [0.5, 0.5], 2, grid, SPEC, rng, plain=True).tracks is None
