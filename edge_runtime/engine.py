"""The engine: window + noise -> release, event -> probabilities. The interface, and its ONNX Runtime form.

    encode(frames, noise) -> z        decide(z of 8 releases, which are present) -> label logits

An engine is loaded from the very bytes that were held against the manifest and tested before anything is published.
The noise of a release comes as a NoiseDraw and as nothing else, and is wiped when the release is made. The runtime's
own scratch memory holds the code until the next run overwrites it; this process never forms it outside `self_test`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from wire.errors import EngineError, ManifestError, PrivacyError
from wire.event import EventWindow
from wire.manifest import FILES, EngineManifest

from .noise import NoiseDraw
from .window import Window

__all__ = ["Engine", "OnnxEngine", "self_test", "softmax"]

_CURE = "build the engine again: python -m export.build_engine"
_ORT_ERRORS = tuple(kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception))
_DTYPES = {"tensor(uint8)": "uint8", "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(float)": "float32"}


class Engine(Protocol):
    """What the loop uses; everything about one device's runtime is behind it."""
    manifest: EngineManifest

    def encode(self, window: Window, draw: NoiseDraw) -> npt.NDArray[np.int16]:
        """The release of `window`, int16 (n,). Uses the draw up and wipes it. Raises EngineError."""

    def decide(self, event: EventWindow) -> Mapping[str, float]:
        """Label -> probability for the releases of an event. Raises EngineError."""

    def run_core(self, frames: npt.NDArray[np.uint8], planted: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """For `self_test` alone: encode made-up frames with planted noise, z int32 (1, K, d)."""

    def close(self) -> None:
        """Release what the engine holds."""


class OnnxEngine:
    """Both graphs in ONNX Runtime, on the CPU. Raises ManifestError or EngineError, naming the cure."""
    def __init__(self, folder: Path | str, threads: int = 1) -> None:
        self.manifest = EngineManifest.load(folder)
        self.manifest.check(folder)
        self._encode = self._session(Path(folder), "encode", threads)
        self._decide = self._session(Path(folder), "decide", threads)

    def _session(self, folder: Path, part: str, threads: int) -> ort.InferenceSession:
        data = (folder / FILES[part]).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.manifest.hashes[part]:
            raise ManifestError(f"{FILES[part]}: changed while it was being loaded; {_CURE}")
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ORT_ERRORS as error:
            raise EngineError(f"{FILES[part]}: ONNX Runtime cannot load it ({error}); {_CURE}") from error
        expected = json.loads(self.manifest.to_json())["graphs"][part]
        for kind, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            has = {value.name: [_DTYPES.get(value.type, value.type), list(value.shape)] for value in found}
            if has != expected[kind]:
                raise EngineError(f"{FILES[part]}: {kind} are {has}, the manifest says {expected[kind]}; {_CURE}")
        return session

    def encode(self, window: Window, draw: NoiseDraw) -> npt.NDArray[np.int16]:
        with draw as noise:
            z = self.run_core(window.frames, noise)
        low, high = int(z.min()), int(z.max())
        if low < -32768 or high > 32767:
            raise PrivacyError(f"z reaches from {low} to {high}: the graph does not saturate; {_CURE}")
        return z.astype(np.int16).reshape(-1)

    def run_core(self, frames: npt.NDArray[np.uint8], planted: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        z: npt.NDArray[np.int32] = self._run(self._encode, "z", {"frames": frames, "noise": planted})
        return z

    def decide(self, event: EventWindow) -> Mapping[str, float]:
        logits = self._run(self._decide, "logits", {"z": event.z[None], "present": event.present[None]})
        return dict(zip(self.manifest.labels, softmax(logits[0]), strict=True))

    def _run(self, session: ort.InferenceSession, output: str, inputs: Mapping[str, npt.NDArray[Any]]) -> Any:
        try:
            return session.run([output], inputs)[0]
        except _ORT_ERRORS as error:
            raise EngineError(f"{output}: the run failed ({error})") from error

    def close(self) -> None:
        del self._encode, self._decide


def softmax(logits: npt.NDArray[np.float32]) -> list[float]:
    """Probabilities of float (L,), in double precision. Raises EngineError for logits that are not finite."""
    if not np.isfinite(logits).all():
        raise EngineError("decide: the logits are not finite")
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    return [float(weight) for weight in weights / weights.sum()]


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
    planted, far = np.arange(manifest.n, dtype=np.int32).reshape(code) * 7919 % 2001 - 1000, np.int32(1 << 20)
    for name, frames in scenes.items():
        mu = engine.run_core(frames, np.zeros(code, np.int32)).astype(np.int64)
        if int((mu * mu).sum()) > manifest.clip_norm**2:
            raise PrivacyError(f"self-test ({name}): the code is longer than C = {manifest.clip_norm}; {_CURE}")
        if not np.array_equal(engine.run_core(frames, planted) - mu, planted):
            raise PrivacyError(f"self-test ({name}): the noise does not reach the release as it was drawn; {_CURE}")
    for beyond, end in ((np.full(code, far), 32767), (np.full(code, -far), -32768)):
        if not (engine.run_core(frames, beyond) == end).all():
            raise PrivacyError(f"self-test: z does not saturate at {end}; {_CURE}")
