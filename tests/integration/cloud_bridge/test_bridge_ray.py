"""The cloud member on a real Ray cluster of two nodes, one of which is killed while it reads, then the other."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cloud.ray_cluster import RayCluster
from cloud_bridge.config import ModelConfig
from cloud_bridge.inference.choice import open_member
from cloud_bridge.inference.member import Member, Reading
from cloud_bridge.inference.remote import RemoteMember
from cloud_bridge.ingest.events import Event
from familial.model.checkpoint import save
from familial.model.config import nano
from familial.model.family import Family
from tests.support.bridge_factory import make_manifest
from tests.support.services import PATIENCE_S
from wire.artifact.checkpoint import checkpoint_hash
from wire.artifact.manifest import EngineManifest

pytestmark = pytest.mark.slow

SPECIAL = ("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "<empty>", "<low>")
WORDS = (*SPECIAL, "a", "falls", "person", "walks")


def write_checkpoint(folder: Path, seed: int) -> Path:
    """An untrained nano, its weights made larger so that readings and sentences differ."""
    torch.manual_seed(seed)
    config = dataclasses.replace(nano(WORDS), attributes=("empty", "low"), label_bias=(0.0, 0.3, -0.2), tied=False)
    family = Family(config)
    with torch.no_grad():
        family.adapter.summary.weight.mul_(20.0)
    save(family, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), seed=1)


@pytest.fixture(scope="module")
def cluster(checkpoint: Path) -> Iterator[RayCluster]:
    pytest.importorskip("ray", reason="scripts/setup --all installs it")
    with RayCluster(checkpoint) as cluster:
        yield cluster


def config_of(checkpoint: Path, member: str = "", answer_s: float = PATIENCE_S) -> tuple[ModelConfig, EngineManifest]:
    config = ModelConfig(checkpoint=str(checkpoint), member=member, member_timeout_s=answer_s)
    return config, make_manifest(checkpoint=checkpoint_hash(checkpoint))


def events(count: int, seed: int = 3) -> list[Event]:
    """With gaps anywhere: z and the mask are sent, so nothing is moved by one."""
    rng, found = np.random.default_rng(seed), list[Event]()
    for number in range(count):
        present = rng.random(8) < 0.8
        z = rng.integers(-200, 200, (8, 4, 16)).astype(np.int32) * present[:, None, None]
        found.append(Event("lab/door", 1, number, number + 7, z, present))
    return found


def trouble(member: Member) -> str:
    assert isinstance(member, RemoteMember)
    return member.trouble


def apart(one: list[Reading], other: list[Reading]) -> float:
    """By how much two readings of the same events differ at most."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True)]
    labels = [abs(a.probabilities[name] - p) for a, b in pairs for name, p in b.probabilities.items()]
    return max(labels + [abs(a.attributes[name] - p) for a, b in pairs for name, p in b.attributes.items()])


def test_the_cluster_reads_as_this_process_does(checkpoint: Path, cluster: RayCluster) -> None:
    some = events(130)
    with open_member(*config_of(checkpoint)) as here, open_member(*config_of(checkpoint, cluster.member)) as there:
        found, expected = there.read(some), here.read(some)
        assert {reading.member for reading in found} == {"cloud"} and apart(found, expected) < 1e-6
        assert len({max(each.probabilities, key=each.probabilities.__getitem__) for each in expected}) > 1
        assert there.describe(some) == here.describe(some) and any(here.describe(some))


def test_a_checkpoint_of_another_hash_is_not_read_there(cluster: RayCluster, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path, seed=2)
    with open_member(*config_of(other, cluster.member)) as there:
        assert {reading.member for reading in there.read(events(3))} == {"edge"}
        assert "serve that of the engine" in trouble(there)


def test_a_node_that_is_killed_in_the_middle_of_an_event_loses_none(checkpoint: Path, cluster: RayCluster) -> None:
    cluster.wait()
    batches = [events(8, seed) for seed in range(10_000)]
    killed = threading.Event()

    def kill() -> None:
        cluster.kill_node()
        killed.set()

    killer = threading.Timer(0.5, kill)
    found, after = list[list[Reading]](), 0
    with open_member(*config_of(checkpoint)) as here, open_member(*config_of(checkpoint, cluster.member)) as there:
        killer.start()
        for batch in batches:
            found.append(there.read(batch))
            after += killed.is_set()
            if after > 20:
                break
        killer.join()
        expected = [here.read(batch) for batch in batches[: len(found)]]
    assert len(found) > 20 and [len(each) for each in found] == [8] * len(found)  # each event has one answer
    assert {reading.member for each in found for reading in each} == {"cloud"}  # Serve asked the other node
    assert max(apart(*pair) for pair in zip(found, expected, strict=True)) < 1e-6


def test_a_cluster_that_is_gone_leaves_the_edges_exit(checkpoint: Path, cluster: RayCluster) -> None:
    with open_member(*config_of(checkpoint, cluster.member, answer_s=5.0)) as there:
        assert {reading.member for reading in there.read(events(2))} == {"cloud"}
        cluster.kill()
        began = time.monotonic()
        assert {reading.member for reading in there.read(events(9))} == {"edge"} and trouble(there)
        assert time.monotonic() - began < PATIENCE_S
