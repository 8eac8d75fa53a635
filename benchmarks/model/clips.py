"""`python -m benchmarks.clips --data MANIFEST.csv`: labelled clips through the real loop, a verdict each.

    for each clip: a new edge process (a new boot) -> Mosquitto -> one bridge for all -> the clip's events -> its label

The label of a clip is made from the cloud member's verdicts as `familial.evaluate` makes it. Accuracy is over all
labels; precision, recall and F1 are of risk (any label but the first) against the rest.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.demo_summary import clip_label
from benchmarks.harness import Rig, add_checkpoint, add_engine, engine_folder, running_rig
from benchmarks.listener import Heard, Listener, Record
from benchmarks.runner import Benchmark, Report
from familial.data.clips import UNSCORED, Clip, read_manifests
from familial.model.config import FamilyConfig
from wire.arguments import at_least_one
from wire.errors import VeilsightError

__all__ = ["COMMAND", "Result", "play"]

_READY_S = 120.0
_CLIP_S = 180.0
_READ_S = 20.0  # for the bridge, from a clip's last release to its last verdict


@dataclass(frozen=True, slots=True)
class Result:
    """What the loop made of one clip.

    Attributes:
        clip: what was played.
        windows: releases that were heard.
        edge: the edge member's label, empty where it said nothing.
        cloud: the cloud member's.
        wall_s: seconds that it took.
        problem: empty, or why there is no verdict.
    """

    clip: Clip
    windows: int
    edge: str
    cloud: str
    wall_s: float
    problem: str


def play(rig: Rig, listener: Listener, clip: Clip, camera: str, speed: float, decision_threshold: float) -> Result:
    """One clip through an edge process of its own, on a loop that runs; its verdicts as they came."""
    began = time.monotonic()
    start = len(listener.records())
    with rig.edge(str(clip.file), camera=camera, speed=speed) as edge:
        try:
            status = edge.wait(_CLIP_S)
        except TimeoutError as error:
            return Result(clip, 0, "", "", time.monotonic() - began, str(error))
        problem = "" if status == 0 else f"edge: status {status}: {edge.output().strip()[-300:]}"

    def read(records: list[Record]) -> bool:
        return _complete(rig.hear(records[start:], camera))

    if not problem and not listener.wait_for(read, _READ_S):
        problem = f"no cloud verdict on the last release within {_READ_S:g} s"
    heard = rig.hear(listener.records(start), camera)
    labels = {m: _label(heard, m, rig.manifest.labels, decision_threshold) for m in ("edge", "cloud")}
    problem = problem or "; ".join(heard.refused[:3])
    return Result(clip, len(heard.features), labels["edge"], labels["cloud"], time.monotonic() - began, problem)


def _complete(heard: Heard) -> bool:
    """Whether the cloud has read the last release of this boot."""
    if not heard.features:
        return False
    last = heard.features[-1][1]
    return any(v.boot_id == last.boot_id and v.last_slot >= last.slot for _, v in heard.of("cloud"))


def _label(heard: Heard, member: str, labels: Sequence[str], decision_threshold: float) -> str:
    verdicts = [verdict for _, verdict in heard.of(member)]
    return clip_label(verdicts, labels, decision_threshold) if verdicts else ""


def _play_all(args: argparse.Namespace, clips: Sequence[Clip], engine: Path, checkpoint: Path) -> list[Result]:
    """All clips, `args.jobs` at a time, each job with a camera of its own."""
    decision_threshold = FamilyConfig.load(checkpoint / "config.json").decision_threshold
    cameras = [f"camera{job}" for job in range(args.jobs)]
    with running_rig("clips", engine, checkpoint) as (rig, listener), rig.bridge(cameras) as bridge:
        clip_label([], rig.manifest.labels, decision_threshold)  # loads torch, while the bridge does too
        bridge.wait_for_line("ready", _READY_S)
        broker = type(rig.broker).__name__
        print(f"{len(clips)} clips, {broker}, {args.jobs} at a time, speed {args.speed:g}", flush=True)
        free: queue.SimpleQueue[str] = queue.SimpleQueue()
        for camera in cameras:
            free.put(camera)

        def work(clip: Clip) -> Result:
            camera = free.get()
            result = play(rig, listener, clip, camera, args.speed, decision_threshold)
            free.put(camera)
            mark = result.problem or ("" if result.cloud == clip.label else "  <- wrong")
            print(f"{clip.name:44} {clip.label:9} {result.cloud or '-':9}{mark}", flush=True)
            return result

        with ThreadPoolExecutor(args.jobs) as pool:
            results = [*pool.map(work, clips)]
        if not bridge.running:
            raise VeilsightError(f"the bridge ended on the way:\n{bridge.output()[-2000:]}")
    return results


def _metrics(results: Sequence[Result], normal: str) -> dict[str, float]:
    """n, accuracy over all labels; precision, recall and F1 of risk against `normal`, as the cloud member has it."""
    truth = [r.clip.label != normal for r in results]
    said = [r.cloud not in ("", normal) for r in results]
    hits = sum(t and s for t, s in zip(truth, said, strict=True))
    precision, recall = hits / max(1, sum(said)), hits / max(1, sum(truth))
    return {
        "n": len(results),
        "accuracy": sum(r.cloud == r.clip.label for r in results) / max(1, len(results)),
        "edge_accuracy": sum(r.edge == r.clip.label for r in results) / max(1, len(results)),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
    }


def _report(results: Sequence[Result], labels: Sequence[str], speed: float) -> Report:
    scored = [r for r in results if r.clip.label != UNSCORED]
    groups: dict[str, list[Result]] = {"all": scored}
    for name in sorted({r.clip.set for r in scored}):
        groups[name] = [r for r in scored if r.clip.set == name]
        for label in labels:
            of_label = [r for r in groups[name] if r.clip.label == label]
            groups.update({f"  {name}, {label}": of_label} if of_label else {})
    tables = {name: _metrics(group, labels[0]) for name, group in groups.items()}
    rows = [["set", "n", "accuracy", "edge", "precision", "recall", "F1"]]
    for name, m in tables.items():
        shares = [f"{m[key]:.3f}" for key in ("accuracy", "edge_accuracy", "precision", "recall", "f1")]
        rows.append([name, str(int(m["n"])), *(shares if not name.startswith(" ") else [*shares[:2], "", "", ""])])
    silent = [r for r in results if not r.cloud]
    problems = [f"{r.clip.name}: {r.problem}" for r in results if r.problem]
    commonest = max((sum(r.clip.label == label for r in scored) for label in labels), default=0) / max(1, len(scored))
    figures = {
        "overall": tables["all"],
        "sets": {name: m for name, m in tables.items() if name != "all" and not name.startswith(" ")},
        "without_verdict": len(silent),
        "problems": problems,
        "speed": speed,
        "clips": [_row(r) for r in results],
    }
    wrong = [f"{len(silent)} of {len(results)} clips have no verdict"] if silent else []
    notes = [f"{len(results)} clips, {len(silent)} without a verdict"]
    ratio = tables["all"]["accuracy"] / commonest if commonest else None
    of_sets = [row for row in rows if not row[0].startswith(" ")]
    return Report(ratio, figures, rows, notes, wrong=[*wrong, *problems[:20]], page_rows=of_sets)


def _row(result: Result) -> dict[str, Any]:
    return {
        "file": result.clip.name,
        "label": result.clip.label,
        "predicted": result.cloud,
        "edge": result.edge,
        "windows": result.windows,
        "wall_s": round(result.wall_s, 2),
    }


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--set", metavar="NAME", help="only the clips of that set")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="only the first N of them")
    parser.add_argument("--speed", type=float, default=4.0, help="play faster than life (default 4)")
    parser.add_argument("--jobs", type=at_least_one, default=1, help="clips at a time (default 1)")
    add_engine(parser)
    add_checkpoint(parser, "the checkpoint that the engine was built from (default: checkpoints/nano)")


def _measure(args: argparse.Namespace) -> Report:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    checkpoint = args.checkpoint.absolute()
    labels = FamilyConfig.load(checkpoint / "config.json").labels
    clips = [c for c in read_manifests(args.data, labels) if args.set in (None, c.set)]
    if not clips:
        raise VeilsightError(f"--set {args.set}: no clip of that set in {', '.join(map(str, args.data))}")
    results = _play_all(args, clips[: args.limit or None], engine_folder(args), checkpoint)
    return _report(results, labels, args.speed)


COMMAND = Benchmark(
    "clips",
    __doc__,
    "always saying the commonest label (accuracy over accuracy; above 1 is better)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
