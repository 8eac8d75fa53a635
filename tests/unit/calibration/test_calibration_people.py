"""Attacks and calibration on a family that sees people: its windows carry them, found as a device would find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.audit import mechanism, targets
from edge_runtime.eye.engine.onnx import OnnxEngine
from familial.data.clips import Footage
from familial.data.feeds import encode_feeds
from tests.support.engine_factory import make_engine
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError
from wire.people.packed import BOX, SCORE, UNIT, nobody


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeing")
    make_engine(folder, person_frame=(64, 96))
    return folder


def footage(spec_size: int, frames: int = 36) -> Footage:
    """Three seconds in which one person moves to the right; the network saw every second frame."""
    people = nobody(frames // 2)
    people[:, 0, :SCORE] = UNIT // 4
    people[:, 0, BOX] = (0, 0, UNIT - 1, UNIT // 2)
    people[:, 0, 1:51:3] += np.arange(frames // 2, dtype=np.int16)[:, None] * 40
    people[:, 0, SCORE] = UNIT
    times = np.arange(frames) / 12.0
    pictures = np.random.default_rng(0).integers(1, 255, (frames, spec_size, spec_size), dtype=np.uint8)
    return Footage(pictures, times, frames / 12.0, people, times[::2])


def test_windows_carry_the_people_that_were_there(engine: Path) -> None:
    opened = OnnxEngine(engine)
    spec, clip = opened.manifest.window, footage(32)
    feeds = encode_feeds(clip, [2.0, 3.0], spec, with_people=True)
    assert [feed["people"].shape for feed in feeds] == [(1, spec.frames, 4, 56)] * 2
    new = feeds[1]["people"][0, -spec.new_frames :]
    assert (new[:, 0, SCORE] == UNIT).all() and not new[:, 1:].any()
    x = new[:, 0, 1]
    assert (np.diff(x) >= 0).all() and x[-1] > x[0]
    blind = [{**feed, "people": np.zeros_like(feed["people"])} for feed in feeds]
    assert any((opened.encode(**a) != opened.encode(**b)).any() for a, b in zip(feeds, blind, strict=True))
    without = Footage(clip.frames, clip.times, clip.duration)
    with pytest.raises(DataError, match="people of a clip are missing"):
        encode_feeds(without, [2.0], spec, with_people=True)
    opened.close()


def test_a_short_clip_is_played_back_with_its_people() -> None:
    clip = footage(32)
    long = targets._forth_and_back(clip, 10.0)
    assert long.duration >= 10.0 and long.people is not None and long.people_times is not None
    assert len(long.people) == len(long.frames) == len(long.people_times)
    place = long.people[:, 0, 1].astype(int)
    assert (np.diff(place[:36]) >= 0).all() and (np.diff(place[35:70]) <= 0).all()


def test_a_rendered_shot_is_seen_by_the_engines_own_network(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "WINDOWS", 2)
    shot = targets.Shot(seed=3, identity=1, act="walk")
    spec = EngineManifest.load(engine).window
    seen = shot.footage(spec, engine / "perceive.onnx")
    assert seen.people is not None and (seen.people[:, :, SCORE] > 0).any()
    assert shot.footage(spec).people is None
    made = targets.encode_shots(engine, [shot], np.zeros(1, np.int64), ("one",), workers=1)
    assert made.codes.shape == (2, 64) and made.codes.any()


def test_hostile_weights_frames_and_people_stay_within_the_norm(engine: Path) -> None:
    manifest = EngineManifest.load(engine)
    for how, mu, _ in mechanism.hostile_norms(engine, manifest, 20):
        assert mu <= manifest.clip_norm, how
