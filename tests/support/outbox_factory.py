"""Outboxes of tests: clocks that a test sets, short messages, and a process that ends at any moment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.uplink.outbox import Bounds, Outbox
from edge_runtime.uplink.segment import Stamp
from wire.errors import MessageError
from wire.protocol.message import Sealed

__all__ = ["Clocks", "check", "killed", "message", "open_outbox", "put", "take_all"]

SET_S = 1_800_000_000


class Clocks:
    """The clocks of a system, and the name of its run."""

    def __init__(self) -> None:
        self.boot_s, self.wall_s, self.run = 1000, SET_S, b"1" * 16

    def __call__(self) -> Stamp:
        return Stamp(self.boot_s, self.wall_s)

    def later(self, seconds: int) -> None:
        self.boot_s, self.wall_s = self.boot_s + seconds, self.wall_s + seconds


def message(number: int, size: int = 8) -> Sealed:
    return Sealed(b"ok %0*d" % (size - 3, number))


def check(name: str, payload: bytes) -> Sealed:
    """What stands for the signature: a payload begins with "ok"."""
    if not payload.startswith(b"ok "):
        raise MessageError("forged", f"{payload!r} is no {name} of ours")
    return Sealed(payload)


def open_outbox(
    folder: Path, clocks: Clocks | None = None, size: int = 1 << 20, age_s: float = 3600.0, memory: int = 600
) -> Outbox:
    clocks = clocks or Clocks()
    return Outbox(folder, Bounds(size, age_s, memory), check, clocks, clocks.run)


def put(outbox: Outbox, *numbers: int, size: int = 8, save: bool = True) -> None:
    """A release of each number, and its verdict, which says the same."""
    for number in numbers:
        for name in ("features", "verdict/edge"):
            outbox.put(name, message(number, size))
            if save:
                outbox.save()


def take_all(outbox: Outbox, settle: bool = False) -> list[int]:
    """The releases that can be taken now, in order; each has its verdict behind it."""
    found: list[tuple[str, int]] = []
    while outbox.name:
        parcel = outbox.take()
        assert parcel is not None
        found.append((parcel.name, int(parcel.message[3:])))
        if settle:
            outbox.settle(parcel.number)
    return _releases(found)


def _releases(found: Sequence[tuple[str, int]]) -> list[int]:
    releases = [number for name, number in found if name == "features"]
    verdicts = [number for name, number in found if name == "verdict/edge"]
    together = [pair for number in releases for pair in (("features", number), ("verdict/edge", number))]
    assert [*found] == together[: len(found)], "a release and its verdict are apart"
    assert verdicts == releases[: len(verdicts)]
    return releases


def killed(outbox: Outbox) -> None:
    """End the process that has the outbox: what it held in memory is gone, its files are as it last wrote them."""
    shelf = outbox._shelf
    if shelf is None:
        return
    shelf._stop_reading()
    for descriptor in (shelf._lock, shelf._writing):
        if descriptor >= 0:
            os.close(descriptor)
