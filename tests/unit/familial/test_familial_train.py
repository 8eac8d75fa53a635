"""Training and evaluation end to end, small: a run that learns, one that resumes, tables that say what they promise."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from familial.data import clips as clips_module
from familial.data import sources as sources_module
from familial.data.batches import SampleBatch
from familial.data.clips import Clip, Footage
from familial.evaluate import report as evaluate
from familial.model import checkpoint
from familial.model.config import nano
from familial.model.desensitizer import code_plane
from familial.model.family import Family
from familial.model.vocabulary import END, FIRST_LABEL, Vocabulary
from familial.train import loop as train
from familial.train import progress
from familial.train.losses import clean_loss, prototypes, rounded_gaussian, weak_loss
from familial.train.recipe import trainings
from tests.support.services import ROOT
from wire.errors import CheckpointError, ConfigError, DataError

LABELS = ("normal", "fall", "fight")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips of 2 to 10 s: a square that rests (normal), drops (fall) or shakes (fight)."""
    folder = tmp_path_factory.mktemp("clips")
    rows = ["file,label,set,group,note"]
    for index in range(9):
        label = LABELS[index % 3]
        seconds = (2, 4, 10)[index // 3]
        writer = cv2.VideoWriter(str(folder / f"{index}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 64))
        for t in range(seconds * 10):
            picture = np.full((64, 64, 3), 90, np.uint8)
            y = 8 + (min(40, 4 * max(0, t - seconds * 5)) if label == "fall" else 0)
            x = 20 + (10 * (t % 2) if label == "fight" else 0)
            picture[y : y + 14, x : x + 10] = 220
            writer.write(picture)
        writer.release()
        rows.append(f"{index}.mp4,{label},made,g{index},")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache" / "cache"
    for module in (clips_module, sources_module, train):
        monkeypatch.setattr(module, "CACHE", folder)
    monkeypatch.setattr(clips_module.read_clip, "__defaults__", (folder,))


ARGS = ["--threads", "1", "--runs", "3", "--readings", "3", "--minutes", "5"]


def test_a_short_run_leaves_a_checkpoint_a_curve_and_repeats_itself(manifest: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert train.main(["--data", str(manifest), "--steps", "8", "--out", str(tmp_path / name), *ARGS]) == 0
    first, second = checkpoint.load(tmp_path / "one"), checkpoint.load(tmp_path / "two")
    assert len(first.config.words) <= 1000
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        # the same run, up to sums in another order, which Adam's first steps enlarge where a gradient is almost zero
        assert float((mine - theirs).detach().abs().mean()) < 2e-4
    curve = next((clips_module.CACHE.parent / "train").glob("*-one/curve.csv"))
    assert curve.read_text().startswith("step,seconds,done,")


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_another_family_does_not(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.Curve, "due", lambda _: True)
    args = ["--data", str(manifest), "--out", str(tmp_path / "going"), *ARGS]
    assert train.main([*args, "--steps", "4"]) == 0
    assert train.main([*args, "--steps", "6", "--resume"]) == 0
    assert "resumed at step 4" in capsys.readouterr().out
    curve = next((clips_module.CACHE.parent / "train").glob("*-going/curve.csv"))
    assert [row.split(",")[0] for row in curve.read_text().splitlines()] == ["step", *"123456"]
    with pytest.raises(CheckpointError, match="not a state of this family .*without --resume"):
        train.run([*args, "--steps", "8", "--resume", "--attributes"])


def test_batches_are_the_same_whoever_draws_them(manifest: Path) -> None:
    config = nano(Vocabulary.of_captions(["a person falls"], LABELS).words)
    clips = sources_module.manifest_clips(clips_module.read_manifests([manifest], LABELS), LABELS, config.window)
    plan = progress.Plan(
        minutes=1.0,
        steps=0,
        runs=3,
        readings=3,
        stage_1=0.5,
        whole=0.1,
        bodies=0.3,
        adversary=0.3,
        rate=1e-3,
        seed=5,
        bf16=False,
        warm=False,
    )
    by_thread, by_processes = (train._Sequences(config, clips, replace(plan, workers=count)) for count in (0, 2))
    for step in (4, 5, 6):  # from any step on, as after --resume
        mine, theirs = by_thread.batch(step), by_processes.batch(step)
        for name in ("frames", "labels", "weak", "now", "clip", "start", "last"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), (step, name)
    assert not np.array_equal(by_thread.batch(7).frames, mine.frames)


def test_directions_of_the_code_do_not_depend_on_the_device() -> None:
    here = code_plane(4, 16, 3)
    with torch.device("meta"):  # nothing can be drawn there: what is drawn is drawn on the CPU and moved
        assert code_plane(4, 16, 3).device.type == "meta"
    assert torch.equal(here, code_plane(4, 16, 3))


@pytest.mark.slow
def test_a_fold_is_scored_by_the_family_that_left_it_out(manifest: Path, tmp_path: Path) -> None:
    args = ["--data", str(manifest), "--steps", "4", "--folds", "3", "--out", str(tmp_path / "folds"), *ARGS]
    assert train.main(args) == 0
    out = tmp_path / "summary.json"
    common = ["--data", str(manifest), "--json", str(out), "--threads", "1"]
    folder = str(tmp_path / "folds" / "fold-0")
    assert evaluate.main(["--checkpoint", folder, "--folds", str(tmp_path / "folds"), *common]) == 0
    found = json.loads(out.read_text())
    assert found["left_out"] is True and len(found["clips"]) == 9
    assert found["repeats"]["draws"] == 5 and len(found["temperature"]) == 3


def test_trainings_with_other_seeds_are_averaged_and_told_apart(
    untrained: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = checkpoint.load(untrained)
    for name, decision_threshold in (
        ("calm", 0.999),
        ("wary", 0.001),
    ):  # the one calls no clip a risk, the other all nine
        checkpoint.save(Family(replace(family.config, decision_threshold=decision_threshold)), tmp_path / name)
    out = tmp_path / "both.json"
    args = ["--data", str(manifest), "--json", str(out), "--threads", "1"]
    both = [str(tmp_path / "calm"), str(tmp_path / "wary")]
    assert evaluate.main(["--checkpoint", *both, *args, "--draws", "3"]) == 0
    found = json.loads(out.read_text())
    assert found["repeats"]["draws"] == 6
    assert [one["f1"]["mean"] for one in found["trainings"]] == pytest.approx([0.0, 0.8])  # six of nine are risks
    assert found["repeats"]["f1"] == found["sets_repeats"]["made"]["f1"] == pytest.approx({"mean": 0.4, "sd": 0.4})
    assert found["overall"]["f1"] == 0.0 and found["intervals"]["overall"]["f1"][0] == 0.0
    said = capsys.readouterr().out
    assert "over 6 noise draws" in said and "training 2: accuracy 0." in said and "F1 0.800 +- 0.000" in said
    labels = ("normal", "fight", "fall")
    words = Vocabulary.of_captions(["a person falls"], labels).words
    checkpoint.save(Family(replace(family.config, labels=labels, words=words)), tmp_path / "other")
    assert evaluate.main(["--checkpoint", str(untrained), str(tmp_path / "other"), *args]) == 2
    assert "not every family has the labels normal, fall, fight" in capsys.readouterr().err


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    words = Vocabulary.of_captions(["a person falls"], LABELS).words
    checkpoint.save(Family(nano(words)), folder)
    return folder


@pytest.mark.parametrize(("member", "noise"), [("edge", "on"), ("cloud", "off")])
def test_the_summary_has_the_keys_of_the_contract(
    untrained: Path, manifest: Path, tmp_path: Path, member: str, noise: str
) -> None:
    out = tmp_path / "out.json"
    args = ["--checkpoint", str(untrained), "--data", str(manifest), "--json", str(out), "--threads", "1"]
    assert evaluate.main([*args, "--member", member, "--noise", noise, "--profile", "strict"]) == 0
    found = json.loads(out.read_text())
    keys = {"member", "noise", "profile", "S_release", "S_event", "S_used", "overall", "sets", "labels", "clips"}
    assert keys | {"baselines", "intervals"} <= set(found)
    assert set(found["intervals"]) == {"overall", "made"}
    assert found["S_event"] == pytest.approx(2.0, abs=1e-3) and found["member"] == member
    assert set(found["overall"]) == set(found["sets"]["made"]) == {"n", "accuracy", "precision", "recall", "f1"}
    assert set(found["labels"]) == set(LABELS)
    assert set(found["clips"][0]) == {"file", "label", "predicted", "probability", "releases"}
    assert [clip["releases"] for clip in found["clips"]] == [9, 9, 9, 11, 11, 11, 17, 17, 17]


def test_wrong_command_lines_are_named(untrained: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        train.run(["--out", str(tmp_path / "x")])
    args = ["--data", str(manifest), "--out", str(tmp_path / "x")]
    for shares in (["--whole", "1"], ["--stage-1", "0.95"], ["--stage-1", "-0.1"]):
        with pytest.raises(ConfigError, match="shares of the time"):
            train.run([*args, *shares])
    config = checkpoint.load(untrained).config
    checkpoint.save(Family(replace(config, rank=0)), tmp_path / "wide")
    with pytest.raises(ConfigError, match=r"--attributes: codes of .*wide lie in all directions"):
        train.run([*args, "--base", str(tmp_path / "wide"), "--attributes"])
    for option, value, why in (("--device", "abacus", "; give cpu"), ("--workers", "-1", "0 draws in a thread")):
        with pytest.raises(ConfigError, match=f"{option} {value}: .*{why}"):
            train.run([*args, option, value])
    with pytest.raises(DataError, match="not readable"):
        train.run(["--data", str(tmp_path / "no.csv"), "--out", str(tmp_path / "x")])
    with pytest.raises(ConfigError, match="strict"):
        evaluate.run(["--checkpoint", str(untrained), "--data", str(manifest), "--profile", "loud"])
    with pytest.raises(ConfigError, match="--draws 0: .*give 1 or more"):
        evaluate.run(["--checkpoint", str(untrained), "--data", str(manifest), "--draws", "0"])
    with pytest.raises(CheckpointError, match="left_out"):
        evaluate.run(["--checkpoint", str(untrained), "--data", str(manifest), "--folds", str(tmp_path)])


def test_risk_metrics_are_those_of_a_hand_count() -> None:
    found = evaluate.metrics([0, 0, 1, 1, 2], [0, 1, 1, 0, 1], [1, 2])
    assert found["n"] == 5 and found["accuracy"] == pytest.approx(2 / 5)
    assert found["precision"] == pytest.approx(2 / 3) and found["recall"] == pytest.approx(2 / 3)
    assert evaluate.metrics([0, 1], [0, 0], [1])["f1"] == 0.0


def test_folds_fit_what_makes_probabilities_true(tmp_path: Path, untrained: Path) -> None:
    """Readers whose logits are twice what they should be and lean to normal: both are undone, on other folds' clips."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 480)
    real = 2.0 * rng.normal(size=480) + 2.0 * (2 * truth - 1)  # log odds N(+-m, 2m): what a true reader says
    said = 1.0 / (1.0 + np.exp(-(2.0 * real - 0.8)))
    reads = [
        evaluate.Read(
            Clip(Path("x"), str(index), ("normal", "fall")[label], "made", str(index), ""),
            np.array([[[1.0 - risk, risk]]]),
            index % 3,
            8,
            8.0,
        )
        for index, (label, risk) in enumerate(zip(truth.tolist(), said.tolist(), strict=True))
    ]
    fits = evaluate._fits(reads, ("normal", "fall"))
    for temperature, bias, decision_threshold in fits:
        assert 1.3 < temperature < 2.8 and 0.0 < bias < 1.2 and 0.1 < decision_threshold < 0.9
    raw = evaluate.calibration_error([read.draws()[0] for read in reads], truth.tolist())
    true = evaluate.calibration_error([read.draws(*fits[read.reader][:2])[0] for read in reads], truth.tolist())
    assert true < raw
    folder = tmp_path / "all"
    shutil.copytree(untrained, folder)
    evaluate._write_fits(folder, fits)
    config = checkpoint.load(folder).config
    assert config.temperature > 1.3 and config.label_bias[0] == 0.0 and config.label_bias[1] == config.label_bias[2] > 0
    with pytest.raises(ConfigError, match="--fit"):
        evaluate.run(["--data", "x.csv", "--fit", str(folder)])


def test_intervals_cover_what_other_groups_would_give() -> None:
    rng = np.random.default_rng(1)
    truth = [int(value) for value in rng.integers(0, 2, 300)]
    said = np.where(rng.random((300, 4)) < 0.8, np.array(truth)[:, None], 1 - np.array(truth)[:, None])
    alone = evaluate.intervals(truth, said, [str(index) for index in range(300)])
    assert alone["accuracy"][0] < 0.8 < alone["accuracy"][1] and alone["f1"][0] < 0.8 < alone["f1"][1]
    assert alone["accuracy"][1] - alone["accuracy"][0] == pytest.approx(4 * (0.8 * 0.2 / 300) ** 0.5, rel=0.3)
    one = np.array([[1]] * 150 + [[0]] * 150)  # two groups, one always right and one always wrong: nothing is known
    assert evaluate.intervals([1] * 300, one, ["a"] * 150 + ["b"] * 150)["accuracy"] == [0.0, 1.0]


def test_a_clip_is_called_by_the_mean_of_its_odds() -> None:
    calm, fall, fight = [0.95, 0.03, 0.02], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]
    assert evaluate.clip_verdict(np.array([fall]))[0] == 1
    assert evaluate.clip_verdict(np.array([calm, fall, calm]))[0] == 1  # odds of 9 outweigh two events of 1 to 19
    assert evaluate.clip_verdict(np.array([calm, calm, fight, fight]))[0] == 2
    assert evaluate.clip_verdict(np.array([calm] * 30 + [fall]))[0] == 0
    sure = evaluate.clip_probabilities(np.array([[0.0, 1.0, 0.0], calm]))
    assert np.isfinite(sure).all() and sure.sum() == pytest.approx(1.0)


def test_a_longer_clip_is_no_surer_to_be_called_a_risk() -> None:
    """Events that show nothing, read by a calibrated reader: a clip's odds reach t with a chance of at most 1 / t."""
    rng = np.random.default_rng(0)
    noisy = 2.0 * rng.normal(size=(4000, 40)) - 2.0  # log odds are N(-m, 2m) where nothing happens
    rows = 1.0 / (1.0 + np.exp(-noisy))
    for count in (1, 5, 40):
        events = [np.stack((1 - row[:count], row[:count]), axis=1) for row in rows]
        for decision_threshold in (0.75, 0.9):
            called = np.mean([evaluate.clip_verdict(each, decision_threshold)[0] for each in events])
            assert called <= (1 - decision_threshold) / decision_threshold + 0.02
    assert np.mean([rows.max(axis=1) >= 0.75]) > 0.9  # what the riskiest event would have said


def test_first_verdicts_are_shares_of_all_draws(untrained: Path) -> None:
    family = checkpoint.load(untrained)
    frames = np.random.default_rng(0).integers(0, 255, (120, 96, 96), dtype=np.uint8)
    footage = Footage(frames, np.arange(120) / 10, 12.0)
    found = evaluate.first_verdicts(family, footage, 9.0, "edge", family.config.sigma, draws=40)
    assert found["in_time"] + found["early"] + found["late"] + found["never"] == pytest.approx(1.0)


def test_poles_are_of_one_norm_and_normal_is_far_from_fall() -> None:
    made = prototypes(3, 4, 16, 63.0).flatten(1)
    assert torch.allclose(made.norm(dim=1), torch.full((3,), 63.0))
    assert float((made[0] - made[1]).norm()) > 1.9 * 63


def test_codes_at_their_poles_lose_least() -> None:
    torch.manual_seed(0)
    made = prototypes(3, 4, 16, 63.0)
    labels = torch.arange(3)
    even = torch.ones(3)
    here, centre = made.clone(), torch.zeros_like(made)
    assert float(clean_loss(here, labels, made, even)) < 0.6 < 1.0 < float(clean_loss(centre, labels, made, even))
    noise = rounded_gaussian(torch.zeros(20000), 60.34)
    assert float(noise.std()) == pytest.approx(60.34, rel=0.02) and torch.equal(noise, noise.round())


def test_one_release_that_shows_it_is_enough_for_a_weak_label() -> None:
    torch.manual_seed(0)
    made = prototypes(3, 4, 16, 63.0)
    shown = torch.stack([made[0], made[1], made[0]])[None]
    hidden = torch.stack([made[0], made[0], made[0]])[None]
    label = torch.tensor([1])
    assert float(weak_loss(shown, label, made)) < 0.6 < 1.5 < float(weak_loss(hidden, label, made))


def test_samples_come_to_the_end_of_the_event_and_gaps_stay_empty() -> None:
    code = torch.arange(1.0, 9.0).reshape(1, 8, 1, 1).expand(2, 8, 1, 1)
    samples = SampleBatch(np.array([1, 0]), np.array([2, 0]), np.array([4, 7]), np.array([0, 1]))
    z, present = train.noisy_events(code, samples, 0.0)
    assert z.flatten(1).tolist() == [[0, 0, 0, 0, 0, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert present.tolist() == [[False] * 5 + [True] * 3, [True] * 8]


def test_a_loss_that_is_not_a_number_stops_with_the_last_good_state(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "clean_loss", lambda x, *_: x.sum() * torch.nan)
    with pytest.raises(CheckpointError, match="step 0: the loss is nan; the last good state is .*--resume"):
        train.run(["--data", str(manifest), "--steps", "4", "--out", str(tmp_path / "x"), *ARGS])
    assert not (tmp_path / "x").exists()


def test_captions_come_back_as_words() -> None:
    words = Vocabulary.of_captions(["a person falls", "nothing unusual happens"], LABELS)
    ids = words.encode("A person falls, badly!", 8)
    assert ids[3] == END and len(ids) == 8 and words.decode(ids) == "a person falls"
    assert words.words[FIRST_LABEL : FIRST_LABEL + 3] == ("<normal>", "<fall>", "<fight>")
    with pytest.raises(CheckpointError, match="begin with"):
        Vocabulary(("a", "b"), LABELS)


RECIPE = "[[run]]\nrendered = 10\nsteps = 3\n[[run]]\ndata = true\nsteps = 4\nlogit_bias = 0.4\n"


@pytest.mark.slow
def test_a_recipe_is_trained_run_by_run_and_goes_on_where_it_stopped(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    out = tmp_path / "cooked"
    args = ["--recipe", str(tmp_path / "recipe.toml"), "--data", str(manifest), "--out", str(out), *ARGS]
    whole, stop = train._run, [4]

    def stopping(plan: argparse.Namespace) -> None:
        if plan.steps == stop[0]:
            raise KeyboardInterrupt
        whole(plan)

    monkeypatch.setattr(train, "_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        train.run(args)
    said = capsys.readouterr().out
    assert "run 1 of 2: begins" in said and "3 steps in" in said and "run 2 of 2: begins" in said
    stop[0] = 0
    assert train.main([*args, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "run 1 of 2: made before" in said and "run 2 of 2: begins\nbegan from" in said and "4 steps in" in said
    fitted = float(said.split(", bias ")[1].split(" towards")[0])
    assert checkpoint.load(out).config.label_bias[1] == pytest.approx(fitted + 0.4)
    assert train.main([*args, "--seed", "3", "--steps", "2"]) == 0  # the command line wins; nothing is left of before
    said = capsys.readouterr().out
    assert said.count("2 steps in") == 2 and "made before" not in said


def test_lean_moves_the_limit_so_that_the_same_clips_are_called() -> None:
    config = replace(nano(("<pad>", "<end>")), label_bias=(0.0, 0.1, 0.1), decision_threshold=0.45)
    plan = progress.Plan(
        minutes=1.0,
        steps=0,
        runs=3,
        readings=3,
        stage_1=0.5,
        whole=0.1,
        bodies=0.3,
        adversary=0.3,
        rate=1e-3,
        seed=5,
        bf16=False,
        warm=False,
        logit_bias=0.4,
    )
    leaning = train._leaning(config, plan)
    assert leaning.label_bias == (0.0, 0.5, 0.5)
    events = np.random.default_rng(0).dirichlet((2.0, 1.0, 1.0), (400, 5))
    tilted = events * np.exp([0.0, 0.4, 0.4])
    tilted /= tilted.sum(axis=2, keepdims=True)
    before = [evaluate.clip_verdict(clip, config.decision_threshold)[0] for clip in events]
    assert before == [evaluate.clip_verdict(clip, leaning.decision_threshold)[0] for clip in tilted]
    assert len(set(before)) == 3
    assert (
        train._leaning(config, replace(plan, decision_threshold=0.45)).decision_threshold == 0.45
    )  # what was said stays


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds nothing; expected"),
        ("run = []\n", "holds run; expected [[run]] alone"),
        ("[[run]\n", "not TOML"),
        ("[[run]]\nminute = 3\ndata = true\n", "run 1: minute is no key of a run; there are adversary, attributes"),
        ("[[run]]\nout = 'x'\ndata = true\n", "run 1: out is no key"),
        ("[[run]]\nbf16 = false\ndata = true\n", "run 1: bf16 is False"),
        ("[[run]]\ndata = true\n[[run]]\nminutes = 'ten'\n", "run 2: argument --minutes: invalid float value: 'ten'"),
        ("[[run]]\nrendered = 3\n", "no run takes --data"),
    ],
)
def test_wrong_recipes_are_named_before_anything_is_trained(
    text: str, why: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    assert train.main(["--recipe", str(file), "--data", str(manifest), "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"familial.train: {file}: ") and why in said.err and not said.out


def test_a_recipe_that_takes_clips_asks_for_them(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[[run]]\ndata = true\n")
    with pytest.raises(ConfigError, match="a run takes clips; give --data"):
        train.run(["--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path / "x")])


@pytest.mark.parametrize("name", ["nano", "nano-research"])
def test_recipes_of_the_shipped_weights_can_be_read(name: str, tmp_path: Path) -> None:
    path = ROOT / "checkpoints" / name / "recipe.toml"
    data = ["--data", "m.csv"] if name == "nano-research" else []
    argv = ["--recipe", str(path), "--out", str(tmp_path / "x"), *data]
    first, last = trainings(path, train._parser(), argv, tmp_path)
    assert (first.rendered, first.data, first.base) == (3000, [], None)
    assert (last.base, last.out, bool(last.data)) == (first.out, tmp_path / "x", bool(data))
