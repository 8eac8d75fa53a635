"""The pictures of README and docs: they are SVG, and they show what the certificate and a run say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import picture
from benchmarks.broker import ROOT
from benchmarks.harness import CHECKPOINT
from benchmarks.picture import Moment
from benchmarks.privacy import bound_over_time, frontier
from familial.model.config import FamilyConfig
from wire.privacy.certificate import GALLERIES, PASSED, PROFILES

CONFIG = FamilyConfig.load(CHECKPOINT / "config.json")


def words_of(svg: str) -> str:
    """All words of a picture, which must be well-formed XML."""
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter())


def test_the_bound_over_time_is_that_of_the_certificate() -> None:
    certificate = bound_over_time.certificates(CONFIG)["balanced"]
    points = bound_over_time.bounds(certificate, 1000)
    assert points[0] == (0.0, certificate.chance(certificate.releases_touched(0.0), 0.001))
    assert [chance for _, chance in points] == sorted(chance for _, chance in points)
    for (begin, chance), (end, same) in zip(points[::2], points[1::2], strict=True):
        middle = (begin + end) / 2
        assert chance == same == certificate.chance(certificate.releases_touched(middle), 0.001)
    for level in PASSED:
        last_below = max(end for end, chance in points if chance <= level)
        assert last_below == pytest.approx(certificate.time_in_view_s(1000, level), abs=1e-6)


def test_the_bound_over_time_shows_every_profile_and_number_of_people() -> None:
    svg = bound_over_time.draw(CONFIG)
    words = words_of(svg)
    assert svg.count("<polyline") == len(PROFILES) * len(GALLERIES)
    assert all(f"one of {people:,} people" in words for people in GALLERIES)
    assert all(f"{name}: S = " in words for name in PROFILES)


def test_the_page_shows_the_picture_that_its_command_draws() -> None:
    kept = (ROOT / "docs" / "img" / "bound-over-time.svg").read_text()
    cure = "run: python -m benchmarks.bound_over_time --out docs/img/bound-over-time.svg"
    assert kept == bound_over_time.draw(CONFIG) + "\n", cure


def test_the_loop_picture_shows_frame_integers_and_alert() -> None:
    z = np.arange(-32, 32, dtype=np.int16)
    shown = Moment(np.zeros((24, 32, 3), np.uint8), 9.0, z, {"normal": 0.1, "fall": 0.9}, "a person falls", "fall")
    svg = picture.draw(shown)
    words = words_of(svg)
    assert svg.count("data:image/jpeg;base64,") == 1
    assert all(f" {value} " in f" {words} " for value in z.tolist())
    assert "ALERT: fall" in words and "a person falls" in words and "9 s after its start" in words


def test_the_loop_picture_of_the_readme_is_kept() -> None:
    kept = (ROOT / "docs" / "img" / "loop.svg").read_text()
    assert "ALERT: fall" in words_of(kept) and "data:image/jpeg;base64," in kept
    assert len(kept) < 100_000


def test_a_run_of_the_frontier_is_drawn_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("edge F1", "cloud F1", "edge AUC", "cloud AUC", "ideal F1", "ideal AUC")
    points = [{"S_event": s, **dict.fromkeys(names, v)} for s, v in ((2.0, 0.6), (3.0, 0.7), (None, 0.8))]
    figures: dict[str, Any] = {
        "clips": 9,
        "noise_samples": 1,
        "profile": "balanced",
        "coordinates": 512,
        "notes": ["a note"],
    }
    figures["points"] = points
    run, svg = tmp_path / "run.json", tmp_path / "frontier.svg"
    run.write_text(json.dumps({"figures": figures}))
    assert frontier.COMMAND.main(["--read", str(run), "--svg", str(svg)]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["ratio"] == pytest.approx(0.7 / 0.8)
    assert document["figures"]["points"] == points
    words = words_of(svg.read_text())
    assert "cloud F1" in words and "balanced" in words and "certified bits of an event" in words
    run.write_text("{}")
    assert frontier.COMMAND.main(["--read", str(run)]) == 2
    assert "not a run of this benchmark" in capsys.readouterr().err
