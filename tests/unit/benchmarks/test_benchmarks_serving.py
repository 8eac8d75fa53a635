"""The benchmark of the remote member: it runs, its two sides agree, and it says what it measured."""

from __future__ import annotations

import json

import pytest

from benchmarks.cloud import serving


def test_both_sides_read_alike_and_are_timed(capfd: pytest.CaptureFixture[str]) -> None:
    assert serving.COMMAND.main(["--repeats", "1"]) == 0
    document = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert document["name"] == "serving" and document["ratio"] > 0
    assert document["figures"]["largest_difference"] < 1e-4
    assert document["figures"]["ms"].keys() == {"1", "8", "64"}
    assert document["figures"]["ms"]["64"].keys() == {"here", "server", "way", "nobody"}
