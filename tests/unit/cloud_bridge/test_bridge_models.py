"""Several models in one bridge: each event is of one, read by it alone, and nothing is lost while one comes or goes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.alerts.lifecycle import STALE
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.contour.artist import Artist
from cloud_bridge.inference.member import FamilyMember, Reading
from cloud_bridge.ingest.engines import Engine, engines_of
from cloud_bridge.ingest.events import Event
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.transport import Inbound
from cloud_bridge.models import Model, by_id
from cloud_bridge.store import tables
from cloud_bridge.store.database import reading
from cloud_bridge.store.records import CameraRecord
from familial.evaluate.sequential import AlertCalibration, OperatingPoint, ScoreLaw
from familial.model.checkpoint import checkpoint_hash, save
from tests.support.bridge_factory import DEVICE, OTHER, FakeMember, Harness, a_state, make_manifest, release
from tests.support.contour_factory import make_decoder
from tests.support.family_factory import make_family
from wire.artifact.manifest import EngineManifest
from wire.privacy.certificate import sigma_for
from wire.protocol.contour import open_contour
from wire.protocol.message import Verdict

A, B = make_manifest(), make_manifest(checkpoint="b" * 64)
FEWER = dataclasses.replace(A, tokens=2, family="fewer", levels={"strict": sigma_for(64, 2.0)})  # n = 32, not 64
FEWER = dataclasses.replace(FEWER, hashes={**A.hashes, "certificate": FEWER.certificate().sha256()})
NOISY = dataclasses.replace(A, sigma=sigma_for(64, 2.0), profile="strict")  # no level of A's
NOISY = dataclasses.replace(NOISY, hashes={**A.hashes, "certificate": NOISY.certificate().sha256()})


class Percent(FakeMember):
    """Reads as `FakeMember`, and counts only what is its own model's."""

    def __init__(self, manifest: EngineManifest) -> None:
        super().__init__()
        self.own = manifest.model_id

    def read(self, events: Sequence[Event]) -> list[Reading]:
        assert {event.model_id for event in events} == {self.own}
        return super().read(events)


def two(folder: Path, *, second: EngineManifest = B, **more: object) -> tuple[Harness, Percent]:
    """A bridge of two models: A, whose member is the harness's, and another."""
    member = Percent(second)
    harness = Harness(folder, A, more=[Model(Engine(second), member)], **more)  # type: ignore[arg-type]
    return harness, member


def of(manifest: EngineManifest, boot: int, slots: Sequence[int], value: int = 0) -> list[bytes]:
    return [release(slot, value or slot % 100, boot=boot, manifest=manifest) for slot in slots]


def spans(verdicts: Sequence[Verdict]) -> list[tuple[int, int, int, int]]:
    return [(v.model_id, v.boot_id, v.first_slot, v.last_slot) for v in verdicts]


def expected(manifest: EngineManifest, boot: int, slots: int) -> list[tuple[int, int, int, int]]:
    """The rule: an event ends with each release from the eighth on; a shorter stream is read once."""
    last = range(7, slots) if slots >= 8 else [slots - 1]
    return [(manifest.model_id, boot, max(0, slot - 7), slot) for slot in last]


def stored(harness: Harness) -> dict[tuple[int, int], str]:
    """(boot id, slot) -> why it was not read, of every release of the door in the store."""
    table = tables.releases
    with reading(harness.bridge._store.engine) as connection:
        rows = connection.execute(sa.select(table).where(table.c.camera_id == 1)).mappings().all()
    return {(int(row["boot_id"], 16), row["slot"]): row["refused"] for row in rows}


@settings(max_examples=25, deadline=None)
@given(
    starts=st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 12)), min_size=1, max_size=5),
    batch=st.integers(1, 9),
    swapped=st.booleans(),
)
def test_whatever_engine_each_start_has_every_event_is_of_one_model_and_none_is_missing(
    tmp_path_factory: pytest.TempPathFactory,
    starts: list[tuple[EngineManifest, int]],
    batch: int,
    swapped: bool,
) -> None:
    harness, member = two(tmp_path_factory.mktemp("swap"))
    order = [*range(12)]
    order[1], order[2] = (2, 1) if swapped else (1, 2)  # reordered on the way
    sent = [
        payload
        for boot, (manifest, slots) in enumerate(starts, 1)
        for payload in of(manifest, boot, [slot for slot in order if slot < slots])
    ]
    for first in range(0, len(sent), batch):
        harness.bridge.handle([Inbound("lab/door", "features", p, False) for p in sent[first : first + batch]])
    harness.send(a_state("offline", boot=len(starts)), name="state")
    harness.bridge.settle()
    found = spans(harness.verdicts())
    assert found == [each for boot, start in enumerate(starts, 1) for each in expected(start[0], boot, start[1])]
    everything = {(boot, slot) for boot, (_, slots) in enumerate(starts, 1) for slot in range(slots)}
    assert stored(harness) == dict.fromkeys(everything, "")
    assert {(b, s) for _, b, first, last in found for s in range(first, last + 1)} == everything
    assert {event.model_id for event in harness.member.events} <= {A.model_id} and member.own == B.model_id
    harness.bridge._store.close()


def test_a_camera_that_changes_its_engine_is_read_on_at_once(tmp_path: Path) -> None:
    harness, member = two(tmp_path)
    harness.send(*of(A, 1, range(10)), *of(B, 2, range(9)))
    assert spans(harness.verdicts()) == [*expected(A, 1, 10), *expected(B, 2, 9)]
    assert [event.boot_id for event in member.events] == [2, 2]
    assert [event.boot_id for event in harness.member.events] == [1, 1, 1]


def test_each_model_reads_a_batch_of_its_own_in_one_forward(tmp_path: Path) -> None:
    harness, member = two(tmp_path)
    hall = [release(slot, slot, manifest=B, key=OTHER, camera="hall") for slot in range(8)]
    batch = [Inbound("lab/door", "features", payload, False) for payload in of(A, 1, range(9))]
    batch += [Inbound("lab/hall", "features", payload, False) for payload in hall]
    harness.bridge.handle(batch)
    assert harness.member.batches == [2] and member.batches == [1]
    assert [v.last_slot for v in harness.verdicts()] == [7, 8] and len(harness.verdicts("hall")) == 1


def test_a_start_has_one_model(tmp_path: Path) -> None:
    """A device loads its engine once: what names another one within a start is refused, and changes nothing."""
    harness, _ = two(tmp_path)
    harness.send(*of(A, 1, range(9)), *of(B, 1, range(9, 12)), *of(A, 1, range(9, 11)))
    assert spans(harness.verdicts()) == expected(A, 1, 11)
    session = harness.bridge.sessions["lab/door"]
    assert session.refused == {"model": 3} and session.unknown_model == ""


@pytest.mark.parametrize("other", [B, FEWER], ids=["the same n", "another n"])
def test_a_model_that_is_unknown_is_refused_by_name_and_read_as_soon_as_it_is_added(
    tmp_path: Path, other: EngineManifest, caplog: pytest.LogCaptureFixture
) -> None:
    harness = Harness(tmp_path, A)
    harness.send(*of(A, 1, range(9)))
    harness.now_s = 31.0
    harness.send(*of(other, 2, range(3)))
    session, name = harness.bridge.sessions["lab/door"], f"{other.model_id:016x}"
    assert session.refused == {"model": 3} and session.unknown_model == name
    assert caplog.text.count("a message is refused (model") == 1 and name in caplog.text and "[[models]]" in caplog.text
    harness.bridge.watch()
    stale = harness.alerts()[-1]
    assert stale.label == STALE and f"model {name}" in stale.sentence and "[[models]]" in stale.sentence
    harness.bridge._looked_s = -1e9
    harness.bridge.look()
    assert harness.bridge.health["unknown_models"] == {"lab/door": name}
    member = Percent(other)
    harness.bridge.change(by_id(*harness.bridge.models.values(), Model(Engine(other), member)))
    harness.send(*of(other, 2, range(3, 12)))
    found = harness.verdicts()
    assert spans(found) == [*expected(A, 1, 9), *[(other.model_id, 2, slot - 7, slot) for slot in (10, 11)]]
    assert session.unknown_model == "" and session.refused == {"model": 3} and session.gaps == 0
    assert stored(harness).keys() == {(1, slot) for slot in range(9)} | {(2, slot) for slot in range(3, 12)}


def test_an_old_message_of_a_model_that_is_gone_names_no_unknown_model(tmp_path: Path) -> None:
    """A broker can deliver what the camera has signed once, again."""
    harness = Harness(tmp_path, A)
    harness.send(*of(A, 2, range(3)), *of(B, 1, range(3)))
    assert harness.bridge.sessions["lab/door"].refused == {"model": 3}
    assert harness.bridge.sessions["lab/door"].unknown_model == ""


def test_how_many_cameras_run_each_model_is_counted(tmp_path: Path) -> None:
    """The hall was never heard: it counts for none."""
    harness, _ = two(tmp_path)
    counted = list[dict[str, int]]()
    for boot, manifest in enumerate((A, B), 1):
        harness.send(*of(manifest, boot, range(2)))
        harness.bridge._looked_s = -1e9
        harness.bridge.look()
        counted.append(harness.bridge.health["models"])
    a, b = f"{A.model_id:016x}", f"{B.model_id:016x}"
    assert counted == [{a: 1, b: 0}, {a: 0, b: 1}]


def test_what_nobody_has_signed_names_no_unknown_model(tmp_path: Path) -> None:
    harness = Harness(tmp_path, A)
    for made in (B, FEWER):
        harness.send(release(0, manifest=made, key=OTHER))
    session = harness.bridge.sessions["lab/door"]
    assert session.unknown_model == "" and session.refused["model"] == 0 and session.received == 2


def test_a_model_that_goes_has_read_what_came_of_it(tmp_path: Path) -> None:
    """Slot 9 waits for 8, and the event of the hall is not whole: both are read before the model goes."""
    harness, member = two(tmp_path)
    closed = list[str]()
    models = harness.bridge.models
    first = dataclasses.replace(models[A.model_id], close=lambda: closed.append("A"))
    harness.bridge.change({A.model_id: first, B.model_id: models[B.model_id]})
    harness.send(*of(A, 1, [*range(8), 9]))
    hall = [release(slot, slot, manifest=A, key=OTHER, camera="hall") for slot in range(3)]
    harness.send(*hall, camera="lab/hall")
    harness.bridge.change({B.model_id: models[B.model_id]})
    assert closed == ["A"]
    assert spans(harness.verdicts()) == [(A.model_id, 1, 0, 7), (A.model_id, 1, 2, 9)]
    assert [(v.model_id, v.last_slot, sum(v.present)) for v in harness.verdicts("hall")] == [(A.model_id, 2, 3)]
    assert stored(harness) == dict.fromkeys([(1, slot) for slot in (*range(8), 9)], "")
    harness.send(*of(A, 1, [10]), *of(B, 2, range(8)))
    assert harness.bridge.sessions["lab/door"].refused == {"model": 1}
    assert spans(harness.verdicts())[2:] == expected(B, 2, 8) and len(member.events) == 1


def test_a_model_that_was_removed_too_early_is_added_again_within_the_camera_s_start(tmp_path: Path) -> None:
    harness, _ = two(tmp_path)
    models = harness.bridge.models
    harness.send(*of(A, 1, range(8)))
    harness.bridge.change({B.model_id: models[B.model_id]})
    harness.send(*of(A, 1, range(8, 10)))
    session = harness.bridge.sessions["lab/door"]
    assert session.refused == {"model": 2} and session.model_id == -1
    harness.bridge.change(models)
    harness.send(*of(A, 1, range(10, 19)))
    assert spans(harness.verdicts()) == [(A.model_id, 1, slot - 7, slot) for slot in (7, 17, 18)]
    assert session.refused == {"model": 2} and session.model_id == A.model_id and session.gaps == 2


def test_a_swap_in_one_step_loses_and_doubles_nothing(tmp_path: Path) -> None:
    harness = Harness(tmp_path, A)
    harness.send(*of(A, 1, range(5)))
    harness.bridge.change(by_id(Model(Engine(B), Percent(B))))
    harness.send(*of(B, 2, range(9)))
    assert spans(harness.verdicts()) == [*expected(A, 1, 5), *expected(B, 2, 9)]


def test_the_model_that_stays_is_not_disturbed(tmp_path: Path) -> None:
    harness, _ = two(tmp_path)
    harness.send(*of(A, 1, range(6)))
    harness.bridge.change({A.model_id: harness.bridge.models[A.model_id]})
    harness.send(*of(A, 1, range(6, 9)))
    assert spans(harness.verdicts()) == expected(A, 1, 9)


# --- restarts


def again(harness: Harness, folder: Path, *manifests: EngineManifest) -> Harness:
    """The next bridge on the same store, of other models; the broker has all that the last one had to publish."""
    harness.bridge.close()
    harness.bridge._store.close()
    first, *more = manifests
    return Harness(folder, first, more=[Model(Engine(each), Percent(each)) for each in more])


def test_a_restart_goes_on_with_the_model_of_each_camera(tmp_path: Path) -> None:
    harness, _ = two(tmp_path)
    harness.send(*of(B, 1, range(9)))
    harness.send(*(release(slot, manifest=A, key=OTHER, camera="hall") for slot in range(9)), camera="lab/hall")
    harness = again(harness, tmp_path, A, B)
    harness.send(*of(B, 1, range(9, 11)))
    harness.send(release(9, manifest=A, key=OTHER, camera="hall"), camera="lab/hall")
    assert spans(harness.verdicts()) == expected(B, 1, 11)[2:] and all(all(v.present) for v in harness.verdicts())
    assert [v.last_slot for v in harness.verdicts("hall")] == [9] and all(harness.verdicts("hall")[0].present)
    assert [session.engine.id for session in harness.bridge.sessions.values()] == [B.model_id, A.model_id]


@pytest.mark.parametrize("following", [A, B], ids=["the same engine", "another engine"])
def test_the_last_event_of_a_start_outlives_a_restart_before_the_next_start_is_in_order(
    tmp_path: Path, following: EngineManifest
) -> None:
    """Slot 1 of the next start waits for slot 0 when the bridge ends."""
    harness, _ = two(tmp_path)
    harness.send(*of(A, 1, range(5)), *of(following, 2, [1]))
    found = spans(harness.verdicts())
    harness = again(harness, tmp_path, A, B)
    harness.send(*of(following, 2, [0, *range(2, 9)]))
    assert found + spans(harness.verdicts()) == [*expected(A, 1, 5), *expected(following, 2, 9)]


def test_what_waits_of_a_model_that_is_not_configured_any_more_is_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Slots 0 to 3 were in no verdict yet, and 5 waits for 4: the store keeps them, and says why they are unread."""
    harness, _ = two(tmp_path)
    harness.send(*of(B, 1, [0, 1, 2, 3, 5]))
    harness = again(harness, tmp_path, A)
    assert stored(harness) == dict.fromkeys([(1, slot) for slot in (0, 1, 2, 3, 5)], "model")
    assert harness.bridge.stats()["refused"] == {"model": 5} and "5 releases in the store are of model" in caplog.text
    harness.send(*of(B, 1, [6]), *of(A, 2, range(8)))
    assert spans(harness.verdicts()) == expected(A, 2, 8)
    harness = again(harness, tmp_path, A, B)
    assert harness.bridge.stats()["refused"] == {}
    harness.send(*of(A, 2, [8]), *of(B, 3, range(8)))
    assert spans(harness.verdicts()) == [(A.model_id, 2, 1, 8), *expected(B, 3, 8)]


def test_what_was_stored_and_then_refused_is_in_no_event_of_the_next_start_either(tmp_path: Path) -> None:
    """The clock was set back before slot 8."""
    harness, _ = two(tmp_path)
    harness.now_s = 600.0
    times = {slot: 0 if slot == 8 else 600 for slot in range(11)}
    sent = {slot: release(slot, boot=1, manifest=B, time_s=time_s) for slot, time_s in times.items()}
    harness.send(*(sent[slot] for slot in range(9)))
    assert stored(harness)[1, 8] == "clock"
    harness = again(harness, tmp_path, A, B)
    harness.now_s = 600.0
    harness.send(sent[9])
    assert harness.verdicts()[0].present == (*[True] * 6, False, True)


def test_what_was_given_up_is_in_no_later_event(tmp_path: Path) -> None:
    """The model is back at the next start, and nothing came between the two but what the broker sends again."""
    harness, _ = two(tmp_path)
    harness.send(*of(B, 1, [0, 1, 2, 3, 5]))
    harness = again(again(harness, tmp_path, A), tmp_path, A, B)
    harness.bridge.settle()
    harness.send(*of(B, 1, [3, 5]), *of(B, 1, range(6, 14)))
    assert harness.bridge.stats()["refused"] == {"replayed": 2}
    assert spans(harness.verdicts()) == [(B.model_id, 1, 6, 13)] and all(harness.verdicts()[0].present)


def test_a_camera_goes_on_in_its_start_when_its_model_is_back(tmp_path: Path) -> None:
    harness, _ = two(tmp_path)
    harness.send(*of(B, 1, range(9)))
    harness = again(harness, tmp_path, A)
    harness.send(*of(B, 1, range(9, 12)))
    harness = again(harness, tmp_path, A, B)
    harness.send(*of(B, 1, range(5)), *of(B, 1, range(12, 20)))
    assert spans(harness.verdicts()) == [(B.model_id, 1, 12, 19)]
    assert harness.bridge.stats()["refused"] == {"replayed": 5} and harness.bridge.stats()["gaps"] == 3


# --- certificates


def state_of(manifest: EngineManifest, boot: int) -> tuple[bytes, bytes]:
    certificate = manifest.certificate().to_json().encode()
    return a_state("online", boot=boot, certificate=certificate), certificate


def session_of(*manifests: EngineManifest) -> CameraSession:
    return CameraSession("lab/door", DEVICE.public, engines_of(*manifests), CameraRecord(), reorder_slots=0)


def publish(session: CameraSession, manifest: EngineManifest, boot: int) -> None:
    for name, payload in zip(("state", "certificate"), state_of(manifest, boot), strict=True):
        session.receive(name, payload)


def read(session: CameraSession, manifest: EngineManifest, boot: int, slots: Sequence[int]) -> list[int]:
    taken = [session.receive("features", payload) for payload in of(manifest, boot, slots)]
    return [each.slot for one in taken for each in one.releases]


def test_a_certificate_of_one_engine_does_not_vouch_for_another() -> None:
    session = session_of(A, NOISY)
    publish(session, NOISY, 2)
    assert read(session, A, 2, range(2)) == [] and session.refused == {"untrusted": 2}
    assert read(session, NOISY, 2, range(2)) == [0, 1]


def test_what_an_earlier_start_has_left_to_send_is_judged_by_its_own_certificate() -> None:
    """The device was updated while the broker was away: its outbox comes after the state of the new start."""
    session = session_of(A, NOISY)
    publish(session, A, 1)
    assert read(session, A, 1, range(3)) == [0, 1, 2]
    publish(session, NOISY, 2)
    # a state of a later start was read: what is left of the start before is no replay, while none of the new one came
    assert read(session, A, 1, range(3, 5)) == [3, 4] and read(session, NOISY, 2, range(2)) == [0, 1]
    assert session.refused == {}


def test_what_an_earlier_start_was_refused_for_is_not_mended_by_a_later_certificate() -> None:
    session = session_of(A, NOISY)
    publish(session, NOISY, 1)
    publish(session, A, 2)
    assert read(session, A, 1, [0]) == [] and session.refused == {"untrusted": 1}
    assert read(session, NOISY, 1, [1]) == [1] and read(session, A, 2, [0]) == [0]


def test_a_new_start_is_read_before_its_state_comes_and_judged_after_it() -> None:
    session = session_of(A, NOISY)
    publish(session, A, 1)
    assert read(session, A, 1, [0]) == [0] and read(session, NOISY, 2, range(2)) == [0, 1]
    publish(session, A, 2)
    assert read(session, NOISY, 2, [2]) == [] and session.refused == {"untrusted": 1}


def test_an_engine_that_is_added_is_trusted_by_the_certificate_that_came_before_it() -> None:
    session = session_of(A)
    publish(session, NOISY, 1)
    assert session.refused == {"untrusted": 1}
    assert read(session, A, 1, [0]) == [] and read(session, NOISY, 1, [1]) == []
    assert session.refused == {"untrusted": 2, "model": 1}
    session.change(engines_of(A, NOISY), 0.0)
    assert read(session, NOISY, 1, range(2, 4)) == [2, 3] and read(session, A, 1, [4]) == []


# --- alerts, scenes, contours


def calibrated(checkpoint: str, threshold: float) -> AlertBudget:
    """A budget by which a fall is raised beyond `threshold` nats of evidence."""
    points = (OperatingPoint(threshold, 4.0, 0.9, 3.0, 6.0),)
    law = ScoreLaw(0.3, 1.0, 2.0, points, direction=(0.06, *[0.0] * (A.n - 1)))
    table = AlertCalibration(checkpoint, "1", "made up", 24.0, {"fall": law})
    budget = AlertBudget.of(AlertRule(false_per_day={"fall": 4}), table, A.labels, 8, 1.0, "x")
    assert budget is not None
    return budget


def budgets(folder: Path) -> Harness:
    """A raises a fall by little evidence; for B nothing is evidence enough."""
    rule = AlertRule(false_per_day={"fall": 4})
    deaf = Model(Engine(B), Percent(B), calibrated("b", 1e6))
    return Harness(folder, A, rule, budget=calibrated("a", 4.0), more=[deaf])


FALL = [5] * 16 + [92] * 8


def feed(harness: Harness, manifest: EngineManifest, boot: int, values: Sequence[int]) -> None:
    harness.send(*(release(slot, value, boot=boot, manifest=manifest) for slot, value in enumerate(values)))


def test_alerts_are_weighed_by_the_tables_of_the_event_s_own_model(tmp_path: Path) -> None:
    harness = budgets(tmp_path)
    feed(harness, B, 1, FALL)
    assert harness.alerts() == []
    feed(harness, A, 2, FALL)
    assert [(alert.label, alert.model_id) for alert in harness.alerts()] == [("fall", A.model_id)]


def test_an_open_alert_survives_the_change_of_engine_and_is_cleared_by_the_other_model(tmp_path: Path) -> None:
    harness = budgets(tmp_path)
    feed(harness, A, 1, FALL)
    feed(harness, B, 2, [92] * 3)
    assert harness.open_alerts()[-1] == "fall"
    feed(harness, B, 3, [2] * 40)
    raised, cleared = harness.alerts()
    assert (raised.raised, cleared.raised) == (True, False) and cleared.first_id == raised.id
    assert (raised.model_id, cleared.model_id) == (A.model_id, B.model_id)


def test_the_baseline_of_one_model_is_not_taken_for_that_of_another_after_a_restart(tmp_path: Path) -> None:
    """Three releases of B have come, and no event yet: the counts are still A's."""
    harness = budgets(tmp_path)
    feed(harness, A, 1, [30] * 400)
    feed(harness, B, 2, [30] * 3)
    record = harness.bridge._records["lab/door"]
    assert record.event["model"] == f"{B.model_id:016x}" and record.event["weighed"] == f"{A.model_id:016x}"
    learned = record.in_a_row["fall baseline"]
    assert learned > 600, "it begins at 300"
    harness.bridge._store.close()
    harness = budgets(tmp_path)
    assert harness.bridge._books["lab/door"].in_a_row["fall baseline"] == learned
    feed(harness, B, 3, [0] * 8)
    assert harness.bridge._books["lab/door"].in_a_row["fall baseline"] != learned
    harness.bridge._store.close()
    bare = Harness(tmp_path, A, AlertRule(false_per_day={"fall": 4}), budget=calibrated("a", 4.0))
    assert bare.bridge._books["lab/door"].in_a_row == {"fall baseline": 300}


def test_verdicts_in_a_row_are_counted_whatever_model_made_them(tmp_path: Path) -> None:
    harness, _ = two(tmp_path, rule=AlertRule(raise_at=0.6, raise_for=2))
    feed(harness, A, 1, [0] * 7 + [90])
    feed(harness, B, 2, [0] * 7 + [90])
    assert [(a.label, a.model_id) for a in harness.alerts()] == [("fall", B.model_id)]


def test_an_alert_of_the_last_event_of_a_start_names_the_model_of_that_start(tmp_path: Path) -> None:
    """The message that ends the event is the other engine's."""
    harness, _ = two(tmp_path, rule=AlertRule(raise_at=0.6, raise_for=1))
    feed(harness, A, 1, [90] * 3)
    feed(harness, B, 2, [1])
    assert [(a.label, a.boot_id, a.model_id) for a in harness.alerts()] == [("fall", 1, A.model_id)]


def test_a_scene_of_two_engines_is_read_together(tmp_path: Path) -> None:
    room = SceneConfig("room", ["lab/door", "lab/hall"], weight=1.0)
    harness, _ = two(tmp_path, rule=AlertRule(raise_at=0.6, raise_for=1), scenes=[room])
    harness.send(*(release(slot, 55, manifest=B, key=OTHER, camera="hall") for slot in range(8)), camera="lab/hall")
    feed(harness, A, 1, [55] * 8)
    assert [alert.label for alert in harness.alerts()] == ["fall"]
    assert harness.alerts()[0].sentence.startswith("scene room: door 0.55, hall 0.55")


def test_a_figure_is_drawn_by_the_decoder_of_its_own_model(tmp_path: Path) -> None:
    draws = Model(Engine(B), Percent(B), artist=Artist(make_decoder(), B))
    harness = Harness(tmp_path, A, more=[draws])
    shown = list[tuple[str, int]]()
    harness.bridge.viewers.append(lambda camera, contour: shown.append((camera, contour.model_id)))
    harness.send(*of(A, 1, range(8)))
    harness.send(*(release(slot, manifest=B, key=OTHER, camera="hall") for slot in range(8)), camera="lab/hall")
    assert shown == [("lab/hall", B.model_id)]
    sent = [m for m in harness.link.sent if m.topic.endswith("/hall/contour")]
    assert len(sent) == 1
    open_contour(sent[0].payload, harness.key.public, "lab", "hall", B.model_id)


# --- two real families


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, EngineManifest]]:
    """Two checkpoints of the same shapes and other weights, and a manifest of each."""
    found = list[tuple[Path, EngineManifest]]()
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("family")
        save(make_family(seed=seed), folder)
        found.append((folder, make_manifest(checkpoint=checkpoint_hash(folder))))
    return found


def test_two_families_of_other_weights_are_read_each_by_its_own(
    tmp_path: Path, families: list[tuple[Path, EngineManifest]]
) -> None:
    (one, first), (other, second) = families
    assert first.hashes["checkpoint"] != second.hashes["checkpoint"] and first.model_id != second.model_id
    members = [FamilyMember.load(one, first, 1), FamilyMember.load(other, second, 1)]
    harness = Harness(tmp_path, first)
    harness.bridge.change(by_id(*(Model(Engine(m), who) for m, who in zip((first, second), members, strict=True))))
    feed(harness, first, 1, range(60, 70))
    feed(harness, second, 2, range(60, 70))
    found = harness.verdicts()
    assert [v.model_id for v in found] == [first.model_id] * 3 + [second.model_id] * 3
    for alone, verdicts, manifest in zip(members, (found[:3], found[3:]), (first, second), strict=True):
        only = Harness(tmp_path / hashlib.sha256(manifest.to_json().encode()).hexdigest()[:8], manifest)
        only.bridge.change(by_id(Model(Engine(manifest), alone)))
        feed(only, manifest, 1, range(60, 70))
        for got, wanted in zip(verdicts, only.verdicts(), strict=True):
            assert list(got.probabilities.values()) == pytest.approx([*wanted.probabilities.values()], abs=1e-6)
        only.bridge._store.close()
    same = [np.array([*v.probabilities.values()]) for v in (found[0], found[3])]
    assert np.abs(same[0] - same[1]).max() > 1e-3, "the two families read alike: the test would see no mix-up"
