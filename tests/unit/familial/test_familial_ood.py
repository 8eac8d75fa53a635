"""OOD p-value: what is strange is found, what is known is called strange as rarely as promised, whatever the noise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from familial.evaluate.ood import FILE, Camera, OodDetector, Reference, fit, in_plane, main, summaries
from tests.support.ood_cameras import BALANCED, MANIFEST, PLANE, SPANS, STRICT, C, make_cameras
from wire.errors import CheckpointError, DataError

KNOWN = make_cameras(150, 1)
FALL = np.full(10, -0.84 + 0.48j)  # releases at another label's class prototype


@pytest.fixture(scope="module")
def reference() -> Reference:
    return fit(KNOWN, (BALANCED, STRICT), PLANE, C, risks=[FALL], checkpoint="c" * 64, known="made up", spans=SPANS)


def released(clips: Camera, slots: int, rng: np.random.Generator, sigma: Fraction = BALANCED) -> npt.NDArray[np.int16]:
    """int16 (slots, n): what a camera that shows its clips again and again would send."""
    order = [clips[i] for _ in range(slots // 12 + 1) for i in rng.permutation(len(clips))]
    w = np.concatenate(order)[:slots]
    code = np.stack([w.real, w.imag], axis=1) @ PLANE.T * C
    return np.asarray(np.rint(code) + np.rint(rng.normal(0, float(sigma), code.shape)), np.int16)


def score(gauge: OodDetector, z: npt.NDArray[np.int16], level: int = 0) -> float:
    gauge.begin()
    for slot, row in enumerate(z):
        gauge.push(slot, row, level)
    assert gauge.score is not None
    return gauge.score


def share_unsure(reference: Reference, streams: list[npt.NDArray[np.int16]], level: int = 0) -> float:
    gauge = OodDetector(reference, (BALANCED, STRICT))
    return float(np.mean([score(gauge, z, level) < 0.05 for z in streams]))


@pytest.mark.parametrize("slots", [61, 320])
def test_known_scenes_are_unsure_as_rarely_as_promised(reference: Reference, slots: int) -> None:
    """300 other cameras of the same kind: 5 % of them, with a standard error of 1.3 % and that of the reference."""
    rng = np.random.default_rng(2)
    found = share_unsure(reference, [released(clips, slots, rng) for clips in make_cameras(300, 3)])
    assert 0.005 <= found <= 0.10


def test_a_planted_shift_is_found_after_minutes_and_sooner_the_larger_it_is(reference: Reference) -> None:
    rng = np.random.default_rng(4)
    small, large = make_cameras(40, 5, angle=1.3), make_cameras(40, 5, angle=2.6)
    assert share_unsure(reference, [released(clips, 320, rng) for clips in large]) >= 0.95
    assert share_unsure(reference, [released(clips, 70, rng) for clips in large]) >= 0.9
    late = share_unsure(reference, [released(clips, 320, rng) for clips in small])
    early = share_unsure(reference, [released(clips, 70, rng) for clips in small])
    assert late >= 0.7 >= early


def test_a_camera_that_sends_noise_alone_is_strange(reference: Reference) -> None:
    rng = np.random.default_rng(6)
    assert share_unsure(reference, [released([np.zeros(12, complex)], 320, rng) for _ in range(20)]) >= 0.95


def test_the_noise_of_each_release_is_reckoned_with(reference: Reference) -> None:
    """Under a stricter profile as rarely; taken for releases of the other level, the same ones would look strange."""
    rng = np.random.default_rng(8)
    louder = [released(clips, 320, rng, STRICT) for clips in make_cameras(200, 9)]
    assert share_unsure(reference, louder, level=1) <= 0.10
    assert share_unsure(reference, louder, level=0) >= 0.15
    assert share_unsure(reference, [released(clips, 320, rng) for clips in make_cameras(100, 9)], level=1) <= 0.05


@pytest.mark.parametrize(("slots", "most"), [(60, 0.25), (310, 0.10)])
def test_a_fall_makes_no_scene_strange_for_long(reference: Reference, slots: int, most: float) -> None:
    """The last ten releases of a minute, or of five, are of one."""
    rng, cameras = np.random.default_rng(10), make_cameras(200, 11)
    streams = [np.concatenate([released(clips, slots, rng), released([FALL], 10, rng)]) for clips in cameras]
    assert share_unsure(reference, streams) <= most


def test_missing_releases_cost_time_and_nothing_else(reference: Reference) -> None:
    rng, gauge = np.random.default_rng(12), OodDetector(reference, (BALANCED,))
    found = []
    for clips in make_cameras(200, 13):
        gauge.begin()
        for slot, row in enumerate(released(clips, 500, rng)):
            if rng.random() < 0.7:
                gauge.push(slot, row)
        found.append(gauge.score)
    assert np.mean([value is not None and value < 0.05 for value in found]) <= 0.10


def test_nothing_is_said_before_a_minute_nor_after_a_long_gap(reference: Reference) -> None:
    gauge, z = OodDetector(reference, (BALANCED,)), released(KNOWN[0], 62, np.random.default_rng(14))
    for slot, row in enumerate(z[:60]):
        gauge.push(slot, row)
    assert gauge.score is None  # the first release has none before it
    gauge.push(60, z[60])
    assert gauge.score is not None
    gauge.push(61 + SPANS[-1], z[61])
    assert gauge.score is None


def test_it_reads_the_last_releases_alone(reference: Reference) -> None:
    """What was before the longest span has no say, to the last bit."""
    rng = np.random.default_rng(15)
    z, other = released(KNOWN[1], 320, rng), released(make_cameras(1, 16, angle=2.0)[0], 400, rng)
    gauge = OodDetector(reference, (BALANCED,))
    fresh = score(gauge, z)
    gauge.begin()
    for slot, row in enumerate([*other, *z]):
        gauge.push(slot, row)
    assert gauge.score == fresh


def test_a_stream_is_read_as_the_reference_was_made(reference: Reference) -> None:
    """Release by release, and all at once without noise: the same means, but for the rounding of the code."""
    w = np.concatenate(KNOWN[2])
    at_once = summaries([[w]], 0.0, (59,), np.random.default_rng(0), streams=1)[0, 0, 0]
    code = np.rint(np.stack([w.real, w.imag], axis=1) @ PLANE.T * C).astype(np.int16)
    ladder = np.linspace(0.0, 0.002, 199)[None]
    exact = Reference("", "", C, (BALANCED,), (59,), PLANE, at_once[None], np.eye(7)[None, None], ladder)
    assert score(OodDetector(exact, (BALANCED,)), code) > 0.5  # as good as no distance
    assert score(OodDetector(exact, (BALANCED,)), code[::-1].copy()) > 0.05
    assert score(OodDetector(exact, (BALANCED,)), np.roll(code, 1, axis=1)) < 0.05
    assert in_plane(code.reshape(60, 4, 16), PLANE, C) == pytest.approx(w, abs=0.03)


def test_a_reference_comes_back_as_it_was(reference: Reference, tmp_path: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, levels={"strict": STRICT})
    reference.save(tmp_path)
    found = Reference.load(tmp_path, manifest)
    assert found is not None and found.known == "made up" and found.sigmas == (BALANCED, STRICT)
    z = released(KNOWN[3], 320, np.random.default_rng(17))
    assert score(OodDetector(found, manifest.sigmas), z, 1) == score(OodDetector(reference, (STRICT, BALANCED)), z, 1)
    assert (tmp_path / FILE).stat().st_size < 40_000


def test_a_checkpoint_without_a_reference_has_none(tmp_path: Path) -> None:
    assert Reference.load(tmp_path, MANIFEST) is None


def _set(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda document: json.dumps({**document, **changes})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda document: "{", "unreadable"),
        (lambda document: "[]", "unreadable"),
        (lambda document: json.dumps({k: v for k, v in document.items() if k != "ladder"}), "unreadable"),
        (_set(sigmas=["1/0"]), "unreadable"),
        (_set(mean="x"), "unreadable"),
        (_set(mean=[[0.0] * 7]), "mean is"),
        (_set(spread=[[[0.0] * 7] * 7] * 2), "spread is"),
        (_set(mean=[[float("nan")] * 7] * 2), "mean is"),
        (_set(directions=[[1.0, 0.0, 0.0]]), "directions is"),
        (_set(spans=[300, 60]), "rising"),
        (_set(spans=[]), "mean is"),
        (_set(spread=[[[[0.0] * 7] * 7] * 2] * 2), "no covariance"),
        (_set(ladder=[[2.0, 1.0], [1.0, 2.0]]), "does not rise"),
        (_set(checkpoint="d" * 64), "made for weights dddddddddddd"),
        (_set(clip_norm=32), "for C 32"),
    ],
)
def test_a_bad_reference_is_an_error_with_its_cure(
    reference: Reference, tmp_path: Path, damage: Callable[[dict[str, Any]], str], says: str
) -> None:
    path = reference.save(tmp_path)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(CheckpointError, match="python -m familial.evaluate.ood --checkpoint") as caught:
        Reference.load(tmp_path, MANIFEST)
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_a_level_that_the_reference_does_not_know_is_an_error(reference: Reference, tmp_path: Path) -> None:
    reference.save(tmp_path)
    manifest = dataclasses.replace(MANIFEST, levels={"detailed": MANIFEST.sigma / 2})
    with pytest.raises(CheckpointError, match="also sigma"):
        Reference.load(tmp_path, manifest)


def test_too_little_to_learn_from_is_an_error() -> None:
    with pytest.raises(DataError, match="19 known cameras; at least 20"):
        fit(KNOWN[:19], (BALANCED,), PLANE, C)
    with pytest.raises(DataError, match="do not vary"):
        fit([[np.ones(12, complex)]] * 20, (Fraction(0),), PLANE, C)


def test_the_command_names_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path / "nowhere")]) == 2
    assert "config.json is missing" in capsys.readouterr().err
