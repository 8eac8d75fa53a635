"""`python -m benchmarks.engines`: time, size, memory and accuracy of each backend and precision of an engine.

    checkpoint --export.build_engine, per precision--> engine folders --> time, size, memory, latency
    clips --encode of each engine--> codes --+ the SAME noise samples--> both members' verdicts --> accuracy
    certificate: of each engine's own manifest           tensorrt: where a GPU is here    tensorrt-rtx: time and size

Latency is measured in turns, one window through each engine, so that a busy machine slows all engines alike. The ratio
is the median of INT8's encode over that of fp32. ONNX Runtime's CPU has no arithmetic in float16: it computes such
graphs in float32 between casts, so the latency of fp16 there says nothing about a device.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.broker import ROOT, child_env
from benchmarks.device.engine_accuracy import EDGE_SAMPLES, EngineRow, WindowedClip, compare, read_windows
from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report, percentiles
from wire.arguments import former_name
from wire.artifact.interface import GRAPHS
from wire.errors import ConfigError, EngineError
from wire.privacy.certificate import round_up

if TYPE_CHECKING:
    from export.inputs import Inputs

__all__ = ["COMMAND"]

_PRECISIONS = ("fp32", "fp16", "int8")
_PARTS = ("encode", "decide")
_RENDERED = 24  # of them, where no clips are given
_TARGET = "8.6"  # compute capability that TensorRT-RTX builds for: no such GPU has to be here
_MEMORY = """
import sys
import numpy as np
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.reader.member import EdgeMember
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
before = resident()
engine = OnnxEngine(sys.argv[1])
m = engine.manifest
member = EdgeMember(sys.argv[1], m)
graphs = m.graphs()
feeds = {
    part: {name: np.zeros(shape, dtype) for name, (dtype, shape) in graph["inputs"].items()}
    for part, graph in graphs.items()
}
for _ in range(5):
    engine.run_encode(**feeds["encode"])
    if "perceive" in graphs:
        engine.perceive(**feeds["perceive"])
    member.logits(np.zeros((1, m.event_releases, m.tokens, m.width), np.int32),
                  np.ones((1, m.event_releases), np.bool_))
print(resident() - before)
"""


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="clips for accuracy")
    parser.add_argument(
        "--rendered",
        type=int,
        metavar="N",
        help=f"rendered clips for accuracy (default: {_RENDERED} without --data; 0: none)",
    )
    count = parser.add_argument(
        "--noise-samples", type=int, default=200, metavar="N", help="noise samples a clip, for the cloud member"
    )
    former_name(parser, "--draws", count)
    parser.add_argument("--windows", type=int, default=400, help="windows to time")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "engines", metavar="DIR", help="where to build")


def _check(args: argparse.Namespace) -> None:
    """Fill in the default of --rendered. Raises ConfigError for numbers that measure nothing."""
    for name in ("windows", "noise_samples"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}; give at least 1")
    if args.rendered is None:
        args.rendered = 0 if args.data else _RENDERED
    if args.rendered < 0:
        raise ConfigError(f"--rendered is {args.rendered}; give how many clips to render, 0 for none")


def _measure(args: argparse.Namespace) -> Report:
    from export.inputs import Inputs

    _check(args)
    wanted = [Inputs.read(args.checkpoint, precision, "onnxruntime") for precision in _PRECISIONS]
    on_cpu = [_build(args.checkpoint, args.out, inputs) for inputs in wanted]
    on_device, why_not = _on_device(on_cpu)
    for row in on_cpu:
        row.found["memory_mb"] = _memory(row.folder)
        row.found["bytes"] = sum((row.folder / GRAPHS[part]).stat().st_size for part in row.engine.manifest.graphs())
    rows = on_cpu + on_device
    for row in rows:
        manifest = row.engine.manifest
        event = manifest.certificate().reveals(manifest.event_releases)
        row.found |= {"build_s": round(row.build_s, 2), "S_event": event["S"], "bits_event": event["bits"]}
    _time(rows, args.windows)
    clips = read_windows(args.checkpoint, args.data, args.rendered)
    if clips:
        compare(rows, args.checkpoint, clips, args.noise_samples)
    ahead = {f"tensorrt-rtx {row.precision}": _ahead_of_time(row) for row in on_cpu}
    fp32, _, int8 = (row.found["encode_ms"]["p50"] for row in on_cpu)
    figures: dict[str, Any] = {
        "onnxruntime": {row.precision: row.found for row in on_cpu},
        "tensorrt": {row.precision: row.found for row in on_device} or {"state": why_not},
        **ahead,
        "windows": args.windows,
        "clips": len(clips),
        "noise_samples": args.noise_samples,
    }
    notes = _notes(rows, next(iter(ahead.values())), why_not, clips, args.noise_samples)
    return Report(int8 / fp32, figures, _table(rows, ahead), notes, page_rows=_page_table(rows))


def _build(checkpoint: Path, out: Path, wanted: Inputs) -> EngineRow:
    """A new engine folder; its own progress goes to stderr, since stdout is for the table."""
    from contextlib import redirect_stdout

    from edge_runtime.eye.engine.onnx import OnnxEngine
    from edge_runtime.reader.member import EdgeMember
    from export.build_engine import build

    folder = out / f"{checkpoint.resolve().name}-{wanted.precision}"
    began = time.monotonic()
    with redirect_stdout(sys.stderr):
        build(checkpoint, folder, wanted)
    took, engine = time.monotonic() - began, OnnxEngine(folder)
    return EngineRow(wanted.precision, folder, took, engine, EdgeMember(folder, engine.manifest))


def _on_device(rows: Sequence[EngineRow]) -> tuple[list[EngineRow], str]:
    """The same folders on this machine's GPU, built and opened as a device does; or none, and why in words."""
    from edge_runtime.eye.engine.tensorrt import Gpu, TensorRtEngine, device_facts, load_libraries
    from export.backends.builder import Options, make
    from wire.artifact.engine_record import ENGINES, engine_key, engine_parts

    try:
        libraries = load_libraries()
    except EngineError as error:
        return [], str(error)
    gpu = Gpu(libraries.cuda)
    facts = device_facts(libraries.trt, gpu)
    gpu.close()
    made = []
    for row in rows:
        manifest, cache = row.engine.manifest, row.folder.with_name(f"{row.folder.name}-tensorrt")
        began = time.monotonic()
        key = engine_key(manifest, "tensorrt", facts)
        make(libraries.trt, row.folder, manifest, cache, key, Options(), _ignore)
        took = time.monotonic() - began
        engine = TensorRtEngine(row.folder, manifest, cache, libraries=libraries)
        made.append(EngineRow(row.precision, row.folder, took, engine, row.member, "tensorrt"))
        made[-1].found["bytes"] = sum((cache / ENGINES[part]).stat().st_size for part in engine_parts(manifest))
    return made, ""


def _memory(folder: Path) -> float:
    """MB that a process of its own grows by when it opens the engine and runs both graphs."""
    command = [sys.executable, "-c", _MEMORY, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=child_env(), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise EngineError(f"{folder}: the engine does not run in a process of its own: {done.stderr.strip()[-400:]}")
    return round(int(done.stdout) / 1024, 1)


def _time(rows: Sequence[EngineRow], count: int) -> None:
    """Latencies in ms: each window goes through every engine before the next one."""
    from export.made_people import made_frames, made_people
    from export.parity import made_windows

    manifest = rows[0].engine.manifest
    windows = made_windows(manifest.window, 32)
    people = made_people(manifest.window, 32) if manifest.person_frame is not None else None
    pictures = made_frames(*manifest.person_frame, 8) if manifest.person_frame is not None else None
    event = (1, manifest.event_releases, manifest.tokens, manifest.width)
    rng = np.random.default_rng(0)
    z = np.round(rng.normal(size=event) * float(manifest.sigma)).astype(np.int32)
    present = np.ones(event[:2], np.bool_)
    for number in range(-5, count):  # the first few warm up
        for row in [*rows[number % len(rows) :], *rows[: number % len(rows)]]:
            times = [time.perf_counter()]
            place = number % len(windows)
            row.engine.run_encode(windows[place][None], None if people is None else people[place][None])
            times.append(time.perf_counter())
            row.member.logits(z, present)
            times.append(time.perf_counter())
            for part, begin, end in zip(_PARTS, times, times[1:], strict=False):
                row.latency[part] += [1000 * (end - begin)] * (number >= 0)
            if pictures is not None:
                row.engine.perceive(pictures[number % len(pictures)][None])
                row.latency.setdefault("perceive", []).extend([1000 * (time.perf_counter() - end)] * (number >= 0))
    for row in rows:
        row.found |= {f"{part}_ms": percentiles(times) for part, times in row.latency.items()}


def _ahead_of_time(row: EngineRow) -> dict[str, Any]:
    """Time and size of what TensorRT-RTX makes of the engine's graphs for one GPU, where it is installed."""
    from export.backends.builder import Options, build_engine_file, load_rtx

    try:
        trt = load_rtx()
    except EngineError as error:
        return {"state": str(error)}
    began = time.monotonic()
    options = Options(targets=(_TARGET,))
    graphs = [row.folder / GRAPHS[part] for part in row.engine.manifest.graphs()]
    files = [build_engine_file(trt, graph, options, _ignore)[0] for graph in graphs]
    return {"target": _TARGET, "build_s": round(time.monotonic() - began, 2), "bytes": sum(map(len, files))}


def _ignore(text: str) -> None:
    """Where the builder's progress goes."""


def _table(rows: Sequence[EngineRow], ahead: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    head = ["engine", "build s", "kB", "encode p50", "p99", "decide p50", "p99", "MB"]
    head += ["edge acc", "lost, points", "cloud acc", "lost, points", "mu p99", "zero", "S event", "bits"]
    lines = [head]
    for row in rows:
        found = row.found
        encode, decide = found["encode_ms"], found["decide_ms"]
        cells = [row.name, f"{found['build_s']:.1f}", f"{found['bytes'] / 1000:,.0f}"]
        cells += [f"{value:.3f}" for part in (encode, decide) for value in (part["p50"], part["p99"])]
        cells.append(f"{found['memory_mb']:.1f}" if "memory_mb" in found else "-")
        if "accuracy_cloud" in found:
            for member in ("edge", "cloud"):
                lost = f"{found[f'points_lost_{member}']:+.2f} +-{found[f'points_lost_{member}_se']:.2f}"
                cells += [f"{found[f'accuracy_{member}']:.3f}", lost]
            cells += [f"{found['mu_p99']:g}", str(found["zero_codes"])]
        else:
            cells += ["-"] * 6
        lines.append([*cells, round_up(found["S_event"], 4), round_up(found["bits_event"])])
    for name, made in ahead.items():
        if "build_s" in made:
            cells = [name, f"{made['build_s']:.1f}", f"{made['bytes'] / 1000:,.0f}"]
            lines.append(cells + ["-"] * (len(head) - len(cells)))
    return lines


def _page_table(rows: Sequence[EngineRow]) -> list[list[str]]:
    """The columns that fit a page."""
    lines = [["engine", "kB", "encode p50", "decide p50", "MB", "edge acc", "lost", "cloud acc", "lost"]]
    for row in rows:
        found = row.found
        cells = [row.name, f"{found['bytes'] / 1000:,.0f}", f"{found['encode_ms']['p50']:.2f}"]
        cells += [f"{found['decide_ms']['p50']:.2f}", f"{found.get('memory_mb', 0):.1f}"]
        for name in ("accuracy_edge", "points_lost_edge", "accuracy_cloud", "points_lost_cloud"):
            cells.append(f"{found[name]:.3f}" if name in found else "-")
        lines.append(cells)
    return lines


def _notes(
    rows: Sequence[EngineRow],
    ahead: Mapping[str, Any],
    why_no_device: str,
    clips: Sequence[WindowedClip],
    samples: int,
) -> list[str]:
    notes = ["times in ms, one thread; fp16 on ONNX Runtime's CPU is computed in float32 between casts"]
    if "perceive_ms" in rows[0].found:
        spent = ", ".join(f"{row.name} {row.found['perceive_ms']['p50']:.1f}" for row in rows)
        notes.append(f"perceive, one frame, p50: {spent}")
    if why_no_device:
        notes.append(f"tensorrt: not measured: {why_no_device.split(';')[0]}")
    built = f"built for compute capability {_TARGET}, not run" if "build_s" in ahead else ahead["state"]
    notes.append(f"tensorrt-rtx: {built}")
    if clips:
        sets = sorted({clip.set for clip in clips})
        notes.append(
            f"accuracy over {len(clips)} clips of {', '.join(sets)}, {samples} noise samples "
            f"(edge: {min(samples, EDGE_SAMPLES)}), the same for every engine; "
            "lost: fp32 less this, with its standard error over clips"
        )
    return notes


COMMAND = Benchmark(
    "engines", __doc__, "encode of the fp32 engine on ONNX Runtime, medians, windows in turns", _options, _measure
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
