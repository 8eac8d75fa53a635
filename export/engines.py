"""What turns an engine folder's graphs into something that runs, by the backend's name. No torch.

    BACKENDS[name]() -> Backend      backend.build(folder) makes what it needs beside the graphs and opens them
                                     -> Runner: encode(frames, noise) -> z, decide(z, present) -> logits

The runner is for parity and calibration; the device's own loop has its engine in `edge_runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wire.errors import ConfigError, EngineError
from wire.manifest import FILES

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "OnnxRuntime", "Runner", "backend", "check_precision"]

PRECISIONS = ("fp32", "fp16", "int8")
_LATER = {"backend": ("tensorrt", "tensorrt-rtx"), "precision": ()}
_CURE = "build the engine again: python -m export.build_engine"


class Runner(Protocol):
    """Both graphs of one engine folder, open."""

    def encode(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """frames uint8 (1, F, H, W), noise int32 (1, K, d) -> z int32 (1, K, d). Raises EngineError."""

    def decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """z int32 (1, R, K, d), present bool (1, R) -> logits float32 (1, L). Raises EngineError."""


class Backend(Protocol):
    """One way to run the graphs."""

    name: str
    version: str

    def build(self, folder: Path) -> Runner:
        """Make what this backend needs out of the folder's graphs, and open it. Raises EngineError."""


class OnnxRuntime:
    """ONNX Runtime on the CPU, which loads the graphs as they are."""

    name = "onnxruntime"

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(
                f"backend onnxruntime cannot be imported ({error}); pip install 'veilsight[export]'"
            ) from error
        self._runtime: Any = onnxruntime
        self.version: str = onnxruntime.__version__

    def build(self, folder: Path) -> Runner:
        """Open both graphs."""
        return _OnnxRunner(self._runtime, folder)


class _OnnxRunner:
    def __init__(self, runtime: Any, folder: Path) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # so that sums run in one order, here and on the device
        options.log_severity_level = 4
        self._errors = tuple(
            kind
            for kind in vars(runtime.capi.onnxruntime_pybind11_state).values()
            if isinstance(kind, type) and issubclass(kind, Exception)
        )
        self._sessions = {part: self._open(runtime, folder / FILES[part], options) for part in ("encode", "decide")}

    def _open(self, runtime: Any, file: Path, options: Any) -> Any:
        try:
            return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except self._errors as error:
            raise EngineError(f"{file.name}: ONNX Runtime cannot load it ({error}); {_CURE}") from error

    def _run(self, part: str, inputs: Mapping[str, npt.NDArray[Any]]) -> Any:
        try:
            return self._sessions[part].run(None, dict(inputs))[0]
        except self._errors as error:
            raise EngineError(f"{FILES[part]}: the run failed ({error}); {_CURE}") from error

    def encode(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        z: npt.NDArray[np.int32] = self._run("encode", {"frames": frames, "noise": noise})
        return z

    def decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._run("decide", {"z": z, "present": present})
        return logits


BACKENDS: Mapping[str, Callable[[], Backend]] = {"onnxruntime": OnnxRuntime}
"""Name -> what makes the backend; making it raises EngineError, with the cure, where it is not installed."""


def backend(name: str) -> Backend:
    """The backend of that name; ConfigError where this version has none, EngineError where it is not installed."""
    if name not in BACKENDS:
        raise ConfigError(_not_here("backend", name, BACKENDS))
    return BACKENDS[name]()


def check_precision(name: str) -> None:
    """ConfigError unless this version builds engines of that precision."""
    if name not in PRECISIONS:
        raise ConfigError(_not_here("precision", name, PRECISIONS))


def _not_here(option: str, name: str, available: Any) -> str:
    state = "is not in this version" if name in _LATER[option] else "is not known"
    return f"--{option} {name} {state}; available: {', '.join(available)}"
