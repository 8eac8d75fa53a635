"""The store, in SQLite and in PostgreSQL: one commit or none, one bridge, and nothing believed that cannot be."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cloud_bridge.store import tables
from cloud_bridge.store.database import StoreConfig, open_engine, reading, writing
from cloud_bridge.store.folder import own_folder
from cloud_bridge.store.migrations import v0001_first
from cloud_bridge.store.records import Accepted, CameraRecord, Work
from cloud_bridge.store.store import Store
from tests.support.bridge_factory import DEVICE, Harness, make_manifest, release
from tests.support.databases import Postgres
from wire.errors import ConfigError, StoreAway, StoreError
from wire.mqtt import Message

pytestmark = pytest.mark.usefixtures("every_engine_is_closed")


@pytest.fixture(autouse=True)
def closed_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections of every store that a test leaves open."""
    made, create = list[sa.Engine](), sa.create_engine

    def remembered(*address: Any, **options: Any) -> sa.Engine:
        made.append(create(*address, **options))
        return made[-1]

    monkeypatch.setattr(sa, "create_engine", remembered)
    yield
    for engine in made:
        engine.dispose()


MANIFEST = make_manifest(slot_s=1.0)
KEY = DEVICE.public.hex
ELSEWHERE = "another.host, process 1"


def work_of(record: CameraRecord, *slots: int) -> Work:
    """Releases, and a message of the outbox for each."""
    work = Work({record.camera: record})
    for slot in slots:
        work.release(record, Accepted(1, slot, b"z%d" % slot), 100.0 + slot)
        work.outbox.append((record.id, Message("t", b"%d" % slot, 1, False)))
    record.boot_id, record.next_slot = 1, max(slots, default=-1) + 1
    return work


def count(store: Store | Harness, table: sa.Table) -> int:
    engine = store.engine if isinstance(store, Store) else store.bridge._store.engine
    with reading(engine) as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


# --- commits


def test_a_commit_is_there_after_a_restart(config: StoreConfig, tmp_path: Path) -> None:
    first = Store.open(config, tmp_path)
    record = first.record("lab/door", KEY)
    record.turns, record.raised, record.in_a_row, record.described = {"fall": 3}, ["fall"], {"fight": 1}, (7, 9)
    record.event, record.state_boot_id, record.state_count = {"model": "x", "start": 4}, 2**64 - 1, 5
    assert first.commit(work_of(record, 1, 2)) == [(1, Message("t", b"1", 1, False)), (2, Message("t", b"2", 1, False))]
    second = Store.open(config, tmp_path)
    assert second.record("lab/door", KEY) == record
    assert [stored.slot for stored in second.recent(record, 1)] == [2]
    assert [stored.message for stored in second.recent(record, 8)] == [b"z1", b"z2"]
    assert second.outbox(0, 10) == [(1, Message("t", b"1", 1, False)), (2, Message("t", b"2", 1, False))]
    assert second.commit(work_of(record, 3), delivered=1) == [(3, Message("t", b"3", 1, False))]
    assert [number for number, _ in second.outbox(0, 10)] == [2, 3] == [number for number, _ in second.outbox(1, 2)]


def test_a_commit_whose_answer_was_lost_is_made_once(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path)
    work = work_of(store.record("lab/door", KEY), 1, 2)
    before = (store.place._batch, store._outbox_id, dict(store._written))
    store.commit(work)
    store.place._batch, store._outbox_id, store._written = before
    assert [number for number, _ in store.commit(work)] == [1, 2]
    store.commit(work_of(store.record("lab/door", KEY), 3))
    assert count(store, tables.outbox) == 3 == count(store, tables.releases)


def test_a_repeat_is_dropped(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path)
    record = store.record("lab/door", KEY)
    store.commit(work_of(record, 1, 2))
    store.commit(work_of(record, 2, 3))
    assert count(store, tables.releases) == 3


def test_a_commit_that_fails_in_the_middle_leaves_nothing(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path)
    record = store.record("lab/door", KEY)
    work = work_of(record, 1)
    verdict = dict.fromkeys(tables.verdicts.c.keys()) | {"camera_id": record.id, "boot_id": "1", "last_slot": 1}
    work.verdicts.append(verdict)  # most of it is null
    with pytest.raises(StoreError):
        store.commit(work)
    assert count(store, tables.releases) == count(store, tables.cameras) == count(store, tables.outbox) == 0
    work.verdicts.clear()
    store.commit(work)
    assert count(store, tables.releases) == count(store, tables.cameras) == 1


def test_an_alert_has_an_id_that_follows_from_where_it_was_raised(config: StoreConfig, tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b"):
        harness = Harness(tmp_path / name, MANIFEST)
        harness.send(*(release(slot, 90 if slot > 8 else 0, manifest=MANIFEST) for slot in range(12)))
        with reading(harness.bridge._store.engine) as connection:
            ids.append(connection.scalars(sa.select(tables.alerts.c.id)).all())
    assert len(ids[0]) == 1 and ids[0] == ids[1]


# --- one bridge


def occupy(store: Store, left_s: float) -> None:
    """Write another bridge into the store, which need not write for so long."""
    shared = sa.text(f"extract(epoch FROM clock_timestamp()) + {left_s}")
    until_s = shared if store.engine.dialect.name == "postgresql" else time.time() + left_s
    with writing(store.engine) as connection:
        values = {"owner": ELSEWHERE, "epoch": tables.bridge.c.epoch + 1, "until_s": until_s}
        connection.execute(sa.update(tables.bridge).values(values))


def test_a_second_bridge_is_refused_by_name(config: StoreConfig, tmp_path: Path) -> None:
    store, over = Store.open(config, tmp_path), threading.Event()
    occupy(store, 9.0)

    def live() -> None:
        while not over.wait(0.05):
            occupy(store, 9.0)

    living = threading.Thread(target=live)
    living.start()
    try:
        with pytest.raises(StoreError, match=rf"in use by another bridge \({ELSEWHERE}\)"):
            Store.open(config, tmp_path)
    finally:
        over.set()
        living.join()


def test_the_place_of_a_dead_bridge_is_taken(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path)
    occupy(store, 1.0)
    second = Store.open(config, tmp_path)
    second.commit(work_of(second.record("lab/door", KEY), 1))
    assert count(second, tables.releases) == 1


def test_a_bridge_whose_place_was_taken_writes_nothing_more(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path)
    occupy(store, -1.0)
    with pytest.raises(StoreError, match=f"{ELSEWHERE} has taken our place"):
        store.commit(work_of(store.record("lab/door", KEY), 1))
    assert count(store, tables.releases) == 0


def test_a_dead_process_of_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    store = Store.open(StoreConfig(), tmp_path)
    host = socket.gethostname()
    assert store.place.was_ours(f"{host}, process 99999999") and not store.place.was_ours(f"{host}, process 1")
    assert not store.place.was_ours("another.host, process 99999999") and not store.place.was_ours("nonsense")


# --- what cannot be used


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "no address of a database"),
        ("mysql://host/db", "url is of 'mysql'"),
        ("postgresql://host/db", r"write \"postgresql\+psycopg://user@host/database\""),
        ("postgresql+psycopg://host", "database None"),
        ("postgresql+psycopg://me:secret@host/db", "has a password in it"),
        ("sqlite:///elsewhere", "url is of 'sqlite'"),
    ],
)
def test_a_broken_address_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        StoreConfig(url)
    assert "secret" not in str(caught.value)


def test_a_database_that_does_not_answer_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    config = StoreConfig("postgresql+psycopg://me@127.0.0.1:1/wards", str(tmp_path / "password"))
    with pytest.raises(ConfigError, match="start the database, or correct the address") as caught:
        Store.open(config, tmp_path)
    assert "secret" not in str(caught.value)


def test_tables_without_a_version_are_refused(config: StoreConfig, tmp_path: Path) -> None:
    engine = open_engine(config, tmp_path)
    with writing(engine) as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    with pytest.raises(StoreError, match="half a migration, or another program's; restore it from a backup"):
        open_engine(config, tmp_path)


def test_a_version_without_all_its_tables_is_refused(config: StoreConfig, tmp_path: Path) -> None:
    engine = open_engine(config, tmp_path)
    with writing(engine) as connection:
        connection.execute(sa.text("DROP TABLE outbox"))
    with pytest.raises(StoreError, match="half a migration"):
        open_engine(config, tmp_path)


def test_a_later_version_is_refused(config: StoreConfig, tmp_path: Path) -> None:
    engine = open_engine(config, tmp_path)
    with writing(engine) as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="the store has version 9999, ours is 0005; update first"):
        open_engine(config, tmp_path)


def test_a_migration_that_is_cut_off_leaves_nothing(config: StoreConfig, tmp_path: Path) -> None:
    def die(*_: object) -> None:
        raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(op, "create_index", die)
        with pytest.raises(RuntimeError):
            open_engine(config, tmp_path)
    assert Store.open(config, tmp_path).outbox(0, 1) == []


def test_the_migrations_make_the_tables(config: StoreConfig, tmp_path: Path) -> None:
    with open_engine(config, tmp_path).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    assert v0001_first.down_revision is None


def test_a_damaged_record_is_refused_with_the_cure(config: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(config, tmp_path)
    store.commit(work_of(store.record("lab/door", KEY), 1))
    for damage in ({"alerts": "{"}, {"alerts": "[]"}, {"alerts": '{"raised": 3}'}, {"event": "{}"}, {"boot_id": "xyz"}):
        with writing(store.engine) as connection:
            before = connection.execute(sa.select(tables.cameras)).mappings().one()
            connection.execute(sa.update(tables.cameras).values(damage))
        with pytest.raises(StoreError, match="camera lab/door is damaged .* recordings would be read as new"):
            Store.open(config, tmp_path)
        with writing(store.engine) as connection:
            connection.execute(sa.update(tables.cameras).values(**before))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(StoreConfig(), tmp_path)


def test_the_file_is_for_its_owner_alone_and_no_link(tmp_path: Path) -> None:
    Store.open(StoreConfig(), tmp_path / "state").close()
    assert (tmp_path / "state" / "store.sqlite").stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "store.sqlite").symlink_to(tmp_path / "state" / "store.sqlite")
    with pytest.raises(ConfigError, match="no symbolic link"):
        Store.open(StoreConfig(), tmp_path / "other")


def test_a_journal_of_before_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "journal.json").write_text("{}")
    with pytest.raises(ConfigError, match="give every device a new key"), own_folder(tmp_path):
        pass


# --- the database goes while the bridge runs


def test_a_full_disk_stops_reading_and_loses_nothing(tmp_path: Path) -> None:
    harness, told = Harness(tmp_path, MANIFEST), list[str]()
    harness.bridge._tell = told.append
    harness.send(*(release(slot, manifest=MANIFEST) for slot in range(3)))
    engine = harness.bridge._store.engine
    with engine.connect() as connection:  # the one that the pool hands out again
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    slot = 3
    while not harness.bridge.trouble and slot < 600:
        harness.send(release(slot, manifest=MANIFEST))
        slot += 1
    assert "full" in harness.bridge.trouble and told == [f"the store cannot be written: {harness.bridge.trouble}"]
    before = count(harness, tables.releases)
    assert before == slot - 1 and not harness.bridge.retry()
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert harness.bridge.retry() and told[-1] == "" and count(harness, tables.releases) == slot
    harness.bridge.rest()
    assert [verdict.last_slot for verdict in harness.verdicts()] == list(range(7, slot))


def test_a_database_that_goes_and_returns_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    config = StoreConfig(postgres.new_database())
    harness = Harness(tmp_path, MANIFEST, store=config)
    harness.send(*(release(slot, manifest=MANIFEST) for slot in range(9)))
    postgres.stop()
    try:
        harness.send(release(9, manifest=MANIFEST))
        assert harness.bridge.trouble and len(harness.verdicts()) == 2 and not harness.bridge.retry()
    finally:
        postgres.start()
    assert harness.bridge.retry()
    harness.send(release(10, manifest=MANIFEST))
    assert [verdict.last_slot for verdict in harness.verdicts()] == [7, 8, 9, 10]
    assert count(harness, tables.releases) == 11 and count(harness, tables.verdicts) == 4


def test_a_restart_while_the_database_is_away_is_refused(postgres: Postgres, tmp_path: Path) -> None:
    config = StoreConfig(postgres.new_database())
    postgres.stop("fast")
    try:
        with pytest.raises(ConfigError, match="start the database"):
            Store.open(config, tmp_path)
    finally:
        postgres.start()


def test_an_error_of_ours_is_no_outage(config: StoreConfig, tmp_path: Path) -> None:
    engine = open_engine(config, tmp_path)
    with pytest.raises(StoreError, match="fault of ours") as caught, writing(engine) as connection:
        connection.execute(sa.text("SELECT nothing FROM nowhere"))
    assert not isinstance(caught.value, StoreAway)
