"""docs/asyncapi.json is the table of topics, and real messages are as it says; so is the JSON form of each."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.documents import BridgeStatus, fill_open_alerts
from tests.support.bridge_factory import DEVICE, OTHER, a_state, make_manifest
from tests.support.contour_factory import make_contour
from tests.support.services import PATIENCE_S, ROOT, find
from wire.errors import ConfigError, MessageError
from wire.protocol.asyncapi import asyncapi, main
from wire.protocol.command import Command
from wire.protocol.contour import seal_contour
from wire.protocol.json_form import PROTOBUF, _keys, _lines, json_form
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, FeatureMessage, Verdict, coarse_time, trace_id
from wire.protocol.topics import PREFIX, TOPICS

SPECS = "@asyncapi/specs@6.11.1"
MANIFEST = make_manifest()
BRIDGE = DeviceKey(b"b" * 32)
KEYS = {"lab/door": DEVICE.public, "": BRIDGE.public}
NOW_S = coarse_time(time.time())
DOOR = ("lab", "door")


def verdict(member: str) -> Verdict:
    return Verdict(
        boot_id=2**63 + 1,
        first_slot=0,
        last_slot=7,
        model_id=MANIFEST.model_id,
        member=member,
        present=(True,) * 8,
        probabilities={"normal": 0.125, "fall": 0.75, "fight": 0.125},
        sentence="a person falls" if member == "cloud" else "",
        start_s=0.0,
        end_s=8.0,
        ood_p_value=0.5 if member == "cloud" else None,
        attributes={"walks": 1.0} if member == "cloud" else {},
        time_s=NOW_S,
        late=False,
    )


def messages() -> dict[str, bytes]:
    """A message of each topic."""
    z = np.arange(MANIFEST.n, dtype=np.int16) - 9
    alert = Alert(
        1, 7, MANIFEST.model_id, True, "fall", 0.9, "a person falls", 7.0, NOW_S, "a" * 32, "a" * 32, "critical"
    )
    status = BridgeStatus(BRIDGE, 3)
    return {
        "features": FeatureMessage(2**63 + 1, 7, MANIFEST.model_id, 0, z, 0, NOW_S).seal(DEVICE, *DOOR),
        "verdict/edge": verdict("edge").seal(DEVICE, *DOOR),
        "verdict/cloud": verdict("cloud").seal(BRIDGE, *DOOR),
        "alert": alert.seal(BRIDGE, *DOOR),
        "alert/open": fill_open_alerts(["fall", "stale"], {}, NOW_S, BRIDGE, *DOOR),
        "state": a_state("online", certificate=b"c", profile="strict", slot_s=1.0, software="veilsight 0.2.0"),
        "certificate": MANIFEST.certificate().to_json().encode(),
        "command": Command("lab/door", 5, "strict").seal(OTHER),
        "bridge": status.online(NOW_S).payload,
        "contour": seal_contour(make_contour(), BRIDGE, *DOOR),
    }


def where(name: str) -> str:
    status = BridgeStatus(BRIDGE, 3)
    return status.online(NOW_S).topic if name == "bridge" else f"{PREFIX}/lab/door/{name}"


def schema_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = asyncapi()["components"]["messages"][name.replace("/", "_")]["payload"]
    return found


def test_the_document_is_up_to_date() -> None:
    cure = "python -m wire.protocol.asyncapi --write docs/asyncapi.json"
    assert json.loads((ROOT / "docs" / "asyncapi.json").read_text()) == asyncapi(), f"write it anew: {cure}"


def test_whoever_reads_the_document_can_make_a_trace_id() -> None:
    words = " ".join(asyncapi()["info"]["description"].split())
    assert (
        "the first 32 hex digits of SHA-256 over site/camera/boot_id/slot, boot_id and slot in 16 hex digits" in words
    )
    made = hashlib.sha256(b"lab/door/00000000000000ff/0000000000000009").hexdigest()[:32]
    assert trace_id("lab/door", 255, 9) == made


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--write", str(tmp_path / "a.json")]) == 0 == main([])
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(capsys.readouterr().out) == asyncapi()
    assert main(["--write", str(tmp_path / "no" / "such" / "a.json")]) == 2


@pytest.mark.parametrize("name", TOPICS)
def test_every_topic_is_there_as_the_table_has_it(name: str) -> None:
    key, row, made = name.replace("/", "_"), TOPICS[name], asyncapi()
    assert made["channels"][key]["address"] == f"{PREFIX}/{{site}}/{{camera}}/{name}"
    assert made["operations"][f"receive_{key}"]["bindings"]["mqtt"]["qos"] == row.qos
    assert made["operations"][f"receive_{key}"]["bindings"]["mqtt"]["retain"] is row.retain
    properties = schema_of(name).get("properties", {})
    for field, source in row.fields.items():
        if field != "*":
            assert properties[field]["x-source"] == source.value, field
            assert set(properties[field]) - {"x-source"}, f"give {field} of {name} a type in wire/protocol/asyncapi.py"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """AsyncAPI's own schema of 3.0 documents, from its package."""
    folder = tmp_path_factory.mktemp("npm")
    command = [find("npm"), "install", "--no-audit", "--no-fund", "--ignore-scripts", SPECS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if done.returncode:
        pytest.skip(f"npm install {SPECS}: {done.stderr.strip()[-200:]}")
    found: dict[str, Any] = json.loads((folder / "node_modules/@asyncapi/specs/schemas/3.0.0.json").read_text())
    return found


def test_the_document_is_asyncapi_by_the_official_schema(official: dict[str, Any]) -> None:
    check = jsonschema.validators.validator_for(official)(official)
    assert [error.message for error in check.iter_errors(asyncapi())] == []
    broken = copy.deepcopy(asyncapi())
    broken["channels"]["features"]["adress"] = "x"
    assert not check.is_valid(broken)


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if "$ref" in value else []
        return here + [found for each in value.values() for found in references(each)]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere() -> None:
    made = asyncapi()
    for reference in references(made):
        place: Any = made
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place


# --- real messages


def test_there_is_a_message_of_each_topic() -> None:
    assert messages().keys() >= TOPICS.keys() - {"contour"}


@pytest.mark.parametrize("name", messages())
def test_a_real_message_is_as_the_document_says(name: str) -> None:
    said = json_form(where(name), messages()[name], KEYS)
    assert json.loads(json.dumps(said)) == said
    assert said["signed"] is {"certificate": None, "command": None}.get(name, True)
    message = said["message"]
    if name not in PROTOBUF and name != "certificate":
        message = {**message, "signature": "0" * 128}  # the JSON form has verified it
    jsonschema.validate(message, schema_of(name))
    if name != "certificate":
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**message, "scene": 1}, schema_of(name))


def test_ids_are_hex_and_z_is_numbers() -> None:
    said = json_form(where("features"), messages()["features"], {})["message"]
    assert said["boot_id"] == "8000000000000001" and said["model_id"] == f"{MANIFEST.model_id:016x}"
    assert said["z"][:3] == [-9, -8, -7] and len(said["z"]) == MANIFEST.n
    assert json_form(where("verdict/cloud"), messages()["verdict/cloud"], {})["message"]["probabilities"][1] == 0.75


@pytest.mark.parametrize("name", messages())
def test_another_key_or_place_is_said(name: str) -> None:
    if name in ("certificate", "command"):
        return
    payload, strange = messages()[name], {"lab/door": OTHER.public, "": OTHER.public}
    assert json_form(where(name), payload, strange)["signed"] is False
    assert json_form(where(name), payload, {})["signed"] is None
    if name != "bridge":
        moved = where(name).replace("door", "hall")
        assert json_form(moved, payload, {**KEYS, "lab/hall": DEVICE.public})["signed"] is False


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*TOPICS, "x", ""]), st.binary(max_size=300), st.integers(0, 400))
def test_whatever_comes_is_a_message_or_an_error(name: str, more: bytes, cut: int) -> None:
    for payload in (more, messages().get(name, b"")[:cut] + more):
        try:
            said = json_form(f"{PREFIX}/lab/door/{name}", payload, KEYS)
        except MessageError:
            continue
        json.dumps(said, allow_nan=False)


def test_lines_of_mosquitto_sub_become_lines_of_json() -> None:
    given = [f"{where(name)} {payload.hex()}" for name, payload in messages().items()]
    out = io.StringIO()
    _lines(io.StringIO("\n".join([*given, "no topic 00", f"{PREFIX}/lab/door/features zz", ""])), KEYS, out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["topic"] for line in lines[: len(given)]] == [where(name) for name in messages()]
    assert all("message" in line for line in lines[: len(given)])
    assert all("error" in line for line in lines[len(given) :]) and len(lines) == len(given) + 2


def test_keys_are_named() -> None:
    found = _keys([f"lab/door={DEVICE.public.hex}", f"bridge={BRIDGE.public.hex}"])
    assert found == KEYS
    for wrong in ("lab=00", DEVICE.public.hex, "a/b/c=00"):
        with pytest.raises(ConfigError, match="write site/camera=HEX"):
            _keys([wrong])


def test_the_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wire.protocol.json_form", "--key", f"lab/door={DEVICE.public.hex}"]
    line = f"{where('state')} {messages()['state'].hex()}\n"
    done = subprocess.run(command, input=line, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert json.loads(done.stdout)["signed"] is True and done.stderr == ""
