"""`python -m benchmarks.outbox`: what keeping releases on disk costs, against SQLite in WAL mode.

Speed   messages a second that are written, and read back, checked and settled: the time of a message through the disk.
Wear    an hour at one release a second, each with its verdict: bytes that reach the disk, by the kernel's count, with
        the broker away for all of it and with the broker there. The kernel's writing back is played by an fsync after
        every fifth release, as file systems commit about every 5 s.

SQLite does the same with a transaction a message and `synchronous = NORMAL`: it waits for the disk at checkpoints.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.runner import Benchmark, Report
from edge_runtime.uplink.outbox import Bounds, Outbox
from wire.arguments import at_least_one
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.message import FeatureMessage, Sealed, Verdict

__all__ = ["COMMAND"]

_BOUNDS = Bounds(64_000_000, 86_400.0, 600)
_HOUR = 3600
_COMMIT_EVERY = 5
_MESSAGES_A_S, _WEAR_MB = 2000, 20.0
_LABELS = {"normal": 0.7, "fall": 0.1, "fight": 0.1, "help": 0.1}
Messages = Sequence[tuple[str, Sealed]]


class _Keeper(Protocol):
    """What keeps messages: ours, or SQLite."""

    def put(self, name: str, message: Sealed) -> None: ...

    def deliver(self) -> int:
        """Take all that waits, and settle it; returns how many."""

    def close(self) -> None: ...


class _Ours:
    def __init__(self, folder: Path, public: PublicKey) -> None:
        self._outbox = Outbox(folder / "outbox", _BOUNDS, partial(_checked, public))

    def put(self, name: str, message: Sealed) -> None:
        self._outbox.put(name, message)
        self._outbox.save()

    def deliver(self) -> int:
        count = 0
        while self._outbox.name and (parcel := self._outbox.take()) is not None:
            self._outbox.settle(parcel.number)
            count += 1
        return count

    def close(self) -> None:
        self._outbox.close()


class _Sqlite:
    def __init__(self, folder: Path, public: PublicKey) -> None:
        (folder / "sqlite").mkdir(exist_ok=True)
        self._public = public
        self._base = base = sqlite3.connect(folder / "sqlite" / "outbox.db", isolation_level=None)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute("CREATE TABLE IF NOT EXISTS m (n INTEGER PRIMARY KEY, name TEXT, at REAL, body BLOB)")

    def put(self, name: str, message: Sealed) -> None:
        self._base.execute("INSERT INTO m (name, at, body) VALUES (?, ?, ?)", (name, time.time(), message))

    def deliver(self) -> int:
        count = 0
        while found := self._base.execute("SELECT n, name, body FROM m ORDER BY n LIMIT 1").fetchone():
            _checked(self._public, found[1], found[2])
            self._base.execute("DELETE FROM m WHERE n = ?", (found[0],))
            count += 1
        return count

    def close(self) -> None:
        self._base.close()


_KEEPERS: dict[str, type[_Ours] | type[_Sqlite]] = {"ours": _Ours, "sqlite": _Sqlite}


def _checked(public: PublicKey, name: str, payload: bytes) -> Sealed:
    return Sealed.checked(name.partition("/")[0], payload, public, "site", "camera")


def _messages(key: DeviceKey, releases: int) -> list[tuple[str, Sealed]]:
    """Releases of 64 coordinates, each with a verdict."""
    rng, made = np.random.default_rng(), list[tuple[str, Sealed]]()
    for slot in range(releases):
        z = rng.integers(-9000, 9000, 64).astype(np.int16)
        said = Verdict(1, slot, slot + 7, 2, "edge", (True,) * 8, _LABELS, "", 0.0, 8.0)
        made.append(("features", FeatureMessage(1, slot, 2, 0, z).seal(key, "site", "camera")))
        made.append(("verdict/edge", said.seal(key, "site", "camera")))
    return made


def _speed(kind: str, folder: Path, public: PublicKey, messages: Messages) -> dict[str, float]:
    """Microseconds of a message in, and out by a process that starts."""
    keeper: _Keeper = _KEEPERS[kind](folder, public)
    began = time.perf_counter()
    for each in messages:
        keeper.put(*each)
    written = time.perf_counter()
    keeper.close()
    reopened = time.perf_counter()
    keeper = _KEEPERS[kind](folder, public)
    if keeper.deliver() != len(messages):
        raise AssertionError(f"{kind} lost messages")
    read = time.perf_counter()
    keeper.close()
    return {"in_us": (written - began) / len(messages) * 1e6, "out_us": (read - reopened) / len(messages) * 1e6}


def _wear(kind: str, folder: Path, public: PublicKey, messages: Messages, connected: bool) -> float:
    """Megabytes that reach the disk."""
    keeper: _Keeper = _KEEPERS[kind](folder, public)
    begin = _written()
    for number, each in enumerate(messages):
        keeper.put(*each)
        if connected:
            keeper.deliver()
        if number % (2 * _COMMIT_EVERY) == 0:
            _write_back(folder)
    written = _written() - begin
    keeper.close()
    return written / 1e6


def _written() -> int:
    """Bytes that this process has caused to be written to disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


def _write_back(folder: Path) -> None:
    """What the kernel does by itself after some seconds."""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            _sync(path)


def _sync(path: Path) -> None:
    if path.is_file():
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.close(number)


@contextlib.contextmanager
def _folder(where: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=where or None) as folder:
        yield Path(folder)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=at_least_one, default=20_000, help="of the speed (default 20000)")
    parser.add_argument("--releases", type=at_least_one, default=_HOUR, help="of the wear (default an hour's: 3600)")
    parser.add_argument("--folder", default="", help="where to write (default: the folder for temporary files)")


def _measure(args: argparse.Namespace) -> Report:
    key = DeviceKey.new()
    many, hour = _messages(key, -(-args.messages // 2)), _messages(key, args.releases)
    found: dict[str, dict[str, float]] = {}
    for kind in _KEEPERS:
        with _folder(args.folder) as folder:
            found[kind] = _speed(kind, folder, key.public, many)
        for state in ("away", "there"):
            with _folder(args.folder) as folder:
                mb = _wear(kind, folder, key.public, hour, state == "there")
                found[kind][f"{state}_mb"] = mb * _HOUR / args.releases
    return _report(found)


def _report(found: dict[str, dict[str, float]]) -> Report:
    through = {kind: figures["in_us"] + figures["out_us"] for kind, figures in found.items()}
    rows = [["keeping releases", *found]]
    rows += [
        ["messages a second, in", *(f"{1e6 / each['in_us']:.0f}" for each in found.values())],
        ["... out, signature checked", *(f"{1e6 / each['out_us']:.0f}" for each in found.values())],
        ["... in and out", *(f"{1e6 / each:.0f}" for each in through.values())],
        ["MB an hour, broker away", *(f"{each['away_mb']:.1f}" for each in found.values())],
        ["MB an hour, broker there", *(f"{each['there_mb']:.1f}" for each in found.values())],
    ]
    ours = found["ours"]
    worst = max(ours["away_mb"], ours["there_mb"])
    met = 1e6 / through["ours"] >= _MESSAGES_A_S and worst <= _WEAR_MB
    notes = [f"goals: {_MESSAGES_A_S} messages a second through the disk, {_WEAR_MB:g} MB an hour; met: {met}"]
    if not worst:
        notes.append("this file system counts no written bytes; choose another with --folder")
    figures: dict[str, Any] = {**found, "met": met}
    return Report(through["ours"] / through["sqlite"], figures, rows, notes)


COMMAND = Benchmark("outbox", __doc__, "a message through SQLite in WAL mode", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
