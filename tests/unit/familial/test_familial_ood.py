"""The OOD detector finds unknown scenes, and calls known ones unknown as rarely as promised, at any noise level."""

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

from familial.evaluate.ood import main
from familial.evaluate.ood_detector import FILE, Camera, OodDetector, ReferenceDistribution, in_plane
from familial.evaluate.ood_reference import fit, summaries
from tests.support.ood_cameras import BALANCED, MANIFEST, PLANE, SPANS, STRICT, C, make_cameras
from wire.errors import CheckpointError, DataError

KNOWN = make_cameras(150, 1)
FALL = np.full(10, -0.84 + 0.48j)  # releases at another label's class prototype


@pytest.fixture(scope="module")
def reference() -> ReferenceDistribution:
    return fit(KNOWN, (BALANCED, STRICT), PLANE, C, risks=[FALL], checkpoint="c" * 64, known="made up", spans=SPANS)


def released(clips: Camera, slots: int, rng: np.random.Generator, sigma: Fraction = BALANCED) -> npt.NDArray[np.int16]:
    """int16 (slots, n): what a camera that shows its clips again and again would send."""
    order = [clips[i] for _ in range(slots // 12 + 1) for i in rng.permutation(len(clips))]
    w = np.concatenate(order)[:slots]
    code = np.stack([w.real, w.imag], axis=1) @ PLANE.T * C
    return np.asarray(np.rint(code) + np.rint(rng.normal(0, float(sigma), code.shape)), np.int16)


def said(detector: OodDetector) -> float | None:
    return detector.p_value


def p_value(detector: OodDetector, z: npt.NDArray[np.int16], level: int = 0) -> float:
    detector.begin()
    for slot, row in enumerate(z):
        detector.push(slot, row, level)
    assert detector.p_value is not None
    return detector.p_value


def share_unsure(reference: ReferenceDistribution, streams: list[npt.NDArray[np.int16]], level: int = 0) -> float:
    detector = OodDetector(reference, (BALANCED, STRICT))
    return float(np.mean([p_value(detector, z, level) < 0.05 for z in streams]))


@pytest.mark.parametrize("slots", [61, 320])
def test_known_scenes_are_below_the_threshold_as_rarely_as_promised(
    reference: ReferenceDistribution, slots: int
) -> None:
    """Of 300 other cameras of the same kind: 5 %, with a standard error of 1.3 % and that of the reference."""
    rng = np.random.default_rng(2)
    found = share_unsure(reference, [released(clips, slots, rng) for clips in make_cameras(300, 3)])
    assert 0.005 <= found <= 0.10


def test_a_distribution_shift_is_detected_within_minutes_and_sooner_if_larger(reference: ReferenceDistribution) -> None:
    rng = np.random.default_rng(4)
    small, large = make_cameras(40, 5, angle=1.3), make_cameras(40, 5, angle=2.6)
    assert share_unsure(reference, [released(clips, 320, rng) for clips in large]) >= 0.95
    assert share_unsure(reference, [released(clips, 70, rng) for clips in large]) >= 0.9
    late = share_unsure(reference, [released(clips, 320, rng) for clips in small])
    early = share_unsure(reference, [released(clips, 70, rng) for clips in small])
    assert late >= 0.7 >= early


def test_noise_alone_is_out_of_distribution(reference: ReferenceDistribution) -> None:
    rng = np.random.default_rng(6)
    assert share_unsure(reference, [released([np.zeros(12, complex)], 320, rng) for _ in range(20)]) >= 0.95


def test_the_noise_level_of_each_release_is_taken_into_account(reference: ReferenceDistribution) -> None:
    """False alarms are as rare under a stricter profile, but not if its releases count as those of the other."""
    rng = np.random.default_rng(8)
    louder = [released(clips, 320, rng, STRICT) for clips in make_cameras(200, 9)]
    assert share_unsure(reference, louder, level=1) <= 0.10
    assert share_unsure(reference, louder, level=0) >= 0.15
    assert share_unsure(reference, [released(clips, 320, rng) for clips in make_cameras(100, 9)], level=1) <= 0.05


@pytest.mark.parametrize(("slots", "most"), [(60, 0.25), (310, 0.10)])
def test_a_fall_does_not_make_a_scene_out_of_distribution(
    reference: ReferenceDistribution, slots: int, most: float
) -> None:
    """The last ten releases of a minute, or of five, show one."""
    rng, cameras = np.random.default_rng(10), make_cameras(200, 11)
    streams = [np.concatenate([released(clips, slots, rng), released([FALL], 10, rng)]) for clips in cameras]
    assert share_unsure(reference, streams) <= most


def test_missing_releases_do_not_raise_the_false_alarm_rate(reference: ReferenceDistribution) -> None:
    rng, detector = np.random.default_rng(12), OodDetector(reference, (BALANCED,))
    found = []
    for clips in make_cameras(200, 13):
        detector.begin()
        for slot, row in enumerate(released(clips, 500, rng)):
            if rng.random() < 0.7:
                detector.push(slot, row)
        found.append(detector.p_value)
    assert np.mean([value is not None and value < 0.05 for value in found]) <= 0.10


def test_there_is_no_p_value_before_a_minute_nor_after_a_long_gap(reference: ReferenceDistribution) -> None:
    detector, z = OodDetector(reference, (BALANCED,)), released(KNOWN[0], 62, np.random.default_rng(14))
    for slot, row in enumerate(z[:60]):
        detector.push(slot, row)
    assert said(detector) is None  # the first release has none before it
    detector.push(60, z[60])
    assert said(detector) is not None
    detector.push(61 + SPANS[-1], z[61])
    assert said(detector) is None


def test_releases_before_the_longest_span_have_no_influence(reference: ReferenceDistribution) -> None:
    """Exactly none."""
    rng = np.random.default_rng(15)
    z, other = released(KNOWN[1], 320, rng), released(make_cameras(1, 16, angle=2.0)[0], 400, rng)
    detector = OodDetector(reference, (BALANCED,))
    fresh = p_value(detector, z)
    detector.begin()
    for slot, row in enumerate([*other, *z]):
        detector.push(slot, row)
    assert detector.p_value == fresh


def test_detector_and_reference_compute_the_same_means(reference: ReferenceDistribution) -> None:
    """Release by release, and all at once without noise: the same means, but for the rounding of the code."""
    w = np.concatenate(KNOWN[2])
    at_once = summaries([[w]], 0.0, (59,), np.random.default_rng(0), streams=1)[0, 0, 0]
    code = np.rint(np.stack([w.real, w.imag], axis=1) @ PLANE.T * C).astype(np.int16)
    quantiles = np.linspace(0.0, 0.002, 199)[None]
    exact = ReferenceDistribution("", "", C, (BALANCED,), (59,), PLANE, at_once[None], np.eye(7)[None, None], quantiles)
    assert p_value(OodDetector(exact, (BALANCED,)), code) > 0.5  # as good as no distance
    assert p_value(OodDetector(exact, (BALANCED,)), code[::-1].copy()) > 0.05
    assert p_value(OodDetector(exact, (BALANCED,)), np.roll(code, 1, axis=1)) < 0.05
    assert in_plane(code.reshape(60, 4, 16), PLANE, C) == pytest.approx(w, abs=0.03)


def test_a_saved_reference_loads_as_it_was(reference: ReferenceDistribution, tmp_path: Path) -> None:
    manifest = dataclasses.replace(MANIFEST, levels={"strict": STRICT})
    reference.save(tmp_path)
    found = ReferenceDistribution.load(tmp_path, manifest)
    assert found is not None and found.known == "made up" and found.sigmas == (BALANCED, STRICT)
    z = released(KNOWN[3], 320, np.random.default_rng(17))
    assert p_value(OodDetector(found, manifest.sigmas), z, 1) == p_value(
        OodDetector(reference, (STRICT, BALANCED)), z, 1
    )
    assert (tmp_path / FILE).stat().st_size < 40_000


def test_a_checkpoint_without_a_reference_has_none(tmp_path: Path) -> None:
    assert ReferenceDistribution.load(tmp_path, MANIFEST) is None


def _set(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda document: json.dumps({**document, **changes})


def test_the_keys_of_older_files_are_read(reference: ReferenceDistribution, tmp_path: Path) -> None:
    path = reference.save(tmp_path)
    document = json.loads(path.read_text())
    document["spread"], document["ladder"] = document.pop("covariance"), document.pop("quantiles")
    path.write_text(json.dumps(document))
    found = ReferenceDistribution.load(tmp_path, MANIFEST)
    assert found is not None and np.allclose(found.covariance, reference.covariance)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda document: "{", "unreadable"),
        (lambda document: "[]", "unreadable"),
        (lambda document: json.dumps({k: v for k, v in document.items() if k != "quantiles"}), "unreadable"),
        (_set(sigmas=["1/0"]), "unreadable"),
        (_set(sigmas=[float("inf")]), "unreadable"),
        (_set(clip_norm=float("inf")), "unreadable"),
        (_set(mean="x"), "unreadable"),
        (_set(mean=[[0.0] * 7]), "mean is"),
        (_set(covariance=[[[0.0] * 7] * 7] * 2), "covariance is"),
        (_set(mean=[[float("nan")] * 7] * 2), "mean is"),
        (_set(directions=[[1.0, 0.0, 0.0]]), "directions is"),
        (_set(spans=[300, 60]), "rising"),
        (_set(spans=[]), "mean is"),
        (_set(covariance=[[[[0.0] * 7] * 7] * 2] * 2), "not positive definite"),
        (_set(quantiles=[[2.0, 1.0], [1.0, 2.0]]), "do not rise"),
        (_set(checkpoint="d" * 64), "made for weights dddddddddddd"),
        (_set(clip_norm=32), "for C 32"),
    ],
)
def test_a_bad_reference_is_an_error_with_its_cure(
    reference: ReferenceDistribution, tmp_path: Path, damage: Callable[[dict[str, Any]], str], says: str
) -> None:
    path = reference.save(tmp_path)
    path.write_text(damage(json.loads(path.read_text())))
    with pytest.raises(CheckpointError, match="python -m familial.evaluate.ood --checkpoint") as caught:
        ReferenceDistribution.load(tmp_path, MANIFEST)
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_a_noise_level_missing_in_the_reference_is_an_error(reference: ReferenceDistribution, tmp_path: Path) -> None:
    reference.save(tmp_path)
    manifest = dataclasses.replace(MANIFEST, levels={"detailed": MANIFEST.sigma / 2})
    with pytest.raises(CheckpointError, match="also sigma"):
        ReferenceDistribution.load(tmp_path, manifest)


def test_too_few_or_constant_cameras_are_an_error() -> None:
    with pytest.raises(DataError, match="19 known cameras; at least 20"):
        fit(KNOWN[:19], (BALANCED,), PLANE, C)
    with pytest.raises(DataError, match="do not vary"):
        fit([[np.ones(12, complex)]] * 20, (Fraction(0),), PLANE, C)


def test_the_command_names_a_missing_checkpoint_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path / "nowhere")]) == 2
    assert "config.json is missing" in capsys.readouterr().err
