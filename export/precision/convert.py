"""An fp32 graph -> the same computation in another precision. No torch.

    fp32 graph --fp16: casts and float16 weights (half.py)------------------> graph with a type at every tensor
    fp32 graph --int8: Q/DQ, ranges of calibration.json (quantise.py)-------> graph with explicit quantisation

Every type is written in the graph, so no builder has to choose one. Both keep what is sensitive (preparation of the
pixels, sums, norms, softmax) and the integer core with the arithmetic before it in float32. Inputs and outputs keep
their types. The result is proved and checked like any graph. A new precision is a row of PRECISIONS.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.precision.half import FP16_MAX, half_tensors, to_fp16
from export.precision.network import structure
from export.precision.quantise import Ranges, to_int8
from wire.errors import CheckpointError, ConfigError, GraphError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = [
    "CALIBRATION",
    "MARGIN",
    "PRECISIONS",
    "Calibration",
    "Precision",
    "calibration_hash",
    "check_peaks",
    "check_precision",
    "in_precision",
]

CALIBRATION = "calibration.json"
"""The file of a checkpoint folder that `python -m calibration.int8` writes."""

MARGIN = 4.0
"""fp16 is refused where a measured magnitude, times this factor, is above 65504."""

_PARTS = ("encode", "decide")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """calibration.json: the quantisation ranges of both graphs of one checkpoint.

    Attributes:
        checkpoint: sha256 of the checkpoint that they were measured on, hex.
        parts: "encode" and "decide" -> ranges.
    """

    checkpoint: str
    parts: Mapping[str, Ranges]

    @classmethod
    def load(cls, folder: Path | str, checkpoint: str) -> Calibration:
        """Read the file of a checkpoint folder whose hash is `checkpoint`.

        Raises:
            CheckpointError: There is no file, it is damaged, or it belongs to another checkpoint.
        """
        file = Path(folder) / CALIBRATION
        cure = f"run: python -m calibration.int8 --checkpoint {folder}"
        try:
            found = json.loads(file.read_text())
            parts = {part: _ranges(found[part]) for part in _PARTS}
            version, owner = found["version"], found["checkpoint"]
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror}; {cure}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{file}: unreadable ({error!r}); {cure}") from error
        if version != _VERSION:
            raise CheckpointError(f"{file}: version is {version!r}, this program reads {_VERSION}; {cure}")
        if owner != checkpoint:
            raise CheckpointError(f"{file}: made for checkpoint {str(owner)[:12]}, this is {checkpoint[:12]}; {cure}")
        tables = {f"{part}.ranges": ranges.ranges for part, ranges in parts.items()}
        tables |= {f"{part}.peaks": ranges.peaks for part, ranges in parts.items()}
        for place, table in tables.items():
            bad = sorted(name for name, value in table.items() if not 0.0 <= value < math.inf)
            if bad:
                raise CheckpointError(f"{file}: {place}: {bad[0]!r} is {table[bad[0]]}; {cure}")
        return cls(owner, parts)


def _ranges(found: Mapping[str, Any]) -> Ranges:
    tables = ({str(name): float(value) for name, value in found[kind].items()} for kind in ("ranges", "peaks"))
    ranges, peaks = tables
    return Ranges(str(found["structure"]), ranges, tuple(str(name) for name in found["int8"]), peaks)


def calibration_hash(folder: Path | str, precision: str) -> str:
    """Return what a manifest pins as `calibration`: sha256 of calibration.json, "" where the precision needs none.

    Raises:
        CheckpointError: The precision needs the file and there is none.
    """
    file, reads = Path(folder) / CALIBRATION, PRECISIONS[precision].calibration
    if reads == "unused" or (reads == "optional" and not file.is_file()):
        return ""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        cure = f"run: python -m calibration.int8 --checkpoint {folder}"
        raise CheckpointError(
            f"{file}: {error.strerror}, and precision {precision} needs its ranges; {cure}"
        ) from error


def _as_traced(model: ModelProto, ranges: Ranges | None, folder: str) -> ModelProto:
    return model


def _halved(model: ModelProto, ranges: Ranges | None, folder: str) -> ModelProto:
    """fp16; peaks that were measured on this very graph are checked against float16's range."""
    made = to_fp16(model, folder)
    if ranges is not None and ranges.structure == structure(model):
        check_peaks(made, ranges.peaks)
    return made


def _quantised(model: ModelProto, ranges: Ranges | None, folder: str) -> ModelProto:
    if ranges is None:
        raise GraphError(f"{model.graph.name}: precision 'int8' needs a calibration: python -m calibration.int8")
    return to_int8(model, ranges)


@dataclass(frozen=True, slots=True)
class Precision:
    """One precision that engines are built in.

    Attributes:
        convert: (fp32 graph, ranges where there are any, folder of weights that lie outside it) -> graph to ship.
        calibration: "unused", "optional" or "needed": whether calibration.json is read.
        traced_weights: Where the large weights of the traced graph go: to the "engine" folder, "aside" to a folder
            that is deleted after the build, or into the "graph", which must be small enough then.
        disk_bytes: For each weight, what lies on the disk while the engine is built, at most.
        perceive: The precision of the person network beside it.
    """

    convert: Callable[[ModelProto, Ranges | None, str], ModelProto]
    calibration: str
    traced_weights: str
    disk_bytes: int
    perceive: str


PRECISIONS: Mapping[str, Precision] = {
    "fp32": Precision(_as_traced, "unused", "engine", 4, "fp32"),
    "fp16": Precision(_halved, "optional", "aside", 4 + 2, "fp16"),
    # In int8 the person network is no faster, and its key points move by pixels (docs/perception.md).
    "int8": Precision(_quantised, "needed", "graph", 4, "fp32"),
}


def check_precision(name: str) -> None:
    """Raise ConfigError, which lists the precisions, unless `name` is one of them."""
    if name not in PRECISIONS:
        raise ConfigError(f"--precision {name} is not known; available: {', '.join(PRECISIONS)}")


def in_precision(
    part: str, model: ModelProto, precision: str, calibration: Calibration | None = None, folder: str = ""
) -> ModelProto:
    """Convert a traced fp32 graph, which is not changed, to the graph that is proved and shipped.

    Args:
        part: "encode", "decide" or "perceive".
        model: The fp32 graph.
        precision: A name of PRECISIONS.
        calibration: Needed for int8; for fp16 its peaks, where given, are checked against float16's range.
        folder: Where weights lie that are not in the fp32 graph.

    Raises:
        GraphError: The graph cannot be made: ranges of another graph, a weight or a peak beyond float16's range.
    """
    if precision not in PRECISIONS:
        raise GraphError(f"{part}: precision {precision!r} is not known; available: {', '.join(PRECISIONS)}")
    chosen = PRECISIONS[PRECISIONS[precision].perceive if part == "perceive" else precision]
    ranges = calibration.parts.get(part) if calibration is not None else None
    return chosen.convert(model, ranges, folder)


def check_peaks(model: ModelProto, peaks: Mapping[str, float]) -> None:
    """Check measured magnitudes against float16's range.

    Args:
        model: The typed fp16 graph.
        peaks: Tensor -> largest magnitude seen in the fp32 graph.

    Raises:
        GraphError: A tensor that `model` stores as float16 comes within MARGIN of the range's end, or was NaN.
    """
    limit = FP16_MAX / MARGIN
    halves = half_tensors(model)
    large = {name: peak for name, peak in peaks.items() if name in halves and not peak <= limit}
    if large:
        worst = max(large, key=lambda name: (large[name] != large[name], large[name]))
        raise GraphError(
            f"{model.graph.name}: fp16 holds up to {FP16_MAX:g}; {len(large)} tensors come nearer to that than a "
            f"factor of {MARGIN:g}, most of all {worst!r} with {large[worst]:g}; build with --precision fp32 or int8"
        )
