"""A short form of each campaign and load, on real processes: `python -m benchmarks.fuzz` and its like are long.

What is counted is judged as there. No bound on time here (`--untimed`): a machine may be five times slower, and run
other tests beside; the commands themselves hold the bridge to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.broker import find_mosquitto
from benchmarks.cloud import bridge, cameras, fuzz, kills
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
    said = capsys.readouterr()
    assert status != 2, said.err
    found: dict[str, Any] = json.loads(said.out.strip().splitlines()[-1])["figures"]
    assert (status, found["wrong"]) == (0, [])
    return found


def test_a_minute_of_hostile_messages_and_requests(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("schemathesis", reason="scripts/setup --all installs it")
    # Processor time, too, grows where others take the caches, and a minute is too short to tell what is kept for later
    # from what is kept for ever: these find what is slower, or larger, by orders of magnitude, such as 1e400 once was.
    bounds = ["--bound-ms", "1000", "--request-bound-ms", "5000", "--growth-mb", "200"]
    found = figures(fuzz.COMMAND, [*model, "--seconds", "60", "--seed", "16", *bounds], capsys)
    assert found["genuine"] > 20 and found["genuine"] == found["genuine_stored"]
    assert found["read_by_the_bridge"] > 1000 and found["requests"] > 50 and found["broken_requests"] > 50
    assert found["streams"] > 0 and len(found["longest_request_ms"]) > 10
    assert len(found["kinds"]) == 10 and min(found["kinds"].values()) > 10


def killed(model: list[str], capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    (found,) = (
        each
        for each in figures(kills.COMMAND, [*model, "--seed", "16", "--untimed", *options], capsys).values()
        if isinstance(each, dict)
    )
    assert found["killed"] >= 3 and found["acknowledged"] > 100
    assert found["verdicts"] > 20 and found["alerts"] > 20 and found["alerts of risks"] > 4
    return found


@pytest.mark.alone  # how many kills half a minute holds is asked
@pytest.mark.parametrize(("database", "takeovers"), [("sqlite", 1), ("postgresql", 0)])
def test_half_a_minute_of_kills(
    database: str, takeovers: int, model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if database == "postgresql":
        with running_postgres():
            pass  # skips where there is none
    found = killed(model, capsys, "--seconds", "30", "--database", database, "--takeovers", str(takeovers))
    assert len(found["a killed bridge's cameras are read on after, s"]) == takeovers
    assert found["alerts acknowledged over the API"] > 0


def test_an_intake_reads_all_that_was_sent(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Of the bare client and of each bridge, or the command ends with an error."""
    short = ["--cameras", "16", "--slots", "12", "--repeats", "1", "--untimed"]
    found = figures(bridge.COMMAND, [*model, *short], capsys)
    assert found["intake_per_s"] > 0.0 and found["member_verdicts_per_s"] > 0.0


@pytest.mark.alone  # what this machine reads is found first, and three times that sent
def test_an_overload_beside_a_flood_loses_nothing(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Three times what this machine's bridge reads, and one more camera that sends as much as all of them."""
    found = figures(cameras.COMMAND, [*model, "--overload", "3", "--short", "--seconds", "12"], capsys)
    (part,) = found["parts"]
    assert part["unread"] == part["without_newest"] == 0 and part["missing"] == part["shed"]
    assert part["cameras"] >= 3
