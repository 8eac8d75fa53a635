"""The fixed places of a release's fields: what protobuf reads, and nothing that protobuf would write otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.protocol import veilsight_pb2 as pb
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FeatureMessage
from wire.protocol.release_layout import features_size, read_release

KEY = DeviceKey(b"d" * 32)
U64, U32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)


@given(st.sampled_from([1, 16, 63, 64, 512, 4096]), U64, U64, U64, U32, U32, U32, st.randoms(use_true_random=False))
def test_the_fields_are_those_that_protobuf_reads(n, boot, slot, model, flags, level, time_s, rng) -> None:  # type: ignore[no-untyped-def]
    z = np.frombuffer(rng.randbytes(2 * n), "<i2").astype(np.int16)
    payload = FeatureMessage(boot, slot, model, flags, z, level, time_s).seal(KEY, "ward", "door")
    found, envelope = read_release(payload, n), pb.Signed.FromString(payload)
    assert found is not None and len(payload) == features_size(n)
    body = pb.Features.FromString(envelope.body)
    assert (found.body, found.signature) == (envelope.body, envelope.signature)
    assert (found.schema, found.boot_id, found.slot) == (body.schema, body.boot_id, body.slot)
    assert (found.model_id, found.flags, found.z) == (body.model_id, body.flags, body.z)
    assert (found.level, found.time_s) == (body.level, body.time_s)


@pytest.mark.parametrize("n", [16, 64, 512])
def test_a_byte_that_is_no_value_must_be_what_it_is(n: int) -> None:
    """Each byte of the payload is changed in turn: either the fields change with it, or the payload is refused."""
    payload = FeatureMessage(1, 2, 3, 0, np.zeros(n, np.int16), 0, 60).seal(KEY, "ward", "door")
    good = read_release(payload, n)
    structure = 0
    for at in range(len(payload)):
        changed = payload[:at] + bytes([payload[at] ^ 0x55]) + payload[at + 1 :]
        found = read_release(changed, n)
        assert found != good
        structure += found is None
    lengths = len(payload) - 64 - 2 * n - 4 * 4 - 3 * 8
    assert structure == lengths
