"""`python -m benchmarks.engines`: one table of what each backend and precision of an engine costs and loses.

    checkpoint --export.build_engine, per precision--> engine folders --> time, size, memory, latency
    clips --encode of each engine, noise 0--> codes --+ the SAME noise draws--> both members' verdicts --> accuracy
    certificate: of each engine's own manifest           tensorrt: where a GPU is here    tensorrt-rtx: time and size

Latency is taken in turns, one window through each engine, so that a busy machine slows all alike. The ratio is INT8's
encode over fp32's, medians of that. ONNX Runtime's CPU has no arithmetic in float16: it computes such graphs in float32
between casts, so fp16's latency there says nothing about a device. Zero noise exists here, offline, to compare codes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from benchmarks.broker import ROOT, child_env
from benchmarks.harness import CHECKPOINT, fail, percentiles, report
from wire.artifact.manifest import FILES
from wire.errors import ConfigError, EngineError, VeilsightError
from wire.privacy.certificate import round_up

if TYPE_CHECKING:
    from torch import Tensor

    from edge_runtime.eye.engine.base import Engine
    from export.inputs import Inputs
    from familial.model.family import Family

__all__ = ["main"]

_PRECISIONS = ("fp32", "fp16", "int8")
_PARTS = ("encode", "decide")
_RENDERED = 24  # of them, where no clips are given
_EDGE_DRAWS = 20  # the edge member runs in the engine itself, one event at a time
_TARGET = "8.6"  # compute capability that TensorRT-RTX builds for: no such GPU has to be here
_MEMORY = """
import sys
import numpy as np
from edge_runtime.eye.engine.onnx import OnnxEngine
def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])
before = resident()
engine = OnnxEngine(sys.argv[1])
m = engine.manifest
frames = np.zeros((1, m.window.frames, m.window.height, m.window.width), np.uint8)
for _ in range(5):
    engine.run_core(frames, np.zeros((1, m.tokens, m.width), np.int32))
    engine.run_decide(np.zeros((1, m.event_releases, m.tokens, m.width), np.int32),
                      np.ones((1, m.event_releases), np.bool_))
print(resident() - before)
"""


@dataclass(slots=True)
class _Row:
    """One engine, and what was found out about it."""

    precision: str
    folder: Path
    build_s: float
    engine: Engine
    backend: str = "onnxruntime"
    latency: dict[str, list[float]] = field(default_factory=lambda: {"encode": [], "decide": []})
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the table names it."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True, slots=True)
class _Footage:
    """A clip as windows uint8 (S, F, H, W), its label's index and its set."""

    windows: npt.NDArray[np.uint8]
    label: int
    set: str


class _Members:
    """Both members under the names that `familial.evaluate` asks for: the edge's runs in an engine."""

    def __init__(self, family: Family, engine: Engine) -> None:
        self.config, self.cloud_logits, self._engine = family.config, family.cloud_logits, engine

    def edge_logits(self, z: Tensor, present: Tensor) -> Tensor:
        """z float (B, R, K, d), whole numbers, present bool (B, R) -> label logits (B, L), event by event."""
        import torch

        events = z.numpy().clip(-32768, 32767).astype(np.int32)
        there = present.numpy()
        rows = [self._engine.run_decide(events[i : i + 1], there[i : i + 1]) for i in range(len(events))]
        return torch.from_numpy(np.concatenate(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; 0, or 2 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR")
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="clips for accuracy")
    parser.add_argument(
        "--rendered",
        type=int,
        metavar="N",
        help=f"rendered clips for accuracy (default: {_RENDERED} without --data; 0: none)",
    )
    parser.add_argument("--draws", type=int, default=200, help="noise draws a clip, for the cloud member")
    parser.add_argument("--windows", type=int, default=400, help="windows to time")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "engines", metavar="DIR", help="where to build")
    args = parser.parse_args(argv)
    try:
        if args.windows < 1 or args.draws < 1:
            raise ConfigError(f"--windows is {args.windows}, --draws is {args.draws}; give at least 1 of each")
        if args.rendered is None:
            args.rendered = 0 if args.data else _RENDERED
        if args.rendered < 0:
            raise ConfigError(f"--rendered is {args.rendered}; give how many clips to render, 0 for none")
        return _measure(args)
    except VeilsightError as error:
        return fail(error)


def _measure(args: argparse.Namespace) -> int:
    from export.inputs import Inputs

    wanted = [Inputs.read(args.checkpoint, precision, "onnxruntime") for precision in _PRECISIONS]
    rows = [_build(args.checkpoint, args.out, inputs) for inputs in wanted]
    on_device, why_not = _on_device(rows)
    for row in rows:
        row.found["memory_mb"] = _memory(row.folder)
        row.found["bytes"] = sum((row.folder / FILES[part]).stat().st_size for part in _PARTS)
    rows += on_device
    for row in rows:
        manifest = row.engine.manifest
        event = manifest.certificate().reveals(manifest.event_releases)
        row.found |= {"build_s": round(row.build_s, 2), "S_event": event["S"], "bits_event": event["bits"]}
    _time(rows, args.windows)
    clips = _clips(args.checkpoint, args.data, args.rendered)
    if clips:
        _judge(rows, args.checkpoint, clips, args.draws)
    ahead = {f"tensorrt-rtx {row.precision}": _ahead_of_time(row) for row in rows[: len(wanted)]}
    fp32, _, int8 = (row.found["encode_ms"]["p50"] for row in rows[: len(wanted)])
    report(
        "engines",
        ratio=int8 / fp32,
        of="encode of the fp32 engine on ONNX Runtime, medians, windows in turns",
        figures={
            "onnxruntime": {row.precision: row.found for row in rows[: len(wanted)]},
            "tensorrt": {row.precision: row.found for row in on_device} or {"state": why_not},
            **ahead,
            "windows": args.windows,
            "clips": len(clips),
            "draws": args.draws,
        },
        rows=_table(rows, ahead),
        notes=_notes(next(iter(ahead.values())), why_not, clips, args.draws),
    )
    return 0


def _build(checkpoint: Path, out: Path, wanted: Inputs) -> _Row:
    """A new engine folder; its own progress goes to stderr, since stdout is for the table."""
    from contextlib import redirect_stdout

    from edge_runtime.eye.engine.onnx import OnnxEngine
    from export.build_engine import build

    folder = out / f"{checkpoint.resolve().name}-{wanted.precision}"
    began = time.monotonic()
    with redirect_stdout(sys.stderr):
        build(checkpoint, folder, wanted)
    return _Row(wanted.precision, folder, time.monotonic() - began, OnnxEngine(folder))


def _on_device(rows: Sequence[_Row]) -> tuple[list[_Row], str]:
    """The same folders on this machine's GPU, built and opened as a device does; or none, and why in words."""
    from edge_runtime.eye.engine.tensorrt import Gpu, TensorRtEngine, device_facts, load_libraries
    from export.backends.builder import Options, make
    from wire.artifact.engine_record import ENGINES, engine_key

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
        made.append(_Row(row.precision, row.folder, took, engine, "tensorrt"))
        made[-1].found["bytes"] = sum((cache / name).stat().st_size for name in ENGINES.values())
    return made, ""


def _memory(folder: Path) -> float:
    """MB that a process of its own grows by when it opens the engine and runs both graphs."""
    command = [sys.executable, "-c", _MEMORY, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=child_env(), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise EngineError(f"{folder}: the engine does not run in a process of its own: {done.stderr.strip()[-400:]}")
    return round(int(done.stdout) / 1024, 1)


def _time(rows: Sequence[_Row], count: int) -> None:
    """Latencies in ms: each window goes through every engine before the next one."""
    from export.parity import made_windows

    manifest = rows[0].engine.manifest
    windows = made_windows(manifest.window, 32)
    code, event = (1, manifest.tokens, manifest.width), (1, manifest.event_releases, manifest.tokens, manifest.width)
    rng = np.random.default_rng(0)
    z = np.round(rng.normal(size=event) * float(manifest.sigma)).astype(np.int32)
    silence, present = np.zeros(code, np.int32), np.ones(event[:2], np.bool_)
    for number in range(-5, count):  # the first few warm up
        for row in [*rows[number % len(rows) :], *rows[: number % len(rows)]]:
            times = [time.perf_counter()]
            row.engine.run_core(windows[number % len(windows)][None], silence)
            times.append(time.perf_counter())
            row.engine.run_decide(z, present)
            times.append(time.perf_counter())
            for part, begin, end in zip(_PARTS, times, times[1:], strict=False):
                row.latency[part] += [1000 * (end - begin)] * (number >= 0)
    for row in rows:
        row.found |= {f"{part}_ms": percentiles(times) for part, times in row.latency.items()}


def _clips(checkpoint: Path, data: Sequence[Path], rendered: int) -> list[_Footage]:
    from familial.data.clips import UNSCORED, Footage, read_clip, read_manifests, slots, windows
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model.config import FamilyConfig

    config = FamilyConfig.load(checkpoint / "config.json")
    spec, labels = config.window, config.labels

    def cut(footage: Footage) -> npt.NDArray[np.uint8]:
        return windows(footage, [spec.slot_s * (slot + 1) for slot in range(slots(footage.duration, spec))], spec)

    listed = [clip for clip in (read_manifests(data, labels) if data else []) if clip.label != UNSCORED]
    found = [_Footage(cut(read_clip(clip.file, spec)), labels.index(clip.label), clip.set) for clip in listed]
    clips = rendered_clips(clip_seeds("engines", rendered), labels, spec, processes=1) if rendered else ()
    return found + [_Footage(cut(clip.footage), clip.label, clip.set) for clip in clips]


def _judge(rows: Sequence[_Row], checkpoint: Path, clips: Sequence[_Footage], draws: int) -> None:
    """Accuracy of both members behind each engine, under the same noise; how codes differ and what the guard did."""
    import torch

    from familial.evaluate.clip_inference import clip_verdict, event_probabilities
    from familial.model import checkpoint as folder
    from familial.train.losses import rounded_gaussian

    family = folder.load(checkpoint)
    sigma, limit = float(rows[0].engine.manifest.sigma), family.config.decision_threshold
    right: dict[tuple[str, str], list[list[bool]]] = {}
    codes: dict[str, list[npt.NDArray[np.int32]]] = {row.name: [] for row in rows}
    torch.manual_seed(0)
    for clip in clips:
        noise = None
        for row in rows:
            mu = _encode(row.engine, clip.windows)
            codes[row.name].append(mu)
            clean = torch.from_numpy(mu).float()[None]
            if noise is None:
                noise = rounded_gaussian(clean.expand(draws, *clean.shape[1:]), sigma)
            members = cast("Family", _Members(family, row.engine))
            for member, count in (("cloud", draws), ("edge", min(draws, _EDGE_DRAWS))):
                read = event_probabilities(members, clean + noise[:count], member)
                hits = [clip_verdict(draw, limit)[0] == clip.label for draw in read]
                right.setdefault((row.name, member), []).append(hits)
    for row in rows:
        row.found |= _apart(codes[row.name], codes[rows[0].name], sigma)
        for member in ("edge", "cloud"):
            ours, theirs = (np.array(right[name, member]).mean(axis=1) for name in (row.name, rows[0].name))
            lost = 100 * (theirs - ours)
            row.found[f"accuracy_{member}"] = round(float(ours.mean()), 4)
            row.found[f"points_lost_{member}"] = round(float(lost.mean()), 3)
            row.found[f"points_lost_{member}_se"] = round(float(lost.std() / max(1, len(lost)) ** 0.5), 3)


def _encode(engine: Engine, windows: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    silence = np.zeros((1, engine.manifest.tokens, engine.manifest.width), np.int32)
    return np.concatenate([engine.run_core(window[None], silence) for window in windows])


def _apart(
    codes: Sequence[npt.NDArray[np.int32]], exact: Sequence[npt.NDArray[np.int32]], sigma: float
) -> dict[str, float]:
    """How far the codes of an engine are from fp32's, in lattice units, and how many of them are zero."""
    ours, theirs = (np.concatenate(part).astype(np.float64) for part in (codes, exact))
    apart = np.abs(ours - theirs)
    norms = np.sqrt((apart**2).sum(axis=(1, 2)))
    lengths = np.sqrt((ours**2).sum(axis=(1, 2)) * (theirs**2).sum(axis=(1, 2)))
    return {
        "windows": len(ours),
        "mu_p50": float(np.percentile(apart, 50)),
        "mu_p99": float(np.percentile(apart, 99)),
        "mu_norm_p99_in_sigma": round(float(np.percentile(norms, 99)) / sigma, 4),
        "mu_cosine_mean": round(float(((ours * theirs).sum(axis=(1, 2)) / np.maximum(lengths, 1e-9)).mean()), 5),
        "mu_norm_max": round(float(np.sqrt((ours**2).sum(axis=(1, 2))).max()), 3),
        "zero_codes": int((ours == 0).all(axis=(1, 2)).sum()),
    }


def _ahead_of_time(row: _Row) -> dict[str, Any]:
    """Time and size of what TensorRT-RTX makes of the engine's graphs for one GPU, where it is installed."""
    from export.backends.builder import Options, build_engine_file, load_rtx

    try:
        trt = load_rtx()
    except EngineError as error:
        return {"state": str(error)}
    began = time.monotonic()
    options = Options(targets=(_TARGET,))
    files = [build_engine_file(trt, row.folder / FILES[part], options, _ignore)[0] for part in _PARTS]
    return {"target": _TARGET, "build_s": round(time.monotonic() - began, 2), "bytes": sum(map(len, files))}


def _ignore(text: str) -> None:
    """Where the builder's progress goes."""


def _table(rows: Sequence[_Row], ahead: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
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
        lines.append([*cells, round_up(found["S_event"]), round_up(found["bits_event"])])
    for name, made in ahead.items():
        if "build_s" in made:
            cells = [name, f"{made['build_s']:.1f}", f"{made['bytes'] / 1000:,.0f}"]
            lines.append(cells + ["-"] * (len(head) - len(cells)))
    return lines


def _notes(ahead: Mapping[str, Any], why_no_device: str, clips: Sequence[_Footage], draws: int) -> list[str]:
    notes = ["times in ms, one thread; fp16 on ONNX Runtime's CPU is computed in float32 between casts"]
    if why_no_device:
        notes.append(f"tensorrt: not measured: {why_no_device.split(';')[0]}")
    built = f"built for compute capability {_TARGET}, not run" if "build_s" in ahead else ahead["state"]
    notes.append(f"tensorrt-rtx: {built}")
    if clips:
        sets = sorted({clip.set for clip in clips})
        notes.append(
            f"accuracy over {len(clips)} clips of {', '.join(sets)}, {draws} noise draws "
            f"(edge: {min(draws, _EDGE_DRAWS)}), the same for every engine; "
            "lost: fp32 less this, with its standard error over clips"
        )
    return notes


if __name__ == "__main__":
    sys.exit(main())
