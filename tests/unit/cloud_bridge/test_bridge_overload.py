"""More comes than can be read: the newest first, no release without a verdict, and what is left out is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.contour.artist import Artist
from cloud_bridge.ingest.events import EventReader, Release
from cloud_bridge.ingest.freshness import IngestRule
from cloud_bridge.ingest.transport import Inbound, Mailbox
from cloud_bridge.narrator import Narrator
from tests.support.bridge_factory import OTHER, Harness, make_manifest, release
from tests.support.contour_factory import make_decoder

MANIFEST = make_manifest()
WAIT_S = IngestRule().shed_after_s
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)
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


def overdue(harness: Harness, slots: range, value: int = 0) -> None:
    """Let the bridge read releases of lab/door one by one, each overdue and followed."""
    for slot in slots:
        made = release(slot, value, manifest=MANIFEST, time_s=60)
        harness.bridge.handle([Inbound("lab/door", "features", made, False, None, LATER_S - 2 * WAIT_S, True)])


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
    overdue(harness, range(9))
    assert harness.spans == [(0, 7)]
    harness.bridge.settle()
    harness.bridge.settle()
    assert harness.spans == [(0, 7), (1, 8)] and harness.bridge.stats()["shed"] == 0


def releases(camera: str, count: int) -> list[Release]:
    return [Release(camera, 1, slot, np.full(64, slot, np.int16), False, slot, 0, 60) for slot in range(count)]


def test_cameras_that_began_together_are_read_in_turns() -> None:
    """Else all came to their last chance at once, and each verdict of a large fleet waited for all the others."""
    read_at = dict[str, list[int]]()
    for camera in (f"ward/c{number}" for number in range(64)):
        reader = EventReader(camera, 8, 4, 16)
        read_at[camera] = [e.last_slot for each in releases(camera, 40) for e in reader.push(each, shed=True)]
    assert all(slots[0] == 7 and set(np.diff(slots[1:])) == {8} for slots in read_at.values())
    later = [sum(slot in slots for slots in read_at.values()) for slot in range(15, 39)]
    assert sum(later) == 64 * 3 and max(later) <= 16  # 8 each, if names were spread evenly


def test_words_and_figures_are_left_out_first(tmp_path: Path) -> None:
    """The member's words for an alert cost as much as thirty verdicts, and a figure is an illustration."""
    found = []
    for name, send in (("usual", usual), ("overdue", overdue)):
        harness = Harness(tmp_path / name, MANIFEST, RULE, artist=Artist(make_decoder(), MANIFEST, unsure_below=0.05))
        harness.now_s = LATER_S
        send(harness, range(40), 90)
        alerts = [(alert.label, alert.raised, alert.slot) for alert in harness.alerts()]
        found.append((alerts, len(harness.member.described), sum("contour" in m.topic for m in harness.link.sent)))
    (alerts, words, figures), (late_alerts, no_words, no_figures) = found
    assert words > 0 and figures > 20 and alerts
    assert (no_words, no_figures) == (0, 0) and [each[:2] for each in late_alerts] == [each[:2] for each in alerts]


def test_an_alert_of_an_overdue_event_says_what_and_how_sure_all_the_same(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE, narrator=Narrator.of(MANIFEST))
    harness.now_s = LATER_S
    overdue(harness, range(40), 90)
    (alert,) = harness.alerts()
    (verdict,) = [each for each in harness.verdicts() if each.last_slot == alert.slot]
    assert alert.sentence == verdict.sentence and alert.sentence.startswith("very probably a fall")
    assert "perhaps" not in alert.sentence and sum(bool(each.sentence) for each in harness.verdicts()) == 1


def test_a_camera_that_floods_takes_no_words_from_another(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST)
    harness.now_s = LATER_S
    for slot in range(12):
        own = release(slot, 55, manifest=MANIFEST, time_s=60)
        other = release(slot, 55, manifest=MANIFEST, time_s=60, key=OTHER, camera="hall")
        batch = [Inbound("lab/door", "features", own, False, None, LATER_S - 2 * WAIT_S, True)]
        harness.bridge.handle([*batch, Inbound("lab/hall", "features", other, False, None, LATER_S)])
    assert {event.camera for event in harness.member.described} == {"lab/hall"}


def test_what_somebody_has_asked_for_is_said_all_the_same(harness: Harness) -> None:
    harness.bridge._requests._asked["lab/door"] = 1.0
    overdue(harness, range(16), 55)
    assert [event.last_slot for event in harness.member.described] == [7]


def usual(harness: Harness, slots: range, value: int) -> None:
    harness.send(*(release(slot, value, manifest=MANIFEST, time_s=60) for slot in slots))


def test_what_was_left_out_before_a_restart_is_read_when_nothing_more_comes() -> None:
    def reader() -> EventReader:
        return EventReader("lab/hall", 8, 4, 16)

    made = releases("lab/hall", 8)
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
