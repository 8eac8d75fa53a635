"""The cloud member: only the manifest's checkpoint is loaded, and many events are read in one forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.ingest.events import Event
from familial.model.checkpoint import checkpoint_hash, save
from familial.model.config import nano
from familial.model.family import Family
from tests.support.bridge_factory import make_manifest
from wire.errors import CheckpointError

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
