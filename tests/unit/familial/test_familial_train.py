"""Training end to end, small: it is repeatable, resumes, runs recipes, and names wrong options."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from familial.data import clips as clips_module
from familial.data import sources as sources_module
from familial.data.batches import SampleBatch
from familial.model import checkpoint
from familial.model.code_space import prototypes, rounded_gaussian
from familial.model.config import FamilyConfig, nano
from familial.model.desensitizer import code_plane
from familial.model.family import Family
from familial.model.vocabulary import END, FIRST_LABEL, Vocabulary
from familial.train import __main__ as train
from familial.train import progress, stages
from familial.train.config import TrainConfig
from familial.train.losses import clean_loss, weak_loss
from familial.train.recipe import FORMER_KEYS, trainings
from familial.train.sampling import BatchSource
from familial.train.stages import noisy_events
from tests.support.clip_factory import LABELS, cache_clips_in, write_clips
from tests.support.services import ROOT
from wire.errors import CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "cache" / "cache"
    for module in (clips_module, sources_module, progress):
        monkeypatch.setattr(module, "CACHE", folder)
    cache_clips_in(folder, monkeypatch)


# so many minutes that a busy machine is not told to render fewer clips
ARGS = ["--threads", "1", "--batch-size", "3", "--samples-per-sequence", "3", "--minutes", "60"]


def test_a_short_training_writes_checkpoint_and_curve_and_is_repeatable(manifest: Path, tmp_path: Path) -> None:
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
def test_a_training_resumes_but_not_from_the_state_of_another_family(
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
    next((clips_module.CACHE.parent / "train").glob("*-going/state.pt")).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not a state of this family .*without --resume"):
        train.run([*args, "--steps", "8", "--resume"])


def test_batches_are_the_same_from_a_thread_and_from_processes(manifest: Path) -> None:
    config = nano(Vocabulary.of_captions(["a person falls"], LABELS).words)
    clips = sources_module.manifest_clips(clips_module.read_manifests([manifest], LABELS), LABELS, config.window)
    train_config = TrainConfig(
        minutes=1.0,
        steps=0,
        batch_size=3,
        samples_per_sequence=3,
        stage_1=0.5,
        clip_stage=0.1,
        bodies=0.3,
        adversary=0.3,
        lr=1e-3,
        seed=5,
        bf16=False,
        warm_start=False,
    )
    by_thread, by_processes = (BatchSource(config, clips, replace(train_config, workers=count)) for count in (0, 2))
    for step in (4, 5, 6):  # from any step on, as after --resume
        mine, theirs = by_thread.batch(step), by_processes.batch(step)
        for name in ("frames", "labels", "weak", "now", "clip", "start", "last"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), (step, name)
    assert not np.array_equal(by_thread.batch(7).frames, mine.frames)


def test_directions_of_the_code_do_not_depend_on_the_device() -> None:
    here = code_plane(4, 16, 3)
    with torch.device("meta"):  # no random numbers there: they are drawn on the CPU and moved
        assert code_plane(4, 16, 3).device.type == "meta"
    assert torch.equal(here, code_plane(4, 16, 3))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("untrained")
    words = Vocabulary.of_captions(["a person falls"], LABELS).words
    checkpoint.save(Family(nano(words)), folder)
    return folder


def test_wrong_command_lines_are_errors_that_name_the_option(untrained: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        train.run(["--out", str(tmp_path / "x")])
    args = ["--data", str(manifest), "--out", str(tmp_path / "x")]
    for shares in (["--clip-stage", "1"], ["--clip-stage", "1.5"], ["--stage-1", "0.95"], ["--stage-1", "-0.1"]):
        with pytest.raises(ConfigError, match="shares? of the time"):
            train.run([*args, *shares])
    for options, why in (
        (["--code-gain", "4", "--code-bias", "0,x"], "--code-bias 0,x: numbers with commas"),
        (["--code-gain", "4", "--code-bias", "0,-1"], "code_bias has 2 entries"),
        (["--code-bias=0,-1,1"], "--code-bias 0,-1,1: it goes with --code-gain"),
        (["--code-gain", "4", "--code-bias=0,nan,1"], "give finite numbers"),
        (["--adapter", "lens"], "known are 'tokens' and 'plane'"),
    ):
        with pytest.raises((ConfigError, CheckpointError), match=why):
            train.run([*args, *options])
    config = checkpoint.load(untrained).config
    checkpoint.save(Family(replace(config, rank=0)), tmp_path / "wide")
    with pytest.raises(ConfigError, match=r"--attributes: codes of .*wide lie in all directions"):
        train.run([*args, "--base", str(tmp_path / "wide"), "--attributes"])
    for option, value, why in (
        ("--device", "abacus", "; give cpu"),
        ("--workers", "-1", "0 prepares batches in a thread"),
    ):
        with pytest.raises(ConfigError, match=f"{option} {value}: .*{why}"):
            train.run([*args, option, value])
    with pytest.raises(DataError, match="not readable"):
        train.run(["--data", str(tmp_path / "no.csv"), "--out", str(tmp_path / "x")])


def test_class_prototypes_have_one_norm_and_normal_is_far_from_fall() -> None:
    made = prototypes(3, 4, 16, 63.0).flatten(1)
    assert torch.allclose(made.norm(dim=1), torch.full((3,), 63.0))
    assert float((made[0] - made[1]).norm()) > 1.9 * 63


def test_codes_at_their_class_prototypes_have_the_least_loss() -> None:
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


def test_samples_are_moved_to_the_end_of_the_event_and_gaps_stay_zero() -> None:
    code = torch.arange(1.0, 9.0).reshape(1, 8, 1, 1).expand(2, 8, 1, 1)
    samples = SampleBatch(np.array([1, 0]), np.array([2, 0]), np.array([4, 7]), np.array([0, 1]))
    z, present = noisy_events(code, samples, 0.0)
    assert z.flatten(1).tolist() == [[0, 0, 0, 0, 0, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8]]
    assert present.tolist() == [[False] * 5 + [True] * 3, [True] * 8]


def test_a_loss_that_is_not_a_number_is_an_error_that_names_the_last_good_state(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "clean_loss", lambda x, *_: x.sum() * torch.nan)
    with pytest.raises(CheckpointError, match="step 0: the loss is nan; the last good state is .*--resume"):
        train.run(["--data", str(manifest), "--steps", "4", "--out", str(tmp_path / "x"), *ARGS])
    assert not (tmp_path / "x").exists()


def test_captions_are_encoded_and_decoded_as_words() -> None:
    words = Vocabulary.of_captions(["a person falls", "nothing unusual happens"], LABELS)
    ids = words.encode("A person falls, badly!", 8)
    assert ids[3] == END and len(ids) == 8 and words.decode(ids) == "a person falls"
    assert words.words[FIRST_LABEL : FIRST_LABEL + 3] == ("<normal>", "<fall>", "<fight>")
    with pytest.raises(CheckpointError, match="begin with"):
        Vocabulary(("a", "b"), LABELS)


RECIPE = "[[run]]\nrendered = 10\nsteps = 3\n[[run]]\ndata = true\nsteps = 4\nlogit_bias = 0.4\n"


@pytest.mark.slow
def test_a_recipe_is_trained_run_by_run_and_resumes_where_it_stopped(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    out = tmp_path / "cooked"
    argv = ["--recipe", str(tmp_path / "recipe.toml"), "--data", str(manifest), "--out", str(out), *ARGS]
    real, stop = train._run, [4]

    def stopping(args: argparse.Namespace) -> None:
        if args.steps == stop[0]:
            raise KeyboardInterrupt
        real(args)

    monkeypatch.setattr(train, "_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        train.run(argv)
    said = capsys.readouterr().out
    assert "run 1 of 2: begins" in said and "3 steps in" in said and "run 2 of 2: begins" in said
    stop[0] = 0
    assert train.main([*argv, "--resume"]) == 0
    said = capsys.readouterr().out
    assert "run 1 of 2: made before" in said and "run 2 of 2: begins\nheld out: 3 of 9 clips" in said
    assert "began from" in said and "4 steps in" in said
    fitted = float(said.split(", bias ")[1].split(" towards")[0])
    assert checkpoint.load(out).config.label_bias[1] == pytest.approx(fitted + 0.4)
    assert train.main([*argv, "--seed", "3", "--steps", "2"]) == 0  # the command line wins; nothing is left of before
    said = capsys.readouterr().out
    assert said.count("2 steps in") == 2 and "made before" not in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds nothing; expected"),
        ("run = []\n", "holds run; expected [[run]] alone"),
        ("[[run]\n", "not TOML"),
        ("[[run]]\nminute = 3\ndata = true\n", "run 1: minute is no key of a run; there are adapter, adversary"),
        ("[[run]]\nout = 'x'\ndata = true\n", "run 1: out is no key"),
        ("[[run]]\nbf16 = false\ndata = true\n", "run 1: bf16 is False"),
        ("[[run]]\ndata = true\n[[run]]\nminutes = 'ten'\n", "run 2: argument --minutes: invalid float value: 'ten'"),
        ("[[run]]\nrendered = 3\n", "no run takes --data"),
    ],
)
def test_wrong_recipes_are_errors_before_anything_is_trained(
    text: str, why: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.toml"
    file.write_text(text)
    assert train.main(["--recipe", str(file), "--data", str(manifest), "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"familial.train: {file}: ") and why in said.err and not said.out


def test_a_recipe_with_clips_needs_data(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[[run]]\ndata = true\n")
    with pytest.raises(ConfigError, match="a run takes clips; give --data"):
        train.run(["--recipe", str(tmp_path / "r.toml"), "--out", str(tmp_path / "x")])


def test_options_and_recipe_keys_of_the_version_before_are_read(tmp_path: Path) -> None:
    parser, given = train._parser(), {"lean": "0.5", "risk_at": "0.4", "rate": "0.1", "whole": "0.2", "drawers": "3"}
    given |= {"runs": "5", "readings": "7"}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
    args = vars(parser.parse_args(["--out", "x", "--answers", *options]))
    assert {key: str(args[FORMER_KEYS[key]]) for key in given} == given and args["attributes"] is True
    assert not any(f"--{key.replace('_', '-')} " in parser.format_help() for key in FORMER_KEYS)
    keys = "".join(f"{key} = {value}\n" for key, value in given.items())
    (tmp_path / "r.toml").write_text(f"[[run]]\nrendered = 3\nanswers = true\n{keys}")
    (only,) = trainings(tmp_path / "r.toml", parser, ["--out", "x"], tmp_path)
    assert {name: vars(only)[name] for name in FORMER_KEYS.values()} == {
        name: args[name] for name in FORMER_KEYS.values()
    }


def test_the_recipe_of_nano_adds_people_to_that_of_nano_motion(tmp_path: Path) -> None:
    argv = ["--out", str(tmp_path / "x"), "--recipe"]
    runs, of_motion = (
        list(trainings(ROOT / "checkpoints" / name / "recipe.toml", train._parser(), [*argv, name], tmp_path))
        for name in ("nano", "nano-motion")
    )
    same = ("rendered", "steps", "stage_1", "lr", "bf16", "seed", "logit_bias", "tower")
    for one, other in zip(runs[:2], of_motion, strict=True):
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
    assert (runs[2].tower, runs[2].freeze_motion, runs[2].people) == ("fused", True, 7500)
    assert (runs[3].freeze_motion, runs[3].people, runs[3].everyday) == (True, 4100, 1000)
    assert (runs[4].freeze_motion, runs[4].clip_stage, runs[4].rendered, runs[4].people) == (True, 1.0, 600, 800)
    assert [each.base for each in runs[1:]] == [each.out for each in runs[:-1]]
    made = FamilyConfig.load(ROOT / "checkpoints" / "nano" / "config.json")
    assert (runs[4].adapter, runs[4].code_gain) == (made.adapter, made.code_gain)
    for given, told in ((runs[4].code_bias, made.code_bias), (runs[2].late_fusion, made.late_fusion)):
        assert tuple(map(float, given.split(","))) == told


def test_recipes_of_the_shipped_weights_can_be_read(tmp_path: Path) -> None:
    argv = ["--out", str(tmp_path / "x"), "--recipe"]
    path = ROOT / "checkpoints" / "nano-motion" / "recipe.toml"
    first, last = trainings(path, train._parser(), [*argv, str(path)], tmp_path)
    assert (first.rendered, first.data, first.base) == (3000, [], None)
    assert (last.base, last.out, last.data) == (first.out, tmp_path / "x", [])
    path, base = ROOT / "checkpoints" / "nano-research" / "recipe.toml", ["--base", "checkpoints/nano"]
    (only,) = trainings(path, train._parser(), [*argv, str(path), *base, "--data", "m.csv"], tmp_path)
    assert (only.base, only.data, only.out) == (Path("checkpoints/nano"), [Path("m.csv")], tmp_path / "x")
    assert (only.tower_steps, only.code_bias) == (400, "0,0,0")
