"""Pose features and the people tower: of the persons of one window, in any order, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from familial.model.pose_features import FEATURES, pose_features
from familial.model.towers.people import PeopleTower
from wire.people.decode import JOINTS
from wire.people.packed import BOX, SCORE, UNIT, VALUES
from wire.people.tracks import TRACKS

FRAMES = 60


def tracks(persons: int, seed: int = 0) -> Tensor:
    """One window: `persons` bodies that stand and sway, int32 (1, FRAMES, TRACKS, VALUES)."""
    source = torch.Generator().manual_seed(seed)
    rows = torch.zeros(1, FRAMES, TRACKS, VALUES)
    for index in range(persons):
        place = torch.tensor([0.4, 0.2 + 0.15 * index]) + torch.randn(FRAMES, 2, generator=source) * 0.002
        body = torch.randn(JOINTS, 2, generator=source) * 0.05
        rows[0, :, index, 0 : 3 * JOINTS : 3] = place[:, :1] + body[:, 0]
        rows[0, :, index, 1 : 3 * JOINTS : 3] = place[:, 1:] + body[:, 1]
        rows[0, :, index, 2 : 3 * JOINTS : 3] = 0.7
        rows[0, :, index, BOX] = torch.cat((place - 0.1, place + 0.1), dim=1)
        rows[0, :, index, SCORE] = 0.6
    return torch.round(rows * UNIT).to(torch.int32)


@torch.no_grad()
def test_features_are_bounded_whatever_the_numbers() -> None:
    wild = torch.randint(-(2**31), 2**31 - 1, (2, FRAMES, TRACKS, VALUES), dtype=torch.int64).to(torch.int32)
    for people in (wild, torch.zeros_like(wild), tracks(3)):
        found, there = pose_features(people.float())
        assert found.shape == (len(people), TRACKS, FEATURES, FRAMES)
        assert bool(torch.isfinite(found).all()) and float(found.abs().max()) <= 4.0
        assert bool(((there == 0) | (there == 1)).all())


@torch.no_grad()
def test_the_order_of_tracks_does_not_matter() -> None:
    tower, people = PeopleTower(16).eval(), tracks(3)
    torch.testing.assert_close(tower(people), tower(people[:, :, [3, 1, 0, 2]]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_body_nearer_to_the_camera_has_the_same_pose() -> None:
    """Pose and motion are in units of the body: only where it is and how large say that it is near."""
    people = tracks(1)
    near = people.clone()
    near[..., : 3 * JOINTS].reshape(1, FRAMES, TRACKS, JOINTS, 3)[..., :2] *= 2
    near[..., BOX] *= 2
    first, second = pose_features(people.float())[0], pose_features(near.float())[0]
    pose = slice(0, 3 * JOINTS)
    torch.testing.assert_close(first[:, :, pose], second[:, :, pose], atol=0.02, rtol=0.02)


@torch.no_grad()
def test_a_fall_changes_the_features_most_when_it_happens() -> None:
    people = tracks(1)
    fallen = people.clone()
    fallen[:, 30:, :1, 0 : 3 * JOINTS : 3] += round(0.3 * UNIT)
    fallen[:, 30:, 0, BOX.start] += round(0.3 * UNIT)
    fallen[:, 30:, 0, BOX.start + 2] += round(0.3 * UNIT)
    change = (pose_features(fallen.float())[0] - pose_features(people.float())[0]).abs().sum(dim=2)[0, 0]
    assert float(change[:27].max()) < 0.1 * float(change[30:36].max())


@torch.no_grad()
def test_people_who_come_closer_are_told_from_those_who_stand() -> None:
    standing = tracks(2)
    coming = standing.clone()
    step = torch.linspace(0, 0.1, FRAMES)[:, None] * UNIT
    coming[0, :, 1, 1 : 3 * JOINTS : 3] -= step.to(torch.int32)
    coming[0, :, 1, [BOX.start + 1, BOX.start + 3]] -= step.to(torch.int32)
    apart = FEATURES - 12  # the first of the features of the nearest other
    near, far = pose_features(coming.float())[0], pose_features(standing.float())[0]
    assert float((far - near)[0, 0, apart, -1]) > 0.2
    alone = pose_features(tracks(1).float())[0]
    assert float(alone[0, 0, apart:].abs().max()) == 0.0


@torch.no_grad()
@pytest.mark.parametrize("persons", [0, 1, 4])
def test_folding_for_export_changes_nothing(persons: int) -> None:
    tower = PeopleTower(16)
    for _ in range(3):
        tower.train()(tracks(persons, 1))  # the running means move
    tower.eval()
    people = tracks(persons)
    torch.testing.assert_close(tower.for_export()(people), tower(people), atol=1e-4, rtol=1e-4)
