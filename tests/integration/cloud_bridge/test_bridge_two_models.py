"""A ward is updated camera by camera under a running bridge: two engines publish, and no verdict is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from cloud_bridge.api.tokens import add_token
from familial.model.checkpoint import checkpoint_hash, save
from tests.support.bridge_factory import make_manifest, release
from tests.support.bridge_process import KEYS, Peer, bridge_process
from tests.support.family_factory import make_family
from tests.support.services import PATIENCE_S, free_port, until
from wire.artifact.manifest import EngineManifest
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.keys import PublicKey
from wire.protocol.message import Verdict, coarse_time, open_verdict


class Ward:
    """The bridge's file, its two models, and what its cameras send.

    Attributes:
        old, new: The manifests of both engines.
    """

    def __init__(self, folder: Path, broker: int) -> None:
        self._folder, self._broker, self.api = folder, broker, free_port()
        self.file = folder / "bridge.toml"
        self.old, self.new = self._model("old", 0), self._model("new", 1)
        self.token = add_token(folder / "tokens.json", "nora", "viewer", ["*"], 1.0)

    def _model(self, name: str, seed: int) -> EngineManifest:
        checkpoint = self._folder / name / "checkpoint"
        save(make_family(seed=seed), checkpoint)
        manifest = make_manifest(checkpoint=checkpoint_hash(checkpoint))
        manifest.save(self._folder / name)
        return manifest

    def write(self, first: str, *more: str) -> None:
        """Name the models in the file."""
        tables: list[tuple[str, dict[str, object]]] = [
            ("[broker]", {"url": f"mqtt://127.0.0.1:{self._broker}"}),
            ("[state]", {"dir": str(self._folder / "state")}),
            ("[ingest]", {"shed_after_s": 1e6, "stale_after_s": 1e6}),
            ("[api]", {"listen": f"127.0.0.1:{self.api}", "tokens": str(self._folder / "tokens.json")}),
            ("[model]", {**self._entry(first), "threads": 1}),
            *(("[[models]]", self._entry(name)) for name in more),
        ]
        for name, key in KEYS.items():
            tables.append(("[[cameras]]", {"site": "lab", "camera": name, "public_key": key.public.hex}))
        text = "".join(
            f"{head}\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items()) for head, keys in tables
        )
        self.file.write_text(text)

    def _entry(self, name: str) -> dict[str, object]:
        return {"checkpoint": str(self._folder / name / "checkpoint"), "engine": str(self._folder / name)}

    def verdicts(self, peer: Peer, camera: str) -> list[Verdict]:
        """All that came, each verified against the model that it names."""
        public = PublicKey.parse(str(self._folder / "state" / "bridge.key.pub"))
        found = [payload for topic, payload in peer.heard() if topic == f"lab/{camera}/verdict/cloud"]
        models = [pb.Verdict.FromString(pb.Signed.FromString(payload).body).model_id for payload in found]
        assert {*models} <= {self.old.model_id, self.new.model_id}
        return [open_verdict(p, public, "lab", camera, m) for p, m in zip(found, models, strict=True)]


def slots(manifest: EngineManifest, camera: str, boot: int, which: range) -> list[bytes]:
    now_s, key = coarse_time(time.time()), KEYS[camera]
    return [release(s, s, boot=boot, manifest=manifest, key=key, time_s=now_s, camera=camera) for s in which]


def asked(http: httpx.Client, path: str) -> httpx.Response:
    """The API's answer; who asks too often waits."""
    while (answer := http.get(path)).status_code == 429:
        time.sleep(0.5)
    return answer


def health(http: httpx.Client) -> dict[str, object]:
    found: dict[str, object] = asked(http, "/v1/health").json()
    return found


def runs(http: httpx.Client, manifest: EngineManifest) -> bool:
    """Whether a camera's last start ran this model, as the bridge counts them."""
    return f'{{model="{manifest.model_id:016x}"}}' in asked(http, "/metrics").text


@pytest.fixture
def ward(tmp_path: Path, mosquitto: int) -> Ward:
    return Ward(tmp_path, mosquitto)


def hang_up(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGHUP)


def test_a_ward_is_updated_without_a_restart(ward: Ward, mosquitto: int) -> None:
    ward.write("old")
    head = {"Authorization": f"Bearer {ward.token}"}
    with (
        bridge_process(ward.file) as process,
        Peer(mosquitto) as peer,
        httpx.Client(base_url=f"http://127.0.0.1:{ward.api}", headers=head, timeout=PATIENCE_S) as http,
    ):
        for camera in KEYS:
            peer.publish("features", *slots(ward.old, camera, 1, range(10)), camera=camera)
        until(lambda: len(ward.verdicts(peer, "hall")) == len(ward.verdicts(peer, "door")) == 3)

        # the door is updated before its model is there: refused, and told
        peer.publish("features", *slots(ward.new, "door", 2, range(2)))
        until(lambda: health(http)["unknown_models"] == {"lab/door": f"{ward.new.model_id:016x}"})

        # a file with a fault changes nothing; the hall is read on
        ward.write("old", "nowhere")
        hang_up(process)
        until(lambda: health(http)["models"] == "failing")
        peer.publish("features", *slots(ward.old, "hall", 1, range(10, 12)), camera="hall")
        until(lambda: len(ward.verdicts(peer, "hall")) == 5)

        # the model is added: the door is read; both engines publish, while the signal comes again and again
        ward.write("old", "new")
        hang_up(process)
        until(lambda: health(http)["models"] == "ok" and runs(http, ward.new))
        for first in range(0, 20, 4):
            peer.publish("features", *slots(ward.new, "door", 2, range(2 + first, 6 + first)))
            peer.publish("features", *slots(ward.old, "hall", 1, range(12 + first, 16 + first)), camera="hall")
            hang_up(process)
        until(lambda: len(ward.verdicts(peer, "door")) == 3 + 13 and len(ward.verdicts(peer, "hall")) == 5 + 20)

        # the hall is updated as well, and the old model goes
        peer.publish("features", *slots(ward.new, "hall", 2, range(9)), camera="hall")
        until(lambda: len(ward.verdicts(peer, "hall")) == 25 + 2)
        ward.write("new")
        hang_up(process)
        until(lambda: not runs(http, ward.old))
        peer.publish("features", *slots(ward.new, "hall", 2, range(9, 11)), camera="hall")
        until(lambda: len(ward.verdicts(peer, "hall")) == 27 + 2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0 and "Traceback" not in err, err
        told = [(v.model_id, v.boot_id, v.last_slot) for v in ward.verdicts(peer, "door")]
        hall = [(v.model_id, v.boot_id, v.last_slot) for v in ward.verdicts(peer, "hall")]
    old, new = ward.old.model_id, ward.new.model_id
    assert told == [*((old, 1, slot) for slot in (7, 8, 9)), *((new, 2, slot) for slot in range(9, 22))]
    assert hall == [*((old, 1, slot) for slot in range(7, 32)), *((new, 2, slot) for slot in range(7, 11))]
    assert "[[models]] 1 (engine" in err and "the models stay as they are" in err
    assert out.splitlines()[-1].startswith("received 75, refused: model 2; gaps 2")
