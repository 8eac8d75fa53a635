"""Evaluation: decisions on clips, calibration on folds, and a summary that keeps its contract."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from familial.data.clips import Clip, Footage
from familial.evaluate import __main__ as command
from familial.evaluate.clip_inference import clip_probabilities, clip_verdict, first_verdicts, sigma_of
from familial.evaluate.clip_scores import ClipScores, fit_folds, mean_calibration
from familial.evaluate.metrics import area_under_curve, calibration_error, risk_metrics
from familial.evaluate.score_calibration import (
    ScoreCalibration,
    at_the_end,
    balanced_loss,
    fit_temperature_and_bias,
    rescaled,
    with_logit_bias,
)
from familial.model import checkpoint
from familial.model.config import nano
from familial.model.family import Family
from familial.model.vocabulary import Vocabulary
from tests.support.clip_factory import LABELS, cache_clips_in, write_clips
from wire.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache" / "cache"
    cache_clips_in(folder, monkeypatch)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    checkpoint.save(Family(nano(Vocabulary.of_captions(["a person falls"], LABELS).words)), folder)
    return folder


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("member", "noise"), [("edge", "on"), ("cloud", "off")])
def test_the_summary_has_the_keys_of_the_contract(
    untrained: Path, manifest: Path, tmp_path: Path, member: str, noise: str
) -> None:
    out = tmp_path / "out.json"
    args = ["--checkpoint", str(untrained), "--data", str(manifest), "--json", str(out), "--threads", "1"]
    assert command.main([*args, "--member", member, "--noise", noise, "--profile", "strict"]) == 0
    found = json.loads(out.read_text())
    keys = {"member", "noise", "profile", "S_release", "S_event", "S_used", "overall", "sets", "labels", "clips"}
    assert keys | {"baselines", "intervals"} <= set(found)
    assert set(found["intervals"]) == {"overall", "made"}
    assert found["S_event"] == pytest.approx(2.0, abs=1e-3) and found["member"] == member
    assert set(found["overall"]) == set(found["sets"]["made"]) == {"n", "accuracy", "precision", "recall", "f1"}
    assert set(found["labels"]) == set(LABELS)
    assert set(found["clips"][0]) == {"file", "label", "predicted", "probability", "releases"}
    assert [clip["releases"] for clip in found["clips"]] == [9, 9, 9, 11, 11, 11, 17, 17, 17]


def test_a_clip_is_scored_by_the_fold_that_left_it_out(untrained: Path, manifest: Path, tmp_path: Path) -> None:
    for fold in range(3):
        shutil.copytree(untrained, tmp_path / "folds" / f"fold-{fold}")
        names = [f"{index}.mp4" for index in range(fold, 9, 3)]
        (tmp_path / "folds" / f"fold-{fold}" / "left_out.json").write_text(json.dumps(names))
    out = tmp_path / "summary.json"
    args = ["--folds", str(tmp_path / "folds"), "--data", str(manifest), "--json", str(out), "--threads", "1"]
    assert command.main(["--checkpoint", str(untrained), *args]) == 0
    found = json.loads(out.read_text())
    assert found["left_out"] is True and len(found["clips"]) == 9
    assert found["repeats"]["noise_samples"] == 5 and len(found["temperature"]) == 3
    (tmp_path / "folds" / "fold-1" / "left_out.json").write_text("[]")
    with pytest.raises(CheckpointError, match="1.mp4 was left out of no fold"):
        command.run(["--checkpoint", str(untrained), *args])


@pytest.mark.parametrize("sigma", ['"1/0"', "Infinity", "null"])
def test_a_damaged_noise_level_is_named_with_its_cure(tmp_path: Path, sigma: str) -> None:
    (tmp_path / "noise.json").write_text(f'{{"profile": "balanced", "sigma": {sigma}}}')
    with pytest.raises(CheckpointError, match=r"noise\.json.*calibration\.noise"):
        sigma_of(tmp_path, Family(nano(Vocabulary.of_captions(["a person falls"], LABELS).words)), None)


def test_trainings_with_other_seeds_are_averaged_and_reported_each(
    untrained: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = checkpoint.load(untrained)
    for name, threshold in (("calm", 0.999), ("wary", 0.001)):  # the one calls no clip a risk, the other all nine
        checkpoint.save(Family(replace(family.config, decision_threshold=threshold)), tmp_path / name)
    out = tmp_path / "both.json"
    args = ["--data", str(manifest), "--json", str(out), "--threads", "1"]
    both = [str(tmp_path / "calm"), str(tmp_path / "wary")]
    assert command.main(["--checkpoint", *both, *args, "--noise-samples", "3"]) == 0
    found = json.loads(out.read_text())
    assert found["repeats"]["noise_samples"] == 6
    assert [one["f1"]["mean"] for one in found["trainings"]] == pytest.approx([0.0, 0.8])  # six of nine are risks
    assert found["repeats"]["f1"] == found["sets_repeats"]["made"]["f1"] == pytest.approx({"mean": 0.4, "sd": 0.4})
    assert found["overall"]["f1"] == 0.0 and found["intervals"]["overall"]["f1"][0] == 0.0
    said = capsys.readouterr().out
    assert "over 6 noise samples" in said and "training 2: accuracy 0." in said and "F1 0.800 +- 0.000" in said
    labels = ("normal", "fight", "fall")
    words = Vocabulary.of_captions(["a person falls"], labels).words
    checkpoint.save(Family(replace(family.config, labels=labels, words=words)), tmp_path / "other")
    assert command.main(["--checkpoint", str(untrained), str(tmp_path / "other"), *args]) == 2
    assert "not every family has the labels normal, fall, fight" in capsys.readouterr().err


def test_wrong_command_lines_are_errors_that_name_the_option(untrained: Path, manifest: Path, tmp_path: Path) -> None:
    args = ["--checkpoint", str(untrained), "--data", str(manifest)]
    with pytest.raises(ConfigError, match="strict"):
        command.run([*args, "--profile", "loud"])
    for option in ("--noise-samples", "--draws"):  # the name of one version ago
        with pytest.raises(ConfigError, match="--noise-samples 0: .*give 1 or more"):
            command.run([*args, option, "0"])
    with pytest.raises(CheckpointError, match="left_out"):
        command.run([*args, "--folds", str(tmp_path)])
    with pytest.raises(ConfigError, match="--fit"):
        command.run(["--data", "x.csv", "--fit", str(untrained)])


# --- metrics and calibration ------------------------------------------------------------------------------------------


def test_risk_metrics_are_those_of_a_hand_count() -> None:
    found = risk_metrics([0, 0, 1, 1, 2], [0, 1, 1, 0, 1], [1, 2])
    assert found["n"] == 5 and found["accuracy"] == pytest.approx(2 / 5)
    assert found["precision"] == pytest.approx(2 / 3) and found["recall"] == pytest.approx(2 / 3)
    assert risk_metrics([0, 1], [0, 0], [1])["f1"] == 0.0


def test_auc_is_the_share_of_pairs_in_order_and_ties_count_half() -> None:
    normal, risk = np.array([0.9, 0.5, 0.5, 0.1]), np.array([False, False, True, True])
    assert area_under_curve(normal, risk) == pytest.approx(3.5 / 4)
    assert np.isnan(area_under_curve(normal, np.zeros(4, np.bool_)))


def test_auc_of_many_ties_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    normal, risk = np.round(rng.random(60), 1), rng.random(60) < 0.4
    pairs = [1.0 if a < b else 0.5 if a == b else 0.0 for a in normal[risk] for b in normal[~risk]]
    assert area_under_curve(normal, risk) == pytest.approx(float(np.mean(pairs)))
    assert np.isnan(area_under_curve(normal, np.zeros(60, np.bool_)))


def test_folds_fit_the_calibration_of_the_other_folds(tmp_path: Path, untrained: Path) -> None:
    """Logits are twice what they should be and biased to normal: both are undone, by the other folds' clips."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 480)
    real = 2.0 * rng.normal(size=480) + 2.0 * (2 * truth - 1)  # log odds N(+-m, 2m): those of a calibrated reader
    said = 1.0 / (1.0 + np.exp(-(2.0 * real - 0.8)))
    scores = [
        ClipScores(
            Clip(Path("x"), str(index), ("normal", "fall")[label], "made", str(index), ""),
            np.array([[[1.0 - risk, risk]]]),
            index % 3,
            8,
            8.0,
        )
        for index, (label, risk) in enumerate(zip(truth.tolist(), said.tolist(), strict=True))
    ]
    fits = fit_folds(scores, ("normal", "fall"))
    for fit in fits:
        assert 1.3 < fit.temperature < 2.8 and 0.0 < fit.bias < 1.2 and 0.1 < fit.decision_threshold < 0.9
    raw = calibration_error([each.probabilities()[0] for each in scores], truth.tolist())
    rows = [each.probabilities(fits[each.fold].temperature, fits[each.fold].bias)[0] for each in scores]
    assert calibration_error(rows, truth.tolist()) < raw
    folder = tmp_path / "all"
    shutil.copytree(untrained, folder)
    command._write_calibration(folder, fits)
    config = checkpoint.load(folder).config
    assert config.temperature > 1.3 and config.label_bias[0] == 0.0 and config.label_bias[1] == config.label_bias[2] > 0


@pytest.mark.parametrize(("scale", "bias"), [(0.3, 0.0), (0.7, -0.5), (1.0, 1.4), (3.5, 1.0)])
def test_the_grid_is_never_worse_than_a_search_along_one_axis_after_the_other(scale: float, bias: float) -> None:
    """Folds used to search temperatures of 1.1^-10 to 1.1^10 and biases of -1 to 1 by turns, on the same loss."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 120, p=[0.5, 0.3, 0.2])
    logits = scale * (1.2 * rng.normal(size=(120, 3)) + 1.5 * np.eye(3)[truth]) + [0.0, bias, bias]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = balanced_loss(lambda *fit: -np.log(rescaled(probabilities, *fit)[np.arange(120), truth]), truth)
    temperature, shift = 1.0, 0.0
    for _ in range(2):
        temperature = min((1.1**power for power in range(-10, 11)), key=lambda value: loss(value, shift))
        shift = min((step / 10 for step in range(-10, 11)), key=lambda value: loss(temperature, value))
    assert loss(*fit_temperature_and_bias(loss)) <= loss(temperature, shift)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ((1.0, 0.0), ""),
        ((9.0, 0.2), "(temperature at"),
        ((1.0, -4.0), "(bias at"),
        ((0.1, 9.0), "(temperature and bias"),
    ],
)
def test_a_fit_that_ends_at_the_end_of_its_grid_says_so(wanted: tuple[float, float], said: str) -> None:
    fitted = fit_temperature_and_bias(lambda *pair: (pair[0] - wanted[0]) ** 2 + (pair[1] - wanted[1]) ** 2)
    assert said in at_the_end(*fitted) if said else at_the_end(*fitted) == ""


def test_a_calibration_follows_that_of_the_config() -> None:
    """Applied one after the other, two calibrations give what their logits give: (x / 2 + 1) / 3 + 0.5."""
    config = nano(("<pad>", "<end>"))
    once = ScoreCalibration(2.0, 1.0, 0.4).applied_to(config)
    twice = ScoreCalibration(3.0, 0.5, 0.6).applied_to(once)
    assert (twice.temperature, twice.decision_threshold) == (6.0, 0.6)
    assert twice.label_bias == pytest.approx((0.0, 1 / 3 + 0.5, 1 / 3 + 0.5), abs=1e-4)
    mean = mean_calibration([ScoreCalibration(1.0, 0.0, 0.4), ScoreCalibration(2.0, 1.0, 0.6)])
    assert (mean.temperature, mean.bias, mean.decision_threshold) == pytest.approx((1.5, 0.5, 0.5))


def test_the_decision_threshold_moves_with_the_logit_bias_so_decisions_stay() -> None:
    config = replace(nano(("<pad>", "<end>")), label_bias=(0.0, 0.1, 0.1), decision_threshold=0.45)
    biased = with_logit_bias(config, 0.4, keep_threshold=False)
    assert biased.label_bias == (0.0, 0.5, 0.5)
    events = np.random.default_rng(0).dirichlet((2.0, 1.0, 1.0), (400, 5))
    tilted = events * np.exp([0.0, 0.4, 0.4])
    tilted /= tilted.sum(axis=2, keepdims=True)
    before = [clip_verdict(clip, config.decision_threshold)[0] for clip in events]
    assert before == [clip_verdict(clip, biased.decision_threshold)[0] for clip in tilted]
    assert len(set(before)) == 3
    assert with_logit_bias(config, 0.4, keep_threshold=True).decision_threshold == 0.45


# --- decisions on clips -----------------------------------------------------------------------------------------------


def test_a_clip_is_called_by_the_mean_of_its_odds() -> None:
    calm, fall, fight = [0.95, 0.03, 0.02], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]
    assert clip_verdict(np.array([fall]))[0] == 1
    assert clip_verdict(np.array([calm, fall, calm]))[0] == 1  # odds of 9 outweigh two events of 1 to 19
    assert clip_verdict(np.array([calm, calm, fight, fight]))[0] == 2
    assert clip_verdict(np.array([calm] * 30 + [fall]))[0] == 0
    sure = clip_probabilities(np.array([[0.0, 1.0, 0.0], calm]))
    assert np.isfinite(sure).all() and sure.sum() == pytest.approx(1.0)


def test_a_longer_clip_is_not_more_likely_to_be_called_a_risk() -> None:
    """Events that show nothing, read by a calibrated reader: a clip's odds reach t with a chance of at most 1 / t."""
    rng = np.random.default_rng(0)
    noisy = 2.0 * rng.normal(size=(4000, 40)) - 2.0  # log odds are N(-m, 2m) where nothing happens
    rows = 1.0 / (1.0 + np.exp(-noisy))
    for count in (1, 5, 40):
        events = [np.stack((1 - row[:count], row[:count]), axis=1) for row in rows]
        for threshold in (0.75, 0.9):
            called = np.mean([clip_verdict(each, threshold)[0] for each in events])
            assert called <= (1 - threshold) / threshold + 0.02
    assert np.mean([rows.max(axis=1) >= 0.75]) > 0.9  # what the riskiest event would have said


def test_shares_of_first_verdicts_sum_to_one(untrained: Path) -> None:
    family = checkpoint.load(untrained)
    spec = family.config.window
    frames = np.random.default_rng(0).integers(0, 255, (120, spec.height, spec.width), dtype=np.uint8)
    footage = Footage(frames, np.arange(120) / 10, 12.0)
    found = first_verdicts(family, footage, 9.0, "edge", family.config.sigma, samples=40)
    assert found["in_time"] + found["early"] + found["late"] + found["never"] == pytest.approx(1.0)
