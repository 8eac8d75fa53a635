"""Three processes for two shards, on one store and a real Mosquitto: one is killed, or stopped and woken too late.

Whatever happens to a process: every release is read once, no verdict is lost or made twice, and what is kept at the
broker is what is true.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_bridge.store.place import LEASE_S
from tests.support.bridge_factory import release
from tests.support.bridge_process import KEYS, Peer, save_checkpoint, write_config
from tests.support.services import PATIENCE_S, ROOT, until
from wire.artifact.manifest import EngineManifest
from wire.broker import BrokerConfig
from wire.mqtt import MqttClient
from wire.protocol.keys import DeviceKey
from wire.protocol.message import FLAG_SPENT, coarse_time

SHARD_OF = {"door": "1/2", "hall": "2/2"}


class Process:
    """`python -m cloud_bridge` with the lines that it prints."""

    def __init__(self, config: Path) -> None:
        command = [sys.executable, "-m", "cloud_bridge", "--config", str(config)]
        self.run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = queue.Queue[tuple[float, str]]()
        self.shard = ""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.run.stdout is not None
        for line in self.run.stdout:
            self.lines.put((time.monotonic(), line))

    def says(self, begin: str) -> float:
        """Wait for a line; returns when it came."""
        while True:
            try:
                at, line = self.lines.get(timeout=PATIENCE_S)
            except queue.Empty:
                self.run.kill()
                raise AssertionError(self.run.communicate()[1]) from None
            if line.startswith(begin):
                self.shard = line.rpartition("shard ")[2].strip()
                return at


@contextlib.contextmanager
def processes(config: Path) -> Iterator[tuple[dict[str, Process], Process]]:
    """One process for each shard, by its shard, and a spare that waits."""
    made = [Process(config) for _ in range(3)]
    try:
        until(lambda: sum(not _waits(each) for each in made) == 2)
        readers = {each.shard: each for each in made if each.shard}
        (spare,) = [each for each in made if not each.shard]
        assert set(readers) == {"1/2", "2/2"}
        yield readers, spare
    finally:
        for each in made:
            each.run.kill()
            each.run.wait(PATIENCE_S)
            for pipe in (each.run.stdout, each.run.stderr):
                if pipe is not None:
                    pipe.close()


def _waits(process: Process) -> bool:
    with contextlib.suppress(queue.Empty):
        while not process.shard:
            _, line = process.lines.get_nowait()
            if line.startswith("ready: 1 camera"):
                process.shard = line.rpartition("shard ")[2].strip()
    return not process.shard


def publish(peer: Peer, manifest: EngineManifest, slots: range) -> None:
    """A release of each camera for each slot; `blind` is raised by even slots and cleared by odd ones."""
    now_s = coarse_time(time.time())
    for camera, key in KEYS.items():
        sent = [
            release(
                slot, slot, flags=(FLAG_SPENT, 0)[slot % 2], manifest=manifest, time_s=now_s, key=key, camera=camera
            )
            for slot in slots
        ]
        peer.publish("features", *sent, camera=camera)


@pytest.fixture
def ward(mosquitto: int, tmp_path: Path) -> tuple[Path, EngineManifest]:
    _, manifest = save_checkpoint(tmp_path)
    return write_config(tmp_path, mosquitto, run={"shard": "any/2"}, ingest={"max_age_s": 3600.0}), manifest


def rows(config: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{config.parent / 'state' / 'store.sqlite'}?mode=ro", uri=True) as store:
        return store.execute(query).fetchall()


def read_to(config: Path, slots: int) -> bool:
    """Whether both cameras were read to there, and all that follows was published."""
    told = rows(config, "SELECT next_slot FROM cameras") == [(slots,), (slots,)]
    return told and rows(config, "SELECT count(*) FROM outbox") == [(0,)]


def check(config: Path, peer: Peer, manifest: EngineManifest, slots: int) -> None:
    """Each release and verdict is in the store once, each verdict was published, and `alert/open` is true."""
    key = DeviceKey.load(config.parent / "state" / "bridge.key")
    assert rows(config, "SELECT count(*) FROM releases WHERE refused = ''") == [(2 * slots,)]
    read = range(7, slots, 2)  # releases that are noise alone complete no event
    assert rows(config, "SELECT count(*) FROM verdicts") == [(2 * len(read),)]
    assert rows(config, "SELECT count(*) FROM alerts WHERE label = 'blind'") == [(2 * slots,)]
    for camera in KEYS:
        check_camera(peer, key, manifest, camera, read)


def check_camera(peer: Peer, key: DeviceKey, manifest: EngineManifest, camera: str, read: range) -> None:
    """Each verdict was published, the same where twice; no alert is open; the status is that of the living process."""
    until(lambda: len(peer.verdicts(key, manifest, camera)) >= len(read))
    verdicts = peer.verdicts(key, manifest, camera)
    assert {verdict.last_slot for verdict in verdicts} == set(read)
    assert len({(v.last_slot, tuple(v.probabilities.values()), v.sentence) for v in verdicts}) == len(read)
    until(lambda: peer.documents(key, "alert/open", "lab", camera)[-1]["open"] == "")
    name = f"{key.public.hex[:16]}-{SHARD_OF[camera].replace('/', '.')}"
    until(lambda: peer.documents(key, "bridge", "bridges", name)[-1]["status"] == "online")


@pytest.mark.parametrize("camera", list(KEYS))
def test_a_shard_whose_process_is_killed_is_taken_over(
    ward: tuple[Path, EngineManifest], mosquitto: int, camera: str
) -> None:
    config, manifest = ward
    with Peer(mosquitto) as peer, processes(config) as (readers, spare):
        publish(peer, manifest, range(30))
        readers[SHARD_OF[camera]].run.kill()
        killed_s = time.monotonic()
        publish(peer, manifest, range(30, 60))
        passed_s = spare.says("ready: 1 camera") - killed_s
        print(f"taken over after {passed_s:.1f} s")
        assert spare.shard == SHARD_OF[camera] and passed_s < 60.0
        until(lambda: read_to(config, 60))
        check(config, peer, manifest, 60)


def stop(process: subprocess.Popen[str], config: Path) -> None:
    """Stop a process, but not in a transaction: SQLite has one lock, and nobody gets it from one that is stopped."""
    while True:
        process.send_signal(signal.SIGSTOP)
        store = sqlite3.connect(config.parent / "state" / "store.sqlite", timeout=2.0, isolation_level=None)
        with contextlib.closing(store), contextlib.suppress(sqlite3.OperationalError):
            store.execute("BEGIN IMMEDIATE")
            store.execute("ROLLBACK")
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)


def test_a_process_that_wakes_after_its_shard_was_taken_writes_and_publishes_nothing(
    ward: tuple[Path, EngineManifest], mosquitto: int
) -> None:
    config, manifest = ward
    with Peer(mosquitto) as peer, processes(config) as (readers, spare):
        publish(peer, manifest, range(30))
        until(lambda: read_to(config, 30))
        publish(peer, manifest, range(30, 50))
        stopped = readers["1/2"].run
        stopped_s = time.monotonic()
        stop(stopped, config)  # perhaps in the middle of a batch
        passed_s = spare.says("ready: 1 camera") - stopped_s
        print(f"taken over after {passed_s:.1f} s")
        assert spare.shard == "1/2" and passed_s > LEASE_S - 3.0
        publish(peer, manifest, range(50, 80))
        until(lambda: read_to(config, 80))
        key = DeviceKey.load(config.parent / "state" / "bridge.key")
        until(lambda: {verdict.last_slot for verdict in peer.verdicts(key, manifest, "door")} == set(range(7, 80, 2)))
        before = len(peer.heard())
        stopped.send_signal(signal.SIGCONT)
        assert stopped.stderr is not None
        stopped.wait(PATIENCE_S)
        words = stopped.stderr.read()
        assert stopped.returncode == 2 and "has taken our place in the store (shard 1/2)" in words, words
        assert "Traceback" not in words
        publish(peer, manifest, range(80, 100))
        until(lambda: read_to(config, 100))
        check(config, peer, manifest, 100)
        late = [name for name, _ in peer.heard()[before:] if name.startswith("lab/door/verdict")]
        assert len(late) == 10  # of the new releases alone


def test_a_spare_ends_when_it_is_told_to(ward: tuple[Path, EngineManifest]) -> None:
    with processes(ward[0]) as (_, spare):
        spare.run.send_signal(signal.SIGTERM)
        assert spare.run.wait(PATIENCE_S) == 0


def test_a_client_connects_only_while_it_may(mosquitto: int) -> None:
    """Its connection would end that of the process that reads the shard now."""
    may = [False]
    broker = BrokerConfig(f"mqtt://127.0.0.1:{mosquitto}")
    client = MqttClient(broker, "vsb-test-1.2", session_s=60, may_connect=lambda: may[0])
    client.open()
    try:
        assert not client.wait(1.0) and client.sessions == 0
        may[0] = True
        assert client.wait(PATIENCE_S)
        may[0] = False
        other = MqttClient(broker, "vsb-test-1.2", session_s=60)
        other.open()
        assert other.wait(PATIENCE_S)
        until(lambda: not client.connected)
        time.sleep(2.5)  # longer than the pause before a reconnect
        assert other.connected and other.sessions == 1 == client.sessions
        client.close()
        time.sleep(2.5)
        assert other.connected and other.sessions == 1 == client.sessions
        other.close()
        ended, ask = client._client, client._client.on_pre_connect
        assert ask is not None
        with pytest.raises(ConnectionAbortedError):  # a last connection would send again what was on its way
            ask(ended, None)
    finally:
        client.close()
