"""Runs the real loop as a user does: broker, edge process, bridge process, and a listener that keeps all.

    source -> `python -m edge_runtime` -> broker -> `python -m cloud_bridge`
                                             `-> Listener: every message of veilsight/# with the time it came

A `Rig` holds the folder, the engine and the broker of a run and starts its processes from TOML files made there.
Processes are context managers: they end with their block, their output is kept in files and shown when they fail.
Everything that waits has a time-out.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.broker import ROOT, Broker, child_env
from wire.artifact.manifest import EngineManifest
from wire.errors import BrokerError, EngineError, MessageError, VeilsightError
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.message import Alert, FeatureMessage, Verdict, open_alert, open_features, open_verdict
from wire.protocol.topics import parse_topic

__all__ = [
    "CHECKPOINT",
    "ENGINE",
    "Child",
    "Heard",
    "Listener",
    "Record",
    "Rig",
    "build_engine",
    "SITE",
    "end_on_signals",
    "fail",
    "hear",
    "machine",
    "percentiles",
    "report",
]

CHECKPOINT = ROOT / "checkpoints" / "nano"
ENGINE = ROOT / "build" / "engines" / "nano"
SITE = "site"

_STOP_S = 10.0
_ERROR_LINE = re.compile(r"\b(ERROR|CRITICAL|Traceback|Error:|Warning:)")


class Child:
    """A process of ours: started on entry, its output kept in one file, ended with its block."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._argv = [*argv]
        self._log = log
        self._env = dict(env) if env is not None else child_env()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process; only within the block."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def error_lines(self) -> list[str]:
        """The lines of its output that report an error, a warning or a traceback."""
        return [line for line in self.output().splitlines() if _ERROR_LINE.search(line)]

    def wait_for_line(self, text: str, seconds: float) -> None:
        """Return once its output holds `text`; raises VeilsightError with that output when it ends or time runs out."""
        deadline = time.monotonic() + seconds
        while text not in self.output():
            if not self.running or time.monotonic() > deadline:
                raise VeilsightError(f"{self.name} did not say {text!r}; it said:\n{self.output()[-4000:].strip()}")
            time.sleep(0.02)

    def wait(self, seconds: float) -> int:
        """Its exit status; raises TimeoutError with its output when it has not ended by then."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} did not end within {seconds:g} s:\n{self.output()[-4000:]}") from None

    def stop(self) -> int:
        """Ask it to end (SIGTERM), then make it; its exit status."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def __enter__(self) -> Child:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, cwd=self._log.parent
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@dataclass(frozen=True, slots=True)
class Record:
    """One MQTT message as it came. at: seconds on this machine's wall clock, taken in the network thread."""

    topic: str
    payload: bytes
    at: float
    retained: bool


class Listener:
    """Keeps every message under `veilsight/#`; subscribes again when the broker comes back."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._news = threading.Condition()
        self._records: list[Record] = []
        self._subscribed = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        client.reconnect_delay_set(min_delay=1, max_delay=1)
        client.on_connect = lambda c, *_: c.subscribe("veilsight/#", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._keep
        self._client = client

    def _keep(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        record = Record(message.topic, bytes(message.payload), time.time(), message.retain)
        with self._news:
            self._records.append(record)
            self._news.notify_all()

    def records(self, start: int = 0) -> list[Record]:
        """All messages so far, from number `start` on, in the order they came."""
        with self._news:
            return self._records[start:]

    def wait_for(self, condition: Callable[[list[Record]], bool], seconds: float) -> bool:
        """Wait until `condition` holds of all messages so far; False when `seconds` pass first."""
        deadline = time.monotonic() + seconds
        with self._news:
            while not condition(self._records):
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(timeout=left):
                    return condition(self._records)
        return True

    def wait_more(self, count: int, seconds: float) -> None:
        """Return when there are more than `count` messages, or after `seconds`."""
        with self._news:
            if len(self._records) <= count:
                self._news.wait(timeout=seconds)

    def __enter__(self) -> Listener:
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        if not self._subscribed.wait(timeout=10):
            self._client.loop_stop()
            raise BrokerError("the broker took no subscription within 10 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@dataclass(frozen=True, slots=True)
class Heard:
    """One camera's messages, opened and verified; each with the second it came (wall clock)."""

    features: list[tuple[float, FeatureMessage]]
    verdicts: list[tuple[float, Verdict]]
    alerts: list[tuple[float, Alert]]
    states: list[tuple[float, dict[str, Any]]]
    refused: list[str]

    @property
    def boot_id(self) -> int | None:
        """The boot that the camera's last state names; None before any."""
        return int(self.states[-1][1]["boot_id"]) if self.states else None

    def of(self, member: str) -> list[tuple[float, Verdict]]:
        """Verdicts of `edge` or `cloud`, in slot order."""
        return sorted((v for v in self.verdicts if v[1].member == member), key=lambda v: v[1].last_slot)


def hear(
    records: Iterable[Record], camera: str, manifest: EngineManifest, edge: PublicKey, cloud: PublicKey | None
) -> Heard:
    """Open every message of `camera` with its writer's key; what does not open is named in `refused`."""
    heard = Heard([], [], [], [], [])
    for record in records:
        parsed = parse_topic(record.topic)
        if parsed is None or parsed[1] != camera or not record.payload:
            continue
        try:
            _open_into(heard, parsed[2], record, manifest, edge, cloud)
        except MessageError as error:
            heard.refused.append(f"{record.topic}: {error}")
    return heard


def _open_into(
    heard: Heard, name: str, record: Record, manifest: EngineManifest, edge: PublicKey, cloud: PublicKey | None
) -> None:
    model = manifest.model_id
    if name == "features":
        read = open_features(record.payload, edge, manifest.n, model, len(manifest.sigmas))
        heard.features.append((record.at, read))
    elif name == "verdict/edge":
        heard.verdicts.append((record.at, open_verdict(record.payload, edge, model, manifest.event_releases)))
    elif name == "state":
        heard.states.append((record.at, json.loads(record.payload)))
    elif cloud is not None and name == "verdict/cloud":
        heard.verdicts.append((record.at, open_verdict(record.payload, cloud, model, manifest.event_releases)))
    elif cloud is not None and name == "alert":
        heard.alerts.append((record.at, open_alert(record.payload, cloud, model)))


class Rig:
    """Where a run lives (`folder`), what it runs (`engine`, `checkpoint`) and the broker that its processes meet at."""

    def __init__(self, folder: Path, broker: Broker, engine: Path = ENGINE, checkpoint: Path = CHECKPOINT) -> None:
        self.folder = folder
        self.broker = broker
        self.engine = engine
        self.checkpoint = checkpoint
        self.manifest = EngineManifest.load(engine)
        self._children = 0

    def key(self, camera: str) -> DeviceKey:
        """The camera's signing key, made on first use."""
        return DeviceKey.load_or_make(self.folder / f"{camera}.key")

    @property
    def cloud_key(self) -> PublicKey | None:
        """The bridge's public key; None before the bridge has made it."""
        path = self.folder / "bridge" / "bridge.key.pub"
        return PublicKey.parse(str(path)) if path.is_file() else None

    def hear(self, records: Iterable[Record], camera: str = "camera") -> Heard:
        """`records` of `camera`, opened with the keys of this rig."""
        return hear(records, camera, self.manifest, self.key(camera).public, self.cloud_key)

    def edge(
        self,
        source: str,
        *,
        camera: str = "camera",
        speed: float = 1.0,
        windows: int = 0,
        health: str = "",
        broker: Broker | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """The device's process on `source`. windows: end after that many slots, 0 for never; broker: not the rig's."""
        config = self.edge_config(source, camera=camera, speed=speed, windows=windows, health=health, broker=broker)
        summary = self._summary(camera)
        summary.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "edge_runtime", "--config", str(config), "--summary", str(summary)]
        return self._child(f"edge-{camera}", argv, env)

    def edge_config(
        self,
        source: str,
        *,
        camera: str = "camera",
        speed: float = 1.0,
        windows: int = 0,
        health: str = "",
        broker: Broker | None = None,
    ) -> Path:
        """Write the file that `edge` starts the device's process with."""
        self.key(camera)
        return self._write(
            f"{camera}.toml",
            {
                "device": {
                    "site": SITE,
                    "camera": camera,
                    "key": str(self.folder / f"{camera}.key"),
                    "state_dir": str(self.folder / f"{camera}-state"),
                },
                "camera": {"source": source, "speed": speed},
                "engine": {"folder": str(self.engine)},
                "broker": {"url": f"mqtt://127.0.0.1:{(broker or self.broker).port}"},
                "health": {"listen": health},
                "run": {"windows": windows},
            },
        )

    def summary(self, camera: str = "camera") -> dict[str, Any]:
        """The local figures of the camera's last edge process, by part; empty where it has left none."""
        path = self._summary(camera)
        return dict(json.loads(path.read_text())) if path.is_file() else {}

    def _summary(self, camera: str) -> Path:
        return self.folder / f"{camera}-summary.json"

    def bridge(self, cameras: Sequence[str] = ("camera",), *, exit_when_offline: bool = False) -> Child:
        """The cloud's process for `cameras`."""
        config = self._write(
            "bridge.toml",
            {
                "broker": {"url": f"mqtt://127.0.0.1:{self.broker.port}"},
                "model": {"checkpoint": str(self.checkpoint), "engine": str(self.engine)},
                "state": {"dir": str(self.folder / "bridge")},
                "run": {"exit_when_offline": exit_when_offline},
            },
            [{"site": SITE, "camera": name, "public_key": self.key(name).public.hex} for name in cameras],
        )
        return self._child("bridge", [sys.executable, "-m", "cloud_bridge", "--config", str(config)], None)

    def _child(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None) -> Child:
        self._children += 1
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        return Child(name, argv, self.folder / f"{name}-{self._children}.log", child_env(**threads, **(env or {})))

    def _write(
        self, name: str, tables: Mapping[str, Mapping[str, Any]], cameras: Sequence[Mapping[str, Any]] = ()
    ) -> Path:
        """A TOML file; JSON's strings, numbers and booleans are TOML's."""
        heads = [(f"[{table}]", values) for table, values in tables.items()]
        heads += [("[[cameras]]", values) for values in cameras]
        text = "".join(
            f"{head}\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()) + "\n"
            for head, values in heads
        )
        path = self.folder / name
        path.write_text(text)
        return path


def build_engine(quiet: bool = False) -> Path:
    """Build the default engine, or reuse it (`export.build_engine` decides and says which); its folder.

    Raises EngineError where the build fails; its own output names why.
    """
    command = [sys.executable, "-m", "export.build_engine"]
    result = subprocess.run(
        command, cwd=ROOT, env=child_env(), stdout=subprocess.PIPE if quiet else None, stderr=None, check=False
    )
    if result.returncode != 0:
        raise EngineError(f"the engine was not built (exit status {result.returncode}): {' '.join(command[1:])}")
    return ENGINE


def end_on_signals() -> None:
    """Make SIGTERM and SIGHUP end this process through its `with` blocks, so that no child outlives it."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """{"p50", "p99"} of `values`; empty for none. p99 of fewer than 100 values is near their largest."""
    if not values:
        return {}
    p50, p99 = np.percentile(np.asarray(values), [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    model = platform.processor() or platform.machine()
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": names[0] if names else model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min": None if load is None else round(load, 2),
    }


def report(
    name: str,
    *,
    ratio: float | None,
    of: str,
    figures: Mapping[str, Any],
    rows: Sequence[Sequence[str]] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Print `rows` (the first is the head) as a table, `notes` below it, and last one line of JSON, which is returned.

    ratio: ours over the peer or floor named in `of`, both taken in this run; None where the peer is not there.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    for number, row in enumerate(rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    for note in notes:
        print(note)
    if ratio is not None:
        print(f"ratio {ratio:.3g}: ours over {of}")
    document = {
        "name": name,
        "ratio": None if ratio is None else round(ratio, 6),
        "of": of,
        "figures": dict(figures),
        "machine": machine(),
    }
    print(json.dumps(document), flush=True)
    return document


def fail(error: VeilsightError) -> int:
    """Print one error line for a user; the exit status for it."""
    print(f"error: {error}", file=sys.stderr)
    return 2
