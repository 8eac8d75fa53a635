"""Several models in one bridge: each event is of one, read by it alone, and nothing is lost while one comes or goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.alerts.lifecycle import STALE
from cloud_bridge.ingest.engines import Engine, engines_of
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.ingest.transport import Inbound
from cloud_bridge.models import Model, by_id
from cloud_bridge.store.records import CameraRecord
from tests.support.bridge_factory import DEVICE, OTHER, Harness, a_state, release
from tests.support.two_models import FEWER, NOISY, A, B, Percent, expected, of, spans, stored, two
from wire.artifact.manifest import EngineManifest


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
