"""`python -m benchmarks.full_geometry`: the edge member at real size through the whole export: time and memory.

    random Qwen3-VL folder (27 x 1152 tower, one block of 4096) --adopt--> checkpoint --noise--> certificate
        --trace--> fp32 graphs --half--> fp16 graphs --prove, lint--> --TensorRT-RTX--> engine files
        --ONNX Runtime--> one window, compared with torch

Every step is a process of its own, so that its time and its peak memory are its own; weights lie in files and are read
tensor by tensor. The weights are random, so nothing here is about accuracy. The word matrices, which no edge member
holds, have 1,024 rows. `--depth` and `--width` scale the geometry down, to try the steps on a small machine.

The times for the boards are an estimate: published times of NVIDIA's own runtime for the same tower, scaled by
arithmetic (`benchmarks/device/geometry_estimate.py`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.broker import ROOT, child_env
from benchmarks.device.geometry_estimate import SOURCE, estimate
from benchmarks.device.geometry_steps import STEPS
from benchmarks.harness import MOTION
from benchmarks.runner import Benchmark, Report
from familial.model.config import FamilyConfig
from familial.model.resources import require_disk, require_memory
from wire.errors import EngineError

__all__ = ["COMMAND"]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--depth", type=int, default=27, help="blocks of the tower (real: 27)")
    parser.add_argument("--width", type=int, default=4096, help="width of the decoder's block (real: 4096)")
    parser.add_argument("--like", type=Path, default=MOTION, metavar="DIR", help="window and code of this one")
    parser.add_argument("--memory-gb", type=float, default=12.0, help="refuse to begin where less is available")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep everything there (default: a temporary folder)")


def _measure(args: argparse.Namespace) -> Report:
    scale = (args.depth / 27) * 0.7 + (args.width / 4096) ** 2 * 0.3
    require_memory(int(args.memory_gb * 1e9 * min(1.0, scale + 0.1)), "this benchmark")
    with tempfile.TemporaryDirectory(prefix="veilsight-geometry-") as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        require_disk(work, int(9e9 * scale) + 200_000_000, "this benchmark")
        found: dict[str, dict[str, Any]] = {}
        for step in STEPS:
            found[step] = _in_a_process(step, work, args)
            print(f"{step:16} {json.dumps(found[step])}", flush=True)
        config = FamilyConfig.load(work / "checkpoint" / "config.json")
    return _report(args, config, found)


def _in_a_process(step: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run one step; what it found, with its seconds and its peak resident memory. Raises EngineError."""
    command = [sys.executable, "-m", "benchmarks.geometry_steps", step, "--work", str(work)]
    command += ["--depth", str(args.depth), "--width", str(args.width), "--like", str(args.like.resolve())]
    began = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env=child_env(OMP_NUM_THREADS="1"), capture_output=True, text=True)
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        tail = " | ".join(result.stderr.strip().splitlines()[-3:])
        raise EngineError(f"step {step!r} ended with status {result.returncode}: {tail or 'no output'}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found | {"seconds": round(time.monotonic() - began, 1)}


def _report(args: argparse.Namespace, config: FamilyConfig, found: Mapping[str, Mapping[str, Any]]) -> Report:
    rows = [["step", "seconds", "peak GB", "writes GB"]]
    for step, said in found.items():
        size = f"{said['bytes'] / 1e9:.2f}" if "bytes" in said else ""
        rows.append([step, f"{said['seconds']:.1f}", f"{said['peak_bytes'] / 1e9:.2f}", size])
    traced = found["trace to fp32"]
    boards = estimate(config, found["build decide"]["bytes"])
    window = config.window
    fp32, fp16 = found["run fp32"], found["run fp16"]
    notes = [
        f"tower {args.depth} x 1152, block {args.width}, {traced['edge_parameters'] / 1e6:,.1f} M weights on the edge; "
        f"a window is {window.frames} frames of {window.width} x {window.height}",
        f"tower against transformers' own: {traced['tower_difference_max']:.1e}; codes against torch, p99: "
        f"fp32 {fp32['mu_apart_p99']:g}, fp16 {fp16['mu_apart_p99']:g} lattice units; "
        f"logits {fp32['logits_apart']:.1e} and {fp16['logits_apart']:.1e}",
        f"ESTIMATE, not measured, from {SOURCE}; decide from its size and the data sheet's memory rate:",
        *(
            f"  {board:14} encode {said['encode_ms']:7.1f} ms, decide {said['decide_ms']:6.2f} ms, "
            f"{said['share_of_slot']:.1%} of a slot"
            for board, said in boards.items()
        ),
        "  Orin Nano 8GB  no time is published for this tower: no estimate",
    ]
    figures = {
        "depth": args.depth,
        "width": args.width,
        "peak_bytes": max(said["peak_bytes"] for said in found.values()),
        "steps": dict(found),
        "estimate": boards,
        "estimate_source": SOURCE,
    }
    ratio = traced["torch_encode_s"] / max(traced["transformers_tower_s"], 1e-9)
    return Report(ratio, figures, rows, notes)


COMMAND = Benchmark(
    "full_geometry",
    __doc__,
    "transformers' own tower on the same window, both in torch on one thread",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
