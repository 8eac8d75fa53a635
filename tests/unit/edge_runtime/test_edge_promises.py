"""The loop's order, where a wrong one would let the eye speak: what it is asked, and when clocks are read."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.gate.children import Child
from tests.support.edge_device import SLOT_S, Device, drawn_by
from tests.support.services import PATIENCE_S
from wire.protocol.message import coarse_time


def test_a_release_of_a_spent_budget_is_the_noise_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit: the code is in the first four alone."""
    device = Device(tmp_path, maximum=4)
    drawn = drawn_by(device, monkeypatch)
    device.run(9)
    shifts = [message.z - noise for message, noise in zip(device.features(), drawn, strict=True)]
    assert [bool(shift.any()) for shift in shifts] == [True] * 4 + [False] * (len(shifts) - 4)


def test_the_time_in_a_release_is_read_before_the_eye_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eye that holds its answer back until the minute is over moves no field."""
    device, now = Device(tmp_path), [1.7e9]
    asked: list[int] = []

    def hold(slot: int) -> None:
        asked.append(coarse_time(now[0]))
        now[0] += 61.0

    monkeypatch.setattr(time, "time", lambda: now[0])
    device.eye.before = hold
    device.run(5)
    assert [message.time_s for message in device.features()] == asked[:5]


def test_a_release_is_handed_over_at_the_time_that_was_drawn(tmp_path: Path) -> None:
    """On a clock that moves when the gate waits for it: exactly then, whatever the eye answered."""
    device = Device(tmp_path)
    ask, answers = device.eye.code, iter([True, False, False, True] * 10)

    def code(slot: int, timeout_s: float) -> Any:
        found = ask(slot, timeout_s)
        return found if next(answers) else None

    device.eye.code = code  # type: ignore[method-assign]  # an eye that answers now and then
    device.run(10)
    assert set(device.times()) == {0.0}
    assert all(0.0 <= due - device.clock.deadline(slot) <= 0.2 * SLOT_S for slot, due in device.due.items())
    assert device.stats.counts["alone"] > 0


def test_a_child_does_not_inherit_the_gates_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that starts children gives the gate's priority up first."""
    given: list[int] = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: -5)
    monkeypatch.setattr(os, "setpriority", lambda which, who, value: given.append(value))
    seen: list[list[int]] = []

    def begin() -> None:
        seen.append([*given])

    child = Child("eye", begin, lambda: b"{}")
    child._thread.join(PATIENCE_S)
    assert len(seen) == 1 and seen[0][0] > -5
    child.close()
