"""Bridges that are killed, stopped and started again in the middle of batches, against a real Mosquitto.

Whatever dies: every release that the broker was told about is in the store once, all verdicts and alerts are those of a
bridge that was left alone, and nothing is doubled.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.bridge_factory import release
from tests.support.bridge_process import KEYS, Peer, bridge_process, save_checkpoint, write_config
from tests.support.databases import running_postgres
from tests.support.services import PATIENCE_S, until
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, Verdict, coarse_time

BRIDGE = DeviceKey(b"b" * 32)
MANY: Mapping[str, Mapping[str, object]] = {
    "alerts": {"raise_at": 0.36, "raise_for": 1, "clear_at": 0.34, "clear_for": 1},  # an untrained network wavers
    "ingest": {"burst": 5000, "stale_after_s": 3600.0},  # a start may take long, and is no loss of the bridge
}
SLOTS = 240
LABELS = ("normal", "fall", "fight")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineManifest]:
    folder = tmp_path_factory.mktemp("engine")
    _, manifest = save_checkpoint(folder)
    return folder, manifest


def new_folder(made: tuple[Path, EngineManifest], folder: Path) -> Path:
    """A folder with the checkpoint, the manifest and a known key of the bridge."""
    shutil.copytree(made[0], folder)
    (folder / "state").mkdir(0o700)
    BRIDGE.save(folder / "state" / "bridge.key")
    return folder


@pytest.fixture
def peer(mosquitto: int) -> Iterator[Peer]:
    with Peer(mosquitto) as peer:
        yield peer


def messages(manifest: EngineManifest, boot: int, slots: Sequence[int]) -> list[bytes]:
    now_s = coarse_time(time.time())
    return [
        release(slot, (slot * 37) % 400 - 200, boot=boot, manifest=manifest, time_s=now_s, key=KEYS["door"])
        for slot in slots
    ]


def plain(verdict: Verdict) -> tuple[object, ...]:
    """What must not depend on kills: all but the clock, and the last bit of probabilities (see `same`)."""
    return (verdict.first_slot, verdict.last_slot, verdict.present, verdict.label, verdict.sentence)


def change(alert: Alert) -> tuple[object, ...]:
    return (alert.label, alert.raised, alert.slot)


def same(found: Mapping[Any, Sequence[float]], expected: Mapping[Any, Sequence[float]]) -> bool:
    """Whether probabilities are the same to float32's last bits, which depend on how many events are read at once."""
    apart = [abs(a - b) for key in expected for a, b in zip(found[key], expected[key], strict=True)]
    return found.keys() == expected.keys() and max(apart) < 1e-6


def likely(verdicts: Sequence[Verdict]) -> dict[Any, list[float]]:
    return {verdict.last_slot: [verdict.probabilities[name] for name in LABELS] for verdict in verdicts}


def firsts(found: Sequence[bytes]) -> list[bytes]:
    """Without what was published again: the same bytes."""
    return list(dict.fromkeys(found))


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "state" / "store.sqlite") as connection:
        return connection.execute(query).fetchall()


def undisturbed(peer: Peer, config: Path, manifest: EngineManifest, boot: int) -> tuple[list[Verdict], list[Alert]]:
    """Verdicts and alerts of a bridge that nobody kills."""
    with bridge_process(config) as process:
        peer.publish("features", *messages(manifest, boot, range(SLOTS)))
        until(lambda: len(peer.verdicts(BRIDGE, manifest)) >= SLOTS - 7)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    verdicts, alerts = peer.verdicts(BRIDGE, manifest), peer.alerts(BRIDGE, manifest)
    peer.kept.clear()
    return verdicts, alerts


def disturbed(peer: Peer, config: Path, manifest: EngineManifest, boot: int, ends: Sequence[int]) -> None:
    """Publish while one bridge after the other is ended by a signal somewhere in a batch; then let one finish."""
    chance, sent = random.Random(7), 0
    for number in ends:
        with bridge_process(config) as process:
            more = SLOTS // len(ends)
            peer.publish("features", *messages(manifest, boot, range(sent, sent + more)))
            sent += more
            time.sleep(chance.uniform(0.0, 0.3))
            process.send_signal(number)
            process.communicate(timeout=PATIENCE_S)
    with bridge_process(config) as process:
        peer.publish("features", *messages(manifest, boot, range(sent, SLOTS)))
        until(lambda: SLOTS - 1 in [verdict.last_slot for verdict in peer.verdicts(BRIDGE, manifest)])
        finish(process)


def finish(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert out.splitlines()[-1].endswith("unpublished 0")


ENDS = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]


def test_kills_in_the_middle_of_batches_change_nothing(
    mosquitto: int, peer: Peer, made: tuple[Path, EngineManifest], tmp_path: Path
) -> None:
    manifest = made[1]
    whole = new_folder(made, tmp_path / "whole")
    verdicts, alerts = undisturbed(peer, write_config(whole, mosquitto, **MANY), manifest, boot=1)
    assert [verdict.last_slot for verdict in verdicts] == list(range(7, SLOTS)) and len(alerts) > 4
    killed = new_folder(made, tmp_path / "killed")
    disturbed(peer, write_config(killed, mosquitto, **MANY), manifest, 1, ENDS)

    again = firsts([payload for topic, payload in peer.heard() if topic == "lab/door/verdict/cloud"])
    assert len(again) == len(verdicts)  # a repeat has the same bytes
    heard = {verdict.last_slot: verdict for verdict in peer.verdicts(BRIDGE, manifest)}
    assert [plain(heard[slot]) for slot in sorted(heard)] == [plain(verdict) for verdict in verdicts]
    assert same(likely([*heard.values()]), likely(verdicts))
    told = firsts([payload for topic, payload in peer.heard() if topic == "lab/door/alert"])
    assert len(told) == len(alerts)
    changes = {change(alert): [alert.probability] for alert in peer.alerts(BRIDGE, manifest)}
    assert [*changes] == [change(alert) for alert in alerts]
    assert same(changes, {change(alert): [alert.probability] for alert in alerts})
    for folder in (whole, killed):
        assert rows(folder, "SELECT slot, refused FROM releases ORDER BY slot") == [(slot, "") for slot in range(SLOTS)]
        assert rows(folder, "SELECT count(*) FROM verdicts") == [(SLOTS - 7,)]
        assert rows(folder, "SELECT count(*) FROM alerts") == [(len(alerts),)]
    ids = [rows(folder, "SELECT id FROM alerts ORDER BY id") for folder in (whole, killed)]
    assert ids[0] == ids[1]


def test_a_database_that_is_killed_while_the_bridge_runs(
    mosquitto: int, peer: Peer, made: tuple[Path, EngineManifest], tmp_path: Path
) -> None:
    manifest, folder = made[1], new_folder(made, tmp_path / "bridge")
    name = BRIDGE.public.hex[:16]
    with running_postgres() as server:
        config = write_config(folder, mosquitto, store={"url": server.new_database()}, **MANY)
        with bridge_process(config) as process:
            peer.publish("features", *messages(manifest, 1, range(60)))
            until(lambda: len(peer.verdicts(BRIDGE, manifest)) >= 53)
            server.stop()
            peer.publish("features", *messages(manifest, 1, range(60, 120)))
            until(
                lambda: any(
                    str(told["reason"]).startswith("the store cannot be written")
                    for told in peer.documents(BRIDGE, "bridge", "bridges", name)
                )
            )
            assert max(v.last_slot for v in peer.verdicts(BRIDGE, manifest)) == 59
            server.start()
            until(lambda: 119 in [v.last_slot for v in peer.verdicts(BRIDGE, manifest)])
            finish(process)
        told = peer.documents(BRIDGE, "bridge", "bridges", name)
    assert [v.last_slot for v in peer.verdicts(BRIDGE, manifest)] == list(range(7, 120))
    assert [str(each["reason"])[:9] for each in told] == ["", "the store", "", "stopped"]


def test_two_bridges_on_one_database_are_refused_by_name(
    mosquitto: int, made: tuple[Path, EngineManifest], tmp_path: Path
) -> None:
    """Each has a state folder of its own: only the database knows of the other."""
    with running_postgres() as server:
        url = server.new_database()
        configs = [write_config(new_folder(made, tmp_path / n), mosquitto, store={"url": url}) for n in ("a", "b")]
        with bridge_process(configs[0]) as first:
            with bridge_process(configs[1], ready=False) as second:
                _, err = second.communicate(timeout=PATIENCE_S)
            assert second.returncode == 2 and f"process {first.pid})" in err and "in use by another bridge" in err
            finish(first)
        with bridge_process(configs[1]) as second:
            finish(second)
