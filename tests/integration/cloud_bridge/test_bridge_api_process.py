"""The bridge's process with its API: what is in the store is served, and an open stream does not hold up the end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx

from cloud_bridge.api.tokens import add_token
from tests.support.bridge_factory import release
from tests.support.bridge_process import Peer, bridge_process, save_checkpoint, write_config
from tests.support.services import PATIENCE_S, free_port, until
from wire.protocol.message import coarse_time


def test_the_process_serves_its_store_and_ends_beside_a_listener(mosquitto: int, tmp_path: Path) -> None:
    _, manifest = save_checkpoint(tmp_path)
    port, now_s = free_port(), coarse_time(time.time())
    token = add_token(tmp_path / "tokens.json", "nora", "nurse", ["lab"], 1.0)
    api = {"listen": f"127.0.0.1:{port}", "tokens": str(tmp_path / "tokens.json")}
    config = write_config(tmp_path, mosquitto, api=api)
    head = {"Authorization": f"Bearer {token}"}
    with (
        bridge_process(config) as process,
        Peer(mosquitto) as peer,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=head, timeout=PATIENCE_S) as http,
    ):
        assert http.get("/health").json() == {"status": "ok"}
        with http.stream("GET", "/v1/stream?kind=verdict") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: ready"
            peer.publish("features", *(release(slot, slot, manifest=manifest, time_s=now_s) for slot in range(9)))
            assert '"camera": "lab/door"' in next(line for line in lines if line.startswith('data: {"'))
            until(lambda: len(http.get("/v1/verdicts").json()["rows"]) == 2)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "Traceback" not in err


def test_a_port_that_is_taken_ends_the_start(mosquitto: int, tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    add_token(tmp_path / "tokens.json", "nora", "nurse", ["lab"], 1.0)
    api = {"listen": f"127.0.0.1:{mosquitto}", "tokens": str(tmp_path / "tokens.json")}
    with bridge_process(write_config(tmp_path, mosquitto, api=api), ready=False) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2 and "free the port or name another" in err and "Traceback" not in err
