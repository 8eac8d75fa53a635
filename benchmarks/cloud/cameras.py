"""`python -m benchmarks.cameras`: one bridge under 10 to 2,000 cameras that send a release a second.

    cameras_feeder.py, a process: releases on time --> Mosquitto --> `python -m cloud_bridge`, with the real member
                                  verdicts, timed  <--

The feeder has signed everything before it begins, so that it is on time; the time of a verdict is from the moment when
its release was published to the moment when a subscriber has it. `--picture FILE.svg` draws the table. `--overload 3`
measures something else: three times as many cameras as the bridge can read, and floods (`overload.py`).

Must hold: every release is read, and every verdict that is missing was counted as shed; none is missing, and p99 is a
second at most, up to 0.8 of what the bridge reads from a standing queue; 500 cameras a core; 100 KB a camera.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sqlite3
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broker import Mosquitto, child_env
from benchmarks.cloud import overload
from benchmarks.cloud.bridge import verdicts_per_s
from benchmarks.cloud.cameras_feeder import SITE, key_of
from benchmarks.harness import CHECKPOINT, Child, add_checkpoint, add_engine, add_untimed, engine_folder
from benchmarks.runner import Benchmark, Report, write_text
from calibration.audit.drawing import Axis, Curve, chart
from cloud_bridge.ingest.events import EventReader, Release
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError

__all__ = ["COMMAND", "Load", "draw", "judge", "left_out"]

_SIZES = (10, 30, 100, 300, 1000, 2000)
_COUNTS = ("cameras", "releases/s", "verdicts/s", "unread", "missing", "shed")
_HEAD = (*_COUNTS, "p50 ms", "p99 ms", "CPU us", "a core", "PSS MB", "late ms")
_OVERLOAD_HEAD = ("what", _COUNTS[0], *_COUNTS[2:], "p50 ms", "p99 ms", "slowest ms", "load")
_START_S, _END_S = 180.0, 240.0
_MOST_MS, _MOST_KB, _A_CORE = 1000.0, 100.0, 500.0  # that we ask of ourselves
_ENOUGH = 300  # cameras; fewer make small batches, and say little about how many a core can read
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Load:
    """What one number of cameras came to.

    Attributes:
        cameras: That sent.
        sent_per_s: Releases that the feeder published a second; fewer than cameras where it was behind itself.
        verdicts_per_s: Verdicts that a subscriber got a second, up to the last one.
        unread: Releases that the bridge has not read.
        missing: Verdicts that did not come,
        shed: and those that the bridge counted as left out; not those of a camera that floods beside them.
        without_newest: Cameras whose last release has no verdict.
        p50_ms: Of publish to verdict,
        p99_ms: likewise,
        most_ms: and of the slowest.
        cpu_us: Processor time of the bridge for a release and its verdict.
        memory_kb: Of the bridge at the end, its own and its share of what it shares (PSS).
        late_ms: By how much the feeder was behind its own plan, at most.
    """

    cameras: int
    sent_per_s: float
    verdicts_per_s: float
    unread: int
    missing: int
    shed: int
    without_newest: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    cpu_us: float
    memory_kb: float
    late_ms: float


def _measure_one(
    cameras: int, seconds: int, engine: Path, checkpoint: Path, flood: int = 0, stranger: bool = False
) -> Load:
    """Run a broker, a bridge and a feeder for one number of cameras. Raises VeilsightError where one fails."""
    with tempfile.TemporaryDirectory(prefix="veilsight-cameras-") as name, Mosquitto(Path(name)) as broker:
        folder = Path(name)
        config = _write_bridge(folder, broker.port, cameras + 1, engine, checkpoint)  # one more, which may flood
        env = child_env(OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"))
        told, lines = folder / "told.json", folder / "lines.json"
        argv = [sys.executable, "-m", "cloud_bridge", "--config", str(config), "--json-lines", str(lines)]
        feeder = [sys.executable, "-m", "benchmarks.cloud.cameras_feeder", str(broker.port), str(cameras)]
        feeder += [str(seconds), str(engine), str(told), "--flood", str(flood), *(["--stranger"] if stranger else [])]
        with Child("bridge", argv, folder / "bridge.log", env) as bridge:
            bridge.wait_for_line("ready:", _START_S)
            with Child("feeder", feeder, folder / "feeder.log", env) as sender:
                sender.wait_for_line("sending", _START_S)
                before_s = _cpu_s(bridge.process.pid)
                if sender.wait(seconds + _END_S):
                    raise DataError(f"the feeder has failed:\n{sender.output()[-2000:]}")
                cpu_s = _cpu_s(bridge.process.pid) - before_s
            memory_kb = _memory_kb(bridge.process.pid)
            bridge.stop()
        found = json.loads(told.read_text())
        shed = int(json.loads(lines.read_text().splitlines()[-1])["shed"])
        with closing(sqlite3.connect(folder / "state" / "store.sqlite")) as store:
            flooder = f"{SITE}/c{cameras}"
            found["unread"] = cameras * seconds - len(_slots(store, "camera <> ?", flooder))
            found["shed"] = shed - left_out(store, flooder, EngineManifest.load(engine))
    return Load(cameras=cameras, cpu_us=1e6 * cpu_s / (cameras * seconds), memory_kb=memory_kb, **found)


def _slots(store: sqlite3.Connection, where: str, camera: str) -> list[int]:
    """Slots of the releases that were read, in order."""
    query = f"SELECT slot FROM releases JOIN cameras ON cameras.id = camera_id WHERE refused = '' AND {where}"
    return sorted(slot for (slot,) in store.execute(query, (camera,)))


def left_out(store: sqlite3.Connection, camera: str, manifest: EngineManifest) -> int:
    """Verdicts of one camera that were shed: those that follow from its releases, but are not in the store.

    That of its newest release is none of them: until another comes, it only waits.
    """
    reader = EventReader(camera, manifest.event_releases, manifest.tokens, manifest.width, manifest.weights)
    slots, z = _slots(store, "camera = ?", camera), np.zeros(manifest.n, np.int16)
    expected = {e.last_slot for slot in slots for e in reader.push(Release(camera, 1, slot, z, False, 0))}
    query = "SELECT last_slot FROM verdicts JOIN cameras ON cameras.id = camera_id WHERE camera = ?"
    return len(expected - {slot for (slot,) in store.execute(query, (camera,))} - {*slots[-1:]})


def _write_bridge(folder: Path, port: int, cameras: int, engine: Path, checkpoint: Path) -> Path:
    """The bridge's file."""
    lines = [
        f'[broker]\nurl = "mqtt://127.0.0.1:{port}"',
        f'[model]\ncheckpoint = "{checkpoint}"\nengine = "{engine}"\nthreads = 1',
        f'[state]\ndir = "{folder / "state"}"',
    ]
    for number in range(cameras):
        key = key_of(number).public.hex
        lines.append(f'[[cameras]]\nsite = "{SITE}"\ncamera = "c{number}"\npublic_key = "{key}"')
    path = folder / "bridge.toml"
    path.write_text("\n".join(lines))
    return path


def _cpu_s(process: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _memory_kb(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def _kb_a_camera(loads: Sequence[Load]) -> float:
    """Memory that a camera takes: the growth from the smallest number to the largest."""
    few, many = loads[0], loads[-1]
    return (many.memory_kb - few.memory_kb) / max(1, many.cameras - few.cameras)


def draw(loads: Sequence[Load]) -> str:
    """The table as SVG text; both axes are logarithmic."""
    ticks = tuple(math.log10(load.cameras) for load in loads)
    names = {tick: f"{load.cameras:,}" for tick, load in zip(ticks, loads, strict=True)}
    along = Axis("cameras, one release a second each", ticks[0], ticks[-1], ticks, names)
    highest = max(4, math.ceil(math.log10(max(load.p99_ms for load in loads))))
    powers = {float(k): f"{10**k:,}" for k in range(highest + 1)}
    up = Axis("ms, a second, or cameras", 0.0, float(highest), tuple(powers), powers)

    def curve(name: str, values: Sequence[float], colour: str) -> Curve:
        return Curve(name, [*zip(ticks, (math.log10(max(1.0, v)) for v in values), strict=True)], colour)

    curves = [
        curve("verdicts a second", [load.verdicts_per_s for load in loads], "#198754"),
        curve("publish to verdict, p99, ms", [load.p99_ms for load in loads], "#b02a37"),
        curve("... p50, ms", [load.p50_ms for load in loads], "#0a58ca"),
        curve("cameras a core could read", [1e6 / load.cpu_us for load in loads], "#6f42c1"),
    ]
    return chart(curves, along, up, marks={}, levels={math.log10(_MOST_MS): "p99 at most, 1 s"})


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_checkpoint(parser)
    parser.add_argument("--cameras", type=int, nargs="+", default=[*_SIZES], help="how many, one run for each")
    parser.add_argument("--seconds", type=int, default=30, help="of sending, in each run (default 30)")
    parser.add_argument("--overload", type=float, default=0.0, metavar="TIMES", help="more than it reads, and floods")
    parser.add_argument("--short", action="store_true", help="of an overload: all at once, in one run")
    add_untimed(parser)
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw it there, too")


def _measure(args: argparse.Namespace) -> Report:
    engine, checkpoint = engine_folder(args), (args.checkpoint or CHECKPOINT).absolute()
    if args.overload:
        return _overload(args, engine, checkpoint)
    able, loads = verdicts_per_s(EngineManifest.load(engine), checkpoint), list[Load]()
    for cameras in sorted(args.cameras):
        loads.append(_measure_one(cameras, args.seconds, engine, checkpoint))
        print(f"{cameras} cameras: p99 {loads[-1].p99_ms:.0f} ms, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    if args.picture:
        write_text(args.picture, draw(loads))
    rows = [[*_HEAD], *(_row(load) for load in loads)]
    kb = _kb_a_camera(loads)
    figures = {
        "loads": [{name: getattr(load, name) for name in Load.__slots__} for load in loads],
        "kb_a_camera": kb,
        "most_kb": _MOST_KB,
        "standing_verdicts_per_s": able,
    }
    notes = [
        f"from a standing queue {able:.0f} verdicts/s: p99 is judged up to {overload.MOST_LOAD * able:.0f} cameras",
        f"memory a camera: {kb:.0f} KB, from {loads[0].cameras} to {loads[-1].cameras} cameras",
        "CPU us: the bridge's for a release and its verdict; a core: cameras that it can read; late: the feeder itself",
    ]
    return Report(loads[-1].p99_ms / _MOST_MS, figures, rows, notes, judge(loads, able, not args.untimed))


def judge(loads: Sequence[Load], able: float, timed: bool) -> list[str]:
    """What must hold and does not.

    Args:
        loads: From few cameras to many.
        able: Verdicts a second that the bridge makes from a standing queue.
        timed: Judge times and processor time, too.
    """
    wrong = [each for load in loads for each in overload.lost(f"{load.cameras} cameras", load)]
    within = [load for load in loads if load.cameras <= overload.MOST_LOAD * able]
    for load in within if timed else ():
        if not load.p99_ms <= _MOST_MS or load.missing:
            missing = f"{load.missing} verdicts missing, not 0"
            wrong.append(f"{load.cameras} cameras: p99 {load.p99_ms:.0f} ms, {_MOST_MS:.0f} at most; {missing}")
    many = [load for load in loads if load.cameras >= _ENOUGH]
    best = max((1e6 / load.cpu_us for load in many if not load.missing), default=0.0)
    if timed and many and best < _A_CORE:
        of = f"of {_ENOUGH} cameras or more with every verdict"
        wrong.append(f"{best:.0f} cameras a core, {_A_CORE:.0f} at least, by the best fleet {of}")
    if _kb_a_camera(loads) > _MOST_KB:
        wrong.append(f"{_kb_a_camera(loads):.0f} KB a camera; {_MOST_KB:.0f} at most")
    return wrong


def _overload(args: argparse.Namespace, engine: Path, checkpoint: Path) -> Report:
    def run(name: str, cameras: int, flood: int, stranger: bool) -> overload.Part:
        load = asdict(_measure_one(cameras, args.seconds, engine, checkpoint, flood, stranger))
        said: Mapping[str, Any] = {each: load[each] for each in overload.Part.__slots__ if each in load}
        return overload.Part(name=name, load=os.getloadavg()[0], **said)

    able, parts = overload.measure(args.overload, engine, checkpoint, run, args.short)
    wrong = [each for part in parts for each in overload.lost(part.name, part)]
    wrong += [] if args.short or args.untimed else overload.judge(parts)
    figures = {"verdicts_per_s": able, "parts": [asdict(part) for part in parts]}
    notes = [f"it reads {able:.0f} verdicts/s from a standing queue"]
    rows = [[*_OVERLOAD_HEAD], *map(overload.row, parts)]
    return Report(parts[0 if args.short else 1].most_ms / _MOST_MS, figures, rows, notes, wrong)


def _row(load: Load) -> list[str]:
    rates = [f"{load.sent_per_s:.0f}", f"{load.verdicts_per_s:.0f}"]
    rates += [str(load.unread), str(load.missing), str(load.shed)]
    times = [f"{load.p50_ms:.0f}", f"{load.p99_ms:.0f}"]
    return [
        str(load.cameras),
        *rates,
        *times,
        f"{load.cpu_us:.0f}",
        f"{1e6 / load.cpu_us:.0f}",
        f"{load.memory_kb / 1024:.0f}",
        f"{load.late_ms:.0f}",
    ]


COMMAND = Benchmark("cameras", __doc__, "the p99 that we ask of the largest fleet, 1 s", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
