"""How single kinds of clips are read: what counts as right, when, and which mistake is the commonest."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.model import kinds
from familial.data.clips import Footage
from familial.evaluate import clip_inference, footage
from familial.model import checkpoint
from familial.model.config import FamilyConfig
from familial.model.family import Family
from tests.support.family_factory import small_config

FALL, FIGHT, NORMAL = [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]


def a_family() -> Family:
    return Family(small_config()).eval()


def reading(monkeypatch: pytest.MonkeyPatch, config: FamilyConfig, *said: list[float]) -> None:
    """Whatever is rendered, the first whole event says `said[0]`, the next `said[1]`, and so on."""
    codes = torch.zeros(config.event_releases + len(said) - 1, config.tokens, config.width)
    monkeypatch.setattr(clip_inference, "clip_codes", lambda family, shown: codes)
    answers = np.array(said, dtype=np.float64)
    monkeypatch.setattr(
        clip_inference, "event_probabilities", lambda family, z, member: answers[None].repeat(len(z), 0)
    )


def names(label: str, onset_s: float, noise: bool = False) -> list[str]:
    blank = Footage(np.zeros((0, 8, 8), np.uint8), np.zeros(0), 1.0)
    return kinds._names(a_family(), blank, label, onset_s, noise)


def test_of_a_normal_clip_every_event_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, small_config(), NORMAL, FIGHT, NORMAL)
    assert names("normal", 3.0) == ["normal", "fight", "normal"]
    assert len(names("normal", 3.0, noise=True)) == 3 * kinds._NOISE_SAMPLES


def test_a_risk_is_right_where_an_event_says_it_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events end 8, 9, ... s after the clip's start."""
    reading(monkeypatch, small_config(), FALL, FALL, FIGHT, NORMAL, NORMAL, *[NORMAL] * 6, FALL)  # ends at 8, 9, ... 19
    assert names("fall", 8.5) == ["fall"]
    assert names("fall", 9.0) == ["normal"], "what ended before the onset does not count"
    assert names("fall", 11.0) == ["fall"], "8 s after it does"
    assert names("fall", 10.9) == ["normal"], "later does not"
    assert names("fall", 30.0) == [], "no event ends in time"
    reading(monkeypatch, small_config(), FIGHT, NORMAL)
    assert names("fall", 7.5) == ["normal"], "of two that are as common, the first of the labels: the same in every run"


def test_the_commonest_mistake_is_named_and_the_ratio_is_over_usual_kinds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config()
    monkeypatch.setattr(checkpoint, "load", lambda folder: a_family())
    shown = list[str]()

    def rendered(seed: int, kind: str, config: FamilyConfig, **how: Any) -> tuple[None, Any]:
        shown.append(kind)
        return None, SimpleNamespace(annotations=[SimpleNamespace(start_s=7.5)])

    monkeypatch.setattr(footage, "rendered_footage", rendered)
    reading(monkeypatch, config, NORMAL, FIGHT, FIGHT, FALL)
    assert kinds.COMMAND.main(["--kinds", "wheelchair_roll,fall_transfer", "--clips", "1", "--noise", "off"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    of = found["figures"]["kinds"]
    assert shown == ["wheelchair_roll", "fall_transfer", *kinds._USUAL]
    assert of["wheelchair_roll"] == {"right": 0.25, "mistake": "fight", "share": 0.5}
    assert of["fall_transfer"] == {"right": 1.0, "mistake": "", "share": 0.0}
    usual = (4 * 0.25 + 2 * 1.0) / 6
    assert found["ratio"] == pytest.approx((0.25 + 1.0) / 2 / usual, abs=1e-5)
    reading(monkeypatch, config, FIGHT)
    assert kinds.COMMAND.main(["--kinds", "one_punch", "--clips", "1", "--noise", "off"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ratio"] is None, "nothing usual is right"


def test_a_kind_that_is_not_there_is_an_error_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert kinds.COMMAND.main(["--kinds", "moonwalk"]) == 2
    assert "--kinds: kind is 'moonwalk': use one of" in capsys.readouterr().err
