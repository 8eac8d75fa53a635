"""`python -m benchmarks.full_geometry`: the edge member at real size through the whole export, in numbers.

    random Qwen3-VL folder (27 x 1152 tower, one block of 4096) --adopt--> checkpoint --noise--> certificate
        --trace--> fp32 graphs --half--> fp16 graphs --prove, lint--> --TensorRT-RTX--> engine files
        --ONNX Runtime--> one window, held against torch

Every step is a process of its own, so that its time and its peak memory are its own; weights lie in files and are read
tensor by tensor. The weights are random, so nothing here is about accuracy. The word matrices, which no edge member
holds, have 1,024 rows. `--depth` and `--width` scale the geometry down, to try the road on a small machine.

The estimate for the boards is one: published times of NVIDIA's own runtime for the same tower, scaled by arithmetic.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broker import ROOT, child_env
from benchmarks.harness import fail, report
from familial.model.config import FamilyConfig, VisionSpec
from familial.model.resources import require_disk, require_memory
from wire.artifact.manifest import FILES, EngineManifest, sha256_file
from wire.errors import EngineError, VeilsightError

__all__ = ["BOARDS", "estimate", "main", "tower_flops"]

_ROWS = 1024  # of the word matrices
_WINDOWS = 1
_TARGET = "8.6"
_SOURCE = (
    "NVIDIA TensorRT Edge-LLM, performance benchmarks, 8B tower in FP16 at 265 tokens: "
    "https://nvidia.github.io/TensorRT-Edge-LLM/0.9.1/user_guide/performance/performance-benchmarks.html"
)
_PUBLISHED_TOKENS = 265

BOARDS: Mapping[str, tuple[float, float]] = {
    "AGX Orin 64GB": (53.0, 204.8),
    "Orin NX 16GB": (110.0, 102.4),
    "AGX Thor": (15.7, 273.0),
}
"""Board -> (milliseconds published for the tower, GB/s of memory by its data sheet)."""

_PARTS = ("encode", "decide")


def tower_flops(vision: VisionSpec, patches: int, attended: int, deepstack: int = 0) -> float:
    """Floating-point operations of one pass of the tower over `patches`, each of which attends to `attended`.

    Two for each multiplication; products of matrices alone. deepstack: mergers beside the last one.
    """
    hidden = vision.hidden
    block = 4 * hidden**2 + 2 * hidden * vision.mlp + 2 * hidden * attended
    inner = hidden * vision.merge**2
    merger = (inner**2 + inner * vision.out) / vision.merge**2
    stem = 3 * vision.temporal * vision.patch**2 * hidden
    return 2.0 * patches * (stem + vision.depth * block + (1 + deepstack) * merger)


def estimate(config: FamilyConfig, decide_bytes: int) -> dict[str, dict[str, float]]:
    """Milliseconds a window and an event would take on each board: an ESTIMATE, no measurement.

    encode: the published time times our operations over theirs. decide: its weights once through memory at the data
    sheet's full rate, the least it can take. Share: of a slot, both together.
    """
    vision = config.vision
    if vision is None:
        raise EngineError("no vision tower in this configuration")
    grid = (config.window.height // vision.patch) * (config.window.width // vision.patch)
    ours = tower_flops(vision, grid * config.window.frames // vision.temporal, grid)
    published = _PUBLISHED_TOKENS * vision.merge**2
    theirs = tower_flops(VisionSpec(27, 1152, 4304, 16, 4096), published, published, deepstack=3)
    found = {}
    for board, (published_ms, bandwidth) in BOARDS.items():
        encode = published_ms * ours / theirs
        decide = decide_bytes / bandwidth / 1e6
        share = (encode + decide) / 1e3 / config.window.slot_s
        found[board] = {"encode_ms": round(encode, 1), "decide_ms": round(decide, 2), "share_of_slot": round(share, 3)}
    return found


# --- the steps; each runs in a process of its own and returns what it has to say


def _weights(work: Path, depth: int, width: int) -> dict[str, Any]:
    """A random folder in Hugging Face form, bf16, written shard by shard."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    from familial.model.weights import write_weights

    config = Qwen3VLConfig(**_base_config(depth, width))
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    plan = {name: (tuple(value.shape), torch.bfloat16) for name, value in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)

    def made(name: str) -> torch.Tensor:
        shape = plan[name][0]
        if name.endswith("bias"):
            return torch.zeros(shape)
        if "norm" in name:
            return torch.ones(shape)
        return torch.randn(shape, generator=generator) * 0.02

    base = work / "base"
    base.mkdir()
    write_weights(base, plan, made)
    (base / "config.json").write_text(json.dumps(config.to_dict() | {"dtype": "bfloat16"}))
    return {"parameters": sum(value.numel() for value in model.parameters()), "bytes": _size(base, "*.safetensors")}


def _base_config(depth: int, width: int) -> dict[str, Any]:
    """Table 1's edge member in config.json's words; `width` is that of the decoder's block."""
    heads = max(1, width // 128)
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    text = {
        "vocab_size": _ROWS,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 4),
        "head_dim": 128,
        "rope_parameters": rope,
    }
    vision = {
        "depth": depth,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "out_hidden_size": width,
        "deepstack_visual_indexes": [],
    }
    return {"text_config": text, "vision_config": vision, "tie_word_embeddings": False}


def _adopt(work: Path, like: Path) -> dict[str, Any]:
    """Checkpoint and noise."""
    from calibration import noise
    from familial.model import adopt

    _ok(adopt.main(["--base", str(work / "base"), "--out", str(work / "checkpoint"), "--like", str(like)]))
    _ok(noise.main(["--checkpoint", str(work / "checkpoint"), "--target", "balanced"]))
    return {"bytes": _size(work / "checkpoint", "*.safetensors")}


def _trace(work: Path) -> dict[str, Any]:
    """fp32 graphs with their weights beside them; what torch makes of some windows; our tower against transformers'."""
    import torch

    from export import trace
    from export.parity import made_windows
    from export.proof.structure import save_graph
    from familial.model.graphs import DecideGraph, EncodeGraph
    from familial.model.members import EdgeMember

    family = trace.load_family(work / "checkpoint")
    config, folder = family.config, work / "fp32"
    folder.mkdir()
    edge = sum(value.numel() for value in EdgeMember(family).parameters())
    nodes = {}
    for part, traced in (("encode", trace.trace_encode), ("decide", trace.trace_decide)):
        graph = traced(family, folder / f"{part}.weights")
        save_graph(graph, folder / FILES[part])
        nodes[f"{part}_nodes"] = len(graph.graph.node)
    windows = made_windows(config.window, 12)[-_WINDOWS:]
    silence = torch.zeros(1, config.tokens, config.width, dtype=torch.int32)
    event = torch.zeros(1, config.event_releases, config.tokens, config.width, dtype=torch.int32)
    present = torch.ones(1, config.event_releases, dtype=torch.bool)
    with torch.inference_mode():
        graph_of, codes, began = EncodeGraph(family).eval(), [], time.monotonic()
        for window in windows:
            codes.append(graph_of(torch.from_numpy(window[None]), silence))
        ours_s = (time.monotonic() - began) / len(windows)
        mu = torch.cat(codes)
        event[0, : len(mu)] = mu
        logits = DecideGraph(family).eval()(event, present)
        apart, theirs_s = _against_transformers(family, windows[0])
    np.savez(work / "torch.npz", windows=windows, mu=mu.numpy(), event=event.numpy(), logits=logits.numpy())
    return {
        "edge_parameters": edge,
        **nodes,
        "bytes": _size(folder, "*"),
        "tower_difference_max": apart,
        "torch_encode_s": round(ours_s, 2),
        "transformers_tower_s": round(theirs_s, 2),
    }


def _against_transformers(family: Any, window: Any) -> tuple[float, float]:
    """Largest difference of the tower's tokens to transformers' own tower on one window, and that tower's seconds."""
    import torch

    vision = family.config.vision
    frames = torch.from_numpy(window).float() / 255.0
    count, height, width = frames.shape
    steps, rows, columns = count // vision.temporal, height // vision.patch, width // vision.patch
    scaled = (frames[:, None].expand(-1, 3, -1, -1) - vision.mean[0]) / vision.std[0]
    merge, patch = vision.merge, vision.patch
    cut = scaled.reshape(steps, vision.temporal, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    pixels = cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(steps * rows * columns, -1)
    began = time.monotonic()
    theirs = family.tower.visual(pixels, torch.tensor([[steps, rows, columns]])).pooler_output
    took = time.monotonic() - began
    ours = family.tower.tokens(torch.from_numpy(window[None]))[0].flatten(0, 1)
    return float((ours - theirs).abs().max()), took


def _half(work: Path) -> dict[str, Any]:
    """fp16 graphs, one part at a time."""
    from export.precision.half import to_fp16
    from export.proof.structure import load_graph, save_graph

    (work / "fp16").mkdir()
    for part in _PARTS:
        made = to_fp16(load_graph(work / "fp32" / FILES[part]), str(work / "fp32"))
        save_graph(made, work / "fp16" / FILES[part])
    return {"bytes": _size(work / "fp16", "*")}


def _prove(work: Path) -> dict[str, Any]:
    """Manifest, graph proof and lint of both precisions, as an engine folder is proved."""
    from export.proof.verify_graph import prove_folder

    said = {}
    for precision in ("fp32", "fp16"):
        _manifest(work, precision)
        said[f"{precision}_statements"] = sum(1 for _ in prove_folder(work / precision))
    return said


def _manifest(work: Path, precision: str) -> None:
    """What makes the graphs an engine folder."""
    from export.inputs import Inputs
    from wire.privacy.certificate import Certificate

    folder, checkpoint = work / precision, work / "checkpoint"
    config, wanted = FamilyConfig.load(checkpoint / "config.json"), Inputs.read(checkpoint, precision, "onnxruntime")
    certificate = Certificate(
        clip_norm=config.clip_norm,
        sigma=wanted.sigma,
        n=config.n,
        slot_s=config.window.slot_s,
        receptive_field_s=config.window.receptive_field_s,
        event_releases=config.event_releases,
    )
    (folder / FILES["certificate"]).write_text(certificate.to_json())
    (folder / FILES["noise_table"]).write_bytes((checkpoint / "noise_table.bin").read_bytes())
    hashes = {part: sha256_file(folder / FILES[part]) for part in ("encode", "decide", "noise_table")}
    hashes |= {"certificate": certificate.sha256(), "checkpoint": wanted.checkpoint, "calibration": ""}
    EngineManifest(
        family=config.family,
        labels=config.labels,
        window=config.window,
        tokens=config.tokens,
        width=config.width,
        event_releases=config.event_releases,
        clip_norm=config.clip_norm,
        sigma=wanted.sigma,
        levels=wanted.levels,
        profile=wanted.profile,
        precision=precision,
        opset=18,
        hashes=hashes,
        tools=wanted.tools,
        external={file.name: sha256_file(file) for file in sorted(folder.glob("*.weights"))},
    ).save(folder)


def _build(work: Path, part: str) -> dict[str, Any]:
    """The engine file of one fp16 graph, by TensorRT-RTX for a GPU that is not here."""
    from export.backends.builder import Options, build_engine_file, load_rtx

    plan, _ = build_engine_file(load_rtx(), work / "fp16" / FILES[part], Options(targets=(_TARGET,)), lambda line: None)
    (work / f"{part}.engine").write_bytes(plan)
    return {"bytes": len(plan)}


def _run(work: Path, precision: str) -> dict[str, Any]:
    """Windows and an event in ONNX Runtime, held against torch's fp32."""
    import onnxruntime

    known = np.load(work / "torch.npz")
    said: dict[str, Any] = {}
    for part in _PARTS:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")  # packed weights would be held twice
        session = onnxruntime.InferenceSession(str(work / precision / FILES[part]), options)
        began = time.monotonic()
        if part == "decide":
            feed = {"z": known["event"], "present": np.ones(known["event"].shape[:2], bool)}
            found = np.asarray(session.run(None, feed)[0])
            said["logits_apart"] = float(np.abs(found - known["logits"]).max())
            said["decide_s"] = round(time.monotonic() - began, 3)
            continue
        silence = np.zeros((1, *known["mu"].shape[1:]), np.int32)
        feeds = [{"frames": window[None], "noise": silence} for window in known["windows"]]
        mu = np.concatenate([np.asarray(session.run(None, feed)[0]) for feed in feeds])
        apart = np.abs(mu.astype(np.int64) - known["mu"])
        said["encode_s"] = round((time.monotonic() - began) / len(feeds), 3)
        said |= {"mu_apart_p99": float(np.percentile(apart, 99)), "mu_apart_max": int(apart.max())}
        said["mu_norm"] = round(float(np.sqrt((known["mu"].astype(np.int64) ** 2).sum(axis=(1, 2))).mean()), 2)
        del session
    return said


def _ok(status: int) -> None:
    if status != 0:
        raise EngineError(f"a step ended with status {status}; its own output names why")


def _size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern))


# --- the benchmark


def _steps(work: Path, args: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    return {
        "random weights": lambda: _weights(work, args.depth, args.width),
        "adopt, noise": lambda: _adopt(work, args.like),
        "trace to fp32": lambda: _trace(work),
        "typed fp16": lambda: _half(work),
        "prove and lint": lambda: _prove(work),
        "build encode": lambda: _build(work, "encode"),
        "build decide": lambda: _build(work, "decide"),
        "run fp32": lambda: _run(work, "fp32"),
        "run fp16": lambda: _run(work, "fp16"),
    }


def _in_a_process(step: str, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run one step; what it said, with its seconds and its peak resident memory. Raises EngineError."""
    command = [sys.executable, "-m", "benchmarks.full_geometry", "--step", step, "--work", str(work)]
    command += ["--depth", str(args.depth), "--width", str(args.width), "--like", str(args.like.resolve())]
    began = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, env=child_env(OMP_NUM_THREADS="1"), capture_output=True, text=True)
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        tail = " | ".join(result.stderr.strip().splitlines()[-3:])
        raise EngineError(f"step {step!r} ended with status {result.returncode}: {tail or 'no output'}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found | {"seconds": round(time.monotonic() - began, 1)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_geometry", description="Export at real size.")
    parser.add_argument("--depth", type=int, default=27, help="blocks of the tower (real: 27)")
    parser.add_argument("--width", type=int, default=4096, help="width of the decoder's block (real: 4096)")
    parser.add_argument("--like", type=Path, default=ROOT / "checkpoints" / "nano", help="window and code of this one")
    parser.add_argument("--memory-gb", type=float, default=12.0, help="refuse to begin where less is available")
    parser.add_argument("--work", type=Path, help="keep everything in this folder (default: a temporary one)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    try:
        if args.step:
            said = _steps(args.work, args)[args.step]()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps(said | {"peak_bytes": peak}), flush=True)
            return 0
        _benchmark(args)
    except VeilsightError as error:
        return fail(error)
    return 0


def _benchmark(args: argparse.Namespace) -> None:
    scale = (args.depth / 27) * 0.7 + (args.width / 4096) ** 2 * 0.3
    require_memory(int(args.memory_gb * 1e9 * min(1.0, scale + 0.1)), "this benchmark")
    with tempfile.TemporaryDirectory(prefix="veilsight-geometry-") as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        require_disk(work, int(9e9 * scale) + 200_000_000, "this benchmark")
        found: dict[str, dict[str, Any]] = {}
        for step in _steps(work, args):
            found[step] = _in_a_process(step, work, args)
            print(f"{step:16} {json.dumps(found[step])}", flush=True)
        config = FamilyConfig.load(work / "checkpoint" / "config.json")
    _show(args, config, found)


def _show(args: argparse.Namespace, config: FamilyConfig, found: Mapping[str, Mapping[str, Any]]) -> None:
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
        f"ESTIMATE, not measured, from {_SOURCE}; decide from its size and the data sheet's memory rate:",
        *(
            f"  {board:14} encode {said['encode_ms']:7.1f} ms, decide {said['decide_ms']:6.2f} ms, "
            f"{said['share_of_slot']:.1%} of a slot"
            for board, said in boards.items()
        ),
        "  Orin Nano 8GB  no time is published for this tower: no estimate",
    ]
    report(
        "full_geometry",
        ratio=traced["torch_encode_s"] / max(traced["transformers_tower_s"], 1e-9),
        of="transformers' own tower on the same window, both in torch on one thread",
        figures={
            "depth": args.depth,
            "width": args.width,
            "peak_bytes": max(said["peak_bytes"] for said in found.values()),
            "steps": dict(found),
            "estimate": boards,
            "estimate_source": _SOURCE,
        },
        rows=rows,
        notes=notes,
    )


if __name__ == "__main__":
    sys.exit(main())
