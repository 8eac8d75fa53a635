"""Events: every release is read, in order, gaps marked."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.ingest.events import Event, EventReader, Release
from tests.support.bridge_factory import make_manifest

MANIFEST = make_manifest()


def make_reader() -> EventReader:
    return EventReader("lab/door", 8, 4, 16)


def one(slot: int, boot: int = 1, spent: bool = False) -> Release:
    return Release("lab/door", boot, slot, np.full(64, slot % 1000, np.int16), spent, 0)


def spans(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.first_slot, event.last_slot) for event in events]


def read(reader: EventReader, *releases: Release) -> list[Event]:
    return [event for release in releases for event in reader.push(release)]


def test_there_is_one_event_a_release_once_eight_slots_have_passed() -> None:
    assert spans(read(make_reader(), *map(one, range(10)))) == [(0, 7), (1, 8), (2, 9)]


def test_a_stream_joined_late_waits_for_eight_slots_of_its_own() -> None:
    assert spans(read(make_reader(), *map(one, range(100, 109)))) == [(100, 107), (101, 108)]


def test_a_short_stream_is_read_once_at_its_end() -> None:
    reader = make_reader()
    assert read(reader, *map(one, range(3))) == []
    event = reader.flush()[0]
    assert spans([event]) == [(0, 2)]
    assert event.present.tolist() == [False] * 5 + [True] * 3
    assert event.z[:, 0, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 2]
    assert reader.flush() == []


def test_a_whole_stream_has_nothing_left_at_its_end() -> None:
    reader = make_reader()
    read(reader, *map(one, range(9)))
    assert reader.flush() == []


def test_a_stream_goes_on_after_its_end_was_read() -> None:
    reader = make_reader()
    read(reader, *map(one, range(9)))
    reader.flush()
    assert spans(read(reader, one(12))) == [(5, 12)]


def test_gaps_are_marked() -> None:
    events = read(make_reader(), *map(one, (0, 1, 4, 7)))
    assert events[0].present.tolist() == [True, True, False, False, True, False, False, True]


def test_releases_before_a_long_gap_are_read_before_they_are_lost() -> None:
    assert spans(read(make_reader(), *map(one, (0, 1, 2, 50)))) == [(0, 2), (43, 50)]


def test_a_new_boot_ends_the_old_stream() -> None:
    events = read(make_reader(), *map(one, range(3)), *(one(slot, boot=2) for slot in range(8)))
    assert [(e.boot_id, e.first_slot, e.last_slot) for e in events] == [(1, 0, 2), (2, 0, 7)]


def test_releases_of_noise_alone_are_not_read() -> None:
    events = read(make_reader(), *map(one, range(8)), *(one(slot, spent=True) for slot in range(8, 30)), one(30))
    assert spans(events) == [(0, 7), (23, 30)]
    assert events[1].present.tolist() == [False] * 7 + [True]


def test_events_do_not_change_after_they_were_made() -> None:
    reader = make_reader()
    event = read(reader, *map(one, range(8)))[0]
    before = event.z.copy()
    read(reader, *map(one, range(8, 20)))
    assert np.array_equal(event.z, before)


@settings(deadline=None)
@given(st.sets(st.integers(0, 60), min_size=1), st.sets(st.integers(0, 60)))
def test_every_release_is_in_some_event_and_events_follow_each_other(taken: set[int], flushed: set[int]) -> None:
    reader, events = make_reader(), []
    for slot in sorted(taken):
        events += reader.push(one(slot))
        if slot in flushed:
            events += reader.flush()
    events += reader.flush()
    lasts = [event.last_slot for event in events]
    assert lasts == sorted(set(lasts))
    seen: set[int] = set()
    for event in events:
        slots = [event.last_slot - 7 + index for index in range(8)]
        here = [slot for slot, present in zip(slots, event.present, strict=True) if present]
        assert here == [slot for slot in slots if slot in taken]
        assert event.z[event.present][:, 0, 0].tolist() == here
        assert not event.z[~event.present].any()
        assert event.first_slot <= here[0] and event.first_slot >= min(taken)
        seen |= set(here)
    assert seen == taken
