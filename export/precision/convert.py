"""An fp32 graph -> the same computation in another precision, typed so that no builder has to choose. No torch.

    fp32 graph --fp16: casts and halved weights (half.py)-------------------> typed graph
    fp32 graph --int8: Q/DQ, ranges of calibration.json (quantise.py)-------> graph with explicit quantisation

Both leave alone what is sensitive (how pixels are prepared, sums, norms, softmax) and the trusted core with the
arithmetic that leads into it. Inputs and outputs keep their types. The result is proved and linted like any graph.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.precision.half import FP16_MAX, half_tensors, to_fp16
from export.precision.network import structure
from export.precision.quantise import Ranges, to_int8
from wire.errors import CheckpointError, GraphError

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["CALIBRATION", "MARGIN", "Calibration", "calibration_hash", "check_peaks", "in_precision"]

CALIBRATION = "calibration.json"
"""File of a checkpoint that `python -m calibration.int8` writes."""

MARGIN = 4.0
"""fp16 is refused where a measured magnitude comes nearer to 65504 than this factor."""

_PARTS = ("encode", "decide")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """calibration.json: the ranges of both graphs of one checkpoint. Raises CheckpointError, naming the cure."""

    checkpoint: str
    parts: Mapping[str, Ranges]

    @classmethod
    def load(cls, folder: Path | str, checkpoint: str) -> Calibration:
        """Read the file of a checkpoint folder whose weights have the hash `checkpoint`."""
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
        for part, ranges in parts.items():
            for kind, table in (("ranges", ranges.ranges), ("peaks", ranges.peaks)):
                bad = sorted(name for name, value in table.items() if not 0.0 <= value < math.inf)
                if bad:
                    raise CheckpointError(f"{file}: {part}.{kind}: {bad[0]!r} is {table[bad[0]]}; {cure}")
        return cls(owner, parts)


def _ranges(found: Mapping[str, Any]) -> Ranges:
    tables = ({str(name): float(value) for name, value in found[kind].items()} for kind in ("ranges", "peaks"))
    ranges, peaks = tables
    return Ranges(str(found["structure"]), ranges, tuple(str(name) for name in found["int8"]), peaks)


def calibration_hash(folder: Path | str, precision: str) -> str:
    """What a manifest pins as `calibration`: sha256 of calibration.json, "" where the precision does not read one.

    int8 needs the file; fp16 reads its peaks where there is one. Raises CheckpointError, naming the cure.
    """
    file = Path(folder) / CALIBRATION
    if precision == "fp32" or (precision == "fp16" and not file.is_file()):
        return ""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        cure = f"run: python -m calibration.int8 --checkpoint {folder}"
        raise CheckpointError(f"{file}: {error.strerror}, and precision int8 needs its ranges; {cure}") from error


def in_precision(
    part: str, model: ModelProto, precision: str, calibration: Calibration | None = None, folder: str = ""
) -> ModelProto:
    """`part` ("encode" or "decide") as fp32 graph -> the graph to prove, lint and build. `model` is left as it is.

    calibration: needed for int8; for fp16 its peaks are held against the range, where given. folder: where weights
    that are not in the fp32 graph lie; those of int8 are. Raises GraphError.
    """
    if precision == "fp32":
        return model
    ranges = calibration.parts[part] if calibration is not None else None
    if precision == "fp16":
        made = to_fp16(model, folder)
        if ranges is not None and ranges.structure == structure(model):
            check_peaks(made, ranges.peaks)
        return made
    if precision != "int8" or ranges is None:
        raise GraphError(f"{part}: precision {precision!r} is fp32, fp16, or int8 with a calibration")
    return to_int8(model, ranges)


def check_peaks(model: ModelProto, peaks: Mapping[str, float]) -> None:
    """GraphError where a tensor that the typed fp16 graph stores as float16 came near to what that holds."""
    limit = FP16_MAX / MARGIN
    halves = half_tensors(model)
    large = {name: peak for name, peak in peaks.items() if name in halves and not peak <= limit}
    if large:
        worst = max(large, key=lambda name: (large[name] != large[name], large[name]))
        raise GraphError(
            f"{model.graph.name}: fp16 holds up to {FP16_MAX:g}; {len(large)} tensors come nearer to that than a "
            f"factor of {MARGIN:g}, most of all {worst!r} with {large[worst]:g}; build with --precision fp32 or int8"
        )
