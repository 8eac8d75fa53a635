"""Backends, by name: they make and run what an engine folder's graphs need. No torch.

    backend(name) -> Backend      backend.build(folder) makes what it needs beside the graphs and opens them
                                  -> Runner: perceive(frame) -> heads, encode(frames, people) -> mu

    onnxruntime    the graphs as they are, on the CPU
    tensorrt       engine files for the GPU of this machine, which also runs them
    tensorrt-rtx   engine files for GPUs that need not be here; ONNX Runtime runs the graphs instead

A runner is for parity and calibration; the device's own loop opens its engine in `edge_runtime`. A new backend is a row
of BACKENDS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.eye.engine import tensorrt  # our module; TensorRT itself is imported by load_libraries
from edge_runtime.reader.member import EdgeMember
from export.backends.builder import Options, Say, check_targets, load_rtx, make, say_line
from export.precision.network import runtime_errors
from wire.artifact.engine_record import EngineRecord, engine_key
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError, EngineError

__all__ = ["BACKENDS", "Backend", "OnnxRuntime", "Runner", "TensorRt", "TensorRtRtx", "backend"]

_CURE = "build the engine again: python -m export.build_engine"


class Runner(Protocol):
    """The graphs of one engine folder, open. `decide` runs as the device's reader runs it, whatever the backend."""

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """frame uint8 (1, H, W, 3) -> heads by name, float32 (1, C, H/4, W/4). Raises EngineError."""

    def encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        """Make a code; raises EngineError.

        Args:
            frames: uint8 (1, F, H, W).
            people: int32 (1, F, P, VALUES), for a family that sees them.

        Returns:
            mu int32 (1, K, d).
        """

    def decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """z int32 (1, R, K, d), present bool (1, R) -> logits float32 (1, L). Raises EngineError."""


class Backend(Protocol):
    """One way to make engines.

    Attributes:
        name: As in BACKENDS.
        version: Of its library.
        runs_in: Name of the backend whose library the runner computes with.
    """

    name: str
    version: str
    runs_in: str

    def build(self, folder: Path, say: Say = say_line) -> Runner:
        """Make what this backend needs from the folder's graphs, and open it. Raises EngineError."""

    def why_stale(self, folder: Path, manifest: EngineManifest) -> str:
        """Return why the files made in the folder would not run; "" where they would."""


class OnnxRuntime:
    """ONNX Runtime on the CPU, which loads the graphs as they are."""

    name = runs_in = "onnxruntime"

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"backend onnxruntime cannot be imported ({error}); pip install 'veilsight[export]'"
            ) from error
        self._runtime: Any = onnxruntime
        self.version: str = onnxruntime.__version__

    def build(self, folder: Path, say: Say = say_line) -> Runner:
        """Open every graph."""
        return _OnnxRunner(self._runtime, folder)

    def why_stale(self, folder: Path, manifest: EngineManifest) -> str:
        """Nothing is made, so nothing is stale."""
        return ""


class _OnnxRunner:
    def __init__(self, runtime: Any, folder: Path) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # so that sums are taken in one order, here and on the device
        options.log_severity_level = 4
        options.add_session_config_entry("session.x64quantprecision", "1")  # as the device does
        self._errors = runtime_errors(runtime)
        manifest = EngineManifest.load(folder)
        parts = [part for part in manifest.graphs() if part != "decide"]
        self._sessions = {part: self._open(runtime, folder / GRAPHS[part], options) for part in parts}
        self.decide = EdgeMember(folder, manifest).logits

    def _open(self, runtime: Any, file: Path, options: Any) -> Any:
        try:
            return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise EngineError(f"{file.name}: ONNX Runtime cannot load it ({error}); {_CURE}") from error

    def _run(self, part: str, feed: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
        try:
            made: list[Any] = self._sessions[part].run(None, feed)
        except self._errors as error:
            raise EngineError(f"{GRAPHS[part]}: the run failed ({error}); {_CURE}") from error
        return made

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        names = [value.name for value in self._sessions["perceive"].get_outputs()]
        return dict(zip(names, self._run("perceive", {"frame": frame}), strict=True))

    def encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        feed: dict[str, npt.NDArray[Any]] = {"frames": frames}
        if people is not None:
            feed["people"] = people
        mu: npt.NDArray[np.int32] = self._run("encode", feed)[0]
        return mu


class _Engines:
    """What both TensorRT backends share.

    Args:
        trt: The library's module.
        facts: What an engine file depends on besides its graph, as in `wire.artifact.engine_record`.
        options: Of the builder.
    """

    name: str

    def __init__(self, trt: Any, facts: Mapping[str, str], options: Options) -> None:
        self._trt, self._facts, self._options = trt, facts, options
        self.version = str(trt.__version__)

    def _make(self, folder: Path, say: Say) -> EngineManifest:
        manifest = EngineManifest.load(folder)
        make(self._trt, folder, manifest, folder, engine_key(manifest, self.name, self._facts), self._options, say)
        return manifest

    def why_stale(self, folder: Path, manifest: EngineManifest) -> str:
        """Compare the folder's engine files with their record and their hashes."""
        try:
            record = EngineRecord.load(folder)
            for part in record.engines:
                record.read(folder, part)
        except EngineError as error:
            return str(error)
        return record.why_stale(engine_key(manifest, self.name, self._facts))


class TensorRt(_Engines):
    """TensorRT on the GPU that is here."""

    name = runs_in = "tensorrt"

    def __init__(self, options: Options) -> None:
        self._libraries = tensorrt.load_libraries()
        gpu = tensorrt.Gpu(self._libraries.cuda)
        super().__init__(self._libraries.trt, tensorrt.device_facts(self._libraries.trt, gpu), options)
        gpu.close()

    def build(self, folder: Path, say: Say = say_line) -> Runner:
        """Make the engine files and open them with the device's own code."""
        manifest = self._make(folder, say)
        return _DeviceRunner(
            tensorrt.TensorRtEngine(folder, manifest, libraries=self._libraries), EdgeMember(folder, manifest)
        )


class TensorRtRtx(_Engines):
    """TensorRT-RTX, ahead of time. Its engine files are not run here: ONNX Runtime runs the graphs instead."""

    name, runs_in = "tensorrt-rtx", "onnxruntime"

    def __init__(self, options: Options) -> None:
        trt = load_rtx()
        check_targets(trt, options.targets)  # now, before anything is traced
        facts = {"tensorrt": f"RTX {trt.__version__}", "compute_capability": " ".join(options.targets)}
        super().__init__(trt, {**facts, "gpu": "", "l4t": ""}, options)

    def build(self, folder: Path, say: Say = say_line) -> Runner:
        """Make the engine files; open the graphs."""
        self._make(folder, say)
        return OnnxRuntime().build(folder)


class _DeviceRunner:
    def __init__(self, engine: Any, member: EdgeMember) -> None:
        self._engine, self.decide = engine, member.logits

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        heads: dict[str, npt.NDArray[np.float32]] = self._engine.perceive(frame)
        return heads

    def encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        mu: npt.NDArray[np.int32] = self._engine.run_encode(frames, people)
        return mu


BACKENDS: Mapping[str, Callable[[Options], Backend]] = {
    "onnxruntime": lambda options: OnnxRuntime(),
    "tensorrt": TensorRt,
    "tensorrt-rtx": TensorRtRtx,
}
"""Name -> what makes the backend from the builder's options; raises EngineError, with the cure, where its library is
not installed."""


def backend(name: str, options: Options | None = None) -> Backend:
    """Make the backend called `name`.

    Raises:
        ConfigError: There is no such backend; the message lists those there are.
        EngineError: Its library is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(f"--backend {name} is not known; available: {', '.join(BACKENDS)}")
    return BACKENDS[name](options or Options())
