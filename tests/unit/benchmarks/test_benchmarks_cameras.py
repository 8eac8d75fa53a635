"""The fleet's picture and its releases; a run of it needs a broker and is a benchmark's."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.cloud import bridge, cameras, overload
from benchmarks.cloud.cameras_feeder import SITE, _packet, _sealed, key_of
from cloud_bridge.ingest.transport import Inbound
from tests.support.bridge_factory import Harness, make_manifest, release
from wire.protocol.message import open_features

MANIFEST = make_manifest()
LOADS = [
    cameras.Load(10, 10.0, 10.0, 0, 0, 0, 0, 20.0, 60.0, 70.0, 900.0, 300_000.0, 1.0),
    cameras.Load(400, 400.0, 390.0, 0, 0, 0, 0, 30.0, 300.0, 900.0, 1900.0, 310_000.0, 2.0),
    cameras.Load(2000, 2000.0, 1990.0, 0, 3, 3, 0, 120.0, 800.0, 900.0, 450.0, 400_000.0, 9.0),
]


def test_the_picture_names_every_curve_and_every_number_of_cameras() -> None:
    words = "".join(ElementTree.fromstring(cameras.draw(LOADS)).itertext())
    for text in ("verdicts a second", "p99, ms", "p50, ms", "cameras a core could read", "2,000", "10,000"):
        assert text in words


def test_memory_a_camera_is_the_growth_from_the_smallest_to_the_largest() -> None:
    assert cameras._kb_a_camera(LOADS) == pytest.approx(100_000 / 1990)
    assert json.dumps(cameras._row(LOADS[2])) and math.isclose(LOADS[2].cpu_us, 450.0)
    assert len(cameras._row(LOADS[2])) == len(cameras._HEAD)


def test_every_release_is_one_that_the_bridge_takes() -> None:
    for slot, row in enumerate(_sealed(MANIFEST, 3, 2)):
        for number, payload in enumerate(row):
            names = (SITE, f"c{number}")
            assert open_features(payload, key_of(number).public, *names, MANIFEST.n, MANIFEST.model_id).slot == slot


def test_a_packet_says_its_length_as_mqtt_does() -> None:
    for size, head in ((0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_384, b"\x80\x80\x01")):
        assert _packet(0x32, bytes(size)) == b"\x32" + head + bytes(size)


@pytest.mark.parametrize(
    ("index", "changed", "words"),
    [
        (1, {"p99_ms": 1010.0}, "400 cameras: p99 1010 ms, 1000 at most; 0 verdicts missing, not 0"),
        (1, {"p99_ms": math.nan}, "400 cameras: p99 nan ms, 1000 at most; 0 verdicts missing, not 0"),
        (1, {"cpu_us": 2500.0}, "400 cameras a core, 500 at least, by the best fleet of 300 cameras or more with"),
        (2, {"memory_kb": 600_000.0}, "151 KB a camera; 100 at most"),
        (0, {"unread": 2}, "10 cameras: 2 releases were not read"),
        (2, {"missing": 5}, "2000 cameras: 5 verdicts are missing, and 3 were counted as shed"),
        (2, {"without_newest": 1}, "2000 cameras: 1 cameras have no verdict on their newest release"),
    ],
)
def test_a_fleet_is_judged_by_what_must_hold(index: int, changed: dict[str, float], words: str) -> None:
    """The largest is beyond what the bridge reads from a standing queue, so how late it is counts for nothing."""
    assert cameras.judge(LOADS, 500.0, True) == []
    loads = [dataclasses.replace(load, **(changed if n == index else {})) for n, load in enumerate(LOADS)]  # type: ignore[arg-type]
    (wrong,) = cameras.judge(loads, 500.0, True)
    assert wrong.startswith(words)
    is_time = changed.keys() & {"p99_ms", "cpu_us"}
    assert cameras.judge(loads, 500.0, False) == ([] if is_time else [wrong])


def test_an_intake_that_is_slower_than_asked_is_told() -> None:
    assert bridge.judge(0.8) == []
    assert bridge.judge(0.79) == ["intake is 0.79 of the bare client's; 0.8 at least"]


def test_what_the_bridge_has_shed_of_one_camera_is_counted(tmp_path: Path) -> None:
    """Events of a backlog are left out while others follow; the newest one is read, or only waits."""
    harness = Harness(tmp_path, MANIFEST)
    session, store = harness.bridge.sessions["lab/door"], tmp_path / "store.sqlite"
    harness.now_s, waited = 100.0, (10, 11, 12, 20, 29)
    for slot in range(30):
        payload = release(slot, manifest=MANIFEST, time_s=60)
        item = Inbound("lab/door", "features", payload, False, came_s=50.0, followed=slot in waited)
        harness.bridge.handle([item])
    with closing(sqlite3.connect(store)) as connection:
        assert cameras.left_out(connection, "lab/door", MANIFEST) == session.shed == len(waited) - 1
        assert cameras._slots(connection, "camera <> ?", "lab/hall") == [*range(30)]


def part(name: str, most_ms: float, missing: int = 0, shed: int = 0, without_newest: int = 0) -> overload.Part:
    return overload.Part(name, 100, 100.0, 0, missing, shed, without_newest, 10.0, 20.0, most_ms, 1.0)


def test_an_overload_is_judged_by_what_must_hold() -> None:
    full = part("0.8", 990.0)
    good = [full, part("3 times", 4900.0, 900, 900), part("alone", 50.0), part("flood", 1040.0), part("stranger", 60.0)]
    assert overload.judge(good) == []
    for index, bad, word in (
        (0, part("0.8", 990.0, 4, 4), "4 shed, not 0"),
        (1, part("3 times", 5100.0), "5100 ms old"),
        (1, part("3 times", math.nan), "nan ms old"),
        (3, part("flood", 1060.0), "a neighbour waited 1060 ms, 50 without it"),
    ):
        (wrong,) = overload.judge([*good[:index], bad, *good[index + 1 :]])
        assert word in wrong
    assert len(overload.row(full)) == len(cameras._OVERLOAD_HEAD)
