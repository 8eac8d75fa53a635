"""A store of an earlier version, with rows in it, becomes one of ours; one that is cut off stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

from cloud_bridge.store.database import StoreConfig, open_engine, reading, writing
from cloud_bridge.store.migrations import v0001_first
from cloud_bridge.store.shard import lane_of
from cloud_bridge.store.store import Store
from tests.support.bridge_factory import DEVICE
from wire.errors import StoreError
from wire.mqtt import Message

KEY = DEVICE.public.hex
ROWS: dict[str, dict[str, Any]] = {
    "bridge": {"id": 1, "owner": "another.host, process 1", "epoch": 4, "batch": 17, "until_s": 0.0},
    "cameras": {
        "id": 1,
        "camera": "lab/door",
        "public_key": KEY,
        "boot_id": f"{7:016x}",
        "next_slot": 5,
        "state_boot_id": f"{7:016x}",
        "state_count": 2,
        "alerts": '{"raised": ["fall"], "in_a_row": {}, "turns": {"fall": 1}}',
        "event": '{"described": ["", 0]}',
    },
    "alerts": {
        "id": "a" * 32,
        "camera_id": 1,
        "boot_id": f"{7:016x}",
        "slot": 4,
        "label": "fall",
        "raised": True,
        "made_s": 100.0,
        "probability": 0.9,
        "sentence": "a person falls",
        "message": b"signed",
        "seen_by": "",
        "seen_s": 0.0,
    },
    "outbox": {"id": 9, "camera_id": 1, "topic": "t", "payload": b"p", "qos": 1, "retain": False, "created_s": 100.0},
}

pytestmark = pytest.mark.usefixtures("every_engine_is_closed")


@pytest.fixture(params=["sqlite", "postgresql"])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    """A database as version 0001 left it, with a row in each table."""
    kind = request.param
    config = StoreConfig() if kind == "sqlite" else StoreConfig(request.getfixturevalue("postgres").new_database())
    engine = sa.create_engine(config.address(tmp_path))
    with engine.begin() as connection:
        with Operations.context(MigrationContext.configure(connection)):
            v0001_first.upgrade()
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('0001')"))
        for table, row in ROWS.items():
            found = sa.Table(table, sa.MetaData(), autoload_with=connection)
            connection.execute(sa.insert(found), [row])
    return config


def test_what_is_in_a_store_of_before_is_there_after_the_migration(former: StoreConfig, tmp_path: Path) -> None:
    store = Store.open(former, tmp_path)
    record = store.record("lab/door", KEY)
    assert (record.id, record.boot_id, record.next_slot, record.raised, record.open) == (1, 7, 5, ["fall"], {})
    assert store.outbox(0, 10) == [(9, Message("t", b"p", 1, False))]
    with reading(store.engine) as connection:
        row = connection.execute(sa.text("SELECT first_id, severity, device_s, message FROM alerts")).one()
        assert connection.scalar(sa.text("SELECT lane FROM outbox")) == lane_of("lab/door")
        assert connection.scalar(sa.text("SELECT shards FROM bridge")) == 1
    assert (row.first_id, row.severity, row.device_s, bytes(row.message)) == ("a" * 32, "", 0.0, b"signed")
    assert store.place.away_s == 0.0 and store.seen(["a" * 32]) == set()


@pytest.mark.parametrize("step", ["add_column", "execute", "create_index", "create_table"])
def test_a_migration_that_is_cut_off_leaves_the_former_version(
    former: StoreConfig, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(op, step), list[object]()

    def die_at_the_end(*what: object, **how: object) -> object:
        calls.append(what)
        if step != "add_column" or len(calls) > 2:
            raise RuntimeError("power cut")
        return real(*what, **how)

    with monkeypatch.context() as patch:
        patch.setattr(op, step, die_at_the_end)
        with pytest.raises(RuntimeError, match="power cut"):
            open_engine(former, tmp_path)
    engine = sa.create_engine(former.address(tmp_path))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "0001"
        assert not {"first_id", "severity"} & {each["name"] for each in sa.inspect(connection).get_columns("alerts")}
    test_what_is_in_a_store_of_before_is_there_after_the_migration(former, tmp_path)


def test_a_version_with_a_table_of_the_next_one_is_refused_by_name(former: StoreConfig, tmp_path: Path) -> None:
    engine = sa.create_engine(former.address(tmp_path))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE webhooks (receiver VARCHAR(16))"))
    with pytest.raises(StoreError, match="webhooks, version 0001: half a migration, or another program's"):
        open_engine(former, tmp_path)


def test_a_version_with_half_of_the_next_one_is_refused(former: StoreConfig, tmp_path: Path) -> None:
    engine = sa.create_engine(former.address(tmp_path))
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE alerts ADD COLUMN severity VARCHAR(16)"))
    with pytest.raises(StoreError):
        open_engine(former, tmp_path)
    with pytest.raises(StoreError), writing(engine) as connection:  # nothing was mended by guessing
        connection.execute(sa.text("SELECT first_id FROM alerts"))
