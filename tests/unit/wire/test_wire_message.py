"""Messages: constant size, read back as they were sealed, and everything else refused with a one-word reason."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import MessageError
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.command import Command, open_command
from wire.protocol.keys import DeviceKey
from wire.protocol.message import (
    MAX_PAYLOAD,
    Alert,
    FeatureMessage,
    Verdict,
    coarse_time,
    features_size,
    open_alert,
    open_features,
    open_verdict,
    trace_id,
)
from wire.protocol.state import open_state, seal_state

HERE = ("lab", "door")
KEY, OTHER = DeviceKey(b"d" * 32), DeviceKey(b"o" * 32)
NOON = 1_800_000_000
N, MODEL = 64, 0x0123456789ABCDEF

STATE = {"status": "online", "reason": "", "boot_id": 2**63 + 1, "model_id": MODEL, "count": 3}
STATE |= {"certificate": "c" * 64, "blind": False, "watching": True, "slot_s": 0.5, "profile": "balanced"}

uint64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32, 2**63, 2**64 - 1])
int16 = st.integers(-(2**15), 2**15 - 1) | st.sampled_from([0, 2**15 - 1, -(2**15)])


def features(**changes: Any) -> FeatureMessage:
    z = np.arange(N, dtype=np.int16)
    return dataclasses.replace(FeatureMessage(boot_id=5, slot=7, model_id=MODEL, flags=0, z=z, time_s=NOON), **changes)


def verdict(**changes: Any) -> Verdict:
    made = Verdict(
        boot_id=5,
        first_slot=0,
        last_slot=7,
        model_id=MODEL,
        member="cloud",
        present=(True, False, True, True, True, True, True, True),
        probabilities={"normal": 0.125, "fall": 0.75, "fight": 0.125},
        sentence="a person falls",
        start_s=0.0,
        end_s=8.0,
        time_s=NOON,
    )
    return dataclasses.replace(made, **changes)


def alert(**changes: Any) -> Alert:
    made = Alert(
        boot_id=5,
        slot=7,
        model_id=MODEL,
        raised=True,
        label="fall",
        probability=0.75,
        sentence="a fall",
        at_s=8.0,
        time_s=NOON,
        id="1" * 32,
        first_id="0" * 32,
        severity="critical",
        device_time_s=NOON - 60,
    )
    return dataclasses.replace(made, **changes)


def sealed(kind: str, body: bytes, key: DeviceKey = KEY) -> bytes:
    """A genuine signature around any body: what a faulty device could send."""
    signature = key.sign(f"veilsight/v2/{kind}\0lab\0door\0".encode() + body)
    return pb.Signed(body=body, signature=signature).SerializeToString()


def feature_fields(**changes: Any) -> dict[str, Any]:
    fields = {"schema": 2, "boot_id": 5, "slot": 7, "model_id": MODEL, "flags": 0, "z": bytes(2 * N), "level": 0}
    fields["time_s"] = NOON
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def reason(call: Any) -> str:
    with pytest.raises(MessageError) as caught:
        call()
    return caught.value.reason


def feature_reason(payload: bytes) -> str:
    return reason(lambda: open_features(payload, KEY.public, *HERE, N, MODEL))


@settings(deadline=None)
@given(
    uint64,
    uint64,
    uint64,
    st.integers(0, 1),
    st.lists(int16, min_size=N, max_size=N),
    st.integers(0, (2**32 - 1) // 60),
)
def test_a_release_has_the_same_size_whatever_it_says(
    boot_id: int, slot: int, model_id: int, flags: int, values: list[int], minute: int
) -> None:
    message = FeatureMessage(boot_id, slot, model_id, flags, np.array(values, np.int16), 0, minute * 60)
    payload = message.seal(KEY, *HERE)
    assert len(payload) == features_size(N)
    found = open_features(payload, KEY.public, *HERE, N, model_id)
    assert (found.boot_id, found.slot, found.model_id, found.flags) == (boot_id, slot, model_id, flags)
    assert found.time_s == minute * 60
    assert found.z.dtype == np.int16 and found.z.tolist() == values


@settings(deadline=None)
@given(st.integers(1, 4000))
def test_the_size_is_known_without_sealing(n: int) -> None:
    assert len(features(z=np.zeros(n, np.int16)).seal(KEY, *HERE)) == features_size(n)


def test_a_release_of_the_shipped_family_fits_its_budget() -> None:
    assert features_size(64) <= 256


@settings(deadline=None)
@given(uint64, uint64, st.integers(0, 255), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e9))
def test_an_edge_verdict_has_the_same_size_whatever_it_says(
    boot_id: int, slot: int, present: int, one: float, other: float, end_s: float
) -> None:
    total = one + other + 1e-9
    made = verdict(
        boot_id=boot_id,
        first_slot=0,
        last_slot=slot,
        member="edge",
        present=tuple(bool(present >> k & 1) for k in range(8)),
        probabilities={"normal": one / total, "fall": other / total, "fight": 1e-9 / total},
        sentence="",
        end_s=end_s,
    )
    payload = made.seal(KEY, *HERE)
    assert len(payload) == len(verdict(member="edge", sentence="").seal(KEY, *HERE))
    found = open_verdict(payload, KEY.public, *HERE, MODEL)
    assert found.present == made.present and found.last_slot == slot and found.end_s == end_s


def test_verdicts_and_alerts_are_read_back_as_they_were_sealed() -> None:
    assert open_verdict(verdict().seal(KEY, *HERE), KEY.public, *HERE, MODEL) == verdict()
    assert open_alert(alert().seal(KEY, *HERE), KEY.public, *HERE, MODEL) == alert()
    assert (verdict().label, verdict().probability) == ("fall", 0.75)
    for ood in ({"ood_p_value": 0.0, "unsure": True}, {"ood_p_value": 1.0, "unsure": False}):
        assert open_verdict(verdict(**ood).seal(KEY, *HERE), KEY.public, *HERE, MODEL) == verdict(**ood)
    assert open_verdict(verdict(late=True).seal(KEY, *HERE), KEY.public, *HERE, MODEL).late
    counted = verdict(attributes={"empty": 0.25, "one": 0.75})
    assert open_verdict(counted.seal(KEY, *HERE), KEY.public, *HERE, MODEL) == counted


def test_unsure_replaces_no_risk_and_never_a_risk() -> None:
    quiet = {"normal": 0.75, "fall": 0.125, "fight": 0.125}
    assert verdict(probabilities=quiet).says == "normal"
    assert verdict(probabilities=quiet, ood_p_value=0.01, unsure=True).says == "unsure"
    assert verdict(ood_p_value=0.01, unsure=True).says == "fall"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "truncated"),
        (features().seal(KEY, *HERE)[:-1], "truncated"),
        (features().seal(KEY, *HERE) + b"\0", "oversized"),
        (bytes(10 * MAX_PAYLOAD), "oversized"),
        (bytes(features_size(N)), "malformed"),
        (features().seal(OTHER, *HERE), "forged"),
        (sealed("features", pb.Features(**feature_fields(schema=3)).SerializeToString()), "schema"),
        (features(flags=4).seal(KEY, *HERE), "flags"),
        (features(flags=2**32 - 1).seal(KEY, *HERE), "flags"),
        (sealed("features", pb.Features(**feature_fields(schema=1)).SerializeToString()), "schema"),
        (features(time_s=NOON + 1).seal(KEY, *HERE), "values"),
        (features(level=1).seal(KEY, *HERE), "level"),
        (features(level=2**32 - 1).seal(KEY, *HERE), "level"),
        (features(model_id=MODEL + 1).seal(KEY, *HERE), "model"),
    ],
)
def test_a_bad_release_is_refused_with_its_reason(payload: bytes, why: str) -> None:
    assert feature_reason(payload) == why


@pytest.mark.parametrize("name", ["schema", "boot_id", "slot", "model_id", "flags", "level", "time_s"])
def test_a_release_without_a_field_is_malformed(name: str) -> None:
    """The absent field's bytes are given to z, so that the length is the right one."""
    width = 5 if name in ("schema", "flags", "level", "time_s") else 9
    body = pb.Features(**feature_fields(**{name: None})).SerializeToString()
    padded = body.replace(b"\x32\x80\x01", b"\x32" + _varint(2 * N + width)) + bytes(width)
    assert len(sealed("features", padded)) == features_size(N)
    assert feature_reason(sealed("features", padded)) == "malformed"


def _varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80, value >> 7])


def _around(extra: bytes) -> bytes:
    """A release with `extra` bytes in its body, of the right length: z is shorter by as many."""
    short = pb.Features(**feature_fields(z=bytes(2 * N - len(extra)))).SerializeToString()
    return sealed("features", short + extra)


@pytest.mark.parametrize(
    "extra",
    [
        b"\x48\x01",  # field 9, which does not exist
        b"\xf8\x07\x01\x00"[:3],
        b"\x0d\x02\x00\x00\x00",  # schema once more
        b"\x1d\x00\x00\x00\x00",  # slot's number with another width
    ],
    ids=["unknown", "unknown far", "repeated", "wrong type"],
)
def test_a_release_that_hides_something_is_malformed(extra: bytes) -> None:
    payload = _around(extra)
    if len(payload) == features_size(N):
        assert feature_reason(payload) == "malformed"
    else:
        assert feature_reason(payload) in ("truncated", "oversized")
    body = verdict().seal(KEY, *HERE)
    envelope = pb.Signed.FromString(body)
    assert (
        reason(lambda: open_verdict(sealed("verdict", envelope.body + extra), KEY.public, *HERE, MODEL)) == "malformed"
    )


def test_an_envelope_that_hides_something_is_malformed() -> None:
    payload = verdict().seal(KEY, *HERE)
    for extra in (b"\x1a\x00", payload[: 2 + payload[1]] if payload[1] < 128 else payload):
        assert reason(lambda extra=extra: open_verdict(payload + extra, KEY.public, *HERE, MODEL)) == "malformed"


@pytest.mark.parametrize("part", ["body", "signature"])
def test_an_envelope_without_a_part_is_malformed(part: str) -> None:
    envelope = pb.Signed.FromString(verdict().seal(KEY, *HERE))
    envelope.ClearField(part)
    assert reason(lambda: open_verdict(envelope.SerializeToString(), KEY.public, *HERE, MODEL)) == "malformed"


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_forged(length: int) -> None:
    envelope = pb.Signed.FromString(verdict().seal(KEY, *HERE))
    envelope.signature = bytes(length)
    assert reason(lambda: open_verdict(envelope.SerializeToString(), KEY.public, *HERE, MODEL)) == "forged"


def test_a_signature_over_one_kind_of_message_is_not_valid_for_another() -> None:
    body = pb.Signed.FromString(verdict().seal(KEY, *HERE)).body
    assert reason(lambda: open_verdict(sealed("alert", body), KEY.public, *HERE, MODEL)) == "forged"
    assert reason(lambda: open_alert(verdict().seal(KEY, *HERE), KEY.public, *HERE, MODEL)) == "forged"


@settings(deadline=None)
@given(st.integers(0, features_size(N) * 8 - 1))
def test_no_bit_of_a_release_can_be_turned(bit: int) -> None:
    payload = bytearray(features().seal(KEY, *HERE))
    payload[bit // 8] ^= 1 << bit % 8
    assert feature_reason(bytes(payload)) in ("forged", "malformed", "schema")


@settings(deadline=None)
@given(st.binary(max_size=300) | st.binary(min_size=features_size(N), max_size=features_size(N)))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert feature_reason(data)
    assert reason(lambda: open_verdict(data, KEY.public, *HERE, MODEL))
    assert reason(lambda: open_alert(data, KEY.public, *HERE, MODEL))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_a_random_body_under_a_genuine_signature_is_refused(body: bytes) -> None:
    """A faulty device, or a stolen key: still refused with one of our reasons."""
    assert reason(lambda: open_verdict(sealed("verdict", body), KEY.public, *HERE, MODEL))
    assert reason(lambda: open_alert(sealed("alert", body), KEY.public, *HERE, MODEL))
    assert reason(lambda: open_features(sealed("features", body), KEY.public, *HERE, N, MODEL))


@pytest.mark.parametrize("z", [np.zeros((8, 8), np.int16), np.zeros(N, np.int32), np.zeros(N, np.float32)])
def test_only_int16_vectors_are_sealed(z: np.ndarray[Any, Any]) -> None:
    assert reason(lambda: features(z=z).seal(KEY, *HERE)) == "shape"


def test_a_release_for_a_model_of_another_size_is_refused() -> None:
    assert reason(lambda: open_features(features().seal(KEY, *HERE), KEY.public, *HERE, N + 1, MODEL)) == "truncated"
    assert reason(lambda: open_features(features().seal(KEY, *HERE), KEY.public, *HERE, N - 1, MODEL)) == "oversized"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_id": 1}, "model"),
        ({"time_s": NOON + 1}, "values"),
        ({"probabilities": {"normal": 1.0}}, "shape"),
        ({"probabilities": {}}, "shape"),
        ({"probabilities": {"normal": 0.7, "fall": 0.7}}, "values"),
        ({"probabilities": {"normal": 1.5, "fall": -0.5}}, "values"),
        ({"probabilities": {"normal": math.nan, "fall": 0.5}}, "values"),
        ({"sentence": "a\nb"}, "values"),
        ({"sentence": "\x1b[31mred"}, "values"),
        ({"sentence": "a" * 401}, "values"),
        ({"sentence": "a" * MAX_PAYLOAD}, "oversized"),
        ({"start_s": math.inf}, "values"),
        ({"end_s": math.nan}, "values"),
        ({"first_slot": 8}, "values"),
        ({"ood_p_value": -0.1}, "values"),
        ({"ood_p_value": 1.1}, "values"),
        ({"ood_p_value": math.nan}, "values"),
        ({"ood_p_value": 0.5, "member": "edge", "sentence": ""}, "values"),
        ({"attributes": {"one": 1.0}, "member": "edge", "sentence": ""}, "values"),
        ({"attributes": {"empty": 0.5, "one": 0.6}}, "values"),
        ({"attributes": {"empty": math.nan, "one": 0.5}}, "values"),
        ({"attributes": {"\x1b[31mred": 1.0}}, "values"),
        ({"probabilities": {"normal": 0.5, "a\nb": 0.5}}, "values"),
    ],
)
def test_a_bad_verdict_is_refused_with_its_reason(changes: dict[str, Any], why: str) -> None:
    assert reason(lambda: open_verdict(verdict(**changes).seal(KEY, *HERE), KEY.public, *HERE, MODEL)) == why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda body: setattr(body, "member", 3), "member"),
        (lambda body: setattr(body, "schema", 9), "schema"),
        (lambda body: body.labels.append("theft"), "shape"),
        (lambda body: body.attributes.append("one"), "shape"),
        (lambda body: body.attributes.extend(["one", "one"]) or body.shares.extend([0.5, 0.5]), "shape"),
        (lambda body: body.labels.__setitem__(2, "fall"), "shape"),
        (lambda body: body.ClearField("sentence"), "malformed"),
        (lambda body: body.ClearField("end_s"), "malformed"),
        (lambda body: body.ClearField("time_s"), "malformed"),
        (lambda body: body.ClearField("late"), "values"),
        (lambda body: setattr(body, "member", 1), "values"),  # the edge says nothing of late
        (lambda body: setattr(body, "unsure", True), "values"),  # of what OOD p-value?
    ],
)
def test_a_malformed_verdict_is_refused_with_its_reason(change: Any, why: str) -> None:
    body = pb.Verdict.FromString(pb.Signed.FromString(verdict().seal(KEY, *HERE)).body)
    change(body)
    payload = sealed("verdict", body.SerializeToString(deterministic=True))
    assert reason(lambda: open_verdict(payload, KEY.public, *HERE, MODEL)) == why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_id": 1}, "model"),
        ({"time_s": NOON + 1}, "values"),
        ({"label": "a\x1bb"}, "values"),
        ({"probability": 1.5}, "values"),
        ({"probability": math.nan}, "values"),
        ({"at_s": math.inf}, "values"),
        ({"sentence": "a\0b"}, "values"),
        ({"id": "1" * 31 + "g"}, "values"),
        ({"first_id": "1"}, "values"),
        ({"device_time_s": NOON + 1}, "values"),
    ],
)
def test_a_bad_alert_is_refused_with_its_reason(changes: dict[str, Any], why: str) -> None:
    assert reason(lambda: open_alert(alert(**changes).seal(KEY, *HERE), KEY.public, *HERE, MODEL)) == why


def test_an_alert_of_a_severity_that_is_none_is_refused() -> None:
    body = pb.Alert.FromString(pb.Signed.FromString(alert().seal(KEY, *HERE)).body)
    body.severity = 5
    payload = sealed("alert", body.SerializeToString(deterministic=True))
    assert reason(lambda: open_alert(payload, KEY.public, *HERE, MODEL)) == "values"


def test_an_alert_without_the_later_fields_is_read() -> None:
    """A bridge of before gives no id and no severity."""
    body = pb.Alert.FromString(pb.Signed.FromString(alert().seal(KEY, *HERE)).body)
    for name in ("id", "first_id", "severity", "device_time_s"):
        body.ClearField(name)
    payload = sealed("alert", body.SerializeToString(deterministic=True))
    found = open_alert(payload, KEY.public, *HERE, MODEL)
    assert found == alert(id="", first_id="", severity="", device_time_s=0)


@settings(deadline=None)
@given(uint64, uint64)
def test_a_trace_id_is_a_hash_of_camera_boot_and_slot_alone(boot_id: int, slot: int) -> None:
    assert trace_id("ward/door", boot_id, slot) == trace_id("ward/door", boot_id, slot)
    assert re.fullmatch("[0-9a-f]{32}", trace_id("ward/door", boot_id, slot))
    others = [("ward/bed", boot_id, slot), ("ward/door", boot_id, slot ^ 1), ("ward/door", boot_id ^ 1, slot)]
    assert trace_id("ward/door", boot_id, slot) not in {trace_id(*other) for other in others}


@pytest.mark.parametrize(("site", "camera"), [("lab", "hall"), ("ward", "door"), ("door", "lab"), ("la", "bdoor")])
def test_a_message_moved_to_another_camera_is_forged(site: str, camera: str) -> None:
    there = (site, camera)
    assert reason(lambda: open_features(features().seal(KEY, *HERE), KEY.public, *there, N, MODEL)) == "forged"
    assert reason(lambda: open_verdict(verdict().seal(KEY, *HERE), KEY.public, *there, MODEL)) == "forged"
    assert reason(lambda: open_alert(alert().seal(KEY, *HERE), KEY.public, *there, MODEL)) == "forged"
    assert reason(lambda: open_state(seal_state(STATE, KEY, *HERE), KEY.public, *there)) == "forged"
    assert reason(lambda: open_command(Command("lab/door", 1, "x").seal(KEY), KEY.public, "/".join(there))) in (
        "forged",
        "misdirected",
    )


def former(kind: str, body: Any) -> bytes:
    """What the version before sent: schema 1, no time, and no names under the signature."""
    body.schema = 1
    body.ClearField("time_s")
    data = body.SerializeToString(deterministic=True)
    signature = KEY.sign(f"veilsight/v1/{kind}\0".encode() + data)
    return pb.Signed(body=data, signature=signature).SerializeToString()


def test_a_message_of_the_version_before_is_refused_as_such_with_the_cure() -> None:
    """Its signature is over something else, so it could as well read as forged."""
    said = verdict(member="edge", sentence="")
    old = {
        "features": former("features", pb.Features(**feature_fields())),
        "verdict": former("verdict", pb.Verdict.FromString(pb.Signed.FromString(said.seal(KEY, *HERE)).body)),
        "alert": former("alert", pb.Alert.FromString(pb.Signed.FromString(alert().seal(KEY, *HERE)).body)),
    }
    with pytest.raises(MessageError, match="schema 1, this software reads schema 2; update the software that wrote it"):
        open_features(old["features"], KEY.public, *HERE, N, MODEL)
    assert reason(lambda: open_verdict(old["verdict"], KEY.public, *HERE, MODEL)) == "schema"
    assert reason(lambda: open_alert(old["alert"], KEY.public, *HERE, MODEL)) == "schema"


def test_a_later_schema_asks_for_an_update_of_the_reader() -> None:
    body = pb.Features(**feature_fields(schema=3)).SerializeToString()
    payload = pb.Signed(body=body, signature=bytes(64)).SerializeToString()
    with pytest.raises(MessageError, match="update this software"):
        open_features(payload, KEY.public, *HERE, N, MODEL)


@settings(deadline=None)
@given(st.floats(-1e6, 1e11))
def test_a_coarse_time_is_a_whole_minute_of_fixed_width(unix_s: float) -> None:
    time_s = coarse_time(unix_s)
    assert time_s % 60 == 0 and 0 <= time_s < 2**32
    assert not 60 <= unix_s < 2**32 or 0 <= unix_s - time_s < 60
