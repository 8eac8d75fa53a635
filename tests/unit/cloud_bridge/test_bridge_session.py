"""A session: whatever arrives, releases come out verified, once, and in slot order; all else is counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.ingest.engines import engines_of
from cloud_bridge.ingest.events import Release
from cloud_bridge.ingest.reasons import REASONS
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.store.records import CameraRecord
from tests.support.bridge_factory import DEVICE, OTHER, make_manifest, release
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.message import FLAG_SPENT

MANIFEST = make_manifest()
OTHER_MODEL = make_manifest(family="another")
DOOR = "lab/door"


def make_session(record: CameraRecord | None = None, reorder_slots: int = 2) -> CameraSession:
    return CameraSession(
        DOOR, DEVICE.public, engines_of(MANIFEST), record or CameraRecord(), reorder_slots=reorder_slots
    )


def at(slot: int, boot: int = 1, **how: int) -> bytes:
    return release(slot, slot % 1000, boot=boot, manifest=MANIFEST, **how)  # type: ignore[arg-type]  # flags alone


def former_release() -> bytes:
    """A release as the version before signed it: no time, no names."""
    body = pb.Features(
        schema=1, boot_id=1, slot=1, model_id=MANIFEST.model_id, flags=0, z=bytes(2 * MANIFEST.n), level=0
    ).SerializeToString()
    signature = DEVICE.sign(b"veilsight/v1/features\0" + body)
    return pb.Signed(body=body, signature=signature).SerializeToString()


def feed(session: CameraSession, *payloads: bytes) -> list[Release]:
    return [out for payload in payloads for out in session.receive("features", payload).releases]


def slots(releases: list[Release]) -> list[int]:
    return [out.slot for out in releases]


def test_a_stream_in_order_comes_out_at_once() -> None:
    session = make_session()
    for slot in range(5):
        out = feed(session, at(slot))
        assert slots(out) == [slot] and out[0].gap == 0 and list(out[0].z) == [slot] * MANIFEST.n
    assert session.received == 5 and not session.refused and not session.gaps


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (at(1)[:-1], "truncated"),
        (b"", "truncated"),
        (at(1) + b"\0", "oversized"),
        (b"\0" * 100_000, "oversized"),
        (release(1, manifest=MANIFEST, key=OTHER), "forged"),
        (release(1, manifest=MANIFEST, camera="hall"), "forged"),
        (former_release(), "schema"),
        (at(1, time_s=61), "values"),
        (bytes([at(1)[0] ^ 1]) + at(1)[1:], "malformed"),
        (at(1)[:-1] + bytes([at(1)[-1] ^ 1]), "forged"),
        (release(1, manifest=OTHER_MODEL), "model"),
        (at(1, flags=6), "flags"),
        (at(0), "duplicate"),
        (at(5, boot=0), "replayed"),
    ],
)
def test_a_bad_message_is_counted_and_changes_nothing_else(payload: bytes, reason: str) -> None:
    session = make_session()
    feed(session, at(0))
    assert session.receive("features", payload).releases == []
    assert session.refused == {reason: 1}
    assert slots(feed(session, at(1))) == [1]


def test_a_message_that_was_overtaken_is_put_back_in_order() -> None:
    session = make_session()
    assert slots(feed(session, at(1), at(0), at(3), at(2))) == [0, 1, 2, 3]
    assert not session.gaps


def test_a_missing_slot_is_given_up_after_the_buffer_and_late_ones_are_counted() -> None:
    session = make_session()
    out = feed(session, at(0), at(2), at(3), at(1))
    assert slots(out) == [0, 2, 3] and [r.gap for r in out] == [0, 1, 0]
    assert session.gaps == 1 and session.refused == {"late": 1}


def test_without_a_buffer_nothing_waits() -> None:
    assert slots(feed(make_session(reorder_slots=0), at(1), at(0))) == [1]


def test_a_higher_boot_id_begins_a_new_stream_and_ends_the_old_one() -> None:
    session = make_session()
    out = feed(session, at(0), at(2), at(0, boot=2), at(3), at(1, boot=2))
    assert [(r.boot_id, r.slot) for r in out] == [(1, 0), (1, 2), (2, 0), (2, 1)]
    assert session.refused == {"replayed": 1}


def test_a_running_stream_is_joined_without_a_gap() -> None:
    session = make_session()
    assert slots(feed(session, at(1000), at(1001))) == [1000, 1001]
    assert not session.gaps


def test_the_spent_flag_is_kept() -> None:
    assert [r.spent for r in feed(make_session(), at(0), at(1, flags=FLAG_SPENT))] == [False, True]


def test_nothing_read_before_a_restart_is_read_again() -> None:
    record = CameraRecord()
    feed(make_session(record), *(at(slot) for slot in range(4)))
    again = make_session(CameraRecord.of(record.row()))
    assert slots(feed(again, *(at(slot) for slot in range(6)))) == [4, 5]
    assert again.refused == {"replayed": 4}
    assert feed(again, at(9, boot=0)) == []


def test_slots_missed_between_two_starts_are_a_gap() -> None:
    record = CameraRecord()
    feed(make_session(record), at(0))
    assert [(r.slot, r.gap) for r in feed(make_session(record), at(10))] == [(10, 9)]


def test_what_was_accepted_is_told_whatever_becomes_of_it() -> None:
    session = make_session()
    taken = [session.receive("features", each) for each in (at(0), at(0), at(2), b"x", at(1), at(0, boot=2))]
    assert [[(a.boot_id, a.slot) for a in each.accepted] for each in taken] == [
        [(1, 0)],
        [],
        [(1, 2)],
        [],
        [(1, 1)],
        [(2, 0)],
    ]
    assert taken[0].accepted[0].message == at(0) and not any(each.unread for each in taken)


def test_an_accepted_release_that_is_not_read_is_named() -> None:
    """Slot 1 says that it is an hour older than slot 0."""
    session = make_session()
    feed(session, at(0, time_s=36_000))
    taken = session.receive("features", at(1, time_s=32_400))
    assert taken.releases == [] and taken.unread == [(1, 1, "clock")] and len(taken.accepted) == 1


POOL = [at(slot, boot) for boot in (1, 2, 3) for slot in (*range(12), 2**63, 2**64 - 1)]
POOL += [b"", POOL[0][:-1], POOL[0] + b"x", release(2, manifest=MANIFEST, key=OTHER), release(2, manifest=OTHER_MODEL)]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(POOL), max_size=60), st.integers(0, 4), st.data())
def test_no_order_of_arrival_yields_a_release_twice_or_out_of_order(
    messages: list[bytes], reorder_slots: int, data: st.DataObject
) -> None:
    record = CameraRecord()
    session = make_session(record, reorder_slots)
    out: list[Release] = []
    for message in messages:
        out += session.receive("features", message).releases
        if data.draw(st.booleans()):
            out += session.drain().releases
    out += session.drain().releases
    stream = [(r.boot_id, r.slot) for r in out]
    assert stream == sorted(set(stream))
    assert session.received == len(messages) == len(out) + sum(session.refused.values())
    assert all(reason in REASONS for reason in session.refused)
    again = make_session(record, reorder_slots)
    assert feed(again, *(at(r.slot, r.boot_id) for r in out)) == []


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(8)), st.sets(st.integers(1, 40)))
def test_dropped_messages_cost_only_their_own_slots(order: list[int], dropped: set[int]) -> None:
    session = make_session()
    sent = [slot for slot in range(42) if slot not in dropped]
    assert slots(feed(session, *(at(slot) for slot in sent)) + session.drain().releases) == sent
    assert session.gaps == len(dropped)
    assert not session.refused
