"""Runs the real loop as a user does: broker, edge process and bridge process, and a listener that keeps every message.

    source -> `python -m edge_runtime` -> broker -> `python -m cloud_bridge`
                                             `-> Listener: every message of veilsight/# with the time it came

A `Rig` holds the folder, the engine and the broker of a run and starts its processes from TOML files made there.
Processes are context managers: they end with their block; their output is kept in files and shown when they fail.
Everything that waits has a time-out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.broker import ROOT, Broker, EmbeddedBroker, Mosquitto, child_env, find_mosquitto
from benchmarks.listener import Heard, Listener, Record, hear
from edge_runtime.gate.ledger import open_key
from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError, VeilsightError
from wire.protocol.keys import DeviceKey, PublicKey

__all__ = [
    "CHECKPOINT",
    "ENGINE",
    "MOTION",
    "SITE",
    "Child",
    "Rig",
    "add_checkpoint",
    "add_engine",
    "add_untimed",
    "build_engine",
    "engine_folder",
    "running_rig",
]

CHECKPOINT = ROOT / "checkpoints" / "nano"
MOTION = ROOT / "checkpoints" / "nano-motion"  # the family that sees no people
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
        """Ask it to end (SIGTERM), kill it where it does not; its exit status."""
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


class Rig:
    """The folder of a run, the engine and checkpoint that it runs, and the broker that its processes connect to."""

    def __init__(self, folder: Path, broker: Broker, engine: Path = ENGINE, checkpoint: Path = CHECKPOINT) -> None:
        self.folder = folder
        self.broker = broker
        self.engine = engine
        self.checkpoint = checkpoint
        self.manifest = EngineManifest.load(engine)
        self._children = 0

    def key(self, camera: str) -> DeviceKey:
        """The camera's signing key, made on first use."""
        return open_key(self.folder / f"{camera}.key", self.folder / f"{camera}-state")

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

    def bridge(
        self, cameras: Sequence[str] = ("camera",), *, exit_when_offline: bool = False, free_text: str = ""
    ) -> Child:
        """The cloud's process for `cameras`. free_text: hash of the base's words, to say sentences in."""
        model = {"checkpoint": str(self.checkpoint), "engine": str(self.engine), "sentence_every_s": 0}
        config = self._write(
            "bridge.toml",
            {
                "broker": {"url": f"mqtt://127.0.0.1:{self.broker.port}"},
                "model": model | {"free_text": free_text},
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


@contextlib.contextmanager
def running_rig(name: str, engine: Path, checkpoint: Path = CHECKPOINT) -> Iterator[tuple[Rig, Listener]]:
    """A rig in a temporary folder, with a broker (Mosquitto where it is installed) and a listener, for the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"veilsight-{name}-")))
        broker = stack.enter_context((Mosquitto if find_mosquitto() else EmbeddedBroker)(folder))
        listener = stack.enter_context(Listener(broker))
        yield Rig(folder, broker, engine, checkpoint), listener


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The option `--engine`; `engine_folder` reads it."""
    parser.add_argument("--engine", type=Path, metavar="DIR", help="an engine folder (default: build or reuse nano's)")


def add_checkpoint(parser: argparse.ArgumentParser, help: str = "the checkpoint (default: checkpoints/nano)") -> None:
    """The option `--checkpoint`."""
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR", help=help)


def add_untimed(parser: argparse.ArgumentParser) -> None:
    """The option `--untimed`, of what judges both counts and times."""
    words = "judge counts alone: times are told, as on a machine that others use, or a slow one"
    parser.add_argument("--untimed", action="store_true", help=words)


def engine_folder(args: argparse.Namespace) -> Path:
    """The folder that `--engine` names, or the default engine, built or reused. Raises EngineError."""
    return args.engine.absolute() if args.engine else build_engine()
