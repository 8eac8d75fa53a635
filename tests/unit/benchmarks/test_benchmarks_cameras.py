"""The fleet's picture and its releases; a run of it needs a broker and is a benchmark's."""

from __future__ import annotations

import json
import math
from xml.etree import ElementTree

import pytest

from benchmarks.cloud import cameras, overload
from benchmarks.cloud.cameras_feeder import SITE, _packet, _sealed, key_of
from tests.support.bridge_factory import make_manifest
from wire.protocol.message import open_features

LOADS = [
    cameras.Load(10, 10.0, 10.0, 0, 0, 20.0, 60.0, 70.0, 900.0, 300_000.0, 1.0),
    cameras.Load(2000, 2000.0, 1990.0, 3, 0, 120.0, 800.0, 900.0, 450.0, 400_000.0, 9.0),
]


def test_the_picture_names_every_curve_and_every_number_of_cameras() -> None:
    words = "".join(ElementTree.fromstring(cameras.draw(LOADS)).itertext())
    for text in ("verdicts a second", "p99, ms", "p50, ms", "cameras a core could read", "2,000", "10,000"):
        assert text in words


def test_memory_a_camera_is_the_growth_from_the_smallest_to_the_largest() -> None:
    assert cameras._kb_a_camera(LOADS) == pytest.approx(100_000 / 1990)
    assert json.dumps(cameras._row(LOADS[1])) and math.isclose(LOADS[1].cpu_us, 450.0)


def test_every_release_is_one_that_the_bridge_takes() -> None:
    manifest = make_manifest()
    for slot, row in enumerate(_sealed(manifest, 3, 2)):
        for number, payload in enumerate(row):
            names = (SITE, f"c{number}")
            assert open_features(payload, key_of(number).public, *names, manifest.n, manifest.model_id).slot == slot


def test_a_packet_says_its_length_as_mqtt_does() -> None:
    for size, head in ((0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_384, b"\x80\x80\x01")):
        assert _packet(0x32, bytes(size)) == b"\x32" + head + bytes(size)


def part(name: str, most_ms: float, missing: int = 0, shed: int = 0, without_newest: int = 0) -> overload.Part:
    return overload.Part(name, 100, 100.0, missing, shed, without_newest, 10.0, 20.0, most_ms, 1.0)


def test_an_overload_is_judged_by_what_must_hold() -> None:
    full = part("0.8", 990.0)
    good = [full, part("3 times", 4900.0, 900, 900), part("alone", 50.0), part("flood", 1040.0), part("stranger", 60.0)]
    assert overload.judge(good) == []
    for index, bad, word in (
        (0, part("0.8", 990.0, 4, 4), "4 shed, not 0"),
        (1, part("3 times", 5100.0), "5100 ms old"),
        (1, part("3 times", math.nan), "nan ms old"),
        (1, part("3 times", 900.0, 5, 4), "5 verdicts are missing, and 4"),
        (1, part("3 times", 900.0, without_newest=2), "2 cameras have no verdict on their newest"),
        (3, part("flood", 1060.0), "a neighbour waited 1060 ms, 50 without it"),
    ):
        (wrong,) = overload.judge([*good[:index], bad, *good[index + 1 :]])
        assert word in wrong
