"""The worst mistakes: which are chosen, what is drawn of them, and that no pixel or file name is in the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.model import mistakes
from benchmarks.model.mistake_strips import Strip, draw
from benchmarks.model.mistakes import COMMAND, Reading, worst
from familial.data import sources
from familial.data.clips import Clip, Footage
from wire.people.decode import JOINTS, PEOPLE
from wire.people.packed import BOX, SCORE, UNIT, VALUES, nobody

LABELS = ("normal", "fall", "fight")


def a_body(top: float, left: float, high: float = 0.4) -> np.ndarray[Any, Any]:
    """A row of a person who stands upright, in shares of the picture's larger side."""
    row = np.zeros(VALUES)
    for joint in range(JOINTS):
        row[3 * joint : 3 * joint + 3] = top + high * joint / (JOINTS - 1), left + 0.05 * (joint % 2), 0.9
    row[BOX] = top, left, top + high, left + 0.05
    row[SCORE] = 0.8
    return np.round(row * UNIT).astype(np.int16)


def a_strip(people: int = 1, frames: int = 8) -> Strip:
    """Of people who stand side by side in every frame but the first."""
    tracks = np.zeros((frames, 4, VALUES), np.int16)
    for person in range(people):
        tracks[1:, person] = a_body(0.2, 0.2 + 0.1 * person)
    times = np.arange(frames) / 8
    return Strip("fall", "normal", 0.9, 0.8, 0.12, 0.3, "home", times, tracks, np.array([0, 3, 7]))


def words_of(svg: str) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter())


def test_a_strip_says_what_was_true_and_shows_who_was_found() -> None:
    strip = a_strip(people=2)
    assert (strip.people, strip.seen) == (2, 7 / 8) and strip.size == pytest.approx(0.4, abs=1e-3)
    svg = draw([strip])
    words = words_of(svg)
    assert "1.  fall, called normal: P = 0.80, in 90 % of the noise samples" in words and "set home" in words
    assert "P(fall) 0.12, without noise 0.30" in words and "at most 2 people" in words and "88 % of frames" in words
    assert svg.count("<circle") == 2 * 2  # two heads in two of the three moments
    assert words.count("nobody found") == 1
    assert "<image" not in svg and "data:" not in svg


def test_a_strip_of_nobody_says_so() -> None:
    svg = draw([a_strip(people=0)])
    words = words_of(svg)
    assert words.count("nobody found") == 3 and "nobody was found: the people tower had nothing to read" in words
    assert "<circle" not in svg and "<path" not in svg


def test_whoever_is_found_lies_within_the_cells() -> None:
    """Also somebody who is far to the right, and small: cells are cut to where people are."""
    strip = a_strip()
    strip.tracks[1:, 0] = a_body(0.5, 0.9, 0.05)
    for element in ElementTree.fromstring(draw([strip])).iter("{http://www.w3.org/2000/svg}circle"):
        x, y, r = (float(element.attrib[name]) for name in ("cx", "cy", "r"))
        assert r < x < 117 - r and r < y < 88 - r


def test_a_page_without_mistakes_is_a_picture_too() -> None:
    assert "No clip is mostly called something else" in words_of(draw([]))


def reading(truth: int, said: int, true: float, group: str, of: str = "home") -> Reading:
    """A reading with this probability of the true label."""
    mean = np.full(3, (1.0 - true) / 2)
    mean[truth] = true
    clip = Clip(Path("x.mp4"), "x.mp4", LABELS[truth], of, group, "")
    times = np.arange(8) / 8
    footage = Footage(np.zeros((8, 4, 4), np.uint8), times, 1.0, nobody(8), times)
    return Reading(clip, footage, truth, said, 1.0, mean, mean, 0.0)


def test_the_worst_are_those_with_least_belief_in_the_truth_and_at_most_two_of_a_group() -> None:
    found = [
        reading(1, 0, 0.05, "a"),
        reading(1, 1, 0.01, "b"),  # right, however unsure
        reading(1, 0, 0.02, "a"),
        reading(2, 0, 0.04, "a"),  # the third of its group
        reading(0, 2, 0.03, "b"),
        reading(0, 2, 0.30, "a", "street"),  # another group: that of another set
        reading(0, 1, 0.40, "c"),
    ]
    assert [each.mean[each.truth] for each in worst(found, count=4)] == pytest.approx([0.02, 0.03, 0.04, 0.30])


def test_a_long_clip_is_shown_about_its_event() -> None:
    assert mistakes._stretch(9.0, 4.0) == (0.0, 9.0)
    assert mistakes._stretch(40.0, 20.0) == (17.0, 8.0)
    assert mistakes._stretch(40.0, 1.0) == (0.0, 8.0)
    assert mistakes._stretch(40.0, 39.0) == (32.0, 8.0)


def test_rendered_clips_are_read_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped family on a few clips; a threshold of 0 makes every normal clip a mistake."""
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")
    from familial.model import checkpoint

    def load(folder: Path) -> Any:
        family = loaded(folder)
        family.config = replace(family.config, decision_threshold=0.0)
        return family

    loaded = checkpoint.load
    monkeypatch.setattr(checkpoint, "load", load)
    picture = tmp_path / "mistakes.svg"
    argv = ["--rendered", "6", "--noise-samples", "3", "--picture", str(picture)]
    assert COMMAND.main(argv) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures, words = document["figures"], words_of(picture.read_text())
    assert figures["clips"] == 6 and 0 < figures["mistaken"] == len(figures["worst"])
    assert document["ratio"] is None or document["ratio"] > 0
    chances = [each["probability_true"] for each in figures["worst"]]
    assert chances == sorted(chances)
    for number, each in enumerate(figures["worst"], 1):
        assert each["label"] == "normal" != each["said"] and each["agreed"] >= 1 / 3 and each["set"] == "rendered"
        assert f"{number}.  normal, called {each['said']}" in words
        assert each["file"] not in words  # the seed: a name of a clip


def test_people_of_every_moment_are_followed_within_the_shown_part_alone() -> None:
    made = reading(1, 0, 0.05, "a")
    people = np.zeros((160, PEOPLE, VALUES), np.int16)
    people[:, 0] = a_body(0.2, 0.2)
    times = np.arange(160) / 8
    footage = replace(made.footage, people=people, people_times=times, duration=20.0)
    strip = mistakes._strip(replace(made, footage=footage, event_s=12.0), LABELS)
    assert (strip.times[0], strip.times[-1]) == (9.0, 17.0)
    assert strip.seen == 1.0 and len(strip.moments) == 7 and (np.diff(strip.moments) > 0).all()
