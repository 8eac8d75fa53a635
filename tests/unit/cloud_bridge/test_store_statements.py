"""Statements that were made once write what SQLAlchemy would write."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Dialect

from cloud_bridge.store import tables
from cloud_bridge.store.statements import Statement

POSTGRESQL = psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped


@pytest.mark.parametrize("dialect", [sqlite.dialect(), POSTGRESQL], ids=["SQLite", "PostgreSQL"])
def test_an_insert_names_every_column_and_leaves_what_is_there(dialect: Dialect) -> None:
    for table in tables.metadata.tables.values():
        text = Statement.insert(dialect, table).text
        assert all(column.name in text for column in table.c) and text.endswith("ON CONFLICT DO NOTHING")


def test_a_change_of_a_camera_leaves_whose_it_is() -> None:
    text = Statement.change_camera(sqlite.dialect()).text
    names = {each.partition("=")[0].strip() for each in text.partition(" SET ")[2].partition(" WHERE ")[0].split(",")}
    assert names == set(tables.cameras.c.keys()) - {"id", "camera", "public_key"}


def test_rows_are_written_by_the_names_of_their_values() -> None:
    engine = sa.create_engine("sqlite://")
    tables.metadata.create_all(engine)
    row = {"message": b"\0\xff", "slot": 2**62, "boot_id": "00", "camera_id": 4, "refused": "", "received_s": 1.5}
    with engine.begin() as connection:
        statement = Statement.insert(connection.dialect, tables.releases)
        statement.run(connection, [row, {**row, "slot": 3}])
        statement.run(connection, [{**row, "message": b"another"}])  # the same release: it stays
        found = connection.execute(sa.select(tables.releases).order_by(tables.releases.c.slot.desc())).mappings().all()
    assert [dict(each) for each in found] == [row, {**row, "slot": 3}]
