"""`python -m benchmarks.kills`: is every acknowledged release, and every alert, in the store once, whatever is killed?

    cameras, QoS 1 --> Mosquitto --> bridges: one for each of two shards, and spares --> SQLite or PostgreSQL
                           `--> a subscriber: verdicts and alerts
    with --ray: the bridges' member is on two Ray nodes

SIGKILL and SIGTERM, at random from a seed, of a bridge, the broker and the database, while the cameras publish; SQLite,
which is no process, is locked for some seconds. What was killed is started again. In the end the store must hold each
release once, and the verdicts and alerts that follow from these releases: none missing, none twice, no slot left out;
the subscriber must have got each, and what a nurse has acknowledged over the API stays so. A broker that is killed may
lose what it has acknowledged and not written to its disk yet, some seconds: such releases and messages are counted
beside. With --ray the second of two Ray nodes is killed, too, in the middle of what it reads: verdicts may then be of
the edge's exit, and none may be missing or twice.

Then, with nothing else broken, a bridge is killed and timed until another reads on, within 10 s; and subscribers that
were never there are timed until they know what is open, within 1 s.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.broker import held_ports
from benchmarks.cloud.kill_fleet import (
    CAMERAS,
    NURSE,
    SITE,
    Fleet,
    Nurse,
    PersistentMosquitto,
    Subscriber,
    late_subscriber_s,
    wavering,
    write_bridge,
)
from benchmarks.cloud.kill_judge import judge
from benchmarks.cloud.postgres import Postgres, running_postgres
from benchmarks.cloud.ray_cluster import RayCluster
from benchmarks.harness import CHECKPOINT, Child, add_checkpoint, add_engine, add_untimed, engine_folder
from benchmarks.runner import Benchmark, Report
from cloud_bridge.api.tokens import add_token
from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.store.shard import Shard
from wire.arguments import at_least_one
from wire.artifact.manifest import EngineManifest
from wire.errors import VeilsightError

__all__ = ["COMMAND", "too_late"]

_SHARDS, _PROCESSES = 2, 4
_PATIENCE_S, _PROGRESS_S = 240.0, 30.0
_RAY_SHARE = 8  # kills of a Ray node for each of the other kinds
_TAKEN_OVER_S, _KNOWN_S = 10.0, 1.0
_LATE = 5  # subscribers that come late
_MEMBER_S = 2.0  # the bridge's default patience with a server
_SUPERVISED = ("cannot be reached", "does not answer", "has closed the connection", "has taken our place")
"""Why a bridge may end by itself, to be started again: at its start no broker or database, or a broker that was killed
before it had answered; and a place it has lost."""


@dataclass
class _Campaign:
    """Bridges, a broker, a database, and what is done to them.

    Attributes:
        configs: The bridges' files, one for each process: they differ in the port of the API.
        store: The database, to be looked into.
        ray: Where the member is; None: in the bridges.
        kills: What was killed, and how -> how often.
        broker_killed_s: When the broker was killed without a chance to write.
        ended: Bridges that ended by themselves since the broker, the database or their place was away.
        exits: Last words of bridges that ended by themselves though nothing was away.
    """

    folder: Path
    configs: Sequence[Path]
    store: sa.Engine
    broker: PersistentMosquitto
    server: Postgres | None
    fleet: Fleet
    rng: random.Random
    ray: RayCluster | None = None
    kills: Counter[str] = field(default_factory=Counter)
    broker_killed_s: list[float] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)
    ended: int = 0
    _bridges: list[Child] = field(default_factory=list)
    _started: int = 0
    _ahead: list[Callable[[], None]] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How often something was killed."""
        return self.kills.total()

    def start(self) -> None:
        """Start the bridges, and wait until both shards are read."""
        while len(self._bridges) < _PROCESSES:
            self._bridges.append(self._start_one(len(self._bridges)))
        self._wait(lambda: len(self._readers()) >= _SHARDS, _PATIENCE_S, "no bridge is ready")

    def _start_one(self, number: int) -> Child:
        self._started += 1
        name = f"bridge-{self._started}"
        command = [sys.executable, "-m", "cloud_bridge", "--config", str(self.configs[number])]
        return Child(name, command, self.folder / f"{name}.log").__enter__()

    def _readers(self) -> list[Child]:
        return [each for each in self._bridges if each.running and "ready: " in each.output()]

    def tend(self) -> None:
        """Start bridges anew in place of those that have ended, as a supervisor does."""
        for number, each in enumerate(self._bridges):
            if not each.running:
                self._hear(each)
                self._bridges[number] = self._start_one(number)

    def _hear(self, ended: Child) -> None:
        """Note why a bridge has ended, where nobody has ended it."""
        words = (ended.output().strip().splitlines() or ["nothing"])[-1]
        if ended.process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 0):  # one that starts knows no SIGTERM yet
            return
        if ended.process.returncode == 2 and any(known in words for known in _SUPERVISED):
            self.ended += 1
        else:
            self.exits.append(f"status {ended.process.returncode}, {words[:300]}")

    def _wait(self, holds: Callable[[], bool], seconds: float, words: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                said = "\n".join(each.output()[-500:] for each in self._bridges)
                raise VeilsightError(f"{words} after {seconds:.0f} s; the bridges say:\n{said}")
            self.tend()
            time.sleep(0.05)

    def progress(self) -> int:
        """How far all cameras together were read; -1 while the database is away."""
        with contextlib.suppress(sa.exc.DBAPIError), self.store.connect() as connection:
            return int(connection.scalar(sa.text("SELECT sum(next_slot) FROM cameras")) or 0)
        return -1

    def strike(self) -> None:
        """Kill something, every kind once in a random order, then in another; wait until something is read again."""
        if not self._ahead:
            self._ahead = [self.kill_bridge, self.end_bridge, self.kill_bridge, self.end_bridge, self.kill_spare]
            self._ahead += [self.kill_broker, self.end_broker, *self._database_faults()]
            self._ahead += [self.kill_ray_node] * _RAY_SHARE if self.ray is not None else []
            self.rng.shuffle(self._ahead)
        self._ahead.pop()()
        before, deadline = self.progress(), time.monotonic() + _PROGRESS_S
        while time.monotonic() < deadline and not (before >= 0 and self.progress() > before):
            before = self.progress() if before < 0 else before
            self.tend()
            time.sleep(0.05)
        time.sleep(self.rng.uniform(0.0, 0.5))

    def _database_faults(self) -> list[Callable[[], None]]:
        return [self.kill_database, self.stop_database] if self.server is not None else [self.lock_database]

    def _end(self, what: str, children: list[Child], number: int) -> None:
        if children:
            victim = self.rng.choice(children)
            victim.process.send_signal(number)
            self.kills[f"{what}, {signal.Signals(number).name}"] += 1
            victim.wait(_PATIENCE_S)
        self.tend()

    def kill_bridge(self) -> None:
        """Kill a bridge that reads a shard."""
        self._end("bridge", self._readers(), signal.SIGKILL)

    def end_bridge(self) -> None:
        """Ask a bridge that reads a shard to end."""
        self._end("bridge", self._readers(), signal.SIGTERM)

    def kill_spare(self) -> None:
        """Kill a bridge that waits for a shard, or one that starts."""
        readers = self._readers()
        spares = [each for each in self._bridges if each.running and each not in readers]
        self._end("spare", spares, self.rng.choice((signal.SIGKILL, signal.SIGTERM)))

    def kill_broker(self) -> None:
        """Kill the broker."""
        self.broker_killed_s.append(time.time())
        self.broker.kill()
        self._away(self.broker.start)
        self.kills["broker, SIGKILL"] += 1

    def end_broker(self) -> None:
        """Ask the broker to end."""
        self.broker.stop()
        self._away(self.broker.start)
        self.kills["broker, SIGTERM"] += 1

    def kill_database(self) -> None:
        """Kill PostgreSQL."""
        assert self.server is not None
        self.server.kill()
        self._away(self.server.start)
        self.kills["PostgreSQL, SIGKILL"] += 1

    def stop_database(self) -> None:
        """Stop PostgreSQL: connections end at once."""
        assert self.server is not None
        self.server.stop("fast")
        self._away(self.server.start)
        self.kills["PostgreSQL, SIGINT"] += 1

    def lock_database(self) -> None:
        """Hold SQLite's one lock."""
        with contextlib.suppress(sa.exc.DBAPIError), self.store.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            time.sleep(self.rng.uniform(0.0, 4.0))
            connection.exec_driver_sql("ROLLBACK")
            self.kills["SQLite, locked"] += 1

    def kill_ray_node(self) -> None:
        """Kill a node of the cloud member's cluster while it reads, and add one in its place."""
        assert self.ray is not None
        self.ray.wait()
        self.ray.kill_node()
        self.kills["Ray node, SIGKILL"] += 1
        self._away(self.ray.add_node)

    def take_over(self) -> float:
        """Kill a bridge that reads, while a spare waits and nothing is broken; seconds until another has read on."""

        def whole() -> bool:
            spares = [each for each in self._bridges if each.running and each not in self._readers()]
            return len(self._readers()) >= _SHARDS and any("spare: waits" in each.output() for each in spares)

        self._wait(whole, _PATIENCE_S, "no spare waits")
        victim = self.rng.choice(self._readers())
        shard = Shard.parse(victim.output().partition("ready: ")[2].splitlines()[0].rpartition("shard ")[2].strip())
        cameras = [name for each in CAMERAS if shard.has(name := f"{SITE}/{each}")]
        victim.process.kill()
        killed_s = time.monotonic()
        victim.wait(_PATIENCE_S)
        self.kills["bridge, SIGKILL"] += 1
        before = self._read_to()
        self._wait(
            lambda: all(self._read_to()[name] > before[name] for name in cameras), _PATIENCE_S, f"nobody reads {shard}"
        )
        return time.monotonic() - killed_s

    def _read_to(self) -> Mapping[str, int]:
        """Camera -> its next slot."""
        with self.store.connect() as connection:
            return {row.camera: row.next_slot for row in connection.execute(sa.text("SELECT * FROM cameras"))}

    def _away(self, start: Callable[[], None]) -> None:
        time.sleep(self.rng.uniform(0.0, 2.0))
        start()

    def settle(self) -> None:
        """Let the bridges read everything, and publish all that follows."""
        self.fleet.stop()
        sent = {camera: slots[-1] + 1 for camera, slots in self.fleet.acknowledged().items() if slots}

        def read() -> bool:
            with contextlib.suppress(sa.exc.DBAPIError), self.store.connect() as connection:
                rows = connection.execute(sa.text("SELECT camera, next_slot FROM cameras")).all()
                found = {row.camera: row.next_slot for row in rows}
                waits = connection.scalar(sa.text("SELECT count(*) FROM outbox"))
                return waits == 0 and all(found.get(camera, 0) >= slot for camera, slot in sent.items())
            return False

        with contextlib.suppress(VeilsightError):  # what is missing then is told by the judge
            self._wait(read, _PATIENCE_S, "not everything is read")
        time.sleep(1.0)

    def stop(self) -> None:
        """End the bridges."""
        for each in self._bridges:
            each.stop()


@contextlib.contextmanager
def _database(kind: str, folder: Path) -> Iterator[tuple[str, Postgres | None, sa.Engine]]:
    """The `[store] url`, the server, and an engine to look into the store."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running_postgres()) if kind == "postgresql" else None
        url = server.new_database() if server is not None else ""
        at = url or f"sqlite:///{folder / 'state' / 'store.sqlite'}"
        engine = sa.create_engine(at, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        stack.callback(engine.dispose)
        yield url, server, engine


def _run(kind: str, args: argparse.Namespace, seconds: float) -> tuple[dict[str, Any], list[str]]:
    """One campaign on one kind of database."""
    engine, checkpoint = engine_folder(args), (args.checkpoint or CHECKPOINT).absolute()
    manifest = EngineManifest.load(engine)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="veilsight-kills-")))
        url, server, store = stack.enter_context(_database(kind, folder))
        broker = PersistentMosquitto(folder)
        stack.enter_context(broker)
        ray = stack.enter_context(RayCluster(checkpoint)) if args.ray else None
        model = {"checkpoint": str(checkpoint), "engine": str(engine), "threads": 1}
        model |= {"member": ray.member, "member_timeout_s": _MEMBER_S} if ray is not None else {}
        ports = stack.enter_context(held_ports(_PROCESSES))
        token = add_token(folder / "tokens.json", NURSE, "nurse", [SITE], 1.0)
        rule = wavering(FamilyMember.load(checkpoint, manifest, 1), manifest, args.seed)
        shared = (broker.port, model, url, f"any/{_SHARDS}", rule, folder / "tokens.json")
        configs = [write_bridge(folder / f"bridge-{port}.toml", *shared, port) for port in ports]
        subscriber = stack.enter_context(Subscriber(broker.port))
        fleet = stack.enter_context(Fleet(broker.port, manifest, args.seed))
        campaign = _Campaign(folder, configs, store, broker, server, fleet, random.Random(args.seed), ray)
        stack.callback(campaign.stop)
        campaign.start()
        broker.write()  # a broker that is killed before it wrote a new session throws away what was for it
        fleet.start()
        nurse = stack.enter_context(Nurse(ports, token, args.seed))
        began = time.monotonic()
        while campaign.killed < args.kills and time.monotonic() - began < seconds:
            campaign.strike()
        taken_over_s = [campaign.take_over() for _ in range(args.takeovers)]
        known_s = [late_subscriber_s(broker.port) for _ in range(_LATE)]
        campaign.settle()
        nurse.stop()
        held = (fleet, subscriber, folder, rule, campaign.broker_killed_s, nurse.seen)
        found, wrong = judge(campaign.store, manifest, *held)
    wrong += [] if args.untimed else too_late(taken_over_s, known_s)
    wrong += [f"a bridge ended by itself: {each}" for each in campaign.exits]
    told = {"killed": campaign.killed, "bridges that ended by themselves": campaign.ended, **found}
    told["a killed bridge's cameras are read on after, s"] = [round(each, 1) for each in taken_over_s]
    told["a late subscriber knows after, s"] = [round(each, 2) for each in known_s]
    return {"kills": dict(sorted(campaign.kills.items())), **told}, [f"{kind}: {each}" for each in wrong]


def too_late(taken_over_s: Sequence[float], known_s: Sequence[float]) -> list[str]:
    """Which bounds on time do not hold: of a place that is taken over, and of a subscriber that comes late; seconds."""
    slow = ", ".join(f"{each:.1f}" for each in taken_over_s if each > _TAKEN_OVER_S)
    late = ", ".join(f"{each:.2f}" for each in known_s if each > _KNOWN_S)
    wrong = [f"a killed bridge's cameras were read on after {slow} s; {_TAKEN_OVER_S:g} at most"] if slow else []
    return wrong + ([f"a late subscriber knew what is open after {late} s; {_KNOWN_S:g} at most"] if late else [])


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_checkpoint(parser)
    parser.add_argument("--kills", type=at_least_one, default=1000, help="at most, of each database (default 1000)")
    parser.add_argument("--seconds", type=float, default=600.0, help="of kills, of each database (default 600)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="one of both (default: both)")
    parser.add_argument("--takeovers", type=int, default=5, help="kills that are timed, in the end (default 5)")
    add_untimed(parser)
    parser.add_argument("--ray", action="store_true", help="the member is on two Ray nodes, which are killed, too")
    parser.add_argument("--seed", type=int, default=0, help="of the kills (default 0)")


def _measure(args: argparse.Namespace) -> Report:
    kinds = [args.database] if args.database else ["sqlite", "postgresql"]
    found, wrong = dict[str, Mapping[str, Any]](), list[str]()
    for kind in kinds:
        found[kind], more = _run(kind, args, args.seconds)
        wrong += more
    names = [name for name in found[kinds[0]] if name != "kills"]
    rows = [
        ["what", *kinds],
        *([name, *(str(found[kind][name]) for kind in kinds)] for name in names),
    ]
    killed = list(dict.fromkeys(name for kind in kinds for name in found[kind]["kills"]))
    rows += [[f"killed: {name}", *(str(found[kind]["kills"].get(name, 0)) for kind in kinds)] for name in killed]
    total = sum(each["killed"] for each in found.values())
    notes = [f"{total} kills, {len(CAMERAS)} cameras, {_SHARDS} shards, {_PROCESSES} processes"]
    return Report(None, {"kills": total, **found}, rows, notes, wrong)


COMMAND = Benchmark("kills", __doc__, "nothing: what must hold, holds or does not", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
