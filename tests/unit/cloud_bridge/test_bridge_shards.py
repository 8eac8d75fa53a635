"""Shards on one store: whose a camera is, one process each, and nothing written or published without the place."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from cloud_bridge.config import BridgeConfig
from cloud_bridge.store import place, tables
from cloud_bridge.store.database import StoreConfig, reading, writing
from cloud_bridge.store.folder import one_at_a_time, own_folder
from cloud_bridge.store.place import LEASE_S, Unneeded
from cloud_bridge.store.records import Accepted, CameraRecord, Work
from cloud_bridge.store.shard import Shard, lane_of
from cloud_bridge.store.store import Store
from tests.support.bridge_factory import DEVICE, Harness, make_manifest, release
from wire.errors import ConfigError, StoreAway, StoreError
from wire.mqtt import Message

KEY = DEVICE.public.hex
MANIFEST = make_manifest(slot_s=1.0)
ELSEWHERE = "another.host, process 1"
FIRST, SECOND, ANY = (Shard(number, 2, fenced=True) for number in (1, 2, 0))

pytestmark = pytest.mark.usefixtures("every_engine_is_closed")


def work_of(record: CameraRecord, *slots: int) -> Work:
    work = Work({record.camera: record})
    for slot in slots:
        work.release(record, Accepted(1, slot, b"z%d" % slot), 100.0 + slot)
        work.outbox.append((record.id, Message(record.camera, b"%d" % slot, 1, False)))
    record.boot_id, record.next_slot = 1, max(slots, default=-1) + 1
    return work


def hand_over(store: Store, number: int, left_s: float, of: int = 2) -> None:
    """Let a process elsewhere have a place, which it need not renew for so long."""
    table, epoch = tables.bridge, int(time.time() * 1e6)
    now_s = time.time()
    if store.engine.dialect.name == "postgresql":
        with reading(store.engine) as connection:
            now_s = float(connection.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0)
    row = {"id": number, "shards": of, "owner": ELSEWHERE, "epoch": epoch, "batch": 0, "wrote_s": now_s}
    with writing(store.engine) as connection:
        connection.execute(sa.delete(table).where(table.c.id == number))
        connection.execute(sa.insert(table), [row | {"until_s": now_s + left_s}])


# --- whose a camera is


def test_a_camera_has_one_shard_for_ever() -> None:
    assert [lane_of(name) for name in ("lab/door", "lab/hall", "ward-3/corridor")] == [13964, 9599, 58757]
    names = [f"ward-{site}/camera-{number}" for site in range(40) for number in range(50)]
    for of in (1, 2, 3, 8, 100):
        shards = [Shard(number, of) for number in range(1, of + 1)]
        counts = Counter(shard.number for name in names for shard in shards if shard.has(name))
        assert counts.total() == len(names) and len(counts) == of
        assert max(counts.values()) < 2.5 * len(names) / of


def test_numbers_of_shards_never_meet() -> None:
    for of in (1, 2, 7):
        given = [0] * of
        seen = list[int]()
        for turn in range(60):
            k = turn * 5 % of
            given[k] = Shard(k + 1, of).following(given[k])
            seen.append(given[k])
        assert len(set(seen)) == len(seen)
    assert Shard().following(7) == 8 and Shard(1, 2).following(7) == 8 and Shard(2, 2).following(7) == 9


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "2", "2/", "/2", "any", "any/0", "-1/2", "1/257", "1/2/3", "two/3", " 1/2"]
)
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    camera = {"site": "lab", "camera": "door", "public_key": "01" * 32}
    with pytest.raises(ConfigError, match=r"\[run\] shard is .*any/8"):
        BridgeConfig.parse({"cameras": [camera], "run": {"shard": text}})


def test_a_shard_is_read_from_the_file() -> None:
    assert [str(Shard.parse(text)) for text in ("", "2/8", "any/8")] == ["1/1", "2/8", "any/8"]
    assert [Shard.parse(text).fenced for text in ("", "2/8", "any/1")] == [False, True, True]


# --- two processes, one store


def test_shards_write_beside_each_other(config: StoreConfig, tmp_path: Path) -> None:
    one, two = Store.open(config, tmp_path, FIRST), Store.open(config, tmp_path, SECOND)
    door, hall = one.record("lab/door", KEY), two.record("lab/hall", KEY)
    assert door.id != hall.id
    for slot in range(6):
        one.commit(work_of(door, slot))
        two.commit(work_of(hall, slot, slot + 100))
    assert [message.topic for _, message in one.outbox(0, 99)] == ["lab/door"] * 6
    assert [message.payload for _, message in two.outbox(0, 99)] == [
        b"%d" % (s + e) for s in range(6) for e in (0, 100)
    ]
    one.commit(Work(), delivered=max(number for number, _ in one.outbox(0, 99)))
    assert one.outbox(0, 99) == [] and len(two.outbox(0, 99)) == 12


def test_a_shard_is_read_by_one_process(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path, FIRST)
    hand_over(store, 1, 60.0)
    with pytest.raises(StoreError, match=rf"in use by another bridge \({ELSEWHERE}\).*shard \(1/2\)"):
        Store.open(config, tmp_path, FIRST)
    assert Store.open(config, tmp_path, SECOND).place.shard == SECOND


def test_a_process_whose_shard_was_taken_writes_nothing_more(config: StoreConfig, tmp_path: Path) -> None:
    one, two = Store.open(config, tmp_path, FIRST), Store.open(config, tmp_path, SECOND)
    door, hall = one.record("lab/door", KEY), two.record("lab/hall", KEY)
    one.commit(work_of(door, 1))
    hand_over(one, 1, 60.0)
    with pytest.raises(StoreError, match=rf"{ELSEWHERE} has taken our place in the store \(shard 1/2\)"):
        one.commit(work_of(door, 2))
    two.commit(work_of(hall, 1))
    with reading(one.engine) as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.releases)) == 2


def test_a_spare_takes_the_shard_whose_process_is_dead(config: StoreConfig, tmp_path: Path) -> None:
    one = Store.open(config, tmp_path, FIRST)
    one.commit(work_of(one.record("lab/door", KEY), 1))
    hand_over(one, 1, 1e9)
    hand_over(one, 2, 1.0)  # dead in a second
    spare = Store.open(config, tmp_path, ANY)
    assert spare.place.shard == SECOND and spare.outbox(0, 9) == []
    hand_over(one, 1, -1.0)
    another = Store.open(config, tmp_path, ANY)
    assert another.place.shard == FIRST and len(another.outbox(0, 9)) == 1
    assert another.record("lab/door", KEY).next_slot == 2


def test_a_spare_ends_when_it_is_told_to(config: StoreConfig, tmp_path: Path) -> None:
    one, asked = Store.open(config, tmp_path, FIRST), list[int]()
    hand_over(one, 1, 1e9)
    hand_over(one, 2, 1e9)
    with pytest.raises(Unneeded):
        Store.open(config, tmp_path, ANY, lambda: asked.append(1) or len(asked) > 3)  # type: ignore[func-returns-value]


def test_a_spare_waits_for_a_store_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(StoreConfig(), tmp_path).close()
    calls, take = list[int](), place.Place._try

    def away(which: place.Place, shard: Shard) -> float:
        calls.append(shard.number)
        if len(calls) < 4:
            raise StoreAway("away")
        return take(which, shard)

    monkeypatch.setattr(place.Place, "_try", away)
    assert Store.open(StoreConfig(), tmp_path, ANY).place.shard == SECOND and calls == [1, 2, 1, 2]


def test_another_number_of_shards_is_refused_while_the_former_live(config: StoreConfig, tmp_path: Path) -> None:
    one = Store.open(config, tmp_path, FIRST)
    hand_over(one, 2, 1e9)
    with pytest.raises(StoreError, match="reads shard 2/2, and we are to read 1/3; stop all bridges"):
        Store.open(config, tmp_path, Shard(1, 3, fenced=True))
    with pytest.raises(StoreError, match="stop all bridges"):
        Store.open(config, tmp_path)


def test_what_waits_is_published_by_whoever_reads_the_camera_then(config: StoreConfig, tmp_path: Path) -> None:
    one, two = Store.open(config, tmp_path, FIRST), Store.open(config, tmp_path, SECOND)
    one.commit(work_of(one.record("lab/door", KEY), 1, 2))
    two.commit(work_of(two.record("lab/hall", KEY), 1))
    epoch = two.place._epoch
    one.close()
    two.close()
    shards = [Store.open(config, tmp_path, Shard(number, 3, fenced=True)) for number in (1, 2, 3)]
    waits = {"lab/door": 2, "lab/hall": 1}
    for store in shards:
        expected = sum(count for name, count in waits.items() if store.place.shard.has(name))
        assert len(store.outbox(0, 9)) == expected
    for store in shards:
        assert store.place._epoch > epoch
        store.close()
    whole = Store.open(config, tmp_path)
    numbers = [number for number, _ in whole.outbox(0, 9)]
    assert len(numbers) == 3
    ((more, _),) = whole.commit(work_of(whole.record("lab/door", KEY), 3))
    assert more > max(numbers)


def test_a_place_lapses_by_a_clock_that_runs_while_the_process_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed, clock = [0.0], time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + passed[0])
    fenced, alone = Store.open(StoreConfig(), tmp_path / "a", FIRST), Store.open(StoreConfig(), tmp_path / "b")
    assert fenced.place.held and alone.place.held
    passed[0] = LEASE_S
    assert not fenced.place.held and alone.place.held  # nobody waits for the place of one that is alone
    fenced.commit(Work())
    assert fenced.place.held


def test_a_bridge_that_may_have_lost_its_place_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [True]
    monkeypatch.setattr(place.Place, "held", property(lambda which: held[0]))
    harness = Harness(tmp_path, MANIFEST)
    harness.send(*(release(slot, manifest=MANIFEST) for slot in range(8)))
    before = len(harness.link.sent)
    held[0] = False
    harness.send(release(8, manifest=MANIFEST))
    harness.bridge.publisher.pump()
    assert len(harness.link.sent) == before
    held[0] = True
    harness.bridge.rest()
    assert [verdict.last_slot for verdict in harness.verdicts()] == [7, 8]


def test_shards_share_a_state_folder_and_keep_others_out(tmp_path: Path) -> None:
    refused = pytest.raises(ConfigError, match=f"process {os.getpid()}.*or every one a .run. shard")
    with own_folder(tmp_path, shared=True), own_folder(tmp_path, shared=True), refused, own_folder(tmp_path):
        pass
    with own_folder(tmp_path), pytest.raises(ConfigError, match="in use"), own_folder(tmp_path, shared=True):
        pass


def test_processes_that_share_a_folder_make_their_key_one_after_the_other(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def make() -> None:
        with one_at_a_time(tmp_path):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
