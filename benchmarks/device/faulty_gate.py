"""The device's process with two additions: it notes what it puts into its outbox, and its wall clock can be set.

    benchmarks.faults --run(FOLDER --config edge.toml ...), in a process of its own--> edge_runtime.app.main

FOLDER/clock holds the seconds by which its clock is wrong. FOLDER/put gets a line for each message before the outbox
has it: the process, the topic's name, and the payload's hash.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from edge_runtime import app
from edge_runtime.uplink.outbox import Outbox
from wire.protocol.message import Sealed

__all__ = ["digest", "run"]


def digest(payload: bytes) -> str:
    """Names a payload."""
    return hashlib.sha256(payload).hexdigest()[:24]


def run(argv: list[str]) -> int:
    """Be the process; returns its exit code."""
    folder, given = Path(argv[0]), argv[1:]
    real, put = time.time, Outbox.put
    notes = os.open(folder / "put", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def wrong_clock() -> float:
        return real() + float((folder / "clock").read_text() or 0)

    def noted(self: Outbox, name: str, message: Sealed) -> None:
        os.write(notes, f"{os.getpid()} {name} {digest(message)}\n".encode())
        put(self, name, message)

    time.time = wrong_clock
    Outbox.put = noted  # type: ignore[method-assign]  # the addition
    return app.main(given)
