"""A minute of each campaign, on real processes: `python -m benchmarks.fuzz` and `python -m benchmarks.kills` are long.

No bound on time here: a machine may be slower, and the campaigns themselves hold the bridge to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.broker import find_mosquitto
from benchmarks.cloud import fuzz, kills
from benchmarks.runner import Benchmark
from tests.support.bridge_process import save_checkpoint
from tests.support.databases import running_postgres

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    checkpoint, _ = save_checkpoint(tmp_path)
    return ["--engine", str(tmp_path), "--checkpoint", str(checkpoint)]


def figures(command: Benchmark, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    status = command.main(arguments)
    found: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["figures"]
    assert (status, found["wrong"]) == (0, [])
    return found


def test_a_minute_of_hostile_messages_and_requests(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("schemathesis", reason="scripts/setup --all installs it")
    bounds = ["--bound-ms", "1000", "--growth-mb", "200"]
    found = figures(fuzz.COMMAND, [*model, "--seconds", "60", "--seed", "16", *bounds], capsys)
    assert found["genuine"] > 20 and found["genuine"] == found["genuine_stored"]
    assert found["read_by_the_bridge"] > 1000 and found["requests"] > 50 and found["broken_requests"] > 50
    assert len(found["kinds"]) == 10 and min(found["kinds"].values()) > 10


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_half_a_minute_of_kills(database: str, model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if database == "postgresql":
        with running_postgres():
            pass  # skips where there is none
    options = ["--seconds", "30", "--seed", "16", "--database", database]
    found = figures(kills.COMMAND, [*model, *options], capsys)[database]
    assert found["killed"] >= 3 and found["acknowledged"] > 100
    assert found["verdicts"] > 20 and found["alerts"] > 20
