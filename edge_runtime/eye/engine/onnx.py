"""The engine in ONNX Runtime, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_runtime.eye.engine.base import REBUILD, Engine
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import EngineError

__all__ = ["OnnxEngine"]

_ORT_ERRORS = tuple(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception))
_DTYPES = {"tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(float)": "float32"}


class OnnxEngine(Engine):
    """Both graphs in ONNX Runtime sessions.

    Args:
        folder: The engine folder.
        threads: Of one run.
        manifest: The folder's manifest where it is loaded already.

    Raises:
        ManifestError: A file is not the one that the manifest names.
        EngineError: A graph cannot be loaded, or has another interface than the manifest says.
    """

    def __init__(self, folder: Path | str, threads: int = 1, manifest: EngineManifest | None = None) -> None:
        super().__init__(folder, manifest)
        with self.manifest.open_verified(folder) as copy:
            self._encode, self._decide = (self._session(copy, part, threads) for part in ("encode", "decide"))

    def _session(self, folder: Path, part: str, threads: int) -> ort.InferenceSession:
        name = FILES[part]
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_cpu_mem_arena, options.log_severity_level = False, 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise EngineError(f"{name}: ONNX Runtime cannot load it ({error}); {REBUILD}") from error
        expected = self.manifest.graphs()[part]
        for kind, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            has = {value.name: [_DTYPES.get(value.type, value.type), list(value.shape)] for value in found}
            if has != expected[kind]:
                raise EngineError(f"{name}: {kind} are {has}, the manifest says {expected[kind]}; {REBUILD}")
        return session

    def run_core(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return _run(self._encode, frames=frames, noise=noise)

    def run_decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        return _run(self._decide, z=z, present=present)

    def close(self) -> None:
        del self._encode, self._decide


def _run(session: ort.InferenceSession, **inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        return np.asarray(session.run(None, inputs)[0])
    except _ORT_ERRORS as error:
        raise EngineError(f"ONNX Runtime: the run failed ({error})") from error
