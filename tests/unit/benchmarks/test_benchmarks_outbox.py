"""The outbox's benchmark runs, loses nothing, and says what it promises; its numbers are the machine's."""

from __future__ import annotations

import json

import pytest

from benchmarks.device import outbox


def test_the_outbox_is_measured_beside_sqlite(capsys: pytest.CaptureFixture[str]) -> None:
    assert outbox.COMMAND.main(["--messages", "400", "--releases", "60"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["ratio"] > 0.0
    for figures in (found["figures"][name] for name in ("ours", "sqlite")):
        assert figures["in_us"] > 0.0 and figures["out_us"] > 0.0
    ours, theirs = (found["figures"][name] for name in ("ours", "sqlite"))
    assert ours["away_mb"] <= theirs["away_mb"] and ours["there_mb"] <= theirs["there_mb"]  # both 0 on a tmpfs
