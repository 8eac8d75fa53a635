"""edge.toml: all its faults are reported at once, with key, file and cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.config import Config, load_config
from tests.support.engine_factory import make_edge_config
from wire.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "edge.toml"
    path.write_text(text)
    return path


GOOD = """
[device]
site = "lab"
camera = "door"
key = "device.key"
state_dir = "state"
[camera]
source = "synthetic://walk"
[engine]
folder = "engine"
[broker]
url = "mqtt://127.0.0.1"
"""


def test_the_required_keys_are_enough(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.run_release_delay_s == 0.2
    assert config.camera_speed == 1.0
    assert config.device_key == str(tmp_path / "device.key")
    assert config.engine_folder == str(tmp_path / "engine")


def test_the_factorys_configuration_is_read_as_written(tmp_path: Path) -> None:
    path = make_edge_config(tmp_path, engine="/e", windows=7, camera={"speed": 2}, broker={"required": True})
    config = load_config(path)
    assert (config.run_windows, config.camera_speed, config.broker_required) == (7, 2, True)


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('site = "lab"', 'sit = "lab"') + '\nrequird = true\nqueue = "many"\n[privacy]\nmax = 1\n'
    path = write(tmp_path, text + "[cameras]\nsource = 1\n[run]\nwindows = -1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    text = str(caught.value)
    assert text.count(str(path)) == len(text.splitlines()) >= 7
    for part in (
        "[device] sit is unknown; did you mean [device] site?",
        "[device] site is missing",
        "[broker] requird is unknown; did you mean [broker] required?",
        "[broker] queue is 'many'; expected int",
        "[privacy] max is unknown",
        "[cameras] is unknown; did you mean [camera]",
        "[run] windows is -1",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('site = "lab"', 'site = "a/b"', "site is 'a/b'"),
        ('site = "lab"', 'site = "+"', "site"),
        ("[engine]", "speed = 0\n[engine]", "camera] speed is 0; expected a number above 0"),
        ("[engine]", "speed = nan\n[engine]", "camera] speed is nan"),
        ("[engine]", "loop = 1\n[engine]", "camera] loop is 1; expected bool"),
        ('folder = "engine"', "folder = 3", "engine] folder is 3; expected str"),
        ("[device]", "site = 'x'\n[device]", "site is in no section"),
        ("[device]", "[device", "not TOML"),
        ("[engine]", "[[engine]]", "engine is .*; write it as a table, .engine]"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("]", r"\]")):
        load_config(write(tmp_path, GOOD.replace(old, new, 1)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")


def test_the_command_line_overrides(tmp_path: Path) -> None:
    flags = {"camera_source": "0", "engine_folder": "here", "broker_url": "mqtt://else"}
    config = load_config(write(tmp_path, GOOD), flags)
    assert (config.camera_source, config.engine_folder, config.broker_url) == ("0", "here", "mqtt://else")


def test_a_clips_path_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    config = load_config(write(tmp_path, GOOD.replace("synthetic://walk", "clip.mp4")))
    assert config.camera_source == str(tmp_path / "clip.mp4")


def test_a_camera_password_is_not_shown(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD.replace("synthetic://walk", "rtsp://me:secret@cam/1")))
    assert isinstance(config, Config)
    assert "secret" not in repr(config)


def test_former_keys_still_ask_for_a_signature_and_the_level_rule(tmp_path: Path) -> None:
    """A key that was dropped in silence would run unsigned engines."""
    path = make_edge_config(tmp_path, engine=tmp_path)
    text = path.read_text().replace("[engine]", '[engine]\npublisher = "ab"') + "\n[privacy]\nattention = true\n"
    path.write_text(text)
    config = load_config(path)
    assert config.engine_signer == "ab" and config.privacy_adaptive_level
