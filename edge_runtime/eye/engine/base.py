"""What every engine is: frames -> code; and the self-test before the first slot.

An engine runs the very bytes whose hashes the manifest holds, of the graph `encode` alone: `decide` is run by
`edge_runtime/reader/member.py`. It keeps nothing between runs, and what it says about a failed run is a fixed sentence
with the error's type: a runtime's own text may hold pixels.

The backends are in `onnx.py` and `tensorrt.py`, the choice between them in `registry.py`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError, PrivacyError

__all__ = ["REBUILD", "Engine", "self_test"]

REBUILD = "build the engine again: python -m export.build_engine"
"""The cure for an engine folder that is not what its manifest says."""

_INT16 = np.iinfo(np.int16)


class Engine(ABC):
    """One open engine folder. A backend runs the graphs; what is the same for all backends is here.

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
    def _run(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Run the graph on frames that fit. Raises EngineError, without the runtime's text."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def run_encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Run `encode`: frames (1, T, H, W) -> mu (1, K, d).

        Raises:
            EngineError: The frames have not the manifest's dtype and shape, or the run failed.
        """
        dtype, shape = self.manifest.graphs()["encode"]["inputs"]["frames"]
        if frames.dtype != dtype or frames.shape != tuple(shape):
            got = f"{frames.dtype} {frames.shape}"
            raise EngineError(f"encode: the run failed: frames is {got}, expected {dtype} {tuple(shape)}")
        return self._run(frames)

    def encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        """Make the code of one window, frames uint8 (1, T, H, W).

        Returns:
            mu, int16 (n,).

        Raises:
            EngineError: The graph did not run, or its output is no code.
        """
        mu = self.run_encode(frames)
        if mu.min() < _INT16.min or mu.max() > _INT16.max:
            raise EngineError(f"encode: the code does not fit int16; {REBUILD}")
        return mu.astype(np.int16).reshape(-1)


def self_test(engine: Engine) -> None:
    """Run `encode` on known frames before the first slot.

    For each of some scenes, in one order and then in the other: the code fits int16, |mu| <= C, and it is the same
    both times, whatever was seen in between.

    Raises:
        PrivacyError: One of these does not hold; the process must stop.
        EngineError: The graph does not run.
    """
    scenes, clip_norm = _scenes(engine.manifest), engine.manifest.clip_norm
    first = {name: engine.run_encode(frames) for name, frames in scenes.items()}
    for name, mu in first.items():
        if mu.min() < _INT16.min or mu.max() > _INT16.max or int((mu.astype(np.int64) ** 2).sum()) > clip_norm**2:
            raise PrivacyError(f"self-test ({name}): the code is longer than C = {clip_norm}; {REBUILD}")
    for name in reversed(scenes):
        if not np.array_equal(engine.run_encode(scenes[name]), first[name]):
            raise PrivacyError(f"self-test ({name}): the code depends on what was seen before; {REBUILD}")


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
