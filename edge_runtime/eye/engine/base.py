"""What every engine is: window + noise -> release, event -> probabilities; and the self-test before the first release.

    encode(frames, noise) -> z        decide(z of 8 releases, which are present) -> label logits

An engine runs the very bytes whose hashes the manifest holds, and is tested before anything is published. The noise of
a release arrives as a NoiseSample and in no other form, and is wiped when the release is made. The runtime's scratch
memory holds the code until the next run overwrites it; this process never computes the code outside `self_test`.

The backends are in `onnx.py` and `tensorrt.py`, the choice between them in `registry.py`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.eye.window import Window
from edge_runtime.gate.sampler import NoiseSample
from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError, PrivacyError
from wire.protocol.event import EventWindow

__all__ = ["REBUILD", "Engine", "self_test"]

REBUILD = "build the engine again: python -m export.build_engine"
"""The cure for an engine folder that is not what its manifest says."""


class Engine(ABC):
    """One open engine folder. A backend runs the two graphs; what is the same for all backends is here.

    Args:
        folder: The engine folder; every file must have the hash that the manifest says.
        manifest: The folder's manifest where it is loaded already.

    Raises:
        ManifestError: A file is missing or is not the one that the manifest names.
    """

    def __init__(self, folder: Path | str, manifest: EngineManifest | None = None) -> None:
        self.manifest = manifest or EngineManifest.load(folder)
        self.manifest.check(folder)

    @abstractmethod
    def run_core(self, frames: npt.NDArray[np.uint8], noise: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Run `encode`: frames (1, T, H, W), noise (1, K, d) -> z (1, K, d). Raises EngineError."""

    @abstractmethod
    def run_decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Run `decide`: z (1, R, K, d), present (1, R) -> logits (1, L). Raises EngineError."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def encode(self, window: Window, sample: NoiseSample) -> npt.NDArray[np.int16]:
        """Make the release of `window` with a noise sample, which is used up and wiped.

        Returns:
            z, int16 (n,).

        Raises:
            EngineError: The graph did not run.
            PrivacyError: z does not fit int16, so the graph is not the proved one.
        """
        with sample as noise:
            z = self.run_core(window.frames, noise.reshape(1, self.manifest.tokens, self.manifest.width))
        if z.min() < -32768 or z.max() > 32767:
            raise PrivacyError(f"z is from {z.min()} to {z.max()}: the graph does not saturate; {REBUILD}")
        return z.astype(np.int16).reshape(-1)

    def decide(self, event: EventWindow) -> Mapping[str, float]:
        """Label -> probability (a softmax of the logits) for the releases of an event. Raises EngineError."""
        logits = self.run_decide(event.z[None], event.present[None])[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise EngineError("decide: the logits are not finite")
        weights = np.exp(logits - logits.max())
        return dict(zip(self.manifest.labels, (weights / weights.sum()).tolist(), strict=True))


def self_test(engine: Engine) -> None:
    """Run the built core on known frames and known noise before the first release.

    For each scene: |mu| <= C, where mu is z at zero noise (which exists only here); z - noise is mu to the last
    integer; and z saturates at both ends of int16.

    Raises:
        PrivacyError: One of these does not hold; the process must stop.
    """
    for name, frames in _scenes(engine.manifest).items():
        mu = _check_scene(engine, name, frames)
    _check_saturation(engine, frames, mu)  # on the last scene


def _scenes(manifest: EngineManifest) -> dict[str, npt.NDArray[np.uint8]]:
    """Name -> frames uint8 (1, T, H, W)."""
    window = manifest.window
    shape = (1, window.frames, window.height, window.width)
    scattered = hashlib.shake_128(b"").digest(math.prod(shape))
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "checkerboard": np.indices(shape, np.uint8).sum(axis=0, dtype=np.uint8) % 2 * np.uint8(255),
        "scatter": np.frombuffer(scattered, np.uint8).reshape(shape),
    }


def _check_scene(engine: Engine, name: str, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Check |mu| <= C and z - noise = mu on one scene; returns mu, int64 (1, K, d)."""
    manifest = engine.manifest
    code = (1, manifest.tokens, manifest.width)
    noise = np.arange(manifest.n, dtype=np.int32).reshape(code) * 7919 % 60001 - 30000
    mu = engine.run_core(frames, np.zeros(code, np.int32)).astype(np.int64)
    if int((mu * mu).sum()) > manifest.clip_norm**2:
        raise PrivacyError(f"self-test ({name}): the code is longer than C = {manifest.clip_norm}; {REBUILD}")
    if not np.array_equal(engine.run_core(frames, noise) - mu, noise):
        raise PrivacyError(f"self-test ({name}): the noise does not reach the release as it was drawn; {REBUILD}")
    return mu


def _check_saturation(engine: Engine, frames: npt.NDArray[np.uint8], mu: npt.NDArray[np.int64]) -> None:
    """Check that z saturates: one step before, at, one step and far beyond each end of int16."""
    for end, step in ((32767, 1), (-32768, -1)):
        for over in (-1, 0, 1, 1 << 20):
            z = engine.run_core(frames, (end - mu + step * over).astype(np.int32))
            if not (z == end + step * min(over, 0)).all():
                raise PrivacyError(f"self-test: z does not saturate at {end}; {REBUILD}")
