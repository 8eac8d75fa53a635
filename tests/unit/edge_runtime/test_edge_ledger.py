"""The ledger is durable before a release, never below what was published, and fails closed."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.gate import ledger as ledger_module
from edge_runtime.gate.ledger import Ledger, open_key, start_ledger
from tests.support.simulated_disk import PowerCut, SimulatedDisk
from wire import files as durable
from wire.errors import DeviceKeyError, LedgerError
from wire.privacy.certificate import bits
from wire.privacy.level_rule import UNIT, units
from wire.protocol.keys import DeviceKey

S2 = Fraction(9, 8)
BLOCK = ledger_module._BLOCK
KEY_ID = DeviceKey(bytes(range(32))).public.hex


def opened(folder: Path, *given: Any, **budgets: Any) -> Ledger:
    """The ledger of a folder, begun where there is no such file."""
    if not (folder / "ledger.json").exists():
        start_ledger(folder, KEY_ID)
    return Ledger(folder, *given, **budgets, key_id=KEY_ID)


def on_disk(folder: Path) -> dict[str, Any]:
    book: dict[str, Any] = json.loads((folder / "ledger.json").read_text())["counts"]
    return book


def crash(ledger: Ledger) -> None:
    """The process is gone: nothing more is written, and the lock is released."""
    os.close(ledger._lock_file)


def test_what_is_on_disk_is_never_below_what_was_granted(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 1.0)
    for slot in range(3 * BLOCK + 7):
        assert ledger.charge(slot).granted
        assert on_disk(tmp_path)["releases"] >= slot + 1
        assert on_disk(tmp_path)["spent"] >= (slot + 1) * S2 * 10**12
    ledger.close()
    assert on_disk(tmp_path)["releases"] == 3 * BLOCK + 7


@pytest.mark.parametrize("used", [1, 5, BLOCK, BLOCK + 1])
def test_a_crash_counts_the_whole_reservation_as_spent(tmp_path: Path, used: int) -> None:
    ledger = opened(tmp_path, S2, 1.0)
    for slot in range(used):
        ledger.charge(slot)
    crash(ledger)
    again = opened(tmp_path, S2, 1.0)
    assert again.totals()["releases_total"] == -(-used // BLOCK) * BLOCK
    again.close()


def test_a_crash_within_the_write_keeps_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path, S2, 1.0)
    for slot in range(BLOCK):
        ledger.charge(slot)
    before = on_disk(tmp_path)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(LedgerError, match="Input/output error"):
        ledger.charge(BLOCK)
    assert on_disk(tmp_path) == before


def test_the_reservation_is_synced_before_it_is_granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced first, then renamed, then the folder is synced; all before `charge` returns."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(fd: int) -> None:
        calls.append("fsync")
        fsync(fd)

    def spy_replace(a: Path, b: Path) -> None:
        calls.append("replace")
        replace(a, b)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    ledger = opened(tmp_path, S2, 1.0)
    calls.clear()
    ledger.charge(0)
    assert calls == ["fsync", "replace", "fsync"]
    ledger.close()


def test_the_boot_counter_only_grows(tmp_path: Path) -> None:
    seen = []
    for clean in (True, False, True):
        ledger = opened(tmp_path, S2, 1.0)
        seen.append(ledger.boots)
        ledger.close() if clean else crash(ledger)
    assert seen == [1, 2, 3]


ZEROS = dict.fromkeys(ledger_module._EMPTY, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "not json",
        "[]",
        json.dumps({"counts": ZEROS, "sha256": "0"}),
        json.dumps({**durable._document(ZEROS, KEY_ID), "owner": ""}),
        json.dumps({**durable._document(ZEROS, KEY_ID), "owner": 1}),
        json.dumps(durable._document({**ZEROS, "spent": -1}, KEY_ID)),
        json.dumps(durable._document({"boots": 1}, KEY_ID)),
    ],
)
def test_a_corrupt_ledger_fails_closed(tmp_path: Path, text: str) -> None:
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(LedgerError, match=r"ledger\.json.*a new ledger needs a new key"):
        opened(tmp_path, S2, 1.0)


def test_a_lost_ledger_is_never_begun_again_for_its_key(tmp_path: Path) -> None:
    """Whatever the device does with a key, the boot counter under it never starts over: no recording passes as new."""
    key = open_key(tmp_path / "device.key", tmp_path / "state")
    Ledger(tmp_path / "state", S2, 1.0, key_id=key.public.hex).close()
    (tmp_path / "state" / "ledger.json").unlink()
    assert open_key(tmp_path / "device.key", tmp_path / "state").public == key.public
    with pytest.raises(LedgerError, match=r"missing.*remove both.*registered at the bridge"):
        Ledger(tmp_path / "state", S2, 1.0, key_id=key.public.hex)
    (tmp_path / "device.key").unlink()  # the cure
    new = open_key(tmp_path / "device.key", tmp_path / "state")
    assert new.public != key.public
    ledger = Ledger(tmp_path / "state", S2, 1.0, key_id=new.public.hex)
    assert ledger.boots == 1
    ledger.close()


def test_a_key_that_was_put_there_begins_no_ledger(tmp_path: Path) -> None:
    key = DeviceKey.load_or_make(tmp_path / "device.key")
    assert open_key(tmp_path / "device.key", tmp_path / "state").public == key.public
    with pytest.raises(LedgerError, match="missing"):
        Ledger(tmp_path / "state", S2, 1.0, key_id=key.public.hex)


def test_a_lost_key_does_not_take_over_a_used_ledger(tmp_path: Path) -> None:
    key = open_key(tmp_path / "device.key", tmp_path / "state")
    Ledger(tmp_path / "state", S2, 1.0, key_id=key.public.hex).close()
    (tmp_path / "device.key").unlink()
    with pytest.raises(LedgerError, match=f"belongs to the key {key.public.hex[:16]}.*restore the key, or: .*remove"):
        open_key(tmp_path / "device.key", tmp_path / "state")
    assert not (tmp_path / "device.key").exists()


def test_the_ledger_of_another_key_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, S2, 1.0).close()
    with pytest.raises(LedgerError, match=f"is of the key {KEY_ID[:16]}, this is ffff.*remove both"):
        Ledger(tmp_path, S2, 1.0, key_id="f" * 64)
    opened(tmp_path, S2, 1.0).close()


def test_a_ledger_of_the_version_before_goes_on(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text(json.dumps(durable._document({**ZEROS, "boots": 7}, "")))
    ledger = Ledger(tmp_path, S2, 1.0, key_id=KEY_ID)
    assert ledger.boots == 8
    ledger.close()
    with pytest.raises(LedgerError, match="is of the key"):
        Ledger(tmp_path, S2, 1.0, key_id="f" * 64)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 24), max_size=4), st.data())
def test_a_first_start_that_is_cut_off_is_done_again(cuts: list[int], data: st.DataObject) -> None:
    """Power cuts at any operations of a first start: the next one is never refused, and no key has a second ledger."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        boots: dict[str, int] = {}
        for cut in [*cuts, -1]:
            patch.setattr(durable, "os", SimulatedDisk(folder, lambda n: data.draw(st.integers(0, n - 1)), cut))
            ledger = None
            try:
                key = open_key(folder / "device.key", folder)
                ledger = Ledger(folder, S2, 1.0, key_id=key.public.hex)
                assert ledger.boots > boots.get(key.public.hex, 0)
                boots[key.public.hex] = ledger.boots
                ledger.close()
            except PowerCut:
                if ledger is not None:
                    crash(ledger)
            patch.undo()
        assert ledger is not None
        assert DeviceKey.load(folder / "device.key").public == key.public
        assert (folder / "device.key.pub").read_text().strip() == key.public.hex


@pytest.mark.parametrize("name", ["ledger.json", "ledger.lock", "device.key"])
@pytest.mark.parametrize("target", ["a file", "nothing"])
def test_no_state_is_read_or_written_through_a_link(tmp_path: Path, name: str, target: str) -> None:
    key = open_key(tmp_path / "device.key", tmp_path)
    file, kept = tmp_path / name, tmp_path / "kept"
    file.rename(kept) if target == "a file" else file.unlink()
    before = kept.read_bytes() if kept.exists() else None
    file.symlink_to(kept)
    with pytest.raises((LedgerError, DeviceKeyError), match="symbolic link"):
        Ledger(tmp_path, S2, 1.0, key_id=open_key(tmp_path / "device.key", tmp_path).public.hex)
    assert key.public.hex and (kept.read_bytes() if kept.exists() else None) == before


def test_an_edited_ledger_fails_closed(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 1.0)
    ledger.charge(0)
    ledger.close()
    file = tmp_path / "ledger.json"
    file.write_text(file.read_text().replace('"releases": 1', '"releases": 0', 1))
    with pytest.raises(LedgerError, match="checksum"):
        opened(tmp_path, S2, 1.0)


def test_an_unwritable_folder_fails_closed(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(LedgerError, match="state_dir"):
        opened(tmp_path / "state", S2, 1.0)


def test_two_processes_cannot_share_a_ledger(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 1.0)
    with pytest.raises(LedgerError, match="one process"):
        opened(tmp_path, S2, 1.0)
    ledger.close()
    opened(tmp_path, S2, 1.0).close()


def test_a_slot_is_charged_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 1.0)
    ledger.charge(3)
    for slot in (3, 2):
        with pytest.raises(LedgerError, match="charged once"):
            ledger.charge(slot)
    ledger.close()


def test_the_cut_off_is_hard_and_ends_with_the_day_of_slots(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 900.0, per_day=30 * S2)  # a day has 96 slots
    granted = [ledger.charge(slot).granted for slot in range(250)]
    assert granted[:96] == [True] * 30 + [False] * 66
    assert granted[96:192] == [True] * 30 + [False] * 66
    assert granted[192:] == [True] * 30 + [False] * 28
    ledger.close()


def test_an_hour_may_be_cut_off_as_well(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 360.0, per_hour=4 * S2, per_day=50 * S2)  # an hour has 10 slots
    granted = [ledger.charge(slot).granted for slot in range(240)]
    assert granted[:120] == [*[True] * 4, *[False] * 6] * 12
    assert sum(granted) == 50
    ledger.close()


@pytest.mark.parametrize("number", [2, 7, 40])
def test_slots_in_between_are_charged_so_that_the_number_alone_decides(tmp_path: Path, number: int) -> None:
    """Whether slot s is granted does not depend on which slots before it the device missed."""
    every = opened(tmp_path / "every", S2, 360.0, per_hour=4 * S2, per_day=50 * S2)
    some = opened(tmp_path / "some", S2, 360.0, per_hour=4 * S2, per_day=50 * S2)
    granted = [every.charge(slot).granted for slot in range(600)]
    for slot in range(number, 600, number):
        assert some.charge(slot).granted == granted[slot]
    every.close()
    some.close()


def test_a_jump_over_days_lands_in_the_right_slot_of_the_day(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 360.0, per_day=50 * S2)
    for day in (0, 3, 1_000, 10**12):
        assert ledger.charge(day * 240 + 49).granted
        assert not ledger.charge(day * 240 + 50).granted
    ledger.close()


def test_the_first_cost_that_the_budgets_allow_is_charged(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 360.0, per_hour=Fraction(5))
    dear, cheap = units(Fraction(2)), units(Fraction(1, 2))
    costs = [ledger.charge(slot, dear, cheap).cost for slot in range(10)]
    assert costs == [dear, dear, cheap, cheap, *[0] * 6]
    assert ledger.totals()["s2_hour"] == 5.0
    assert [ledger.charge(slot, cheap).granted for slot in (10, 11)] == [True, True]
    with pytest.raises(LedgerError, match="above 0"):
        ledger.charge(12, dear, 0)
    ledger.close()


def test_restarts_do_not_refund_the_day(tmp_path: Path) -> None:
    granted = 0
    for boot in range(12):
        ledger = opened(tmp_path, S2, 1.0, per_day=200 * S2)
        granted += sum(ledger.charge(slot).granted for slot in range(40))
        ledger.close() if boot % 2 else crash(ledger)
    assert granted <= 200


def test_a_lock_that_a_child_has_until_it_is_another_program_is_waited_for(tmp_path: Path) -> None:
    """A fork copies our locks: on a slow machine a first start found its own in use, and ended with code 3."""
    key = open_key(tmp_path / "device.key", tmp_path)
    copied = os.open(tmp_path / "ledger.lock", os.O_RDWR)
    fcntl.flock(copied, fcntl.LOCK_EX)
    threading.Timer(0.1, os.close, [copied]).start()
    Ledger(tmp_path, S2, 1.0, key_id=key.public.hex).close()


def test_the_wall_clock_does_not_refund(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock is read at all, so none can jump."""

    def forbidden() -> float:
        raise AssertionError("the ledger read a clock")

    for name in ("time", "monotonic", "time_ns", "localtime", "gmtime"):
        monkeypatch.setattr(time, name, forbidden)
    ledger = opened(tmp_path, S2, 1.0, per_day=5 * S2)
    assert [ledger.charge(slot).granted for slot in range(8)] == [True] * 5 + [False] * 3
    ledger.close()


def test_spent_slots_cost_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 1.0, per_day=5 * S2)
    for slot in range(50):
        ledger.charge(slot)
    totals = ledger.totals()
    assert totals["releases_total"] == 5
    assert totals["s2_total"] == 5 * float(S2)
    ledger.close()


def test_hour_and_day_are_reported(tmp_path: Path) -> None:
    ledger = opened(tmp_path, S2, 60.0)  # 60 slots an hour
    for slot in range(90):
        ledger.charge(slot)
    totals = ledger.totals()
    assert totals["s2_day"] == totals["s2_total"] == 90 * float(S2)
    assert totals["s2_hour"] == 30 * float(S2)
    assert totals["bits_hour"] == pytest.approx(bits(totals["s2_hour"] ** 0.5))
    ledger.close()


steps = st.one_of(
    st.integers(1, 40).map(lambda count: ("charge", count)),
    st.integers(2, 400).map(lambda count: ("sleep", count)),
    st.sampled_from([("close", 0), ("crash", 0)]),
    st.integers(0, 8).map(lambda at: ("cut", at)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, max_size=12), st.data(), st.sampled_from([(0, 0), (4, 50), (0, 30), (7, 0)]))
def test_no_end_of_the_process_loses_what_was_granted(
    script: list[tuple[str, int]], data: st.DataObject, budget: tuple[int, int]
) -> None:
    """The process is closed, killed or loses power at any operation, repeatedly: the next start counts at least what
    was granted, and no hour and no day grants more than its budget, counted in the slots that the ledger saw."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder, costs = Path(name), (units(Fraction(2)), units(S2))
        budgets = [Fraction(each) * Fraction(2) for each in budget]
        granted = boots = slot = passed = 0
        ledger: Ledger | None = None
        for step, count in [*script, ("close", 0), ("charge", 1), ("close", 0)]:
            try:
                if ledger is None:
                    ledger = opened(folder, S2, 360.0, *budgets)  # 10 slots an hour
                    assert ledger.boots > boots
                    assert ledger._book["spent"] >= granted
                    boots, slot = ledger.boots, 0
                at = count if step == "cut" else -1
                disk = SimulatedDisk(folder, lambda many: data.draw(st.integers(0, many - 1)), at)
                patch.setattr(durable, "os", disk)
                for _ in range({"charge": count, "sleep": 1, "cut": BLOCK + 5}.get(step, 0)):
                    slot += count if step == "sleep" else 1
                    passed += count if step == "sleep" else 1
                    charge = ledger.charge(slot, *costs)
                    granted += charge.cost
                assert on_disk(folder)["spent"] >= granted
                if step == "close":
                    ledger.close()
                    ledger = None
            except PowerCut:
                step = "crash"
            patch.undo()
            if step == "crash" and ledger is not None:
                crash(ledger)
                ledger = None
        for limit, length in zip(budgets, (10, 240), strict=True):
            assert not limit or granted <= (passed // length + 1) * limit * UNIT


def test_a_charge_takes_little_time(tmp_path: Path) -> None:
    """CPU time on average, the writes included; the benchmark gives the figure."""
    ledger = opened(tmp_path, S2, 1.0)
    best = 1.0
    slot = 0
    for _ in range(5):
        began = time.thread_time()
        for _ in range(4 * BLOCK):
            ledger.charge(slot)
            slot += 1
        best = min(best, (time.thread_time() - began) / (4 * BLOCK))
    ledger.close()
    assert best < 30e-6
