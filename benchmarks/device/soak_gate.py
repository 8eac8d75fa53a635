"""The device's gate for `benchmarks.soak`: its slots do not wait for the clock, and its eye answers at once.

    benchmarks.soak --run(--config edge.toml ...), in a process of its own--> edge_runtime.app.main

All else is the device's own: ledger, sampler, core, check, signature, outbox, connection, reader, local page. The
broker sets the pace: a slot waits while many messages are not acknowledged.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from itertools import count

from benchmarks.device.fake_eye import fake_eye
from edge_runtime import app
from edge_runtime.capture.clock import SlotClock
from edge_runtime.config import Config
from edge_runtime.gate.children import Child
from edge_runtime.uplink.publisher import Publisher
from wire.artifact.manifest import EngineManifest
from wire.protocol.message import Sealed

__all__ = ["run"]

_ANSWER_S = 5.0  # for the eye, which is another process on a busy machine
_UNACKNOWLEDGED = 60


class _Hurried(SlotClock):
    """Slots one after the other, each at once and always in time."""

    def left(self, until: float) -> float:
        return _ANSWER_S

    def wait(self, until: float) -> bool:
        return not self.stop.is_set()

    def missed(self, slot: int) -> bool:
        return False

    def slots(self) -> Iterator[int]:
        for slot in count():
            if self.stop.is_set():
                return
            yield slot


def run(argv: list[str]) -> int:
    """Be the process; returns its exit code."""
    child, send = app._child, Publisher.send

    def with_fake_eye(name: str, config: Config, clock: SlotClock, sockets: Mapping[str, socket.socket]) -> Child:
        if name != "eye":
            return child(name, config, clock, sockets)
        n = EngineManifest.load(config.engine_folder).n
        return Child(name, lambda: fake_eye(n), lambda: b"{}")

    def paced(self: Publisher, name: str, message: Sealed) -> None:
        send(self, name, message)
        while self.outbox.waiting > _UNACKNOWLEDGED and not self.flush(0.002):
            pass

    app.SlotClock = _Hurried  # type: ignore[attr-defined]  # the two changes, and the pace
    app._child = with_fake_eye
    Publisher.send = paced  # type: ignore[method-assign]
    return app.main(argv)
