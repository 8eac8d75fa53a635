"""The tower stage: whole clips of which only the label is known teach the people tower and both heads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from familial.data.clips import Footage
from familial.data.events import Annotation, LabelledClip
from familial.evaluate.clip_inference import clip_codes
from familial.model.checkpoint import load, save
from familial.model.code_space import prototypes
from familial.model.family import Family
from familial.train import tower_stage
from familial.train.__main__ import run
from familial.train.config import TrainConfig
from familial.train.environments import SetWeights
from familial.train.loop import train
from familial.train.tower_stage import train_towers
from tests.support.family_factory import make_family, small_config
from wire.errors import ConfigError
from wire.people.packed import SCORE, UNIT, nobody

TUNED = TrainConfig(
    minutes=5.0, steps=0, batch_size=4, samples_per_sequence=2, stage_1=1.0, clip_stage=0.0, bodies=0.3,
    adversary=0.3, lr=2e-3, seed=1, bf16=False, warm_start=True, tower_steps=6,
)  # fmt: skip
SHARES = (0.42, 0.33, 0.25)


@pytest.fixture(autouse=True)
def few_clips_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower_stage, "_CLIPS", {False: 8, True: 2})


def clip(label: int, seed: int, seconds: float = 8.0, known: bool = False) -> LabelledClip:
    """One person who stands; one who falls (label 1) lies from a random moment on."""
    rng, times = np.random.default_rng(seed), np.arange(round(8 * seconds)) / 8
    fell = int(rng.integers(16, len(times) - 8))
    people, spec = nobody(len(times)), small_config().window
    heights = np.full((len(times), 17), 0.6) - np.linspace(0.0, 0.5, 17)
    if label:
        heights[fell:] = 0.08
    people[:, 0, 0:51:3] = (UNIT * (0.4 + 0.05 * rng.random((len(times), 17)))).astype(int)
    people[:, 0, 1:51:3] = (UNIT * (0.7 - heights)).astype(int)
    people[:, 0, 2:51:3] = UNIT // 2
    people[:, 0, 51:55] = UNIT // 4, UNIT // 4, UNIT // 2, UNIT // 2
    people[:, 0, SCORE] = UNIT // 2
    grey = rng.integers(1, 255, (len(times), spec.height, spec.width), dtype=np.uint8)
    notes: Any = (Annotation(1, fell / 8, fell / 8 + 1.0, True),) if label else ()
    footage = Footage(grey, times, seconds, people, times)
    return LabelledClip(footage, label, "a person falls and lies", "real", notes if known else None)


def family_from(seed: int = 3) -> Family:
    family = make_family(sees_people=True)
    torch.manual_seed(seed)
    return family


def tuned(family: Family, clips: list[LabelledClip], steps: int = 50) -> None:
    train_towers(family, clips, SHARES, steps, 4e-3, seed=1, seconds=1e9)


@torch.no_grad()
def falls_said(family: Family, clips: list[LabelledClip]) -> list[bool]:
    """Whether any code of a clip lies nearest to the prototype of "fall"."""
    config = family.config
    places = prototypes(len(config.labels), config.tokens, config.width, 1.0).flatten(1)
    return [bool(((clip_codes(family, each.footage).flatten(1) @ places.T).argmax(dim=1) == 1).any()) for each in clips]


@pytest.mark.slow
def test_a_fall_somewhere_in_a_clip_is_learned_from_the_label_of_the_clip() -> None:
    family = family_from()
    tuned(family, [clip(seed % 2, seed) for seed in range(8)])
    unseen = [clip(seed % 2, seed) for seed in range(100, 108)]
    right = [said == bool(each.label) for said, each in zip(falls_said(family, unseen), unseen, strict=True)]
    assert sum(right) >= 7


def test_motion_and_readers_keep_their_weights_and_people_and_heads_do_not() -> None:
    family = family_from()
    before = {name: value.clone() for name, value in family.state_dict().items()}
    tuned(family, [clip(seed % 2, seed, known=seed > 3) for seed in range(6)], steps=3)
    moved = {name for name, value in family.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name.startswith(("tower.people.", "desensitizer.fusion.")) for name in moved)
    for name in ("tower.people.first.weight", "desensitizer.fusion.motion.weight", "desensitizer.fusion.people.bias"):
        assert name in moved, name
    assert not family.training


def test_the_same_seed_gives_the_same_weights() -> None:
    made = []
    for _ in range(2):
        family = family_from()
        tuned(family, [clip(seed % 2, seed) for seed in range(4)], steps=3)
        made.append(family.state_dict()["tower.people.first.weight"])
    assert torch.equal(*made)


def test_clips_of_people_alone_and_of_another_length_go_in() -> None:
    family = family_from()
    bare = clip(1, 1, known=True)
    none = np.zeros((0, *bare.footage.frames.shape[1:]), np.uint8)
    alone = dataclasses.replace(bare, footage=dataclasses.replace(bare.footage, frames=none))
    tuned(family, [alone, clip(0, 2, seconds=5.0), clip(1, 3, seconds=30.0)], steps=2)
    assert all(bool(torch.isfinite(value).all()) for value in family.parameters())


def test_no_time_means_no_step() -> None:
    family = family_from()
    before = family.state_dict()["tower.people.first.weight"].clone()
    train_towers(family, [clip(0, 1), clip(1, 2)], SHARES, 50, 1e-3, seed=1, seconds=1e-9)
    assert torch.equal(family.state_dict()["tower.people.first.weight"], before)


def test_the_command_writes_a_checkpoint_of_what_the_stage_made(tmp_path: Path) -> None:
    family = family_from()
    before = {name: value.clone() for name, value in family.state_dict().items()}
    clips = [clip(seed % 2, seed, known=seed > 3) for seed in range(6)]
    train(family, clips, clips[:2], TUNED, tmp_path / "out", resume=False)
    after = load(tmp_path / "out").state_dict()
    weights = {name for name, _ in family.named_parameters()}
    moved = {name for name in weights if not torch.allclose(after[name], before[name].half().float(), atol=1e-6)}
    assert moved and all(name.startswith(("tower.people.", "desensitizer.fusion.")) for name in moved)


def test_a_family_without_two_towers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tower-steps: only for a fused tower with a late fusion"):
        tuned(make_family(), [clip(0, 1)])
    save(make_family(), tmp_path / "base")
    for options, told in (
        (["--tower-steps", "5"], "--tower-steps 5: .* from a --base"),
        (["--tower-steps", "-1", "--base", str(tmp_path / "base")], "--tower-steps -1"),
        (["--tower-steps", "5", "--clip-stage", "1", "--base", str(tmp_path / "base")], "--clip-stage below 1"),
        (["--set-variance", "1"], "--set-variance 1: .* goes with --tower-steps"),
        (["--interpolate", "0.5"], "--interpolate 0.5: .* from a --base"),
        (["--interpolate", "0.5", "--clip-stage", "1", "--base", str(tmp_path / "base")], "--clip-stage below 1"),
        (["--tower-steps", "5", "--interpolate", "0", "--base", str(tmp_path / "base")], "--interpolate 0: above 0"),
        (["--tower-steps", "5", "--set-variance", "nan", "--base", str(tmp_path / "base")], "--set-variance nan: 0 or"),
        (
            ["--tower-steps", "5", "--interpolate", "nan", "--base", str(tmp_path / "base")],
            "--interpolate nan: above 0",
        ),
        (["--tower-steps", "5", "--set-variance", "-1", "--base", str(tmp_path / "base")], "--set-variance -1: 0 or"),
    ):
        with pytest.raises(ConfigError, match=told):
            run([*options, "--rendered", "2", "--out", str(tmp_path / "out")])


def test_a_set_whose_loss_lies_above_the_others_weighs_more() -> None:
    weights = SetWeights(2.0)
    assert weights.of(["a", "b"]).tolist() == [1.0, 1.0]
    weights.see(["a", "b", "c"], torch.tensor([0.9, 0.3, 0.3]))
    assert weights.of(["a", "b", "new"]).tolist() == pytest.approx([1.0 + 4.0 * 0.4, 1.0 - 4.0 * 0.2, 1.0])
    weights.see(["b"], torch.tensor([10.3]))
    assert weights.losses["b"] == pytest.approx(1.3)
    assert weights.of(["c"]).tolist() == [0.0]


def test_the_variance_of_the_sets_losses_changes_what_is_learned_and_zero_does_not() -> None:
    clips = [dataclasses.replace(clip(seed % 2, seed), set=f"set {seed % 3}") for seed in range(6)]
    made = []
    for variance in (0.0, 0.0, 3.0):
        family = family_from()
        train_towers(family, clips, SHARES, 4, 4e-3, seed=1, seconds=1e9, set_variance=variance)
        made.append(family.state_dict()["tower.people.first.weight"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("tower_steps", [3, 0], ids=["the tower stage", "stages 1 and 2"])
def test_interpolated_weights_lie_between_those_of_the_base_and_the_trained_ones(
    tower_steps: int, tmp_path: Path
) -> None:
    clips, base, made = [clip(seed % 2, seed, known=True) for seed in range(4)], family_from().state_dict(), []
    how = dataclasses.replace(TUNED, minutes=1e6, steps=3, lr=0.02, tower_steps=tower_steps, freeze_motion=True)
    for share in (1.0, 0.5):
        family = family_from()
        gave = train(family, clips, [], dataclasses.replace(how, interpolate=share), tmp_path / "out", resume=False)
        made.append(gave.family.state_dict())
    for name in ("tower.people.first.weight", "tower.people.norms.0.running_mean", "desensitizer.fusion.people.bias"):
        assert not torch.allclose(made[0][name], base[name], atol=1e-5)
        assert torch.allclose(made[1][name], (base[name] + made[0][name]) / 2, atol=1e-6)
