"""The engine: window + noise -> release, event -> probabilities. The interface, its choice, and its ONNX Runtime form.

    encode(frames, noise) -> z        decide(z of 8 releases, which are present) -> label logits

An engine is loaded from the very bytes that were held against the manifest and tested before anything is published.
The noise of a release comes as a NoiseSample and as nothing else, and is wiped when the release is made. The runtime's
own scratch memory holds the code until the next run overwrites it; this process never forms it outside `self_test`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_runtime.config import Config
from edge_runtime.eye.window import Window
from edge_runtime.gate.sampler import NoiseSample
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import ConfigError, EngineError, PrivacyError
from wire.protocol.event import EventWindow

__all__ = ["BACKENDS", "Engine", "OnnxEngine", "open_engine", "self_test"]

BACKENDS = ("onnxruntime", "tensorrt")

_CURE = "build the engine again: python -m export.build_engine"
_ORT_ERRORS = tuple(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception))
_DTYPES = {"tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(float)": "float32"}


class Engine(ABC):
    """One device's runtime. A form of it runs two graphs; what is the same for all is here."""

    def __init__(self, folder: Path | str, manifest: EngineManifest | None = None) -> None:
        self.manifest = manifest or EngineManifest.load(folder)
        self.manifest.check(folder)

    @abstractmethod
    def run_core(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """`encode`: frames (1, T, H, W), noise (1, K, d) -> z (1, K, d). Raises EngineError."""

    @abstractmethod
    def run_decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """`decide`: z (1, R, K, d), present (1, R) -> logits (1, L). Raises EngineError."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def encode(self, window: Window, draw: NoiseSample) -> npt.NDArray[np.int16]:
        """The release of `window`, int16 (n,). Uses the draw up and wipes it. Raises EngineError, PrivacyError."""
        with draw as noise:
            z = self.run_core(window.frames, noise)
        if z.min() < -32768 or z.max() > 32767:
            raise PrivacyError(f"z reaches from {z.min()} to {z.max()}: the graph does not saturate; {_CURE}")
        return z.astype(np.int16).reshape(-1)

    def decide(self, event: EventWindow) -> Mapping[str, float]:
        """Label -> probability for the releases of an event. Raises EngineError."""
        logits = self.run_decide(event.z[None], event.present[None])[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise EngineError("decide: the logits are not finite")
        weights = np.exp(logits - logits.max())
        return dict(zip(self.manifest.labels, (weights / weights.sum()).tolist(), strict=True))


class OnnxEngine(Engine):
    """Both graphs in ONNX Runtime, on the CPU. Raises ManifestError or EngineError, naming the cure."""

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
            raise EngineError(f"{name}: ONNX Runtime cannot load it ({error}); {_CURE}") from error
        expected = self.manifest.graphs()[part]
        for kind, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            has = {value.name: [_DTYPES.get(value.type, value.type), list(value.shape)] for value in found}
            if has != expected[kind]:
                raise EngineError(f"{name}: {kind} are {has}, the manifest says {expected[kind]}; {_CURE}")
        return session

    def run_core(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return _run(self._encode, frames=frames, noise=noise)

    def run_decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        return _run(self._decide, z=z, present=present)

    def close(self) -> None:
        del self._encode, self._decide


def open_engine(config: Config, manifest: EngineManifest) -> Engine:
    """The engine of `[engine] backend`, from `[engine] folder`. Raises ConfigError and what the engine raises."""
    if config.engine_backend == "tensorrt":
        from edge_runtime.eye.engine.tensorrt import TensorRtEngine

        return TensorRtEngine(config.engine_folder, manifest, config.engine_cache, config.engine_cuda_graph)
    if config.engine_backend != "onnxruntime":
        raise ConfigError(f"[engine] backend is {config.engine_backend!r}; expected {' or '.join(BACKENDS)}")
    return OnnxEngine(config.engine_folder, config.engine_threads, manifest)


def _run(session: ort.InferenceSession, **inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        return np.asarray(session.run(None, inputs)[0])
    except _ORT_ERRORS as error:
        raise EngineError(f"ONNX Runtime: the run failed ({error})") from error


def self_test(engine: Engine) -> None:
    """Drive the built core with scenes and noise of known content before the first release.

    For each scene |mu| <= C (zero noise exists only here), z - noise is mu to the last integer, and z saturates at both
    ends of int16. Raises PrivacyError: the process must stop.
    """
    manifest, window = engine.manifest, engine.manifest.window
    code, shape = (1, manifest.tokens, manifest.width), (1, window.frames, window.height, window.width)
    scenes = {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "checkerboard": np.indices(shape, np.uint8).sum(axis=0, dtype=np.uint8) % 2 * np.uint8(255),
        "scatter": np.frombuffer(hashlib.shake_128(b"").digest(math.prod(shape)), np.uint8).reshape(shape),
    }
    planted = np.arange(manifest.n, dtype=np.int32).reshape(code) * 7919 % 60001 - 30000
    for name, frames in scenes.items():
        mu = engine.run_core(frames, np.zeros(code, np.int32)).astype(np.int64)
        if int((mu * mu).sum()) > manifest.clip_norm**2:
            raise PrivacyError(f"self-test ({name}): the code is longer than C = {manifest.clip_norm}; {_CURE}")
        if not np.array_equal(engine.run_core(frames, planted) - mu, planted):
            raise PrivacyError(f"self-test ({name}): the noise does not reach the release as it was drawn; {_CURE}")
    for end, step in ((32767, 1), (-32768, -1)):
        for over in (-1, 0, 1, 1 << 20):  # to the last integer on both sides of the end
            z = engine.run_core(frames, (end - mu + step * over).astype(np.int32))
            if not (z == end + step * min(over, 0)).all():
                raise PrivacyError(f"self-test: z does not saturate at {end}; {_CURE}")
