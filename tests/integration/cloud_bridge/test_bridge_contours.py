"""The bridge's own process with a contour beside its checkpoint: figures on a real broker, and another's contour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridge_factory import release
from tests.support.bridge_process import Peer, bridge_process, save_checkpoint, wait_for, write_config
from tests.support.contour_factory import make_decoder
from tests.support.services import PATIENCE_S, until
from wire.artifact.manifest import EngineManifest
from wire.protocol.contour import Contour, open_contour
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time

BRIDGE = DeviceKey(b"b" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineManifest]:
    folder = tmp_path_factory.mktemp("engine")
    checkpoint, manifest = save_checkpoint(folder)
    make_decoder(manifest.hashes["checkpoint"], knows=("posture",)).save(checkpoint)
    (folder / "state").mkdir(0o700)
    BRIDGE.save(folder / "state" / "bridge.key")
    return folder, manifest


@pytest.fixture
def peer(mosquitto: int) -> Iterator[Peer]:
    with Peer(mosquitto) as peer:
        yield peer


def contours(peer: Peer, manifest: EngineManifest) -> list[Contour]:
    found = [payload for topic, payload in peer.heard() if topic == "lab/door/contour"]
    return [open_contour(payload, BRIDGE.public, "lab", "door", manifest.model_id) for payload in found]


def test_figures_follow_releases(mosquitto: int, peer: Peer, made: tuple[Path, EngineManifest]) -> None:
    folder, manifest = made
    with bridge_process(write_config(folder, mosquitto)):
        for slot in range(10):
            now_s = coarse_time(time.time())
            peer.publish("features", release(slot, 10 * slot, manifest=manifest, time_s=now_s))
        until(lambda: bool(contours(peer, manifest)) and contours(peer, manifest)[-1].slot == 9)
        wait_for(peer, "lab/door/verdict/cloud", 3)
    found = contours(peer, manifest)
    assert [each.slot for each in found] == sorted({each.slot for each in found}) and found[0].slot >= 7
    assert all(each.posture is not None and each.count is None and each.moving is None for each in found)


def test_another_familys_contour_stops_the_start(mosquitto: int, made: tuple[Path, EngineManifest]) -> None:
    folder, manifest = made
    checkpoint = folder / "checkpoint"
    make_decoder("d" * 64, family="somebody-elses").save(checkpoint)
    try:
        with bridge_process(write_config(folder, mosquitto), ready=False) as process:
            _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2 and "'somebody-elses'" in err and "familial.contour.train" in err
        with bridge_process(write_config(folder, mosquitto, contour={"enabled": "off"})):
            pass  # it starts: whoever wants no figures needs no contour
    finally:
        make_decoder(manifest.hashes["checkpoint"], knows=("posture",)).save(checkpoint)
