"""The road of somebody with clips of their own: the time is kept, nothing is calibrated on what was trained on, labels
grow, memory is asked for, and a card is written."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from familial.data import clips as clips_module
from familial.data import sources as sources_module
from familial.data.clips import Footage
from familial.data.events import LabelledClip
from familial.model import checkpoint, resources
from familial.model.card import Card, write_card
from familial.model.code_space import MOST_LABELS, prototypes
from familial.model.config import FamilyConfig, nano
from familial.model.family import Family
from familial.model.vocabulary import FIRST_LABEL, Vocabulary
from familial.synth.tags import TAGS
from familial.synth.truth import unknown
from familial.train import __main__ as train
from familial.train import board, loop, material, progress, validation
from familial.train.budget import Budget, Pace, minutes_text, reserve
from familial.train.config import TrainConfig
from familial.train.labels import tagged, with_labels
from familial.train.memory import require_weights_memory, training_bytes
from familial.train.sampling import BatchSource
from tests.support.clip_factory import LABELS, cache_clips_in, write_clips
from wire.errors import CheckpointError, ConfigError

MORE = (*LABELS, "smoking")


class FastClock:
    """Half a second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        self.time += 0.5
        return self.time


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "road" / "cache"
    for module in (clips_module, sources_module, progress):
        monkeypatch.setattr(module, "CACHE", folder)
    cache_clips_in(folder, monkeypatch)


def _config(labels: tuple[str, ...] = LABELS) -> FamilyConfig:
    return replace(nano(Vocabulary.of_captions(["a person falls"], labels).words), labels=labels)


def test_a_training_keeps_its_time_sees_every_clip_and_calibrates_on_others(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets, read, trained, held = [], list[int](), list[LabelledClip](), list[LabelledClip]()

    def budget(minutes: float) -> Budget:
        budgets.append(Budget(minutes, FastClock()))
        return budgets[-1]

    class Watched(validation.ValidationSet):
        def __init__(self, family: Family, clips: Sequence[LabelledClip], config: TrainConfig) -> None:
            held.extend(clips)
            super().__init__(family, clips, config)

    class Source(BatchSource):
        def __init__(self, config: FamilyConfig, clips: Sequence[LabelledClip], train_config: TrainConfig) -> None:
            trained.extend(clips)
            super().__init__(config, clips, train_config)

    def sample(self: BatchSource, sequences: int, *args: object, **named: object) -> object:
        read.append(sequences)
        return real(self, sequences, *args, **named)  # type: ignore[arg-type]

    real = BatchSource.sample
    monkeypatch.setattr(BatchSource, "sample", sample)
    monkeypatch.setattr(train, "Budget", budget)
    monkeypatch.setattr(loop, "ValidationSet", Watched)
    monkeypatch.setattr(loop, "BatchSource", Source)
    monkeypatch.setattr(progress.Curve, "due", lambda _: True)
    args = ["--threads", "1", "--batch-size", "3", "--samples-per-sequence", "3", "--minutes", "1"]
    assert train.main(["--data", str(manifest), "--out", str(tmp_path / "mine"), *args]) == 0
    said = capsys.readouterr().out
    assert budgets[0].spent <= 62.0, said  # 60 s and the looks at the clock after the last stage
    assert "budget: 60 s" in said and " left\n" in said and "on 6 whole clips" in said
    assert "time for" not in said.split("decision threshold")[0]
    assert len(trained) == 6 and len(held) == 3 and {clip.label for clip in held} == {0, 1, 2}
    assert not {id(clip) for clip in trained} & {id(clip) for clip in held}
    assert max(read) <= 6  # sequences whose frames are in memory at once: two for each held-out clip
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.model_name == "nano" and {each.metric_type for each in card.data.eval_results} == {"accuracy"}


def test_a_budget_plans_its_end_within_what_is_left_and_refuses_slow_preparation() -> None:
    pace = Pace(slot_s=0.1, event_s=0.01)
    kept = reserve(600.0, 0.12, 300, (100, 1000), pace, 580.0)
    assert kept.clip_stage >= 2 * 300 * 0.1 and kept.calibration >= 100 * 0.1 + 1000 * 0.01
    short = reserve(60.0, 0.12, 3000, (1000, 10000), pace, 40.0)
    assert short.clip_stage + short.calibration <= 20.0
    assert reserve(60.0, 0.0, 3000, (0, 0), pace, 40.0).clip_stage == 0.0
    budget = Budget(1.0, FastClock())
    budget.was_spent(20.0)
    assert budget.left < 40.0
    with pytest.raises(ConfigError, match="--minutes 1: rendering takes about .* min of it; give --minutes"):
        budget.refuse_slow(3, 300, "rendering", "a smaller --rendered")
    budget.refuse_slow(299, 300, "rendering", "a smaller --rendered")
    with pytest.raises(ConfigError, match="--minutes 0: the wall clock"):
        Budget(0.0)
    assert [minutes_text(each) for each in (40, 200, 9000)] == ["40 s", "3.3 min", "2.5 h"]


def test_who_renders_is_ended_where_the_budget_refuses() -> None:
    ended = list[bool]()
    nothing = Footage(np.zeros((0, 8, 8), np.uint8), np.zeros(0), 1.0)

    def rendered() -> Generator[LabelledClip]:
        try:
            for _ in range(300):
                yield LabelledClip(nothing, 0, "", "rendered", None)
        finally:
            ended.append(True)

    with pytest.raises(ConfigError, match="rendering 300 clips takes") as refused:
        material._with_progress(rendered(), 300, Budget(1.0, FastClock()))
    assert ended == [True], refused  # which holds the frames, and with them the generator


def test_a_label_that_the_base_does_not_know_is_added_and_the_rest_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = Family(_config())
    checkpoint.save(base, tmp_path / "base")
    family = Family(with_labels(base.config, MORE))
    left = checkpoint.adopt(family, tmp_path / "base")
    assert not left and family.config.labels == MORE and family.config.words[FIRST_LABEL + 3] == "<smoking>"
    assert torch.allclose(family.exit_head.weight[:3], base.exit_head.weight, atol=1e-3)
    for word in base.config.words:
        mine, theirs = family.config.words.index(word), base.config.words.index(word)
        assert torch.allclose(family.embed.weight[mine], base.embed.weight[theirs], atol=1e-3), word
    checkpoint.save(family, tmp_path / "grown")
    assert checkpoint.load(tmp_path / "grown").config == family.config


def test_prototypes_of_more_labels_leave_the_others_where_they_are() -> None:
    few = prototypes(3, 4, 16, 63.0).flatten(1)
    for count in range(4, MOST_LABELS + 1):
        made = prototypes(count, 4, 16, 63.0).flatten(1)
        assert torch.allclose(made[:3], few) and torch.allclose(made.norm(dim=1), torch.full((count,), 63.0))
        apart = torch.cdist(made, made) + 1e9 * torch.eye(count)
        assert float(apart.min()) > 0.6 * 63.0


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (("normal", "fight", "fall", "smoking"), "begin with normal,fall,fight, in this order"),
        (("normal", "fall"), "begin with normal,fall,fight"),
        ((*LABELS, "Smoking!"), "'Smoking!' is no name"),
        ((*LABELS, "uncertain"), "'uncertain' is no name"),
        ((*MORE, "smoking"), "there twice"),
        ((*LABELS, "a", "b", "c", "d"), "7 labels"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        with_labels(_config(), labels)


def test_a_rendered_clip_takes_a_label_that_the_renderer_has_as_a_tag() -> None:
    times = np.arange(40) / 10
    truth = replace(unknown(40), tags=np.zeros((40, len(TAGS)), np.int8))
    clip = LabelledClip(Footage(np.zeros((40, 8, 8), np.uint8), times, 4.0), 0, "x", "rendered", (), truth)
    assert tagged(clip, MORE) is clip
    truth.tags[10:30, TAGS.index("smoking")] = 1
    found = tagged(clip, MORE)
    assert found.label == 3 and found.caption == "smoking" and found.annotations is not None
    assert (found.annotations[0].start, found.annotations[0].end) == (1.0, 2.9)
    assert tagged(clip, LABELS) is clip and tagged(replace(clip, label=1), MORE).label == 1


def test_memory_is_asked_for_before_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, manifest: Path, tmp_path: Path
) -> None:
    config = _config()
    clips = sources_module.manifest_clips(clips_module.read_manifests([manifest], LABELS), LABELS, config.window)
    given = vars(train._parser().parse_args(["--out", "x"]))
    small = TrainConfig(
        **{name: given[name] for name in TrainConfig.__slots__ if name != "warm_start"}, warm_start=False
    )
    family = Family(config)
    state = torch.random.get_rng_state()
    before = {name: value.clone() for name, value in family.state_dict().items()}
    needs = [training_bytes(family, BatchSource(config, clips, replace(small, batch_size=n))) for n in (4, 8, 16)]
    weights = 20 * sum(value.numel() for value in family.parameters())
    assert needs[2] - weights == pytest.approx(2 * (needs[1] - weights), rel=0.05)
    assert 3e8 < needs[2] < 3e9  # 16 sequences took 0.75 GB where it was measured
    assert torch.equal(state, torch.random.get_rng_state()) and family.training
    assert all(torch.equal(value, before[name]) for name, value in family.state_dict().items())
    monkeypatch.setattr(resources, "available_memory", lambda: needs[1])
    with pytest.raises(CheckpointError, match="--batch-size 16 .* GB are available; lower --batch-size"):
        train.run(["--data", str(manifest), "--out", str(tmp_path / "x"), "--threads", "1"])
    assert not (tmp_path / "x").exists()
    with pytest.raises(CheckpointError, match="GB of memory"):
        require_weights_memory(needs[1], "training")


def test_tensorboard_gets_the_curve_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list[tuple[str, float, int]]()

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            rows.append((name, value, step))

        def flush(self) -> None: ...

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    board.Board(tmp_path / "tensorboard", fresh=True).add({"step": 1, "clean": 0.5})
    assert "pip install 'veilsight[tensorboard]'" in capsys.readouterr().out and not rows
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    board.Board(tmp_path / "tensorboard", fresh=True).add({"step": 3, "done": 0.1, "clean": 0.5, "val_edge": 0.7})
    assert rows == [("training/clean", 0.5, 3), ("validation/edge", 0.7, 3)]


SCORES = {"val_edge_full": 0.71, "val_cloud_full": 0.73, "val_edge": 0.6}


def test_cards_are_valid_on_the_hub_and_one_written_by_hand_stays(tmp_path: Path) -> None:
    card = Card("familial.train", _config(), {"rendered": 300, "My Clips (home)": 20}, 6, SCORES)
    for _ in range(2):  # ours may be replaced
        assert write_card(tmp_path, card).startswith("model card: ")
    data = ModelCard.load(tmp_path / "README.md").data
    found = data.to_dict()
    assert found["pipeline_tag"] == "video-classification" and found["datasets"] == ["my-clips-home", "rendered"]
    assert (found["license"], found["license_link"]) == ("other", "README.md") and found["license_name"]
    assert [each.metric_value for each in data.eval_results] == [0.71, 0.73] and data.model_name == "nano"
    (tmp_path / "README.md").write_text("# mine\n")
    assert "is left as it is" in write_card(tmp_path, card)
    assert (tmp_path / "README.md").read_text() == "# mine\n"


def test_licence_and_base_of_an_adopted_folder_are_those_it_states(tmp_path: Path) -> None:
    base, out = tmp_path / "Qwen3-VL-2B-Instruct", tmp_path / "out"
    base.mkdir()
    out.mkdir()
    card = Card("familial.model.adopt", _config(), base=base)
    write_card(out, card)
    found = ModelCard.load(out / "README.md").data.to_dict()
    assert found["license"] == "other" and "model-index" not in found and "datasets" not in found
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")
    write_card(out, card)
    found = ModelCard.load(out / "README.md").data.to_dict()
    assert found["license"] == "apache-2.0" and found["license_link"].startswith("https://www.apache.org/")
    assert found["base_model"] == "Qwen/Qwen3-VL-2B-Instruct"
