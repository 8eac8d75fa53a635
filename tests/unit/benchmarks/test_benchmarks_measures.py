"""The commands beside the bounds: a person's day, the label alone, the derivative of a code, the trade-off picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from benchmarks.broker import ROOT
from benchmarks.harness import CHECKPOINT, MOTION
from benchmarks.privacy import dfil, person_day, randomised_response, reconstruction, trade_off
from calibration import measures
from calibration.bounds import of_checkpoint
from export.parity import made_windows
from familial.model import checkpoint
from familial.model.config import FamilyConfig

CONFIG = FamilyConfig.load(CHECKPOINT / "config.json")
BALANCED = of_checkpoint(CHECKPOINT)[1]["balanced"]


def test_the_cures_of_a_day_keep_the_target() -> None:
    for seconds in person_day.PEOPLE.values():
        found = person_day.cures(BALANCED, seconds, 3.0)
        assert person_day.duty_shift(BALANCED, seconds, found.every) <= 3.0 + 1e-9
        assert found.every == 1 or person_day.duty_shift(BALANCED, seconds, found.every - 1) > 3.0
        assert BALANCED.shift(BALANCED.releases_touched(found.cap_s)) <= 3.0 + 1e-9
        releases = BALANCED.releases_touched(seconds)
        assert found.event * math.sqrt(releases / BALANCED.event_releases) == pytest.approx(3.0)


def test_no_slots_at_the_worst_phase_are_missed_by_a_duty_cycle() -> None:
    """Counted one by one: of some slots in a row, at most so many are every N-th."""
    for seconds in (1.0, 10.0, 61.0):
        touched = BALANCED.releases_touched(seconds)
        for every in (1, 3, 10):
            most = max(sum((start + k) % every == 0 for k in range(touched)) for start in range(every))
            assert person_day.duty_shift(BALANCED, seconds, every) == pytest.approx(BALANCED.shift(most))


def test_residents_are_not_hidden_and_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert person_day.COMMAND.main([]) == 0
    out = capsys.readouterr().out
    assert "residents are not hidden" in out
    resident = json.loads(out.splitlines()[-1])["figures"]["people"][0]
    assert resident["who"] == "resident" and all(p > 0.999 for p in resident["named"].values())


def test_a_moment_touches_two_labels_of_eight_releases() -> None:
    assert randomised_response.moments_touched(8, CONFIG.window) == 2


@pytest.mark.parametrize("slots", [1, 7, 8, 9, 20, 64])
def test_pieces_cover_a_clip_once_and_are_alike_long(slots: int) -> None:
    pieces = randomised_response.pieces_of(slots, 8)
    sizes = [piece.stop - piece.start for piece in pieces]
    assert sum(sizes) == slots and max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]


def test_responses_are_right_as_often_as_they_may_be_and_spread_their_lies_evenly() -> None:
    rng = np.random.default_rng(1)
    heard = randomised_response.responses([1], [0.6], 3, 40_000, rng).argmax(axis=1)
    shares = np.bincount(heard, minlength=3) / len(heard)
    assert shares == pytest.approx([0.2, 0.6, 0.2], abs=0.01)


def test_what_was_heard_is_believed_as_often_as_it_is_true() -> None:
    read = randomised_response.posterior(np.array([2, 0]), 0.8, 3)
    assert read.tolist() == [pytest.approx([0.1, 0.1, 0.8]), pytest.approx([0.8, 0.1, 0.1])]


def test_the_jacobian_is_the_derivative_of_the_code() -> None:
    """Against a small step of the pixels along the pattern of its first row; a large one would pass the steps in it."""
    family = checkpoint.load(MOTION)
    window = made_windows(CONFIG.window, 12)[-1]
    found = dfil.jacobian(family, window)
    assert found.shape == (CONFIG.rank, window.size) and float(np.abs(found).max()) > 0.0
    pattern = found[0] / np.linalg.norm(found[0])
    tower, desensitizer, step = family.tower.for_export(), family.desensitizer.eval(), 0.1
    plane = desensitizer.plane
    assert plane is not None
    frames = torch.as_tensor(window[None]).float()
    along = torch.as_tensor(pattern, dtype=torch.float32).reshape(frames.shape)
    with torch.no_grad():
        ends = [plane @ desensitizer(tower(frames + sign * step * along)).flatten() for sign in (1.0, -1.0)]
    measured = float((ends[0] - ends[1])[0]) / (2 * step)
    assert measured == pytest.approx(float(np.linalg.norm(found[0])), rel=0.02)


def test_scenes_of_the_reconstruction_command_are_bounded_by_their_prior(capsys: pytest.CaptureFixture[str]) -> None:
    assert reconstruction.COMMAND.main([]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    for scene in figures["scenes"]:
        assert scene["kappa"] < scene["gamma"]["release"] < scene["gamma"]["event"] < 1.0
        bound = measures.rebuild_bound(BALANCED.s_event, scene["kappa"])
        assert bound <= scene["gamma"]["event"] <= bound + 1e-5, "rounded up, and little"


def test_the_trade_off_picture_shows_each_profile() -> None:
    profile, certificates = of_checkpoint(CHECKPOINT)
    svg = trade_off.draw(profile, certificates)
    words = " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter())
    assert all(f"an event, {name}" in words for name in certificates) and "false alarms" in words
    assert svg.count("<polyline") == len(certificates) + 2
    kept = Path(ROOT / "docs" / "img" / "trade-off.svg").read_text()
    assert kept == svg + "\n", "run: python -m benchmarks.trade_off --out docs/img/trade-off.svg"
