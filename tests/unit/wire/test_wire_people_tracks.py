"""People as integers and their tracks: what is kept of a frame, and who is who within one window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.people.decode import JOINTS, PEOPLE, People
from wire.people.packed import BOX, LEAST, SCORE, UNIT, VALUES, Packed, mirrored, moved, nobody, pack
from wire.people.tracks import TRACKS, form_tracks


def person(y: float, x: float, size: float = 0.2, score: float = 0.6) -> npt.NDArray[np.int16]:
    """A row: a body of `size` about a place, in the picture's larger side."""
    row = np.zeros(VALUES)
    steps = np.arange(JOINTS) / JOINTS - 0.5
    row[0 : 3 * JOINTS : 3], row[1 : 3 * JOINTS : 3] = y + size * steps, x + size * np.sin(7 * steps) / 4
    row[2 : 3 * JOINTS : 3] = score
    row[BOX] = y - size / 2, x - size / 4, y + size / 2, x + size / 4
    row[SCORE] = score
    return np.round(row * UNIT).astype(np.int16)


def walk(frames: int, *starts: tuple[float, float, float]) -> Packed:
    """People who walk along x: (y, x, steps a frame) each, in rows that are shuffled from frame to frame."""
    rng = np.random.default_rng(len(starts))
    people = nobody(frames)
    for frame in range(frames):
        places = rng.permutation(PEOPLE)[: len(starts)]
        for place, (y, x, step) in zip(places, starts, strict=True):
            people[frame, place] = person(y, x + step * frame)
    return people


def people_of(scores: npt.NDArray[np.float32]) -> People:
    rng = np.random.default_rng(3)
    keypoints = rng.random((PEOPLE, JOINTS, 3)).astype(np.float32)
    return People(keypoints, rng.random((PEOPLE, 4)).astype(np.float32), scores)


def test_a_frame_is_packed_in_units_of_its_larger_side() -> None:
    scores = np.array([0.9, 0.5, LEAST, LEAST - 0.01, 0.02, 0.0], np.float32)
    people = people_of(scores)
    rows = pack(people, 240, 320)
    assert rows.shape == (PEOPLE, VALUES) and rows.dtype == np.int16
    assert (rows[:3, SCORE] > 0).all() and not rows[3:].any()
    y, x = people.keypoints[0, 4, :2]
    assert rows[0, 12:14].tolist() == [round(float(y) * 0.75 * UNIT), round(float(x) * UNIT)]
    tall = pack(people, 320, 240)
    assert tall[0, 12:14].tolist() == [round(float(y) * UNIT), round(float(x) * 0.75 * UNIT)]


def test_nan_and_huge_places_become_integers_of_a_limited_size() -> None:
    people = people_of(np.full(PEOPLE, 0.5, np.float32))
    people.keypoints[0, 0] = np.nan, 1e30, 0.5
    people.keypoints[0, 1] = -1e30, -np.inf, 0.5
    rows = pack(people, 100, 100)
    assert rows[0, 0] == 0 and rows[0, 1] == round(2.5 * UNIT)
    assert rows[0, 3] == round(-1.5 * UNIT) == rows[0, 4]


def test_a_frame_with_nobody_packs_to_zeros() -> None:
    assert not pack(people_of(np.zeros(PEOPLE, np.float32)), 240, 320).any()


def test_a_mirror_image_swaps_left_and_right() -> None:
    rows = nobody(1)
    rows[0, 0] = person(0.5, 0.3)
    rows[0, 0, 3 * 5 : 3 * 5 + 3] = 100, 200, 300  # the left shoulder
    twice = mirrored(mirrored(rows, 1.0), 1.0)
    once = mirrored(rows, 1.0)
    assert once[0, 0, 3 * 6 : 3 * 6 + 3].tolist() == [100, UNIT - 200, 300]
    assert np.array_equal(twice, rows)
    assert once[0, 0, BOX][1] == UNIT - rows[0, 0, BOX][3]


def test_moving_people_leaves_nobody_where_nobody_was() -> None:
    shifted = moved(walk(3, (0.5, 0.2, 0.0)), np.array([[1.0, 0.0, 400.0], [0.0, 1.0, 300.0]]))
    assert ((shifted[..., SCORE] > 0).sum(axis=1) == 1).all()
    assert not shifted[shifted[..., SCORE] == 0].any()


def test_a_track_is_one_person_whatever_row_a_frame_has_it_in() -> None:
    people = walk(60, (0.3, 0.1, 0.008), (0.7, 0.9, -0.008), (0.5, 0.5, 0.0))
    tracks = form_tracks(people[None])[0]
    assert tracks.shape == (60, TRACKS, VALUES)
    heights = tracks[:, :3, 0].astype(float) / UNIT
    assert (np.ptp(heights, axis=0) < 0.01).all() and len({round(h, 2) for h in heights[0]}) == 3
    assert not tracks[:, 3].any()


def test_somebody_who_is_missed_for_a_while_is_the_same_afterwards() -> None:
    people = walk(60, (0.4, 0.2, 0.004), (0.4, 0.9, 0.0))
    people[20:32] = 0
    tracks = form_tracks(people[None])[0]
    seen = (tracks[..., SCORE] > 0).sum(axis=0)
    assert seen.tolist() == [48, 48, 0, 0]
    starts = {int(tracks[0, row, 1]) < UNIT // 2 for row in range(2)}
    assert starts == {True, False}
    for row in range(2):
        assert abs(int(tracks[59, row, 1]) - int(tracks[0, row, 1])) < 0.3 * UNIT


def test_somebody_far_away_is_somebody_else() -> None:
    people = nobody(10)
    people[:5, 0], people[5:, 0] = person(0.3, 0.1), person(0.3, 0.9)
    seen = (form_tracks(people[None])[0][..., SCORE] > 0).sum(axis=0)
    assert seen.tolist() == [5, 5, 0, 0]


def test_windows_do_not_know_of_each_other() -> None:
    one, two = walk(12, (0.3, 0.1, 0.01)), walk(12, (0.6, 0.5, 0.0), (0.2, 0.8, 0.0))
    both = form_tracks(np.stack([one, two]))
    assert np.array_equal(both[0], form_tracks(one[None])[0])
    assert np.array_equal(both[1], form_tracks(two[None])[0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_any_people_give_tracks_of_rows_that_were_there(seed: int, frames: int) -> None:
    """Nothing is invented and nobody is in two tracks: every row of a track is a row of that frame, once."""
    rng = np.random.default_rng(seed)
    people = rng.integers(-6144, 10241, (2, frames, PEOPLE, VALUES)).astype(np.int16)
    people[..., SCORE] = rng.integers(0, UNIT, people.shape[:3]) * (rng.random(people.shape[:3]) < 0.6)
    people[people[..., SCORE] == 0] = 0
    tracks = form_tracks(people)
    for window in range(2):
        for frame in range(frames):
            there = [row.tobytes() for row in people[window, frame] if row.any()]
            found = [row.tobytes() for row in tracks[window, frame] if row.any()]
            assert len(set(found)) == len(found) and set(found) <= set(there)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_any_number_of_people_is_followed(count: int) -> None:
    people = nobody(20)
    for index in range(count):
        people[:, index] = person(0.3 + 0.1 * index, 0.1 + 0.15 * index)
    seen = (form_tracks(people[None])[0][..., SCORE] > 0).all(axis=0)
    assert int(seen.sum()) == min(count, TRACKS)
