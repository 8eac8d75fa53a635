"""The statements of every commit, made once: what is left of a row's cost is the database's own.

    table --insert, change_camera--> Statement: the database's text, and the order of its values --run--> many rows

SQLAlchemy prepares each row anew for each statement, which took longer than SQLite needs to write it. The values are
what a driver takes as it is: numbers, text, bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Dialect

from cloud_bridge.store import tables

__all__ = ["Statement"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that is run with many rows.

    Attributes:
        text: As the database's driver takes it.
        order: Names of the values in the order in which it takes them; empty where it takes them by name.
    """

    text: str
    order: tuple[str, ...]

    @classmethod
    @lru_cache(maxsize=64)
    def insert(cls, dialect: Dialect, table: sa.Table) -> Statement:
        """Insert whole rows of `table` that are not there yet, by their primary key."""
        kind = postgresql if dialect.name == "postgresql" else sqlite
        return cls._of(kind.insert(table).on_conflict_do_nothing(), dialect, table.c.keys())

    @classmethod
    @lru_cache(maxsize=8)
    def change_camera(cls, dialect: Dialect) -> Statement:
        """Change rows of `cameras`: all but whose they are; each has its number as `of_id`, too."""
        table = tables.cameras
        columns = [column.name for column in table.c if column.name not in ("id", "camera", "public_key")]
        return cls._of(sa.update(table).where(table.c.id == sa.bindparam("of_id")), dialect, columns)

    @classmethod
    def _of(cls, what: sa.sql.ClauseElement, dialect: Dialect, columns: Sequence[str]) -> Statement:
        made = what.compile(dialect=dialect, column_keys=list(columns))
        return cls(str(made), tuple(getattr(made, "positiontup", None) or ()))

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it with each row, which has every value of the statement by its name."""
        if self.order:
            connection.exec_driver_sql(self.text, list(map(itemgetter(*self.order), rows)))
        else:
            connection.exec_driver_sql(self.text, list(rows))
