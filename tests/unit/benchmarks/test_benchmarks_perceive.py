"""What the benchmark of the person network compares, and how it says that the original's runtime is not there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.device.perceive import COMMAND, distances
from benchmarks.device.perceive_original import Original
from familial.data.people import fitted
from wire.errors import EngineError
from wire.people.decode import JOINTS, PEOPLE, People

SIZE = (192, 256)


def people(*scores: float) -> People:
    """One person for each score, side by side."""
    keypoints = np.full((PEOPLE, JOINTS, 3), 0.9, np.float32)
    keypoints[..., 1] = np.arange(PEOPLE)[:, None] / PEOPLE
    filled = np.array([*scores, *[0.0] * (PEOPLE - len(scores))], np.float32)
    return People(keypoints, np.zeros((PEOPLE, 4), np.float32), filled)


def moved(found: People, pixels: float) -> People:
    keypoints = found.keypoints.copy()
    keypoints[..., 0] += pixels / SIZE[0]
    return replace(found, keypoints=keypoints)


def test_distances_are_in_pixels_and_to_the_nearest_person() -> None:
    truth = people(0.8, 0.7)
    assert np.allclose(distances(truth, truth, SIZE), 0, atol=1e-4)
    apart = distances(moved(truth, 3), truth, SIZE)
    assert len(apart) == 2 and np.allclose(apart, 3, atol=1e-3)


def test_joints_that_the_truth_hardly_sees_are_left_out() -> None:
    truth = people(0.8)
    truth.keypoints[0, 5:, 2] = 0.05
    assert [len(person) for person in distances(truth, truth, SIZE)] == [5]


def test_a_person_who_is_not_found_again_counts() -> None:
    assert distances(people(), people(0.8), SIZE) == [[]]
    assert distances(people(0.8), people(), SIZE) == []


def test_a_picture_is_turned_to_rgb_and_has_its_margin_below() -> None:
    picture = np.zeros((180, 320, 3), np.uint8)
    picture[...] = (255, 128, 1)  # BGR
    frame = fitted(picture, SIZE)
    assert frame.shape == (*SIZE, 3) and frame[0, 0].tolist() == [1, 128, 255]
    assert not frame[144:].any() and frame[:144].all()


@pytest.mark.parametrize("python", [Path("/nowhere/python"), Path(sys.executable)])
def test_a_python_without_the_original_is_named(python: Path) -> None:
    with pytest.raises(EngineError, match=f"--litert {python}"), Original(python, b"no network", SIZE):
        pass


def test_missing_weights_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMAND.main(["--weights", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert COMMAND.main(["--weights", str(tmp_path), "--frames", "0"]) == 2
