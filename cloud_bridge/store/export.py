"""Writes what the store holds to a Parquet or a CSV file, a few thousand rows at a time.

    releases | verdicts | alerts | comments | audit --span, camera--> rows with the camera's name --> .parquet or .csv

In CSV, bytes are hex, and a text that a spreadsheet would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cloud_bridge.store import tables
from cloud_bridge.store.database import reading
from wire.errors import DataError
from wire.files import whole_file

__all__ = ["EXPORTS", "export"]

_ROWS = 4096
_CAMERA = (tables.cameras.c.camera, tables.cameras.c.public_key)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

EXPORTS: Mapping[str, tuple[sa.Table, sa.Column[Any]]] = {
    "releases": (tables.releases, tables.releases.c.received_s),
    "verdicts": (tables.verdicts, tables.verdicts.c.made_s),
    "alerts": (tables.alerts, tables.alerts.c.made_s),
    "comments": (tables.comments, tables.comments.c.at_s),
    "audit": (tables.audit, tables.audit.c.at_s),
}
"""Kind -> its table, and the column by which a span is meant."""


def export(
    engine: Engine, kind: str, file: Path, camera: str = "", since_s: float = 0.0, until_s: float = math.inf
) -> int:
    """Write the rows of a kind, in order of time, to a file that is whole or not there; returns how many.

    Args:
        engine: The store's.
        kind: A key of EXPORTS.
        file: `.parquet` or `.csv` says the form.
        camera: `site/camera`; "": all. Comments and the audit log have no camera.
        since_s: From then on, UTC,
        until_s: and before then.

    Raises:
        DataError: The kind, the form or the file cannot be.
        StoreAway: The database does not answer.
    """
    if kind not in EXPORTS or file.suffix not in (".parquet", ".csv"):
        raise DataError(f"{kind} to {file.name}: export one of {', '.join(EXPORTS)} to a .parquet or a .csv file")
    query = _query(kind, camera, since_s, until_s)
    text = file.suffix == ".csv"
    schema = pa.schema([(column.name, _type(column, text)) for column in query.selected_columns])
    count = 0
    try:
        with whole_file(file) as beside, reading(engine) as connection, _writer(beside, schema, text) as writer:
            rows = connection.execution_options(yield_per=_ROWS).execute(query)
            for part in rows.mappings().partitions():
                written = [_plain(dict(row)) if text else dict(row) for row in part]
                writer.write_table(pa.Table.from_pylist(written, schema=schema))
                count += len(written)
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); give another path") from error
    return count


def _query(kind: str, camera: str, since_s: float, until_s: float) -> sa.Select[Any]:
    table, when = EXPORTS[kind]
    named = "camera_id" in table.c
    if camera and not named:
        raise DataError(f"{kind} have no camera of their own; leave the camera out")
    columns = [column for column in table.c if column.name != "camera_id"]
    query = sa.select(*_CAMERA, *columns) if named else sa.select(*columns)
    if named:
        query = query.join_from(table, tables.cameras, table.c.camera_id == tables.cameras.c.id)
    query = query.where(when >= since_s).order_by(when)
    query = query.where(when < until_s) if until_s < math.inf else query
    return query.where(tables.cameras.c.camera == camera) if camera else query


def _type(column: Any, text: bool) -> pa.DataType:
    if isinstance(column.type, sa.LargeBinary):
        return pa.string() if text else pa.binary()
    kinds = {sa.Boolean: pa.bool_(), sa.Float: pa.float64(), sa.Integer: pa.int64()}
    return next((made for kind, made in kinds.items() if isinstance(column.type, kind)), pa.string())


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for CSV."""
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _writer(file: Path, schema: pa.Schema, text: bool) -> Any:
    return pyarrow.csv.CSVWriter(file, schema) if text else pyarrow.parquet.ParquetWriter(file, schema)
