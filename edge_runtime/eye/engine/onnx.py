"""The engine in ONNX Runtime, on the CPU.

On a device denormal numbers count as zero, so that no scene makes a product slow. ONNX Runtime sets that for the thread
that makes the process's first session, threads that this one starts later, and its own pools; all arithmetic of that
thread follows. So a process of the networks opens its engine first, and no other process asks for it.

`perceive` runs often, so its session keeps its working memory (an arena) until the next frame overwrites it: asking the
system for it anew took a third of its time. That of `encode` goes back after every run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_runtime.eye.engine.base import REBUILD, Engine, Values
from wire.artifact.engine_record import engine_parts
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError

__all__ = ["OnnxEngine"]

_ORT_ERRORS = tuple(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception))
# Its Python part has errors of its own.
_RUN_ERRORS: tuple[type[Exception], ...] = (*_ORT_ERRORS, RuntimeError, ValueError, MemoryError)
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_DTYPES = {"tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(float)": "float32"}


class OnnxEngine(Engine):
    """`encode`, and `perceive` where there is one, each in an ONNX Runtime session.

    Args:
        folder: The engine folder.
        threads: Of one run.
        manifest: The folder's manifest where it is loaded already.
        denormals_as_zero: Where this is the process's first session: see above.

    Raises:
        ManifestError: A file is not the one that the manifest names.
        EngineError: A graph cannot be loaded, or has another interface than the manifest says.
    """

    def __init__(
        self,
        folder: Path | str,
        threads: int = 1,
        manifest: EngineManifest | None = None,
        denormals_as_zero: bool = False,
    ) -> None:
        super().__init__(folder, manifest)
        self._zero = "1" if denormals_as_zero else "0"
        self._sessions = {part: self._opened(Path(folder), part, threads) for part in engine_parts(self.manifest)}

    def _opened(self, folder: Path, part: str, threads: int) -> ort.InferenceSession:
        name = GRAPHS[part]
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_cpu_mem_arena, options.log_severity_level = part == "perceive", 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.set_denormal_as_zero", self._zero)
        options.add_session_config_entry("session.x64quantprecision", "1")  # INT8 sums saturate without VNNI otherwise
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder.absolute()))
        data = self.manifest.read_graph(folder, part)
        try:
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise EngineError(f"{name}: ONNX Runtime cannot load it ({error}); {REBUILD}") from error
        expected = self.manifest.graphs()[part]
        for kind, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            has = {value.name: [_DTYPES.get(value.type, value.type), list(value.shape)] for value in found}
            if has != expected[kind]:
                raise EngineError(f"{name}: {kind} are {has}, the manifest says {expected[kind]}; {REBUILD}")
        return session

    def _run(self, part: str, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        names = [*self.manifest.graphs()[part]["outputs"]]
        try:
            made = self._sessions[part].run(names, dict(inputs))
            return {name: np.asarray(value) for name, value in zip(names, made, strict=True)}
        except _RUN_ERRORS as error:
            kind = type(error).__name__
        raise EngineError(f"{part}: ONNX Runtime: the run failed ({kind})")  # not from the error: its text stays here

    def close(self) -> None:
        self._sessions.clear()
