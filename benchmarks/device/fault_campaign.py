"""A device, its broker, and each fault of `benchmarks.faults`: what is done, and how it is undone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.broker import Broker, Mosquitto, Tap, free_port
from benchmarks.device.device_network import BROKER, DeviceNetwork
from benchmarks.device.fault_notes import FAULT, Ended, Heard, Note, digest, read_notes
from benchmarks.device.processes import family
from benchmarks.device.small_disk import SmallDisk
from benchmarks.device.stalling_camera import StallingCamera
from benchmarks.harness import SITE, Child, Rig
from benchmarks.listener import Listener
from edge_runtime.uplink.segment import HEADER_BYTES, Mark, Record, parse, parse_header
from wire.errors import MessageError, VeilsightError
from wire.protocol.message import open_features

__all__ = ["Campaign", "Gateway"]

_GATE = "import sys\nfrom benchmarks.device.faulty_gate import run\nsys.exit(run(sys.argv[1:]))"
_OUTBOX = "\n[outbox]\nreplay_per_s = 300\nmax_mb = 0.03\n"
_CAMERA = "[camera]\ntimeout_s = 2.0\nlost_after_s = 4.0\n"
_START_S, _CATCH_UP_S = 120.0, 300.0
_BEING_SENT = 2  # a release and its verdict
_SETTLED_S, _SETTLE_S = 10.0, 120.0  # nobody is started for so long; within so long
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: end with a reset, and wait for nothing
_Result = TypeVar("_Result")


class Gateway(Tap):
    """A tap that can be shut (connections end, new ones too), stuck (nothing passes, nothing ends), or reset.

    Args:
        broker: Where it passes everything to.
        server: Where it listens; None: on the loopback interface.
    """

    def __init__(self, broker: Broker, server: socket.socket | None = None) -> None:
        super().__init__(broker, server=server)
        self.shut = self.stuck = False
        self._resets = 0

    def reset(self) -> None:
        """End every connection with a reset, once."""
        self._resets += 1

    def _pump(self, client: socket.socket, upstream: socket.socket) -> None:
        routes, resets = {client: upstream, upstream: client}, self._resets
        while not (self._stopping.is_set() or self.shut):
            if self._resets != resets:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                return
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
        network: The device's own; None: it is on the machine's, where packets are not lost.
        disk: The device's own; None: a folder, which is never full.
        counts: Fault -> how often.
        damaged: Digests of messages that lay behind damage in a file.
        killed: Processes that were killed.
        forgotten: Losses that were counted, and whose count went with a damaged file or a failed disk.
        by_itself: Exit status of each device that ended though nobody asked it to.
    """

    rig: Rig
    broker: Mosquitto
    gateway: Gateway
    listener: Listener
    camera: StallingCamera
    network: DeviceNetwork | None
    disk: SmallDisk | None
    rng: random.Random
    counts: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    forgotten: int = 0
    by_itself: list[int] = field(default_factory=list)
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

    def in_device(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` on the device's network."""
        return self.network.in_device(work) if self.network else work()

    def start(self) -> None:
        """Start the device, and wait until it has released something."""
        rig, self._port = self.rig, free_port()
        config = rig.edge_config(self.camera.url, health=f":{self._port}", broker=self.gateway)
        config.write_text(config.read_text().replace("[camera]\n", _CAMERA) + _OUTBOX)
        given = ["--config", str(config)]
        if self.network:
            given += ["--broker", f"mqtt://{BROKER}:{self.gateway.port}"]
        argv = [sys.executable, "-c", _GATE, str(rig.folder), *given]
        self._edge = self.in_device(Child("edge", argv, rig.folder / "edge.log").__enter__)
        self._await_release()

    def _await_release(self) -> None:
        """Return when the device has put one more message, or ended."""
        before, deadline = self._noted(), time.monotonic() + _START_S
        while self._noted() == before and self.edge.running:
            if time.monotonic() > deadline:
                raise VeilsightError(f"the device releases nothing:\n{self.edge.output()[-2000:]}")
            time.sleep(0.05)

    def _noted(self) -> int:
        file = self.rig.folder / "notes"
        return file.stat().st_size if file.is_file() else 0

    def notes(self) -> list[Note]:
        """What the device's processes noted."""
        return read_notes((self.rig.folder / "notes").read_text())

    # --- faults

    def strike(self) -> None:
        """Do one fault and undo it: every kind once in a random order, then in another order."""
        if not self._ahead:
            self._ahead = [self.kill_device, self.stop_device, self.kill_eye, self.kill_reader, self.kill_broker]
            self._ahead += [self.cut, self.outage, self.hold, self.damage, self.set_clock]
            self._ahead += [self.pause_device, self.pause_eye, self.pause_broker, self.stall_camera, self.lose_camera]
            self._ahead += [self.lose_packets, self.half_open] if self.network else []
            self._ahead += [self.fill, self.fail_disk] if self.disk else []
            self.rng.shuffle(self._ahead)
        fault = self._ahead.pop()
        self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
        with (self.rig.folder / "notes").open("a") as file:
            file.write(Note(FAULT, 0, sum(self.counts.values()), fault.__name__, "-").line())
        fault()
        self._wait(0.5)
        self.look()

    def look(self) -> None:
        """See that the device runs and releases; start it again where it has ended, as systemd does."""
        self._await_release()
        if not self.edge.running:
            self.by_itself.append(self.edge.wait(0))
            self.start()

    def _wait(self, most_s: float, least_s: float = 0.0) -> None:
        time.sleep(self.rng.uniform(least_s, most_s))

    def _end_device(self, number: int) -> None:
        self.edge.process.send_signal(number)
        try:
            status = self.edge.wait(_START_S)
        except TimeoutError:
            self.edge.process.send_signal(signal.SIGUSR1)
            time.sleep(1.0)
            raise VeilsightError(f"the device does not end; it is at:\n{self.edge.output()[-4000:]}") from None
        if status not in (0, -signal.SIGKILL):
            self.by_itself.append(status)  # a stop that was no clean end

    def kill_device(self) -> None:
        self.killed.add(self.edge.process.pid)
        self._end_device(signal.SIGKILL)
        self.start()

    def stop_device(self) -> None:
        self._end_device(signal.SIGTERM)
        self.start()

    def _part(self, name: str) -> int:
        """A process of the device; 0 where it is being started."""
        with contextlib.suppress(OSError):
            return family(self.edge.process.pid).get(name, 0)
        return 0

    def kill_eye(self) -> None:
        self._kill_part("eye")

    def kill_reader(self) -> None:
        self._kill_part("reader")

    def _kill_part(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            if pid := self._part(name):
                os.kill(pid, signal.SIGKILL)

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

    def outage(self) -> None:
        """Longer than the outbox has room for: the oldest is dropped."""
        self.gateway.shut = True
        self._wait(12.0, 6.0)
        self._open()

    def hold(self) -> None:
        """The connection stands, and nothing passes."""
        self.gateway.stuck = True
        self._wait(2.0)
        self.gateway.stuck = False

    def half_open(self) -> None:
        """The other end is gone, and the device is not told."""
        network = self._network
        network.dark = True
        self._wait(0.5)
        self.gateway.reset()
        self._wait(4.0, 0.2)
        network.dark = False

    def lose_packets(self) -> None:
        """30 % of the packets are lost, each way, and those to the broker come 2 s late."""
        network = self._network
        network.loss, network.delay_s = 0.3, 2.0
        self._wait(8.0, 2.0)
        network.loss, network.delay_s = 0.0, 0.0

    @property
    def _network(self) -> DeviceNetwork:
        if self.network is None:
            raise VeilsightError("the device has no network of its own")
        return self.network

    def _open(self) -> None:
        client, deadline = self.listener._client, time.monotonic() + _START_S
        while not client.is_connected() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # its subscription
        self.gateway.shut = False

    def _pause(self, pid: int) -> None:
        if not pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self._wait(1.5)
            os.kill(pid, signal.SIGCONT)

    def pause_device(self) -> None:
        self._pause(self.edge.process.pid)

    def pause_eye(self) -> None:
        self._pause(self._part("eye"))

    def pause_broker(self) -> None:
        process: Any = self.broker._process
        self._pause(process.pid)

    def stall_camera(self) -> None:
        self.camera.stalled = True
        self._wait(5.0)
        self.camera.stalled = False

    def lose_camera(self) -> None:
        self.camera.away = True
        self._wait(5.0)
        self.camera.away = False

    def set_clock(self) -> None:
        step = self.rng.choice([-1e9, -86_400.0, -90.0, 90.0, 86_400.0, 1e9, 0.0])
        (self.rig.folder / "clock").write_text(str(step))
        self._wait(1.0)

    def fill(self) -> None:
        """Nothing can be written any more, for a while."""
        if self.disk:
            self.disk.fill(lambda: self._wait(self.rng.choice([4.0, 4.0, 30.0])))
            self._await_release()  # and what it puts from here on is on disk

    def fail_disk(self) -> None:
        """The disk is read-only at once. The device goes on; then it is stopped, and its disk is mended.

        What was not synced is lost with such a disk, as with the power: nothing may wait before, or at the stop.
        """
        if self.disk:
            self._deliver()
            counted = self._lost()
            self.disk.fail()
            self._wait(self.rng.choice([5.0, 5.0, 30.0]))  # the ledger writes once in 120 slots
            self.look()
            self._deliver()
            self._end_device(signal.SIGTERM)
            self.disk.repair()
            self.start()
            self.forgotten += max(0, counted - self._lost())

    def damage(self) -> None:
        """Let messages wait, kill the device, and flip bits of one of its files."""
        self.gateway.shut = True
        self._wait(2.0)
        self.killed.add(self.edge.process.pid)
        self._end_device(signal.SIGKILL)
        files = sorted((self._state / "outbox").glob("*.log"))
        if files:
            file = self.rng.choice(files)
            data = bytearray(file.read_bytes())
            at = self.rng.randrange(len(data))
            self.damaged |= _behind(bytes(data), at)
            counted = _lost_in(files)
            data[at] ^= 1 << self.rng.randrange(8)
            file.write_bytes(data)
            self.forgotten += counted - _lost_in(files)
        self._open()
        self.start()

    # --- the end

    def finish(self) -> Ended:
        """Wait until nothing waits and nobody is started, end the device, and return what the judge needs."""
        (self.rig.folder / "clock").write_text("0")
        self._deliver()
        restless = self._restless()
        lost = self._lost() + self.forgotten
        self._end_device(signal.SIGTERM)
        self.listener.wait_for(lambda records: b'"stopped"' in records[-1].payload, 10.0)
        records = self.listener.records()
        heard, unsigned = self._opened([each.payload for each in records if each.topic.endswith("/features")])
        others = {digest(each.payload) for each in records if not each.topic.endswith("/features")}
        done = (self.damaged, self.killed, lost, self.by_itself, restless, unsigned)
        return Ended(self.notes(), heard, others, *done)

    def _deliver(self) -> None:
        """Wait until nothing waits but what is being sent."""
        deadline = time.monotonic() + _CATCH_UP_S
        while (page := self._page())["outbox"]["waiting"] > _BEING_SENT:
            if time.monotonic() > deadline:
                raise VeilsightError(f"the device does not catch up: {page['outbox']}\n{self.edge.output()[-2000:]}")
            time.sleep(0.1)

    def _lost(self) -> int:
        """What the outbox has counted as lost."""
        return int(self._page()["outbox"]["lost_in_all"])

    def _restless(self) -> list[str]:
        """The parts that go on being started though nothing is done to them any more."""
        give_up, before, since = time.monotonic() + _SETTLE_S, self._starts(), time.monotonic()
        while time.monotonic() - since < _SETTLED_S:
            time.sleep(0.5)
            if (now := self._starts()) != before:
                before, since, changed = now, time.monotonic(), [name for name in now if now[name] != before[name]]
                if since > give_up:
                    return changed
        return []

    def _starts(self) -> dict[str, int]:
        page = self._page()
        return {name: int(page[name]["starts"]) for name in ("eye", "reader")}

    def _page(self) -> Mapping[str, Any]:
        def ask() -> Mapping[str, Any]:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=_START_S) as answer:
                found: Mapping[str, Any] = json.load(answer)
            return found

        try:
            return self.in_device(ask)
        except OSError as error:
            raise VeilsightError(f"the local page: {error}\n{self.edge.output()[-2000:]}") from error

    def _opened(self, payloads: list[bytes]) -> tuple[list[Heard], int]:
        """Releases, and how many of the payloads are none that the device signed."""
        manifest, heard, unsigned = self.rig.manifest, list[Heard](), 0
        whose = (self.rig.key("camera").public, SITE, "camera", manifest.n, manifest.model_id, len(manifest.sigmas))
        for payload in payloads:
            try:
                seen = open_features(payload, *whose)
            except MessageError:
                unsigned += 1
            else:
                heard.append(Heard(seen.boot_id, seen.slot, digest(payload)))
        return heard, unsigned


def _behind(data: bytes, at: int) -> set[str]:
    """Digests of the messages of a file that end behind the byte `at`."""
    return {digest(content.payload) for content, end in _contents(data) if isinstance(content, Record) and end > at}


def _lost_in(files: list[Path]) -> int:
    """The largest count of losses in the files of an outbox."""
    found = [0]
    for file in files:
        data = file.read_bytes()
        header = parse_header(data)
        found += [header.lost] if header else []
        found += [content.lost for content, _ in _contents(data) if isinstance(content, Mark)]
    return max(found)


def _contents(data: bytes) -> Iterator[tuple[Record | Mark, int]]:
    """What is intact in a file of the outbox, each with the place of its end."""
    header, place = parse_header(data), HEADER_BYTES
    number = header.first if header else 0
    while header and (got := parse(data, place, number)) is not None:
        content, place = got
        number += isinstance(content, Record)
        yield content, place
