"""`python -m benchmarks.fuzz`: hostile messages on every topic and hostile requests, beside one genuine camera.

    a process: fuzzed MQTT messages, and a genuine camera --> Mosquitto --> the bridge, in this process
    a process: fuzzed requests of every operation, broken HTTP ------------> its API

Must hold: nothing ends the bridge or gives a status of 500, no message takes more than 10 ms of its thread until it is
taken or refused, and no request but an export, which is as long as what it takes out, more than 100 ms of its own;
whatever the genuine camera had acknowledged is in the store and was read; memory and log do not grow with the messages.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import io
import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.routing import APIRoute

from benchmarks.broker import Mosquitto, free_port
from benchmarks.cloud.fuzz_api import Ask, ask
from benchmarks.cloud.fuzz_feeder import GENUINE, SITE, Feed, feed, keys
from benchmarks.harness import CHECKPOINT, add_checkpoint, add_engine, engine_folder
from benchmarks.runner import Benchmark, Report
from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.tokens import add_token
from cloud_bridge.commands.desk import CommandConfig
from cloud_bridge.config import BridgeConfig, CameraConfig
from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.ingest.events import Taken
from cloud_bridge.ingest.session import CameraSession
from cloud_bridge.log import BoundedRate
from cloud_bridge.models import Model, by_id
from cloud_bridge.service import Service
from cloud_bridge.store.database import StoreConfig
from cloud_bridge.store.store import Store
from cloud_bridge.timeline import Timeline
from wire.arguments import at_least_one
from wire.artifact.manifest import EngineManifest
from wire.broker import BrokerConfig
from wire.protocol.keys import DeviceKey

__all__ = ["COMMAND"]

_LOG_BYTES_A_MINUTE = 1024  # for each camera
_PAGE = 4096
_EXPORT = "/v1/export/"  # as long as what it takes out
_END_S = 60.0
_SETTLE_S = 5.0


@dataclass
class _Meter:
    """What the bridge's thread spends on messages.

    Attributes:
        bound_s: What one message may take.
        read: Shared with the sender: messages that were taken or dropped.
        dropped: What the mailbox counts.
        count: Messages that sessions took.
        long: Topic's name -> messages that took more than that.
        longest_s: Topic's name -> the longest of them, of this thread's processor time.
        worst: The beginning of the message that took longest.
    """

    read: Any
    bound_s: float
    dropped: Counter[str] = field(default_factory=Counter)
    count: int = 0
    long: Counter[str] = field(default_factory=Counter)
    longest_s: dict[str, float] = field(default_factory=dict)
    worst: str = ""

    def watch(self, session: CameraSession) -> None:
        """Measure what a session takes."""
        receive = session.receive

        def measured(name: str, payload: bytes, *rest: Any) -> Taken:
            began = time.thread_time()
            taken = receive(name, payload, *rest)
            self._take(name, payload, time.thread_time() - began)
            return taken

        setattr(session, "receive", measured)  # noqa: B010 - this session's alone

    def _take(self, name: str, payload: bytes, took_s: float) -> None:
        self.count += 1
        self.read.value = self.count + self.dropped.total()
        if took_s > max(self.longest_s.values(), default=0.0):
            self.worst = f"{name}: {len(payload)} bytes, {payload[:60]!r}"
        self.longest_s[name] = max(self.longest_s.get(name, 0.0), took_s)
        self.long[name] += took_s > self.bound_s


class _Requests:
    """What the API's threads spend on requests.

    Attributes:
        longest_ms: Operation -> the longest of its function's processor time; the making of JSON is not in it.
    """

    def __init__(self) -> None:
        self.longest_ms, self._lock = dict[str, float](), threading.Lock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure every API that is made within the block."""
        from cloud_bridge.api import server
        from cloud_bridge.api.routes import make_app

        def making(*parts: Any) -> Any:
            app = make_app(*parts)
            for route in app.routes:
                if isinstance(route, APIRoute) and not inspect.iscoroutinefunction(route.endpoint):
                    name = f"{min(route.methods or {''})} {route.path}"
                    route.dependant.call = self._measured(name, route.endpoint)
            return app

        setattr(server, "make_app", making)  # noqa: B010 - for this block alone
        try:
            yield
        finally:
            setattr(server, "make_app", make_app)  # noqa: B010

    def _measured(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def measured(**values: Any) -> Any:
            began = time.thread_time()
            try:
                return function(**values)
            finally:
                took_ms = round(1e3 * (time.thread_time() - began), 2)
                with self._lock:
                    self.longest_ms[name] = max(self.longest_ms.get(name, 0.0), took_ms)

        return measured


class _Log(logging.Handler):
    """Counts what is logged, and keeps the first lines."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(BoundedRate())
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.bytes, self.lines, self.first = 0, 0, list[str]()
        self.kinds = Counter[str]()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        self.bytes, self.lines = self.bytes + len(line), self.lines + 1
        self.kinds[f"{record.name}: {record.msg}"[:90]] += 1
        if len(self.first) < 200 and (record.exc_info or len(self.first) < 50):
            self.first.append(line)


class _Samples:
    """Memory and log, once a second."""

    def __init__(self, log: _Log, meter: _Meter) -> None:
        self._log, self._meter, self._over = log, meter, threading.Event()
        self.rows = list[tuple[float, int, int, int]]()  # seconds, resident bytes, log bytes, messages
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(1.0):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
            self.rows.append((time.monotonic() - began, resident, self._log.bytes, self._meter.count))

    def __enter__(self) -> _Samples:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def figures(self) -> dict[str, float]:
        """Growth over the second half, by straight lines through it."""
        rows = np.array(self.rows[len(self.rows) // 2 :], float)
        if len(rows) < 3:
            return {"memory_growth_bytes": 0.0, "bytes_a_message": 0.0, "log_bytes_a_minute": 0.0}
        span_s, seen = rows[-1, 0] - rows[0, 0], max(1.0, rows[-1, 3] - rows[0, 3])
        growth = float(np.polyfit(rows[:, 0], rows[:, 1], 1)[0] * span_s)
        return {
            "memory_growth_bytes": round(growth),
            "bytes_a_message": round(growth / seen, 2),
            "log_bytes_a_minute": round((rows[-1, 2] - rows[0, 2]) / span_s * 60.0),
        }


class _Nowhere(io.StringIO):
    """Where the timeline goes."""

    def write(self, text: str) -> int:
        return len(text)


def _config(broker: int, api: int, folder: Path) -> BridgeConfig:
    DeviceKey.new().save(folder / "operator.key")
    return BridgeConfig(
        cameras=tuple(CameraConfig(SITE, name, key.public.hex) for name, key in keys().items()),
        broker=BrokerConfig(f"mqtt://127.0.0.1:{broker}"),
        api=ApiConfig(f"127.0.0.1:{api}", str(folder / "tokens.json"), requests_per_s=1e6, burst=1e6),
        commands=CommandConfig(str(folder / "operator.key")),
    )


def _tokens(file: Path) -> dict[str, str]:
    sites = {"viewer": "*", "nurse": "*", "operator": "*", "admin": "elsewhere"}
    return {role: add_token(file, role, role, [site], 1.0) for role, site in sites.items()}


@dataclass
class _Campaign:
    """One run, and what came of it."""

    messages: int
    seconds: float
    seed: int
    bound_ms: float
    request_bound_ms: float
    engine: Path
    checkpoint: Path
    told: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    requests: _Requests = field(default_factory=_Requests)

    def run(self, folder: Path, log: _Log) -> tuple[_Meter, _Samples]:
        """Run it to its end."""
        spawn = multiprocessing.get_context("spawn")
        read, done, stop, end = spawn.Value("q", 0, lock=False), spawn.Event(), spawn.Event(), spawn.Event()
        queues = (spawn.Queue(), spawn.Queue())
        api = free_port()
        meter, manifest = _Meter(read, self.bound_ms / 1e3), EngineManifest.load(self.engine)
        with ExitStack() as stack:
            broker = stack.enter_context(Mosquitto(folder))
            asks = Ask(f"http://127.0.0.1:{api}", _tokens(folder / "tokens.json"), self.seed, stop, queues[1])
            feeds = Feed(broker.port, self.seed, self.engine, self.messages, read, done, stop, end, queues[0])
            store = Store.open(StoreConfig(), folder)
            stack.callback(store.close)
            member, key = FamilyMember.load(self.checkpoint, manifest, 1), DeviceKey.new()
            config = _config(broker.port, api, folder)
            service = Service(
                config, by_id(Model(Engine(manifest), member)), key, store, Timeline(_Nowhere(), _Nowhere())
            )
            meter.dropped = service._mailbox.dropped
            for session in service.bridge.sessions.values():
                meter.watch(session)
            samples = stack.enter_context(_Samples(log, meter))
            stack.enter_context(self.requests.watching())
            made = [spawn.Process(target=feed, args=(feeds,)), spawn.Process(target=ask, args=(asks,))]
            clock = _Clock(self, done, stop, end, queues, made)
            try:
                self.stats = service.run(clock.over)
            except Exception as error:
                logging.getLogger("cloud_bridge").exception("the bridge has ended")
                self.crashes.append(repr(error))
            finally:
                clock.finish()
        return meter, samples


class _Clock:
    """Starts the senders once the bridge is ready, and ends them, then the bridge. Asked after each batch."""

    def __init__(
        self, campaign: _Campaign, done: Any, stop: Any, end: Any, queues: Sequence[Any], processes: Sequence[Any]
    ) -> None:
        self._campaign, self._done, self._stop, self._end, self._queues = campaign, done, stop, end, queues
        self._processes, self._began_s, self._ends_s = processes, 0.0, 0.0

    def over(self) -> bool:
        """Whether the bridge is to end."""
        now_s = time.monotonic()
        if not self._began_s:
            self._began_s = now_s
            for process in self._processes:
                process.daemon = True
                process.start()
        done = now_s - self._began_s > self._campaign.seconds or self._done.is_set()
        done = done or not self._processes[0].is_alive()
        if done and not self._ends_s:
            self._stop.set()
            self._end.set()
            self._ends_s = now_s
        for queue, into in zip(self._queues, (self._campaign.told, self._campaign.asked), strict=True):
            if not into and not queue.empty():
                into.update(queue.get())
        told = bool(self._campaign.told and self._campaign.asked)
        if self._ends_s and told:
            return now_s - self._ends_s > _SETTLE_S
        return bool(self._ends_s) and now_s - self._ends_s > _END_S

    def finish(self) -> None:
        """End what still runs."""
        self._stop.set()
        self._end.set()
        for process in self._processes:
            if process.pid is not None:
                process.join(_SETTLE_S)
                process.kill()


def _stored(store: Path) -> dict[int, str]:
    """Slot -> why it was not read, of the genuine camera's releases in the store."""
    import sqlite3

    with sqlite3.connect(store) as connection:
        query = "SELECT slot, refused FROM releases JOIN cameras ON cameras.id = camera_id WHERE camera = ?"
        return dict(connection.execute(query, (f"{SITE}/{GENUINE}",)).fetchall())


def _judge(
    campaign: _Campaign, meter: _Meter, samples: _Samples, log: _Log, stored: Mapping[int, str], growth_mb: float
) -> list[str]:
    """What does not hold."""
    slots, grown = campaign.told.get("acknowledged", []), samples.figures()
    lost = [slot for slot in slots if stored.get(slot) != ""]
    wrong = [f"the bridge has ended: {crash}" for crash in campaign.crashes]
    wrong += [f"the API: {each}" for each in campaign.asked.get("wrong", ["its sender did not answer"])]
    wrong += [f"in the log: {line.splitlines()[-1]}" for line in log.first if "Traceback" in line]
    if not slots or lost:
        wrong.append(f"{len(lost)} of {len(slots)} genuine releases are not in the store, or were not read: {lost[:9]}")
    if meter.long.total():
        wrong.append(f"{meter.long.total()} messages took more than {campaign.bound_ms:g} ms; the worst: {meter.worst}")
    bound_ms, slowest = campaign.request_bound_ms, campaign.requests.longest_ms
    late = {name: took for name, took in slowest.items() if took > bound_ms and _EXPORT not in name}
    wrong += [f"{name} took {took:.0f} ms; {bound_ms:g} at most" for name, took in late.items()]
    if not slowest:
        wrong.append("no operation of the API was timed")
    if grown["memory_growth_bytes"] > growth_mb * 1e6:
        wrong.append(f"memory grew by {grown['memory_growth_bytes'] / 1e6:.0f} MB over the second half")
    if grown["log_bytes_a_minute"] > _LOG_BYTES_A_MINUTE * len(keys()):
        wrong.append(f"the log grew by {grown['log_bytes_a_minute']:.0f} bytes a minute over the second half")
    return wrong


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_checkpoint(parser)
    parser.add_argument("--messages", type=at_least_one, default=1_000_000, help="at most (default 1000000)")
    parser.add_argument("--seconds", type=float, default=1200.0, help="end after so long (default 1200)")
    parser.add_argument("--bound-ms", type=float, default=10.0, help="that one message may take (default 10)")
    parser.add_argument("--request-bound-ms", type=float, default=100.0, help="likewise a request (default 100)")
    parser.add_argument("--growth-mb", type=float, default=24.0, help="of memory, over the second half (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="of the messages and requests (default 0)")


def _measure(args: argparse.Namespace) -> Report:
    where = (engine_folder(args), (args.checkpoint or CHECKPOINT).absolute())
    bounds = (args.messages, args.seconds, args.seed, args.bound_ms, args.request_bound_ms)
    campaign, log, began = _Campaign(*bounds, *where), _Log(), time.monotonic()
    root = logging.getLogger()
    root.addHandler(log)
    try:
        with tempfile.TemporaryDirectory(prefix="veilsight-fuzz-") as name:
            meter, samples = campaign.run(Path(name), log)
            stored = _stored(Path(name) / "store.sqlite")
    finally:
        root.removeHandler(log)
    wrong = _judge(campaign, meter, samples, log, stored, args.growth_mb)
    figures = _figures(campaign, meter, samples, log, stored) | {"seconds": round(time.monotonic() - began)}
    return _report(campaign, figures, meter, log, wrong)


def _figures(
    campaign: _Campaign, meter: _Meter, samples: _Samples, log: _Log, stored: Mapping[int, str]
) -> dict[str, Any]:
    kinds, asked = campaign.told.get("kinds", {}), campaign.asked
    return {
        "messages": sum(kinds.values()),
        "read_by_the_bridge": meter.count,
        "requests": asked.get("cases", 0),
        "streams": asked.get("streams", 0),
        "broken_requests": asked.get("raw", 0),
        "crashes": len(campaign.crashes),
        "genuine": len(campaign.told.get("acknowledged", [])),
        "genuine_stored": sum(refused == "" for refused in stored.values()),
        "longest_ms": {name: round(took * 1e3, 2) for name, took in sorted(meter.longest_s.items())},
        "longest_request_ms": dict(sorted(campaign.requests.longest_ms.items())),
        "longest_answer_ms": asked.get("longest_ms", 0.0),
        **samples.figures(),
        "log_bytes": log.bytes,
        "verdicts": campaign.stats.get("verdicts", 0),
        "alerts": campaign.stats.get("alerts", 0),
    }


def _report(campaign: _Campaign, figures: Mapping[str, Any], meter: _Meter, log: _Log, wrong: Sequence[str]) -> Report:
    kinds, asked = campaign.told.get("kinds", {}), campaign.asked
    longest = max(meter.longest_s.values(), default=0.0) * 1e3
    rows = [["what", "figure"]]
    rows += [[name.replace("_", " "), f"{n}"] for name, n in figures.items() if type(n) is not dict]
    rows += [["longest of one message, ms", f"{longest:.2f}"]]
    slowest = sorted(campaign.requests.longest_ms.items(), key=lambda each: -each[1])[:3]
    rows += [[f"longest of {name}, ms", f"{took:.0f}"] for name, took in slowest]
    rows += [[f"kind: {name}", str(n)] for name, n in kinds.items()]
    refused = {**campaign.stats.get("refused", {})}
    document = {**figures, "kinds": kinds, "statuses": asked.get("statuses", {}), "refused": refused}
    return Report(None, {**document, "log": log.kinds.most_common(12)}, rows, wrong=wrong)


COMMAND = Benchmark("fuzz", __doc__, "nothing: what must hold, holds or does not", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
