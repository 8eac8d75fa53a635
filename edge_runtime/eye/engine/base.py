"""What every engine is: frames -> code, event -> logits; and the self-test before the first slot.

    encode(frames) -> mu        decide(z of 8 releases, which are present) -> label logits

An engine runs the very bytes whose hashes the manifest holds. It opens only the graphs that are asked for: the eye has
`encode`; an engine runs `decide` in measurements, and on a device `edge_runtime/reader/member.py` does. It keeps
nothing between runs, and what it says about a failed run is a fixed sentence with the error's type: a runtime's own
text may hold pixels.

The backends are in `onnx.py` and `tensorrt.py`, the choice between them in `registry.py`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import EngineManifest
from wire.errors import EngineError, PrivacyError

__all__ = ["PARTS", "REBUILD", "Engine", "self_test"]

PARTS = ("encode", "decide")
"""The graphs of an engine folder."""

REBUILD = "build the engine again: python -m export.build_engine"
"""The cure for an engine folder that is not what its manifest says."""

_INT16 = np.iinfo(np.int16)


class Engine(ABC):
    """One open engine folder. A backend runs the graphs; what is the same for all backends is here.

    Args:
        folder: The engine folder; every file must have the hash that the manifest says.
        manifest: The folder's manifest where it is loaded already.
        parts: Which of PARTS are opened; the others cannot be run.

    Raises:
        ManifestError: A file is missing or is not the one that the manifest names.
    """

    def __init__(
        self, folder: Path | str, manifest: EngineManifest | None = None, parts: Sequence[str] = PARTS
    ) -> None:
        self.manifest, self.parts = manifest or EngineManifest.load(folder), tuple(parts)
        self.manifest.check(folder)

    @abstractmethod
    def _run(self, part: str, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Run one open graph on inputs that fit; its one output. Raises EngineError, without the runtime's text."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def run(self, part: str, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Run one graph: name -> value of its inputs -> its one output.

        Raises:
            EngineError: The graph is not open, an input has not the manifest's dtype and shape, or the run failed.
        """
        if part not in self.parts:
            raise EngineError(f"{part}: this engine was opened for {', '.join(self.parts)} alone")
        for name, (dtype, shape) in self.manifest.graphs()[part]["inputs"].items():
            value = inputs[name]
            if value.dtype != dtype or value.shape != tuple(shape):
                got = f"{value.dtype} {value.shape}"
                raise EngineError(f"{part}: the run failed: {name} is {got}, expected {dtype} {tuple(shape)}")
        return self._run(part, inputs)

    def run_encode(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Run `encode`: frames (1, T, H, W) -> mu (1, K, d). Raises EngineError."""
        return self.run("encode", {"frames": frames})

    def run_decide(self, z: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Run `decide`: z (1, R, K, d), present (1, R) -> logits (1, L). Raises EngineError."""
        return self.run("decide", {"z": z, "present": present})

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
    """Run the graphs that are open on known input before the first slot.

    For each of some scenes, in one order and then in the other: the code fits int16, |mu| <= C, and it is the same
    both times, whatever was seen in between. An event's logits are the same both times, too.

    Raises:
        PrivacyError: One of these does not hold; the process must stop.
        EngineError: A graph does not run.
    """
    if "encode" in engine.parts:
        _test_encode(engine)
    if "decide" in engine.parts:
        _test_decide(engine)


def _test_encode(engine: Engine) -> None:
    scenes, clip_norm = _scenes(engine.manifest), engine.manifest.clip_norm
    first = {name: engine.run_encode(frames) for name, frames in scenes.items()}
    for name, mu in first.items():
        if mu.min() < _INT16.min or mu.max() > _INT16.max or int((mu.astype(np.int64) ** 2).sum()) > clip_norm**2:
            raise PrivacyError(f"self-test ({name}): the code is longer than C = {clip_norm}; {REBUILD}")
    for name in reversed(scenes):
        if not np.array_equal(engine.run_encode(scenes[name]), first[name]):
            raise PrivacyError(f"self-test ({name}): the code depends on what was seen before; {REBUILD}")


def _test_decide(engine: Engine) -> None:
    manifest = engine.manifest
    shape = (1, manifest.event_releases, manifest.tokens, manifest.width)
    z = np.arange(math.prod(shape), dtype=np.int32).reshape(shape) * 7919 % 601 - 300
    present = np.ones(shape[:2], np.bool_)
    first = engine.run_decide(z, present)
    engine.run_decide(np.zeros_like(z), ~present)
    if not np.array_equal(engine.run_decide(z, present), first):
        raise PrivacyError(f"self-test: the logits depend on what was read before; {REBUILD}")


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
