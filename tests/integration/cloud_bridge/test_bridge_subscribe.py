"""A third party's view: `mosquitto_sub`, generated code in another language, and its own signature check."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.publish as publish
import pytest

from cloud_bridge.documents import BridgeStatus, fill_open_alerts
from tests.support.bridge_factory import DEVICE, OTHER, make_manifest
from tests.support.contour_factory import make_contour
from tests.support.services import PATIENCE_S, ROOT, find
from wire.protocol.contour import ILLUSTRATION, seal_contour
from wire.protocol.keys import DeviceKey
from wire.protocol.message import Alert, FeatureMessage, Verdict, coarse_time

EXAMPLE = ROOT / "examples" / "subscribe"
MANIFEST = make_manifest()
BRIDGE = DeviceKey(b"b" * 32)
BASE = "veilsight/v1/lab/door"
HERE = ("lab", "door")


@pytest.fixture(scope="module")
def node() -> str:
    """The path of node, with the example's packages and generated code in place."""
    node, npm = find("node"), find("npm")
    code, schema = EXAMPLE / "veilsight.mjs", ROOT / "wire" / "protocol" / "veilsight.proto"
    current = code.is_file() and code.stat().st_mtime >= schema.stat().st_mtime
    if not (EXAMPLE / "node_modules" / "protobufjs").is_dir() or not current:
        made = subprocess.run(
            [npm, "install"], cwd=EXAMPLE, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        if made.returncode != 0:
            pytest.skip(f"npm install failed in {EXAMPLE.name}: {made.stderr.strip()[-200:]}")
    return node


def verdict(member: str, sentence: str) -> Verdict:
    return Verdict(
        boot_id=2**40,
        first_slot=0,
        last_slot=7,
        model_id=MANIFEST.model_id,
        member=member,
        present=(True,) * 8,
        probabilities={"normal": 0.125, "fall": 0.75, "fight": 0.125},
        sentence=sentence,
        start_s=0.0,
        end_s=8.0,
        time_s=coarse_time(time.time()),
    )


def messages() -> list[tuple[str, bytes, str]]:
    """(topic, payload, what the example prints for it) of each message."""
    z = np.zeros(MANIFEST.n, np.int16)
    z[:2] = (-300, 400)
    now_s = coarse_time(time.time())
    features = FeatureMessage(2**40, 2**60, MANIFEST.model_id, 0, z, time_s=now_s)
    alert = Alert(2**40, 7, MANIFEST.model_id, True, "fall", 0.75, "a person falls", 8.0, now_s)
    refused = "REFUSED: not signed for this camera by its writer"
    edge, quiet = verdict("edge", ""), {"normal": 0.75, "fall": 0.125, "fight": 0.125}
    unusual = replace(verdict("cloud", "a person walks"), ood_p_value=0.01, unsure=True)
    flipped = bytearray(edge.seal(DEVICE, *HERE))
    flipped[20] ^= 1
    return [
        ("features", features.seal(DEVICE, *HERE), f"slot {2**60} |z| 500.0"),
        ("verdict/edge", edge.seal(DEVICE, *HERE), "fall 0.75"),
        ("verdict/cloud", verdict("cloud", "a person falls").seal(BRIDGE, *HERE), 'fall 0.75 "a person falls"'),
        ("verdict/cloud", unusual.seal(BRIDGE, *HERE), 'fall 0.75 "a person walks"'),
        (
            "verdict/cloud",
            replace(unusual, probabilities=quiet).seal(BRIDGE, *HERE),
            'unsure 0.75 "a person walks"',
        ),
        ("alert", alert.seal(BRIDGE, *HERE), "fall raised 0.75"),
        ("alert", replace(alert, time_s=now_s - 600).seal(BRIDGE, *HERE), "fall raised 0.75 LATE: not now"),
        ("verdict/edge", replace(edge, time_s=0).seal(DEVICE, *HERE), "fall 0.75 LATE: not now"),
        ("verdict/cloud", replace(unusual, late=True).seal(BRIDGE, *HERE), 'fall 0.75 "a person walks" LATE: not now'),
        ("alert/open", fill_open_alerts(["fall", "stale"], {}, now_s, BRIDGE, *HERE), "open: fall, stale"),
        ("alert/open", fill_open_alerts([], {}, now_s, BRIDGE, *HERE), "open: none"),
        ("alert/open", fill_open_alerts([], {}, now_s, OTHER, *HERE), refused),
        (
            "contour",
            seal_contour(make_contour(lying=0.25), BRIDGE, *HERE),
            f"lying 0.25, several 0.2 ({ILLUSTRATION})",
        ),
        ("contour", seal_contour(make_contour(), OTHER, *HERE), refused),
        ("features", features.seal(OTHER, *HERE), refused),
        ("features", features.seal(DEVICE, "lab", "hall"), refused),
        ("verdict/cloud", edge.seal(DEVICE, *HERE), refused),
        ("verdict/edge", bytes(flipped), refused),
    ]


def test_another_language_reads_our_messages_and_refuses_forged_ones(node: str, mosquitto: int) -> None:
    session = [find("mosquitto_sub"), "-p", str(mosquitto), "-t", "veilsight/v1/#", "-q", "1", "-i", "reader", "-c"]
    subprocess.run([*session, "-E"], check=True)  # subscribes and ends: from here on the broker keeps messages for it
    subscriber = [*session, "-F", "%t %x"]
    sent = messages()
    with (
        subprocess.Popen(
            [*subscriber, "-C", str(len(sent) + 3), "-W", str(round(PATIENCE_S))], stdout=subprocess.PIPE
        ) as listening,
        subprocess.Popen(
            [node, "subscribe.mjs", DEVICE.public.hex, BRIDGE.public.hex],
            cwd=EXAMPLE,
            stdin=listening.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as reading,
    ):
        batch: list[Any] = [
            (f"{BASE}/state", b'{"status": "online"}', 1, False),
            (f"{BASE}/features", b"\xff\xff", 1, False),
        ]
        status = BridgeStatus(BRIDGE, 1)
        will = status.will(coarse_time(time.time()))
        batch += [(will.topic, will.payload, 1, False)]
        batch += [(f"{BASE}/{name}", payload, 1, False) for name, payload, _ in sent]
        publish.multiple(batch, port=mosquitto)
        out, err = reading.communicate(timeout=PATIENCE_S)
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(f"{BASE}/features REFUSED: ")
    assert lines[1] == f"{will.topic} offline connection lost"
    assert lines[2:] == [f"{BASE}/{name} {says}" for name, _, says in sent]


def test_the_example_is_short() -> None:
    code = [line for line in (EXAMPLE / "subscribe.mjs").read_text().splitlines() if line.strip()]
    assert len(code) <= 42


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "subscribe.md").read_text()
    assert (EXAMPLE / "subscribe.mjs").read_text().strip() in page
    assert Path(EXAMPLE / "package.json").is_file()
