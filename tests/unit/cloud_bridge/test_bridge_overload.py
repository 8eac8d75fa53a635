"""More comes than can be read: the newest first, no release without a verdict, and what is left out is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud_bridge.ingest.events import EventReader, Release
from cloud_bridge.ingest.freshness import IngestRule
from cloud_bridge.ingest.transport import Inbound, Mailbox
from tests.support.bridge_factory import Harness, make_manifest, release

MANIFEST = make_manifest()
WAIT_S = IngestRule().shed_after_s
LATER_S = 100.0  # when the bridge reads; it has begun at 0


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    made = Harness(tmp_path, MANIFEST)
    made.now_s = LATER_S
    return made


def read(harness: Harness, slots: range, came_s: float) -> None:
    """Let releases of lab/door wait that came at `came_s`, and read them all."""
    mailbox = Mailbox(["lab/door", "lab/hall"])
    for slot in slots:
        payload = release(slot, manifest=MANIFEST, time_s=60)
        mailbox.put(Inbound("lab/door", "features", payload, False, None, came_s))
    while batch := mailbox.take(0):
        harness.bridge.handle(batch)


def test_an_overdue_backlog_is_read_once_and_ends_with_the_newest(harness: Harness) -> None:
    """64 releases would be 57 overlapping verdicts; eight have all of them, each once."""
    read(harness, range(64), came_s=LATER_S - 1.1 * WAIT_S)
    assert harness.spans == [(k, k + 7) for k in range(0, 64, 8)]
    assert all(all(event.present) for event in harness.member.events)
    stats = harness.bridge.stats()
    assert (stats["received"], stats["shed"], stats["verdicts"], stats["refused"]) == (64, 49, 8, {})


def test_the_newest_is_read_however_many_were_left_out(harness: Harness) -> None:
    """The last event overlaps the one before it: the newest release is always read."""
    read(harness, range(61), came_s=LATER_S - 1.1 * WAIT_S)
    assert harness.spans[-2:] == [(48, 55), (53, 60)]


def test_what_is_not_overdue_is_read_whole(harness: Harness) -> None:
    read(harness, range(20), came_s=LATER_S - 0.9 * WAIT_S)
    assert harness.spans == [(k, k + 7) for k in range(13)] and harness.bridge.stats()["shed"] == 0


def test_what_waited_while_the_bridge_did_not_read_is_not_overdue(tmp_path: Path) -> None:
    """It began a moment ago, or the store was away: that is no overload, and every verdict is made."""
    harness = Harness(tmp_path, MANIFEST)
    harness.now_s = 0.9 * WAIT_S
    read(harness, range(20), came_s=-LATER_S)
    assert len(harness.spans) == 13 and harness.bridge.stats()["shed"] == 0


def test_a_fall_in_what_is_left_out_is_read_in_a_later_event(harness: Harness) -> None:
    """The release of the fall is the oldest of an event that is left out, and in the middle of one that is read."""
    read(harness, range(64), came_s=LATER_S - 1.1 * WAIT_S)
    seen = {slot for first, last in harness.spans for slot in range(first, last + 1)}
    assert seen == set(range(64))


def test_an_event_that_was_left_out_for_rubbish_is_read_when_nothing_more_comes(harness: Harness) -> None:
    """Whoever writes under the camera's name can make its newest release look followed."""
    for slot in range(8):
        made = release(slot, manifest=MANIFEST, time_s=60)
        harness.bridge.handle([Inbound("lab/door", "features", made, False, None, LATER_S - 2 * WAIT_S, True)])
    assert harness.spans == []
    harness.bridge.settle()
    harness.bridge.settle()
    assert harness.spans == [(0, 7)] and harness.bridge.stats()["shed"] == 0


def test_what_was_left_out_before_a_restart_is_read_when_nothing_more_comes() -> None:
    def reader() -> EventReader:
        return EventReader("lab/door", 8, 4, 16)

    made = [Release("lab/door", 1, slot, np.full(64, slot, np.int16), False, slot, 0, 60) for slot in range(8)]
    before, after, whole = reader(), reader(), reader()
    assert [before.push(each, shed=True) for each in made] == [[]] * 8 and before.owes
    after.resume(before.saved(), 1, made)
    assert after.owes
    (event,) = after.flush()
    assert (event.first_slot, event.last_slot) == (0, 7) and not after.owes
    for each in made:
        whole.push(each)
    after.resume(whole.saved(), 1, made)
    assert not after.owes, "it was read before"


def test_every_release_is_stored_all_the_same(harness: Harness) -> None:
    read(harness, range(64), came_s=LATER_S - 1.1 * WAIT_S)
    record = next(iter(harness.bridge._records.values()))
    assert [each.slot for each in harness.bridge._store.recent(record, 64)] == list(range(64))
