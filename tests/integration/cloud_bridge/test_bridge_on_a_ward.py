"""What a ward's own people would do to a bridge on a real broker, and what must stay true."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bridge_factory import a_state, release
from tests.support.bridge_process import KEYS, Peer, bridge_process, save_checkpoint, wait_for, write_config
from tests.support.services import PATIENCE_S, Broker, until
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import DeviceKey
from wire.protocol.message import coarse_time

NO_RISK = {"alerts": {"raise_at": 1.0, "clear_at": 0.99}}  # an untrained network may say anything
ALWAYS_A_RISK = {"alerts": {"raise_at": 1e-6, "clear_at": 0.0}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineManifest]:
    folder = tmp_path_factory.mktemp("engine")
    _, manifest = save_checkpoint(folder)
    return folder, manifest


@pytest.fixture
def folder(made: tuple[Path, EngineManifest], tmp_path: Path) -> Path:
    """A folder with the checkpoint, the manifest and a known key of the bridge."""
    for entry in made[0].iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "state").mkdir(0o700)
    BRIDGE.save(tmp_path / "state" / "bridge.key")
    return tmp_path


@pytest.fixture
def manifest(made: tuple[Path, EngineManifest]) -> EngineManifest:
    return made[1]


@pytest.fixture
def peer(mosquitto: int) -> Iterator[Peer]:
    with Peer(mosquitto) as peer:
        yield peer


BRIDGE = DeviceKey(b"b" * 32)


def some(manifest: EngineManifest, slots: range, camera: str = "door", boot: int = 1) -> list[bytes]:
    now_s = coarse_time(time.time())
    key = KEYS[camera]
    return [
        release(slot, slot % 90, boot=boot, manifest=manifest, key=key, camera=camera, time_s=now_s) for slot in slots
    ]


def stopped(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return out, err


NASTY = [
    b"[" * 1500,
    b'{"version": 4, "inputs": {"clip_norm": 64, "sigma": "1e10000000"}}',
    b'{"version": 4, "inputs": {"clip_norm": 64, "sigma": "1e400", "receptive_field_s": 1e999}}',
    b'{"a": ' * 3000,
    b"9" * 60_000,
    b'{"junk": 1}',
]


def test_retained_rubbish_neither_stops_the_bridge_nor_silences_a_camera(
    mosquitto: int, peer: Peer, folder: Path, manifest: EngineManifest
) -> None:
    """Under every retained topic, before the bridge starts, while it runs, and again after a restart."""
    config = write_config(folder, mosquitto, **NO_RISK)
    certificate = manifest.certificate().to_json().encode()
    peer.publish("state", a_state("online", certificate=certificate), retain=True)
    for number, payload in enumerate(NASTY[:2]):
        peer.publish("certificate", payload, retain=True)
        with bridge_process(config) as process:
            for name in ("state", "certificate", "features"):
                peer.publish(name, *NASTY)
            slots = range(8 * number, 8 * number + 8)
            peer.publish("features", *some(manifest, slots))
            wait_for(peer, "lab/door/verdict/cloud", 1 + 8 * number)
            stopped(process)


def test_a_graceful_end_in_the_middle_of_a_backlog_loses_and_repeats_nothing(
    mosquitto: int, peer: Peer, folder: Path, manifest: EngineManifest
) -> None:
    config = write_config(folder, mosquitto, **NO_RISK)
    with bridge_process(config) as process:
        peer.publish("features", *some(manifest, range(400)))
        until(lambda: len(peer.verdicts(BRIDGE, manifest)) >= 20)
        out, _ = stopped(process)
    assert ", refused: none;" in out.splitlines()[-1] and out.splitlines()[-1].endswith("unpublished 0")
    with bridge_process(config) as process:
        until(lambda: len(peer.verdicts(BRIDGE, manifest)) >= 393)
        stopped(process)
    verdicts = peer.verdicts(BRIDGE, manifest)
    assert [v.last_slot for v in verdicts] == list(range(7, 400))
    assert all(all(v.present) for v in verdicts)


def test_a_second_bridge_on_one_state_folder_is_refused_by_name(mosquitto: int, peer: Peer, folder: Path) -> None:
    config = write_config(folder, mosquitto, **NO_RISK)
    with bridge_process(config) as first:
        with bridge_process(config, ready=False) as second:
            _, err = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 2
        assert f"{folder / 'state'} is in use by another bridge (process {first.pid})" in err
        stopped(first)
    name = BRIDGE.public.hex[:16]
    wait_for(peer, f"bridges/{name}/bridge", 2)
    told = peer.documents(BRIDGE, "bridge", "bridges", name)
    assert [(each["status"], each["reason"]) for each in told] == [("online", ""), ("offline", "stopped")]


def test_a_camera_that_floods_does_not_keep_its_neighbour_waiting(
    mosquitto: int, peer: Peer, folder: Path, manifest: EngineManifest
) -> None:
    """A backlog of 690 messages, all genuine, and then eight of another camera."""
    config = write_config(folder, mosquitto, **NO_RISK)
    with bridge_process(config) as process:
        process.send_signal(signal.SIGSTOP)
        peer.publish("features", *some(manifest, range(690)))
        peer.publish("features", *some(manifest, range(8), "hall"), camera="hall")
        process.send_signal(signal.SIGCONT)
        until(lambda: len(peer.verdicts(BRIDGE, manifest)) >= 593)
        wait_for(peer, "lab/hall/verdict/cloud")
        out, err = stopped(process)
    order = [topic for topic, _ in peer.heard() if topic.endswith("/verdict/cloud")]
    assert order.index("lab/hall/verdict/cloud") < 400
    assert "refused: flood " in out.splitlines()[-1]  # less than 90: some seconds have passed, too
    assert "faster than its slots pass" in err


def said_open(peer: Peer) -> object:
    """What the door's newest document says is open; None before the first."""
    documents = peer.documents(BRIDGE, "alert/open", "lab", "door")
    return documents[-1]["open"] if documents else None


def test_a_late_subscriber_knows_what_is_open_and_that_the_bridge_is_gone(
    mosquitto: int, peer: Peer, folder: Path, manifest: EngineManifest
) -> None:
    config = write_config(folder, mosquitto, **ALWAYS_A_RISK)
    name = BRIDGE.public.hex[:16]
    with bridge_process(config) as process:
        peer.publish("features", *some(manifest, range(9)))
        until(lambda: [a.label for a in peer.alerts(BRIDGE, manifest)] == ["fall", "fight"])
        until(lambda: said_open(peer) == "fall, fight")  # it is said after the alert
        with Peer(mosquitto) as late:
            wait_for(late, "lab/door/alert/open")
            wait_for(late, f"bridges/{name}/bridge")
            found = late.documents(BRIDGE, "alert/open", "lab", "door")[0]
            assert found["open"] == "fall, fight"
            assert found["ids"] == ", ".join(alert.id for alert in peer.alerts(BRIDGE, manifest))
            assert late.documents(BRIDGE, "alert/open", "lab", "hall")[0]["open"] == ""
            assert late.documents(BRIDGE, "bridge", "bridges", name)[0]["status"] == "online"
        peer.publish("state", a_state("offline"), retain=True)
        until(lambda: [a.label for a in peer.alerts(BRIDGE, manifest)] == ["fall", "fight", "stale"])
        until(lambda: said_open(peer) == "fall, fight, stale")
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    with Peer(mosquitto) as late:
        until(lambda: "offline" in [d["status"] for d in late.documents(BRIDGE, "bridge", "bridges", name)])
        status = late.documents(BRIDGE, "bridge", "bridges", name)[-1]
        assert (status["status"], status["reason"], status["count"]) == ("offline", "connection lost", 0)
        wait_for(late, "lab/door/alert/open")
        assert late.documents(BRIDGE, "alert/open", "lab", "door")[0]["open"] == "fall, fight, stale"


def test_a_broker_that_refuses_the_subscription_ends_the_start(broker: Broker, tmp_path: Path, folder: Path) -> None:
    plugins = sorted(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    if not plugins:
        pytest.skip("Mosquitto's dynamic security plugin is not installed")
    broker.stop()
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"defaultACLAccess": access, "clients": [], "groups": [], "roles": []}))
    rules.chmod(0o644)
    conf = tmp_path / "mosquitto.conf"
    plugin = f"plugin {plugins[0]}\nplugin_opt_config_file {rules}\nuser root\n"
    conf.write_text(conf.read_text() + plugin)
    broker.start()
    with bridge_process(write_config(folder, broker.port), ready=False) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "ready" not in out
    assert "refuses our subscription to veilsight/v1/lab/door/features" in err
    assert "let its access list read there" in err


def test_a_broker_that_grants_and_delivers_nothing_is_told_as_stale(
    broker: Broker, tmp_path: Path, folder: Path, manifest: EngineManifest
) -> None:
    """Mosquitto's access file grants every subscription and withholds the messages."""
    broker.stop()
    rules = tmp_path / "rules"
    rules.write_text("topic write veilsight/v1/lab/#\ntopic read veilsight/v1/lab/+/alert\n")
    rules.chmod(0o644)
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(conf.read_text() + f"acl_file {rules}\nuser root\n")
    broker.start()
    config = write_config(folder, broker.port, ingest={"stale_after_s": 1})
    with Peer(broker.port) as peer, bridge_process(config):
        peer.publish("features", *some(manifest, range(9)))
        until(lambda: peer.alerts(BRIDGE, manifest))
        (alert,) = peer.alerts(BRIDGE, manifest)
    assert alert.label == "stale" and "the broker's access list lets the bridge read it" in alert.sentence
