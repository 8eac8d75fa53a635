"""The person network's part of a build: its graph from the pinned weights, and the check that an engine computes it.

    pinned weights --convert--> perceive, fp32 --precision--> perceive.onnx --backend--> heads, compared with fp32's

int8 leaves it in float32: there it is no faster and moves key points by pixels (docs/perception.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from export.made_people import made_frames
from export.perceive.convert import convert
from export.perceive.weights import FOLDER, read_weights
from export.precision.convert import check_peaks
from export.precision.half import half_tensors, rounded
from export.precision.network import measure, open_session
from wire.errors import EngineError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["HEADS_APART", "Perceives", "compare_heads", "compare_half_heads", "person_graph"]

HEADS_APART: Mapping[str, float] = {"fp32": 1e-3, "fp16": 0.05, "int8": 1e-3}
"""Precision of an engine -> how far a head may be from float32's, at p99, as a share of its own magnitude at p99."""

_FRAMES = 12
_Heads = Mapping[str, npt.NDArray[np.float32]]


class Perceives(Protocol):
    """What runs the graph: a `Runner`."""

    def perceive(self, frame: npt.NDArray[np.uint8]) -> _Heads:
        """frame uint8 (1, H, W, 3) -> heads by name."""


def person_graph(size: tuple[int, int], weights: Path = FOLDER) -> ModelProto:
    """The fp32 graph for frames of `size`, height and width, in pixels.

    Raises:
        CheckpointError: The weights are missing, or are others than the pinned ones; names the cure.
        ConfigError: A side is no multiple of 32.
    """
    return convert(read_weights(weights), *size)


def compare_heads(runner: Perceives, exact: ModelProto, precision: str) -> dict[str, Any]:
    """Compare an engine's heads with those of the fp32 graph, on made frames.

    Args:
        runner: The engine.
        exact: The fp32 graph.
        precision: Which row of HEADS_APART applies.

    Returns:
        The report, for parity.json.

    Raises:
        EngineError: A head is further away than that, or not finite.
    """
    frames, ours, spent = _frames(exact), list[_Heads](), list[float]()
    for frame in frames:
        began = time.perf_counter()
        ours.append(runner.perceive(frame))
        spent.append(1000 * (time.perf_counter() - began))
    found = _compared(ours, _heads(exact, frames), HEADS_APART[precision])
    return {"milliseconds_p50": round(float(np.median(spent)), 2), **found}


def compare_half_heads(exact: ModelProto, typed: ModelProto) -> dict[str, Any]:
    """Do as `compare_heads` for the fp16 graph with every tensor rounded to float16 where it is stored.

    Raises:
        GraphError: A magnitude comes near the end of float16's range.
        EngineError: A head is too far away.
    """
    frames, halves = _frames(exact), half_tensors(typed)
    peaks = measure(exact, [{"frame": frame} for frame in frames])
    check_peaks(typed, peaks)
    peak = max((value for name, value in peaks.items() if name in halves), default=0.0)
    found = _compared(_heads(rounded(typed), frames, True), _heads(exact, frames), HEADS_APART["fp16"])
    return {"peak": peak, **found}


def _frames(model: ModelProto) -> list[npt.NDArray[np.uint8]]:
    _, height, width, _ = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    return [frame[None] for frame in made_frames(height, width, _FRAMES)]


def _heads(model: ModelProto, frames: list[npt.NDArray[np.uint8]], exactly: bool = False) -> list[_Heads]:
    run, names = open_session(model, exact=exactly), [value.name for value in model.graph.output]
    return [dict(zip(names, run({"frame": frame}), strict=True)) for frame in frames]


def _compared(ours: list[_Heads], exact: list[_Heads], limit: float) -> dict[str, Any]:
    apart = {}
    for name in exact[0]:
        wanted, found = (np.stack([heads[name] for heads in each]) for each in (exact, ours))
        unit = max(float(np.percentile(np.abs(wanted), 99)), 1e-6)
        apart[name] = float(np.percentile(np.abs(found - wanted), 99)) / unit if np.isfinite(found).all() else np.inf
    worst = max(apart, key=lambda name: apart[name])
    if not apart[worst] <= limit:
        raise EngineError(
            f"perceive: head {worst!r} is {apart[worst]:.3g} of its magnitude away from float32's at p99 (at most "
            f"{limit:g}); do not ship it, and report the backend's version, or build with --precision fp32"
        )
    return {"frames": len(ours), "apart_p99": {name: float(f"{share:.3g}") for name, share in apart.items()}}
