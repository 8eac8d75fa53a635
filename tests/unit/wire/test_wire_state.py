"""States and signed documents: readable JSON, verified over the bytes that came, bounded before they are parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.errors import MessageError
from wire.protocol.document import MAX_DOCUMENT, read_document, seal_document
from wire.protocol.keys import DeviceKey
from wire.protocol.state import open_state, seal_state
from wire.protocol.topics import TOPICS, signed_context

KEY, OTHER = DeviceKey(b"d" * 32), DeviceKey(b"o" * 32)
HERE = ("lab", "door")
FIELDS = {"status": "online", "reason": "", "boot_id": 2**63 + 1, "model_id": 2**64 - 1, "count": 3}
FIELDS |= {"certificate": "c" * 64, "blind": False, "watching": True, "slot_s": 0.5, "profile": "balanced"}


def sealed(**changes: Any) -> bytes:
    return seal_state({**FIELDS, **changes}, KEY, *HERE)


def reason(payload: bytes) -> str:
    with pytest.raises(MessageError) as caught:
        open_state(payload, KEY.public, *HERE)
    return caught.value.reason


def test_a_state_is_read_back_and_is_plain_json() -> None:
    payload = sealed()
    state = open_state(payload, KEY.public, *HERE)
    assert (state.online, state.boot_id, state.count, state.watching, state.blind) == (True, 2**63 + 1, 3, True, False)
    assert state.fields["model_id"] == 2**64 - 1 and state.fields["slot_s"] == 0.5
    plain = json.loads(payload)
    assert plain["boot_id"] == "8000000000000001"  # JavaScript would round the number
    assert set(plain) <= set(TOPICS["state"].fields)


def test_a_third_party_verifies_the_bytes_that_came() -> None:
    """As docs/subscribe.md says: cut the signature off, put the brace back."""
    payload = sealed()
    body, _, rest = payload.rpartition(b', "signature": "')
    assert KEY.public.verify(bytes.fromhex(rest[:128].decode()), signed_context("state", *HERE) + body + b"}")


@settings(deadline=None)
@given(st.integers(0, len(sealed()) - 1), st.integers(1, 255))
def test_no_byte_of_a_state_can_be_changed(at: int, flip: int) -> None:
    payload = bytearray(sealed())
    payload[at] ^= flip
    assert reason(bytes(payload)) in ("forged", "malformed", "schema")


@settings(deadline=None)
@given(st.binary(max_size=MAX_DOCUMENT) | st.text('{}[]",:0123456789 eE.-truefalsn\\u', max_size=300).map(str.encode))
def test_random_bytes_are_refused(payload: bytes) -> None:
    assert reason(payload) in ("malformed", "schema")


@pytest.mark.parametrize("name", ["status", "reason", "boot_id", "count", "certificate", "blind", "watching"])
def test_a_state_without_a_field_is_malformed(name: str) -> None:
    kept = {field: value for field, value in FIELDS.items() if field != name}
    assert reason(seal_state(kept, KEY, *HERE)) == "malformed"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "gone"}, "values"),
        ({"reason": "a\nb"}, "values"),
        ({"count": -1}, "values"),
        ({"count": 0}, "values"),  # online, and yet the Last Will's
        ({"count": True}, "malformed"),
        ({"certificate": "c"}, "values"),
        ({"watching": "yes"}, "malformed"),
    ],
)
def test_a_bad_state_is_refused_with_its_reason(changes: dict[str, Any], why: str) -> None:
    assert reason(sealed(**changes)) == why


def test_a_state_of_another_key_kind_or_camera_is_forged() -> None:
    assert reason(seal_state(FIELDS, OTHER, *HERE)) == "forged"
    assert reason(seal_state(FIELDS, KEY, "lab", "hall")) == "forged"
    ids = {"boot_id": "0" * 16, "model_id": "0" * 16}
    assert reason(seal_document("command", {**FIELDS, **ids}, KEY, *HERE)) == "forged"


def test_a_state_of_the_version_before_is_refused_as_such() -> None:
    old = {"status": "online", "reason": "", "boot_id": 7, "public_key": KEY.public.hex, "blind": False}
    with pytest.raises(MessageError, match="schema 1, this software reads schema 2; update the software that wrote it"):
        open_state(json.dumps(old).encode(), KEY.public, *HERE)


@pytest.mark.parametrize(
    "fields", [{"a": {"b": 1}}, {"a": [1]}, {"a": "x" * MAX_DOCUMENT}, {"a": 10**30}, {"a": float("nan")}]
)
def test_what_no_reader_would_take_is_not_signed(fields: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        seal_document("state", fields, KEY, *HERE)


def test_fields_are_bounded() -> None:
    with pytest.raises(MessageError, match="too many"):
        seal_document("state", {f"f{k}": 1 for k in range(40)}, KEY, *HERE)
    with pytest.raises(MessageError, match="no signature"):
        read_document(b'{"schema": 2}')
