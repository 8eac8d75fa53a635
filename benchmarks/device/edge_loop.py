"""`python -m benchmarks.edge_loop`: what the device's own work costs, against the least that would do.

CPU     asking the eye, charging, sampling, the core, checking, packing, signing and publishing a release, with the
        gate's own parts and an eye in another process that answers at once,
        against a bare Ed25519 signature and paho publish of as many bytes: same process, same broker, QoS 1, CPU of
        all threads, in turns; the cost of waiting between releases is measured alone and subtracted from both.
Latency the real gate, from a slot's end to its release (by its own clock; the release waits for its deadline).
CPU in all   gate, eye and reader in real time, decoding and networks included, as a share of one core.
Memory  gate, eye and reader (PSS) against one process that holds the same encode.onnx, and perceive.onnx where there is
        one, in ONNX Runtime and has run them.
Start   from starting the process to the first message, and to the first release, that a subscriber hears.

The eye's inference and the decoding of video are not part of the CPU figure; how long the gate waits for it is listed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks.broker import child_env, end
from benchmarks.demo_source import rendered_clip
from benchmarks.device.fake_eye import fake_eye
from benchmarks.device.processes import family, resident
from benchmarks.harness import Child, Rig, add_engine, engine_folder, running_rig
from benchmarks.listener import Listener
from benchmarks.runner import Benchmark, Report
from edge_runtime.config import load_config
from edge_runtime.gate.children import Child as EyeProcess
from edge_runtime.gate.clients import EyeClient
from edge_runtime.gate.core import release
from edge_runtime.gate.ledger import Ledger
from edge_runtime.gate.sampler import Sampler
from edge_runtime.uplink.publisher import Publisher, fill_message
from wire.arguments import at_least_one
from wire.artifact.engine_record import engine_parts
from wire.artifact.interface import GRAPHS
from wire.artifact.manifest import FILES, EngineManifest
from wire.errors import VeilsightError
from wire.privacy.noise_check import NoiseCheck
from wire.privacy.noise_table import NoiseTable
from wire.protocol.message import coarse_time, features_size

__all__ = ["COMMAND", "cpu_per_window", "memory", "process"]

_PAUSE_S = 0.003
_ROUNDS = 10
_ROWS = (
    "the device",
    "slot end to publish, p50 ms",
    "... p99 ms",
    "answer of the eye, p50 ms",
    "... p99 ms",
    "windows",
    "... of noise alone",
    "processor time of the three processes, % of a core",
    "memory of the three processes, PSS, MB",
    "... above bare ONNX Runtime",
    "start to first message, s",
    "... to first release, s",
)
_BARE_RUNTIME = """
import sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
types = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32}
sessions = [ort.InferenceSession(name, options, providers=["CPUExecutionProvider"]) for name in sys.argv[1:]]
for session in sessions:
    session.run(None, {i.name: np.zeros(i.shape, types[i.type]) for i in session.get_inputs()})
print("ready", flush=True)
time.sleep(60)
"""


def _paced(work: Callable[[int], None], first: int, count: int) -> float:
    """CPU seconds of this process, all threads, for `count` calls with a pause after each."""
    begin = time.process_time()
    for number in range(first, first + count):
        work(number)
        time.sleep(_PAUSE_S)
    return time.process_time() - begin


@contextlib.contextmanager
def _ours(rig: Rig) -> Iterator[Callable[[int], None]]:
    """One window's work with the gate's own parts, and an eye that answers at once."""
    manifest, engine = rig.manifest, rig.engine
    config = load_config(rig.edge_config("synthetic://walk", camera="loop"))
    key = rig.key("loop")
    table = NoiseTable.load(engine / FILES["noise_table"], manifest.hashes["noise_table"])
    sampler = Sampler(table, manifest.n)
    check = NoiseCheck(manifest.sigma, manifest.n, manifest.event_releases)
    price = Fraction(manifest.clip_norm) ** 2 / manifest.sigma**2
    certificate = (engine / FILES["certificate"]).read_bytes()
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(
            contextlib.closing(
                Ledger(Path(config.device_state_dir), price, manifest.window.slot_s, key_id=key.public.hex)
            )
        )
        publisher = stack.enter_context(Publisher(config, key, {"boot_id": 1}, certificate))
        eye = EyeClient(EyeProcess("eye", lambda: fake_eye(manifest.n), lambda: b"{}"), manifest.n, follows=False)
        stack.callback(eye.close)

        def work(slot: int) -> None:
            charge = ledger.charge(slot)
            code = eye.code(slot, 1.0)
            with sampler.draw() as noise:
                z = release(code, noise, manifest.clip_norm)
            check.check(z)
            message = fill_message(1, manifest.model_id, charge, z, 0, 0, coarse_time(time.time()))
            publisher.send("features", message.seal(key, config.device_site, config.device_camera))

        yield work
        publisher.reason = "benchmark over"


@contextlib.contextmanager
def _bare(rig: Rig, size: int) -> Iterator[Callable[[int], None]]:
    """A signature and a publish of `size` bytes, with nothing around them."""
    key = rig.key("bare")
    body = os.urandom(size - 64)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect("127.0.0.1", rig.broker.port)
    client.loop_start()
    deadline = time.monotonic() + 10
    while not client.is_connected() and time.monotonic() < deadline:
        time.sleep(0.01)

    def work(slot: int) -> None:
        client.publish("veilsight/v1/site/bare/features", body + key.sign(body), qos=1)

    yield work
    end(client)


def cpu_per_window(rig: Rig, windows: int) -> dict[str, float]:
    """Microseconds of CPU a window: ours, the bare work, and the pause, which is subtracted from both."""
    size = features_size(rig.manifest.n)
    share = max(10, windows // _ROUNDS)
    spent: dict[str, list[float]] = {"ours": [], "bare": [], "pause": []}
    with _ours(rig) as ours, _bare(rig, size) as bare:
        works: dict[str, Callable[[int], None]] = {"ours": ours, "bare": bare, "pause": lambda slot: None}
        for work in works.values():
            _paced(work, 0, 50)  # first calls load what later ones have
        for turn in range(_ROUNDS):
            for name, work in works.items():
                spent[name].append(_paced(work, 50 + turn * share, share) / share * 1e6)
    pause = float(np.median(spent["pause"]))
    return {
        "ours_us": float(np.median(spent["ours"])) - pause,
        "bare_us": float(np.median(spent["bare"])) - pause,
        "pause_us": pause,
        "payload_bytes": size,
        "windows": share * _ROUNDS,
    }


def _resident_together(pid: int) -> dict[str, float]:
    """Rss and Pss in MB of a process and of those that it started, in sum."""
    sizes = [resident(each) for each in family(pid).values()]
    return {name: sum(size.get(name, 0.0) for size in sizes) for name in ("rss", "pss")}


def _cpu_together(pid: int) -> float:
    """Processor seconds of a process and of those that it started, so far."""
    spent = (Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in family(pid).values())
    return sum(int(fields[11]) + int(fields[12]) for fields in spent) / os.sysconf("SC_CLK_TCK")


def memory(engine: Path) -> dict[str, float]:
    """What a bare ONNX Runtime process with the eye's graphs holds."""
    graphs = [str(engine / GRAPHS[part]) for part in engine_parts(EngineManifest.load(engine))]
    command = [sys.executable, "-c", _BARE_RUNTIME, *graphs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=child_env(OMP_NUM_THREADS="1")) as process:
        try:
            assert process.stdout is not None  # asked for above
            process.stdout.readline()
            return resident(process.pid)
        finally:
            process.kill()


def process(rig: Rig, listener: Listener, source: str, windows: int, speed: float) -> dict[str, Any]:
    """A run of the real edge process: start, memory, and its own figures."""
    start = len(listener.records())
    began = time.time()
    with rig.edge(source, speed=speed, windows=windows) as edge:
        size, busy = _watch(edge, listener, start, windows)
        if edge.wait(60) != 0:
            raise VeilsightError(f"the edge process failed:\n{edge.output()[-2000:]}")
    records = listener.records(start)
    first = [record.at for record in records if not record.retained]
    features = [record.at for record in records if record.topic.endswith("/features")]
    figures = rig.summary()
    loop = figures["loop"]
    return {
        "first_message_s": first[0] - began,
        "first_release_s": features[0] - began,
        "resident_mb": size,
        "busy": busy,
        "latency_ms": {"p50": loop["latency_ms_p50"], "p99": loop["latency_ms_p99"]},
        "answer_ms": {"p50": loop["answer_ms_p50"], "p99": loop["answer_ms_p99"]},
        "loop_cpu_us": {"p50": loop["own_us_p50"], "p99": loop["own_us_p99"]},
        "windows": loop["windows"],
        "alone": loop["alone"],
        "cpu_s": figures["cpu_s"],
    }


def _watch(edge: Child, listener: Listener, start: int, windows: int) -> tuple[dict[str, float], float]:
    """Memory of the device's processes in the second half of a run, at its largest, and cores that they kept busy."""
    largest: dict[str, float] = {}
    times: list[tuple[float, float]] = []  # of the clock, and of the processor
    while edge.running:
        released = sum(r.topic.endswith("/features") for r in listener.records(start))
        if released > windows // 2:
            try:
                now = _resident_together(edge.process.pid)
                times.append((time.monotonic(), _cpu_together(edge.process.pid)))
            except OSError:
                break  # it ended meanwhile
            largest = max(largest, now, key=lambda size: size.get("pss", 0.0))
        time.sleep(0.2)
    times = times[: 1 + max(range(len(times)), key=lambda index: times[index][1], default=0)]  # then children end
    (began, before), (ended, after) = (times[0], times[-1]) if len(times) > 1 else ((0.0, 0.0), (1.0, 0.0))
    return largest, (after - before) / (ended - began)


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument("--windows", type=at_least_one, default=2000, help="for the CPU figure (default 2000)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run of the real process (default 15)")


def _measure(args: argparse.Namespace) -> Report:
    engine = engine_folder(args)
    clip, _ = rendered_clip()
    with running_rig("loop", engine) as (rig, listener):
        windows = max(4, round(args.seconds / rig.manifest.window.slot_s))
        sources = {"file": str(clip), "synthetic": "synthetic://walk"}
        runs = {name: process(rig, listener, source, windows, 1.0) for name, source in sources.items()}
        cpu = cpu_per_window(rig, args.windows)
        broker = type(rig.broker).__name__
    return _report(cpu, memory(engine), runs, broker)


def _report(cpu: dict[str, float], bare: dict[str, float], runs: dict[str, dict[str, Any]], broker: str) -> Report:
    above = {name: run["resident_mb"].get("pss", 0.0) - bare.get("pss", 0.0) for name, run in runs.items()}
    columns = [
        [
            f"{name} source",
            *(f"{run[part][point]:.1f}" for part in ("latency_ms", "answer_ms") for point in ("p50", "p99")),
            f"{run['windows']:.0f}",
            f"{run['alone']:.0f}",
            f"{100 * run['busy']:.0f}",
            f"{run['resident_mb'].get('pss', 0):.1f}",
            f"{above[name]:+.1f}",
            f"{run['first_message_s']:.2f}",
            f"{run['first_release_s']:.2f}",
        ]
        for name, run in runs.items()
    ]
    rows = [*zip(_ROWS, *columns, strict=True)]
    notes = [f"CPU a window, all threads: ours {cpu['ours_us']:.0f} us, bare {cpu['bare_us']:.0f} us; broker {broker}"]
    figures = {"cpu": cpu, "runs": runs, "bare_runtime_mb": bare, "above_bare_mb": above, "broker": broker}
    return Report(cpu["ours_us"] / cpu["bare_us"], figures, rows, notes)


COMMAND = Benchmark("edge_loop", __doc__, "a bare Ed25519 sign + paho QoS 1 publish", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
