"""People from the person network's heads: against a slow transcription of the original, and on bad input."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from wire.errors import CameraError, EngineError
from wire.people.decode import FOUND, HEADS, JOINTS, PEOPLE, People, decode, place

Heads = dict[str, npt.NDArray[np.float32]]
H, W = 48, 64


def empty() -> Heads:
    return {name: np.zeros((1, count, H, W), np.float32) for name, count in HEADS.items()}


def with_person(heads: Heads, row: int, column: int, score: float = 0.9, size: tuple[float, float] = (20, 12)) -> Heads:
    """A person at a cell, whose joints lie on a diagonal through it: joint j at (row - 8 + j, column - 4 + j / 2)."""
    heads["centres"][0, 0, row, column] = score
    heads["sizes"][0, :, row, column] = size
    for joint in range(JOINTS):
        y, x = row - 8 + joint, column - 4 + joint // 2
        heads["regression"][0, 2 * joint : 2 * joint + 2, row, column] = y - row, x - column
        if 0 <= y < H and 0 <= x < W:
            heads["heat"][0, joint, y, x] = 0.8
            heads["joint_offsets"][0, 2 * joint : 2 * joint + 2, y, x] = 0.25, -0.25
    return heads


def slow(heads: Mapping[str, npt.NDArray[np.float32]]) -> People:
    """What the original's graph computes behind its heads, operator by operator and in float64."""
    maps = {name: value[0].astype(np.float64) for name, value in heads.items()}
    centres, found = maps["centres"][0], []
    for y in range(H):
        for x in range(W):
            largest = centres[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].max()
            found.append((-centres[y, x] if largest - centres[y, x] < 1.0132789611816406e-06 else 0.0, y, x))
    chosen = sorted(found)[:PEOPLE]
    grid_y, grid_x = np.mgrid[:H, :W]
    weighted = np.zeros((PEOPLE, JOINTS, H, W))
    boxes = np.zeros((PEOPLE, 4))
    for person, (_, y, x) in enumerate(chosen):
        middle, half = np.array([y, x]) + maps["centre_offsets"][:, y, x], np.maximum(maps["sizes"][:, y, x], 0) / 2
        top, left = np.clip(middle - half, 0, [H, W])
        bottom, right = np.clip(middle + half, 0, [H, W])
        boxes[person] = top / H, left / W, bottom / H, right / W
        inside = (grid_y >= top) & (grid_y < bottom) & (grid_x >= left) & (grid_x < right)
        for joint in range(JOINTS):
            away_y = grid_y - (y + maps["regression"][2 * joint, y, x])
            away_x = grid_x - (x + maps["regression"][2 * joint + 1, y, x])
            near = np.exp(-(away_y**2 + away_x**2) / (min(H, W) * 0.300048828125))
            weighted[person, joint] = maps["heat"][joint] * near * inside
    keypoints, scores = np.zeros((PEOPLE, JOINTS, 3)), np.zeros(PEOPLE)
    for person in range(PEOPLE):
        for joint in range(JOINTS):
            y, x = divmod(int(weighted[person, joint].argmax()), W)
            offset = maps["joint_offsets"][2 * joint : 2 * joint + 2, y, x]
            keypoints[person, joint] = (y + offset[0]) / H, (x + offset[1]) / W, weighted[:, joint, y, x].max()
        seen = keypoints[person, :, 2][keypoints[person, :, 2] > 0.126953125]
        scores[person] = -chosen[person][0] * seen.sum() / max(len(seen), 1)
    return People(keypoints.astype(np.float32), boxes.astype(np.float32), scores.astype(np.float32))


@pytest.mark.parametrize("seed", range(4))
def test_it_reads_what_the_original_reads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads = empty()
    for row, column in ((10, 10), (12, 30), (40, 60), (2, 50), (30, 33))[: seed + 2]:
        size = float(rng.uniform(5, 30)), float(rng.uniform(5, 30))
        with_person(heads, row, column, float(rng.uniform(0.3, 1)), size)
    heads["centres"] += rng.uniform(0, 0.05, heads["centres"].shape).astype(np.float32)
    heads["heat"] = np.maximum(heads["heat"], rng.uniform(0, 0.6, heads["heat"].shape).astype(np.float32))
    for name in ("centre_offsets", "sizes", "joint_offsets", "regression"):
        heads[name] += rng.normal(0, 1.5, heads[name].shape).astype(np.float32)
    found, expected = decode(heads), slow(heads)
    assert np.allclose(found.keypoints, expected.keypoints, atol=1e-5)
    assert np.allclose(found.boxes, expected.boxes, atol=1e-5)
    assert np.allclose(found.scores, expected.scores, atol=1e-5)
    assert found.found >= 2


def test_a_person_is_where_the_heads_say() -> None:
    people = decode(with_person(empty(), 20, 30))
    assert people.found == 1
    joint = np.arange(JOINTS)
    assert np.allclose(people.keypoints[0, :, 0] * H, 12 + joint + 0.25, atol=1e-4)
    assert np.allclose(people.keypoints[0, :, 1] * W, 26 + joint // 2 - 0.25, atol=1e-4)
    assert np.allclose(people.boxes[0] * [H, W, H, W], [10, 24, 30, 36], atol=1e-4)
    assert people.scores[0] == pytest.approx(0.9 * 0.8, abs=1e-5)


def test_of_more_than_six_people_the_surest_are_kept() -> None:
    heads = empty()
    for index in range(8):
        with_person(heads, 12 + 24 * (index % 2), 6 + 16 * (index // 2), 0.5 + 0.05 * index)
    people = decode(heads)
    assert people.keypoints.shape == (PEOPLE, JOINTS, 3) and people.found == PEOPLE
    assert list(people.scores) == sorted(people.scores, reverse=True)
    assert people.scores[-1] == pytest.approx(0.6 * 0.8, abs=1e-5)


def test_two_centres_of_one_body_are_one_person() -> None:
    heads = with_person(with_person(empty(), 20, 30, 0.9), 21, 31, 0.8)
    assert decode(heads).found == 1


@pytest.mark.parametrize(
    ("row", "column", "inside"), [(20, 24, True), (20, 35, True), (20, 36, False), (10, 30, True), (30, 30, False)]
)
def test_a_box_ends_before_its_far_sides(row: int, column: int, inside: bool) -> None:
    heads = with_person(empty(), 20, 30)  # its box: rows 10 to 30, columns 24 to 36
    heads["heat"][...] = 0
    heads["heat"][0, 0, row, column] = 1
    assert (decode(heads).keypoints[0, 0, 2] > 0) == inside


def test_nobody_is_no_error() -> None:
    people = decode(empty())
    assert people.found == 0 and not people.scores.any()
    assert np.isfinite(people.keypoints).all() and np.isfinite(people.boxes).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 63), (47, 0), (47, 63), (1, 30)])
def test_people_cut_by_the_edge_have_a_box_inside(row: int, column: int) -> None:
    people = decode(with_person(empty(), row, column))
    assert people.found == 1
    assert (people.boxes >= 0).all() and (people.boxes <= 1).all()
    assert (people.boxes[0, 2:] > people.boxes[0, :2]).all()
    unseen = (row - 8 + np.arange(JOINTS) < 0) | (row - 8 + np.arange(JOINTS) >= H)
    assert (people.keypoints[0, unseen, 2] < 0.127).all(), "joints outside of the frame are not seen"


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_head_that_is_no_number_is_refused(name: str, value: float) -> None:
    heads = with_person(empty(), 20, 30)
    heads[name][0, -1, 5, 7] = value
    with pytest.raises(EngineError, match=f"'{name}' holds NaN or more than .*python -m export.perceive"):
        decode(heads)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_form_is_refused(name: str) -> None:
    heads = empty()
    with pytest.raises(EngineError, match=f"'{name}'"):
        decode({**heads, name: heads[name].astype(np.float64)} if name != "centres" else {"heat": heads["heat"]})
    if name != "centres":
        with pytest.raises(EngineError, match=f"'{name}' is float32"):
            decode({**heads, name: heads[name][..., 1:]})
    with pytest.raises(EngineError, match="is missing"):
        decode({other: value for other, value in heads.items() if other != name})


def test_the_largest_numbers_that_pass_make_no_error() -> None:
    for sign in (-1.0, 1.0):
        heads = {name: np.full_like(value, sign * 1e4) for name, value in empty().items()}
        people = decode(heads)
        assert np.isfinite(people.keypoints).all() and np.isfinite(people.scores).all()


def test_a_picture_keeps_its_proportions() -> None:
    assert place(120, 160) == place(480, 640) and place(120, 160).share == (1.0, 1.0)
    wide = place(180, 320)
    assert (wide.rows, wide.columns) == (144, 256)
    assert (place(640, 480).rows, place(640, 480).columns) == (192, 144)


@pytest.mark.parametrize(("height", "width"), [(95, 127), (72, 96), (1, 1), (0, 640), (480, 0)])
def test_a_picture_that_is_too_small_is_refused(height: int, width: int) -> None:
    with pytest.raises(CameraError, match=f"{width}x{height}"):
        place(height, width)


def test_people_are_told_in_units_of_the_camera_picture() -> None:
    people = decode(with_person(empty(), 20, 30))
    inside = people.within(place(180, 320))  # 144 of 192 rows, all columns
    assert np.allclose(inside.keypoints[..., 0], people.keypoints[..., 0] * 192 / 144)
    assert np.allclose(inside.keypoints[..., 1:], people.keypoints[..., 1:])
    assert np.allclose(inside.boxes, people.boxes * np.array([192 / 144, 1, 192 / 144, 1]))
    assert people.scores.max() > FOUND and inside.found == people.found
