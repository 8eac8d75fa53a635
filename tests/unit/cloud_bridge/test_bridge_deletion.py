"""Everything of a camera is deleted: what it was ordered, and what the broker keeps of it. In both databases."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cloud_bridge.store import store as module
from cloud_bridge.store import tables
from cloud_bridge.store.commands import add_command, unsent
from cloud_bridge.store.database import StoreConfig, open_engine, reading
from cloud_bridge.store.records import Work
from cloud_bridge.store.retention import Left, delete
from cloud_bridge.store.shard import Shard
from cloud_bridge.store.store import Store
from tests.support.bridge_factory import DEVICE, OTHER, Harness, make_manifest, release
from wire.errors import StoreAway
from wire.mqtt import Message
from wire.protocol.keys import DeviceKey
from wire.protocol.topics import TOPICS

pytestmark = pytest.mark.usefixtures("every_engine_is_closed")

MANIFEST = make_manifest(slot_s=1.0)
OPEN = "veilsight/v1/lab/{}/alert/open"
CLEARED = {camera: Message(OPEN.format(camera), b"", 1, True) for camera in ("door", "hall")}


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a second."""
    monkeypatch.setattr(module, "_LOOK_S", 0.0)


def live(folder: Path, config: StoreConfig) -> Harness:
    """A fall at the door that is open, and nothing in the hall."""
    harness = Harness(folder, MANIFEST, store=config)
    harness.now_s = 1000.0
    for slot in range(10):
        harness.send(release(slot, 90, manifest=MANIFEST, time_s=960))
        hall = release(slot, manifest=MANIFEST, time_s=960, key=OTHER, camera="hall")
        harness.send(hall, camera="lab/hall")
    assert harness.open_alerts()[-1] == "fall"
    return harness


def engine_of(harness: Harness) -> Engine:
    return harness.bridge._store.engine


def rest(harness: Harness) -> list[Message]:
    """What an idle bridge publishes once its place is to be renewed."""
    before = len(harness.link.sent)
    harness.bridge._store._wrote_s = -1e9
    harness.bridge.rest()
    return harness.link.sent[before:]


def numbers(engine: Engine) -> list[int]:
    with reading(engine) as connection:
        return list(connection.scalars(sa.select(tables.outbox.c.id).order_by(tables.outbox.c.id)))


def ordered(engine: Engine) -> list[tuple[str, str, float]]:
    table = tables.commands
    with reading(engine) as connection:
        rows = connection.execute(sa.select(table.c.camera, table.c.who, table.c.made_s).order_by(table.c.made_s))
        return [(row.camera, row.who, row.made_s) for row in rows]


def order(engine: Engine, camera: str, now_s: float) -> None:
    add_command(engine, "olga", camera, "strict", lambda number: b"signed", now_s)


# --- commands


def test_what_a_camera_was_ordered_is_deleted(config: StoreConfig, tmp_path: Path) -> None:
    engine = engine_of(live(tmp_path, config))
    for camera, now_s in (("lab/door", 1.0), ("lab/hall", 2.0), ("lab/door", 3.0), ("lab/door", 5.0)):
        order(engine, camera, now_s)
    assert delete(engine, "nora", "lab/door", 3.0, 5.0)["commands"] == 1  # the moment of the end is left out
    assert [made_s for _, _, made_s in ordered(engine)] == [1.0, 2.0, 5.0]
    assert delete(engine, "nora", "lab/door")["commands"] == 2
    assert ordered(engine) == [("lab/hall", "olga", 2.0)] and [each.camera for each in unsent(engine, Shard())] == [
        "lab/hall"
    ]
    assert delete(engine, "nora")["commands"] == 1 and ordered(engine) == []


def test_a_number_is_not_given_again_after_a_deletion(config: StoreConfig, tmp_path: Path) -> None:
    """A device would refuse the order as old."""
    engine = engine_of(live(tmp_path, config))
    first = add_command(engine, "olga", "lab/door", "strict", lambda number: b"", 1000.0)["number"]
    delete(engine, "nora", "lab/door")
    assert add_command(engine, "olga", "lab/door", "strict", lambda number: b"", 1001.0)["number"] > first


# --- what the broker keeps


def test_alert_open_is_all_that_the_broker_keeps_in_our_name_under_a_camera() -> None:
    kept = {name for name, row in TOPICS.items() if row.writer == "cloud" and row.retain}
    assert kept == {"alert/open", "bridge"}  # the second is under our own name


def test_the_broker_forgets_what_is_open(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    assert delete(engine_of(harness), "nora", "lab/door")["retained"] == 1
    assert rest(harness) == [CLEARED["door"]]
    assert rest(harness) == []
    rest(harness)
    assert numbers(engine_of(harness)) == []  # confirmed, and so forgotten


def test_with_the_next_commit_of_a_busy_bridge(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    delete(engine_of(harness), "nora", "lab/door")
    before = len(harness.link.sent)
    harness.send(release(10, 90, manifest=MANIFEST, time_s=960))
    assert [message.topic for message in harness.link.sent[before:]] == [
        "veilsight/v1/lab/door/verdict/cloud",
        CLEARED["door"].topic,
    ]
    assert harness.link.sent[-1] == CLEARED["door"]


def test_of_all_cameras(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    assert delete(engine_of(harness), "nora")["retained"] == 2
    assert sorted(rest(harness)) == sorted(CLEARED.values())


@pytest.mark.parametrize("span", [(0.0, 2e9), (1.0, math.inf), (999.0, 1001.0)])
def test_a_span_leaves_what_is_open_now(config: StoreConfig, tmp_path: Path, span: tuple[float, float]) -> None:
    harness = live(tmp_path, config)
    assert delete(engine_of(harness), "nora", "lab/door", *span)["retained"] == 0
    assert rest(harness) == []


def test_a_bridge_that_is_started_later_clears_it(config: StoreConfig, tmp_path: Path) -> None:
    """Deleted while no bridge runs, twice; under the camera's newest key."""
    former = live(tmp_path, config)
    former.bridge._store.record("lab/door", "ab" * 32)
    former.bridge._store.commit(Work({"x": former.bridge._store.record("lab/door", "ab" * 32)}))
    former.bridge.close()
    former.bridge._store.close()
    engine = open_engine(config, tmp_path)
    for _ in range(2):
        assert delete(engine, "nora", "lab/door")["retained"] == 1
    assert len(numbers(engine)) == 1 and numbers(engine)[0] < 0
    engine.dispose()
    later = Harness(tmp_path, MANIFEST, store=config)
    rest(later)
    assert [message for message in later.link.sent if not message.payload] == [CLEARED["door"]]
    later.bridge._store.close()


def test_what_opens_afterwards_is_told(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    delete(engine_of(harness), "nora", "lab/door")
    rest(harness)
    for slot in range(10, 20):
        harness.send(release(slot, manifest=MANIFEST, time_s=960))
    last = [message for message in harness.link.sent if message.topic == CLEARED["door"].topic][-1]
    assert last.payload and harness.bridge._books["lab/door"].raised == []


def test_while_the_broker_is_away_it_waits_in_order(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    harness.link.connected = False
    delete(engine_of(harness), "nora", "lab/door")
    assert rest(harness) == []
    (number,) = numbers(engine_of(harness))
    assert number > 0  # a number like any other's, and kept until the broker has it
    rest(harness)
    assert numbers(engine_of(harness)) == [number]
    harness.link.connected = True
    assert rest(harness) == [CLEARED["door"]]


def once(what: Callable[..., Any], error: Exception) -> Callable[..., Any]:
    """Do it, and fail once all the same: as where an answer is lost."""
    failed = list[int]()

    def lost(*args: Any) -> Any:
        found = what(*args)
        if not failed:
            failed.append(1)
            raise error
        return found

    return lost


def test_a_commit_whose_answer_was_lost_gives_the_same_numbers(
    config: StoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = live(tmp_path, config)
    store = harness.bridge._store
    harness.link.connected = False
    harness.bridge.close()
    delete(store.engine, "nora", "lab/door")
    with monkeypatch.context() as patch:
        patch.setattr(store.place, "counted", once(lambda: None, StoreAway("the answer was lost")))
        with pytest.raises(StoreAway):
            store.commit(Work())
    ((number, message),) = store.commit(Work())
    assert message == CLEARED["door"] and numbers(store.engine) == [number]
    ((following, _),) = store.commit(Work(outbox=[(1, Message("t", b"x", 1, False))]))
    assert following > number and numbers(store.engine) == [number, following]


def test_a_commit_that_fails_leaves_it_for_the_next(
    config: StoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = live(tmp_path, config)
    harness.bridge.close()  # all that waited is published and forgotten
    store = harness.bridge._store
    delete(store.engine, "nora", "lab/door")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_outbox", once(lambda *what: None, StoreAway("the disk is full")))
        with pytest.raises(StoreAway):
            store.commit(Work())
    assert [each < 0 for each in numbers(store.engine)] == [True]
    assert [message for _, message in store.commit(Work())] == [CLEARED["door"]]


def test_nothing_left_is_taken_for_confirmed(
    config: StoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker has is forgotten up to its number: those below zero are not meant."""
    harness = live(tmp_path, config)
    store = harness.bridge._store
    monkeypatch.setattr(module, "_LOOK_S", math.inf)
    delete(store.engine, "nora", "lab/door")
    store.commit(Work(), delivered=10**6)
    assert [each < 0 for each in numbers(store.engine)] == [True]
    assert store.outbox(0, 10) == []


def test_a_store_that_has_nothing_but_what_was_left_begins_at_one(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    harness.bridge.close()
    harness.bridge._store.close()
    engine = open_engine(config, tmp_path)
    delete(engine, "nora", "lab/door")
    engine.dispose()
    store = Store.open(config, tmp_path)
    assert [number for number, _ in store.commit(Work())] == [1]
    store.close()


def test_the_shard_of_the_camera_clears_it(config: StoreConfig, tmp_path: Path) -> None:
    harness = live(tmp_path, config)
    harness.bridge.close()
    harness.bridge._store.close()
    shards = [Store.open(config, tmp_path, Shard(number, 2, fenced=True)) for number in (1, 2)]
    assert [store.place.shard.has("lab/door") for store in shards] == [True, False]
    delete(shards[0].engine, "nora")
    found = [[message for _, message in store.commit(Work())] for store in reversed(shards)]
    assert found == [[CLEARED["hall"]], [CLEARED["door"]]]
    for store in shards:
        store.close()


def test_the_store_is_not_looked_at_in_every_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An intake makes hundreds a second."""
    looks, store = list[Shard](), Store.open(StoreConfig(), tmp_path)

    def look(engine: Engine, shard: Shard) -> list[Left]:
        looks.append(shard)
        return []

    monkeypatch.setattr(module, "left", look)
    for every_s, expected in ((0.0, 50), (1e9, 50)):
        monkeypatch.setattr(module, "_LOOK_S", every_s)
        for _ in range(50):
            store.commit(Work())
        assert len(looks) == expected
    store.close()


@pytest.mark.parametrize(("key", "camera"), [(DEVICE, "door"), (OTHER, "hall")])
def test_recordings_stay_refused(config: StoreConfig, tmp_path: Path, key: DeviceKey, camera: str) -> None:
    live(tmp_path, config).bridge.close()
    engine = open_engine(config, tmp_path)
    delete(engine, "nora")
    engine.dispose()
    again = Harness(tmp_path, MANIFEST, store=config)
    recorded = [release(slot, 90, manifest=MANIFEST, time_s=960, key=key, camera=camera) for slot in range(10)]
    again.send(*recorded, camera=f"lab/{camera}")
    assert again.spans == [] and sum(again.bridge.stats()["refused"].values()) == 10
