"""The device's process with two additions: it notes what it charges and puts, and its wall clock can be set.

    benchmarks.faults --run(FOLDER --config edge.toml ...), in a process of its own--> edge_runtime.app.main

FOLDER/clock holds the seconds by which its clock is wrong. FOLDER/notes gets a line for each slot that is charged, each
that is not released in time, and each message, before the outbox has it (`benchmarks/device/fault_notes.py`).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from pathlib import Path

from benchmarks.device.fault_notes import CHARGED, LATE, PUT, Note, digest
from edge_runtime import app
from edge_runtime.capture.clock import SlotClock
from edge_runtime.gate.ledger import Charge, Ledger
from edge_runtime.uplink.outbox import Outbox
from wire.protocol.message import Sealed

__all__ = ["run"]


def run(argv: list[str]) -> int:
    """Be the process; returns its exit code."""
    folder, given = Path(argv[0]), argv[1:]
    faulthandler.register(signal.SIGUSR1)  # says where it is
    real, put, charge, missed = time.time, Outbox.put, Ledger.charge, SlotClock.missed
    file = os.open(folder / "notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    now = {"slot": -1}

    def note(kind: str, slot: int, name: str = "-", of: str = "-") -> None:
        os.write(file, Note(kind, os.getpid(), slot, name, of).line().encode())

    def wrong_clock() -> float:
        return real() + float((folder / "clock").read_text() or 0)

    def charged(self: Ledger, slot: int, *costs: int) -> Charge:
        now["slot"] = slot
        note(CHARGED, slot)
        return charge(self, slot, *costs)

    def late(self: SlotClock, slot: int) -> bool:
        found = missed(self, slot)
        if found:
            note(LATE, slot)
        return found

    def noted(self: Outbox, name: str, message: Sealed) -> None:
        note(PUT, now["slot"], name, digest(message))
        put(self, name, message)

    time.time = wrong_clock
    Outbox.put = noted  # type: ignore[method-assign]  # the additions
    Ledger.charge, SlotClock.missed = charged, late  # type: ignore[method-assign]
    return app.main(given)
