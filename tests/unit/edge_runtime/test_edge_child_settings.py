"""What a child is told: the least that it needs, and nothing that names broker, key, ledger or place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from edge_runtime.link import MAX_SETTINGS
from tests.support.engine_factory import make_edge_config
from wire.errors import ConfigError
from wire.protocol.keys import DeviceKey

BROKER = {"username": "the-user", "password_file": "the-password"}
PRIVACY = {"profile": "the-profile"}


def settings(folder: Path, camera: bool, signer: str = "") -> ChildSettings:
    source = "rtsp://me:camera-secret@cam/1"
    config = load_config(
        make_edge_config(folder, engine="/engines/nano", source=source, broker=BROKER, privacy=PRIVACY)
    )
    return ChildSettings.of(dataclasses.replace(config, engine_signer=signer), {2, 0}, camera, 12.5)


def test_they_come_back_as_they_were_sent(tmp_path: Path) -> None:
    made = settings(tmp_path, camera=True)
    assert ChildSettings.read(made.to_bytes()) == made
    assert (made.cores, made.zero_s) == ((0, 2), 12.5)
    assert len(made.to_bytes()) < MAX_SETTINGS


def test_a_child_learns_of_camera_and_engine_alone(tmp_path: Path) -> None:
    names = {field.name.partition("_")[0] for field in dataclasses.fields(ChildSettings)}
    assert names == {"engine", "camera", "run", "cores", "zero"}
    for camera in (True, False):
        sent = settings(tmp_path, camera).to_bytes().decode()
        for secret in ("the-user", "the-password", "the-profile", "lab", "door", "device.key", "mqtt"):
            assert secret not in sent
        assert ("camera-secret" in sent) == camera


def test_the_signer_is_sent_as_a_key_since_the_child_may_not_read_its_file(tmp_path: Path) -> None:
    key = DeviceKey(bytes(range(32))).public
    (tmp_path / "signer.pub").write_text(key.hex + "\n")
    made = settings(tmp_path, camera=True, signer=str(tmp_path / "signer.pub"))
    assert made.engine_signer == key.hex


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"cores": 3}', b'{"cores": [], "more": 1}'])
def test_what_is_not_understood_is_refused_with_the_cure(data: bytes) -> None:
    with pytest.raises(ConfigError, match="start gate, eye and reader anew"):
        ChildSettings.read(data)
