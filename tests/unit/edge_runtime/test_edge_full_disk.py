"""A disk that is full, or became read-only: at the first start, while the device runs, and when it can be written."""

from __future__ import annotations

import errno
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import app
from edge_runtime.capture.clock import SlotClock
from edge_runtime.gate.ledger import Ledger, open_key
from tests.support.edge_device import Device
from wire.errors import DeviceKeyError, LedgerError
from wire.files import disk_takes_nothing, load_counts, save_counts
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FLAG_SPENT

KEY = DeviceKey(b"k" * 32)


class Disk:
    """Every durable write fails while `full`, with the number of its error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.full, write = False, os.write

        def limited(file: int, data: Any) -> int:
            if self.full:
                raise OSError(number, os.strerror(number))
            return write(file, data)

        monkeypatch.setattr(os, "write", limited)


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EROFS], ids=errno.errorcode.get)
def disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Disk:
    return Disk(monkeypatch, request.param)


def ledger_in(folder: Path) -> Ledger:
    return Ledger(folder, Fraction(1), 1.0, key_id=KEY.public.hex)


def test_a_key_is_whole_or_not_there(tmp_path: Path, disk: Disk) -> None:
    """A full disk left 0 bytes, and the device refused to start for ever."""
    disk.full = True
    with pytest.raises(LedgerError) as caught:
        open_key(tmp_path / "device.key", tmp_path)
    assert disk_takes_nothing(caught.value) and not (tmp_path / "device.key").exists()
    with pytest.raises(DeviceKeyError):
        KEY.save(tmp_path / "device.key")
    assert not (tmp_path / "device.key").exists()
    disk.full = False
    assert open_key(tmp_path / "device.key", tmp_path).public == open_key(tmp_path / "device.key", tmp_path).public


def test_an_empty_key_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "device.key").touch(0o600)
    with pytest.raises(DeviceKeyError, match=r"device\.key: 0 bytes, expected 32; restore it; or delete"):
        DeviceKey.load(tmp_path / "device.key")


def test_nothing_is_granted_while_the_disk_is_full_and_then_it_goes_on(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    save_counts(tmp_path / "ledger.json", dict.fromkeys(load_names(), 0), KEY.public.hex)
    ledger = ledger_in(tmp_path)
    assert ledger.charge(0).granted
    disk.full = True
    granted = [ledger.charge(slot).granted for slot in range(1, 400)]
    assert granted[:119] == [True] * 119  # what the disk covers already
    assert not any(granted[120:])
    assert caplog.text.count("until then every release is noise alone") == 1
    disk.full = False
    assert ledger.charge(400).granted
    spent, on_disk = ledger.totals()["s2_total"], load_counts(tmp_path / "ledger.json", load_names())[0]
    assert spent == sum(granted) + 2 and on_disk["releases"] >= sum(granted) + 2
    ledger.close()
    assert load_counts(tmp_path / "ledger.json", load_names())[0]["releases"] == sum(granted) + 2


def load_names() -> tuple[str, ...]:
    return ("boots", "slots", "releases", "spent", "hour_spent", "day_spent")


def test_another_fault_of_the_disk_still_stops_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_counts(tmp_path / "ledger.json", dict.fromkeys(load_names(), 0), KEY.public.hex)
    ledger = ledger_in(tmp_path)

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", broken)
    with pytest.raises(LedgerError, match="Input/output error"):
        ledger.charge(0)


def test_a_device_on_a_full_disk_releases_noise_and_says_that_it_is_blind(tmp_path: Path, disk: Disk) -> None:
    device = Device(tmp_path)
    disk.full = True
    device.run(3)
    assert [bool(message.flags & FLAG_SPENT) for message in device.features()] == [True] * 3
    assert [state["blind"] for state in device.publisher.states] == [True] * 3


def test_a_full_disk_at_the_start_is_waited_for(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    told: list[str] = []
    clock, disk.full = SlotClock(1.0, 0.2), True

    def wait(seconds: float) -> bool:
        disk.full = len(told) < 3
        return False

    monkeypatch.setattr(app, "notify", told.append)
    monkeypatch.setattr(clock.stop, "wait", wait)
    key = app._with_space(clock, lambda: open_key(tmp_path / "device.key", tmp_path))
    assert key.public == DeviceKey.load(tmp_path / "device.key").public
    assert told == ["EXTEND_TIMEOUT_USEC=60000000"] * 3  # systemd does not end it meanwhile
    assert "waiting until it can be written" in caplog.text
