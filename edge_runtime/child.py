"""The frame of an untrusted child: take the settings, confine this process, open the manifest, then do its work.

    gate --settings--> confine --> manifest --> the eye's or the reader's work --> exit status

Exit statuses: 0 the gate is gone, 2 it could not be opened, 4 the GPU is lost and a new process may help. Nothing that
it prints is kept. Only `--check` shows it, to a person who checks an installation, with no gate behind it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.capture.address import backend_of
from edge_runtime.child_settings import ChildSettings
from edge_runtime.confine import Holds, confine_child, report
from edge_runtime.eye.engine.base import Engine
from edge_runtime.gate.core import HEADER_BYTES
from edge_runtime.link import MAX_SETTINGS, Link
from edge_runtime.record import CAMERA_FAILED, ENGINE_FAILED, NOT_CONFINED, READY, Said, write_said
from wire.artifact.manifest import EngineManifest
from wire.errors import CameraError, ConfigError, DeviceLost, VeilsightError
from wire.protocol.keys import PublicKey

__all__ = ["ChildProcess", "run_child"]

_SETTINGS_S = 30.0  # the gate sends them at once
_CAMERA_NODES: tuple[str, ...] = ("dev/video*", "dev/media*")  # beneath /
_GPU_NODES = ("dev/nv*", "dev/dri/*")


@dataclass
class ChildProcess:
    """A child that is being opened.

    Attributes:
        link: To the gate.
        settings: The gate's.
        manifest: Of the engine folder.
        checks: Whether it only reports what it can open.
    """

    link: Link
    settings: ChildSettings
    manifest: EngineManifest
    checks: bool

    def open_engine(self) -> Engine:
        """Open `encode` of the engine folder. Raises ConfigError, ManifestError, EngineError."""
        # Not before: ONNX Runtime starts a thread when it is imported, which would not be confined.
        from edge_runtime.eye.engine.registry import EngineOptions, open_engine

        given = self.settings
        runtime = (given.engine_backend, given.engine_threads, given.engine_cache, given.engine_cuda_graph)
        return open_engine(EngineOptions(given.engine_folder, *runtime), self.manifest)

    def say(self, text: str) -> None:
        """Send a text of the check, which the gate prints."""
        self.link.send(text.encode())


def run_child(name: str, argv: Sequence[str] | None, work: Callable[[ChildProcess], None]) -> int:
    """Run a child and return its exit status.

    Args:
        name: "eye" or "reader".
        argv: The command line.
        work: What it does once it is confined; it returns when the gate is gone.
    """
    parser = argparse.ArgumentParser(prog=f"edge_runtime.{name}.process", description="started by the gate")
    parser.add_argument("--descriptor", type=int, help="of an inherited socket to the gate")
    parser.add_argument("--socket", help="path of the gate's socket")
    parser.add_argument("--check", action="store_true", help="say what holds and what can be opened, and end")
    given = parser.parse_args(argv)
    try:
        link = Link.connect(given.socket) if given.socket else Link.of_descriptor(given.descriptor)
        settings = _settings(link)
    except (ConfigError, OSError, TypeError) as error:
        return _complain(name, error)
    confined = False
    try:
        holds = _confine(settings, link, networks=name == "eye")
        confined = True
        signer = PublicKey.parse(settings.engine_signer) if settings.engine_signer else None
        child = ChildProcess(link, settings, EngineManifest.load(settings.engine_folder, signer), given.check)
        if child.checks:
            child.say(report(holds))
        work(child)
    except VeilsightError as error:
        word = CAMERA_FAILED if isinstance(error, CameraError) else ENGINE_FAILED
        if given.check:
            link.send(str(error).encode())
        else:
            _refuse(link, word if confined else NOT_CONFINED)
        return 4 if isinstance(error, DeviceLost) else 2
    return 0


def _settings(link: Link) -> ChildSettings:
    data = np.zeros(MAX_SETTINGS + 1, np.uint8)
    length = link.receive(data, _SETTINGS_S)
    if not 0 < length <= MAX_SETTINGS:
        raise ConfigError("the gate sent no settings; start it with: python -m edge_runtime --config edge.toml")
    return ChildSettings.read(data[:length].tobytes())


def _confine(settings: ChildSettings, link: Link, networks: bool) -> list[Holds]:
    """Confine this process to its socket, its engine and its camera; only one of `networks` has a GPU."""
    source = settings.camera_source.removeprefix("file://")
    backend = backend_of(source) if source else ""
    readable = [Path(settings.engine_folder), *([Path(settings.engine_cache)] if settings.engine_cache else [])]
    readable += [Path(source)] if backend == "file" else []
    patterns = _CAMERA_NODES if backend in ("v4l2", "gstreamer") else ()
    gpu = networks and settings.engine_backend == "tensorrt"
    patterns += _GPU_NODES if gpu or backend == "gstreamer" else ()
    devices = [path for pattern in patterns for path in Path("/").glob(pattern)]
    return confine_child(
        [path.absolute() for path in readable if path.exists()],
        network=backend == "stream",
        memory_bytes=0 if gpu else settings.run_memory_mb << 20,
        devices=devices,
        keep=[link.descriptor],
        cores=settings.cores,
        unix_sockets=backend == "gstreamer",
        processors=networks,
    )


def _refuse(link: Link, word: int) -> None:
    """Tell the gate why this child cannot serve, by number."""
    record = np.zeros(HEADER_BYTES, np.uint8)
    write_said(record, Said(READY, word))
    link.send(record)


def _complain(name: str, error: Exception) -> int:
    """Print why it ends; returns the exit status."""
    print(f"{name}: {error}", file=sys.stderr)
    return 2
