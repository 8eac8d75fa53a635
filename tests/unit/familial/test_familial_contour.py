"""The contour's decoder: outlines of bodies, what rendered clips show, learning from noised codes alone, its file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from familial.contour import training
from familial.contour.decoder import CONTOUR, ContourDecoder, inputs
from familial.contour.outline import mirrored, overlap, radii
from familial.contour.samples import Samples, noised
from familial.contour.train import _encoder_hash, main
from familial.contour.training import Plan, best_constant, train
from familial.contour.truth import UNKNOWN, Shown, shown_by
from familial.data.events import LabelledClip
from familial.data.people_clips import people_clips
from familial.data.splits import clip_seeds
from familial.model.code_space import prototypes
from tests.support.contour_factory import make_decoder
from tests.support.family_factory import make_family, small_config
from wire.errors import CheckpointError, DataError
from wire.protocol.contour import COUNTS, POSTURES, RAYS

UP, LEFT, RIGHT = RAYS // 4, RAYS // 2, 0
CONFIG = small_config()
SIGMA = 64 * math.sqrt(8) / 3


def body() -> np.ndarray:
    """Key points (17, 2), y downwards and x, of somebody 1 unit tall who stands, arms down."""
    found = {0: (0.07, 0), 1: (0.06, 0.02), 2: (0.06, -0.02), 3: (0.07, 0.03), 4: (0.07, -0.03)}
    for side, at in ((0, 1), (1, -1)):
        joints = {5: (0.19, 0.1), 7: (0.36, 0.12), 9: (0.52, 0.13), 11: (0.5, 0.06), 13: (0.74, 0.07), 15: (0.96, 0.07)}
        found |= {joint + side: (y, at * x) for joint, (y, x) in joints.items()}
    return np.array([found[joint] for joint in range(17)], np.float64)


def test_an_outline_reaches_as_far_as_the_body() -> None:
    standing = radii(body()[None], np.ones(1))[0]
    assert 0.3 < standing[UP] < 0.5 and standing[LEFT] < 0.25 and standing[RIGHT] < 0.25
    lying = radii(body()[None][..., ::-1], np.ones(1))[0]  # the head to the left
    assert lying[LEFT] == pytest.approx(standing[UP], abs=0.05) and lying[UP] < 0.25


def test_an_outline_says_nothing_of_place_and_size() -> None:
    here, there = body()[None], body()[None] * 50 + np.array([300.0, -70.0])
    assert np.allclose(radii(here, np.ones(1)), radii(there, np.full(1, 50.0)))


def test_a_mirrored_body_has_the_mirrored_outline() -> None:
    leaning = body()[None] + np.array([0.0, 0.3]) * (1 - body()[None, :, :1])
    other = leaning * np.array([1.0, -1.0])
    assert np.allclose(radii(other, np.ones(1)), mirrored(radii(leaning, np.ones(1))))
    assert np.array_equal(mirrored(mirrored(np.arange(float(RAYS)))), np.arange(RAYS))


def test_overlap_is_that_of_areas() -> None:
    small, large = np.full(RAYS, 0.2), np.full(RAYS, 0.4)
    assert overlap(small, small) == 1.0 and overlap(small, large) == pytest.approx(0.25)
    assert overlap(best_constant(np.stack([small, small, large])), small) > 0.99


# --- what rendered clips show -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips() -> list[LabelledClip]:
    return list(people_clips(clip_seeds("contour", 30), CONFIG.labels, CONFIG.window, processes=1))


def test_what_a_clip_shows_agrees_with_its_truth(clips: list[LabelledClip]) -> None:
    seen = set[str]()
    for clip in clips:
        ends = np.arange(1.0, clip.footage.duration)
        shown = shown_by(clip, ends, CONFIG.labels)
        for end, posture, count, first, second in zip(
            ends, shown.posture, shown.count, shown.first, shown.second, strict=True
        ):
            there = posture != UNKNOWN
            assert there == (not np.isnan(first[0])) and (there or np.isnan(second[0]))
            assert count != 0 or not there
            if not there:
                continue
            assert (first > 0.02).all() and first.max() <= 1.0
            fights = any(risk.label == 2 and risk.start <= end <= risk.end for risk in clip.annotations or ())
            assert (POSTURES[posture] == "fighting") == fights
            seen |= {POSTURES[posture], COUNTS[count]}
    assert seen >= {*POSTURES, "one", "several"}


def test_who_lies_is_wide_and_who_stands_is_tall(clips: list[LabelledClip]) -> None:
    parts = [shown_by(clip, np.arange(1.0, clip.footage.duration), CONFIG.labels) for clip in clips]
    first, posture = (np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "posture"))
    tall = {name: float(np.nanmean(first[posture == POSTURES.index(name)][:, UP])) for name in ("upright", "lying")}
    assert tall["upright"] > 1.3 * tall["lying"]


def test_a_real_clip_teaches_nothing(clips: list[LabelledClip]) -> None:
    with pytest.raises(DataError, match="exact people"):
        shown_by(replace(clips[0], exact=None), np.ones(1), CONFIG.labels)


# --- learning ---------------------------------------------------------------------------------------------------------


def some_samples(clips: int = 60, each: int = 6) -> Samples:
    """Events whose codes say the posture, lying or upright, by their label's prototype, and nothing else."""
    rng, count = np.random.default_rng(0), clips * each
    lying = np.repeat(rng.integers(0, 2, clips), each)
    codes = prototypes(3, 4, 16, 64.0)[torch.from_numpy(lying)].round()[:, None].repeat(1, 8, 1, 1)
    tall, wide = radii(body()[None], np.ones(1))[0], radii(body()[None][..., ::-1], np.ones(1))[0]
    first = np.where(lying[:, None] > 0, wide, tall)
    shown = Shown(
        posture=np.where(lying, POSTURES.index("lying"), 0),
        count=rng.integers(0, 3, count),
        moving=rng.integers(0, 2, count),
        way=rng.integers(0, 2, count),
        first=first,
        second=np.full((count, RAYS), np.nan),
    )
    return Samples(codes, torch.ones(count, 8, dtype=torch.bool), shown, np.repeat(np.arange(clips), each))


def learned(samples: Samples, steps: int = 120) -> ContourDecoder:
    return train(
        CONFIG, samples, samples, SIGMA, {"checkpoint": "c" * 64, "encoder": "e" * 64}, Plan(steps=steps, batch=128)
    )[0]


def test_it_knows_what_the_codes_tell_and_nothing_else() -> None:
    samples = some_samples()
    decoder = learned(samples)
    assert decoder.knows == ("posture",)
    found = decoder.read(noised(samples.codes, SIGMA).numpy(), samples.present.numpy(), SIGMA)
    assert (found.posture.argmax(axis=1) == samples.shown.posture).mean() > 0.9
    assert np.ptp(found.count, axis=0).max() == 0.0  # the prior's, whatever z says
    blind = overlap(best_constant(samples.shown.first)[None], samples.shown.first).mean()
    assert overlap(found.first, samples.shown.first).mean() > blind + 0.05


def test_more_noise_makes_it_less_sure_and_more_blurred() -> None:
    decoder, samples = learned(some_samples(), 250), some_samples()
    sure, blur = [], []
    for sigma in (64.0 * math.sqrt(8) / 8, SIGMA, 64.0 * math.sqrt(8)):
        found = decoder.read(noised(samples.codes, sigma).numpy(), samples.present.numpy(), sigma)
        sure.append(float(found.posture.max(axis=1).mean()))
        blur.append(float(found.first_spread.mean()))
    assert sure == sorted(sure, reverse=True) and blur == sorted(blur)


def distances_seen(monkeypatch: pytest.MonkeyPatch, samples: Samples) -> list[float]:
    """How far each row that the network saw in training lies from every clean code, in sigmas of the whole event."""
    clean, seen = torch.unique(samples.codes.flatten(1), dim=0), list[float]()
    forward = training._Network.forward

    def spy(
        network: training._Network, z: torch.Tensor, present: torch.Tensor, sigma: float
    ) -> dict[str, torch.Tensor]:
        if sigma > 0:
            seen.extend((torch.cdist(z.flatten(1), clean).amin(dim=1) / sigma / math.sqrt(clean.shape[1])).tolist())
        return forward(network, z, present, sigma)

    monkeypatch.setattr(training._Network, "forward", spy)
    learned(samples, 20)
    return seen


def test_it_never_sees_a_clean_code_where_there_is_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = distances_seen(monkeypatch, some_samples())
    assert len(seen) > 1000 and min(seen) > 0.8  # a norm of 512 independent draws is within a fifth of its mean


def test_a_training_on_clean_codes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: mu in place of z."""
    monkeypatch.setattr(training, "noised", lambda codes, sigma: codes)
    assert max(distances_seen(monkeypatch, some_samples())) < 0.01


def test_numpy_computes_what_was_trained() -> None:
    samples = some_samples(4)
    torch.manual_seed(0)
    network = training._Network(CONFIG, samples).eval()
    torch.nn.init.normal_(network.last.weight, std=0.1)
    decoder = ContourDecoder(network.tensors(), make_decoder().about)
    z = noised(samples.codes, SIGMA)
    with torch.inference_mode():
        wanted = network(z, samples.present, SIGMA)
    found = decoder.read(z.numpy(), samples.present.numpy(), SIGMA)
    assert np.allclose(found.posture, wanted["posture"].softmax(dim=1).numpy(), atol=1e-5)
    assert np.allclose(found.way, torch.sigmoid(wanted["way"])[:, 0].numpy(), atol=1e-5)
    assert np.allclose(found.first, wanted["first"].clamp(0, 1).numpy(), atol=1e-5)
    assert np.allclose(found.second_spread, wanted["second_spread"].exp().clamp(0, 0.5).numpy(), atol=1e-5)


def test_a_release_that_did_not_come_changes_nothing() -> None:
    rng, present = np.random.default_rng(0), np.ones((1, 8), bool)
    present[0, 2] = False
    z = rng.integers(-200, 200, (1, 8, 4, 16))
    other = z.copy()
    other[0, 2] = 31_000
    one, two = (make_decoder().read(each, present, SIGMA) for each in (z, other))
    assert np.array_equal(one.first, two.first) and np.array_equal(one.posture, two.posture)


def test_codes_of_another_shape_are_refused() -> None:
    plane = np.zeros((64, 2), np.float32)
    for z, present in (
        (np.zeros((1, 7, 4, 16)), np.ones((1, 7), bool)),
        (np.zeros((1, 8, 4, 8)), np.ones((1, 8), bool)),
    ):
        with pytest.raises(ValueError, match="expected"):
            inputs(z, present, SIGMA, plane, 64, 8)


# --- its file ---------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = make_decoder(knows=("posture", "count"))
    made.save(tmp_path)
    found = ContourDecoder.load(tmp_path, "c" * 64)
    assert found is not None and found.knows == ("posture", "count")
    z, present = np.random.default_rng(0).integers(-99, 99, (3, 8, 4, 16)), np.ones((3, 8), bool)
    one, other = made.read(z, present, SIGMA), found.read(z, present, SIGMA)
    assert np.allclose(one.first, other.first, atol=2e-3)  # half precision
    assert np.allclose(one.posture, other.posture, atol=2e-3)
    assert np.ptp(one.posture, axis=0).max() > 0.05  # they differ, so that the same numbers mean something
    assert np.array_equal(other.moving, np.full(3, 0.3, np.float32))


def test_a_checkpoint_without_a_contour_has_none(tmp_path: Path) -> None:
    assert ContourDecoder.load(tmp_path, "c" * 64) is None


def test_another_familys_contour_is_refused_by_name(tmp_path: Path) -> None:
    make_decoder("d" * 64, family="somebody-elses").save(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"'somebody-elses', checkpoint dddddddddddd.*cccccccccccc.*contour.train"
    ):
        ContourDecoder.load(tmp_path, "c" * 64)


def _cut(data: bytes) -> bytes:
    return data[:-7]


def _without_a_tensor(data: bytes) -> bytes:
    tensors = load_tensors(data)
    tensors.pop("bias_1")
    return bytes(save_tensors(tensors, {"contour": "{}"}))


def _not_finite(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    return data[: 8 + size] + b"\xff" * (len(data) - 8 - size)


def _no_words(data: bytes) -> bytes:
    return bytes(save_tensors(load_tensors(data)))


def _endless(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["contour"])
    return bytes(save_tensors(load_tensors(data), {"contour": json.dumps(about | {"clip_norm": float("inf")})}))


@pytest.mark.parametrize("damage", [_cut, _without_a_tensor, _not_finite, _no_words, _endless, lambda data: b""])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = make_decoder().save(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=CONTOUR):
        ContourDecoder.load(tmp_path, "c" * 64)


@pytest.mark.parametrize(
    "changed", [{"version": 2}, {"knows": ["a name"]}, {"priors": {}}, {"releases": 4}, {"width": 8}, {"more": 1}]
)
def test_an_account_that_does_not_fit_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises((CheckpointError, KeyError)):
        make_decoder(**changed)


def test_the_command_names_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err


def test_a_contour_is_of_the_numbers_that_join_the_towers_too() -> None:
    family = make_family(sees_people=True)
    other = family.with_config(replace(family.config, late_fusion=(0.5, 1.0, 3.0)))
    assert _encoder_hash(family) == _encoder_hash(make_family(sees_people=True)) != _encoder_hash(other)


def test_the_command_writes_a_contour_of_this_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from familial.model.checkpoint import checkpoint_hash, save

    save(make_family(), tmp_path)
    assert main(["--checkpoint", str(tmp_path), "--clips", "10", "--steps", "4"]) == 0
    assert "contour.safetensors: knows" in capsys.readouterr().out
    assert ContourDecoder.load(tmp_path, checkpoint_hash(tmp_path)) is not None
    family = make_family()
    torch.nn.init.zeros_(family.exit_head.weight)  # what reads codes is trained anew
    save(family, tmp_path)
    with pytest.raises(CheckpointError, match="of its own family alone"):
        ContourDecoder.load(tmp_path, checkpoint_hash(tmp_path))
    assert main(["--checkpoint", str(tmp_path), "--rebind"]) == 0
    assert ContourDecoder.load(tmp_path, checkpoint_hash(tmp_path)) is not None
    torch.nn.init.zeros_(family.desensitizer.inner.weight)  # now the codes are others
    save(family, tmp_path)
    assert main(["--checkpoint", str(tmp_path), "--rebind"]) == 2
    assert "another encoder" in capsys.readouterr().err
