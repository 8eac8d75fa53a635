"""Unknown scenes: cameras made different are distinguished from the known ones, cameras of the same kind are not."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from benchmarks.model import shift
from benchmarks.model.shift import Separation, separate
from familial.evaluate.cameras import Room, Source
from familial.evaluate.ood_detector import Camera
from familial.model.checkpoint import save
from tests.support.family_factory import make_family
from tests.support.loop_factory import a_clip
from tests.support.ood_cameras import BALANCED, PLANE, C, make_cameras
from wire.errors import DataError

FALL = np.full(12, -0.84 + 0.48j)
ROOMS = [Room(clips, [FALL]) for clips in make_cameras(50, 1)]
SPANS = (8, 60, 120)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save(make_family(), folder)
    (folder / "noise.json").write_text('{"profile": "balanced", "sigma": "1931/32", "levels": {"strict": "5793/64"}}')
    return folder


def manifest(folder: Path, counts: dict[str, int]) -> Path:
    """So many clips of each set, of no risk, and one fall that must not be read."""
    rows = ["file,label,set,group,note"]
    for name, count in counts.items():
        for index in range(count):
            a_clip(folder / f"{name}-{index:02}.mp4", 2.0)
            rows.append(f"{name}-{index:02}.mp4,normal,{name},{index},")
    a_clip(folder / "fall.mp4", 2.0)
    path = folder / "manifest.csv"
    path.write_text("\n".join([*rows, "fall.mp4,fall,far,x,"]) + "\n")
    return path


def separation(
    unknown: dict[str, list[Camera]], known: list[Camera] | None = None, sigma: Fraction = BALANCED
) -> Separation:
    return separate(ROOMS, known or [], unknown, sigma, PLANE, C, spans=SPANS)


def test_a_different_set_is_distinguished_and_one_of_the_same_kind_is_not() -> None:
    unknown = {"same": make_cameras(20, 2), "other": make_cameras(20, 3, angle=2.0)}
    found = separation(unknown)
    area = {name: wins.mean(axis=(1, 2)) for name, wins in found.wins.items()}
    assert 0.35 <= area["same"][-1] <= 0.65
    assert area["other"][0] < area["other"][1] < area["other"][-1] and area["other"][-1] > 0.95
    assert found.unsure["other"][-1] > 0.8 and found.unsure["same"][-1] < 0.2
    assert (found.known < 0.15).all() and found.falls[-1] < 0.3


def test_cameras_declared_known_are_no_longer_unsure() -> None:
    other = make_cameras(40, 3, angle=2.0)
    apart, learned = (separation({"other": other[:20]}, also).unsure["other"][-1] for also in ([], other[20:]))
    assert apart > 0.8 and learned < 0.3


def test_less_noise_separates_better() -> None:
    unknown = {"other": make_cameras(20, 4, angle=1.2)}
    noisy, clean = (separation(unknown, sigma=sigma).wins["other"] for sigma in (BALANCED, Fraction(0)))
    assert clean[0].mean() > noisy[0].mean() + 0.05


def test_clips_become_cameras_by_set_and_group(checkpoint: Path, tmp_path: Path) -> None:
    path, source = manifest(tmp_path, {"near": 1, "far": 11}), Source.open(checkpoint)
    found = source.sets([path])
    assert {name: [len(camera) for camera in cameras] for name, cameras in found.items()} == {
        "far": [5, 6],
        "near": [1],
    }
    assert {len(clip) for cameras in found.values() for camera in cameras for clip in camera} == {2}
    assert list(source.sets([path], ["near"])) == ["near"]
    with pytest.raises(DataError, match=r"set nowhere; there are far, near"):
        source.sets([path], ["nowhere"])
    assert source.sets([]) == {}
    assert source.sigmas == (Fraction(1931, 32), Fraction(5793, 64))


def test_the_benchmark_ends_with_its_document(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest(tmp_path, {"near": 3, "far": 3})
    monkeypatch.setattr(Source, "rendered", lambda self, count: ROOMS[:count])
    monkeypatch.setattr(shift, "_BOOTSTRAPS", 20)
    monkeypatch.setattr("familial.evaluate.ood_reference.SPANS", (20, 60))
    arguments = ["--checkpoint", str(checkpoint), "--data", str(path), "--rendered", "40"]
    assert shift.COMMAND.main([*arguments, "--known", "near"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["figures"]["known"] == {"rendered rooms": 40, "near": 1}
    assert found["figures"]["releases"] == [8, 20, 60]
    assert set(found["figures"]["auroc"]) == {"all sets", "far"} and len(found["figures"]["auroc"]["far"]) == 3
    assert found["ratio"] == pytest.approx(found["figures"]["auroc"]["all sets"][-1][0] / 0.85, abs=0.001)
    assert shift.COMMAND.main([*arguments, "--known", "near", "far"]) == 2
    assert "one must be unknown" in capsys.readouterr().err
    assert shift.COMMAND.main([*arguments[:-1], "10"]) == 2
    assert "at least 20 are needed" in capsys.readouterr().err


def test_a_rendered_place_has_seven_different_clips(checkpoint: Path) -> None:
    room = Source.open(checkpoint).rendered(1)[0]
    assert (len(room.ordinary), len(room.risks)) == (5, 2)
    clips = [*room.ordinary, *room.risks]
    assert all(10 <= len(clip) <= 16 and (abs(clip) <= 1.0).all() for clip in clips)
    assert len({clip.tobytes() for clip in clips}) == 7
