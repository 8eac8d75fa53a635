"""What a seed gives at this version of the renderer, and that every cache of rendered clips knows the version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demo_source
from familial.data import sources
from familial.synth import clip as clips
from familial.synth import version
from familial.synth.actions.catalogue import draw_kind
from familial.synth.clip import clip_label, render_clip
from familial.synth.rendered_clip import RenderedClip
from familial.synth.streams import Stream, stream
from wire.artifact.manifest import WindowSpec

RECORDED_VERSION = 3
RECORDED = "ee3e0e6e08467e5883f31c150eaf613e45532519befd63ef96c567ff8cbc5102"
RECORDED_GREY = (147.37, 65.41, 101.33)  # mean grey level of each clip's frames
CASES = ((3, "fall_trip"), (5, "fight_group"), (8, "greet"))
CURE = "the same seed now gives another clip: raise RENDERER_VERSION in familial/synth/version.py, and record anew here"


def rendered(seed: int, kind: str) -> RenderedClip:
    return render_clip(seed, kind, size=(48, 64), fps=5.0, seconds=9.0)


def described(clip: RenderedClip) -> object:
    """What is known of a clip, without pixels, which differ between machines in the last bit."""
    spans = [(a.label, a.kind, round(a.start_s, 3), round(a.end_s, 3)) for a in clip.annotations]
    points = np.round(clip.keypoints[..., :2].astype(float), 3) + 0.0  # no minus zero
    return [clip.label, clip.caption, spans, clip.identities.tolist(), points.tolist()]


def test_a_seed_gives_what_is_recorded_for_this_version() -> None:
    labels = [clip_label(seed) for seed in range(60)]
    kinds = [draw_kind(stream(seed, Stream.KIND), label) for seed, label in enumerate(labels)]
    found = [rendered(seed, kind) for seed, kind in CASES]
    content = json.dumps([kinds, *map(described, found)]).encode()
    assert version.RENDERER_VERSION == RECORDED_VERSION, "record RECORDED and RECORDED_GREY anew for this version"
    assert hashlib.sha256(content).hexdigest() == RECORDED, CURE
    grey = [float(clip.frames.mean()) for clip in found]
    assert grey == pytest.approx(RECORDED_GREY, abs=0.5), CURE


def test_cached_training_clips_are_rendered_anew_for_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered_as: list[int] = []

    def small(seed: int, **_: object) -> RenderedClip:
        rendered_as.append(seed)
        return rendered(seed, "walk")

    monkeypatch.setattr(sources, "CACHE", tmp_path)
    monkeypatch.setattr(sources, "render_clip", small)
    spec = WindowSpec(96, 96, 1.0, 8, 8, 0.5, 0.5)
    for number in (1, 1, 2):
        monkeypatch.setattr(sources, "RENDERER_VERSION", number)
        (clip,) = sources.rendered_clips([7], ("normal", "fall", "fight"), spec, processes=1)
        assert clip.label == 0
    assert rendered_as == [7, 7]
    assert sorted(folder.name.split("-")[1] for folder in tmp_path.iterdir()) == ["1", "2"]


def test_the_demo_clip_is_rendered_anew_for_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[RenderedClip] = []

    def small() -> RenderedClip:
        made.append(rendered(3, "fall_trip"))
        return made[-1]

    monkeypatch.setattr(clips, "demo_clip", small)
    for number in (1, 1, 2):
        monkeypatch.setattr(version, "RENDERER_VERSION", number)
        path, onset = demo_source.rendered_clip(tmp_path / "clip.mp4")
        assert path.is_file() and onset == made[-1].annotations[0].start_s
    assert len(made) == 2
