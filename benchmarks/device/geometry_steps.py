"""The steps of `benchmarks.full_geometry`, each run in a process of its own.

python -m benchmarks.geometry_steps STEP --work DIR    prints one JSON line: what the step found, and peak_bytes
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import fail
from familial.model.config import FamilyConfig
from wire.artifact.manifest import FILES, EngineManifest, sha256_file
from wire.errors import EngineError, VeilsightError

__all__ = ["STEPS", "main"]

_ROWS = 1024  # of the word matrices
_WINDOWS = 1
_TARGET = "8.6"  # compute capability that TensorRT-RTX builds for
_PARTS = ("encode", "decide")


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
    event = torch.zeros(1, config.event_releases, config.tokens, config.width, dtype=torch.int32)
    present = torch.ones(1, config.event_releases, dtype=torch.bool)
    with torch.inference_mode():
        graph_of, codes, began = EncodeGraph(family).eval(), [], time.monotonic()
        for window in windows:
            codes.append(graph_of(torch.from_numpy(window[None])))
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
    """Windows and an event in ONNX Runtime, compared with torch's fp32."""
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
        feeds = [{"frames": window[None]} for window in known["windows"]]
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


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "random weights": lambda args: _weights(args.work, args.depth, args.width),
    "adopt, noise": lambda args: _adopt(args.work, args.like),
    "trace to fp32": lambda args: _trace(args.work),
    "typed fp16": lambda args: _half(args.work),
    "prove and lint": lambda args: _prove(args.work),
    "build encode": lambda args: _build(args.work, "encode"),
    "build decide": lambda args: _build(args.work, "decide"),
    "run fp32": lambda args: _run(args.work, "fp32"),
    "run fp16": lambda args: _run(args.work, "fp16"),
}
"""Name of each step, in order -> what it does with --work, --depth, --width and --like."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step; 0, or 2 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.geometry_steps", description=__doc__.split("\n")[0])
    parser.add_argument("step", choices=list(STEPS))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="what the steps write and read")
    parser.add_argument("--depth", type=int, required=True, help="blocks of the tower")
    parser.add_argument("--width", type=int, required=True, help="width of the decoder's block")
    parser.add_argument("--like", type=Path, required=True, metavar="DIR", help="a checkpoint: its window and code")
    args = parser.parse_args(argv)
    try:
        found = STEPS[args.step](args)
    except VeilsightError as error:
        return fail(error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found | {"peak_bytes": peak}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
