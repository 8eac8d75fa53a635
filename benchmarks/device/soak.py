"""`python -m benchmarks.soak`: do memory and open files of a device stay as they are, over weeks of releases?

    fast      2 million windows through the real gate and reader, as fast as they go; an eye that answers at once
    --real    all three processes as they are, at real pace, for --seconds

Memory (pages of no file) and open files of each process are read through the run. After a fifth of it, which fills
caches, a line is laid through them, with an interval (block bootstrap). Over the rest of the run no process may have
grown by more than 2 MB, by the upper end of that interval; the fewest files of the last quarter are not more than
those before, and nobody is started anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broker import EmbeddedBroker, Mosquitto, child_env, find_mosquitto, free_port
from benchmarks.device.processes import family, resident
from benchmarks.harness import Child, Rig, add_engine, engine_folder
from benchmarks.runner import Benchmark, Report
from familial.evaluate.intervals import slope_interval
from wire.arguments import at_least_one
from wire.errors import VeilsightError

__all__ = ["COMMAND", "Sample", "judge"]

_GATE = "import sys\nfrom benchmarks.device.soak_gate import run\nsys.exit(run(sys.argv[1:]))"
_MOST_MB = 2.0
_SAMPLES = 600  # of a whole run, about
_WARM = 0.2  # of the run
_FEWEST = 12
_START_S, _END_S = 120.0, 60.0
_SOURCE = "synthetic://walk"


@dataclass(frozen=True)
class Sample:
    """What was read at one moment.

    Attributes:
        at_s: Since the first sample.
        windows: Releases so far.
        own_mb: Process's name -> memory.
        files: ... -> open files.
        pids: ... -> process.
    """

    at_s: float
    windows: int
    own_mb: Mapping[str, float]
    files: Mapping[str, int]
    pids: Mapping[str, int]


def judge(samples: Sequence[Sample]) -> tuple[dict[str, Any], list[str]]:
    """(process -> figures, what is wrong) of a run."""
    warm = [each for each in samples if each.at_s >= _WARM * samples[-1].at_s] if samples else []
    if len(warm) < _FEWEST:
        return {}, [f"{len(warm)} samples of a warm device are too few for a line; let it run longer"]
    figures, wrong = dict[str, Any](), list[str]()
    windows = np.array([each.windows for each in warm], float)
    span, late = windows[-1] - windows[0], len(warm) * 3 // 4
    for name in warm[0].pids:
        memory = np.array([each.own_mb.get(name, np.nan) for each in warm])
        files = [each.files.get(name, 0) for each in warm]
        if len({each.pids.get(name) for each in warm}) > 1:
            wrong.append(f"{name}: it was started anew")
            continue
        slope, (low, high) = slope_interval(windows, memory, 0)
        figures[name] = {
            "own_mb": [round(float(memory[0]), 2), round(float(memory[-1]), 2)],
            "mb_a_million_windows": [round(1e6 * each, 3) for each in (slope, low, high)],
            "grown_mb_at_most": round(high * span, 3),
            "files": [min(files[:late]), min(files[late:])],
        }
        if high * span > _MOST_MB:
            wrong.append(f"{name}: memory has grown by up to {high * span:.1f} MB; at most {_MOST_MB:g} are allowed")
        if min(files[late:]) > min(files[:late]):
            wrong.append(f"{name}: {min(files[late:])} open files, and {min(files[:late])} before")
    return figures, wrong


def _sample(pid: int, began: float, page: str) -> tuple[Sample, Mapping[str, Any]]:
    """A sample, and the local page. Raises OSError where a process has ended meanwhile."""
    with urllib.request.urlopen(page, timeout=_START_S) as answer:
        figures = json.load(answer)
    pids = family(pid)
    memory = {name: resident(each).get("own", 0.0) for name, each in pids.items()}
    files = {name: len(os.listdir(f"/proc/{each}/fd")) for name, each in pids.items()}
    return Sample(time.monotonic() - began, int(figures["loop"]["windows"]), memory, files, pids), figures


def _watch(
    edge: Child, page: str, every_s: float, until: Mapping[str, float]
) -> tuple[list[Sample], Mapping[str, Any]]:
    """Samples until the run's end, `until` its "windows" or "seconds", and the last figures of the local page."""
    samples, figures = list[Sample](), dict[str, Any]()
    began = time.monotonic()
    while edge.running:
        with contextlib.suppress(OSError, urllib.error.URLError):
            sample, found = _sample(edge.process.pid, began, page)
            figures = dict(found)
            samples += [sample] if found["loop"]["verdicts"] else []  # every process has started
        if not samples and time.monotonic() - began > _START_S:
            raise VeilsightError(f"the device does not start:\n{edge.output()[-2000:]}")
        windows = samples[-1].windows if samples else 0
        if windows >= until.get("windows", np.inf) or time.monotonic() - began >= until.get("seconds", np.inf):
            edge.process.terminate()
            if edge.wait(_END_S):
                raise VeilsightError(f"the device ended with an error:\n{edge.output()[-2000:]}")
            return samples, figures
        time.sleep(every_s)
    raise VeilsightError(f"the device ended by itself:\n{edge.output()[-2000:]}")


def _device(rig: Rig, real: bool, port: int) -> Child:
    config = rig.edge_config(_SOURCE, health=f":{port}")
    start = ["-m", "edge_runtime"] if real else ["-c", _GATE]
    argv = [sys.executable, *start, "--config", str(config)]
    return Child("edge", argv, rig.folder / "edge.log", child_env(OMP_NUM_THREADS="1"))


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--windows", type=at_least_one, default=2_000_000, help="as fast as they go (default 2000000)")
    parser.add_argument("--seconds", type=float, default=0.0, help="end after so long, however many windows it were")
    parser.add_argument("--real", action="store_true", help="the whole device at real pace, for --seconds")


def _measure(args: argparse.Namespace) -> Report:
    if args.real and not args.seconds:
        raise VeilsightError("--real: how long is missing; add --seconds 3600")
    until = {} if args.real else {"windows": float(args.windows)}
    until |= {"seconds": args.seconds} if args.seconds else {}
    port = free_port()
    engine = engine_folder(args)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="veilsight-soak-")))
        broker = stack.enter_context((Mosquitto if find_mosquitto() else EmbeddedBroker)(folder))
        edge = stack.enter_context(_device(Rig(folder, broker, engine), args.real, port))
        every_s = until["seconds"] / _SAMPLES if "seconds" in until else 2.0
        samples, page = _watch(edge, f"http://127.0.0.1:{port}/health", min(5.0, max(0.2, every_s)), until)
        printed = len(edge.output().splitlines())
    figures, wrong = judge(samples)
    rate = samples[-1].windows / samples[-1].at_s
    document: dict[str, Any] = {
        "windows": samples[-1].windows,
        "windows_a_second": round(rate, 1),
        "seconds": samples[-1].at_s,
    }
    document |= {"processes": figures, "log_lines": printed, "page": page}
    return Report(None, document, _rows(figures), _notes(document), wrong)


def _rows(figures: Mapping[str, Any]) -> list[list[str]]:
    rows = [["process", "memory, MB, warm and last", "MB a million windows", "grown, MB, at most", "open files"]]
    for name, each in figures.items():
        slope, low, high = each["mb_a_million_windows"]
        first, last = each["own_mb"]
        shown = [f"{first:.1f}, {last:.1f}", f"{slope:.2f} [{low:.2f}, {high:.2f}]", f"{each['grown_mb_at_most']:.2f}"]
        rows.append([name, *shown, ", ".join(map(str, each["files"]))])
    return rows


def _notes(document: Mapping[str, Any]) -> list[str]:
    loop, publisher = document["page"]["loop"], document["page"]["publisher"]
    said = f"{document['windows']} windows in {document['seconds']:.0f} s, {document['windows_a_second']:g} a second"
    told = f"{publisher['sent']:.0f} messages acknowledged, {loop['verdicts']:.0f} verdicts"
    return [f"{said}; {told}; {document['log_lines']} lines of log; asked: nothing grows"]


COMMAND = Benchmark("soak", __doc__, "nothing: what must hold, holds or does not", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
