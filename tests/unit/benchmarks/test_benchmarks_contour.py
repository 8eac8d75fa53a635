"""The benchmark of contours: its attacker finds a leak that is planted and no other; a guess is the prior's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.model.contour import COMMAND, _scores, _told
from benchmarks.privacy.contour_attack import attack
from calibration.audit.classifiers import Effort
from calibration.audit.targets import Gallery
from familial.contour.samples import Samples
from familial.contour.truth import Shown
from tests.support.contour_factory import make_decoder
from wire.protocol.contour import RAYS


def people(owners: int = 3, clips: int = 6, windows: int = 10) -> Gallery:
    """People whose codes say nothing of them."""
    rng, count = np.random.default_rng(0), owners * clips
    return Gallery(
        codes=rng.integers(-5, 6, (count * windows, 64)).astype(np.int16),
        pictures=np.zeros((0, 0, 0), np.uint8),
        clip=np.repeat(np.arange(count), windows),
        owner=np.repeat(np.arange(owners), clips),
        enrol=np.arange(count) % clips < clips // 2,
        names=tuple(f"person {number}" for number in range(owners)),
        traits={},
        public=True,
    )


def test_the_certificates_bound_is_written_rounded_up() -> None:
    named = {"named": 0.1, "interval": (0.05, 0.15)}
    first, _ = _told(
        {"people": 10, "chance": 0.1, "certificate": 0.957143, "z": named, "contour": named, "planted": named}
    )
    assert first.endswith("at most 0.958 by the certificate")


def test_a_planted_leak_is_found_and_nothing_else() -> None:
    torch.manual_seed(0)
    found = attack(people(), make_decoder(), 8, 60.0, Effort(windows=6_000, tests=4_096, turns=1))
    assert found["planted"].value > 0.9
    assert found["contour"].value < 0.55 and found["z"].value < 0.55  # a third is chance


def test_a_guess_is_the_prior_s_answer_for_everybody() -> None:
    shown = Shown(
        posture=np.array([0, 2, -1]),
        count=np.array([1, 2, 0]),
        moving=np.array([0, 1, -1]),
        way=np.array([-1, 1, -1]),
        first=np.vstack([np.full((2, RAYS), 0.3), np.full((1, RAYS), np.nan)]),
        second=np.full((3, RAYS), np.nan),
    )
    samples = Samples(torch.zeros(3, 8, 4, 16), torch.ones(3, 8, dtype=torch.bool), shown, np.arange(3))
    priors = {"posture": [0.7, 0.1, 0.1, 0.1], "count": [0.2, 0.5, 0.3], "moving": [0.3], "way": [0.5]}
    found = _scores(make_decoder(priors=priors).guess(3), samples)
    assert found["posture"][:2].tolist() == [1.0, 0.0] and np.isnan(found["posture"][2])
    assert found["count"].tolist() == [1.0, 0.0, 0.0] and found["moving"][:2].tolist() == [1.0, 0.0]
    assert found["first"][:2] == pytest.approx(1.0) and np.isnan(found["first"][2])
    assert np.isnan(found["lying"][[0, 2]]).all() and found["lying"][1] == pytest.approx(1.0)


def test_a_folder_that_is_no_checkpoint_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert COMMAND.main(["--checkpoint", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err
