"""A device's memory and open files stay as they are: `python -m benchmarks.soak` is the long form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.device import soak
from tests.support.engine_factory import make_engine

pytestmark = [pytest.mark.slow, pytest.mark.alone]

LEAKING = """
import os, sys
from edge_runtime.gate.loop import Loop
from benchmarks.device.soak_gate import run
count, kept = Loop._count, []
def leak(self, *given):
    count(self, *given)
    kept.append(os.urandom(2000))
    if len(kept) % 500 == 0:
        os.open("/dev/null", os.O_RDONLY)
Loop._count = leak
sys.exit(run(sys.argv[1:]))
"""


def soaked(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    make_engine(folder / "engine", slot_s=0.5)
    status = soak.COMMAND.main(["--engine", str(folder / "engine"), *options])
    printed, complaint = capsys.readouterr()
    assert printed, complaint
    return status, json.loads(printed.strip().splitlines()[-1])["figures"]


def shown(figures: dict[str, Any]) -> list[str]:
    """What a run of seconds shows, where the long one rules out: growth of 2 MB by the lower end of the interval."""
    lower = {name: each["mb_a_million_windows"][1] for name, each in figures["processes"].items()}
    grown = [f"{name}: memory" for name, each in lower.items() if each * figures["windows"] > 2e6]
    return grown + [each for each in figures["wrong"] if "memory" not in each]


def test_windows_as_fast_as_they_go_leave_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, figures = soaked(tmp_path, capsys, "--seconds", "40")
    assert shown(figures) == []
    assert figures["windows"] > 1000 and {"gate", "eye", "reader"} == figures["processes"].keys()
    assert figures["page"]["publisher"]["sent"] >= figures["windows"] - 200
    assert figures["page"]["loop"]["alone"] < figures["windows"] / 10  # its eye answers at once


def test_the_whole_device_at_real_pace_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, figures = soaked(tmp_path, capsys, "--real", "--seconds", "40")
    assert shown(figures) == []
    assert figures["windows"] > 20


def test_a_gate_that_leaks_is_caught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "_GATE", LEAKING)
    status, figures = soaked(tmp_path, capsys, "--seconds", "40")
    assert status == 1
    for words in ("gate: memory", "open files"):
        assert any(words in each for each in shown(figures)), figures["wrong"]
