"""Auxiliary tasks of training and attributes: truth of rendered clips, bodies, the adversary, the clip stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from familial.data.clips import Footage
from familial.data.events import UNKNOWN, Annotation, LabelledClip, labels_now, sample_view
from familial.model import checkpoint
from familial.model.adapter import ADAPTER
from familial.model.code_space import prototypes
from familial.model.config import nano
from familial.model.desensitizer import ASIDE, Desensitizer, code_plane
from familial.model.family import Family
from familial.model.towers.base import Seen
from familial.model.towers.motion import SnippetTower
from familial.model.vocabulary import FIRST_LABEL, Vocabulary
from familial.synth.clip import render_clip
from familial.synth.tags import TAGS
from familial.synth.truth import ATTRIBUTES, CELLS, Truth, attribute, truth_of, unknown
from familial.train import clip_stage
from familial.train.adversary import ReidentificationAdversary
from familial.train.attributes import attribute_loss, attribute_prototypes, share_loss, slot_shares, with_attributes
from familial.train.body_tasks import Bodies
from familial.train.clip_stage import clip_loss, code_label, train_on_clips
from familial.train.config import TrainConfig
from familial.train.loop import train
from wire.errors import CheckpointError

LABELS = ("normal", "fall", "fight")
WORDS = Vocabulary.of_captions(["a person falls", "nothing unusual happens"], LABELS, ATTRIBUTES).words


def _small(attributes: tuple[str, ...] = ATTRIBUTES) -> Family:
    words = Vocabulary.of_captions(["a person falls", "nothing unusual happens"], LABELS, attributes).words
    window = replace(nano(words).window, height=32, width=32)
    torch.manual_seed(0)
    return Family(
        replace(
            nano(words), window=window, attributes=attributes, channels=(8, 16), hidden=32, layers=2, heads=2, mlp=32
        )
    )


@pytest.fixture(scope="module")
def fall() -> Truth:
    return truth_of(render_clip(3, "fall", size=(60, 80), fps=8.0, seconds=8.0))


def test_truth_of_a_rendered_fall(fall: Truth) -> None:
    clip = render_clip(3, "fall", size=(60, 80), fps=8.0, seconds=8.0)
    assert len(fall.count) == len(fall.tags) == len(fall.pose) == len(fall.people) == len(clip.frames)
    start = clip.annotations[0].start_s
    before, after = clip.times_s < start - 0.5, clip.times_s > start + 2.0
    assert fall.pose[after, 0].min() < 0.5 < fall.pose[before, 0].max()  # a trunk that stood lies, or leans
    assert fall.pose[:, 1].max() > 1.0  # and went down fast
    assert fall.people.max() > 100 and fall.people[clip.count == 0].size + (fall.count == 0).sum() >= 0
    shares = (clip.silhouettes > 0).mean(axis=(1, 2))
    assert np.allclose(fall.people.mean(axis=(1, 2)) / 255, shares, atol=0.02)


def test_frames_that_are_not_there_have_unknown_truth(fall: Truth) -> None:
    picked = np.array([0, -1, 2])
    at = fall.at(picked)
    assert at.count.tolist() == [fall.count[0], -1, fall.count[2]] and at.tags[1].tolist() == [-1] * len(TAGS)
    assert at.people[1].max() == 0 and attribute(unknown(4)) == -1
    assert fall.count[-1] >= 0  # picking frames leaves the clip's own truth unchanged


def test_silhouettes_move_with_the_frames() -> None:
    truth = unknown(1)
    truth.people[0, 4:9, 20:26] = 255
    frame = np.zeros((128, 128), np.uint8)
    frame[16:36, 80:104] = 255
    rng = np.random.default_rng(0)
    for _ in range(8):
        view = sample_view(128, 128, rng)
        frames = cv2.warpAffine(frame, view, (128, 128))
        expected = cv2.resize(frames, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        moved = truth.moved(view, 128, 128).people[0]
        where = [np.argwhere(each > 100).mean(axis=0) for each in (moved, expected)]
        assert np.abs(where[0] - where[1]).max() <= 0.5


@pytest.mark.parametrize(
    ("count", "tag", "expected"),
    [(0, None, "empty"), (1, None, "one"), (2, "lying", "several"), (1, "lying", "low"), (1, "running", "running")],
)
def test_the_attribute_of_a_slot_is_what_most_of_it_shows(count: int, tag: str | None, expected: str) -> None:
    truth = unknown(8)
    truth.count[2:] = count
    truth.tags[2:] = 0
    if tag:
        truth.tags[3:, TAGS.index(tag)] = 1
    assert ATTRIBUTES[attribute(truth)] == expected
    truth.count[4:] = -1
    assert attribute(truth) == -1  # two known frames of eight


def test_the_label_of_now_is_that_of_the_second_before() -> None:
    clip, times = _clip(1), np.array([1.0, 4.1, 4.5, 4.8, 5.2, 6.0, 8.0])
    shown = np.array([True] * 6 + [False])
    assert labels_now(clip, times, shown).tolist() == [0, -1, 1, 1, -1, 0, -1]
    assert labels_now(replace(clip, annotations=None), times, shown).tolist() == [-1] * 7
    assert labels_now(replace(clip, label=0, annotations=None), times, shown).tolist() == [0] * 6 + [-1]


def test_attribute_prototypes_are_a_simplex_orthogonal_to_the_labels() -> None:
    directions = attribute_prototypes(5, 2, 4, 16).flatten(1)
    cosines = directions @ directions.T
    assert torch.allclose(cosines, torch.full((5, 5), -0.25) + 1.25 * torch.eye(5), atol=1e-5)
    assert float((directions @ prototypes(3, 4, 16, 63.0).flatten(1).T).abs().max()) < 1e-3
    assert torch.equal(code_plane(4, 16), code_plane(4, 16, 6)[..., :2])  # the labels' plane is the same at any rank


@torch.no_grad()
def test_a_code_lies_aside_of_the_labels_by_half_its_radius_at_most() -> None:
    torch.manual_seed(0)
    desensitizer = Desensitizer(8, 16, 4, 16, 64, rank=2, aside=4)
    desensitizer.outer.weight *= 4000
    x = desensitizer(torch.randn(200, 8)).flatten(1)
    plane = code_plane(4, 16, 6).flatten(0, 1)
    inside = x @ plane
    assert float(x.norm(dim=1).max()) <= 63.0 + 1e-3 and float(x.norm(dim=1).min()) > 50
    assert torch.allclose(inside @ plane.T, x, atol=1e-3)
    aside = inside[:, 2:].norm(dim=1)
    assert 0.9 * ASIDE * 63 < float(aside.max()) <= ASIDE * 63 + 1e-3


def test_attribute_losses_are_least_at_the_truth() -> None:
    directions = attribute_prototypes(5, 2, 4, 16)
    right, wrong = torch.arange(5), torch.tensor([1, 2, 3, 4, 0])
    assert float(attribute_loss(31.5 * directions, right, directions, 31.5)) < 0.2 < 2.0
    assert float(attribute_loss(31.5 * directions, wrong, directions, 31.5)) > 2.0
    shares = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    found = share_loss(torch.tensor([[3.0, 3.0, -9.0], [9.0, 0.0, 0.0]]), shares)
    assert float(found) == pytest.approx(np.log(2), abs=1e-4)  # nobody knows the second
    assert float(share_loss(torch.zeros(1, 3), torch.zeros(1, 3))) == 0.0


@torch.no_grad()
def test_only_a_family_with_attributes_returns_shares() -> None:
    family = _small()
    z, present = torch.randint(-90, 90, (2, 8, 4, 16)).float(), torch.ones(2, 8, dtype=torch.bool)
    logits, attributes = family.cloud_and_attribute_logits(z, present)
    assert torch.equal(logits, family.cloud_logits(z, present)) and attributes.shape == (2, len(ATTRIBUTES))
    assert _small(()).cloud_and_attribute_logits(z, present)[1].shape == (2, 0)
    assert family.config.words[FIRST_LABEL + 3 : FIRST_LABEL + 8] == tuple(f"<{name}>" for name in ATTRIBUTES)
    assert family.vocabulary.decode([FIRST_LABEL, FIRST_LABEL + 4, family.vocabulary.first_word]) != ""
    with pytest.raises(CheckpointError, match="attributes has 5 entries"):
        replace(family.config, rank=0)


def test_a_family_that_gains_attributes_keeps_its_labels(tmp_path: Path) -> None:
    plain = _small(()).eval()
    checkpoint.save(plain, tmp_path)
    config = with_attributes(plain.config)
    torch.manual_seed(1)
    grown = Family(replace(config, words=(*config.words, "badly"))).eval()
    left = checkpoint.adopt(grown, tmp_path)
    assert not any(name.startswith(("tower", "desensitizer", ADAPTER, "backbone")) for name in left)
    frames = torch.randint(0, 256, (3, 60, 32, 32), dtype=torch.uint8)
    plane = code_plane(4, 16).flatten(0, 1)
    with torch.no_grad():
        before, after = (family.features(frames).flatten(1) @ plane for family in (plain, grown))
        z, present = torch.randint(-90, 90, (2, 8, 4, 16)).float(), torch.ones(2, 8, dtype=torch.bool)
        torch.testing.assert_close(grown.cloud_logits(z, present), plain.cloud_logits(z, present), atol=0.02, rtol=0.02)
    assert bool((torch.cosine_similarity(before, after, dim=1) > 0.99).all())  # shorter, not turned
    assert grown.config.words[: FIRST_LABEL + 8] == WORDS[: FIRST_LABEL + 8] and "falls" in grown.config.words


def test_body_tasks_have_losses_only_where_the_truth_is_known() -> None:
    torch.manual_seed(0)
    family = _small()
    assert isinstance(family.tower, SnippetTower)
    heads = Bodies(family.tower, 3)
    frames = torch.randint(0, 256, (2, 64, 32, 32), dtype=torch.uint8)
    index = torch.arange(60)[None] + torch.tensor([[0], [4]])
    seen: list[Seen] = []
    family.sequence_features(frames, index, also=seen)
    truth = Truth(*(np.stack([getattr(unknown(64), name)] * 2) for name in Truth.__slots__))
    nothing, calm = torch.full((2, 64), -1), torch.zeros(2, 64, dtype=torch.long)
    assert heads(seen[0], nothing, truth) == {} and set(heads(seen[0], calm, truth)) == {"now"}
    tags, pose = np.zeros_like(truth.tags), np.ones_like(truth.pose)
    known = replace(truth, count=np.ones((2, 64), np.int8), tags=tags, pose=pose)
    losses = heads(seen[0], calm, known)
    assert set(losses) == {"now", "count", "tags", "pose", "outline"}
    sum(losses.values(), torch.zeros(())).backward()
    assert family.tower.stem.weight.grad is not None and float(family.tower.stem.weight.grad.abs().max()) > 0


def _linked(spread: float, weight: float) -> tuple[float, torch.Tensor]:
    """Train on twelve scenes, two events each, `spread` apart; return the share linked and the codes' last gradient."""
    torch.manual_seed(0)
    reid_adversary = ReidentificationAdversary(64, 60.0)
    scenes = spread * torch.nn.functional.normalize(torch.randn(12, 64), dim=1)
    codes = scenes.repeat_interleave(2, dim=0)[:, None, None].expand(24, 8, 1, 64).reshape(24, 8, 4, 16)
    codes = codes.clone().requires_grad_(True)
    sequence, kind, present = (
        torch.arange(24) // 2,
        torch.zeros(24, dtype=torch.long),
        torch.ones(24, 8, dtype=torch.bool),
    )
    optimiser, found = torch.optim.Adam(reid_adversary.parameters(), 1e-2), []
    for _ in range(60):
        codes.grad = None
        loss, above = reid_adversary(codes + 60.0 * torch.randn(codes.shape), present, sequence, kind, weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(above)
    assert codes.grad is not None
    return float(np.mean(found[-20:])), codes.grad


def test_the_adversary_links_scenes_that_differ_and_only_those() -> None:
    assert _linked(0.0, 1.0)[0] < 0.12 < 0.8 < _linked(400.0, 1.0)[0]


def test_the_gradient_of_the_codes_is_negated_and_scaled() -> None:
    whole, half, none = (_linked(60.0, weight)[1] for weight in (1.0, 0.5, 0.0))
    assert torch.allclose(whole, 2 * half, atol=1e-7) and float(none.abs().max()) == 0.0
    straight = _linked(60.0, -1.0)[1]
    assert torch.allclose(whole, -straight, atol=1e-7) and float(whole.abs().max()) > 0


def test_the_adversary_has_no_loss_without_partner_and_stranger() -> None:
    reid_adversary, z, present = (
        ReidentificationAdversary(64, 60.0),
        torch.randn(3, 8, 4, 16),
        torch.ones(3, 8, dtype=torch.bool),
    )
    loss, above = reid_adversary(z, present, torch.tensor([0, 0, 1]), torch.tensor([0, 0, 1]), 1.0)
    assert float(loss.detach()) == 0.0 and above == 0.0


def _clip(label: int, seconds: float = 9.0) -> LabelledClip:
    """A square that rests, or drops after 4 s."""
    times = np.arange(int(seconds * 8)) / 8
    frames = np.full((len(times), 32, 32), 90, np.uint8)
    for index, time in enumerate(times):
        top = 4 + (min(18, int(40 * max(0.0, time - 4))) if label else 0)
        frames[index, top : top + 8, 10:18] = 220
    annotations = (Annotation(1, 4.0, 4.5, True),) if label else ()
    truth = replace(unknown(len(times)), count=np.ones(len(times), np.int8), tags=np.zeros((len(times), 5), np.int8))
    caption = "a person falls" if label else "nothing unusual happens"
    return LabelledClip(Footage(frames, times, seconds), label, caption, "made", annotations, truth)


def test_the_clip_stage_trains_all_but_tower_and_desensitizer() -> None:
    family = _small().eval()
    with torch.no_grad():
        family.desensitizer.outer.weight *= 400
    before = {name: value.clone() for name, value in family.state_dict().items()}
    train_on_clips(family, [_clip(0), _clip(1)], [0.5, 0.5, 0.0], seconds=300.0, steps=3, seed=1)
    changed = {name for name, value in family.state_dict().items() if not torch.equal(value, before[name])}
    assert {f"{ADAPTER}.token.weight", "exit_head.weight", "embed.weight"} <= changed
    assert not any(name.startswith(("tower.", "desensitizer.")) for name in changed)
    train_on_clips(family, [_clip(0)], [1.0, 0.0, 0.0], seconds=0.0, steps=0, seed=1)  # no time, no step


def test_readers_alone_are_trained_on_all_clips_and_nothing_else_moves(tmp_path: Path) -> None:
    config = replace(_small().config, adapter="plane", code_gain=4.0, code_bias=(0.0, -1.0, 1.0))
    torch.manual_seed(0)
    family = Family(config)
    before = {name: value.clone() for name, value in family.state_dict().items()}
    how = TrainConfig(
        minutes=20.0, steps=2, batch_size=4, samples_per_sequence=2, stage_1=0.6, clip_stage=1.0, bodies=0.3,
        adversary=0.3, lr=1e-2, seed=1, bf16=False, warm_start=True, decision_threshold=0.5,
    )  # fmt: skip
    train(family, [_clip(0), _clip(1)], [], how, tmp_path / "out", resume=False)
    after = checkpoint.load(tmp_path / "out").state_dict()
    changed = {name for name, value in before.items() if value.is_floating_point() and not _alike(value, after[name])}
    assert f"{ADAPTER}.summary.weight" in changed and "exit_head.weight" in changed
    assert not any(name.startswith(("tower.", "desensitizer.")) for name in changed)


def _alike(value: torch.Tensor, stored: torch.Tensor) -> bool:
    """Equal to what half precision, in which they are stored, leaves."""
    return torch.allclose(value, stored, atol=1e-4, rtol=2e-3)


def test_clean_codes_teach_what_an_event_is() -> None:
    corners = prototypes(3, 4, 16, 1.0)
    normal, fall, fight = 60.0 * corners
    assert code_label(torch.stack([normal] * 6 + [fall] * 2), corners, 1) == 1
    assert code_label(torch.stack([normal] * 5 + [fall, fight, fight]), corners, 1) == 2
    assert code_label(torch.stack([normal] * 7 + [fall]), corners, 1) == UNKNOWN, "one code may be a mistake"
    assert code_label(torch.stack([normal] * 8), corners, 1) == 0, "the fall of this clip is elsewhere"
    assert code_label(torch.stack([fall] * 8), corners, 0) == 0, "the clip is normal, whatever the tower believes"


def test_what_clean_codes_say_is_in_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    family = _small().eval()
    normal, fall, _ = 60.0 * prototypes(3, 4, 16, 1.0)
    batch = [(_clip(1, seconds=9.0), torch.stack([normal] * 4 + [fall] * 5))]

    def loss() -> float:
        torch.manual_seed(0)
        return float(clip_loss(family, batch, np.random.default_rng(0)).detach())

    whole = loss()
    monkeypatch.setattr(clip_stage, "code_label", lambda *_: UNKNOWN)
    assert whole > loss() + 0.1, "the cross-entropies of the events' labels, of both exits"


def test_clips_without_known_event_labels_have_a_loss() -> None:
    family, hidden = _small().eval(), replace(_clip(1, seconds=21.0), annotations=None)
    normal, fall, _ = 60.0 * prototypes(3, 4, 16, 1.0)
    codes = torch.stack([normal] * 4 + [fall] + [normal] * 4)  # one code of a fall: nobody knows, in both events
    assert [code_label(codes[e : e + 8], prototypes(3, 4, 16, 1.0), 1) for e in range(2)] == [UNKNOWN, UNKNOWN]
    batch = [(hidden, codes)]
    assert bool(torch.isfinite(clip_loss(family, batch, np.random.default_rng(0))))


def test_shares_count_slots_with_known_truth() -> None:
    clip = _clip(0)
    assert slot_shares(clip, np.arange(8), 1.0, len(ATTRIBUTES))[ATTRIBUTES.index("one")] == 1.0
    assert slot_shares(replace(clip, truth=None), np.arange(8), 1.0, len(ATTRIBUTES)).sum() == 0.0
    assert slot_shares(clip, np.arange(20, 28), 1.0, len(ATTRIBUTES)).sum() == 0.0  # after the clip
