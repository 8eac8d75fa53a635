"""`python -m benchmarks.trace`: what leaves a device, and what it writes, in a day in miniature.

    first start, a camera that stalls and returns, the local page, an order of the operator, a broker that is away and
    returns, a stop, another start, a kill -9, a third start

The device is on a network of its own: every packet that leaves it goes through our hands. All must be TCP to the
broker's port, and every byte of it part of a TLS record. strace tells what its three processes open, make, rename,
remove or connect to: nothing may be written outside of the state folder, and no address be used but the broker's and
the loopback interface, where camera and page are. It needs root, Mosquitto, strace and openssl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker import Mosquitto, child_env, end, free_port
from benchmarks.device.device_network import BROKER, DeviceNetwork
from benchmarks.device.fault_campaign import Gateway
from benchmarks.device.stalling_camera import StallingCamera
from benchmarks.device.trace_read import CALLS, judge_calls, judge_packets, read_calls
from benchmarks.harness import SITE, Child, Rig, add_engine, engine_folder
from benchmarks.listener import Listener
from benchmarks.runner import Benchmark, Report
from wire.errors import VeilsightError
from wire.protocol.command import Command
from wire.protocol.keys import DeviceKey
from wire.protocol.topics import topic

__all__ = ["COMMAND"]

_SHORTEST_S, _START_S, _END_S = 20.0, 120.0, 30.0
_PARTS = 9  # of the day


class _OverTls(Mosquitto):
    """Mosquitto on a loopback port for us, and on another one, with TLS, for the device."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tls_port = free_port()
        self.certificate, secret = _self_signed(folder)
        with self._config.open("a") as file:
            file.write(f"listener {self.tls_port} 127.0.0.1\nallow_anonymous true\n")
            file.write(f"certfile {self.certificate}\nkeyfile {secret}\n")


@dataclass(frozen=True)
class _Tls:
    """The port to which the device's connections go."""

    port: int


def _self_signed(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of the broker's address, PEM. Raises VeilsightError where openssl cannot make them."""
    certificate, secret = folder / "broker.pem", folder / "broker.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=broker", "-addext", f"subjectAltName=IP:{BROKER}"]
    command += ["-keyout", str(secret), "-out", str(certificate)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise VeilsightError(f"openssl makes no certificate: {made.stderr.strip()}")
    for path in (certificate, secret):
        path.chmod(0o644)  # Mosquitto is another user
    folder.chmod(0o755)
    return certificate, secret


@dataclass
class _Day:
    """A device that is traced, and what happens to it."""

    rig: Rig
    broker: _OverTls
    gateway: Gateway
    listener: Listener
    camera: StallingCamera
    network: DeviceNetwork
    operator: DeviceKey
    part_s: float
    starts: int = 0

    @property
    def state(self) -> Path:
        return self.rig.folder / "camera-state"

    @property
    def calls(self) -> Path:
        return self.rig.folder / "calls"

    def run(self) -> None:
        """All of it."""
        edge = self._start()
        time.sleep(self.part_s)
        self._stall()
        self._order()
        self._ask_page()
        self.gateway.shut = True
        time.sleep(self.part_s)
        self.gateway.shut = False
        time.sleep(self.part_s)
        self._end(edge, signal.SIGTERM)
        edge = self._start()
        time.sleep(self.part_s)
        self._end(edge, signal.SIGKILL)
        edge = self._start()
        time.sleep(self.part_s)
        self._end(edge, signal.SIGTERM)

    def _start(self) -> Child:
        """Start the device under strace, and wait until it has released something."""
        self.calls.mkdir(exist_ok=True)
        strace = [shutil.which("strace") or "strace", "-D", "-ff", "-qq", "-y", "--seccomp-bpf", "-e", "signal=none"]
        strace += ["-e", f"trace={','.join(CALLS)}", "-o", str(self.calls / f"start-{self.starts}")]
        self.starts += 1
        argv = [*strace, sys.executable, *self.command(self._config())]
        environment = child_env(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")  # as the units have it
        before = self._released()
        edge = self.network.in_device(Child("edge", argv, self.rig.folder / "edge.log", environment).__enter__)
        until = time.monotonic() + _START_S
        while self._released() == before:
            if not edge.running or time.monotonic() > until:
                raise VeilsightError(f"the device does not start:\n{edge.output()[-2000:]}")
            time.sleep(0.1)
        return edge

    def command(self, config: Path) -> list[str]:
        """What Python runs: the device."""
        return ["-m", "edge_runtime", "--config", str(config)]

    def _config(self) -> Path:
        """Written once; key and ledger are the device's own to make."""
        path = self.rig.folder / "camera.toml"
        if self.starts > 1:
            return path
        self._port = free_port()
        self.rig.edge_config(self.camera.url, health=f":{self._port}")
        shutil.rmtree(self.state)
        self.state.mkdir(mode=0o700)
        key = self.rig.folder / "camera.key"
        key.unlink()
        text = path.read_text().replace(str(key), str(self.state / "device.key"))
        url = f"mqtt://127.0.0.1:{self.rig.broker.port}"
        text = text.replace(f'"{url}"', f'"mqtts://{BROKER}:{self.gateway.port}"\nca = "{self.broker.certificate}"')
        text = text.replace("[camera]\n", "[camera]\ntimeout_s = 2.0\nlost_after_s = 4.0\n")
        path.write_text(f'{text}\n[privacy]\noperator_key = "{self.operator.public.hex}"\n')
        return path

    def _released(self) -> int:
        return sum(each.topic.endswith("/features") for each in self.listener.records())

    def _stall(self) -> None:
        self.camera.stalled = True
        time.sleep(self.part_s / 2)
        self.camera.stalled, self.camera.away = False, True
        time.sleep(self.part_s / 2)
        self.camera.away = False
        time.sleep(self.part_s)

    def _order(self) -> None:
        """The operator orders a profile that the device has, over our own connection to the broker."""
        profile = str(self._page()["profile"])
        payload = Command(f"{SITE}/camera", int(time.time() * 1000), profile).seal(self.operator)
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", self.rig.broker.port)
        client.loop_start()
        client.publish(topic(SITE, "camera", "command"), payload, qos=1, retain=True).wait_for_publish(_END_S)
        end(client)
        time.sleep(self.part_s)

    def _page(self) -> Mapping[str, Any]:
        """The last state that was heard."""
        states = [each.payload for each in self.listener.records() if each.topic.endswith("/state")]
        found: Mapping[str, Any] = json.loads(states[-1])
        return found

    def _ask_page(self) -> None:
        def ask() -> None:
            for path in ("/", "/health", "/metrics"):
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=_END_S).read()

        self.network.in_device(ask)

    def _end(self, edge: Child, number: int) -> None:
        edge.process.send_signal(number)
        edge.wait(_END_S)
        time.sleep(1.0)  # strace writes the last lines


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--seconds", type=float, default=120.0, help="of the day, about (default 120)")


def _measure(args: argparse.Namespace) -> Report:
    if os.geteuid() or not (shutil.which("strace") and shutil.which("openssl")):
        raise VeilsightError("a trace needs root, strace and openssl: apt-get install strace openssl")
    engine = engine_folder(args)
    part_s = max(_SHORTEST_S, args.seconds) / _PARTS
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        try:
            network = stack.enter_context(DeviceNetwork(0, keep=True))
        except OSError as error:
            raise VeilsightError(f"no network of the device's own: {error}; run it as root") from error
        broker = _OverTls(Path(name))
        stack.enter_context(broker)
        gateway = Gateway(_Tls(broker.tls_port), network.listen())
        stack.enter_context(gateway)
        listener = stack.enter_context(Listener(broker))
        camera = stack.enter_context(StallingCamera(network.in_device(lambda: socket.create_server(("127.0.0.1", 0)))))
        operator = DeviceKey(random.randbytes(32))
        day = _Day(Rig(Path(name), broker, engine), broker, gateway, listener, camera, network, operator, part_s)
        day.run()
        return _report(day)


def _report(day: _Day) -> Report:
    sent, wrong = judge_packets(day.network.kept, BROKER, day.gateway.port)
    calls = read_calls(day.calls)
    written, outside = judge_calls(calls, day.state, [f"{BROKER}:{day.gateway.port}"])
    wrong += outside
    if not (sent["tls_records"] and written["in_the_folder"] and day._released()):
        wrong.append("nothing was sent, written or released: the trace saw no device")
    figures: dict[str, Any] = {"releases": day._released(), "starts": day.starts, **sent, **written}
    rows = [["a day in miniature", "count"], *([name.replace("_", " "), str(n)] for name, n in figures.items())]
    return Report(None, figures, rows, ["asked: only TLS to the broker leaves, nothing is written elsewhere"], wrong)


COMMAND = Benchmark("trace", __doc__, "nothing: what must hold, holds or does not", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
