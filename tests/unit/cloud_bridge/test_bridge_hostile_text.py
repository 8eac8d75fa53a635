"""Whatever comes under any topic: no exception reaches the loop, nothing takes long, nothing fills log or memory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_bridge.ingest.reasons import REASONS
from cloud_bridge.ingest.transport import Inbound, Mailbox
from tests.support.bridge_factory import Harness, a_state, make_manifest, release
from wire.bounded_json import read_json
from wire.errors import CertificateError
from wire.privacy.certificate import MAX_CERTIFICATE, Certificate
from wire.protocol.topics import TOPICS

MANIFEST = make_manifest()
OURS = MANIFEST.certificate().to_json().encode()
LONG_S = 5.0  # of this thread's processor time, for one text: a hostile one took 20, any of these takes 0.02


def with_inputs(**inputs: Any) -> bytes:
    document = json.loads(OURS)
    document["inputs"].update(inputs)
    return json.dumps(document).encode()


LEVELS = {"clip_norm": 64, "releases": 8, "quiet": 0, "event_cap": "9", "depth": "9", "refill": "1"}
NASTY = {
    "nesting": b"[" * 1500,
    "nesting in text": b'{"' + b"]" * 2000 + b'": ' + b"[" * 2000,
    "nesting behind an escape": b'{"\\"": ' + b"[" * 20_000,
    "many quotes": b'"\\' * 30_000,
    "digits": b"9" * 60_000,
    "digits of a number": with_inputs(clip_norm=0).replace(b'"clip_norm": 0', b'"clip_norm": ' + b"9" * 4000),
    "sigma of 400 digits": with_inputs(sigma="1e400"),
    "sigma of a gigabyte": with_inputs(sigma="1e10000000"),
    "sigma in fractions": with_inputs(sigma="1/" + "9" * 30_000),
    "sigma zero below": with_inputs(sigma="1/0"),
    "sigma tiny": with_inputs(sigma="1/" + "9" * 99),
    "sigma no text": with_inputs(sigma=1e300),
    "endless": with_inputs(receptive_field_s=0).replace(b'"receptive_field_s": 0', b'"receptive_field_s": 1e999'),
    "endless by name": with_inputs(receptive_field_s=float("inf")),
    "no number": with_inputs(slot_s=float("nan")),
    "no lifetime": with_inputs(lifetime_years=0),
    "long lifetime": with_inputs(lifetime_years=1e300),
    "short slots": with_inputs(slot_s=1e-300),
    "text for a number": with_inputs(lifetime_years="9" * 40_000),
    "many releases": with_inputs(event_releases=10**20),
    "many levels": with_inputs(adaptive_level={**LEVELS, "sigmas": ["9"] * 900}),
    "levels of a gigabyte": with_inputs(adaptive_level={**LEVELS, "sigmas": ["2", "1"], "depth": "1e10000000"}),
    "levels as text": with_inputs(adaptive_level={**LEVELS, "sigmas": "21"}),
    "levels of nothing": with_inputs(adaptive_level=3),
    "version": with_inputs().replace(b'"version": 4', b'"version": {"a": "' + b"x" * 9000 + b'"}'),
    "a field twice": b'{"version": 4, "version": 4}',
    "no UTF-8": b'{"version": "\xff"}',
    "UTF-16": '{"version": 4}'.encode("utf-16"),
    "too long": OURS + b" " * MAX_CERTIFICATE,
    "many values": b'{"a": [' + b"1," * 20_000 + b"1]}",
    "other inputs": with_inputs(sigma="31", n=77, slot_s=3),
}


@pytest.mark.parametrize("name", NASTY)
def test_a_hostile_certificate_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """Also where the device itself has signed its hash."""
    harness = Harness(tmp_path, MANIFEST)
    began = time.thread_time()
    harness.send(NASTY[name], name="certificate", retained=True)
    harness.send(a_state("online", certificate=NASTY[name]), name="state")
    for _ in range(3):
        harness.send(NASTY[name], name="certificate")
        harness.send(NASTY[name], name="state")
    with pytest.raises(CertificateError) as caught:
        found, document = Certificate.read(NASTY[name])
        assert name == "other inputs" and found not in MANIFEST.accepted
        raise CertificateError("not ours")
    assert time.thread_time() - began < LONG_S
    assert len(str(caught.value)) < 400
    assert not MANIFEST.covers(NASTY[name])
    refused = harness.bridge.sessions["lab/door"].refused
    assert refused["untrusted"] == 4 and sum(refused.values()) == 7


def test_a_certificate_is_told_to_the_log_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.send(a_state("online", certificate=NASTY["version"]), name="state")
    harness.send(*[NASTY["version"]] * 50, name="certificate")
    assert caplog.text.count("its certificate is not that of engine") == 1 and len(caplog.text) < 1000


def test_our_own_certificate_and_those_of_more_noise_are_accepted() -> None:
    assert MANIFEST.covers(OURS)
    assert MANIFEST.covers(json.dumps(json.loads(OURS)).encode())  # other bytes, same numbers
    edited = json.loads(OURS)
    edited["event"]["bits"] *= 0.5
    assert not MANIFEST.covers(json.dumps(edited).encode())


def test_one_retained_certificate_does_not_silence_a_camera(tmp_path: Path) -> None:
    """Before its state, after it, and in place of it."""
    harness = Harness(tmp_path, MANIFEST)
    harness.send(b'{"junk":1}', name="certificate", retained=True)
    harness.send(*(release(slot, manifest=MANIFEST) for slot in range(8)))
    harness.send(a_state("online", certificate=OURS), name="state")
    harness.send(b'{"junk":1}', name="certificate")
    harness.send(release(8, manifest=MANIFEST))
    harness.send(OURS, b'{"junk":1}', name="certificate")
    harness.send(release(9, manifest=MANIFEST))
    assert [verdict.last_slot for verdict in harness.verdicts()] == [7, 8, 9]


def test_a_certificate_of_full_length_reaches_the_session() -> None:
    """It is longer than any other message may be."""
    mailbox = Mailbox(["lab/door"])
    for name in ("certificate", "state"):
        mailbox.put(Inbound("lab/door", name, bytes(MAX_CERTIFICATE + 9), False))
    assert [len(item.payload) for item in mailbox.take(0)] == [MAX_CERTIFICATE + 1, 16 * 1024 + 1]
    assert len(OURS) <= MAX_CERTIFICATE


texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
inputs = st.dictionaries(st.sampled_from(sorted(json.loads(OURS)["inputs"]) + ["adaptive_level"]), texts, max_size=4)
payloads = (
    st.binary(max_size=2000)
    | st.sampled_from([*NASTY.values(), OURS])
    | texts.map(lambda value: json.dumps(value).encode())
    | inputs.map(lambda values: with_inputs(**values))
    | st.text('{}[]",:0123456789 eE.-truefalsn\\', max_size=400).map(str.encode)
    | st.builds(lambda cut, more: OURS[:cut] + more, st.integers(0, len(OURS)), st.binary(max_size=9))
    | st.builds(lambda slot, boot: release(slot, boot=boot, manifest=MANIFEST), *[st.integers(0, 2**64 - 1)] * 2)
    | st.builds(lambda count, boot: a_state("online", boot, count), st.integers(1, 10**18), st.integers(0, 2**64 - 1))
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(st.tuples(st.sampled_from(sorted(TOPICS)), payloads, st.booleans()), max_size=12))
def test_nothing_under_any_topic_stops_the_bridge(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[str, bytes, bool]]
) -> None:
    harness = Harness(tmp_path_factory.mktemp("state"), MANIFEST)
    for name, payload, retained in messages:
        began = time.thread_time()
        signed_for = a_state("online", boot=1, count=1, certificate=payload)
        harness.send(signed_for, name="state")
        harness.send(payload, name=name, retained=retained)
        assert time.thread_time() - began < LONG_S
    session = harness.bridge.sessions["lab/door"]
    assert set(session.refused) <= set(REASONS) and 0 <= session.gaps <= 10**9
    harness.send(release(0, manifest=MANIFEST, camera="hall"), camera="lab/hall")


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=600) | st.text('{}[]",:019 eE.-\\tru', max_size=600).map(str.encode) | st.sampled_from([OURS])
)
def test_bounded_reading_gives_what_the_parser_gives_or_refuses(payload: bytes) -> None:
    try:
        found = read_json(payload, MAX_CERTIFICATE, 8, 4000)
    except ValueError:
        return
    assert found == json.loads(payload.decode())


# --- slots that cannot be


def test_a_slot_beyond_the_devices_life_is_refused_and_gaps_stay_sane(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.send(*(release(slot, manifest=MANIFEST) for slot in (0, 2**64 - 1, 1, 2**53, 5, 7)))
    session = harness.bridge.sessions["lab/door"]
    assert session.refused == {"values": 2} and session.gaps == 3
    last = MANIFEST.certificate().lifetime_releases - 1
    harness.send(release(last, manifest=MANIFEST))
    assert session.gaps == last - 4 and session.place == (1, last)


def test_ids_in_json_are_hex(tmp_path: Path) -> None:
    """JavaScript and jq round integers beyond 2^53."""
    harness = Harness(tmp_path, MANIFEST)
    harness.send(*(release(slot, 100, boot=2**63 + 1, manifest=MANIFEST) for slot in range(10)))
    documents = [json.loads(line) for line in harness.programs.getvalue().splitlines()]
    assert {document["type"] for document in documents} == {"verdict", "alert"}
    assert {document["boot_id"] for document in documents} == {"8000000000000001"}
