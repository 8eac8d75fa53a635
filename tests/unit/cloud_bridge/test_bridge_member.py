"""The cloud member: only the manifest's checkpoint is loaded, and many events are read in one forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cloud_bridge.config import ModelConfig
from cloud_bridge.inference.choice import open_member
from cloud_bridge.inference.member import FamilyMember, event_tensors
from cloud_bridge.inference.remote import RemoteMember
from cloud_bridge.inference.vllm import VllmDialect
from cloud_bridge.ingest.events import Event
from familial.evaluate.sequential import AlertCalibration, OperatingPoint, ScoreLaw
from familial.model.base_words import open_words, words_hash, write_words
from familial.model.causal_lm import served_name
from familial.model.checkpoint import checkpoint_hash, load, save
from familial.model.config import Quantization, nano
from familial.model.decoders.free_text import FreeText
from familial.model.family import Family
from familial.quantize.__main__ import quantised_member, write_quantised
from tests.support.bridge_factory import make_manifest
from tests.support.qwen_factory import a_tokenizer
from wire.errors import CheckpointError, ConfigError

WORDS = ("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "a", "falls", "person", "walks")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained nano."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("checkpoint")
    save(Family(nano(WORDS)), folder)
    return folder


def events(count: int) -> list[Event]:
    rng = np.random.default_rng(3)
    return [
        Event("lab/door", 1, k, k + 7, rng.integers(-200, 200, (8, 4, 16)).astype(np.int32), np.arange(8) >= k % 8)
        for k in range(count)
    ]


def test_a_reading_is_a_distribution_over_the_labels_and_words_are_of_the_vocabulary(checkpoint: Path) -> None:
    member = FamilyMember.load(checkpoint, make_manifest(checkpoint=checkpoint_hash(checkpoint)))
    readings = member.read(events(3))
    for reading in readings:
        assert list(reading.probabilities) == ["normal", "fall", "fight"]
        assert sum(reading.probabilities.values()) == pytest.approx(1.0)
    sentences = member.describe(events(70))
    assert len(sentences) == 70 and all(set(sentence.split()) <= set(WORDS) for sentence in sentences)
    assert sentences[69] == member.describe([events(70)[69]])[0]
    assert member.describe([]) == []


def test_an_event_is_read_alike_alone_and_in_a_batch(checkpoint: Path) -> None:
    member = FamilyMember.load(checkpoint, make_manifest(checkpoint=checkpoint_hash(checkpoint)), threads=1)
    many = events(70)
    together = member.read(many)
    assert len(together) == 70
    for index in (0, 5, 63, 64, 69):
        alone = member.read([many[index]])[0]
        for label, p in alone.probabilities.items():
            assert together[index].probabilities[label] == pytest.approx(p, abs=1e-4)
    assert member.read([]) == []


def test_another_checkpoint_than_the_manifests_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="give the checkpoint of the engine"):
        FamilyMember.load(checkpoint, make_manifest(checkpoint="0" * 64))


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: No such file"):
        FamilyMember.load(tmp_path, make_manifest())


def test_a_member_quantised_from_the_engines_checkpoint_reads(checkpoint: Path, tmp_path: Path) -> None:
    """Its hash is its own: it is never taken for the checkpoint itself, and reads for no other engine."""
    out, how = tmp_path / "out", Quantization(4, 64, "nearest", checkpoint_hash(checkpoint))
    family = load(checkpoint)
    z = torch.zeros(2, 8, 4, 16)
    write_quantised(checkpoint, out, how, quantised_member(family, how, z, torch.ones(2, 8, dtype=torch.bool)))
    engine = make_manifest(checkpoint=checkpoint_hash(checkpoint))
    own = checkpoint_hash(out)
    readings = FamilyMember.load(out, engine, quantized=own).read(events(9))
    whole = FamilyMember.load(checkpoint, engine).read(events(9))
    assert readings != whole
    for one, other in zip(readings, whole, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.05)
    for other_engine in (make_manifest(checkpoint="d" * 64), make_manifest(checkpoint="c" * 64)):
        with pytest.raises(CheckpointError, match="its hash, or its base's, is"):
            FamilyMember.load(out, other_engine, quantized=own)
    there = ModelConfig(checkpoint=str(out), member="vllm+http://127.0.0.1:9/v1", quantized=own)
    with open_member(there, engine) as remote:
        assert isinstance(remote, RemoteMember) and isinstance(remote._dialect, VllmDialect)
        assert remote._dialect._name == served_name(checkpoint_hash(out)) != served_name(checkpoint_hash(checkpoint))


@pytest.mark.parametrize("member", ["", "vllm+http://127.0.0.1:9/v1", "ray://127.0.0.1:9"])
@pytest.mark.parametrize("named", ["", "d" * 64])
def test_a_quantised_folder_that_nobody_vouches_for_is_refused(
    checkpoint: Path, tmp_path: Path, member: str, named: str
) -> None:
    """Its `base` is its own claim: whoever writes the folder can write that."""
    out, how = tmp_path / "out", Quantization(4, 64, "nearest", checkpoint_hash(checkpoint))
    packed = quantised_member(load(checkpoint), how, torch.zeros(2, 8, 4, 16), torch.ones(2, 8, dtype=torch.bool))
    write_quantised(checkpoint, out, how, packed)
    config, engine = ModelConfig(str(out), member=member, quantized=named), make_manifest(checkpoint=how.base)
    with (
        pytest.raises(CheckpointError, match=f'write quantized = "{checkpoint_hash(out)}"'),
        open_member(config, engine),
    ):
        pass


def test_sentences_are_the_bases_own_where_the_configuration_names_its_words(tmp_path: Path) -> None:
    folder = tmp_path / "adopted"
    save(Family(nano(WORDS)), folder)
    torch.manual_seed(2)
    files = {"tokenizer.json": a_tokenizer("<|im_end|>").to_str().encode()}
    write_words(folder, files, {"table": torch.randn(300, 128).half()})
    engine, named = make_manifest(checkpoint=checkpoint_hash(folder)), words_hash(folder)
    config = ModelConfig(str(folder), free_text=named)
    with open_member(config, engine) as member, open_member(ModelConfig(str(folder)), engine) as plain:
        said, own = member.describe(events(3)), plain.describe(events(3))
        assert member.read(events(3)) == plain.read(events(3))
        family = load(folder)
        expected = FreeText(family, open_words(folder, family.config)).answers(*event_tensors(events(3)))
    assert said == expected != own and all(each.isprintable() and len(each) <= 400 for each in said)
    for wrong in ("d" * 64, "yes"):
        with (
            pytest.raises(CheckpointError, match=f'write free_text = "{named}"'),
            open_member(ModelConfig(str(folder), free_text=wrong), engine),
        ):
            pass
    with pytest.raises(ConfigError, match="free_text is for a checkpoint in this process"):
        ModelConfig(str(folder), free_text=named, member="vllm+http://127.0.0.1:9/v1")


def test_alert_tables_of_quantised_weights_are_their_own(checkpoint: Path, tmp_path: Path) -> None:
    out, how = tmp_path / "out", Quantization(8, 64, "nearest", checkpoint_hash(checkpoint))
    present = torch.ones(2, 8, dtype=torch.bool)
    packed = quantised_member(load(checkpoint), how, torch.zeros(2, 8, 4, 16), present)
    write_quantised(checkpoint, out, how, packed)
    engine = make_manifest(checkpoint=checkpoint_hash(checkpoint))
    points, direction = (OperatingPoint(3.0, 1.0, 0.5, 2.0, 4.0),), (0.1,) * engine.n
    law = {"fall": ScoreLaw(-2.0, 1.0, 4.0, points=points, direction=direction)}
    AlertCalibration(checkpoint_hash(out), str(engine.sigma), "made", 1.0, law).save(out)
    assert AlertCalibration.load(out, engine) is not None
    AlertCalibration(checkpoint_hash(checkpoint), str(engine.sigma), "made", 1.0, law).save(out)
    with pytest.raises(CheckpointError, match="made for weights"):
        AlertCalibration.load(out, engine)
