"""What an operator does with the store: retention, deletion with an entry in the audit log, export."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cloud_bridge.ingest.transport import Inbound
from cloud_bridge.loop import run
from cloud_bridge.store import retention, tables
from cloud_bridge.store.__main__ import main
from cloud_bridge.store.database import StoreConfig, reading, writing
from cloud_bridge.store.export import export
from cloud_bridge.store.retention import Retention, delete
from tests.support.bridge_factory import DEVICE, OTHER, Harness, make_manifest, release
from wire.errors import DataError

MANIFEST = make_manifest(slot_s=1.0)
DAY_S = 86_400.0
KINDS = (tables.releases, tables.verdicts, tables.alerts)


def live(folder: Path, now_s: float = 1000.0) -> Harness:
    """Two cameras, ten releases of each, a fall at the door."""
    harness = Harness(folder, MANIFEST)
    harness.now_s = now_s
    for slot in range(10):
        when = int(now_s) // 60 * 60
        harness.send(release(slot, 90, manifest=MANIFEST, time_s=when))
        harness.send(release(slot, manifest=MANIFEST, time_s=when, key=OTHER, camera="hall"), camera="lab/hall")
    return harness


def counts(engine: Engine) -> list[int]:
    with reading(engine) as connection:
        return [int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0) for table in KINDS]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = live(tmp_path)
    yield made
    made.bridge._store.close()


@pytest.fixture
def engine(harness: Harness) -> Engine:
    return harness.bridge._store.engine


# --- retention


def test_each_kind_is_kept_for_its_own_time(engine: Engine) -> None:
    rule = Retention(StoreConfig(keep_releases_days=1.0, keep_verdicts_days=2.0, keep_alerts_days=3.0), engine)
    assert counts(engine) == [20, 6, 1] and rule.step(1000.0 + 0.9 * DAY_S) == 0
    left = []
    for days in (1.1, 2.1, 3.1):
        rule._next_s = 0.0
        rule.step(1000.0 + days * DAY_S)
        left.append(counts(engine))
    assert left == [[0, 6, 1], [0, 0, 1], [0, 0, 0]]


def test_much_is_deleted_a_little_at_a_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_CHUNK", 7)
    with writing(engine) as connection:  # one moment each
        connection.execute(sa.update(tables.releases).values(received_s=tables.releases.c.slot))
    rule = Retention(StoreConfig(), engine)
    steps = [rule.step(1000.0 * DAY_S) for _ in range(4)]
    assert steps[0] > 7 and counts(engine) == [0, 0, 0] and steps[-1] == 0


def test_a_running_bridge_deletes_what_is_too_old(harness: Harness, engine: Engine) -> None:
    """A busy one, too."""
    harness.now_s = 8.0 * DAY_S
    batch = [Inbound("lab/nobody", "features", b"", False)]
    stops = iter([False, True])
    run(harness.bridge, lambda _: batch, True, lambda: next(stops))
    assert counts(engine) == [0, 6, 1]


# --- deletion


def test_a_camera_is_deleted_and_the_audit_log_says_so(harness: Harness, engine: Engine, tmp_path: Path) -> None:
    harness.link.connected = False
    harness.send(release(10, 90, manifest=MANIFEST, time_s=960))
    found = delete(engine, "nora", "lab/door")
    rows = {"comments": 0, "releases": 11, "verdicts": 4, "alerts": 1, "outbox": 1, "webhooks": 0, "commands": 0}
    assert found == {**rows, "requests": 0, "retained": 1}
    assert counts(engine) == [10, 3, 0]
    with reading(engine) as connection:
        (entry,) = connection.execute(sa.select(tables.audit)).all()
    assert (entry.who, entry.what) == ("nora", "delete")
    assert entry.detail == "lab/door, all: " + ", ".join(f"{kind} {count}" for kind, count in found.items())
    again = Harness(tmp_path, MANIFEST)
    again.send(*(release(slot, 90, manifest=MANIFEST, time_s=960) for slot in range(11)))
    assert again.spans == [] and sum(again.bridge.stats()["refused"].values()) == 11  # recordings stay refused
    again.bridge._store.close()


def test_a_span_is_deleted_of_all_cameras(harness: Harness, engine: Engine) -> None:
    harness.now_s = 2000.0
    harness.send(release(10, 90, manifest=MANIFEST, time_s=1980))
    assert delete(engine, "nora", since_s=1500.0, until_s=2500.0)["releases"] == 1
    assert counts(engine) == [20, 6, 1]
    delete(engine, "nora", since_s=0.0, until_s=1000.0)
    assert counts(engine) == [20, 6, 1]  # the moment of the end is left out
    delete(engine, "nora", until_s=1001.0)
    assert counts(engine) == [0, 0, 0]


def test_comments_go_with_their_alert(engine: Engine) -> None:
    with writing(engine) as connection:
        (alert,) = connection.scalars(sa.select(tables.alerts.c.id)).all()
        row = {"who": "nora", "at_s": 1.0, "words": "seen"}
        rows = [{**row, "alert_id": alert}, {**row, "alert_id": "f" * 32}]
        connection.execute(sa.insert(tables.comments), rows)
    assert delete(engine, "nora", "lab/hall")["comments"] == 0
    assert delete(engine, "nora", "lab/door")["comments"] == 1


@pytest.mark.parametrize("camera", ["lab/nobody", "' OR 1=1 --", "lab/door'; DROP TABLE releases; --", "%", "lab/%"])
def test_what_is_no_camera_deletes_nothing(engine: Engine, camera: str) -> None:
    with pytest.raises(DataError, match="knows no camera"):
        delete(engine, "nora", camera)
    assert counts(engine) == [20, 6, 1]


def test_an_empty_span_deletes_nothing(engine: Engine) -> None:
    for since_s, until_s in ((5.0, 5.0), (6.0, 5.0), (float("nan"), 5.0)):
        with pytest.raises(DataError, match="is empty"):
            delete(engine, "nora", "lab/door", since_s, until_s)


# --- export


def test_verdicts_are_exported_as_parquet(harness: Harness, engine: Engine, tmp_path: Path) -> None:
    assert export(engine, "verdicts", tmp_path / "v.parquet", "lab/door") == 3
    rows = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pylist()
    assert [(row["camera"], row["boot_id"], row["last_slot"]) for row in rows] == [
        ("lab/door", "0000000000000001", slot) for slot in (7, 8, 9)
    ]
    assert rows[0]["message"] == next(p for t, p in harness.published if t.endswith("door/verdict/cloud"))
    assert rows[0]["public_key"] == DEVICE.public.hex and rows[0]["probability"] == 0.9


def test_a_spreadsheet_takes_no_text_of_ours_for_a_formula(engine: Engine, tmp_path: Path) -> None:
    with writing(engine) as connection:
        row = {"alert_id": "a", "who": "=cmd|' /C calc'!A0", "at_s": 1.0, "words": '@SUM(1), "quoted"\nline'}
        connection.execute(sa.insert(tables.comments), [row])
    assert export(engine, "comments", tmp_path / "c.csv") == 1
    with open(tmp_path / "c.csv", newline="") as file:
        (found,) = csv.DictReader(file)
    assert found["who"] == "'=cmd|' /C calc'!A0" and found["words"] == '\'@SUM(1), "quoted"\nline'


def test_releases_are_exported_as_csv_by_span(engine: Engine, tmp_path: Path) -> None:
    assert export(engine, "releases", tmp_path / "r.csv", since_s=1000.0, until_s=1000.5) == 20
    assert export(engine, "releases", tmp_path / "none.csv", until_s=1000.0) == 0
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["camera"] for row in rows} == {"lab/door", "lab/hall"}
    assert bytes.fromhex(rows[0]["message"])


@pytest.mark.parametrize(
    ("kind", "name", "camera"), [("cameras", "x.csv", ""), ("alerts", "x.xlsx", ""), ("audit", "x.csv", "lab/door")]
)
def test_what_cannot_be_exported_is_said(engine: Engine, tmp_path: Path, kind: str, name: str, camera: str) -> None:
    with pytest.raises(DataError):
        export(engine, kind, tmp_path / name, camera)
    assert not (tmp_path / name).exists()


def test_an_export_that_cannot_be_written_is_said(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        export(engine, "alerts", tmp_path / "nowhere" / "x.csv")


# --- the command


@pytest.fixture
def config(harness: Harness, tmp_path: Path) -> str:
    file = tmp_path / "bridge.toml"
    key = DEVICE.public.hex
    file.write_text(f'[state]\ndir = "."\n[[cameras]]\nsite = "lab"\ncamera = "door"\npublic_key = "{key}"\n')
    return str(file)


def test_the_command_deletes_exports_and_shows_who(
    config: str, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the bridge has the store."""
    out = str(tmp_path / "a.parquet")
    assert main(["--config", config, "--export", "alerts", "--out", out]) == 0
    assert main(["--config", config, "--delete", "--camera", "lab/door", "--since", "1970-01-01"]) == 0
    assert main(["--config", config, "--audit", "--since", "2001-01-01T00:00+02:00"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("a.parquet: 1 alerts") and "releases 10" in lines[1]
    assert [line.split("  ")[2] for line in lines[2:]] == ["export", "delete"]
    assert main(["--config", config, "--delete", "--camera", "all"]) == 0
    assert counts(engine) == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--delete"], "--delete needs --camera"),
        (["--export", "alerts"], "--export needs --out"),
        (["--audit", "--since", "yesterday"], "--since is 'yesterday'"),
        (["--delete", "--camera", "lab/x"], "knows no camera 'lab/x'"),
    ],
)
def test_a_wrong_command_is_one_line(
    config: str, engine: Engine, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", config, *options]) == 2
    assert words in capsys.readouterr().err and counts(engine) == [20, 6, 1]
