"""The bridge's file: typed, unknown keys are errors, all problems are reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_bridge.__main__ import main
from cloud_bridge.alerts.rules import IN_A_ROW, AlertRule
from cloud_bridge.config import BridgeConfig
from tests.support.bridge_factory import DEVICE, OTHER
from wire.errors import ConfigError

CAMERA = {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}


def parse(**sections: Any) -> BridgeConfig:
    return BridgeConfig.parse({"cameras": [CAMERA], **sections})


def test_a_file_with_one_camera_is_complete() -> None:
    config = parse()
    assert config.cameras[0].name == "lab/door"
    assert config.broker.host == "127.0.0.1" and config.broker.port == 1883 and not config.broker.tls


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    key = tmp_path / "door.pub"
    key.write_text(DEVICE.public.hex + "\n")
    file = tmp_path / "bridge.toml"
    file.write_text(
        f"""
        [broker]
        url = "mqtts://broker.example"
        username = "bridge"
        [model]
        threads = 2
        checkpoint = "mine"
        [[cameras]]
        site = "lab"
        camera = "door"
        public_key = "{key.name}"
        [alerts]
        raise_at = 1
        [run]
        exit_when_offline = true
        """
    )
    config = BridgeConfig.load(file)
    assert config.cameras[0].public == DEVICE.public
    assert (config.broker.port, config.broker.tls) == (8883, True)
    assert config.alerts.raise_at == 1 and config.run.exit_when_offline and config.model.threads == 2
    assert config.model.checkpoint == str(tmp_path / "mine") and config.model.engine == "build/engines/nano"


@pytest.mark.parametrize(
    ("sections", "by_default"),
    [
        ({}, True),
        ({"alerts": {"unsure_below": 0.1, "escalate_s": 60}}, True),
        *(({"alerts": {name: getattr(AlertRule(), name)}}, False) for name in IN_A_ROW),
        ({"alerts": {"false_per_day": 1}}, False),
        ({"scenes": [{"name": "room", "cameras": ["lab/door", "lab/hall"]}]}, True),
    ],
)
def test_whether_a_file_says_when_alerts_are_raised(sections: dict[str, Any], by_default: bool) -> None:
    keys = {"door": DEVICE, "hall": OTHER}
    cameras = [{"site": "lab", "camera": name, "public_key": key.public.hex} for name, key in keys.items()]
    config = BridgeConfig.parse({"cameras": cameras, **sections})
    assert config.alerts_by_default is by_default


@pytest.mark.parametrize(
    ("sections", "hint"),
    [
        ({"broker": {"ulr": "mqtt://x"}}, r"\[broker\] ulr is unknown; did you mean \[broker\] url\?"),
        ({"brokr": {}}, r"\[brokr\] is unknown; did you mean \[broker\]\?"),
        ({"wholly": {}}, r"there are \[cameras\], \[broker\]"),
        ({"alerts": {"raise_for": 1.5}}, r"\[alerts\] raise_for is 1\.5; expected int"),
        ({"alerts": {"raise_for": True}}, "expected int"),
        ({"alerts": {"raise_at": 0.3}}, "clear_at < raise_at"),
        ({"alerts": {"clear_for": 0}}, "clear_for is 0"),
        ({"alerts": {"false_per_day": 1, "raise_at": 0.7, "clear_for": 2}}, "raise_at, clear_for as well: a budget"),
        ({"alerts": {"false_per_day": 0}}, "false_per_day is 0; it counts false alerts a day"),
        ({"alerts": {"false_per_day": "one"}}, r"false_per_day is 'one'; expected float or dict"),
        ({"alerts": {"false_per_day": {}}}, "empty table"),
        ({"alerts": {"false_per_day": {"fall": -1}}}, "false_per_day.fall is -1"),
        ({"alerts": {"false_per_day": {"fall": [1]}}}, r"false_per_day.fall is \[1\]"),
        ({"alerts": {"long_lie_s": 60}}, "long_lie_s is 60 without false_per_day"),
        ({"alerts": {"long_lie_s": 30, "false_per_day": 1}}, "long_lie_s is 30; false alerts are counted for 60"),
        ({"run": {"exit_when_offline": 1}}, "expected bool"),
        ({"log": {"format": "xml"}}, r"\[log\] format is 'xml'; write 'text' or 'json'"),
        ({"log": {"format": True}}, "expected str"),
        ({"run": 3}, r"write it as a table, \[run\]"),
        ({"model": {"threads": -1}}, "threads is -1"),
        ({"broker": {"url": "http://x"}}, "mqtt://HOST"),
        ({"broker": {"url": "mqtt://"}}, "mqtt://HOST"),
        ({"broker": {"url": "mqtt://x:99999"}}, "ports are 1 to 65535"),
        ({"broker": {"url": "mqtt://me:secret@x"}}, "use username and password_file"),
        ({"broker": {"ca": "ca.pem"}}, "write mqtts://"),
        ({"broker": {"url": "mqtts://x", "cert": "c.pem"}}, "belong together"),
        ({"cameras": []}, r"add a \[\[cameras\]\] table"),
        ({"cameras": [{"site": "lab", "camera": "door"}]}, r"\[\[cameras\]\] 1 public_key is missing"),
        ({"cameras": [{**CAMERA, "public_key": "beef"}]}, "copy the device.s hex line whole"),
        ({"cameras": [{**CAMERA, "site": "a/b"}]}, "letters, digits"),
        ({"cameras": [{**CAMERA, "camera": "+"}]}, "stands for many"),
        ({"cameras": [CAMERA, CAMERA]}, "is there twice"),
        ({"cameras": [CAMERA, {**CAMERA, "camera": "hall"}]}, "has the public key of lab/door"),
    ],
)
def test_a_faulty_section_is_refused_with_its_cure(sections: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse(**sections)


def test_a_budget_is_a_number_or_one_for_each_risk() -> None:
    assert parse(alerts={"false_per_day": 1}).alerts.false_per_day == 1
    config = parse(alerts={"false_per_day": {"fall": 1, "lying still": 0.5}, "long_lie_s": 90, "unsure_below": 0})
    assert config.alerts.false_per_day == {"fall": 1, "lying still": 0.5} and config.alerts.long_lie_s == 90
    assert parse().alerts.false_per_day is None and parse().alerts.long_lie_s == 0


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(broker={"ulr": "x"}, run={"exit": True}, cameras=[{**CAMERA, "site": 3}, CAMERA])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all(line.startswith("bridge.toml: [") for line in lines)
    with pytest.raises(ConfigError) as caught:
        parse(broker={"url": "x"}, alerts={"clear_for": 0}, cameras=[{**CAMERA, "site": "/"}])
    assert len(str(caught.value).splitlines()) == 3


def test_two_cameras_with_two_keys_are_accepted() -> None:
    assert len(parse(cameras=[CAMERA, {**CAMERA, "camera": "hall", "public_key": OTHER.public.hex}]).cameras) == 2


@pytest.mark.parametrize("text", ["[broker", "\xff\xfe"])
def test_a_file_that_is_no_toml_ends_with_exit_code_2(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bridge.toml"
    file.write_bytes(text.encode("latin-1"))
    assert main(["--config", str(file)]) == 2
    assert "not TOML" in capsys.readouterr().err


def test_a_missing_file_ends_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(tmp_path / "none.toml")]) == 2
    assert "--config" in capsys.readouterr().err
