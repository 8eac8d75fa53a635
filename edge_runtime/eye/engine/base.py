"""What every engine is: frames (and people) -> code, one frame -> heads; and the self-test before the first slot.

An engine runs the very bytes whose hashes the manifest holds, of the graph `encode`, and of `perceive` where the family
sees people. `decide` is run by `edge_runtime/reader/member.py`. It keeps nothing between runs, and what it says about a
failed run is a fixed sentence with the error's type: a runtime's own text may hold pixels.

The backends are in `onnx.py` and `tensorrt.py`, the choice between them in `registry.py`.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.artifact.manifest import EngineManifest, WindowSpec
from wire.errors import EngineError, PrivacyError
from wire.people.decode import PEOPLE, decode
from wire.people.packed import BOX, SCORE, UNIT, VALUES
from wire.people.tracks import TRACKS, form_tracks

__all__ = ["REBUILD", "Engine", "Values", "self_test"]

REBUILD = "build the engine again: python -m export.build_engine"
"""The cure for an engine folder that is not what its manifest says."""

Values = Mapping[str, npt.NDArray[Any]]
"""Name of an input or output -> its value."""

_INT16 = np.iinfo(np.int16)


class Engine(ABC):
    """One open engine folder. A backend runs the graphs; what is the same for all backends is here.

    `encode` and `perceive` may be called on different threads at the same time.

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
    def _run(self, part: str, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        """Run the graph `part` on inputs that fit; returns its outputs. Raises EngineError, without runtime's text."""

    @abstractmethod
    def close(self) -> None:
        """Release what the engine holds."""

    def run_encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int32]:
        """Run `encode`.

        Args:
            frames: uint8 (1, T, H, W).
            people: Tracks of the people in them, int32 (1, T, TRACKS, VALUES); None where the family sees none.

        Returns:
            mu, int32 (1, K, d).

        Raises:
            EngineError: An input has not the manifest's dtype and shape, or the run failed.
        """
        inputs: Values = {"frames": frames} if people is None else {"frames": frames, "people": people}
        return self._checked_run("encode", inputs)["mu"]

    def encode(
        self, frames: npt.NDArray[np.uint8], people: npt.NDArray[np.int32] | None = None
    ) -> npt.NDArray[np.int16]:
        """Make the code of one window, as `run_encode`.

        Returns:
            mu, int16 (n,).

        Raises:
            EngineError: The graph did not run, or its output is no code.
        """
        mu = self.run_encode(frames, people)
        if mu.min() < _INT16.min or mu.max() > _INT16.max:
            raise EngineError(f"encode: the code does not fit int16; {REBUILD}")
        return mu.astype(np.int16).reshape(-1)

    def perceive(self, frame: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the person network on one frame, uint8 (1, h, w, 3), RGB.

        Returns:
            `wire.people.decode.HEADS` -> float32 (1, C, h / 4, w / 4); not checked: `decode` does that.

        Raises:
            EngineError: The frame has not the manifest's shape, the run failed, or the family sees no people.
        """
        return self._checked_run("perceive", {"frame": frame})

    def _checked_run(self, part: str, inputs: Values) -> dict[str, npt.NDArray[Any]]:
        expected = self.manifest.graphs().get(part, {"inputs": {}})["inputs"]
        for name in {**expected, **inputs}:
            value = inputs.get(name)
            dtype, shape = expected.get(name, ("nothing", ()))
            if value is None or value.dtype != dtype or value.shape != tuple(shape):
                got = "missing" if value is None else f"{value.dtype} {value.shape}"
                raise EngineError(f"{part}: the run failed: {name} is {got}, expected {dtype} {tuple(shape)}")
        return self._run(part, inputs)


def self_test(engine: Engine) -> None:
    """Run the graphs on known inputs before the first slot.

    For each of some scenes, in one order and then in the other: the code fits int16, |mu| <= C, and it is the same
    both times, whatever was seen in between; and so are the person network's heads, which are finite.

    Raises:
        PrivacyError: One of these does not hold; the process must stop.
        EngineError: A graph does not run.
    """
    clip_norm = engine.manifest.clip_norm
    scenes = _scenes(engine.manifest)
    for name, mu in _twice(scenes, lambda scene: {"mu": engine.run_encode(*scene)}, "the code").items():
        code = mu["mu"].astype(np.int64)
        if code.min() < _INT16.min or code.max() > _INT16.max or int((code**2).sum()) > clip_norm**2:
            raise PrivacyError(f"self-test ({name}): the code is longer than C = {clip_norm}; {REBUILD}")
    if engine.manifest.person_frame is not None:
        pictures = _pictures((1, *engine.manifest.person_frame, 3))
        for heads in _twice(pictures, engine.perceive, "what the person network finds").values():
            decode(heads)


def _twice(scenes: dict[str, Any], run: Callable[[Any], Values], what: str) -> dict[str, Values]:
    """What `run` makes of each scene; PrivacyError where it is not the same in the opposite order."""
    first = {name: run(scene) for name, scene in scenes.items()}
    for name in reversed(scenes):
        again = run(scenes[name])
        if not all(np.array_equal(value, again[key], equal_nan=True) for key, value in first[name].items()):
            raise PrivacyError(f"self-test ({name}): {what} depends on what was seen before; {REBUILD}")
    return first


def _scenes(manifest: EngineManifest) -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32] | None]]:
    """Name -> frames uint8 (1, T, H, W), and people int32 (1, T, TRACKS, VALUES) where the family sees them."""
    window = manifest.window
    pictures = _pictures((1, window.frames, window.height, window.width))
    if manifest.person_frame is None:
        return {name: (frames, None) for name, frames in pictures.items()}
    people = _people(window)
    pairs = [*zip(pictures, people, strict=True), *(("black", who) for who in list(people)[1:])]
    return {f"{name}, {who}": (pictures[name], people[who]) for name, who in pairs}


def _pictures(shape: tuple[int, ...]) -> dict[str, npt.NDArray[np.uint8]]:
    """Name -> uint8 of `shape`."""
    scattered = hashlib.shake_128(b"").digest(math.prod(shape))
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "checkerboard": np.indices(shape, np.uint8).sum(axis=0, dtype=np.uint8) % 2 * np.uint8(255),
        "scatter": np.frombuffer(scattered, np.uint8).reshape(shape),
    }


def _people(window: WindowSpec) -> dict[str, npt.NDArray[np.int32]]:
    """Name -> tracks int32 (1, T, TRACKS, VALUES)."""
    crowd = np.zeros((1, window.frames, PEOPLE, VALUES), np.int16)
    for person in range(PEOPLE):
        left = person * UNIT // PEOPLE
        crowd[:, :, person] = UNIT // 2
        crowd[:, :, person, 1 : BOX.start : 3] = left + np.arange(BOX.start // 3) * 20
        crowd[:, :, person, BOX] = (UNIT // 4, left, 3 * UNIT // 4, left + UNIT // 8)
        crowd[:, :, person, SCORE] = UNIT - person
    alone = crowd.copy()
    alone[:, :, 1:] = 0
    extreme = np.where(np.indices(crowd.shape).sum(axis=0) % 2, _INT16.max, _INT16.min).astype(np.int16)
    extreme[..., SCORE] = _INT16.max
    scenes = {"nobody": np.zeros_like(crowd), "one person": alone, "six people": crowd}
    tracks = {name: form_tracks(people) for name, people in scenes.items()} | {"extremes": extreme[:, :, :TRACKS]}
    return {name: people.astype(np.int32) for name, people in tracks.items()}
