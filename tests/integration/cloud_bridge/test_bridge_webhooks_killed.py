"""A bridge that is killed while it posts alerts: each arrives, in order, with one id and one body, perhaps twice."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import time
from pathlib import Path

import httpx

from cloud_bridge.api.tokens import add_token
from tests.support.bridge_factory import release
from tests.support.bridge_process import KEYS, Peer, bridge_process, save_checkpoint, write_config
from tests.support.receiver import Receiver
from tests.support.services import PATIENCE_S, free_port, until
from wire.artifact.manifest import EngineManifest
from wire.protocol.message import FLAG_SPENT, coarse_time

CHANGES = 40  # `blind` is raised and cleared by turns, whatever verdicts say


def slow(receiver: Receiver, line: socket.socket) -> None:
    """Take a moment, so that a kill finds letters on their way."""
    time.sleep(0.03)
    line.sendall(b"HTTP/1.1 204 x\r\n\r\n")


def add_webhook(config: Path, url: str) -> None:
    secret = config.with_name("secret")
    secret.write_text("s" * 32)
    secret.chmod(0o600)
    table = f'[[webhooks]]\nurl = "{url}"\nsecret_file = "secret"\nlabels = ["blind"]\n'
    config.write_text(config.read_text() + table)


def blinking(camera: str, manifest: EngineManifest) -> list[bytes]:
    now_s, key, flags = coarse_time(time.time()), KEYS[camera], (FLAG_SPENT, 0)
    return [
        release(slot, flags=flags[slot % 2], manifest=manifest, time_s=now_s, key=key, camera=camera)
        for slot in range(CHANGES)
    ]


def rows(folder: Path, query: str) -> list[tuple[str, ...]]:
    with sqlite3.connect(f"file:{folder / 'state' / 'store.sqlite'}?mode=ro", uri=True) as store:
        return store.execute(query).fetchall()


def test_no_letter_is_lost_and_a_repeat_is_the_same(mosquitto: int, tmp_path: Path) -> None:
    _, manifest = save_checkpoint(tmp_path)
    with Receiver(slow) as receiver, Peer(mosquitto) as peer:
        config = write_config(tmp_path, mosquitto, ingest={"max_age_s": 3600.0, "stale_after_s": 3600.0})
        add_webhook(config, receiver.url)
        for kill in range(4):
            enough = len(receiver.heard) + 9
            with bridge_process(config) as process:
                for camera in KEYS if kill == 0 else ():
                    peer.publish("features", *blinking(camera, manifest), camera=camera)
                while len(receiver.heard) < enough:
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL)
                process.wait(PATIENCE_S)
        with bridge_process(config):
            until(lambda: len({each.headers["veilsight-id"] for each in receiver.heard}) == 2 * CHANGES)
            until(lambda: not rows(tmp_path, "SELECT alert_id FROM webhooks"))
    heard = [json.loads(each.body) for each in receiver.heard]
    assert len({each.body for each in receiver.heard}) == 2 * CHANGES
    for camera in KEYS:
        order = [each["slot"] for each in heard if each["camera"] == f"lab/{camera}"]
        assert order == sorted(order) and sorted(set(order)) == list(range(CHANGES))
        assert all(each["change"] == ("cleared" if each["slot"] % 2 else "raised") for each in heard)
    made = rows(tmp_path, "SELECT id FROM alerts WHERE label = 'blind'")
    assert {each["id"] for each in heard} == {number for (number,) in made}
    assert len(heard) <= 2 * CHANGES + 4 * 4 * 2  # what was on its way at each kill


def test_the_process_delivers_counts_and_shows(mosquitto: int, tmp_path: Path) -> None:
    _, manifest = save_checkpoint(tmp_path)
    port, now_s = free_port(), coarse_time(time.time())
    token = add_token(tmp_path / "tokens.json", "paul", "viewer", ["*"], 1.0)
    api = {"listen": f"127.0.0.1:{port}", "tokens": str(tmp_path / "tokens.json")}
    with Receiver() as receiver:
        config = write_config(tmp_path, mosquitto, api=api)
        add_webhook(config, receiver.url)
        with bridge_process(config) as process, Peer(mosquitto) as peer:
            peer.publish("features", release(0, flags=FLAG_SPENT, manifest=manifest, time_s=now_s))
            until(lambda: len(receiver.heard) == 1)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
                head = {"Authorization": f"Bearer {token}"}
                line = f'webhooks_total{{outcome="delivered",receiver="{receiver.url[7:].split("/")[0]}"}} 1.0'
                until(lambda: line in http.get("/metrics", headers=head).text)
                assert "veilsight_bridge_webhooks_waiting 0" in http.get("/metrics", headers=head).text
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0 and "Traceback" not in err, err


def test_a_secret_that_is_not_there_ends_the_start(mosquitto: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    config = write_config(tmp_path, mosquitto)
    add_webhook(config, "https://receiver.example/hook?token=hidden")
    (tmp_path / "secret").unlink()
    with bridge_process(config, ready=False) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "[[webhooks]] secret_file" in err
    assert "Traceback" not in err and "hidden" not in err
