"""`python -m benchmarks.faults`: does every release arrive once, in order, whatever fails, or is it counted as lost?

    the device -> gateway (can be shut, or stuck) -> Mosquitto -> a listener that is there first

Faults at random, from a seed: kill -9 of the device and of the broker, a stop, a network that is cut or half-open,
SIGSTOP of either, a wall clock that is set, a file of the outbox that is damaged, a disk that is full (a small tmpfs;
needs root). Each message is noted before the outbox has it. In the end everything is connected, the device catches up,
and the listener must have heard each message: the same bytes, in order, no slot with two noises. What is missing must
be in what the outbox counted, in what was behind the damage of a file, or the last one before a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.broker import Mosquitto, Tap, free_port
from benchmarks.device.faulty_gate import digest
from benchmarks.harness import SITE, Child, Rig, add_engine, engine_folder
from benchmarks.listener import Listener
from benchmarks.runner import Benchmark, Report
from edge_runtime.uplink.segment import HEADER_BYTES, Record, parse, parse_header
from wire.arguments import at_least_one
from wire.errors import MessageError, VeilsightError
from wire.protocol.message import open_features

__all__ = ["COMMAND", "Campaign", "Gateway", "judge"]

_SPEED = 10.0  # slots a second, where a slot is one second
_REPLAY_PER_S = 300
_TMPFS = "400k"
_GATE = "import sys\nfrom benchmarks.device.faulty_gate import run\nsys.exit(run(sys.argv[1:]))"
_START_S, _CATCH_UP_S = 120.0, 300.0


class Gateway(Tap):
    """A tap that can be shut (connections end, new ones too) or stuck (nothing passes, and nothing ends)."""

    def __init__(self, broker: Mosquitto) -> None:
        super().__init__(broker)
        self.shut = self.stuck = False

    def _pump(self, client: socket.socket, upstream: socket.socket) -> None:
        routes = {client: upstream, upstream: client}
        while not (self._stopping.is_set() or self.shut):
            if self.stuck:
                time.sleep(0.02)
                continue
            for source in select.select(list(routes), [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    if data := source.recv(65536):
                        routes[source].sendall(data)
                        continue
                return


@dataclass
class Campaign:
    """A device, a broker, and what is done to them.

    Attributes:
        small: The state folder is a tmpfs that can be filled.
        counts: Fault -> how often.
        damaged: Hashes of messages that lay behind damage in a file.
        killed: Processes that were killed.
    """

    rig: Rig
    broker: Mosquitto
    gateway: Gateway
    listener: Listener
    rng: random.Random
    small: bool
    counts: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    killed: set[str] = field(default_factory=set)
    _ahead: list[Callable[[], None]] = field(default_factory=list)
    _edge: Child | None = None

    @property
    def _state(self) -> Path:
        return self.rig.folder / "camera-state"

    @property
    def edge(self) -> Child:
        """The running device."""
        if self._edge is None:
            raise VeilsightError("the device was not started")
        return self._edge

    def start(self) -> None:
        """Start the device, and wait until it has released something."""
        rig, self._port = self.rig, free_port()
        config = rig.edge_config(
            "synthetic://walk", speed=_SPEED * rig.manifest.window.slot_s, health=f":{self._port}", broker=self.gateway
        )
        with config.open("a") as file:
            file.write(f"\n[outbox]\nreplay_per_s = {_REPLAY_PER_S}\n")
        argv = [sys.executable, "-c", _GATE, str(rig.folder), "--config", str(config)]
        self._edge = Child("edge", argv, rig.folder / "edge.log").__enter__()
        before, deadline = len(self.notes()), time.monotonic() + _START_S
        while len(self.notes()) == before:
            if not self._edge.running or time.monotonic() > deadline:
                raise VeilsightError(f"the device does not start:\n{self._edge.output()[-2000:]}")
            time.sleep(0.05)

    def notes(self) -> list[list[str]]:
        """What was put: process, topic's name, hash."""
        file = self.rig.folder / "put"
        return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []

    def strike(self) -> None:
        """Do one fault and undo it: every kind once in a random order, then in another order."""
        if not self._ahead:
            self._ahead = [self.kill_device, self.stop_device, self.kill_broker, self.cut, self.hold, self.damage]
            self._ahead += [self.pause_device, self.pause_broker, self.set_clock, *([self.fill] if self.small else [])]
            self.rng.shuffle(self._ahead)
        fault = self._ahead.pop()
        self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
        fault()
        self._wait(0.5)

    def _wait(self, most_s: float) -> None:
        time.sleep(self.rng.uniform(0.0, most_s))

    def _end_device(self, number: int) -> None:
        self.edge.process.send_signal(number)
        self.edge.wait(_START_S)

    def kill_device(self) -> None:
        self.killed.add(str(self.edge.process.pid))
        self._end_device(signal.SIGKILL)
        self.start()

    def stop_device(self) -> None:
        self._end_device(signal.SIGTERM)
        self.start()

    def kill_broker(self) -> None:
        """While it is away nobody passes: the listener must be there before the device."""
        self.gateway.shut = True
        time.sleep(0.3)  # what the broker has acknowledged is with the listener by then
        process: Any = self.broker._process
        process.kill()
        self._wait(1.0)
        self.broker.stop()
        self.broker.start()
        self._open()

    def cut(self) -> None:
        self.gateway.shut = True
        self._wait(2.0)
        self._open()

    def hold(self) -> None:
        """Half-open: neither side is told of an end."""
        self.gateway.stuck = True
        self._wait(2.0)
        self.gateway.stuck = False

    def _open(self) -> None:
        client, deadline = self.listener._client, time.monotonic() + _START_S
        while not client.is_connected() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # its subscription
        self.gateway.shut = False

    def _pause(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self._wait(1.5)
        os.kill(pid, signal.SIGCONT)

    def pause_device(self) -> None:
        self._pause(self.edge.process.pid)

    def pause_broker(self) -> None:
        process: Any = self.broker._process
        self._pause(process.pid)

    def set_clock(self) -> None:
        step = self.rng.choice([-1e9, -86_400.0, -90.0, 90.0, 86_400.0, 0.0])
        (self.rig.folder / "clock").write_text(str(step))
        self._wait(1.0)

    def fill(self) -> None:
        """Nothing can be written any more, for a while."""
        filler = self._state / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        self._wait(2.0)
        filler.unlink()

    def damage(self) -> None:
        """Let messages wait, kill the device, and flip bits of one of its files."""
        self.gateway.shut = True
        self._wait(2.0)
        self.killed.add(str(self.edge.process.pid))
        self._end_device(signal.SIGKILL)
        files = sorted((self._state / "outbox").glob("*.log"))
        if files:
            file = self.rng.choice(files)
            data = bytearray(file.read_bytes())
            at = self.rng.randrange(len(data))
            self.damaged |= _behind(bytes(data), at)
            data[at] ^= 1 << self.rng.randrange(8)
            file.write_bytes(data)
        self._open()
        self.start()

    def catch_up(self) -> Mapping[str, Any]:
        """Wait until nothing waits, end the device, and return the last figures of its outbox."""
        (self.rig.folder / "clock").write_text("0")
        deadline, outbox = time.monotonic() + _CATCH_UP_S, self._figures()
        while outbox["waiting"] > 4:
            if time.monotonic() > deadline or not self.edge.running:
                raise VeilsightError(f"the device does not catch up: {outbox}\n{self.edge.output()[-2000:]}")
            time.sleep(0.1)
            outbox = self._figures()
        self._end_device(signal.SIGTERM)
        self.listener.wait_for(lambda records: b'"stopped"' in records[-1].payload, 10.0)
        return outbox

    def _figures(self) -> Mapping[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=_START_S) as answer:
            found: Mapping[str, Any] = json.load(answer)["outbox"]
        return found


def _behind(data: bytes, at: int) -> set[str]:
    """Hashes of the messages of a file that end behind the byte `at`."""
    header, found = parse_header(data), set[str]()
    number, place = header.first if header else 0, HEADER_BYTES
    while header and (got := parse(data, place, number)) is not None:
        content, place = got
        if isinstance(content, Record):
            number += 1
            if place > at:
                found.add(digest(content.payload))
    return found


def judge(campaign: Campaign, outbox: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """(figures, what is wrong) of a campaign that has ended; outbox: the last figures of the device's."""
    records, notes = campaign.listener.records(), campaign.notes()
    features = [record.payload for record in records if record.topic.endswith("/features")]
    places, wrong = _places(campaign.rig, features)
    heard = {digest(record.payload) for record in records}
    missing = [name for _, _, name in notes if name not in heard]
    excused = campaign.damaged | _last_before_a_kill(notes, campaign.killed)
    uncounted = sum(name not in excused for name in missing) - int(outbox["lost_in_all"])
    if [*places] != sorted(places):
        wrong.append("releases came out of order")
    if any(len(payloads) > 1 for payloads in places.values()):
        wrong.append("a slot was noised twice")
    if {digest(payload) for payload in features} - {name for _, _, name in notes}:
        wrong.append("a release was heard that nobody put")
    if uncounted > 0:
        wrong.append(f"{uncounted} messages are missing and not counted")
    figures = {
        "put": len(notes),
        "missing": len(missing),
        "... of them excused": sum(name in excused for name in missing),
        "counted as lost": int(outbox["lost_in_all"]),
        "heard twice": len(features) - len(places),
        "kills": len(campaign.killed),
    }
    return figures, wrong


def _places(rig: Rig, features: list[bytes]) -> tuple[dict[tuple[int, int], set[bytes]], list[str]]:
    """(boot id, slot) -> the payloads that came for it, in the order of the first; and what is no release of ours."""
    places: dict[tuple[int, int], set[bytes]] = {}
    wrong, manifest = [], rig.manifest
    whose = (rig.key("camera").public, SITE, "camera", manifest.n, manifest.model_id, len(manifest.sigmas))
    for payload in features:
        try:
            seen = open_features(payload, *whose)
        except MessageError as error:
            wrong.append(f"a release that the device did not sign: {error}")
        else:
            places.setdefault((seen.boot_id, seen.slot), set()).add(payload)
    return places, wrong


def _last_before_a_kill(notes: list[list[str]], killed: set[str]) -> set[str]:
    """The release, with its verdict, that each killed process had in its hands."""
    return {name for pid in killed for _, _, name in [note for note in notes if note[0] == pid][-2:]}


@contextlib.contextmanager
def _state_folder(folder: Path) -> Iterator[bool]:
    """Make the state folder a small tmpfs; False where that needs a right that we lack."""
    state = folder / "camera-state"
    state.mkdir(mode=0o700)
    mount = shutil.which("mount", path=f"{os.environ.get('PATH', '')}:/usr/bin:/bin")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={_TMPFS},mode=0700", "veilsight-faults", str(state)]
    if mount is None or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(state)], check=True)


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--faults", type=at_least_one, default=1000, help="how many (default 1000)")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long; 0: after the faults alone")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default 0)")


def _measure(args: argparse.Namespace) -> Report:
    engine, begin = engine_folder(args), time.monotonic()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        small = stack.enter_context(_state_folder(folder))
        (folder / "clock").write_text("0")
        broker = Mosquitto(folder)
        stack.enter_context(broker)
        gateway = Gateway(broker)
        stack.enter_context(gateway)
        listener = stack.enter_context(Listener(broker))
        rig = Rig(folder, broker, engine)
        campaign = Campaign(rig, broker, gateway, listener, random.Random(args.seed), small)
        campaign.start()
        stack.callback(lambda: campaign.edge.stop())
        for _ in range(args.faults):
            if args.seconds and time.monotonic() - begin > args.seconds:
                break
            campaign.strike()
        outbox = campaign.catch_up()
        figures, wrong = judge(campaign, outbox)
    return _report(campaign, figures, wrong)


def _report(campaign: Campaign, figures: Mapping[str, int], wrong: list[str]) -> Report:
    rows = [["fault", "times"], *([name.replace("_", " "), str(n)] for name, n in sorted(campaign.counts.items()))]
    rows += [[name.replace("_", " "), str(n)] for name, n in figures.items()]
    notes = [f"WRONG: {each}" for each in wrong] or ["every message came once, in order, or is accounted for"]
    if not campaign.small:
        notes.append("SKIPPED: the full disk; mounting a tmpfs needs root")
    faults = sum(campaign.counts.values())
    document = {"faults": faults, "by_fault": campaign.counts, **figures, "wrong": wrong, "disk_full": campaign.small}
    return Report(None, document, rows, notes, status=int(bool(wrong)))


COMMAND = Benchmark("faults", __doc__, "nothing: what must hold, holds or does not", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
