"""Runs of the real gate with a hostile eye or reader, several at once, and what must be the same in all of them.

with Arena(folder) as arena:
runs = arena.play({"camera": Play(eye="tests.support.hostile_eye:floods")})
assert faults(runs["camera"], honest) == []
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broker import EmbeddedBroker, Tap, child_env
from benchmarks.harness import SITE, Child, Rig
from benchmarks.listener import Heard, Listener, Record
from benchmarks.privacy.hostile_gate import hostile_gate
from edge_runtime.capture.address import masked
from familial.evaluate.intervals import auc_interval
from tests.support.engine_factory import make_engine
from tests.support.hostile_eye import secret
from tests.support.services import PATIENCE_S
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time, features_size
from wire.protocol.topics import parse_topic

__all__ = ["LIVE", "SCENE", "SLOT_S", "Arena", "Play", "Run", "faults", "guessed", "may_be_right", "told_by_time"]

LIVE = "rtsp://127.0.0.1:9/none"
"""A live camera that no conversation opens; the gate never does."""
SCENE = "synthetic://walk"
"""A scene: the gate begins when its eye is ready."""
SLOT_S = 0.1
_AT_ONCE = 6
_DELAYED_S = 20.0  # from the question to the listener, on the busiest machine
_OWN = {"boot_id", "started_at", "public_key", "signature", "count", "status", "reason", "model_id"}
"""Fields of the state that are of each run alone."""


@dataclass(frozen=True)
class Play:
    """How a gate is run.

    Attributes:
        eye: "MODULE:NAME"; "" for the product's own.
        reader: Likewise.
        gate: Its command line up to the gate's own options, in place of the real one's.
        engine: Another engine folder than the arena's.
        tap: Whether every byte on its connection is kept.
    """

    eye: str = ""
    reader: str = ""
    source: str = SCENE
    windows: int = 14
    speed: float = 1.0
    gate: Sequence[str] = ()
    engine: Path | None = None
    tap: bool = False


@dataclass(frozen=True)
class Run:
    """What came of it.

    Attributes:
        status: The gate's exit status.
        log: What it wrote to standard output and error.
        sent: Bytes on its connection, where it was tapped.
        released: When the kernel got each release, where it was tapped.
        files: Name -> bytes of what it keeps.
    """

    camera: str
    status: int
    log: str
    records: list[Record]
    heard: Heard
    figures: Mapping[str, Any]
    files: Mapping[str, bytes]
    sent: bytes
    released: list[float]
    key: DeviceKey

    @property
    def slots(self) -> list[int]:
        """Those that were released, in order."""
        return [message.slot for _, message in self.heard.features]


@dataclass
class Arena:
    """A broker, a listener, an engine, and places to attack.

    Attributes:
        engine: Arguments of `make_engine`.
        built: An engine folder in its place.
        caught: What attacks have sent.
    """

    folder: Path
    engine: dict[str, Any] = field(default_factory=dict)
    built: Path | None = None
    rig: Rig = field(init=False)
    caught: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Arena:
        if self.built is None:
            make_engine(self.folder / "engine", **{"slot_s": SLOT_S, **self.engine})
        self._stack = ExitStack()
        self._broker = self._stack.enter_context(EmbeddedBroker(self.folder))
        self._listener = self._stack.enter_context(Listener(self._broker))
        self.rig = Rig(self.folder, self._broker, self.built or self.folder / "engine")
        self._open_targets()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def left(self, *inputs: Path) -> dict[str, bytes]:
        """Every file that its processes left: name -> bytes; inputs: files and folders that were put there."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        ours = (path for path in found if not any(path.is_relative_to(each) for each in (*inputs, self.rig.engine)))
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in ours}

    def play(self, plays: Mapping[str, Play]) -> dict[str, Run]:
        """Run gates, name of the camera -> how, a few at a time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(plays, pool.map(self._play, plays, plays.values()), strict=True))

    def _play(self, camera: str, how: Play) -> Run:
        with ExitStack() as stack:
            tap = stack.enter_context(Tap(self._broker, keep=True)) if how.tap else None
            rig = Rig(self.folder, self._broker, how.engine or self.rig.engine)
            more = {"windows": how.windows, "speed": how.speed, "broker": tap}
            config = rig.edge_config(how.source, camera=camera, **more)  # type: ignore[arg-type]  # of each its own
            summary, log = self.folder / f"{camera}.json", self.folder / f"{camera}.log"
            command = [*(how.gate or hostile_gate(how.eye, how.reader)), "--config", str(config)]
            home = {name: str(self.folder / "home") for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR")}
            environment = child_env(OMP_NUM_THREADS="1", **home)
            gate = stack.enter_context(Child(camera, [*command, "--summary", str(summary)], log, environment))
            status = gate.wait(PATIENCE_S)
        self._listener.wait_for(lambda records: self._is_over(records, camera), PATIENCE_S if status == 0 else 1.0)
        ours = [r for r in self._listener.records() if (parsed := parse_topic(r.topic)) and parsed[1] == camera]
        figures = json.loads(summary.read_text()) if summary.is_file() else {}
        state = self.folder / f"{camera}-state"
        files = {path.name: path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file()}
        sent, released = (bytes(tap.sent), tap.released) if tap else (b"", [])
        heard, key = rig.hear(ours, camera), rig.key(camera)
        return Run(camera, status, log.read_text(), ours, heard, figures, files, sent, released, key)

    @staticmethod
    def _is_over(records: Sequence[Record], camera: str) -> bool:
        return any(r.topic == f"veilsight/v1/{SITE}/{camera}/state" and b'"offline"' in r.payload for r in records)

    def _open_targets(self) -> None:
        """Listen where an attack may connect; what comes is in `caught`."""
        (self.folder / "home").mkdir()
        (self.folder / "spare").write_text("of the gate")
        self.name = f"veilsight-{self.folder.name}-{id(self)}"
        ends = [socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
        ends += [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        addresses: list[Any] = [("127.0.0.1", 0), ("127.0.0.1", 0), str(self.folder / "s"), f"\0{self.name}"]
        for end, address in zip(ends, addresses, strict=True):
            self._stack.callback(end.close)
            end.bind(address)
            threading.Thread(target=self._catch, args=(end,), daemon=True).start()
        targets = {"tcp": ends[0].getsockname()[1], "udp": ends[1].getsockname()[1], "unix": addresses[2]}
        targets |= {"abstract": self.name, "folder": str(self.folder)}
        (self.folder / "targets.json").write_text(json.dumps(targets))

    def _catch(self, end: socket.socket) -> None:
        while True:
            try:
                if end.type == socket.SOCK_DGRAM:
                    self.caught.append(end.recv(65536))
                    continue
                end.listen()
                with end.accept()[0] as other:
                    self.caught.append(other.recv(65536))
            except OSError:
                return


def faults(run: Run, honest: Run) -> list[str]:
    """What of a run tells that its eye or reader is not honest, besides z: nothing may, before `watching` is due.

    Every slot is there once, every message has the honest run's size and fields, the log has its lines and the state
    its files.
    """
    found = []
    if run.status or run.heard.refused:
        found.append(f"exit status {run.status}, refused {run.heard.refused[:2]}, log {run.log[-500:]}")
    slots, skipped = run.slots, int(run.figures.get("clock", {}).get("skipped_slots", 0))
    if len(set(slots)) != len(slots) or slots != sorted(slots) or not slots or slots[-1] + 1 - len(slots) > skipped:
        found.append(f"slots {slots}, of which the gate's own clock skipped {skipped}")
    found += _unlike(run)
    verdicts = {len(r.payload) for r in run.records if r.topic.endswith("/verdict/edge")}
    if not verdicts <= {len(r.payload) for r in honest.records if r.topic.endswith("/verdict/edge")}:
        found.append(f"verdicts of {verdicts} bytes")
    for name, seen in _looks(run).items():
        if seen != (expected := _looks(honest)[name]):
            found.append(f"{name}: {seen} and not {expected}")
    return found


def guessed(run: Run) -> tuple[int, int]:
    """(how often the likeliest secret is right, of how many) against an eye that shouts: the best test there is."""
    right = [(int(m.z[0]) > 0) == bool(secret(m.slot)) for _, m in run.heard.features]
    return sum(right), len(right)


def may_be_right(run: Run, bound: float) -> float:
    """The share of guesses that may be right: `bound` with a code, half where a busy machine made noise alone."""
    alone = int(run.figures["loop"]["alone"]) / len(run.slots)
    return bound + alone * (0.5 - bound)


def told_by_time(run: Run, speed: float = 1.0) -> tuple[float, tuple[float, float]]:
    """Area under the ROC curve of the releases' lateness as a test of the secret, and its interval."""
    slots = np.array(run.slots)
    at = np.array(run.released if len(run.released) == len(slots) else [at for at, _ in run.heard.features])
    late = at - slots * SLOT_S / speed
    positive = np.array([bool(secret(slot)) for slot in run.slots])
    return auc_interval(late, positive, np.arange(len(slots)), np.zeros(len(slots), np.int64), seed=0)


def _unlike(run: Run) -> list[str]:
    """The releases that are not what slot, public fields, z and clock make of them, to the last bit."""
    payloads = [r.payload for r in run.records if r.topic.endswith("/features")]
    if {len(payload) for payload in payloads} != {features_size(64)}:
        return ["the size of the releases"]
    found = []
    for payload, (at, message) in zip(payloads, run.heard.features, strict=False):
        if message.seal(run.key, SITE, run.camera) != payload:
            found.append(f"slot {message.slot}: bytes that the signed fields do not explain")
        if message.time_s not in (coarse_time(at), coarse_time(at - _DELAYED_S)):
            found.append(f"slot {message.slot}: its time is {message.time_s}, and it came at {at:.1f}")
    return found


def _looks(run: Run) -> dict[str, Any]:
    """What is the same in every run of one configuration, whatever its children do."""
    features = [message for _, message in run.heard.features]
    topics = {r.topic.rpartition(f"{run.camera}/")[2] for r in run.records} - {"verdict/edge"}
    states = [{k: v for k, v in fields.items() if k not in _OWN} for _, fields in run.heard.states]
    status = [(fields["status"], fields["reason"], fields["count"]) for _, fields in run.heard.states]
    return {
        "fields": {(m.flags, m.level) for m in features},
        "starts": len({(m.boot_id, m.model_id) for m in features}),
        "topics": topics,
        "states": states,
        "status": status,
        "log": [_plain(line, run.camera) for line in run.log.splitlines()],
        "files": set(run.files),
        "releases": len(features),
    }


def _plain(line: str, camera: str) -> str:
    """A line of the log without its time and without the names of this run."""
    plain = re.sub(r"^[\d-]+ [\d:,]+ ", "", line).replace(camera, "CAMERA").replace(masked(LIVE), SCENE)
    return re.sub(r"127\.0\.0\.1:\d+", "BROKER", plain)
