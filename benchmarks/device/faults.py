"""`python -m benchmarks.faults`: does every release arrive once, in order, whatever fails, or is it counted as lost?

    camera -> the device -> a link of our own -> gateway -> Mosquitto -> a listener that is there first

Faults at random, from a seed: kill -9 of gate, eye, reader and broker, a stop, a network that is cut (shortly, or for
longer than the outbox has room), stuck or half-open, 30 % of packets lost and 2 s of delay, SIGSTOP, a wall clock that
is set, a file of the outbox that is damaged, a disk that is full or becomes read-only, a camera that stalls or is gone.
The device notes what it charges, and each message before the outbox has it. In the end everything is connected, the
device catches up, and a judge compares: `benchmarks/device/fault_notes.py`.

The engine's slots are made 0.2 s long. Packets are lost, and disks fail, where we are root; else it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.broker import Mosquitto
from benchmarks.device.device_network import DeviceNetwork
from benchmarks.device.fault_campaign import Campaign, Gateway
from benchmarks.device.fault_notes import judge
from benchmarks.device.small_disk import SmallDisk
from benchmarks.device.stalling_camera import StallingCamera
from benchmarks.harness import Rig, add_engine, engine_folder
from benchmarks.listener import Listener
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one
from wire.artifact.manifest import FILES, EngineManifest

__all__ = ["COMMAND"]

_SLOT_S = 0.2


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--faults", type=at_least_one, default=1000, help="how many (default 1000)")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long; 0: after the faults alone")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default 0)")


def _measure(args: argparse.Namespace) -> Report:
    engine, begin = engine_folder(args), time.monotonic()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, skipped = Path(name), list[str]()
        campaign = _campaign(folder, _hurried(engine, folder / "engine"), args.seed, skipped, stack)
        campaign.start()
        stack.callback(lambda: campaign.edge.stop())
        for _ in range(args.faults):
            if args.seconds and time.monotonic() - begin > args.seconds:
                break
            campaign.strike()
        figures, wrong = judge(campaign.finish())
    return _report(campaign, figures, wrong, skipped)


def _campaign(folder: Path, engine: Path, seed: int, skipped: list[str], stack: contextlib.ExitStack) -> Campaign:
    """A campaign whose parts end with `stack`; `skipped` gets what cannot be done here, and why."""
    (folder / "clock").write_text("0")
    disk, network = _disk(folder, skipped, stack), _network(seed, skipped, stack)
    broker = Mosquitto(folder)
    stack.enter_context(broker)
    gateway = Gateway(broker, network.listen() if network else None)
    stack.enter_context(gateway)
    listener = stack.enter_context(Listener(broker))

    def listen() -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    camera = stack.enter_context(StallingCamera(network.in_device(listen) if network else listen()))
    rig = Rig(folder, broker, engine)
    return Campaign(rig, broker, gateway, listener, camera, network, disk, random.Random(seed))


def _disk(folder: Path, skipped: list[str], stack: contextlib.ExitStack) -> SmallDisk | None:
    try:
        return stack.enter_context(SmallDisk(folder / "camera-state"))
    except OSError as error:
        skipped.append(f"a full disk and one that becomes read-only: {error}")
        return None


def _network(seed: int, skipped: list[str], stack: contextlib.ExitStack) -> DeviceNetwork | None:
    try:
        return stack.enter_context(DeviceNetwork(seed))
    except OSError as error:
        skipped.append(f"packets that are lost, and half-open connections: {error}")
        return None


def _hurried(engine: Path, folder: Path) -> Path:
    """A copy of an engine whose slots are shorter; nothing else of it changes."""
    shutil.copytree(engine, folder)
    made = EngineManifest.load(engine)
    slots = dataclasses.replace(made.window, slot_s=min(_SLOT_S, made.window.slot_s))
    hurried = dataclasses.replace(made, window=slots)
    certificate = hurried.certificate().to_json().encode()
    (folder / FILES["certificate"]).write_bytes(certificate)
    hashes = {**made.hashes, "certificate": hashlib.sha256(certificate).hexdigest()}
    dataclasses.replace(hurried, hashes=hashes).save(folder)
    return folder


def _report(campaign: Campaign, figures: Mapping[str, int], wrong: list[str], skipped: list[str]) -> Report:
    rows = [["fault", "times"], *([name.replace("_", " "), str(n)] for name, n in sorted(campaign.counts.items()))]
    rows += [[name.replace("_", " "), str(n)] for name, n in figures.items()]
    notes = ["asked: every message comes once, in order, or is accounted for"]
    notes += [f"SKIPPED: {each}" for each in skipped]
    faults = sum(campaign.counts.values())
    dropped = campaign.network.dropped if campaign.network else 0
    rows.append(["packets lost", str(dropped)])
    document = {"faults": faults, "by_fault": campaign.counts, **figures, "skipped": skipped}
    return Report(None, {**document, "packets_lost": dropped}, rows, notes, wrong)


COMMAND = Benchmark("faults", __doc__, "nothing: what must hold, holds or does not", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
