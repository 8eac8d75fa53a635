"""Readers that lie, flood, hang, die or attack, run by the real gate in place of its own.

    python -m tests.support.hostile_reader --behaviour NAME@FOLDER --descriptor N

It confines nothing. What it is told was published before, so whatever it answers is a function of z; the gate's part is
that nothing else changes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_runtime.child import ChildProcess, run_child
from edge_runtime.child_settings import ChildSettings
from edge_runtime.link import MAX_SETTINGS, Link
from edge_runtime.record import event_size, read_event, verdict_bytes
from tests.support.attacks import attempt_all
from tests.support.hostile_eye import read_targets
from wire.artifact.manifest import EngineManifest
from wire.protocol.event import EventWindow

__all__ = ["READERS", "main"]

_AGES = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the reader and return its exit status."""
    parser = argparse.ArgumentParser(description="a hostile reader", allow_abbrev=False)
    parser.add_argument("--behaviour", required=True)
    given, own = parser.parse_known_args(argv)
    name, _, folder = given.behaviour.partition("@")
    if name == "attacks":
        targets = read_targets(Path(folder))
        return run_child("reader", own, lambda child: _attack(child, targets))
    link = Link.of_descriptor(int(own[own.index("--descriptor") + 1]))
    data = np.zeros(MAX_SETTINGS + 1, np.uint8)
    settings = ChildSettings.read(data[: link.receive(data, 30.0)].tobytes())
    _serve(link, EngineManifest.load(settings.engine_folder), READERS[name])
    return 0


def _attack(child: ChildProcess, targets: dict[str, object]) -> None:
    """Confined, it attacks at every event, and answers only where nothing went well."""

    def answer(link: Link, slot: int, labels: int) -> None:
        if not attempt_all(targets, b"what was published " * 9, link.descriptor):
            link.send(verdict_bytes(slot, [1.0 / labels] * labels))

    _serve(child.link, child.manifest, answer)


def _serve(link: Link, manifest: EngineManifest, answer: Callable[[Link, int, int], object]) -> None:
    event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
    data = np.zeros(event_size(event) + 1, np.uint8)
    while (length := link.receive(data, _AGES)) != 0:
        if length == event_size(event):
            read_event(data, event)
            answer(link, event.last_slot, len(manifest.labels))


def _say(*values: float) -> Callable[[Link, int, int], object]:
    return lambda link, slot, labels: link.send(verdict_bytes(slot, values))


def _flood(link: Link, slot: int, labels: int) -> None:
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        link.send(verdict_bytes(slot + 1000, [1.0, 0.0, 0.0]))  # of an event that nobody asked about


def _hang(link: Link, slot: int, labels: int) -> None:
    time.sleep(_AGES)


def _close(link: Link, slot: int, labels: int) -> None:
    link.close()
    time.sleep(_AGES)


READERS: Mapping[str, Callable[[Link, int, int], object]] = {
    "lies": _say(0.0, 1.0, 0.0),
    "says-nan": _say(float("nan"), 0.5, 0.5),
    "says-infinite": _say(float("inf"), 0.0, 0.0),
    "says-negative": _say(-1.0, 1.0, 1.0),
    "says-too-much": _say(0.9, 0.9, 0.9),
    "says-too-little": _say(0.5, 0.5),
    "says-many": _say(*[0.01] * 100),
    "says-nothing": lambda link, slot, labels: None,
    "says-words": lambda link, slot, labels: link.send(b"a fall, believe me " * 3000),
    "says-empty": lambda link, slot, labels: link.send(b""),
    "speaks-of-tomorrow": lambda link, slot, labels: link.send(verdict_bytes(slot + 9, [1.0, 0.0, 0.0])),
    "reader-floods": _flood,
    "reader-hangs": _hang,
    "reader-closes": _close,
    "reader-dies": lambda link, slot, labels: os.kill(os.getpid(), signal.SIGSEGV),
}
"""Name -> how it answers about the event whose last slot is given."""

if __name__ == "__main__":
    sys.exit(main())
