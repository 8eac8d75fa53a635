"""Home Assistant's discovery: every entity says what is published anyway, and what is turned off is taken back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cloud_bridge.config import BridgeConfig
from cloud_bridge.documents import BridgeStatus, fill_open_alerts
from cloud_bridge.home_assistant import Discovery, HomeAssistantConfig, entities
from tests.support.bridge_factory import DEVICE, a_state
from wire.errors import ConfigError
from wire.protocol.topics import parse_topic

CAMERAS = [("lab", "door"), ("lab", "hall")]
RISKS = ("fall", "fight")
BRIDGE = BridgeStatus(DEVICE, 2)


def described(cameras: list[tuple[str, str]] = CAMERAS) -> dict[str, dict[str, Any]]:
    """Name of the camera and of the entity -> description."""
    made = entities("homeassistant", cameras, RISKS, BRIDGE.name)
    found = {}
    for payload in made.values():
        document = json.loads(payload)
        found[f"{document['device']['name'].removeprefix('Veilsight ')} {document['name']}"] = document
    return found


def shown(template: str, payload: bytes) -> str:
    """What Home Assistant makes of a message: its templates are Jinja2's."""
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    return str(environment.from_string(template).render(value_json=json.loads(payload)))


def test_each_camera_has_its_entities_and_none_says_more_than_is_published() -> None:
    found = described()
    names = ("connected", "watching", "alert", *RISKS)
    assert found.keys() == {f"{site}/{camera} {name}" for site, camera in CAMERAS for name in names}
    for document in found.values():
        for key in (each for each in document if each.endswith("_topic")):
            assert parse_topic(document[key]) is not None, "no topic of its own"


@pytest.mark.parametrize(
    ("status", "fields", "connected", "watching"),
    [
        ("online", {}, "ON", "ON"),
        ("online", {"watching": False}, "ON", "OFF"),
        ("online", {"blind": True}, "ON", "OFF"),
        ("offline", {}, "OFF", "OFF"),
    ],
)
def test_a_state_is_shown_as_it_is(status: str, fields: dict[str, Any], connected: str, watching: str) -> None:
    found, payload = described(), a_state(status, **fields)
    assert shown(found["lab/door connected"]["value_template"], payload) == connected
    assert shown(found["lab/door watching"]["value_template"], payload) == watching


@pytest.mark.parametrize("labels", [[], ["fall"], ["stale"], ["fall", "fight"], ["nearfall"]])
def test_open_alerts_are_shown_by_their_own_names(labels: list[str]) -> None:
    payload, found = fill_open_alerts(labels, {}, 60, DEVICE, "lab", "door"), described()
    assert shown(found["lab/door alert"]["value_template"], payload) == ("ON" if labels else "OFF")
    for risk in RISKS:
        assert shown(found[f"lab/door {risk}"]["value_template"], payload) == ("ON" if risk in labels else "OFF")


def test_while_the_bridge_is_away_its_alerts_are_unknown() -> None:
    found = described()["lab/door fall"]
    assert found["availability_topic"] == BRIDGE.online(60).topic
    assert shown(found["availability_template"], BRIDGE.online(60).payload) == "online"
    assert shown(found["availability_template"], BRIDGE.will(60).payload) == "offline"
    assert "availability_topic" not in described()["lab/door watching"], "the device says it itself"


def test_ids_are_such_as_home_assistant_takes_and_no_two_are_the_same() -> None:
    cameras = [
        ("lab", "a.b"),
        ("lab", "a_b"),
        ("lab", "a-b"),
        ("lab-a", "b"),
        ("l" * 63, "c" * 63),
        ("l" * 63, "d" * 63),
    ]
    made = entities("homeassistant", cameras, RISKS, BRIDGE.name)
    assert len(made) == len(cameras) * 5
    assert all(re.fullmatch(r"homeassistant/binary_sensor/[a-zA-Z0-9_-]+/config", name) for name in made)
    numbers = {json.loads(payload)["unique_id"] for payload in made.values()}
    assert len(numbers) == len(made)


def test_what_is_turned_off_is_taken_back_until_the_broker_has_it(tmp_path: Path) -> None:
    wanted = entities("homeassistant", CAMERAS, RISKS, BRIDGE.name)
    first = Discovery(wanted, tmp_path)
    assert {each.topic: each.payload for each in first.messages()} == wanted
    assert all(each.retain and each.qos == 1 for each in first.messages())
    for _ in range(2):  # also after a start that was killed
        off = Discovery({}, tmp_path)
        assert {each.topic: each.payload for each in off.messages()} == dict.fromkeys(wanted, b"")
    off.delivered()
    assert off.messages() == [] == Discovery({}, tmp_path).messages()


def test_a_camera_that_is_gone_is_taken_back_alone(tmp_path: Path) -> None:
    Discovery(entities("homeassistant", CAMERAS, RISKS, BRIDGE.name), tmp_path)
    left = entities("homeassistant", CAMERAS[:1], RISKS, BRIDGE.name)
    messages = Discovery(left, tmp_path).messages()
    assert {each.topic for each in messages if each.payload} == left.keys()
    assert len([each for each in messages if not each.payload]) == 5


def test_without_it_nothing_is_written_or_published(tmp_path: Path) -> None:
    assert Discovery({}, tmp_path).messages() == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]"])
def test_a_damaged_record_stops_the_start_with_its_cure(tmp_path: Path, text: str) -> None:
    (tmp_path / "home-assistant.json").write_text(text)
    (tmp_path / "home-assistant.json").chmod(0o600)
    with pytest.raises(ConfigError, match=r"home-assistant\.json: .*remove it"):
        Discovery({}, tmp_path)


def test_a_strange_record_takes_back_no_topic_of_others(tmp_path: Path) -> None:
    others = ["veilsight/v1/lab/door/state", "homeassistant/binary_sensor/lamp/config", "#"]
    (tmp_path / "home-assistant.json").write_text(json.dumps(others))
    (tmp_path / "home-assistant.json").chmod(0o600)
    assert Discovery({}, tmp_path).messages() == []


def test_it_is_off_by_default_and_a_prefix_is_one_word() -> None:
    camera = {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex}
    assert not BridgeConfig.parse({"cameras": [camera]}).home_assistant.enabled
    for prefix in ("", "a/b", "#", "+", "a b"):
        with pytest.raises(ConfigError, match="prefix is"):
            HomeAssistantConfig(True, prefix)
    with pytest.raises(ConfigError, match="only a bridge without shards"):
        BridgeConfig.parse({"cameras": [camera], "home_assistant": {"enabled": True}, "run": {"shard": "0/2"}})
