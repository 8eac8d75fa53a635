"""A fused family: begun from one with a motion tower, trained beside it, and read as any other family."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from familial.data.clips import Footage
from familial.data.events import Annotation, LabelledClip
from familial.evaluate.clip_inference import clip_codes
from familial.model.checkpoint import adopt, load, save
from familial.model.code_space import prototypes
from familial.model.desensitizer import SOMEBODY
from familial.model.family import Family
from familial.model.towers.fused import FusedTower
from familial.train.__main__ import run
from familial.train.config import TrainConfig
from familial.train.labels import with_labels
from familial.train.loop import train
from familial.train.stages import TrainingHeads
from tests.support.family_factory import make_family, small_config
from wire.errors import DataError, VeilsightError
from wire.people.packed import SCORE, UNIT, VALUES, nobody
from wire.people.tracks import TRACKS

FUSED = dataclasses.replace(small_config(), tower="fused", people_width=16)
FROZEN = TrainConfig(
    minutes=5.0, steps=4, batch_size=4, samples_per_sequence=2, stage_1=0.5, clip_stage=0.1, bodies=0.3,
    adversary=0.3, lr=2e-3, seed=1, bf16=False, warm_start=True, freeze_motion=True,
)  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save(make_family(), tmp_path / "base")
    return tmp_path / "base"


def footage_of(seconds: float, rng: np.random.Generator, frames: bool = True) -> Footage:
    """Scattered frames, and one person who sways."""
    times = np.arange(round(8 * seconds)) / 8
    spec = FUSED.window
    grey = rng.integers(1, 255, (len(times) if frames else 0, spec.height, spec.width), dtype=np.uint8)
    people = nobody(len(times))
    people[:, 0, :51] = rng.integers(UNIT // 3, UNIT // 2, (len(times), 51))
    people[:, 0, 51:55] = UNIT // 4, UNIT // 4, UNIT // 2, UNIT // 2
    people[:, 0, SCORE] = UNIT // 2
    return Footage(grey, times, seconds, people, times)


def clips_of(count: int) -> list[LabelledClip]:
    rng = np.random.default_rng(1)
    fall = (Annotation(1, 3.0, 4.0, True),)
    return [
        LabelledClip(footage_of(10.0, rng, index % 3 > 0), index % 2, "a person falls", "x", fall if index % 2 else ())
        for index in range(count)
    ]


def test_a_fused_family_begins_where_its_base_is(base: Path) -> None:
    """The motion tower's weights and those that read codes are the base's; people and the code's map are new."""
    torch.manual_seed(1)
    family, motion = Family(FUSED), load(base)
    left = adopt(family, base)
    assert all(name.startswith(("tower.people.", "desensitizer.")) for name in left)
    for name, value in motion.tower.state_dict().items():
        assert torch.equal(family.tower.state_dict()[f"motion.{name}"], value)
    assert family.desensitizer.inner.in_features == family.tower.features > motion.tower.features


def test_a_frozen_motion_tower_keeps_its_weights_and_its_means(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    family = Family(FUSED)
    adopt(family, base)
    before = {name: value.clone() for name, value in family.state_dict().items()}
    made = train(family, clips_of(6), clips_of(3), FROZEN, tmp_path / "out", resume=False)
    after = load(tmp_path / "out").state_dict()
    half = {name: value.half().float() for name, value in before.items() if value.is_floating_point()}
    moved = {name for name in half if not torch.allclose(after[name], half[name], atol=1e-6)}
    assert not [name for name in moved if name.startswith("tower.motion.")]
    assert [name for name in moved if name.startswith("tower.people.")]
    assert [name for name in moved if name.startswith("desensitizer.")]
    assert made.family.config.tower == "fused"


@torch.no_grad()
def test_frozen_and_black_sequences_give_what_the_tower_gives(base: Path) -> None:
    family = Family(FUSED)
    adopt(family, base)
    tower = family.tower
    assert isinstance(tower, FusedTower)
    tower.eval()
    window = FUSED.window
    frames = torch.randint(1, 255, (3, window.frames + 2, window.height, window.width), dtype=torch.uint8)
    frames[1] = 0
    index = torch.arange(3)[:, None] + torch.arange(window.frames)
    people = torch.randint(0, UNIT, (3, 3, window.frames, TRACKS, VALUES), dtype=torch.int32)
    expected = tower.sequence(frames, index, people)
    tower.freeze_motion()
    torch.testing.assert_close(tower.sequence(frames, index, people), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_same_people_give_the_same_code_whichever_road(base: Path) -> None:
    """A clip's codes are those of its windows one by one; people alone are a clip too."""
    family = Family(FUSED)
    adopt(family, base)
    save(family.eval(), base.parent / "fused")
    loaded = load(base.parent / "fused")
    for frames in (True, False):
        codes = clip_codes(loaded, footage_of(9.0, np.random.default_rng(2), frames))
        assert codes.shape[1:] == (FUSED.tokens, FUSED.width) and bool(torch.isfinite(codes).all())


def _late(gain: float = 4.0) -> Family:
    """A family whose codes say the sum of both towers' logits, none of which says anything yet."""
    family = make_family(sees_people=True)
    family.config = dataclasses.replace(family.config, code_gain=gain)
    fusion, sharpen = family.desensitizer.fusion, family.desensitizer.sharpen
    assert fusion is not None and sharpen is not None
    for head in (fusion.motion, fusion.people):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    sharpen.gain = gain
    sharpen.bias.zero_()
    return family


@torch.no_grad()
def test_a_code_lies_at_the_prototype_that_the_sum_of_both_towers_names() -> None:
    family = _late()
    config, fusion = family.config, family.desensitizer.fusion
    assert fusion is not None
    places = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
    features = torch.randn(6, family.tower.features)
    features[:, SOMEBODY] = 1.0
    for motion, people, label in (((0, 0, 4), (0, 0, 4), 2), ((0, 9, 0), (0, 0, 0), 1), ((0, 9, 0), (9, 0, 0), 0)):
        fusion.motion.bias.copy_(torch.tensor(motion, dtype=torch.float32))
        fusion.people.bias.copy_(torch.tensor(people, dtype=torch.float32))
        x = family.desensitizer(features)
        along = (x.flatten(1) @ places.flatten(1).T) / places[0].norm() ** 2
        assert (along.argmax(dim=1) == label).all() and (along[:, label] > 0.8).all()
        assert (x.flatten(1).norm(dim=1) < config.clip_norm - 0.99).all()


@torch.no_grad()
def test_an_empty_room_is_normal_unless_motion_says_loudly_that_it_is_not() -> None:
    """Whatever the people's head says where it sees nobody: half of what it learned from shows a risk."""
    family = _late()
    fusion = family.desensitizer.fusion
    assert fusion is not None
    fusion.people.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
    features = torch.zeros(1, family.tower.features)
    said = []
    for motion in (1.0, 6.0):
        fusion.motion.bias.copy_(torch.tensor([0.0, 0.0, motion]))
        said.append(int(fusion(features).argmax()))
    assert said == [0, 2]
    features[:, SOMEBODY] = 0.2
    fusion.motion.bias.zero_()
    assert int(fusion(features).argmax()) == 2, "somebody is seen: the head is asked"


@torch.no_grad()
def test_attributes_lean_as_far_as_nothing_happens() -> None:
    family = _late()
    fusion, plane = family.desensitizer.fusion, family.desensitizer.plane
    assert fusion is not None and plane is not None
    features = torch.randn(4, family.tower.features)
    lean = []
    for logit in (8.0, -8.0):
        fusion.motion.bias.copy_(torch.tensor([logit, 0.0, 0.0]))
        features[:, SOMEBODY] = 1.0
        lean.append((family.desensitizer(features).flatten(1) @ plane.T)[:, family.config.rank :].norm(dim=1))
    assert (lean[0] > 0.1 * family.config.clip_norm).all() and (lean[1] < 0.01 * family.config.clip_norm).all()


def test_a_label_more_leaves_the_heads_of_a_late_fusion_as_they_are(tmp_path: Path) -> None:
    known = make_family(sees_people=True)
    save(known, tmp_path / "known")
    family = Family(with_labels(known.config, (*known.config.labels, "smoking")))
    assert not adopt(family, tmp_path / "known")
    for name, value in known.state_dict().items():
        if name.startswith("desensitizer.fusion."):
            assert torch.allclose(family.state_dict()[name][: len(value)], value, atol=1e-3), name


def test_the_heads_of_a_late_fusion_learn_and_the_codes_are_taught_nothing_else(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    family = Family(make_family(sees_people=True).config)
    adopt(family, base)
    before = {name: value.clone() for name, value in family.state_dict().items()}
    made = train(family, clips_of(6), clips_of(3), FROZEN, tmp_path / "out", resume=False)
    after = load(tmp_path / "out").state_dict()
    for name in ("desensitizer.fusion.motion.weight", "desensitizer.fusion.people.weight", "tower.people.first.weight"):
        assert not torch.allclose(after[name], before[name].half().float(), atol=1e-6), name
    assert made.family.config.late_fusion == (0.7, 1.0, 3.0)


def test_of_a_late_fusion_the_towers_are_taught_the_labels_and_the_code_is_not() -> None:
    """A loss on codes that saturate would push both heads as far as they go."""
    family = make_family(sees_people=True).train()
    config, heads = family.config, TrainingHeads(family)
    x = family.desensitizer(torch.rand(4, family.tower.features)).reshape(2, 2, config.tokens, config.width)
    batch: Any = SimpleNamespace(labels=np.array([[0, 1], [2, -1]]), weak=np.array([-1, 1]))
    losses = heads.evidence_losses(dict.fromkeys(("clean", "weak", "size"), x.sum()), batch, torch.ones(3))
    assert set(losses) == {"size", "motion", "people"}
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    fusion = family.desensitizer.fusion
    assert fusion is not None and fusion.motion.weight.grad is not None and fusion.people.weight.grad is not None


def test_people_are_never_left_out_by_mistake() -> None:
    family = Family(FUSED).eval()
    bare = dataclasses.replace(footage_of(3.0, np.random.default_rng(0)), people=None, people_times=None)
    with pytest.raises(DataError, match="--perceive"):
        clip_codes(family, bare)
    with pytest.raises(ValueError, match="give zeros for nobody"):
        family.tower.sequence(torch.zeros(1, 60, 32, 32, dtype=torch.uint8), torch.arange(60)[None])


def test_options_for_a_tower_that_is_not_there_are_refused(base: Path, tmp_path: Path) -> None:
    for options, told in (
        (["--people", "5", "--base", str(base)], "sees no people; give --tower fused"),
        (["--encounters", "5", "--base", str(base)], "--encounters 5: the tower 'snippets' sees no people"),
        (["--aided", "5", "--base", str(base)], "--aided 5: the tower 'snippets' sees no people"),
        (["--everyday", "5", "--base", str(base)], "--everyday 5: the tower 'snippets' sees no people"),
        (["--rendered", "5", "--freeze-motion"], "--freeze-motion: only with --base and a fused tower"),
        (["--rendered", "5", "--tower", "radar"], "tower is 'radar'; known are"),
        (["--rendered", "5", "--late-fusion", "0.7,1,x"], "--late-fusion 0.7,1,x: numbers with commas"),
        (["--rendered", "5", "--late-fusion", "0.7,1,3"], "it needs a fused tower, a code_gain and attributes"),
    ):
        with pytest.raises(VeilsightError, match=told):
            run([*options, "--out", str(tmp_path / "out")])
